//! One dyno in the engine's list, and what its shim's events make of it.
//!
//! Events may come twice: a shim tells all of them again to each new connection. What has been told in the log is
//! noted in the dyno's directory, so that a restart of control says nothing a second time.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    io::Write,
    net::SocketAddr,
    path::{Path, PathBuf},
};

use dozen_api::{
    clock::{self, Micros},
    engine::{Dyno, HealthCheck, Run},
    shim::{Command, Event, Record},
};
use dozen_domain::{
    cycle,
    dyno::{Exit, State},
    limits::{Limits, seconds},
    plan::{Life, Present, crashes_after, retry_at},
    settings::Stop,
};
use tokio::sync::{mpsc, watch};

use super::say;
use crate::shim::HOLD_OUTPUT;

/// File in a dyno's directory with one word for each thing that was told.
const TOLD: &str = "told";
/// The word in it when a replacement was asked for.
const REPLACE: &str = "replace";
/// The word in it when that was for the dyno's age.
const CYCLE: &str = "cycle";
/// The word in it when the health check was answered.
const HEALTHY: &str = "healthy";

/// What a dyno is for; kept in its record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Part of the formation.
    Formation,
    /// Runs one command once.
    OneOff,
}

/// Keys of [`Record::engine`].
pub(crate) mod key {
    /// `formation`, `one_off` or `build`.
    pub(crate) const KIND: &str = "kind";
    /// Crashes in a row before this start.
    pub(crate) const CRASHES: &str = "crashes";
    /// Number of its address.
    pub(crate) const LEASE: &str = "lease";
    /// The machine's uptime, in microseconds, when the dyno was made.
    pub(crate) const MADE_AT: &str = "made_at_uptime";
    /// The machine's uptime, in microseconds, at which a one-off is stopped.
    pub(crate) const STOP_AT: &str = "stop_at_uptime";
    /// Seconds to bind the port.
    pub(crate) const BOOT_SECONDS: &str = "boot_seconds";
    /// Name of the signal that asks it to end.
    pub(crate) const STOP_SIGNAL: &str = "stop_signal";
    /// Seconds between that and SIGKILL.
    pub(crate) const STOP_SECONDS: &str = "stop_seconds";
    /// Host and path of its health check, if it has one.
    pub(crate) const HEALTH_CHECK: &str = "health_check";
}

/// Words of [`key::KIND`].
pub(crate) mod kind {
    pub(crate) const FORMATION: &str = "formation";
    pub(crate) const ONE_OFF: &str = "one_off";
    pub(crate) const BUILD: &str = "build";
}

/// What an event did.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Change {
    /// Lines for the log, with the time of the event.
    pub(super) lines: Vec<String>,
    /// The state changed.
    pub(super) changed: bool,
    /// The process is gone.
    pub(super) ended: Option<Exit>,
    /// It left the list.
    pub(super) removed: bool,
    /// It listens and has to answer its health check.
    pub(super) probe: Option<Vec<SocketAddr>>,
    /// Its process was started or has ended, which is new.
    pub(super) timed: bool,
}

/// What was settled about a dyno at its start, kept in its record.
#[derive(Debug, Clone)]
pub(super) struct Terms {
    /// Crashes in a row before this start.
    pub(super) crashes: u32,
    /// Seconds to bind its port.
    pub(super) boot_seconds: u64,
    /// How it is stopped.
    pub(super) stop: Stop,
    /// What it must answer before it is up.
    pub(super) health_check: Option<HealthCheck>,
}

impl Terms {
    /// Those of a one-off.
    pub(super) fn one_off(limits: &Limits) -> Self {
        Self { crashes: 0, boot_seconds: 0, stop: Stop::usual(limits), health_check: None }
    }

    fn found(record: &Record, limits: &Limits) -> Self {
        let text = |key: &str| record.engine.get(key).map(String::as_str);
        let number = |key: &str| text(key).and_then(|text| text.parse::<u64>().ok());
        let health_check = text(key::HEALTH_CHECK).and_then(|text| text.split_once(' '));
        Self {
            crashes: number(key::CRASHES).and_then(|n| u32::try_from(n).ok()).unwrap_or_default(),
            boot_seconds: number(key::BOOT_SECONDS).unwrap_or_default(),
            stop: stop(record, Stop::usual(limits)),
            health_check: health_check.map(|(host, path)| HealthCheck { host: host.to_owned(), path: path.to_owned() }),
        }
    }

