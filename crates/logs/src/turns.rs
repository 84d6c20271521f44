//! Turns of those who store lines in a stream that drains read, so that drains which keep up lose nothing to a burst.
//!
//! A drain may have 1,024 lines before it, and a dyno can write more than that at once. So each turn stores fewer, and
//! after it the drains come to theirs. One that works and still has lines to send is waited for, but not for long: the
//! time for that grows by a twentieth of the time that goes by, up to a bound. A drain that is slow, stalled or
//! hostile so costs an app that floods a twentieth of its speed at most, and any other app nothing; what it
//! misses it is told (L10).

use std::{
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use tokio::{
    sync::{Mutex, MutexGuard, Notify},
    time::{Instant, timeout},
};

/// Share of the time for which drains may be waited for: one part of so many.
const SHARE: u32 = 20;

/// Who waits for whom in one stream.
#[derive(Debug)]
pub(crate) struct Turns {
    turn: Mutex<Patience>,
    lagging: AtomicUsize,
    calm: Notify,
}

/// Time for which drains may still be waited for.
#[derive(Debug)]
struct Patience {
    left: Duration,
    most: Duration,
    at: Instant,
}

impl Patience {
    fn grow(&mut self, now: Instant) {
        self.left = (self.left + now.saturating_duration_since(self.at) / SHARE).min(self.most);
        self.at = now;
    }

    fn spend(&mut self, now: Instant) {
        self.left = self.left.saturating_sub(now.saturating_duration_since(self.at));
        self.at = now;
    }
}

/// The turn of one that stores lines.
#[derive(Debug)]
pub(crate) struct Turn<'a> {
    turns: &'a Turns,
    patience: MutexGuard<'a, Patience>,
}

impl Turns {
    /// Nobody lags, and so much time is saved up, which is the most that may be.
    pub(crate) fn new(most: Duration) -> Self {
        let patience = Patience { left: most, most, at: Instant::now() };
        Self { turn: Mutex::new(patience), lagging: AtomicUsize::new(0), calm: Notify::new() }
    }

    /// Waits for a turn; all who wait have theirs in the order in which they came.
    pub(crate) async fn next(&self) -> Turn<'_> {
        Turn { turns: self, patience: self.turn.lock().await }
    }

    /// One drain more, or less, works and has lines before it.
    pub(crate) fn lags(&self, more: bool) {
        if more {
            self.lagging.fetch_add(1, Ordering::Relaxed);
        } else if self.lagging.fetch_sub(1, Ordering::Relaxed) == 1 {
            self.calm.notify_waiters();
        }
    }

    async fn calm(&self) {
        loop {
            let mut calm = std::pin::pin!(self.calm.notified());
            calm.as_mut().enable();
            if self.lagging.load(Ordering::Relaxed) == 0 {
                return;
            }
            calm.await;
        }
    }
}

impl Turn<'_> {
    /// Ends the turn after the drains had theirs.
    pub(crate) async fn give_way(mut self) {
        tokio::task::yield_now().await; // whoever waits for lines has them now
        self.patience.grow(Instant::now());
        let left = self.patience.left;
        if left > Duration::ZERO && self.turns.lagging.load(Ordering::Relaxed) > 0 {
            let _they_may_lag_on = timeout(left, self.turns.calm()).await;
            self.patience.spend(Instant::now());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOST: Duration = Duration::from_millis(50);

    #[test]
    fn drains_are_waited_for_a_twentieth_of_the_time_at_most() {
        let mut now = Instant::now();
        let mut patience = Patience { left: MOST, most: MOST, at: now };
        let mut waited = Duration::ZERO;
        for _ in 0..1_000 {
            now += Duration::from_millis(10); // the dyno writes meanwhile
            patience.grow(now);
            let wait = patience.left;
            now += wait;
            patience.spend(now);
            waited += wait;
        }
        let most = MOST + Duration::from_secs(10) / SHARE;
        assert!(waited <= most && waited >= most * 9 / 10, "{waited:?}");
        patience.grow(now + Duration::from_secs(3_600));
        assert_eq!(patience.left, MOST, "no more than that is saved up");
    }

    #[tokio::test]
    async fn a_turn_ends_when_the_last_drain_has_caught_up() {
        let turns = Turns::new(MOST);
        turns.lags(true);
        turns.lags(true);
        let calm = turns.calm();
        let catch_up = async {
            turns.lags(false);
            tokio::task::yield_now().await;
            turns.lags(false);
        };
        tokio::join!(calm, catch_up);
        turns.next().await.give_way().await;
        turns.calm().await;
    }
}
