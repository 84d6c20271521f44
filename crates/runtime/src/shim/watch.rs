//! Notices when a dyno listens on its port, and tells at which addresses the router reaches it.
//!
//! The system call filter tells of every `listen` ([`Listens`]) and holds the caller up until it is answered, some tens
//! of microseconds; so a dyno that boots is not looked at until there is something to see. A kernel without that is
//! asked every few milliseconds.
//!
//! Asks the kernel for listening sockets alone, through a socket opened in the dyno's network: that does not touch the
//! dyno, takes microseconds whatever else the machine has open, and tells IPv6-only from both. A kernel without that
//! interface has `/proc/<pid>/net/tcp`, where `::` is taken to mean both.

use std::{
    fs, io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    os::fd::{AsRawFd, OwnedFd},
    time::Duration,
};

use dozen_api::shim::{Network, Sandbox};

use crate::sandbox::netlink::{DUMP, Message, Socket, attributes};

// linux/sock_diag.h, linux/inet_diag.h
const SOCK_DIAG_BY_FAMILY: u16 = 20;
const INET_DIAG_SKV6ONLY: u16 = 11;
const LISTENING: u32 = 10; // TCP_LISTEN
const MESSAGE: usize = 72; // struct inet_diag_msg

/// A listening socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Listener {
    address: IpAddr,
    /// Whether it takes IPv4 connections too.
    dual: bool,
    uid: u32,
}

/// The watch over one port.
pub(super) struct Watch {
    socket: Option<Socket>,
    pid: i32,
    port: u16,
    place: Place,
}

/// Hears of each `listen` of the dyno, before it is done.
pub(super) struct Listens(OwnedFd);

// linux/seccomp.h
const NOTIF_RECV: libc::Ioctl = 0xc050_2100;
const NOTIF_SEND: libc::Ioctl = 0xc018_2101;
const CONTINUE: u32 = 1; // SECCOMP_USER_NOTIF_FLAG_CONTINUE

/// `struct seccomp_notif_resp`.
#[repr(C)]
struct Answer {
    id: u64,
    value: i64,
    error: i32,
    flags: u32,
}

impl Listens {
    /// Takes what the filter's installation returned.
    pub(super) fn new(listener: OwnedFd) -> Self {
        Self(listener)
    }

    /// Polls as readable when there is something to answer.
    pub(super) fn descriptor(&self) -> &OwnedFd {
        &self.0
    }

    /// Lets one caller go on. If nobody answered, callers would wait for ever, so this must be done for as long as the
    /// dyno lives.
    pub(super) fn answer(&self) {
        let mut call = [0_u64; 10]; // struct seccomp_notif, which must be zero; the first word is the id
        // SAFETY: the descriptor is open and the structure has the size that the request writes.
        if unsafe { libc::ioctl(self.0.as_raw_fd(), NOTIF_RECV, call.as_mut_ptr()) } != 0 {
            return; // the caller was killed or interrupted meanwhile
        }
        let answer = Answer { id: call[0], value: 0, error: 0, flags: CONTINUE };
        // SAFETY: as above, to read. It fails when the caller is gone, who needs no answer then.
        unsafe { libc::ioctl(self.0.as_raw_fd(), NOTIF_SEND, &raw const answer) };
    }
}

/// Where the dyno's sockets are.
#[derive(Debug)]
enum Place {
    /// In the machine's network, where only sockets of this user are the dyno's.
    Host { uid: u32 },
    /// In its own; these are its addresses.
    Own(Vec<IpAddr>),
}

impl Watch {
    /// Watches for `port`; `diagnostics` was opened in the dyno's network, where that is its own.
    pub(super) fn new(port: u16, pid: i32, sandbox: &Sandbox, diagnostics: Option<OwnedFd>) -> Self {
        let (place, socket) = match &sandbox.network {
            Network::Host => {
                let uid = sandbox.host_uid.unwrap_or_else(|| rustix::process::geteuid().as_raw());
                (Place::Host { uid }, Socket::diagnostics().ok())
            }
            Network::None => (Place::Own(Vec::new()), diagnostics.map(Socket::from_descriptor)),
            Network::Bridge { addresses, .. } => (
                Place::Own(addresses.iter().map(|(address, _)| *address).collect()),
                diagnostics.map(Socket::from_descriptor),
            ),
        };
        Self { socket, pid, port, place }
    }

