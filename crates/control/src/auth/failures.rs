//! Wrong credentials, counted by the address they come from, so that guessing is slow.
//!
//! An address may fail so often within an hour; what it has failed is forgotten evenly. Wrong passwords are also counted
//! for each e-mail, more strictly: people who share an address with somebody who guesses at another's account can go on
//! signing in. A token is looked up before anything is counted, and nobody guesses one: a right one is always let in.
//!
//! Kept in memory and bounded. A restart of the role forgets it, which gains a guesser little.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv6Addr},
    sync::{Mutex, PoisonError},
};

use dozen_api::clock::Micros;
use dozen_domain::limits::Limits;
use ring::digest;

const HOUR: f64 = 3_600_000_000.0; // microseconds

/// Who failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Who {
    /// An address.
    Peer(IpAddr),
    /// An address with one account's e-mail, hashed: what people type there is sometimes a password.
    Login(IpAddr, [u8; 16]),
}

#[derive(Debug, Clone, Copy)]
struct Count {
    failed: f64,
    at: Micros,
}

/// Failures not yet forgotten.
#[derive(Debug)]
pub struct Failures {
    per_peer: f64,
    per_login: f64,
    most: usize,
    counts: Mutex<HashMap<Who, Count>>,
}

/// A password that is being checked. It counts as failed unless it turns out right.
#[derive(Debug)]
pub struct Attempt<'a> {
    failures: &'a Failures,
    who: Vec<Who>,
}

impl Attempt<'_> {
    /// The password was right.
    pub fn succeeded(self) {
        let mut counts = self.failures.counts.lock().unwrap_or_else(PoisonError::into_inner);
        for who in &self.who {
            if let Some(count) = counts.get_mut(who) {
                count.failed = (count.failed - 1.0).max(0.0);
            }
        }
    }
}

impl Failures {
    /// Bounds as these limits have them.
    pub fn new(limits: &Limits) -> Self {
        Self {
            per_peer: limits.auth_failures_per_address.max(1) as f64,
            per_login: limits.login_failures_per_account.max(1) as f64,
            most: usize::try_from(limits.auth_failure_addresses).unwrap_or(usize::MAX).max(1),
            counts: Mutex::default(),
        }
    }

    /// Counts a token that is none; `Err` is how many seconds until the address may try again.
    ///
    /// # Errors
    /// When the address has failed too often.
    pub fn token(&self, peer: IpAddr, now: Micros) -> Result<(), u64> {
        self.count(vec![Who::Peer(network(peer))], now).map(drop)
    }

    /// Counts a password before it is checked, so that many at once are no way round.
    ///
    /// # Errors
    /// When the address has failed too often, for this e-mail or at all: how many seconds until it may try again.
    pub fn password(&self, peer: IpAddr, email: &str, now: Micros) -> Result<Attempt<'_>, u64> {
        let peer = network(peer);
        let hash = digest::digest(&digest::SHA256, email.trim().to_lowercase().as_bytes());
        let mut short = [0; 16];
        short.copy_from_slice(&hash.as_ref()[..16]);
        self.count(vec![Who::Login(peer, short), Who::Peer(peer)], now)
    }

    fn allowance(&self, who: &Who) -> f64 {
        match who {
            Who::Peer(_) => self.per_peer,
            Who::Login(..) => self.per_login,
        }
    }

    /// What is not forgotten yet of a count.
    fn left(&self, who: &Who, count: &Count, now: Micros) -> f64 {
        let passed = (now - count.at).max(0) as f64;
        (count.failed - passed * self.allowance(who) / HOUR).max(0.0)
    }

    fn count(&self, all: Vec<Who>, now: Micros) -> Result<Attempt<'_>, u64> {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        for who in &all {
            let over = counts.get(who).map_or(0.0, |count| self.left(who, count, now)) + 1.0 - self.allowance(who);
            // What rounding leaves of a whole failure is none.
            if over > 1e-6 {
                return Err((over * HOUR / self.allowance(who) / 1_000_000.0).ceil() as u64);
            }
        }
        for who in &all {
            let failed = counts.get(who).map_or(0.0, |count| self.left(who, count, now)) + 1.0;
            counts.insert(*who, Count { failed, at: now });
        }
        if counts.len() > self.most {
            counts.retain(|who, count| self.left(who, count, now) > 0.0);
        }
        // Still full: the oldest goes. One that goes on failing is never it.
        while counts.len() > self.most {
            let Some(oldest) = counts.iter().min_by_key(|(_, count)| count.at).map(|(who, _)| *who) else { break };
            counts.remove(&oldest);
        }
        Ok(Attempt { failures: self, who: all })
    }
}

/// What one machine can choose its address from: of IPv6 a /64 is one.
fn network(peer: IpAddr) -> IpAddr {
    match peer.to_canonical() {
        IpAddr::V6(address) => Ipv6Addr::from(u128::from(address) & (u128::MAX << 64)).into(),
        v4 => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failures(most: u64) -> Failures {
        Failures::new(&Limits {
            auth_failures_per_address: 60,
            login_failures_per_account: 3,
            auth_failure_addresses: most,
            ..Limits::default()
        })
    }

    fn peer(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    #[test]
    fn an_address_that_fails_too_often_waits_and_others_do_not() {
        let failures = failures(100);
        for _ in 0..60 {
            failures.token(peer("192.0.2.1"), 0).expect("within the allowance");
        }
        assert_eq!(failures.token(peer("192.0.2.1"), 0), Err(60));
        assert_eq!(failures.token(peer("::ffff:192.0.2.1"), 0), Err(60), "the same in other clothes");
        failures.token(peer("192.0.2.2"), 0).expect("another address");
        failures.token(peer("192.0.2.1"), 60_000_000).expect("one is forgotten");
        assert_eq!(failures.token(peer("192.0.2.1"), 60_000_000), Err(60));
    }

    #[test]
    fn guessing_at_one_account_leaves_others_of_the_address_alone() {
        let failures = failures(100);
        let from = peer("2001:db8::1");
        for _ in 0..3 {
            drop(failures.password(from, "ann@example.com", 0).expect("within the allowance"));
        }
        assert_eq!(failures.password(from, " Ann@example.com", 0).err(), Some(1_200));
        assert_eq!(failures.password(peer("2001:db8::2"), "ann@example.com", 0).err(), Some(1_200), "the same network");
        for _ in 0..10 {
            failures.password(from, "bob@example.com", 0).expect("another account").succeeded();
        }
        failures.password(peer("2001:db8:1::1"), "ann@example.com", 0).expect("from elsewhere").succeeded();
    }

    #[test]
    fn many_at_once_are_no_way_round() {
        let failures = failures(100);
        let open: Vec<_> = (0..4).map(|_| failures.password(peer("192.0.2.1"), "a@example.com", 0)).collect();
        assert_eq!(open.iter().filter(|attempt| attempt.is_ok()).count(), 3);
    }

    #[test]
    fn the_table_is_bounded_and_keeps_who_goes_on() {
        let failures = failures(10);
        for _ in 0..60 {
            failures.token(peer("192.0.2.1"), 1).expect("within the allowance");
        }
        for n in 0..50 {
            failures.token(peer(&format!("198.51.100.{n}")), 0).expect("others");
            assert!(failures.counts.lock().expect("no panic").len() <= 10);
        }
        assert!(failures.token(peer("192.0.2.1"), 1).is_err());
    }
}