    fn record(&self) -> impl Iterator<Item = (String, String)> {
        let check = self.health_check.as_ref().map(|check| format!("{} {}", check.host, check.path));
        let known = [
            (key::CRASHES, self.crashes.to_string()),
            (key::BOOT_SECONDS, self.boot_seconds.to_string()),
            (key::STOP_SIGNAL, self.stop.signal.to_string()),
            (key::STOP_SECONDS, self.stop.grace.as_secs().to_string()),
        ];
        known.into_iter().chain(check.map(|check| (key::HEALTH_CHECK, check))).map(|(key, text)| (key.to_owned(), text))
    }
}

/// One dyno.
pub(super) struct Entry {
    pub(super) dyno: Dyno,
    pub(super) kind: Kind,
    pub(super) terms: Terms,
    /// Its replacement was asked for.
    pub(super) replace: bool,
    /// For its age.
    pub(super) cycling: bool,
    /// It leaves because another takes its name.
    pub(super) replaced: bool,
    /// It was asked to stop; the signal may still wait for the gate or for the shim.
    pub(super) leaving: bool,
    /// The word of its state as people read it, where that differs from the state's.
    pub(super) shown: Option<&'static str>,
    /// Where to send commands, once the shim is there.
    pub(super) commands: Option<mpsc::Sender<Command>>,
    /// How it ended.
    pub(super) exit: watch::Sender<Option<Exit>>,
    /// When it was made, by the machine's uptime: no dyno outlives a restart of the machine, and nobody sets that clock.
    made_at: Micros,
    /// When a one-off is stopped, by the same clock.
    pub(super) stop_at: Option<Micros>,
    /// When its process was started.
    pub(super) started_at: Option<Micros>,
    up_at: Option<Micros>,
    boot_timed_out: bool,
    told: BTreeSet<String>,
    directory: PathBuf,
}

impl Entry {
    /// A dyno that is about to be started.
    pub(super) fn new(dyno: Dyno, kind: Kind, terms: Terms, directory: PathBuf) -> Self {
        Self {
            dyno,
            kind,
            terms,
            replace: false,
            cycling: false,
            replaced: false,
            leaving: false,
            shown: None,
            commands: None,
            exit: watch::channel(None).0,
            made_at: clock::uptime(),
            stop_at: None,
            started_at: None,
            up_at: None,
            boot_timed_out: false,
            told: BTreeSet::new(),
            directory,
        }
    }

    /// A dyno that was found; `None` when it is none of the engine's.
    pub(super) fn found(record: &Record, directory: PathBuf, limits: &Limits) -> Option<Self> {
        let kind = match record.engine.get(key::KIND).map(String::as_str) {
            Some(kind::FORMATION) => Kind::Formation,
            Some(kind::ONE_OFF) => Kind::OneOff,
            _ => return None,
        };
        let dyno = Dyno {
            id: record.dyno,
            app: record.app,
            name: record.name.clone(),
            version: record.version,
            command: record.command.clone(),
            size: record.size,
            created_at: record.created_at,
            state: State::Starting { since: record.created_at },
        };
        let mut entry = Self::new(dyno, kind, Terms::found(record, limits), directory);
        let uptime = |key: &str| record.engine.get(key).and_then(|text| text.parse().ok());
        entry.made_at = uptime(key::MADE_AT).unwrap_or(entry.made_at);
        entry.stop_at = uptime(key::STOP_AT);
        let told = fs::read_to_string(entry.directory.join(TOLD)).unwrap_or_default();
        entry.told = told.lines().map(str::to_owned).collect();
        entry.replace = entry.told.contains(REPLACE);
        entry.cycling = entry.told.contains(CYCLE);
        Some(entry)
    }

    /// What its record keeps for [`Entry::found`].
    pub(super) fn record(&self, lease: Option<u16>) -> BTreeMap<String, String> {
        let kind = match self.kind {
            Kind::Formation => kind::FORMATION,
            Kind::OneOff => kind::ONE_OFF,
        };
        let mut engine = BTreeMap::from([(key::KIND.to_owned(), kind.to_owned())]);
        engine.extend(self.terms.record());
        if self.kind == Kind::OneOff {
            // Whoever asked for it reads what it printed, if only after the log has it.
            engine.insert(HOLD_OUTPUT.to_owned(), String::new());
        }
        engine.extend(lease.map(|number| (key::LEASE.to_owned(), number.to_string())));
        engine.insert(key::MADE_AT.to_owned(), self.made_at.to_string());
        engine.extend(self.stop_at.map(|at| (key::STOP_AT.to_owned(), at.to_string())));
        engine
    }

