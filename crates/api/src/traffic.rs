//! What the router tells control of an app's requests, about once a second: how many, how they ended, how long they took.
//!
//! Times are counted in [`Histogram`]s, which can be added up: the 95th percentile of a minute follows from its seconds.
//! Whoever wants a figure asks control for a [`Summary`]; nothing here reaches a disk.

use dozen_domain::ids::AppId;
use serde::{Deserialize, Serialize};

/// One app's requests since the router's last word.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// Requests that have ended.
    pub requests: u64,
    /// Those of them that ended with a status of 500 or more, or were cut off by the router.
    pub errors: u64,
    /// Requests that wait for their answer to begin, now.
    pub waiting: u64,
    /// How long those that have ended took from their head to the answer's end, in milliseconds; tunnels (WebSockets) are
    /// not among them.
    pub times: Histogram,
}

/// The apps that had requests.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Traffic {
    /// Each with its counts.
    pub apps: Vec<(AppId, Counts)>,
}

/// Figures of a stretch of time.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Summary {
    /// Requests that ended in it.
    pub requests: u64,
    /// Those of them that ended with a status of 500 or more, or were cut off by the router.
    pub errors: u64,
    /// Requests that waited for their answer to begin, at most.
    pub waiting: u64,
    /// Median of the response times in milliseconds; none without requests.
    pub p50_ms: Option<u64>,
    /// 95th percentile.
    pub p95_ms: Option<u64>,
    /// 99th percentile.
    pub p99_ms: Option<u64>,
}

impl Summary {
    /// Adds counts up.
    pub fn of<'a>(all: impl IntoIterator<Item = &'a Counts>) -> Self {
        let mut sum = Counts::default();
        for counts in all {
            sum.requests += counts.requests;
            sum.errors += counts.errors;
            sum.waiting = sum.waiting.max(counts.waiting);
            sum.times.add(&counts.times);
        }
        let at = |share| sum.times.quantile(share);
        let (p50_ms, p95_ms, p99_ms) = (at(0.5), at(0.95), at(0.99));
        Self { requests: sum.requests, errors: sum.errors, waiting: sum.waiting, p50_ms, p95_ms, p99_ms }
    }
}

/// Counts of times by their length: exact below 16 ms, within an eighth above.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Histogram {
    /// Buckets that hold something, in order, with how much.
    buckets: Vec<(u16, u64)>,
}

/// Buckets that there are: the last begins above a quarter of an hour.
pub const BUCKETS: usize = 16 + 8 * 16;

/// The bucket of a time in milliseconds.
pub fn bucket(milliseconds: u64) -> usize {
    if milliseconds < 16 {
        return milliseconds as usize;
    }
    // Eight steps a doubling.
    let doubling = milliseconds.ilog2();
    let step = (milliseconds >> (doubling - 3)) & 7;
    (16 + (doubling as usize - 4) * 8 + step as usize).min(BUCKETS - 1)
}

/// The longest time that falls into a bucket, in milliseconds.
pub fn longest(bucket: usize) -> u64 {
    if bucket < 16 {
        return bucket as u64;
    }
    let (doubling, step) = ((bucket - 16) / 8 + 4, (bucket - 16) % 8);
    let size = 1_u64 << (doubling - 3);
    (8 + step as u64 + 1) * size - 1
}

impl Histogram {
    /// Of counts by bucket, from the first on.
    pub fn of(counts: impl IntoIterator<Item = u64>) -> Self {
        let numbered = counts.into_iter().enumerate().filter(|(_, count)| *count > 0);
        Self { buckets: numbered.map(|(bucket, count)| (bucket as u16, count)).collect() }
    }

    /// Adds another's counts.
    pub fn add(&mut self, other: &Self) {
        for (bucket, count) in &other.buckets {
            match self.buckets.binary_search_by_key(bucket, |(bucket, _)| *bucket) {
                Ok(at) => self.buckets[at].1 += count,
                Err(at) => self.buckets.insert(at, (*bucket, *count)),
            }
        }
    }

    /// The time within which this share of all ended, as far as the buckets tell; none where there is nothing.
    pub fn quantile(&self, share: f64) -> Option<u64> {
        let total: u64 = self.buckets.iter().map(|(_, count)| count).sum();
        let wanted = (total as f64 * share).ceil().max(1.0) as u64;
        let mut seen = 0;
        self.buckets.iter().find_map(|(bucket, count)| {
            seen += count;
            (seen >= wanted).then(|| longest(usize::from(*bucket)))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_time_falls_into_a_bucket_that_ends_no_more_than_an_eighth_later() {
        for time in (0..2_000).chain([4_095, 4_096, 30_000, 55_001, 900_000]) {
            let end = longest(bucket(time));
            assert!(end >= time && end <= time + time / 8, "{time} in {end}");
        }
        assert_eq!(bucket(u64::MAX), BUCKETS - 1);
        assert!((1..BUCKETS).all(|bucket| longest(bucket) > longest(bucket - 1)));
    }

    #[test]
    fn percentiles_of_a_sum_are_those_of_all_its_times() {
        let of = |times: std::ops::Range<u64>| {
            let mut counts = vec![0; BUCKETS];
            times.clone().for_each(|time| counts[bucket(time)] += 1);
            let times_of = Histogram::of(counts);
            Counts { requests: times.end - times.start, errors: 1, waiting: times.start, times: times_of }
        };
        let summary = Summary::of([&of(0..50), &of(50..100)]);
        assert_eq!((summary.requests, summary.errors, summary.waiting), (100, 2, 50));
        assert_eq!((summary.p50_ms, summary.p95_ms), (Some(51), Some(95)));
        assert_eq!(Summary::of([]).p95_ms, None);
    }
}
