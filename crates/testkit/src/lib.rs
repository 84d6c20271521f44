//! What tests stand on: a platform of their own, the official CLI, git, small apps to push, and receivers of logs.
//!
//! Everything here is outside of what is tested, and blocks, but for [`receivers`]; nothing is shared between two platforms:
//! each has its own data directory, ports that the kernel chose, home directory and git configuration. A dev-dependency
//! only.

pub mod accounting;
mod answer;
mod fixture;
pub mod otlp;
mod platform;
mod processes;
pub mod receivers;
pub mod syslog_servers;
mod tail;
mod terminal;

use std::time::{Duration, Instant};

pub use answer::{Answer, Output};
pub use fixture::{App, example};
pub use platform::{Builder, TestPlatform};
pub use tail::Tail;
pub use terminal::Terminal;

/// Longest wait for something that should take a moment. Long, because machines of tests are slow and shared.
pub const LONG: Duration = Duration::from_secs(60);

/// Waits until a condition yields a value, looking every few milliseconds.
///
/// # Panics
/// When it has not after `limit`, saying what was waited for.
#[track_caller]
pub fn wait_for<T>(what: &str, limit: Duration, mut condition: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + limit;
    loop {
        if let Some(value) = condition() {
            return value;
        }
        assert!(Instant::now() < end, "waited {limit:?} in vain for {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Waits until a condition holds.
///
/// # Panics
/// As [`wait_for`].
#[track_caller]
pub fn wait_until(what: &str, limit: Duration, mut condition: impl FnMut() -> bool) {
    wait_for(what, limit, || condition().then_some(()));
}
