//! Which addresses a data directory's dynos get: a /20 of a pool, clear of the machine's networks, kept from then on.

use std::{fs, net::Ipv4Addr, os::fd::OwnedFd, path::Path};

use ring::digest::{SHA256, digest};
use rustix::fs::{FlockOperation, Mode, OFlags, flock, open};

use super::{Chosen, Error, Prefix, failed};
use crate::artefacts::write_whole;

/// The pool, `10.88.0.0/13`: seldom used elsewhere, and room for 128 platforms.
const POOL: (Ipv4Addr, u8) = (Ipv4Addr::new(10, 88, 0, 0), 13);
/// Prefix length of one platform's range.
const LENGTH: u8 = 20;
/// Addresses in a range.
pub(super) const HOSTS: u16 = 1 << (32 - LENGTH);

/// Held while a range is chosen and its bridge made, so that two platforms that start at once do not choose the same.
pub(super) fn lock() -> Option<OwnedFd> {
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::CLOEXEC;
    let file = open("/run/dozen-network.lock", flags, Mode::RUSR | Mode::WUSR).ok()?;
    flock(&file, FlockOperation::LockExclusive).ok()?;
    Some(file)
}

/// What the data directory has, or chooses now. A range kept from earlier is given up when its bridge is gone and
/// another network of the machine has come to overlap with it.
pub(super) fn choose(data: &Path) -> Result<Chosen, Error> {
    let path = data.join("network.json");
    let routes = routes();
    if let Some(chosen) = fs::read(&path).ok().and_then(|bytes| serde_json::from_slice::<Chosen>(&bytes).ok()) {
        let there = Path::new("/sys/class/net").join(&chosen.bridge).exists();
        if there || !overlaps(&routes, &chosen) {
            return Ok(chosen);
        }
    }
    let whole = fs::canonicalize(data).map_err(failed("read", data))?;
    let hash = digest(&SHA256, whole.as_os_str().as_encoded_bytes());
    let chosen = candidates(hash.as_ref()).find(|chosen| !overlaps(&routes, chosen)).ok_or(Error::NoRange)?;
    let bytes = serde_json::to_vec(&chosen).map_err(|error| failed("write", &path)(error.into()))?;
    write_whole(&path, &bytes).map_err(|error| failed("write", &path)(std::io::Error::other(error)))?;
    Ok(chosen)
}

/// All ranges of the pool, beginning at one that the hash decides.
fn candidates(hash: &[u8]) -> impl Iterator<Item = Chosen> {
    let hex = data_encoding::HEXLOWER.encode(&hash[..3]);
    let count = 1_u32 << (LENGTH - POOL.1);
    let first = u32::from(hash[3]);
    let mut v6 = [0_u8; 16];
    v6[0] = 0xfd;
    v6[1..6].copy_from_slice(&hash[4..9]);
    (0..count).map(move |n| Chosen {
        bridge: format!("dz-{hex}"),
        table: format!("dozen_{hex}"),
        v4: Prefix {
            address: Ipv4Addr::from(u32::from(POOL.0) + ((first + n) % count) * u32::from(HOSTS)).into(),
            length: LENGTH,
        },
        v6: Prefix { address: v6.into(), length: 64 },
    })
}

/// A route of the machine: interface, destination, mask.
type Route = (String, u32, u32);

/// The machine's IPv4 routes but the default ones.
fn routes() -> Vec<Route> {
    parse_routes(&fs::read_to_string("/proc/thread-self/net/route").unwrap_or_default())
}

fn parse_routes(text: &str) -> Vec<Route> {
    let hex = |field: Option<&&str>| Some(u32::from_str_radix(field?, 16).ok()?.swap_bytes());
    let route = |line: &str| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        Some(((*fields.first()?).to_owned(), hex(fields.get(1))?, hex(fields.get(7))?))
    };
    text.lines().skip(1).filter_map(route).filter(|(_, _, mask)| *mask != 0).collect()
}

fn overlaps(routes: &[Route], chosen: &Chosen) -> bool {
    let base = u32::from(chosen.host4(0));
    let ours = u32::MAX << (32 - LENGTH);
    routes.iter().any(|(interface, destination, mask)| {
        let common = mask & ours;
        *interface != chosen.bridge && destination & common == base & common
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROUTES: &str = "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT
eth0\t00000000\t010200C0\t0003\t0\t0\t0\t00000000\t0\t0\t0
eth0\t000200C0\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0
tun0\t0000580A\t00000000\t0001\t0\t0\t0\t00C0FFFF\t0\t0\t0
";

    #[test]
    fn taken_ranges_are_passed_over() {
        let routes = parse_routes(ROUTES);
        assert_eq!(routes.len(), 2);
        let hash = [0_u8; 32];
        let free: Vec<_> = candidates(&hash).filter(|chosen| !overlaps(&routes, chosen)).collect();
        assert_eq!(free.len(), 128 - 4, "a /18 takes four ranges");
        assert_eq!(free[0].v4.to_string(), "10.88.64.0/20");
        assert_eq!((free[0].bridge.as_str(), free[0].table.as_str()), ("dz-000000", "dozen_000000"));
        assert_eq!(free[0].gateway4().to_string(), "10.88.64.1");
    }

    #[test]
    fn an_own_bridge_is_no_hindrance_and_the_choice_stays() {
        let data = tempfile::tempdir().expect("a directory");
        let first = choose(data.path()).expect("a range");
        assert_eq!(choose(data.path()).expect("a range"), first);
        let mask = u32::MAX << 12;
        assert!(!overlaps(&[(first.bridge.clone(), u32::from(first.host4(0)), mask)], &first));
        assert!(overlaps(&[("other".to_owned(), u32::from(first.host4(0)), mask)], &first));
    }

    #[test]
    fn every_range_is_within_the_pool() {
        for chosen in candidates(&[0xff; 32]) {
            assert_eq!(u32::from(chosen.host4(HOSTS - 1)) & (u32::MAX << 19), u32::from(POOL.0), "{chosen:?}");
        }
    }
}
