//! The planner: from what should run and what does, to what is to be done now.
//!
//! A pure function that an engine calls after every change; time is an argument, and what cannot be done yet is told
//! as the time at which to ask again. It holds the rules of scaling, of replacement on a new release with or without
//! preboot, and of restarts after crashes. One-off dynos are none of its business.

use std::collections::BTreeMap;

use crate::{
    ids::DynoId,
    limits::Limits,
    name::{DynoName, ProcessType},
    release::Version,
    size::Size,
};

const SECOND: i64 = 1_000_000; // microseconds

/// How many dynos of one process type should run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Process {
    /// Its name.
    pub process_type: ProcessType,
    /// Its command.
    pub command: String,
    /// How many.
    pub quantity: u32,
    /// How large.
    pub size: Size,
}

/// What one app should run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// The release in force.
    pub version: Version,
    /// Process types; one that is missing has no dynos.
    pub processes: Vec<Process>,
    /// New web dynos are up before old ones stop.
    pub preboot: bool,
}

/// What the planner needs to know of a dyno's state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Life {
    /// On its way up.
    Starting,
    /// Up.
    Up,
    /// Told to stop; it goes by itself and blocks nobody.
    Stopping,
    /// Crashed; waits for its next start.
    Crashed {
        /// When it may be started again, microseconds since 1970.
        retry_at: i64,
        /// Crashes in a row.
        crashes: u32,
    },
}

/// A dyno of the formation as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Present {
    /// Which.
    pub dyno: DynoId,
    /// `web.1`.
    pub name: DynoName,
    /// Release it runs.
    pub version: Version,
    /// Its command.
    pub command: String,
    /// Its size.
    pub size: Size,
    /// When it was created, microseconds since 1970.
    pub created_at: i64,
    /// Its state.
    pub life: Life,
    /// Somebody asked for its replacement.
    pub replace: bool,
}

/// One thing to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Signal a live dyno.
    Stop {
        /// Which.
        dyno: DynoId,
        /// Another takes its name: people read `Restarting` rather than that it went down.
        replaced: bool,
    },
    /// Drop a crashed dyno from the list; a start under its name may follow.
    Forget {
        /// Which.
        dyno: DynoId,
    },
    /// Start a dyno.
    Start {
        /// Under which name.
        name: DynoName,
        /// Its command.
        command: String,
        /// Its size.
        size: Size,
        /// Crashes in a row before this start.
        crashes: u32,
    },
}

/// What to do now, and when to ask again at the latest.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Plan {
    /// In this order.
    pub actions: Vec<Action>,
    /// Nothing else changes before this time (microseconds since 1970) unless an event comes.
    pub wake_at: Option<i64>,
}

/// The crash count after one more crash: 1 when the dyno had been up for `crash_reset_seconds`.
pub fn crashes_after(before: u32, up_for: Option<i64>, limits: &Limits) -> u32 {
    let steady = up_for.is_some_and(|micros| micros >= seconds(limits.crash_reset_seconds));
    if steady { 1 } else { before.saturating_add(1) }
}

/// When a dyno that crashed at `at` for the `crashes`-th time in a row is started again: at once after the first
/// crash, then after `crash_backoff_seconds`, doubling up to `crash_backoff_max_seconds`.
pub fn retry_at(at: i64, crashes: u32, limits: &Limits) -> i64 {
    let Some(doublings) = crashes.checked_sub(2) else { return at };
    let factor = 1_u64.checked_shl(doublings).unwrap_or(u64::MAX);
    let pause = limits.crash_backoff_seconds.saturating_mul(factor).min(limits.crash_backoff_max_seconds);
    at.saturating_add(seconds(pause))
}

fn seconds(limit: u64) -> i64 {
    i64::try_from(limit).unwrap_or(i64::MAX).saturating_mul(SECOND)
}

