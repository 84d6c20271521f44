//! The time, as an object that tests can hold still.

use std::time::{SystemTime, UNIX_EPOCH};

/// Microseconds since 1970, the platform's unit for a point in time.
pub type Micros = i64;

/// Reads the machine's clock.
pub fn now() -> Micros {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| i64::try_from(since.as_micros()).unwrap_or(i64::MAX))
}

/// This boot of the machine: Linux's random name of it, from `/proc/sys/kernel/random/boot_id`.
pub fn boot() -> String {
    // A kernel that does not say so is never restarted as far as anybody can tell.
    std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().to_owned()
}

/// A clock: the machine's in production, a hand-set one in tests.
pub trait Clock: Send + Sync + 'static {
    /// Microseconds since 1970.
    fn now(&self) -> Micros;
}

/// The machine's clock.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Micros {
        now()
    }
}

/// `2026-11-22T10:11:12.123456+00:00`, the form of log lines and (without fraction and with `Z`) of the API.
pub fn rfc3339_micros(at: Micros) -> String {
    let stamp = jiff::Timestamp::from_microsecond(at).unwrap_or_default();
    format!("{}+00:00", stamp.strftime("%Y-%m-%dT%H:%M:%S.%6f"))
}

/// `2026-11-22T10:11:12Z`, the form of the Platform API.
pub fn rfc3339_seconds(at: Micros) -> String {
    let stamp = jiff::Timestamp::from_microsecond(at).unwrap_or_default();
    stamp.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}
