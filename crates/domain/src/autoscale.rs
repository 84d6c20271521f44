//! Autoscaling: from how an app's requests went to how many dynos of a process type it should have.
//!
//! The rules are Heroku's where Heroku documents one (Dev Center: autoscaling): the 95th percentile of the response times
//! is held against the one that is wished for; each step is one dyno; two steps are at least a minute apart; dynos are
//! taken away only when the figures of the past hour say that fewer would do, or when no request has come for three
//! minutes; a quantity outside of the range is put into it at once. Ours are the length of the queue as another
//! measure, and a least quantity of zero: then the last dyno goes to sleep after half an hour without a request
//! (as Heroku's Eco dynos do), and the next request, which waits meanwhile, wakes it.
//!
//! Pure: the figures and the time are arguments, and what must be remembered between two looks is a [`Track`].

use std::collections::VecDeque;

use crate::limits::Limits;

const SECOND: i64 = 1_000_000; // microseconds

/// What is held against the wish.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Measure {
    /// The 95th percentile of the response times should stay below so many milliseconds.
    ResponseTime(u64),
    /// No more than so many requests should wait for each dyno's answer to begin.
    Queue(u64),
}

/// What somebody wishes for a process type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Policy {
    /// Fewest dynos; none: the last one sleeps while nobody asks for it.
    pub min: u32,
    /// Most dynos.
    pub max: u32,
    /// By what.
    pub measure: Measure,
}

impl Policy {
    /// Dynos that there are at least while requests come.
    fn awake(&self) -> u32 {
        self.min.max(1)
    }

    /// Says whether these figures ask for more dynos than there are.
    pub fn asks_for_more(&self, quantity: u32, seen: &Seen) -> bool {
        self.need(quantity, seen) > quantity
    }

    /// How many dynos these figures ask for.
    fn need(&self, quantity: u32, seen: &Seen) -> u32 {
        let share = |load: u64, wish: u64| u32::try_from(load.div_ceil(wish.max(1))).unwrap_or(u32::MAX).max(1);
        match (self.measure, seen.p95_ms) {
            (Measure::ResponseTime(wish), Some(p95)) if p95 >= wish => quantity.saturating_add(1),
            // What so many dynos do in this time, fewer do in as much more.
            (Measure::ResponseTime(wish), Some(p95)) => share(p95.saturating_mul(u64::from(quantity)), wish),
            (Measure::ResponseTime(_), None) => 1,
            (Measure::Queue(wish), _) => share(seen.waiting, wish),
        }
    }
}

/// How the requests of the last minute went.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Seen {
    /// Requests that ended.
    pub requests: u64,
    /// 95th percentile of their response times; none without requests.
    pub p95_ms: Option<u64>,
    /// Requests that waited for their answer to begin, at most.
    pub waiting: u64,
    /// The same of the last few seconds.
    pub waiting_now: u64,
}

/// What is to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Have so many dynos.
    Scale(u32),
    /// Have none until a request comes.
    Sleep,
    /// Have so many again: a request waits.
    Wake(u32),
}

impl Step {
    /// Dynos after it.
    pub fn quantity(self) -> u32 {
        match self {
            Self::Scale(quantity) | Self::Wake(quantity) => quantity,
            Self::Sleep => 0,
        }
    }
}

/// What is remembered of a process type. It begins anew with the platform, which then takes nothing away for a while.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Track {
    since: i64,
    busy_at: i64,
    stepped_at: Option<i64>,
    needs: VecDeque<(i64, u32)>,
}

impl Track {
    /// Nothing is known of the time before `now` (microseconds since 1970).
    pub fn new(now: i64) -> Self {
        Self { since: now, busy_at: now, stepped_at: None, needs: VecDeque::new() }
    }

    /// Looks once. What it answers is taken for done.
    pub fn look(&mut self, policy: &Policy, quantity: u32, seen: &Seen, now: i64, limits: &Limits) -> Option<Step> {
        let step = self.decide(policy, quantity, seen, now, limits)?;
        self.stepped_at = Some(now);
        Some(step)
    }

