//! The network that dynos share: a bridge of the platform's own, an address for each dyno, and a packet filter around it.
//!
//! As root each dyno has its own network namespace whose link (made by its shim) is an isolated port of the bridge
//! `dz-<6 digits>`; the router reaches it at its address. The filter ([`filter`]) lets dynos out to the internet and to
//! the machine's name servers, and nowhere else: not to the machine, not to private networks, not to each other.
//! Private networks that they are to reach (a database, a package mirror) are named by the operator
//! (`DOZEN_DYNO_ALLOW_NETWORKS`); builds follow the same rules, because they run code of the same people.
//!
//! Without root, or without the `nft` program, dynos share the machine's network and web dynos get unique ports
//! ([`Network::host`]). The platform goes on in that case because an unprivileged start cannot have more, and says so.
//!
//! Bridge, table and address range are chosen per data directory, so that several platforms fit on one machine. All of
//! this is made again at each start, does not touch links of running dynos, and stays when the platform stops.
//!
//! IPv6 inside is for reaching servers that listen on it alone; it leads out only when the machine forwards IPv6
//! already, since turning that on would make the machine ignore router advertisements.

mod filter;
mod lease;
mod link;
mod range;

use std::{
    fs, io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    path::{Path, PathBuf},
    sync::Mutex,
};

use dozen_api::shim;
use dozen_domain::ids::DynoId;
pub use dozen_domain::network::Prefix;
use serde::{Deserialize, Serialize};

use lease::Leases;

/// What failed while the network was set up.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file could not be read or written.
    #[error("{operation} {path}")]
    Io {
        /// What was attempted.
        operation: &'static str,
        /// On which path.
        path: PathBuf,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
    /// The kernel refused a link or an address.
    #[error("{operation} {bridge}")]
    Link {
        /// What was attempted.
        operation: &'static str,
        /// The bridge.
        bridge: String,
        /// Why it failed.
        #[source]
        source: Box<rtnetlink::Error>,
    },
    /// There is no packet filter program.
    #[error("nft is not installed, so dynos cannot be kept apart from the network: install the package nftables")]
    NoFilter,
    /// The packet filter's rules were refused.
    #[error("the packet filter refused the platform's rules: {0}")]
    Filter(String),
    /// Every range of the pool overlaps with a network of the machine.
    #[error("no address range for dynos is free in 10.88.0.0/13")]
    NoRange,
    /// All addresses are given out.
    #[error("no address for another dyno is free in {0}")]
    NoAddress(Prefix),
}

fn failed(operation: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Error {
    let path = path.to_owned();
    move |source| Error::Io { operation, path, source }
}

/// What was chosen for a data directory; kept in `network.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Chosen {
    bridge: String,
    table: String,
    v4: Prefix,
    v6: Prefix,
}

impl Chosen {
    fn gateway4(&self) -> Ipv4Addr {
        self.host4(1)
    }

    fn gateway6(&self) -> Ipv6Addr {
        self.host6(1)
    }

    fn host4(&self, number: u16) -> Ipv4Addr {
        let IpAddr::V4(base) = self.v4.address else { return Ipv4Addr::UNSPECIFIED };
        Ipv4Addr::from(u32::from(base) + u32::from(number))
    }

    fn host6(&self, number: u16) -> Ipv6Addr {
        let IpAddr::V6(base) = self.v6.address else { return Ipv6Addr::UNSPECIFIED };
        Ipv6Addr::from(u128::from(base) + u128::from(number))
    }
}

enum Mode {
    Host,
    Bridge { chosen: Chosen, v6_leads_out: bool, leases: Mutex<Leases> },
}

/// The network of one platform.
pub struct Network {
    mode: Mode,
}

/// What a dyno gets: its network, and the number under which its addresses are found again after a restart.
#[derive(Debug)]
pub struct Lease {
    /// For the dyno's shim.
    pub network: shim::Network,
    /// To be kept with the dyno's record and given to [`Network::claim`].
    pub number: Option<u16>,
}

impl Network {
    /// The machine's own network.
    pub fn host() -> Self {
        Self { mode: Mode::Host }
    }

    /// Makes (or finds again) the bridge, its addresses and the packet filter. Needs root.
    ///
    /// # Errors
    /// When the kernel or the packet filter refuses; [`Error::NoFilter`] when there is none.
    pub async fn setup(data: &Path, allow: &[Prefix]) -> Result<Self, Error> {
        let nft = filter::program().ok_or(Error::NoFilter)?;
        let chosen = {
            let _lock = range::lock();
            let chosen = range::choose(data)?;
            link::bridge(&chosen).await?;
            chosen
        };
        enable("/proc/sys/net/ipv4/ip_forward")?;
        let v6_leads_out = fs::read_to_string("/proc/sys/net/ipv6/conf/all/forwarding").is_ok_and(|v| v.trim() == "1");
        let resolvers = resolvers();
        for resolver in resolvers.iter().filter(|resolver| resolver.is_loopback()) {
            tracing::warn!(%resolver, "dynos cannot reach a name server on the machine's loopback address");
        }
        filter::install(&nft, &chosen, &resolvers, allow).await?;
        Ok(Self { mode: Mode::Bridge { chosen, v6_leads_out, leases: Mutex::default() } })
    }

    /// Whether dynos have networks of their own.
    pub fn is_isolated(&self) -> bool {
        matches!(self.mode, Mode::Bridge { .. })
    }

