//! How many connections each client address holds, so that none can take all of the router's.
//!
//! An IPv6 client is told by its /64: it owns all addresses of that. This touches a connection's beginning and end and
//! no request. What is done about an address that holds too many is decided where connections are accepted.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv6Addr},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// Connections by client address; an address without any is not kept.
#[derive(Debug, Default)]
pub(crate) struct Crowd(Mutex<HashMap<IpAddr, u64>>);

/// One connection of an address, until dropped.
#[derive(Debug)]
pub(crate) struct Member {
    crowd: Arc<Crowd>,
    address: IpAddr,
    /// How many the address held with this one, when it came.
    pub(crate) number: u64,
}

impl Crowd {
    /// Counts a connection in.
    pub(crate) fn join(self: &Arc<Self>, address: IpAddr) -> Member {
        let address = network(address);
        let mut all = self.lock();
        let held = all.entry(address).or_default();
        *held += 1;
        Member { number: *held, crowd: self.clone(), address }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<IpAddr, u64>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        let mut all = self.crowd.lock();
        if let Some(held) = all.get_mut(&self.address) {
            *held -= 1;
            if *held == 0 {
                all.remove(&self.address);
            }
        }
        // What a flood has left behind is given back.
        if all.len() * 4 < all.capacity() && all.capacity() > 1_024 {
            all.shrink_to_fit();
        }
    }
}

/// What one client owns.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX))),
        address => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_are_counted_by_what_one_client_owns_and_forgotten_at_their_end() {
        let crowd = Arc::new(Crowd::default());
        let join = |address: &str| crowd.join(address.parse().expect("an address"));
        let first = join("2001:db8::1");
        let second = join("2001:db8::ffff:2");
        assert_eq!((first.number, second.number, join("2001:db8:0:1::1").number), (1, 2, 1));
        let mapped = join("::ffff:192.0.2.1");
        assert_eq!((mapped.number, join("192.0.2.1").number, join("192.0.2.2").number), (1, 2, 1));
        drop((first, second, mapped));
        assert!(crowd.lock().is_empty());
    }
}
