//! The time, as an object that tests can hold still.

use std::time::{SystemTime, UNIX_EPOCH};

/// Microseconds since 1970, the platform's unit for a point in time.
pub type Micros = i64;

/// Reads the machine's clock.
pub fn now() -> Micros {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| i64::try_from(since.as_micros()).unwrap_or(i64::MAX))
}

/// For how long the machine is up, its sleep included: a clock that nobody sets, good until the machine is restarted.
pub fn uptime() -> Micros {
    let up = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    up.tv_sec.saturating_mul(1_000_000).saturating_add(up.tv_nsec / 1_000)
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

/// [`rfc3339_micros`] for many times one after the other. Most are in the second of the one before, so only their fraction is
/// written anew.
#[derive(Debug, Default)]
pub struct Stamp {
    second: Option<i64>,
    text: Vec<u8>,
}

impl Stamp {
    const SECOND: Micros = 1_000_000;
    /// Where the six digits of the fraction are.
    const FRACTION: std::ops::Range<usize> = 20..26;

    /// The time as bytes, which are text.
    pub fn bytes(&mut self, at: Micros) -> &[u8] {
        let second = Some(at.div_euclid(Self::SECOND));
        if self.second != second {
            self.text = rfc3339_micros(at).into_bytes();
            self.second = second;
        } else if let Some(digits) = self.text.get_mut(Self::FRACTION) {
            let mut fraction = at.rem_euclid(Self::SECOND);
            for digit in digits.iter_mut().rev() {
                *digit = b'0' + (fraction % 10) as u8;
                fraction /= 10;
            }
        }
        &self.text
    }

    /// The time as text.
    pub fn text(&mut self, at: Micros) -> &str {
        std::str::from_utf8(self.bytes(at)).unwrap_or_default()
    }
}

/// `2026-11-22T10:11:12Z`, the form of the Platform API.
pub fn rfc3339_seconds(at: Micros) -> String {
    let stamp = jiff::Timestamp::from_microsecond(at).unwrap_or_default();
    stamp.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stamp_writes_what_is_written_one_by_one() {
        let mut stamp = Stamp::default();
        for at in [0, 7, 999_999, 1_000_000, 1_704_067_200_123_456, 1_704_067_200_000_007, -1, 1_704_067_200_000_007] {
            assert_eq!(stamp.text(at), rfc3339_micros(at));
        }
    }
}