/// Plans one app. `wanted` is `None` when nothing should run. Applying the actions and planning again yields nothing
/// new until something happens or `wake_at` has come.
pub fn plan(wanted: Option<&Wanted>, present: &[Present], now: i64) -> Plan {
    let mut slots: BTreeMap<DynoName, &Process> = BTreeMap::new();
    for process in wanted.iter().flat_map(|wanted| &wanted.processes) {
        for number in 1..=process.quantity {
            slots.insert(DynoName::new(process.process_type.clone(), number), process);
        }
    }
    let right = |dyno: &Present| {
        let fits = |process: &&Process| process.size == dyno.size && process.command == dyno.command;
        !dyno.replace && wanted.is_some_and(|w| w.version == dyno.version) && slots.get(&dyno.name).is_some_and(fits)
    };
    let preboot = wanted.is_some_and(|wanted| wanted.preboot);
    // With preboot an old web dyno goes when every wanted web dyno of the new kind is up.
    let web_ready = slots
        .keys()
        .filter(|name| name.process_type().is_web())
        .all(|name| present.iter().any(|dyno| dyno.name == *name && dyno.life == Life::Up && right(dyno)));

    let mut plan = Plan::default();
    let mut stops: Vec<(&Present, bool)> = Vec::new();
    let mut starts: Vec<(DynoName, &Process, u32)> = Vec::new();
    let mut forgotten: Vec<DynoId> = Vec::new();

    for dyno in present.iter().filter(|dyno| !slots.contains_key(&dyno.name)) {
        match dyno.life {
            Life::Starting | Life::Up => stops.push((dyno, false)),
            Life::Crashed { .. } => forgotten.push(dyno.dyno),
            Life::Stopping => {}
        }
    }
    for (name, process) in &slots {
        let mut covered = false;
        let mut crashes = 0;
        let mut here: Vec<&Present> = present.iter().filter(|dyno| dyno.name == *name).collect();
        here.sort_by_key(|dyno| dyno.created_at);
        for dyno in here {
            match (right(dyno), dyno.life) {
                (_, Life::Stopping) => {}
                (true, Life::Starting | Life::Up) if covered => stops.push((dyno, true)),
                (true, Life::Starting | Life::Up) => covered = true,
                (true, Life::Crashed { .. }) if covered => forgotten.push(dyno.dyno),
                (true, Life::Crashed { retry_at, .. }) if retry_at > now => {
                    covered = true;
                    plan.wake_at = Some(plan.wake_at.map_or(retry_at, |wake| wake.min(retry_at)));
                }
                (true, Life::Crashed { crashes: before, .. }) => {
                    crashes = before;
                    forgotten.push(dyno.dyno);
                }
                (false, Life::Crashed { .. }) => forgotten.push(dyno.dyno),
                (false, Life::Up) if preboot && name.process_type().is_web() && !web_ready => {}
                (false, Life::Starting | Life::Up) => stops.push((dyno, true)),
            }
        }
        if !covered {
            starts.push((name.clone(), process, crashes));
        }
    }

    // Highest numbers go first, lowest come first.
    stops.sort_by(|(a, _), (b, _)| b.name.cmp(&a.name));
    plan.actions.extend(forgotten.into_iter().map(|dyno| Action::Forget { dyno }));
    plan.actions.extend(stops.into_iter().map(|(dyno, replaced)| Action::Stop { dyno: dyno.dyno, replaced }));
    plan.actions.extend(starts.into_iter().map(|(name, process, crashes)| Action::Start {
        name,
        command: process.command.clone(),
        size: process.size,
        crashes,
    }));
    plan
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(version: u32, types: &[(&str, u32)]) -> Wanted {
        let process = |(name, quantity): &(&str, u32)| Process {
            process_type: name.parse().expect("a type"),
            command: format!("run {name}"),
            quantity: *quantity,
            size: Size::Basic,
        };
        Wanted { version: Version(version), processes: types.iter().map(process).collect(), preboot: false }
    }

    fn dyno(name: &str, version: u32, life: Life) -> Present {
        let name: DynoName = name.parse().expect("a name");
        Present {
            dyno: DynoId::random(),
            command: format!("run {}", name.process_type()),
            name,
            version: Version(version),
            size: Size::Basic,
            created_at: i64::from(version),
            life,
            replace: false,
        }
    }

    /// `+web.1`, `+web.1/3` after three crashes, `-web.1v1` stopped, `~web.1v1` stopped to be replaced, `xweb.1v1`
    /// forgotten.
    fn words(plan: &Plan, present: &[Present]) -> Vec<String> {
        let label = |id: &DynoId| {
            let dyno = present.iter().find(|dyno| dyno.dyno == *id).expect("a dyno that is present");
            format!("{}{}", dyno.name, dyno.version)
        };
        let word = |action: &Action| match action {
            Action::Stop { dyno, replaced: false } => format!("-{}", label(dyno)),
            Action::Stop { dyno, replaced: true } => format!("~{}", label(dyno)),
            Action::Forget { dyno } => format!("x{}", label(dyno)),
            Action::Start { name, crashes: 0, .. } => format!("+{name}"),
            Action::Start { name, crashes, .. } => format!("+{name}/{crashes}"),
        };
        plan.actions.iter().map(word).collect()
    }

    fn check(wanted: &Wanted, present: &[Present], expected: &[&str]) {
        let plan = plan(Some(wanted), present, 1000);
        assert_eq!(words(&plan, present), expected, "{wanted:?} {present:?}");
    }

    #[test]
    fn scaling_starts_the_lowest_and_stops_the_highest() {
        let up = |name: &str| dyno(name, 1, Life::Up);
        check(&wanted(1, &[("web", 2), ("worker", 1)]), &[], &["+web.1", "+web.2", "+worker.1"]);
        check(&wanted(1, &[("web", 3)]), &[up("web.1")], &["+web.2", "+web.3"]);
        check(&wanted(1, &[("web", 1)]), &[up("web.1"), up("web.2"), up("web.3")], &["-web.3v1", "-web.2v1"]);
        check(&wanted(1, &[("web", 0)]), &[up("web.1")], &["-web.1v1"]);
        check(&wanted(1, &[]), &[up("worker.1")], &["-worker.1v1"]);
        check(&wanted(1, &[("web", 1)]), &[up("web.1")], &[]);
        check(&wanted(1, &[("web", 12)]), &(1..=11).map(|n| up(&format!("web.{n}"))).collect::<Vec<_>>(), &["+web.12"]);
    }

    #[test]
    fn nothing_wanted_stops_everything() {
        let present = [dyno("web.1", 1, Life::Up), dyno("web.2", 1, Life::Crashed { retry_at: 9, crashes: 1 })];
        assert_eq!(words(&plan(None, &present, 0), &present), ["xweb.2v1", "-web.1v1"]);
    }

    #[test]
    fn a_release_signals_the_old_and_starts_the_new_at_once() {
        let present = [dyno("web.1", 1, Life::Up), dyno("worker.1", 1, Life::Starting)];
        check(&wanted(2, &[("web", 1), ("worker", 1)]), &present, &["~worker.1v1", "~web.1v1", "+web.1", "+worker.1"]);
        let present = [dyno("web.1", 1, Life::Stopping)];
        check(&wanted(2, &[("web", 1)]), &present, &["+web.1"]);
        let present = [dyno("web.1", 1, Life::Stopping), dyno("web.1", 2, Life::Starting)];
        check(&wanted(2, &[("web", 1)]), &present, &[]);
    }

    #[test]
    fn with_preboot_the_old_go_when_all_new_web_dynos_are_up() {
        let preboot = Wanted { preboot: true, ..wanted(2, &[("web", 2), ("worker", 1)]) };
        let old = || vec![dyno("web.1", 1, Life::Up), dyno("web.2", 1, Life::Up), dyno("worker.1", 1, Life::Up)];
        check(&preboot, &old(), &["~worker.1v1", "+web.1", "+web.2", "+worker.1"]);
        let with = |one, two| {
            let mut present = old();
            present.extend([dyno("web.1", 2, one), dyno("web.2", 2, two), dyno("worker.1", 2, Life::Up)]);
            present.remove(2);
            present
        };
        check(&preboot, &with(Life::Up, Life::Starting), &[]);
        check(&preboot, &with(Life::Up, Life::Crashed { retry_at: 5000, crashes: 2 }), &[]);
        check(&preboot, &with(Life::Up, Life::Up), &["~web.2v1", "~web.1v1"]);
    }

    #[test]
    fn a_crashed_dyno_waits_for_its_time() {
        let present = [dyno("web.1", 1, Life::Crashed { retry_at: 5000, crashes: 2 })];
        let waiting = plan(Some(&wanted(1, &[("web", 1)])), &present, 1000);
        assert_eq!((waiting.actions.len(), waiting.wake_at), (0, Some(5000)));
        let due = plan(Some(&wanted(1, &[("web", 1)])), &present, 5000);
        assert_eq!(words(&due, &present), ["xweb.1v1", "+web.1/2"]);
        assert_eq!(due.wake_at, None);
    }

    #[test]
    fn a_release_or_a_restart_forgets_the_crashes() {
        let crashed = dyno("web.1", 1, Life::Crashed { retry_at: 5000, crashes: 7 });
        check(&wanted(2, &[("web", 1)]), std::slice::from_ref(&crashed), &["xweb.1v1", "+web.1"]);
        check(&wanted(1, &[("web", 1)]), &[Present { replace: true, ..crashed }], &["xweb.1v1", "+web.1"]);
    }

    #[test]
    fn a_restart_and_a_new_size_replace() {
        let up = dyno("web.1", 1, Life::Up);
        check(&wanted(1, &[("web", 1)]), &[Present { replace: true, ..up.clone() }], &["~web.1v1", "+web.1"]);
        check(&wanted(1, &[("web", 1)]), &[Present { size: Size::Standard2X, ..up }], &["~web.1v1", "+web.1"]);
    }

    #[test]
    fn of_two_right_dynos_under_one_name_the_older_stays() {
        let first = dyno("web.1", 1, Life::Up);
        let second = Present { created_at: 99, dyno: DynoId::random(), ..first.clone() };
        let plan = plan(Some(&wanted(1, &[("web", 1)])), &[second.clone(), first], 0);
        assert_eq!(plan.actions, [Action::Stop { dyno: second.dyno, replaced: true }]);
    }

    #[test]
    fn the_pause_doubles_up_to_its_limit() {
        let limits = Limits { crash_backoff_seconds: 10, crash_backoff_max_seconds: 60, ..Limits::default() };
        let pauses: Vec<i64> = (1..=6).map(|crashes| retry_at(0, crashes, &limits) / SECOND).collect();
        assert_eq!(pauses, [0, 10, 20, 40, 60, 60]);
        assert_eq!(retry_at(7, 200, &limits), 7 + 60 * SECOND);
    }

    #[test]
    fn a_steady_dyno_starts_counting_again() {
        let limits = Limits { crash_reset_seconds: 60, ..Limits::default() };
        assert_eq!(crashes_after(4, Some(59 * SECOND), &limits), 5);
        assert_eq!(crashes_after(4, Some(60 * SECOND), &limits), 1);
        assert_eq!(crashes_after(4, None, &limits), 5);
    }
}
