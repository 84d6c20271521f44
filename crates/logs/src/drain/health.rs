//! How a drain fares: pauses between attempts, how many lines may wait for it, and what the platform's own log says.

use std::time::{Duration, Instant};

use dozen_api::drains::{Destination, is_syslog};
use dozen_domain::limits::{Limits, millis, seconds};

/// Attempts whose pauses grow (heroku/logplex, `http_max_retries`).
const GROWING: u32 = 10;
/// The platform's own log hears of a drain that goes on failing this often.
const REPEAT: Duration = Duration::from_secs(600);

/// What it takes before fewer lines wait for a drain that fails (heroku/logplex has one rule for each kind).
#[derive(Debug, Clone, Copy)]
enum Shrink {
    /// HTTP: failures for this long.
    After(Duration),
    /// Syslog: so many failures in a row.
    Tries(u64),
}

/// One drain's failures since it worked last.
#[derive(Debug, Clone)]
pub(crate) struct Health {
    unit: Duration,
    shrink: Shrink,
    buffer: u64,
    shrunk: u64,
    failures: u32,
    failing: Option<Instant>,
    logged: Option<Instant>,
}

impl Health {
    /// Has not failed.
    pub(crate) fn new(limits: &Limits, to: &Destination) -> Self {
        Self {
            unit: millis(limits.drain_retry_ms),
            shrink: match to {
                Destination::Log(url) if is_syslog(url.expose()) => Shrink::Tries(limits.drain_shrink_tries),
                Destination::Log(_) | Destination::Telemetry(_) => Shrink::After(seconds(limits.drain_shrink_seconds)),
            },
            // No more can wait than history holds.
            buffer: limits.drain_buffer_lines.min(limits.log_history_lines),
            shrunk: limits.drain_shrunk_lines.min(limits.log_history_lines),
            failures: 0,
            failing: None,
            logged: None,
        }
    }

    /// Says whether it worked when it was tried last.
    pub(crate) fn is_good(&self) -> bool {
        self.failures == 0
    }

    /// It works.
    pub(crate) fn good(&mut self) {
        if self.failures > 0 {
            self.failures = 0;
            self.failing = None;
            self.logged = None;
        }
    }

    /// It failed; says how long to wait, and whether to log it.
    pub(crate) fn bad(&mut self) -> (Duration, bool) {
        self.failures = self.failures.saturating_add(1);
        self.failing.get_or_insert_with(Instant::now);
        let log = self.logged.is_none_or(|logged| logged.elapsed() > REPEAT);
        if log {
            self.logged = Some(Instant::now());
        }
        // 10 ms x (2^rand(1..min(10, attempt)) - 1) / 2
        let slot = fastrand::u32(1..=self.failures.min(GROWING));
        (self.unit * (2_u32.pow(slot) - 1) / 2, log)
    }

    /// Lines that may wait now.
    pub(crate) fn waiting(&self) -> u64 {
        let long = match self.shrink {
            Shrink::After(time) => self.failing.is_some_and(|since| since.elapsed() > time),
            Shrink::Tries(tries) => self.failures > 0 && u64::from(self.failures) >= tries,
        };
        if long { self.shrunk } else { self.buffer }
    }
}

#[cfg(test)]
mod tests {
    use dozen_domain::config::Secret;

    use super::*;

    fn health(limits: &Limits, url: &str) -> Health {
        Health::new(limits, &Destination::Log(Secret::new(url)))
    }

    const HTTP: &str = "https://logs.example.com/";

    #[test]
    fn pauses_grow_to_a_bound_and_end_with_success() {
        let mut health = health(&Limits::default(), HTTP);
        let longest = |health: &mut Health| (0..200).map(|_| health.bad().0).max().expect("some");
        assert!(health.bad().0 <= Duration::from_millis(5));
        assert!(longest(&mut health) > Duration::from_secs(1));
        assert!(longest(&mut health) <= Duration::from_millis(5_115));
        health.good();
        assert!(health.bad().0 <= Duration::from_millis(5));
    }

    #[test]
    fn fewer_lines_wait_for_a_drain_that_failed_for_long() {
        let of = |limits: Limits| health(&limits, HTTP);
        let mut health = of(Limits { drain_shrink_seconds: 0, ..Limits::default() });
        assert_eq!(health.waiting(), 1_024);
        assert!(health.bad().1, "the first failure is logged");
        assert!(!health.bad().1);
        assert_eq!(health.waiting(), 10);
        health.good();
        assert_eq!(health.waiting(), 1_024);
        assert_eq!(of(Limits { log_history_lines: 100, ..Limits::default() }).waiting(), 100);
    }

    #[test]
    fn it_takes_ten_failures_in_a_row_for_a_syslog_drain_however_fast_they_are() {
        let mut health = health(&Limits::default(), "SYSLOG+TLS://logs.example.com:6514");
        for _ in 0..9 {
            health.bad();
        }
        assert_eq!(health.waiting(), 1_024);
        health.bad();
        assert_eq!(health.waiting(), 10);
        health.good();
        assert_eq!(health.waiting(), 1_024);
    }
}
