//! Netlink in the little that a container needs: build a request, send it, hear whether the kernel did it.
//!
//! Blocking and without allocation beyond one buffer, for the shim has neither threads nor an async runtime. The
//! numbers are the kernel's (linux/netlink.h, linux/rtnetlink.h).

use std::{io, os::fd::OwnedFd};

use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, netlink};

/// `nlmsghdr`: length, type, flags, sequence, port.
const HEADER: usize = 16;
const ERROR: u16 = 2; // NLMSG_ERROR
const DONE: u16 = 3; // NLMSG_DONE
const REQUEST: u16 = 1; // NLM_F_REQUEST
const ACK: u16 = 4; // NLM_F_ACK
const NESTED: u16 = 0x8000; // NLA_F_NESTED

/// Create, fail when it exists: `NLM_F_CREATE | NLM_F_EXCL`.
pub(super) const CREATE: u16 = 0x600;
/// Give everything that matches: `NLM_F_DUMP`.
pub(crate) const DUMP: u16 = 0x300;

/// A request being put together.
pub(crate) struct Message {
    bytes: Vec<u8>,
}

impl Message {
    /// Begins a request of a type with its fixed part.
    pub(crate) fn new(kind: u16, flags: u16, fixed: &[u8]) -> Self {
        let mut bytes = Vec::with_capacity(256);
        bytes.extend_from_slice(&[0; 4]); // length, set by `finish`
        bytes.extend_from_slice(&kind.to_ne_bytes());
        bytes.extend_from_slice(&(flags | REQUEST).to_ne_bytes());
        bytes.extend_from_slice(&[0; 8]); // sequence and port: one request at a time needs neither
        bytes.extend_from_slice(fixed);
        Self { bytes }
    }

    fn align(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }

    /// Appends an attribute.
    pub(super) fn attribute(mut self, kind: u16, value: &[u8]) -> Self {
        self.bytes.extend_from_slice(&((4 + value.len()) as u16).to_ne_bytes());
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        self.bytes.extend_from_slice(value);
        self.align();
        self
    }

    /// Appends an attribute that holds what `fill` appends.
    pub(super) fn nested(mut self, kind: u16, fill: impl FnOnce(Self) -> Self) -> Self {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(&[0; 2]);
        self.bytes.extend_from_slice(&(kind | NESTED).to_ne_bytes());
        let mut filled = fill(self);
        let length = (filled.bytes.len() - start) as u16;
        filled.bytes[start..start + 2].copy_from_slice(&length.to_ne_bytes());
        filled
    }

    /// Appends bytes as they are (the fixed part of a nested message).
    pub(super) fn raw(mut self, bytes: &[u8]) -> Self {
        self.bytes.extend_from_slice(bytes);
        self
    }

    fn finish(mut self) -> Vec<u8> {
        let length = self.bytes.len() as u32;
        self.bytes[..4].copy_from_slice(&length.to_ne_bytes());
        self.bytes
    }
}

/// A netlink socket; it speaks to the network namespace in which it was opened, wherever its descriptor goes.
pub(crate) struct Socket(OwnedFd);

impl Socket {
    /// Opens a socket of links, addresses and routes.
    pub(super) fn route() -> io::Result<Self> {
        Self::open(None)
    }

    /// Opens a socket that lists sockets.
    pub(crate) fn diagnostics() -> io::Result<Self> {
        Self::open(Some(netlink::SOCK_DIAG))
    }

    fn open(protocol: Option<rustix::net::Protocol>) -> io::Result<Self> {
        let flags = SocketFlags::CLOEXEC;
        Ok(Self(rustix::net::socket_with(AddressFamily::NETLINK, SocketType::RAW, flags, protocol)?))
    }

    /// Takes over a socket that another process opened.
    pub(crate) fn from_descriptor(descriptor: OwnedFd) -> Self {
        Self(descriptor)
    }

    /// Gives the socket away.
    pub(super) fn into_descriptor(self) -> OwnedFd {
        self.0
    }

    /// Sends a request that changes something and waits for the kernel's answer.
    pub(super) fn change(&self, mut message: Message) -> io::Result<()> {
        let flags = u16::from_ne_bytes([message.bytes[6], message.bytes[7]]) | ACK;
        message.bytes[6..8].copy_from_slice(&flags.to_ne_bytes());
        self.ask(message, |_, _| ())
    }

    /// Sends a request and hands each answer's type and contents to `each`.
    pub(crate) fn ask(&self, message: Message, mut each: impl FnMut(u16, &[u8])) -> io::Result<()> {
        rustix::net::send(&self.0, &message.finish(), SendFlags::empty())?;
        let mut buffer = [0_u8; 8192];
        loop {
            let (_, length) = rustix::net::recv(&self.0, &mut buffer[..], RecvFlags::empty())?;
            let mut rest = buffer.get(..length).ok_or(io::ErrorKind::InvalidData)?;
            while let Some((kind, body, after)) = split(rest) {
                match kind {
                    DONE => return Ok(()),
                    ERROR => {
                        let code = body.get(..4).and_then(|code| code.try_into().ok()).map_or(-5, i32::from_ne_bytes);
                        return if code == 0 { Ok(()) } else { Err(io::Error::from_raw_os_error(-code)) };
                    }
                    _ => each(kind, body),
                }
                rest = after;
            }
        }
    }
}

fn split(bytes: &[u8]) -> Option<(u16, &[u8], &[u8])> {
    let length = u32::from_ne_bytes(bytes.get(..4)?.try_into().ok()?) as usize;
    let kind = u16::from_ne_bytes(bytes.get(4..6)?.try_into().ok()?);
    let body = bytes.get(HEADER..length)?;
    Some((kind, body, bytes.get(length.next_multiple_of(4)..).unwrap_or_default()))
}

/// The attributes of an answer: type and value each.
pub(crate) fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let length = usize::from(u16::from_ne_bytes(bytes.get(..2)?.try_into().ok()?));
        let kind = u16::from_ne_bytes(bytes.get(2..4)?.try_into().ok()?);
        let value = bytes.get(4..length)?;
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind & !NESTED, value))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_with_nested_attributes_has_right_lengths() {
        let message =
            Message::new(16, CREATE, &[7; 16]).nested(18, |inner| inner.attribute(1, b"veth")).attribute(3, b"name\0");
        let bytes = message.finish();
        let (kind, body, rest) = split(&bytes).expect("one message");
        assert_eq!((kind, rest.len()), (16, 0));
        let read: Vec<_> = attributes(&body[16..]).collect();
        assert_eq!(read, [(18, &b"\x08\x00\x01\x00veth"[..]), (3, &b"name\0"[..])]);
    }

    #[test]
    fn the_kernel_says_why_it_refuses() {
        let socket = Socket::route().expect("a socket");
        let no_such_link = [0, 0, 0, 0, 0xff, 0xff, 0xff, 0x7f, 0, 0, 0, 0, 0, 0, 0, 0];
        let error = socket.change(Message::new(17, 0, &no_such_link)).expect_err("there is no link 2147483647");
        assert!(matches!(error.raw_os_error(), Some(libc::ENODEV | libc::EPERM)), "{error}");
    }
}