    pub(super) fn is_web(&self) -> bool {
        self.kind == Kind::Formation && self.dyno.name.process_type().is_web()
    }

    /// As the planner sees it; one-offs are none of its business.
    pub(super) fn present(&self, now: Micros) -> Option<Present> {
        let life = match self.dyno.state {
            _ if self.kind == Kind::OneOff => return None,
            State::Starting { .. } | State::Up { .. } if self.leaving => Life::Stopping,
            State::Starting { .. } => Life::Starting,
            State::Up { .. } => Life::Up,
            State::Stopping { .. } => Life::Stopping,
            // The clock was set back since: how long the pause still is nobody knows, so it is over.
            State::Crashed { since, crashes, .. } if since > now => Life::Crashed { retry_at: now, crashes },
            State::Crashed { retry_at, crashes, .. } => Life::Crashed { retry_at, crashes },
            State::Down { .. } | State::Complete { .. } => return None,
        };
        Some(Present {
            dyno: self.dyno.id,
            name: self.dyno.name.clone(),
            version: self.dyno.version,
            command: self.dyno.command.clone(),
            size: self.dyno.size,
            created_at: self.dyno.created_at,
            life,
            replace: self.replace,
        })
    }

    /// The word of the present state for the log.
    pub(super) fn word(&self) -> &'static str {
        self.shown.unwrap_or_else(|| self.dyno.state.word())
    }

    /// Sends a command if there is a shim to take it; the queue holds more than there are commands to send.
    pub(super) fn command(&self, command: Command) {
        if let Some(commands) = &self.commands {
            let _ = commands.try_send(command);
        }
    }

    /// Somebody wants another dyno in its place; that is noted, for it may take until the other is up.
    pub(super) fn ask_replacement(&mut self) {
        self.replace = true;
        self.tell(REPLACE);
    }

    /// It is so old that another is to take its place.
    pub(super) fn cycle(&mut self) {
        self.cycling = true;
        self.tell(CYCLE);
        self.ask_replacement();
    }

    /// When it is too old, if dynos of its app are replaced for that.
    pub(super) fn cycle_at(&self, limits: &Limits) -> Micros {
        cycle::due_at(self.dyno.id, self.dyno.created_at, limits)
    }

    /// When a one-off is to end by the machine's uptime, so that a clock that is set does not end it before its time, and
    /// whether that is for its age, which counts if dynos of its app `cycle`; `None` for one that is leaving already.
    pub(super) fn ends_at(&self, cycles: bool, limits: &Limits) -> Option<(Micros, bool)> {
        if self.kind != Kind::OneOff || self.leaving || !self.dyno.state.is_live() {
            return None;
        }
        let too_old = cycles.then(|| (cycle::due_at(self.dyno.id, self.made_at, limits), true));
        self.stop_at.map(|at| (at, false)).into_iter().chain(too_old).min_by_key(|(at, _)| *at)
    }

    /// The time in which its process existed, as far as that is known.
    pub(super) fn run(&self, ended_at: Option<Micros>) -> Run {
        Run {
            dyno: self.dyno.id,
            app: self.dyno.app,
            name: self.dyno.name.clone(),
            size: self.dyno.size,
            one_off: self.kind == Kind::OneOff,
            started_at: self.started_at.unwrap_or(self.dyno.created_at),
            ended_at,
        }
    }

    /// Notes that something is being told; says whether it was not before.
    fn tell(&mut self, word: &str) -> bool {
        if !self.told.insert(word.to_owned()) {
            return false;
        }
        note(&self.directory, word);
        true
    }

    /// What an event of its shim makes of it: the one place where a dyno's state follows from its process.
    pub(super) fn take(&mut self, event: &Event, limits: &Limits) -> Change {
        let mut change = Change::default();
        let before = self.word();
        match event {
            Event::Started { at, .. } => {
                change.timed = self.started_at.replace(*at).is_none();
                if !self.is_web() {
                    self.up(*at, Vec::new(), &mut change);
                }
            }
            Event::Bound { addresses, .. } if self.terms.health_check.is_some() && !self.told.contains(HEALTHY) => {
                change.probe = Some(addresses.clone());
            }
            Event::Bound { at, addresses } => self.up(*at, addresses.clone(), &mut change),
            Event::BootTimeout { .. } => {
                let what = say::boot_timeout(self.terms.boot_seconds);
                self.boot_timeout(what, &mut change);
            }
            Event::Stopping { at } => {
                if !self.boot_timed_out && self.tell("stopping") {
                    change.lines.push(say::stopping(self.terms.stop.signal));
                }
                if matches!(self.dyno.state, State::Starting { .. } | State::Up { .. }) {
                    self.stopping(*at);
                    change.changed = true;
                }
            }
            Event::StopTimeout { .. } => {
                if self.tell("stop_timeout") {
                    change.lines = vec![say::exit_timeout(self.terms.stop), say::KILLING.to_owned()];
                }
            }
            Event::NotAttached { .. } => {
                if self.tell("not_attached") {
                    change.lines.push(say::not_attached());
                }
            }
            Event::HungUp { attempt, .. } => {
                if self.tell(&format!("hangup {attempt}")) {
                    change.lines.push(say::HANGING_UP.to_owned());
                }
            }
            Event::Detached { .. } => {
                if self.tell("detached") {
                    change.lines.push(say::detached());
                }
            }
            Event::OutOfMemory { .. } => {
                if self.tell("memory") {
                    let quota = self.dyno.size.quota().memory;
                    change.lines = say::far_over_quota(limits.memory_bound(quota), quota).to_vec();
                }
            }
            Event::Exited { at, exit } if self.dyno.state.is_live() => {
                let on_purpose = matches!(self.dyno.state, State::Stopping { .. }) && !self.boot_timed_out;
                let told = !self.tell("exited");
                if !told {
                    change.lines.push(say::exited(exit.status()));
                }
                self.end(*at, *exit, on_purpose, limits);
                (change.changed, change.timed) = (true, true);
                change.ended = Some(*exit);
                change.removed = !matches!(self.dyno.state, State::Crashed { .. });
                // A formation's dyno that went on purpose was said to go when it was told to.
                if !told && !matches!(self.dyno.state, State::Down { .. }) {
                    change.lines.push(say::changed(before, self.dyno.state.word()));
                }
            }
            Event::Failed { .. } | Event::Exited { .. } => {}
        }
        change
    }

    /// Its shim went while nobody looked, and its end with it: what is to be said of that, once.
    pub(super) fn lost(&mut self) -> Vec<String> {
        if !self.tell("exited") {
            return Vec::new();
        }
        let before = if self.told.contains("up") { "up" } else { "starting" };
        let after = if self.kind == Kind::OneOff { "complete" } else { "down" };
        vec![say::lost(), say::changed(before, after)]
    }

    fn boot_timeout(&mut self, what: String, change: &mut Change) {
        self.boot_timed_out = true;
        if self.tell("boot_timeout") {
            change.lines = vec![what, say::KILLING.to_owned()];
        }
    }

    /// It has answered its health check, or failed to in its time; then it is to be killed.
    pub(super) fn probed(&mut self, at: Micros, addresses: Vec<SocketAddr>, healthy: bool) -> Change {
        let mut change = Change::default();
        match &self.terms.health_check {
            _ if !matches!(self.dyno.state, State::Starting { .. }) => {}
            _ if healthy => {
                self.tell(HEALTHY);
                self.up(at, addresses, &mut change);
            }
            Some(check) => {
                let what = say::unhealthy(&check.path, self.terms.boot_seconds);
                self.boot_timeout(what, &mut change);
            }
            None => {}
        }
        change
    }

    fn up(&mut self, at: Micros, addresses: Vec<SocketAddr>, change: &mut Change) {
        self.up_at = Some(at);
        if !matches!(self.dyno.state, State::Starting { .. }) {
            return;
        }
        self.dyno.state = State::Up { since: at, addresses };
        change.changed = true;
        if self.tell("up") {
            change.lines.push(say::changed("starting", "up"));
        }
    }

    /// It is on its way out.
    pub(super) fn stopping(&mut self, at: Micros) {
        self.shown = self.shown.or(Some(self.dyno.state.word()));
        self.dyno.state = State::Stopping { since: at };
    }

    fn end(&mut self, at: Micros, exit: Exit, on_purpose: bool, limits: &Limits) {
        self.dyno.state = match self.kind {
            Kind::OneOff => State::Complete { since: at, exit },
            Kind::Formation if on_purpose => State::Down { since: at },
            Kind::Formation => {
                let crashes = crashes_after(self.terms.crashes, self.up_at.map(|up_at| at - up_at), limits);
                State::Crashed { since: at, retry_at: retry_at(at, crashes, limits), crashes }
            }
        };
        self.shown = None;
        self.exit.send_replace(Some(exit));
    }

    /// It could not be started.
    pub(super) fn not_started(&mut self, at: Micros, limits: &Limits) -> String {
        let before = self.word();
        self.end(at, Exit::Code(1), false, limits);
        say::changed(before, self.dyno.state.word())
    }
}