    /// How long to wait before the next look. When the dyno was `told` to be about to listen so long ago: 1 ms at first,
    /// then half of that time, 1 s at most, for that may have been another port. When nothing tells, this long after
    /// its start: 2 ms at first, 1 % of the time passed, 20 ms at most.
    pub(super) fn pause(since: Duration, told: bool) -> Duration {
        match told {
            true => (since / 2).clamp(Duration::from_millis(1), Duration::from_secs(1)),
            false => (since / 100).clamp(Duration::from_millis(2), Duration::from_millis(20)),
        }
    }

    /// Looks once; the addresses if it listens, IPv4 first.
    pub(super) fn look(&mut self) -> Option<Vec<SocketAddr>> {
        let listeners = match self.ask() {
            Ok(listeners) => listeners,
            Err(_) => {
                self.socket = None;
                self.read()
            }
        };
        addresses(&listeners, self.port, &self.place)
    }

    fn ask(&self) -> io::Result<Vec<Listener>> {
        let socket = self.socket.as_ref().ok_or(io::ErrorKind::Unsupported)?;
        let mut listeners = Vec::new();
        for family in [libc::AF_INET as u8, libc::AF_INET6 as u8] {
            let mut request = [0_u8; 56];
            request[0] = family;
            request[1] = libc::IPPROTO_TCP as u8;
            request[4..8].copy_from_slice(&(1_u32 << LISTENING).to_ne_bytes());
            request[8..10].copy_from_slice(&self.port.to_be_bytes());
            socket.ask(Message::new(SOCK_DIAG_BY_FAMILY, DUMP, &request), |_, body| {
                listeners.extend(decode(body, self.port));
            })?;
        }
        Ok(listeners)
    }

    fn read(&self) -> Vec<Listener> {
        let read = |name: &str| fs::read_to_string(format!("/proc/{}/net/{name}", self.pid)).unwrap_or_default();
        parse(&read("tcp"), self.port).chain(parse(&read("tcp6"), self.port)).collect()
    }
}

fn decode(body: &[u8], port: u16) -> Option<Listener> {
    let fixed = body.get(..MESSAGE)?;
    if fixed[4..6] != port.to_be_bytes() {
        return None;
    }
    let uid = u32::from_ne_bytes(fixed[64..68].try_into().ok()?);
    let (address, dual) = if i32::from(fixed[0]) == libc::AF_INET {
        (IpAddr::from(<[u8; 4]>::try_from(&fixed[8..12]).ok()?), false)
    } else {
        let only = attributes(&body[MESSAGE..]).any(|(kind, value)| kind == INET_DIAG_SKV6ONLY && value == [1]);
        (IpAddr::from(<[u8; 16]>::try_from(&fixed[8..24]).ok()?), !only)
    };
    Some(Listener { address, dual, uid })
}

/// The listeners on a port in the text of `/proc/net/tcp` or `tcp6`.
fn parse(text: &str, port: u16) -> impl Iterator<Item = Listener> {
    text.lines().skip(1).filter_map(move |line| {
        let mut words = line.split_whitespace().skip(1);
        let (address, local_port) = words.next()?.split_once(':')?;
        let state = words.nth(1)?;
        if u16::from_str_radix(local_port, 16) != Ok(port) || state != "0A" {
            return None;
        }
        let uid = words.nth(3)?.parse().ok()?;
        // Words of four bytes in the machine's order.
        let mut octets = [0_u8; 16];
        let words = address.len() / 8;
        for n in 0..words {
            let word = u32::from_str_radix(address.get(n * 8..n * 8 + 8)?, 16).ok()?;
            octets.get_mut(n * 4..n * 4 + 4)?.copy_from_slice(&word.to_ne_bytes());
        }
        let address = match words {
            1 => IpAddr::V4(Ipv4Addr::new(octets[0], octets[1], octets[2], octets[3])),
            _ => IpAddr::V6(Ipv6Addr::from(octets)),
        };
        Some(Listener { address, dual: address == IpAddr::V6(Ipv6Addr::UNSPECIFIED), uid })
    })
}

