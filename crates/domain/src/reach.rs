//! Which addresses the platform itself connects to when a user names them, as in the URL of a drain.
//!
//! The platform stands where its users do not: on the machine's loopback and in the operator's networks, metadata
//! services among them. [`Reach`] judges an address, so it has to be asked after a name was resolved and for the very
//! address that is then connected to. Resolving and connecting happen elsewhere.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

use serde::{Deserialize, Serialize};

use crate::network::{Prefix, is_public};

/// What an address is that is out of reach: words for a sentence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// This machine.
    Loopback,
    /// One link only, where clouds keep their metadata services (`169.254.169.254`).
    LinkLocal,
    /// Any other that is none of the internet's: private, shared, reserved.
    Private,
    /// A listener of the platform itself.
    Platform,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Loopback => "an address of this machine itself",
            Self::LinkLocal => "a link-local address",
            Self::Private => "an address that is not the internet's",
            Self::Platform => "one of the platform's own listeners",
        })
    }
}

/// Where the platform connects to on somebody's behalf: public addresses and what the operator allows beside them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reach {
    /// Networks that are allowed although they are not public.
    pub allowed: Vec<Prefix>,
    /// The platform's own listeners, never allowed. An unspecified address stands for all with its port that are not
    /// public.
    pub listeners: Vec<SocketAddr>,
}

impl Reach {
    /// Everything is in reach. For tests.
    pub fn everything() -> Self {
        let all = |address: IpAddr| Prefix { address, length: 0 };
        let allowed = vec![all(Ipv4Addr::UNSPECIFIED.into()), all(Ipv6Addr::UNSPECIFIED.into())];
        Self { allowed, listeners: Vec::new() }
    }

    /// Says whether an address may be connected to, and if not, why.
    ///
    /// # Errors
    /// When it may not.
    pub fn check(&self, to: SocketAddr) -> Result<(), Kind> {
        let address = to.ip().to_canonical();
        let public = is_public(address);
        let ours = |listener: &SocketAddr| {
            let any = listener.ip().is_unspecified() && !public;
            listener.port() == to.port() && (any || listener.ip().to_canonical() == address)
        };
        if self.listeners.iter().any(ours) {
            return Err(Kind::Platform);
        }
        if public || self.allowed.iter().any(|network| network.contains(address)) {
            return Ok(());
        }
        Err(match address {
            _ if address.is_loopback() || address.is_unspecified() => Kind::Loopback,
            IpAddr::V4(v4) if v4.is_link_local() => Kind::LinkLocal,
            IpAddr::V6(v6) if v6.is_unicast_link_local() => Kind::LinkLocal,
            _ => Kind::Private,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(reach: &Reach, address: &str) -> Option<Kind> {
        reach.check(SocketAddr::new(address.parse().expect("an address"), 6514)).err()
    }

    #[test]
    fn only_public_addresses_are_in_reach() {
        let reach = Reach::default();
        for public in ["1.1.1.1", "172.32.0.1", "2606:4700::1111"] {
            assert_eq!(check(&reach, public), None, "{public}");
        }
        let refused = [
            ("127.0.0.1", Kind::Loopback),
            ("0.0.0.0", Kind::Loopback),
            ("::1", Kind::Loopback),
            ("::ffff:127.0.0.1", Kind::Loopback),
            ("10.0.0.1", Kind::Private),
            ("64:ff9b::7f00:1", Kind::Private),
            ("2002:7f00:1::", Kind::Private),
            ("fd00:ec2::254", Kind::Private),
            ("224.0.0.1", Kind::Private),
            ("169.254.169.254", Kind::LinkLocal),
            ("::ffff:169.254.169.254", Kind::LinkLocal),
            ("fe80::1", Kind::LinkLocal),
        ];
        for (address, kind) in refused {
            assert_eq!(check(&reach, address), Some(kind), "{address}");
        }
    }

    #[test]
    fn the_operator_allows_networks_but_never_the_platforms_listeners() {
        let network = |text: &str| text.parse::<Prefix>().expect("a network");
        let mut reach = Reach { allowed: vec![network("10.1.0.0/16"), network("127.0.0.1")], listeners: Vec::new() };
        assert_eq!(check(&reach, "10.1.200.7"), None);
        assert_eq!(check(&reach, "::ffff:10.1.200.7"), None);
        assert_eq!(check(&reach, "10.2.0.1"), Some(Kind::Private));
        assert_eq!(check(&reach, "127.0.0.1"), None);
        assert_eq!(check(&reach, "127.0.0.2"), Some(Kind::Loopback));
        reach.listeners = vec!["127.0.0.1:6514".parse().expect("one")];
        assert_eq!(check(&reach, "127.0.0.1"), Some(Kind::Platform));
        assert_eq!(check(&reach, "::ffff:127.0.0.1"), Some(Kind::Platform));
        reach.listeners = vec!["0.0.0.0:6514".parse().expect("one")];
        assert_eq!(check(&reach, "127.0.0.1"), Some(Kind::Platform));
        assert_eq!(check(&reach, "1.1.1.1"), None);
        assert_eq!(check(&Reach::everything(), "fe80::1"), None);
    }
}