/// How a dyno is stopped, from its record.
pub(crate) fn stop(record: &Record, usual: Stop) -> Stop {
    let text = |key: &str| record.engine.get(key);
    Stop {
        signal: text(key::STOP_SIGNAL).and_then(|name| name.parse().ok()).unwrap_or(usual.signal),
        grace: text(key::STOP_SECONDS).and_then(|text| text.parse().ok()).map_or(usual.grace, seconds),
    }
}

fn note(directory: &Path, word: &str) {
    let file = fs::File::options().append(true).create(true).open(directory.join(TOLD));
    // Without the note a restart of control may say the line again; nothing worse.
    let _ = file.and_then(|mut file| file.write_all(format!("{word}\n").as_bytes()));
}

#[cfg(test)]
mod tests {
    use dozen_domain::{ids::AppId, ids::DynoId, release::Version, size::Size};

    use super::*;

    const SECOND: i64 = 1_000_000;

    fn entry(name: &str, kind: Kind, directory: &Path) -> Entry {
        let dyno = Dyno {
            id: DynoId::random(),
            app: AppId::random(),
            name: name.parse().expect("a name"),
            version: Version(1),
            command: "serve".to_owned(),
            size: Size::Basic,
            created_at: 0,
            state: State::Starting { since: 0 },
        };
        let terms = Terms { boot_seconds: 60, ..Terms::one_off(&Limits::default()) };
        Entry::new(dyno, kind, terms, directory.to_owned())
    }

