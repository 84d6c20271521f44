//! What the shim and the dyno's init say to each other until the dyno runs.
//!
//! ```text
//!  shim                                   init (pid 1 inside)
//!   | ordinary user: writes the id maps      | joins its control group
//!   | link to the bridge                     | root: mounts meanwhile, takes the disk from its maker
//!   |<---------------- Disk -----------------| its top, for the end; mounts what lies on it
//!   |-------------- Proceed ---------------->| ordinary user: mounts now; network inside
//!   |<------------- MapWanted ---------------| root only: has made its user namespace
//!   |-------------- Proceed ---------------->|
//!   |<-------- Diagnostics, Terminal --------| descriptors that only exist inside
//!   |<------------- Ready -------------------| tied to the shim's life; installs the filter
//!   |<------------- Listens -----------------| what tells of listening; forks the command, closes its end
//!   |<------------- Failed or end of file ---| end of file: the command was started
//! ```
//!
//! One packet a message: the tag, then text; descriptors travel beside it.

use std::{
    io::{self, IoSlice, IoSliceMut},
    mem::MaybeUninit,
    os::fd::{AsFd, OwnedFd},
};

use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, SocketFlags, SocketType,
};

/// Shim to init: go on.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Proceed;

/// Init to shim.
#[derive(Debug)]
pub(super) enum Message {
    /// The user namespace is there and wants its id maps.
    MapWanted,
    /// The top of its disk.
    Disk(OwnedFd),
    /// A socket that lists the dyno's sockets.
    Diagnostics(OwnedFd),
    /// The terminal's master end.
    Terminal(OwnedFd),
    /// Tells when the dyno is about to listen.
    Listens(OwnedFd),
    /// All is done but starting the command.
    Ready,
    /// It cannot be done; why.
    Failed(String),
}

/// Longest text of [`Message::Failed`].
const MAX: usize = 4096;

/// One end of the channel.
pub(super) struct End(OwnedFd);

/// Makes a channel: the shim's end and the init's.
pub(super) fn pair() -> io::Result<(End, End)> {
    let (a, b) = rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
    Ok((End(a), End(b)))
}

impl End {
    /// Tells the init to go on. An init that is gone shows at the next [`End::receive`].
    pub(super) fn proceed(&self) {
        let _ = rustix::net::send(&self.0, b"P", SendFlags::NOSIGNAL);
    }

    /// Waits for the shim's word; an error when the shim is gone.
    pub(super) fn wait(&self) -> io::Result<Proceed> {
        let mut byte = [0; 1];
        match rustix::io::retry_on_intr(|| rustix::net::recv(&self.0, &mut byte[..], RecvFlags::empty()))?.0 {
            1 => Ok(Proceed),
            _ => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }

    /// Says, without waiting, whether the shim is there: a process that ends closes its end before its children hear of
    /// its death.
    pub(super) fn is_held(&self) -> io::Result<()> {
        let look = RecvFlags::PEEK | RecvFlags::DONTWAIT;
        match rustix::io::retry_on_intr(|| rustix::net::recv(&self.0, &mut [0; 1][..], look)) {
            Ok((_, 0)) => Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(_) | Err(rustix::io::Errno::AGAIN) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Tells the shim something.
    pub(super) fn tell(&self, message: &Message) -> io::Result<()> {
        let (tag, descriptor, text) = match message {
            Message::MapWanted => (b'M', None, ""),
            Message::Disk(descriptor) => (b'V', Some(descriptor), ""),
            Message::Diagnostics(descriptor) => (b'D', Some(descriptor), ""),
            Message::Terminal(descriptor) => (b'T', Some(descriptor), ""),
            Message::Listens(descriptor) => (b'L', Some(descriptor), ""),
            Message::Ready => (b'R', None, ""),
            Message::Failed(text) => (b'F', None, text.as_str()),
        };
        self.send(tag, descriptor, text)
    }

    fn send(&self, tag: u8, descriptor: Option<&OwnedFd>, text: &str) -> io::Result<()> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        let descriptors = descriptor.map(|descriptor| [descriptor.as_fd()]);
        if let Some(descriptors) = &descriptors {
            control.push(SendAncillaryMessage::ScmRights(descriptors));
        }
        let text = &text.as_bytes()[..text.len().min(MAX - 1)];
        let packet = [IoSlice::new(std::slice::from_ref(&tag)), IoSlice::new(text)];
        rustix::net::sendmsg(&self.0, &packet, &mut control, SendFlags::NOSIGNAL)?;
        Ok(())
    }

    /// Waits for the init's word; `None` when every holder of its end is gone or has run the command.
    pub(super) fn receive(&self) -> io::Result<Option<Message>> {
        let Some((tag, descriptor, text)) = self.packet()? else { return Ok(None) };
        Ok(Some(match (tag, descriptor) {
            (b'M', _) => Message::MapWanted,
            (b'V', Some(descriptor)) => Message::Disk(descriptor),
            (b'D', Some(descriptor)) => Message::Diagnostics(descriptor),
            (b'T', Some(descriptor)) => Message::Terminal(descriptor),
            (b'L', Some(descriptor)) => Message::Listens(descriptor),
            (b'R', _) => Message::Ready,
            _ => Message::Failed(text),
        }))
    }

    /// The next packet, `None` at the end: its tag, the descriptor beside it, its text.
    fn packet(&self) -> io::Result<Option<(u8, Option<OwnedFd>, String)>> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let mut packet = [0; MAX];
        let length = rustix::io::retry_on_intr(|| {
            rustix::net::recvmsg(&self.0, &mut [IoSliceMut::new(&mut packet)], &mut control, RecvFlags::CMSG_CLOEXEC)
        })?
        .bytes;
        let descriptor = control.drain().find_map(|message| match message {
            RecvAncillaryMessage::ScmRights(mut descriptors) => descriptors.next(),
            _ => None,
        });
        let Some((tag, text)) = packet[..length].split_first() else { return Ok(None) };
        Ok(Some((*tag, descriptor, String::from_utf8_lossy(text).into_owned())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn descriptors_and_reasons_arrive_and_the_end_shows() {
        let (shim, init) = pair().expect("a channel");
        let file = std::fs::File::open("/dev/null").expect("it opens");
        init.tell(&Message::Terminal(file.into())).expect("sent");
        init.tell(&Message::Failed("no such bridge".to_owned())).expect("sent");
        shim.proceed();
        assert_eq!(init.wait().expect("a word"), Proceed);
        init.is_held().expect("the shim is there");
        drop(init);
        assert!(matches!(shim.receive(), Ok(Some(Message::Terminal(_)))));
        assert!(matches!(shim.receive(), Ok(Some(Message::Failed(why))) if why == "no such bridge"));
        assert!(matches!(shim.receive(), Ok(None)));
        let (shim, init) = pair().expect("a channel");
        drop(shim);
        assert!(init.is_held().is_err() && init.wait().is_err());
    }
}
