//! Cycling: every dyno is replaced once a day, at a time of its own, and never all of a process type together.
//!
//! The time follows from the dyno's id, which is random, so that nothing need be stored for it.

use std::collections::{BTreeMap, BTreeSet};

use crate::{ids::DynoId, limits::Limits, name::ProcessType};

const SECOND: u64 = 1_000_000; // microseconds

/// When a dyno is due, microseconds since 1970: at the age of `cycle_seconds` and up to `cycle_jitter_seconds` more.
pub fn due_at(dyno: DynoId, created_at: i64, limits: &Limits) -> i64 {
    let (_, low) = dyno.0.as_u64_pair();
    let random = low & (u64::MAX >> 2); // the two highest bits of this half are the same in all ids
    let jitter = limits.cycle_jitter_seconds.saturating_mul(SECOND);
    let age = limits.cycle_seconds.saturating_mul(SECOND).saturating_add(random % jitter.saturating_add(1).max(1));
    created_at.saturating_add(i64::try_from(age).unwrap_or(i64::MAX))
}

/// A dyno of the formation that runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    /// Which.
    pub dyno: DynoId,
    /// Its process type.
    pub process_type: ProcessType,
    /// When it is due.
    pub due_at: i64,
    /// It is up and nobody wants to replace it; one that is not holds the others of its type back.
    pub settled: bool,
}

/// Which dynos of an app to replace now, at most one of a type, and when the next one is due. A type of which a dyno is
/// not settled waits for that, whatever is due.
pub fn choose(dynos: &[Candidate], now: i64) -> (Vec<DynoId>, Option<i64>) {
    let unsettled: BTreeSet<&ProcessType> =
        dynos.iter().filter(|dyno| !dyno.settled).map(|dyno| &dyno.process_type).collect();
    let mut next: BTreeMap<&ProcessType, &Candidate> = BTreeMap::new();
    for dyno in dynos.iter().filter(|dyno| !unsettled.contains(&dyno.process_type)) {
        let first = next.entry(&dyno.process_type).or_insert(dyno);
        if dyno.due_at < first.due_at {
            *first = dyno;
        }
    }
    let due = next.values().filter(|dyno| dyno.due_at <= now).map(|dyno| dyno.dyno).collect();
    (due, next.values().map(|dyno| dyno.due_at).filter(|at| *at > now).min())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn candidate(name: &str, due_at: i64, settled: bool) -> Candidate {
        Candidate { dyno: DynoId::random(), process_type: name.parse().expect("a type"), due_at, settled }
    }

    #[test]
    fn a_dyno_is_due_after_a_day_and_a_random_part_of_216_minutes() {
        let limits = Limits::default();
        let mut ages: Vec<i64> = (0..1000).map(|_| due_at(DynoId::random(), 0, &limits) / 60_000_000).collect();
        ages.sort_unstable();
        assert!(ages[0] >= 24 * 60 && ages[999] <= 24 * 60 + 216);
        assert!(ages[0] < 24 * 60 + 20 && ages[999] > 24 * 60 + 196, "spread over the whole time: {ages:?}");
        let exact = Limits { cycle_jitter_seconds: 0, ..limits };
        assert_eq!(due_at(DynoId::random(), 5, &exact), 5 + 86_400_000_000);
    }

    #[test]
    fn of_a_type_one_goes_at_a_time_the_one_that_is_due_first() {
        let dynos = [candidate("web", 30, true), candidate("web", 10, true), candidate("worker", 20, true)];
        assert_eq!(choose(&dynos, 50), (vec![dynos[1].dyno, dynos[2].dyno], None));
        assert_eq!(choose(&dynos, 15), (vec![dynos[1].dyno], Some(20)));
        assert_eq!(choose(&dynos, 5), (vec![], Some(10)));
    }

    #[test]
    fn a_type_waits_while_one_of_it_is_not_settled() {
        let dynos = [candidate("web", 10, true), candidate("web", 90, false), candidate("worker", 60, true)];
        assert_eq!(choose(&dynos, 50), (vec![], Some(60)));
    }
}
