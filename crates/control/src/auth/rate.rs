//! Calls an account may still make: a bucket that fills evenly over an hour (Dev Center: platform API, rate limits).
//!
//! Kept in memory: a restart of the role fills all buckets, which harms nobody.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
};

use dozen_api::clock::Micros;
use dozen_domain::ids::AccountId;

const HOUR: f64 = 3_600_000_000.0; // microseconds

struct Bucket {
    left: f64,
    at: Micros,
}

/// Calls left, by account.
pub struct Rates {
    capacity: f64,
    buckets: Mutex<HashMap<AccountId, Bucket>>,
}

impl Rates {
    /// Full buckets of so many calls an hour.
    pub fn new(calls_per_hour: u64) -> Self {
        Self { capacity: calls_per_hour as f64, buckets: Mutex::default() }
    }

    /// Takes one call; the number left after it, or `None` when there was none left.
    pub fn take(&self, account: AccountId, now: Micros) -> Option<u64> {
        self.with(account, now, |left| {
            if *left < 1.0 {
                return None;
            }
            *left -= 1.0;
            Some(*left as u64)
        })
    }

    /// The number left.
    pub fn remaining(&self, account: AccountId, now: Micros) -> u64 {
        self.with(account, now, |left| *left as u64)
    }

    fn with<T>(&self, account: AccountId, now: Micros, act: impl FnOnce(&mut f64) -> T) -> T {
        let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        let bucket = buckets.entry(account).or_insert(Bucket { left: self.capacity, at: now });
        let passed = (now - bucket.at).max(0) as f64;
        bucket.left = (bucket.left + passed * self.capacity / HOUR).min(self.capacity);
        bucket.at = now;
        act(&mut bucket.left)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_empties_and_fills_again() {
        let (rates, account) = (Rates::new(60), AccountId::random());
        for left in (0..60).rev() {
            assert_eq!(rates.take(account, 0), Some(left));
        }
        assert_eq!(rates.take(account, 0), None);
        assert_eq!(rates.take(account, 60_000_000), Some(0));
        assert_eq!(rates.take(account, 60_000_000), None);
        assert_eq!(rates.remaining(account, 7_200_000_000), 60);
        assert_eq!(rates.remaining(AccountId::random(), 0), 60);
    }
}