    /// What is found of it after a restart of control.
    fn record(entry: &Entry) -> Record {
        Record {
            dyno: entry.dyno.id,
            app: entry.dyno.app,
            name: entry.dyno.name.clone(),
            size: entry.dyno.size,
            version: entry.dyno.version,
            command: entry.dyno.command.clone(),
            created_at: 0,
            logged: true,
            engine: entry.record(Some(4)),
        }
    }

    fn run(entry: &mut Entry, events: &[Event]) -> Vec<String> {
        events.iter().flat_map(|event| entry.take(event, &Limits::default()).lines).collect()
    }

    fn bound(at: i64) -> Event {
        Event::Bound { at, addresses: vec![([127, 0, 0, 1], 80).into()] }
    }

    #[test]
    fn a_web_dyno_is_up_when_bound_and_crashes_when_it_exits() {
        let here = tempfile::tempdir().expect("a directory");
        let mut web = entry("web.1", Kind::Formation, here.path());
        let started = Event::Started { at: 1, pid: 7 };
        assert_eq!(run(&mut web, std::slice::from_ref(&started)), Vec::<String>::new());
        assert_eq!(run(&mut web, &[bound(2), started, bound(2)]), ["State changed from starting to up"]);
        let exited = Event::Exited { at: 5, exit: Exit::Code(0) };
        assert_eq!(
            run(&mut web, &[exited.clone(), exited]),
            ["Process exited with status 0", "State changed from up to crashed"]
        );
        assert_eq!(web.dyno.state, State::Crashed { since: 5, retry_at: 5, crashes: 1 });
    }

    #[test]
    fn a_stop_ends_in_down_and_a_late_one_is_told() {
        let here = tempfile::tempdir().expect("a directory");
        let mut worker = entry("worker.1", Kind::Formation, here.path());
        let events = [
            Event::Started { at: 1, pid: 7 },
            Event::Stopping { at: 2 },
            Event::StopTimeout { at: 3 },
            Event::Exited { at: 4, exit: Exit::Signal(9) },
        ];
        assert_eq!(
            run(&mut worker, &events),
            [
                "State changed from starting to up",
                "Stopping all processes with SIGTERM",
                "Error R12 (Exit timeout) -> Process failed to exit within 30 seconds of SIGTERM",
                "Stopping process with SIGKILL",
                "Process exited with status 137",
            ]
        );
        assert_eq!(worker.dyno.state, State::Down { since: 4 });
    }

    #[test]
    fn a_boot_timeout_is_a_crash() {
        let here = tempfile::tempdir().expect("a directory");
        let mut web = entry("web.1", Kind::Formation, here.path());
        let events = [
            Event::Started { at: 1, pid: 7 },
            Event::BootTimeout { at: 2 },
            Event::Stopping { at: 2 },
            Event::Exited { at: 3, exit: Exit::Signal(9) },
        ];
        assert_eq!(
            run(&mut web, &events),
            [
                "Error R10 (Boot timeout) -> Web process failed to bind to $PORT within 60 seconds of launch",
                "Stopping process with SIGKILL",
                "Process exited with status 137",
                "State changed from starting to crashed",
            ]
        );
    }