    /// Addresses for a new dyno.
    ///
    /// # Errors
    /// When there is none left.
    pub fn lease(&self, dyno: DynoId) -> Result<Lease, Error> {
        let Mode::Bridge { chosen, v6_leads_out, leases } = &self.mode else {
            return Ok(Lease { network: shim::Network::Host, number: None });
        };
        let number = lease::lock(leases).take(dyno).ok_or(Error::NoAddress(chosen.v4))?;
        let mut gateways = vec![IpAddr::V4(chosen.gateway4())];
        if *v6_leads_out {
            gateways.push(IpAddr::V6(chosen.gateway6()));
        }
        let addresses = vec![
            (IpAddr::V4(chosen.host4(number)), chosen.v4.length),
            (IpAddr::V6(chosen.host6(number)), chosen.v6.length),
        ];
        let network = shim::Network::Bridge { bridge: chosen.bridge.clone(), addresses, gateways };
        Ok(Lease { network, number: Some(number) })
    }

    /// Notes that a dyno that was found running has this number.
    pub fn claim(&self, dyno: DynoId, number: u16) {
        if let Mode::Bridge { leases, .. } = &self.mode {
            lease::lock(leases).claim(dyno, number);
        }
    }

    /// The dyno is gone; its addresses may be given out again.
    pub fn release(&self, dyno: DynoId) {
        if let Mode::Bridge { leases, .. } = &self.mode {
            lease::lock(leases).release(dyno);
        }
    }

    /// A port for a web dyno to bind: any in a namespace of its own, a free one on the machine's network.
    ///
    /// # Errors
    /// When the machine has no free port.
    pub fn port(&self) -> io::Result<u16> {
        match self.mode {
            Mode::Bridge { .. } => Ok(fastrand::u16(3_000..60_000)),
            Mode::Host => Ok(std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port()),
        }
    }

    /// Removes bridge and packet filter: for tests and for taking the platform off a machine.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub async fn teardown(&self) -> Result<(), Error> {
        let Mode::Bridge { chosen, .. } = &self.mode else { return Ok(()) };
        link::remove(chosen).await?;
        filter::remove(&filter::program().ok_or(Error::NoFilter)?, chosen).await
    }
}

fn enable(path: &str) -> Result<(), Error> {
    let path = Path::new(path);
    if fs::read_to_string(path).is_ok_and(|value| value.trim() == "1") {
        return Ok(());
    }
    fs::write(path, "1").map_err(failed("write", path))
}

/// The file that names the machine's name servers, as programs outside the machine's own network can use it: where
/// systemd's resolver listens on a loopback address, the file with the servers behind it.
pub fn resolv_conf() -> PathBuf {
    const BEHIND: &str = "/run/systemd/resolve/resolv.conf";
    let servers = servers_of(Path::new("/etc/resolv.conf"));
    let behind = Path::new(BEHIND);
    let loopback = !servers.is_empty() && servers.iter().all(IpAddr::is_loopback);
    PathBuf::from(if loopback && behind.exists() { BEHIND } else { "/etc/resolv.conf" })
}

/// The machine's name servers as dynos use them.
fn resolvers() -> Vec<IpAddr> {
    servers_of(&resolv_conf())
}

fn servers_of(path: &Path) -> Vec<IpAddr> {
    let text = fs::read_to_string(path).unwrap_or_default();
    let server = |line: &str| line.trim().strip_prefix("nameserver")?.split_whitespace().next()?.parse().ok();
    text.lines().filter_map(server).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_are_read_as_people_write_them() {
        for (text, shown) in [("10.1.2.0/24", "10.1.2.0/24"), ("10.1.2.3", "10.1.2.3/32"), ("fd00::/8", "fd00::/8")] {
            assert_eq!(text.parse::<Prefix>().expect("a network").to_string(), shown);
        }
        for bad in ["", "10.1.2.0/33", "10.1.2/24", "x", "fd00::/129", "10.0.0.0/-1"] {
            assert!(bad.parse::<Prefix>().is_err(), "{bad}");
        }
    }

    #[test]
    fn on_the_machine_s_network_each_port_is_free() {
        let network = Network::host();
        let lease = network.lease(DynoId::random()).expect("no address needed");
        assert!(matches!(lease.network, shim::Network::Host) && lease.number.is_none());
        assert_ne!(network.port().expect("a port"), 0);
    }

    #[test]
    fn setting_up_twice_is_once_and_teardown_leaves_nothing() {
        if !rustix::process::geteuid().is_root() || filter::program().is_none() {
            return; // needs root and the package nftables
        }
        let data = tempfile::tempdir().expect("a directory");
        // The thread ends with the test, and the network namespace with the thread.
        let within = std::thread::spawn(move || {
            // SAFETY: only this thread changes its network namespace.
            assert_eq!(unsafe { libc::unshare(libc::CLONE_NEWNET) }, 0);
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(async {
                let allow = ["10.1.0.0/16".parse().expect("a network")];
                Network::setup(data.path(), &allow).await.expect("set up");
                let network = Network::setup(data.path(), &allow).await.expect("set up again");
                let lease = network.lease(DynoId::random()).expect("an address");
                let shim::Network::Bridge { bridge, addresses, gateways } = lease.network else { panic!("no bridge") };
                assert_eq!((addresses.len(), addresses[0].1, gateways.len()), (2, 20, 1));
                let IpAddr::V4(gateway) = gateways[0] else { panic!("the first gateway is IPv4") };
                let fixed = [[0x02, 0xd0].as_slice(), gateway.octets().as_slice()].concat();
                assert_eq!(link::hardware_address(&bridge).await, Some(fixed), "it must not follow the ports'");
                let links = fs::read_to_string("/proc/thread-self/net/dev").expect("links");
                assert!(links.contains(&bridge), "{links}");
                network.teardown().await.expect("torn down");
                let links = fs::read_to_string("/proc/thread-self/net/dev").expect("links");
                assert!(!links.contains(&bridge), "{links}");
            });
        });
        within.join().expect("the test");
    }
}
