//! The last minutes of every app's requests, as the router tells them: for whoever decides by them or shows them.
//!
//! It is kept in memory alone. After a start of the control role it is empty until the router's next word.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Mutex, PoisonError},
    time::Duration,
};

use dozen_api::{
    clock::Micros,
    traffic::{Counts, Summary, Traffic},
};
use dozen_domain::ids::AppId;

/// How far back figures go.
const KEPT: Duration = Duration::from_secs(300);

/// What routers have told.
#[derive(Debug, Default)]
pub struct Board {
    apps: Mutex<HashMap<AppId, VecDeque<(Micros, Counts)>>>,
}

fn micros(length: Duration) -> Micros {
    Micros::try_from(length.as_micros()).unwrap_or(Micros::MAX)
}

impl Board {
    /// Takes a router's word in.
    pub fn record(&self, traffic: Traffic, now: Micros) {
        let mut apps = self.apps.lock().unwrap_or_else(PoisonError::into_inner);
        let oldest = now - micros(KEPT);
        for (app, counts) in traffic.apps {
            apps.entry(app).or_default().push_back((now, counts));
        }
        apps.retain(|_, told| {
            while told.front().is_some_and(|(at, _)| *at < oldest) {
                told.pop_front();
            }
            !told.is_empty()
        });
    }

    /// An app's figures of the time `length` (five minutes at most) before `now`; all zero when it had no requests.
    pub fn summary(&self, app: AppId, length: Duration, now: Micros) -> Summary {
        let apps = self.apps.lock().unwrap_or_else(PoisonError::into_inner);
        let from = now - micros(length);
        let told = apps.get(&app).into_iter().flatten();
        Summary::of(told.filter(|(at, _)| *at > from).map(|(_, counts)| counts))
    }
}

#[cfg(test)]
mod tests {
    use dozen_api::traffic::{BUCKETS, Histogram, bucket};

    use super::*;

    const SECOND: Micros = 1_000_000;

    fn word(app: AppId, milliseconds: u64) -> Traffic {
        let mut times = vec![0; BUCKETS];
        times[bucket(milliseconds)] = 10;
        Traffic { apps: vec![(app, Counts { requests: 10, errors: 1, waiting: 0, times: Histogram::of(times) })] }
    }

    #[test]
    fn figures_are_those_of_the_time_that_is_asked_for() {
        let (board, app) = (Board::default(), AppId::random());
        for second in 0..400 {
            board.record(word(app, if second < 390 { 10 } else { 15 }), second * SECOND);
        }
        let now = 399 * SECOND;
        let last = board.summary(app, Duration::from_secs(5), now);
        assert_eq!((last.requests, last.errors, last.p95_ms), (50, 5, Some(15)));
        assert_eq!(board.summary(app, Duration::from_secs(100), now).p50_ms, Some(10));
        assert_eq!(board.summary(app, Duration::from_secs(10_000), now).requests, 3_010);
        assert_eq!(board.summary(AppId::random(), KEPT, now), Summary::default());
        board.record(Traffic::default(), now + micros(KEPT) + 1);
        assert!(board.apps.lock().expect("not poisoned").is_empty(), "nothing is kept for ever");
    }
}