    #[test]
    fn found_again_it_is_as_it_was_and_says_nothing_twice() {
        let here = tempfile::tempdir().expect("a directory");
        let mut first = entry("worker.1", Kind::Formation, here.path());
        first.terms.crashes = 3;
        first.terms.stop.signal = dozen_domain::settings::Signal::Quit;
        let events = [Event::Started { at: 1, pid: 7 }, Event::Exited { at: 2 * SECOND, exit: Exit::Code(1) }];
        assert_eq!(run(&mut first, &events).len(), 3);
        let record = record(&first);
        let mut second = Entry::found(&record, here.path().to_owned(), &Limits::default()).expect("an entry");
        assert_eq!(second.terms.stop, first.terms.stop);
        assert_eq!(run(&mut second, &events), Vec::<String>::new());
        assert_eq!(second.dyno, first.dyno);
        assert!(matches!(second.dyno.state, State::Crashed { crashes: 4, .. }));
        let build = Record { engine: BTreeMap::from([("kind".to_owned(), "build".to_owned())]), ..record };
        assert!(Entry::found(&build, here.path().to_owned(), &Limits::default()).is_none());
    }

    #[test]
    fn a_dyno_that_went_unseen_is_told_of_once() {
        let here = tempfile::tempdir().expect("a directory");
        let mut web = entry("web.1", Kind::Formation, here.path());
        run(&mut web, &[Event::Started { at: 1, pid: 7 }, bound(2)]);
        let gone = "Error R99 (Platform error) -> The process that supervised the dyno is gone, and the dyno with it";
        assert_eq!(web.lost(), [gone, "State changed from up to down"]);
        assert_eq!(web.lost(), Vec::<String>::new());
    }

    #[test]
    fn a_clock_that_is_set_back_does_not_make_a_crashed_dyno_wait_longer() {
        let here = tempfile::tempdir().expect("a directory");
        let mut web = entry("web.1", Kind::Formation, here.path());
        web.terms.crashes = 2;
        run(&mut web, &[Event::Started { at: SECOND, pid: 7 }, Event::Exited { at: 9 * SECOND, exit: Exit::Code(1) }]);
        let retry_at = |now| match web.present(now).map(|present| present.life) {
            Some(Life::Crashed { retry_at, .. }) => retry_at,
            other => panic!("{other:?}"),
        };
        assert_eq!(retry_at(10 * SECOND), (9 + 1_200) * SECOND);
        assert_eq!(retry_at(8 * SECOND), 8 * SECOND);
    }

    #[test]
    fn a_clock_that_is_set_does_not_end_a_one_off_before_its_time() {
        let here = tempfile::tempdir().expect("a directory");
        let limits = Limits { cycle_jitter_seconds: 0, ..Limits::default() };
        // By the clock on the wall it was made in 1970.
        let mut one_off = entry("run.1234", Kind::OneOff, here.path());
        let (made_at, day) = (one_off.made_at, 86_400 * SECOND);
        assert!(made_at > 0 && made_at <= clock::uptime());
        one_off.stop_at = Some(made_at + 60 * SECOND);
        let found = Entry::found(&record(&one_off), here.path().to_owned(), &limits).expect("an entry");
        for one in [&one_off, &found] {
            assert_eq!(one.ends_at(true, &limits), Some((made_at + 60 * SECOND, false)));
        }
        one_off.stop_at = None;
        assert_eq!(one_off.ends_at(true, &limits), Some((made_at + day, true)));
        assert_eq!(one_off.ends_at(false, &limits), None);
        assert_eq!(entry("web.1", Kind::Formation, here.path()).ends_at(true, &limits), None);
    }

    #[test]
    fn a_one_off_is_complete_however_it_ends() {
        let here = tempfile::tempdir().expect("a directory");
        let mut one_off = entry("run.1234", Kind::OneOff, here.path());
        let events = [Event::Started { at: 1, pid: 7 }, Event::Exited { at: 2, exit: Exit::Code(3) }];
        assert_eq!(
            run(&mut one_off, &events),
            ["State changed from starting to up", "Process exited with status 3", "State changed from up to complete",]
        );
        assert_eq!(*one_off.exit.borrow(), Some(Exit::Code(3)));
    }
}