    fn decide(&mut self, policy: &Policy, quantity: u32, seen: &Seen, now: i64, limits: &Limits) -> Option<Step> {
        let past = |since: i64, limit: u64| {
            now.saturating_sub(since) >= i64::try_from(limit).unwrap_or(i64::MAX).saturating_mul(SECOND)
        };
        if seen.requests > 0 || seen.waiting > 0 {
            self.busy_at = self.busy_at.max(now);
        }
        if quantity == 0 && policy.min == 0 {
            return (seen.waiting_now > 0).then_some(Step::Wake(policy.awake()));
        }
        let within = quantity.clamp(policy.awake(), policy.max.max(policy.awake()));
        if within != quantity {
            return Some(Step::Scale(within));
        }
        let need = policy.need(quantity, seen);
        self.needs.push_back((now, need));
        while self.needs.front().is_some_and(|(at, _)| past(*at, limits.autoscale_history_seconds)) {
            self.needs.pop_front();
        }
        // The clock was set back: what it says of the past is worth nothing.
        if self.since > now || self.stepped_at.is_some_and(|at| at > now) {
            *self = Self::new(now);
        }
        if self.stepped_at.is_some_and(|at| !past(at, limits.autoscale_step_seconds)) {
            return None;
        }
        if need > quantity {
            return (quantity < policy.max).then(|| Step::Scale(quantity + 1));
        }
        let fewer = || (quantity > policy.awake()).then(|| Step::Scale(quantity - 1));
        if past(self.busy_at, limits.autoscale_idle_seconds) {
            let sleeps = policy.min == 0 && quantity == 1 && past(self.busy_at, limits.autoscale_sleep_seconds);
            return if sleeps { Some(Step::Sleep) } else { fewer() };
        }
        let settled = past(self.since, limits.autoscale_history_seconds);
        if settled && self.needs.iter().all(|(_, need)| *need < quantity) { fewer() } else { None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BY_TIME: Policy = Policy { min: 1, max: 4, measure: Measure::ResponseTime(500) };

    fn slow(p95: u64) -> Seen {
        Seen { requests: 100, p95_ms: Some(p95), waiting: 3, waiting_now: 3 }
    }

    /// Looks every ten seconds for so many seconds from `from` on; answers every step with its second.
    fn watch(
        track: &mut Track,
        policy: &Policy,
        quantity: &mut u32,
        from: i64,
        length: i64,
        seen: impl Fn(i64) -> Seen,
    ) -> Vec<(i64, Step)> {
        let mut steps = Vec::new();
        for second in (from..from + length).step_by(10) {
            if let Some(step) = track.look(policy, *quantity, &seen(second), second * SECOND, &Limits::default()) {
                *quantity = step.quantity();
                steps.push((second, step));
            }
        }
        steps
    }

    #[test]
    fn slow_answers_bring_one_dyno_a_minute_up_to_the_most() {
        let (mut track, mut quantity) = (Track::new(0), 1);
        let steps = watch(&mut track, &BY_TIME, &mut quantity, 0, 600, |_| slow(500));
        assert_eq!(steps, [(0, Step::Scale(2)), (60, Step::Scale(3)), (120, Step::Scale(4))]);
    }

    #[test]
    fn dynos_go_one_a_minute_when_an_hour_says_that_fewer_would_do() {
        let (mut track, mut quantity) = (Track::new(0), 4);
        // 4 dynos at 200 of 500 ms: 2 would do. One slow minute in the first hour keeps them all for another.
        let fast = |second| if second == 1_800 { slow(490) } else { slow(200) };
        let steps = watch(&mut track, &BY_TIME, &mut quantity, 0, 5_400, fast);
        assert_eq!(steps, []);
        let steps = watch(&mut track, &BY_TIME, &mut quantity, 5_400, 200, fast);
        assert_eq!(steps.first(), Some(&(5_400, Step::Scale(3))));
        // Figures of the hour before spoke of two.
        assert_eq!(steps.get(1), Some(&(5_460, Step::Scale(2))));
    }

    #[test]
    fn without_a_request_for_three_minutes_dynos_go_one_a_minute_to_the_fewest() {
        let (mut track, mut quantity) = (Track::new(0), 3);
        let steps =
            watch(
                &mut track,
                &BY_TIME,
                &mut quantity,
                0,
                7_200,
                |second| if second < 30 { slow(100) } else { Seen::default() },
            );
        assert_eq!(steps, [(200, Step::Scale(2)), (260, Step::Scale(1))]);
    }

    #[test]
    fn a_quantity_outside_of_the_range_is_put_into_it_at_once() {
        let mut track = Track::new(0);
        let policy = Policy { min: 2, max: 4, ..BY_TIME };
        let mut look = |quantity| track.look(&policy, quantity, &Seen::default(), 0, &Limits::default());
        assert_eq!((look(1), look(9), look(0)), (Some(Step::Scale(2)), Some(Step::Scale(4)), Some(Step::Scale(2))));
    }

    #[test]
    fn the_queue_is_shared_out_between_dynos() {
        let policy = Policy { min: 1, max: 9, measure: Measure::Queue(10) };
        let queue = |waiting| Seen { requests: 1, p95_ms: Some(9_999), waiting, waiting_now: waiting };
        let look = |quantity, waiting| Track::new(0).look(&policy, quantity, &queue(waiting), 0, &Limits::default());
        assert_eq!((look(2, 20), look(2, 21)), (None, Some(Step::Scale(3))));
    }

    #[test]
    fn the_last_dyno_sleeps_after_half_an_hour_and_a_waiting_request_wakes_it() {
        let policy = Policy { min: 0, ..BY_TIME };
        let (mut track, mut quantity) = (Track::new(0), 1);
        let steps = watch(&mut track, &policy, &mut quantity, 0, 3_600, |_| Seen::default());
        assert_eq!(steps, [(1_800, Step::Sleep)]);
        let request = Seen { waiting: 1, waiting_now: 1, ..Seen::default() };
        let steps = watch(&mut track, &policy, &mut quantity, 3_600, 60, |_| request);
        assert_eq!(steps, [(3_600, Step::Wake(1))]);
    }

    #[test]
    fn a_clock_that_is_set_back_takes_nothing_away_and_holds_nothing_up() {
        let (mut track, mut quantity) = (Track::new(7_200), 2);
        let ahead = watch(&mut track, &BY_TIME, &mut quantity, 7_200, 60, |_| slow(600));
        assert_eq!(ahead, [(7_200, Step::Scale(3))]);
        let back = watch(&mut track, &BY_TIME, &mut quantity, 0, 60, |_| slow(600));
        assert_eq!(back, [(0, Step::Scale(4))]);
    }
}