fn addresses(listeners: &[Listener], port: u16, place: &Place) -> Option<Vec<SocketAddr>> {
    let candidates: Vec<IpAddr> = match place {
        Place::Host { .. } => vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()],
        Place::Own(own) => {
            let mut own = own.clone();
            own.sort_by_key(IpAddr::is_ipv6);
            own
        }
    };
    let mine = |listener: &&Listener| match place {
        Place::Host { uid } => listener.uid == *uid,
        Place::Own(_) => true,
    };
    let takes = |listener: &Listener, address: &IpAddr| {
        listener.address == *address
            || listener.address == IpAddr::V6(Ipv6Addr::UNSPECIFIED) && (address.is_ipv6() || listener.dual)
            || listener.address == IpAddr::V4(Ipv4Addr::UNSPECIFIED) && address.is_ipv4()
    };
    let mut found: Vec<SocketAddr> = candidates
        .iter()
        .filter(|address| listeners.iter().filter(mine).any(|listener| takes(listener, address)))
        .map(|address| SocketAddr::new(*address, port))
        .collect();
    if let Place::Host { .. } = place
        && found.is_empty()
    {
        found.extend(listeners.iter().filter(mine).map(|listener| SocketAddr::new(listener.address, port)));
    }
    let unreachable = matches!(place, Place::Own(own) if own.is_empty());
    if unreachable && listeners.iter().any(|listener| !listener.address.is_loopback()) {
        return Some(found); // it has no network, so nobody can connect, but it is up
    }
    (!found.is_empty()).then_some(found)
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    fn own() -> Place {
        Place::Own(vec![IpAddr::from([10, 1, 2, 3]), "fd00::3".parse().expect("an address")])
    }

    fn on(address: &str, dual: bool) -> Listener {
        Listener { address: address.parse().expect("an address"), dual, uid: 7 }
    }

    fn reached(listeners: &[Listener], place: &Place) -> Option<Vec<String>> {
        addresses(listeners, 80, place).map(|found| found.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn in_a_network_of_its_own_the_dyno_is_reached_at_its_addresses() {
        let reached = |listener| reached(&[listener], &own());
        assert_eq!(reached(on("0.0.0.0", false)), Some(vec!["10.1.2.3:80".to_owned()]));
        assert_eq!(reached(on("::", true)), Some(vec!["10.1.2.3:80".to_owned(), "[fd00::3]:80".to_owned()]));
        assert_eq!(reached(on("::", false)), Some(vec!["[fd00::3]:80".to_owned()]));
        assert_eq!(reached(on("10.1.2.3", false)), Some(vec!["10.1.2.3:80".to_owned()]));
        assert_eq!(reached(on("127.0.0.1", false)), None);
        assert_eq!(reached(on("::1", false)), None);
    }

    #[test]
    fn in_the_machines_network_only_sockets_of_the_user_count() {
        let (mine, other) = (Place::Host { uid: 7 }, Place::Host { uid: 8 });
        assert_eq!(reached(&[on("127.0.0.1", false)], &mine), Some(vec!["127.0.0.1:80".to_owned()]));
        assert_eq!(reached(&[on("::1", true)], &mine), Some(vec!["[::1]:80".to_owned()]));
        assert_eq!(reached(&[on("10.9.9.9", false)], &mine), Some(vec!["10.9.9.9:80".to_owned()]));
        assert_eq!(reached(&[on("0.0.0.0", false)], &other), None);
    }

    #[test]
    fn the_kernel_and_proc_agree_on_a_real_listener() {
        for address in ["127.0.0.1:0", "[::1]:0", "[::]:0"] {
            let listener = TcpListener::bind(address).expect("it binds");
            let local = listener.local_addr().expect("an address");
            let pid = i32::try_from(std::process::id()).expect("a pid");
            let place = Place::Host { uid: rustix::process::geteuid().as_raw() };
            let mut watch = Watch { socket: Socket::diagnostics().ok(), pid, port: local.port(), place };
            let asked = watch.ask().expect("the kernel answers");
            assert_eq!(asked, watch.read(), "{address}");
            assert_eq!(asked[0].address, local.ip());
            assert!(watch.look().is_some());
            drop(listener);
            assert!(watch.look().is_none());
        }
    }

    #[test]
    fn looks_become_rarer() {
        let pause = |ms, told| Watch::pause(Duration::from_millis(ms), told).as_millis();
        assert_eq!((pause(0, false), pause(500, false), pause(60_000, false)), (2, 5, 20));
        assert_eq!((pause(0, true), pause(10, true), pause(60_000, true)), (1, 5, 1_000));
    }
}
