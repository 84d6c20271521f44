//! A dyno's link to the platform's bridge: made by the shim from outside, given addresses by the dyno's init inside.
//!
//! The bridge and the packet filter around it belong to the platform's network, not to a dyno. The outer end goes away
//! with the dyno's network namespace.

use std::{ffi::CString, io, net::IpAddr};

use dozen_domain::ids::DynoId;

use super::netlink::{CREATE, Message, Socket};

// linux/rtnetlink.h, linux/if_link.h, linux/veth.h, linux/if_addr.h
const NEW_LINK: u16 = 16;
const SET_LINK: u16 = 19;
const NEW_ADDRESS: u16 = 20;
const NEW_ROUTE: u16 = 24;
const IFLA_ADDRESS: u16 = 1;
const IFLA_IFNAME: u16 = 3;
const IFLA_MASTER: u16 = 10;
const IFLA_PROTINFO: u16 = 12;
const IFLA_LINKINFO: u16 = 18;
const IFLA_NET_NS_PID: u16 = 19;
const IFLA_INFO_KIND: u16 = 1;
const IFLA_INFO_DATA: u16 = 2;
const VETH_INFO_PEER: u16 = 1;
const IFLA_BRPORT_ISOLATED: u16 = 33;
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const NO_DUPLICATE_DETECTION: u8 = 2; // IFA_F_NODAD
const RTA_GATEWAY: u16 = 5;
const UP: u32 = 1; // IFF_UP

/// The dyno's interface, as it sees it.
const INSIDE: &str = "eth0";

/// Name of a dyno's outer interface: 14 characters of the 15 that there may be.
pub fn interface(dyno: DynoId) -> String {
    let digits = dyno.0.simple().to_string();
    format!("dz{}", &digits[..12])
}

fn index(name: &str) -> io::Result<u32> {
    let name = CString::new(name)?;
    // SAFETY: the name is a string that ends in NUL.
    match unsafe { libc::if_nametoindex(name.as_ptr()) } {
        0 => Err(io::Error::last_os_error()),
        index => Ok(index),
    }
}

fn terminated(text: &str) -> Vec<u8> {
    let mut bytes = text.as_bytes().to_vec();
    bytes.push(0);
    bytes
}

/// `ifinfomsg`
fn link(family: u8, index: u32, up: bool) -> [u8; 16] {
    let mut bytes = [0; 16];
    bytes[0] = family;
    bytes[4..8].copy_from_slice(&index.to_ne_bytes());
    let flags = if up { UP } else { 0 };
    bytes[8..12].copy_from_slice(&flags.to_ne_bytes());
    bytes[12..16].copy_from_slice(&flags.to_ne_bytes()); // which flags to change
    bytes
}

/// The hardware address that goes with an IP address, locally administered. The next dyno at the same address has the
/// same one, so what the machine has noted about its neighbours stays true.
fn hardware(addresses: &[(IpAddr, u8)]) -> Option<[u8; 6]> {
    addresses.iter().find_map(|(address, _)| match address {
        IpAddr::V4(address) => {
            let [a, b, c, d] = address.octets();
            Some([0x02, 0xd0, a, b, c, d])
        }
        IpAddr::V6(_) => None,
    })
}

/// Makes the pair, the inner end in the namespace of `pid`, the outer end an isolated port of `bridge`: isolated
/// ports do not reach each other.
pub(super) fn connect(name: &str, bridge: &str, pid: i32, addresses: &[(IpAddr, u8)]) -> io::Result<()> {
    let socket = Socket::route()?;
    let unspecified = libc::AF_UNSPEC as u8;
    let create = Message::new(NEW_LINK, CREATE, &link(unspecified, 0, true))
        .attribute(IFLA_IFNAME, &terminated(name))
        .attribute(IFLA_MASTER, &index(bridge)?.to_ne_bytes())
        .nested(IFLA_LINKINFO, |info| {
            info.attribute(IFLA_INFO_KIND, b"veth").nested(IFLA_INFO_DATA, |data| {
                data.nested(VETH_INFO_PEER, |peer| {
                    let peer = peer
                        .raw(&link(unspecified, 0, false))
                        .attribute(IFLA_IFNAME, &terminated(INSIDE))
                        .attribute(IFLA_NET_NS_PID, &pid.to_ne_bytes());
                    match hardware(addresses) {
                        Some(address) => peer.attribute(IFLA_ADDRESS, &address),
                        None => peer,
                    }
                })
            })
        });
    socket.change(create)?;
    let isolate = Message::new(SET_LINK, 0, &link(libc::AF_BRIDGE as u8, index(name)?, false))
        .nested(IFLA_PROTINFO, |port| port.attribute(IFLA_BRPORT_ISOLATED, &[1]));
    socket.change(isolate)
}

/// Inside: brings the loopback up.
pub(super) fn loopback() -> io::Result<()> {
    Socket::route()?.change(Message::new(NEW_LINK, 0, &link(libc::AF_UNSPEC as u8, index("lo")?, true)))
}

/// Inside: gives the inner end its addresses and the namespace its default routes. A machine with IPv6 switched off
/// leaves the dyno with IPv4.
pub(super) fn address(addresses: &[(IpAddr, u8)], gateways: &[IpAddr]) -> io::Result<()> {
    let socket = Socket::route()?;
    let inside = index(INSIDE)?;
    socket.change(Message::new(NEW_LINK, 0, &link(libc::AF_UNSPEC as u8, inside, true)))?;
    for (address, prefix) in addresses {
        let (family, octets) = octets(*address);
        let mut fixed = [family, *prefix, NO_DUPLICATE_DETECTION, 0, 0, 0, 0, 0];
        fixed[4..8].copy_from_slice(&inside.to_ne_bytes());
        let message =
            Message::new(NEW_ADDRESS, CREATE, &fixed).attribute(IFA_LOCAL, &octets).attribute(IFA_ADDRESS, &octets);
        without_ipv6(*address, socket.change(message))?;
    }
    for gateway in gateways {
        let (family, octets) = octets(*gateway);
        // rtmsg: family, no prefixes, main table, set by the boot, everywhere, unicast
        let fixed = [family, 0, 0, 0, 254, 3, 0, 1, 0, 0, 0, 0];
        let message = Message::new(NEW_ROUTE, CREATE, &fixed).attribute(RTA_GATEWAY, &octets);
        without_ipv6(*gateway, socket.change(message))?;
    }
    Ok(())
}

fn without_ipv6(address: IpAddr, result: io::Result<()>) -> io::Result<()> {
    const OFF: [i32; 5] = [libc::EOPNOTSUPP, libc::EAFNOSUPPORT, libc::EACCES, libc::EPERM, libc::EHOSTUNREACH];
    match result {
        Err(error) if address.is_ipv6() && error.raw_os_error().is_some_and(|code| OFF.contains(&code)) => Ok(()),
        result => result,
    }
}

fn octets(address: IpAddr) -> (u8, Vec<u8>) {
    match address {
        IpAddr::V4(address) => (libc::AF_INET as u8, address.octets().to_vec()),
        IpAddr::V6(address) => (libc::AF_INET6 as u8, address.octets().to_vec()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interface_name_fits_the_kernel() {
        let name = interface(DynoId::random());
        assert!(name.starts_with("dz") && name.len() <= 15, "{name}");
    }
}
