//! When a byte was last seen in a session, and waiting until that is long ago.

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use tokio::time::{Instant, sleep_until};

/// When a byte was last seen.
pub(super) struct Activity(Mutex<Instant>);

impl Activity {
    pub(super) fn new() -> Self {
        Self(Mutex::new(Instant::now()))
    }

    /// One is seen.
    pub(super) fn note(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }

    fn last(&self) -> Instant {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns when none was seen for this long.
    pub(super) async fn quiet(&self, span: Duration) {
        loop {
            let until = self.last() + span;
            if until <= Instant::now() {
                return;
            }
            sleep_until(until).await;
        }
    }
}
