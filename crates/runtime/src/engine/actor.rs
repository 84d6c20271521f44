//! The task that owns the engine's state.
//!
//! It never waits for anything but the next message or the next due time: starts, gates and connections run in tasks of
//! their own and report back.

use std::{
    collections::{BTreeMap, HashMap, HashSet, VecDeque},
    net::SocketAddr,
    sync::{Arc, OnceLock, PoisonError},
    time::Duration,
};

use dozen_api::{
    clock::{self, Micros},
    engine::{Dyno, Error, Event, Gate, OneOff, Selector, Wanted},
    logs::{self, Line, Source},
    shim::{self, Command},
};
use dozen_domain::{
    dyno::{Exit, State},
    ids::{AppId, DynoId},
    limits::seconds,
    name::DynoName,
    plan::{self, Action},
    settings::Stop,
    size::Size,
};
use tokio::sync::{broadcast, mpsc, oneshot, watch};

use super::{
    View, adopt,
    begin::{Begin, Fault},
    entry::{Change, Entry, Kind, Terms},
    health,
    host::Host,
    link::{self, Heard},
    measure::Metered,
    meter, say,
};

/// How long an ended one-off's shim is kept for those who still want its output.
const KEEP: Duration = Duration::from_secs(60);
/// Ended one-offs whose exit is remembered.
const ENDED: usize = 1024;
/// Longest wait for the router before a web dyno is signalled all the same.
const GATE: Duration = Duration::from_secs(10);

/// What the engine's task is told.
pub(super) enum Message {
    Adopt(Vec<adopt::Found>, oneshot::Sender<()>),
    Apply(Box<Wanted>, oneshot::Sender<()>),
    Remove(AppId, oneshot::Sender<()>),
    Replace(AppId, Selector, oneshot::Sender<Result<Vec<Dyno>, Error>>),
    Run(Box<OneOff>, oneshot::Sender<Result<Dyno, Error>>),
    Wait(DynoId, oneshot::Sender<Option<watch::Receiver<Option<Exit>>>>),
    /// A start has ended, well or not.
    Began(DynoId, Result<shim::Event, Fault>),
    /// Something came from a shim.
    Heard(DynoId, Heard),
    /// Nobody sends this web dyno requests any more.
    Clear(DynoId),
    /// It listens at these addresses and has answered its health check, or not.
    Probed(DynoId, Vec<SocketAddr>, bool),
}

/// What a one-off was, for those who ask after its end.
struct Ended {
    dyno: Dyno,
    exit: watch::Sender<Option<Exit>>,
}

pub(super) struct Actor {
    pub(super) host: Arc<Host>,
    messages: mpsc::WeakSender<Message>,
    events: broadcast::Sender<Event>,
    view: View,
    gate: Arc<OnceLock<Arc<dyn Gate>>>,
    metered: Metered,
    meter: mpsc::UnboundedSender<meter::Item>,
    pub(super) wanted: HashMap<AppId, Wanted>,
    pub(super) dynos: BTreeMap<DynoId, Entry>,
    ended: VecDeque<Ended>,
    /// Who waits for a one-off's start.
    starting: HashMap<DynoId, Vec<oneshot::Sender<Result<Dyno, Error>>>>,
    /// Shims of ended one-offs, and when they are told to go.
    kept: VecDeque<(Micros, DynoId, Option<mpsc::Sender<Command>>)>,
    /// When an app must be planned again though nothing happens.
    wake: HashMap<AppId, Micros>,
}

impl Actor {
    pub(super) fn new(
        host: Arc<Host>,
        messages: mpsc::WeakSender<Message>,
        events: broadcast::Sender<Event>,
        view: View,
        gate: Arc<OnceLock<Arc<dyn Gate>>>,
        metered: Metered,
        meter: mpsc::UnboundedSender<meter::Item>,
    ) -> Self {
        Self {
            host,
            messages,
            events,
            view,
            gate,
            metered,
            meter,
            wanted: HashMap::new(),
            dynos: BTreeMap::new(),
            ended: VecDeque::new(),
            starting: HashMap::new(),
            kept: VecDeque::new(),
            wake: HashMap::new(),
        }
    }

    pub(super) async fn run(mut self, mut messages: mpsc::Receiver<Message>) {
        loop {
            let due = self.next_due();
            let pause = due.map(|due| Duration::from_micros(u64::try_from(due - clock::now()).unwrap_or_default()));
            let sleep = async {
                match pause {
                    Some(pause) => tokio::time::sleep(pause).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                message = messages.recv() => match message {
                    Some(message) => self.handle(message),
                    None => return,
                },
                () = sleep => self.tick(),
            }
        }
    }

    fn handle(&mut self, message: Message) {
        match message {
            Message::Adopt(found, answer) => {
                found.into_iter().for_each(|found| self.adopt(found));
                let present = self.dynos.keys().copied().chain(self.ended.iter().map(|ended| ended.dyno.id));
                let _ = self.meter.send(meter::Item::Adopted(present.collect()));
                let _ = answer.send(());
            }
            Message::Apply(wanted, answer) => {
                let app = wanted.app;
                self.meter(app, wanted.runtime_metrics);
                self.wanted.insert(app, *wanted);
                self.reconcile(app);
                let _ = answer.send(());
            }
            Message::Remove(app, answer) => {
                self.remove(app);
                let _ = answer.send(());
            }
            Message::Replace(app, which, answer) => {
                let _ = answer.send(self.replace(app, &which));
            }
            Message::Run(one_off, answer) => self.run_once(*one_off, answer),
            Message::Wait(dyno, answer) => {
                let live = self.dynos.get(&dyno).map(|entry| entry.exit.subscribe());
                let ended = || self.ended.iter().find(|ended| ended.dyno.id == dyno).map(|e| e.exit.subscribe());
                let _ = answer.send(live.or_else(ended));
            }
            Message::Began(dyno, result) => self.began(dyno, result),
            Message::Heard(dyno, Heard::Event(event)) => self.event(dyno, &event),
            Message::Heard(dyno, Heard::Lost) => self.lost(dyno),
            Message::Clear(dyno) => self.signal(dyno),
            Message::Probed(dyno, addresses, healthy) => self.probed(dyno, addresses, healthy),
        }
    }

    /// Whether the figures of an app's dynos go into its log.
    fn meter(&self, app: AppId, on: bool) {
        let mut metered = self.metered.write().unwrap_or_else(PoisonError::into_inner);
        if on {
            metered.insert(app)
        } else {
            metered.remove(&app)
        };
    }

    // What is due.

    fn next_due(&self) -> Option<Micros> {
        let since_1970 = clock::now() - clock::uptime();
        let one_offs = self.dynos.values().filter_map(|entry| self.one_off_ends(entry)).map(|(at, _)| at);
        let one_offs = one_offs.map(|at| at.saturating_add(since_1970));
        let kept = self.kept.front().map(|(at, ..)| *at);
        self.wake.values().copied().chain(one_offs).chain(kept).min()
    }

    fn tick(&mut self) {
        let now = clock::now();
        // It was time by the clock that only goes forward: if it is not by the other, that one was set back.
        let set_back = self.next_due().is_some_and(|due| due > now);
        let due = |at: Micros| set_back || at <= now;
        let apps: Vec<AppId> = self.wake.iter().filter(|(_, at)| due(**at)).map(|(app, _)| *app).collect();
        apps.into_iter().for_each(|app| self.reconcile(app));
        for (dyno, cycling) in self.one_offs_over() {
            if cycling {
                self.say(dyno, now, say::CYCLING.to_owned());
            }
            self.leave(dyno, false);
        }
        while self.kept.front().is_some_and(|(at, ..)| *at <= now) {
            if let Some((_, dyno, commands)) = self.kept.pop_front() {
                self.forget(dyno, commands);
            }
        }
    }

    // What callers ask for.

    fn remove(&mut self, app: AppId) {
        self.wanted.remove(&app);
        self.meter(app, false);
        self.wake.remove(&app);
        let of_app = |entry: &&Entry| entry.dyno.app == app;
        let dynos: Vec<DynoId> = self.dynos.values().filter(of_app).map(|entry| entry.dyno.id).collect();
        for dyno in dynos {
            match self.dynos.get(&dyno).map(|entry| entry.dyno.state.is_live()) {
                Some(true) => self.leave(dyno, false),
                _ => self.drop_crashed(dyno, false),
            }
        }
    }

    fn replace(&mut self, app: AppId, which: &Selector) -> Result<Vec<Dyno>, Error> {
        let chosen = |entry: &&Entry| {
            let formation = entry.kind == Kind::Formation;
            entry.dyno.app == app
                && !entry.leaving
                && match which {
                    Selector::All => formation,
                    Selector::Type(process_type) => formation && entry.dyno.name.process_type() == process_type,
                    Selector::Dyno(name) => entry.dyno.name == *name,
                }
        };
        let mut old: Vec<Dyno> = self.dynos.values().filter(chosen).map(|entry| entry.dyno.clone()).collect();
        if old.is_empty() && matches!(which, Selector::Dyno(_)) {
            return Err(Error::NoSuchDyno);
        }
        old.sort_by(|a, b| a.name.cmp(&b.name));
        for dyno in &old {
            match self.dynos.get_mut(&dyno.id) {
                Some(entry) if entry.kind == Kind::Formation => entry.ask_replacement(),
                _ => self.leave(dyno.id, false),
            }
        }
        self.reconcile(app);
        Ok(old)
    }

    fn run_once(&mut self, one_off: OneOff, answer: oneshot::Sender<Result<Dyno, Error>>) {
        let id = one_off.dyno;
        if let Some(waiting) = self.starting.get_mut(&id) {
            waiting.push(answer);
            return;
        }
        let live = self.dynos.get(&id).map(|entry| entry.dyno.clone());
        let there = live.or_else(|| self.ended.iter().find(|e| e.dyno.id == id).map(|e| e.dyno.clone()));
        if let Some(dyno) = there {
            let _ = answer.send(Ok(dyno));
            return;
        }
        let now = clock::now();
        let dyno = Dyno {
            id,
            app: one_off.app,
            name: one_off.name.clone(),
            version: one_off.version,
            command: one_off.command.clone(),
            size: one_off.size,
            created_at: now,
            state: State::Starting { since: now },
        };
        let terms = Terms::one_off(&self.host.options.limits);
        let mut entry = Entry::new(dyno, Kind::OneOff, terms, self.host.directory(id));
        let in_micros = |life: Duration| i64::try_from(life.as_micros()).unwrap_or(i64::MAX);
        entry.stop_at = one_off.time_to_live.map(|life| clock::uptime().saturating_add(in_micros(life)));
        self.starting.insert(id, vec![answer]);
        self.begin(entry, Begin::one_off(one_off));
    }

    // The plan.

    /// Does what the plan says for an app.
    fn reconcile(&mut self, app: AppId) {
        self.wake.remove(&app);
        let cycle_at = self.cycle(app, clock::now());
        let Some(wanted) = self.wanted.get(&app) else { return };
        let target = plan::Wanted {
            version: wanted.version,
            processes: wanted
                .processes
                .iter()
                .map(|process| plan::Process {
                    process_type: process.process_type.clone(),
                    command: process.command.clone(),
                    quantity: process.quantity,
                    size: process.size,
                })
                .collect(),
            preboot: wanted.preboot,
        };
        let of_app = self.dynos.values().filter(|entry| entry.dyno.app == app);
        let now = clock::now();
        let present: Vec<_> = of_app.filter_map(|entry| entry.present(now)).collect();
        let plan = plan::plan(Some(&target), &present, now);
        // A name that was there before was said to be starting when its former dyno was told to go.
        let known: HashSet<DynoName> = present
            .iter()
            .filter(|dyno| !self.dynos.get(&dyno.dyno).is_some_and(|entry| entry.leaving && !entry.replaced))
            .map(|dyno| dyno.name.clone())
            .collect();
        let started: HashSet<DynoName> = plan
            .actions
            .iter()
            .filter_map(|action| match action {
                Action::Start { name, .. } => Some(name.clone()),
                _ => None,
            })
            .collect();
        for action in plan.actions {
            match action {
                Action::Stop { dyno, replaced } => self.leave(dyno, replaced),
                Action::Forget { dyno } => {
                    let again = self.dynos.get(&dyno).is_some_and(|entry| started.contains(&entry.dyno.name));
                    self.drop_crashed(dyno, again);
                }
                Action::Start { name, command, size, crashes } => {
                    let fresh = !known.contains(&name);
                    self.start(app, name, (command, size), crashes, fresh);
                }
            }
        }
        if let Some(at) = [plan.wake_at, cycle_at].into_iter().flatten().min() {
            self.wake.insert(app, at);
        }
    }

    fn start(&mut self, app: AppId, name: DynoName, (command, size): (String, Size), crashes: u32, fresh: bool) {
        let Some(wanted) = self.wanted.get(&app) else { return };
        let now = clock::now();
        let of_type = wanted.processes.iter().find(|process| process.process_type == *name.process_type());
        let terms = Terms {
            crashes,
            boot_seconds: wanted.boot_timeout.as_secs(),
            stop: of_type.map_or(Stop::usual(&self.host.options.limits), |process| process.stop),
            health_check: wanted.health_check.clone().filter(|_| name.process_type().is_web()),
        };
        let dyno = Dyno {
            id: DynoId::random(),
            app,
            name,
            version: wanted.version,
            command,
            size,
            created_at: now,
            state: State::Starting { since: now },
        };
        let directory = self.host.directory(dyno.id);
        let entry = Entry::new(dyno, Kind::Formation, terms, directory);
        let begin = Begin::formation(wanted);
        if fresh {
            self.say_of(&entry.dyno, now, say::changed("down", "starting"));
        }
        self.begin(entry, begin);
    }

    /// Puts a dyno on the list and starts it.
    fn begin(&mut self, entry: Entry, begin: Begin) {
        let (id, command) = (entry.dyno.id, say::starting(&entry.dyno.command));
        let (at, awaits_client) = (entry.dyno.created_at, begin.awaits_client());
        let prepared = begin.prepare(&self.host, &entry);
        self.dynos.insert(id, entry);
        self.publish(id, false);
        if awaits_client {
            self.say(id, at, say::AWAITING.to_owned());
        }
        self.say(id, at, command);
        let (host, messages) = (self.host.clone(), self.messages.clone());
        tokio::spawn(async move {
            let result = match prepared {
                Ok(prepared) => prepared.start(&host).await,
                Err(fault) => Err(fault),
            };
            if let Some(messages) = messages.upgrade() {
                let _ = messages.send(Message::Began(id, result)).await;
            }
        });
    }

    fn began(&mut self, id: DynoId, result: Result<shim::Event, Fault>) {
        let waiting = self.starting.remove(&id).unwrap_or_default();
        match result {
            Ok(event) => {
                self.connect(id, None);
                self.event(id, &event);
                self.tell_logs(id);
                // It may have been told to stop while it was being started.
                if self.dynos.get(&id).is_some_and(|entry| entry.leaving) {
                    self.signal(id);
                }
                if let Some(dyno) = self.known(id) {
                    waiting.into_iter().for_each(|answer| drop(answer.send(Ok(dyno.clone()))));
                }
            }
            Err(fault) => {
                let Some(entry) = self.dynos.get_mut(&id) else { return };
                let (now, app, kind, leaving) = (clock::now(), entry.dyno.app, entry.kind, entry.leaving);
                tracing::error!(dyno = %entry.dyno.name, %app, error = %fault.chain(), "could not start a dyno");
                let line = entry.not_started(now, &self.host.options.limits);
                self.say(id, now, fault.line());
                self.say(id, now, line);
                let gone = kind == Kind::OneOff || leaving;
                self.publish(id, gone);
                if gone {
                    self.remember(id, false);
                }
                self.host.clean_later(id);
                for answer in waiting {
                    let _ = answer.send(Err(fault.error()));
                }
                self.reconcile(app);
            }
        }
    }

    fn known(&self, id: DynoId) -> Option<Dyno> {
        let live = self.dynos.get(&id).map(|entry| entry.dyno.clone());
        live.or_else(|| self.ended.iter().find(|ended| ended.dyno.id == id).map(|ended| ended.dyno.clone()))
    }

    fn connect(&mut self, id: DynoId, found: Option<link::Found>) {
        let (directory, messages) = (self.host.directory(id), self.messages.clone());
        // Connections do not keep the engine alive: only its owner does.
        let deliver = move |heard| {
            let messages = messages.upgrade();
            async move {
                match messages {
                    Some(messages) => messages.send(Message::Heard(id, heard)).await.is_ok(),
                    None => false,
                }
            }
        };
        if let Some(entry) = self.dynos.get_mut(&id) {
            entry.commands = Some(link::keep(directory, found, deliver));
        }
    }

    // The end of dynos.

    /// Has a live dyno stopped: told first, then signalled when nobody sends it requests any more.
    fn leave(&mut self, id: DynoId, replaced: bool) {
        let now = clock::now();
        let Some(entry) = self.dynos.get_mut(&id).filter(|entry| !entry.leaving && entry.dyno.state.is_live()) else {
            return;
        };
        (entry.leaving, entry.replaced) = (true, replaced);
        let (word, cycling) = (entry.word(), entry.cycling);
        let serving = entry.is_web() && matches!(entry.dyno.state, State::Up { .. });
        let already = matches!(entry.dyno.state, State::Stopping { .. });
        let kind = entry.kind;
        if !already {
            entry.stopping(now);
        }
        let dyno = entry.dyno.clone();
        // With preboot another is up under its name: that name's state does not change.
        let of_name = |other: &&Entry| other.dyno.app == dyno.app && other.dyno.name == dyno.name;
        let mut others = self.dynos.values().filter(of_name).filter(|other| other.dyno.id != id);
        let covered = others.any(|other| matches!(other.dyno.state, State::Up { .. }));
        match (kind, replaced) {
            (Kind::Formation, true) if covered => {}
            (Kind::Formation, true) => {
                // That it cycles was said when that was found.
                if !cycling {
                    self.say(id, now, say::RESTARTING.to_owned());
                }
                if word != "starting" {
                    self.say(id, now, say::changed(word, "starting"));
                }
            }
            (Kind::Formation, false) => self.say(id, now, say::changed(word, "down")),
            (Kind::OneOff, _) => {}
        }
        self.publish(id, false);
        let gate = self.gate.get().cloned().filter(|_| serving);
        match (gate, self.messages.upgrade()) {
            (Some(gate), Some(messages)) => {
                tokio::spawn(async move {
                    let _ = tokio::time::timeout(GATE, gate.before_stop(&dyno)).await;
                    let _ = messages.send(Message::Clear(id)).await;
                });
            }
            _ => self.signal(id),
        }
    }

    fn signal(&self, id: DynoId) {
        if let Some(entry) = self.dynos.get(&id) {
            let Stop { signal, grace } = entry.terms.stop;
            let grace_ms = u64::try_from(grace.as_millis()).unwrap_or(u64::MAX);
            entry.command(Command::Stop { signal: signal.number(), grace_ms });
        }
    }

    /// Takes a crashed dyno off the list.
    fn drop_crashed(&mut self, id: DynoId, again: bool) {
        let now = clock::now();
        if again {
            self.say(id, now, say::changed("crashed", "starting"));
        }
        let Some(mut entry) = self.dynos.remove(&id) else { return };
        entry.dyno.state = State::Down { since: now };
        self.publish_entry(&entry.dyno, true);
        self.forget(id, entry.commands.take());
    }

    /// Lets a shim go, once its dyno's end is on record.
    fn forget(&self, id: DynoId, commands: Option<mpsc::Sender<Command>>) {
        let item = commands.map_or(meter::Item::Clean(id), meter::Item::Forget);
        // The queue ends after this task.
        let _ = self.meter.send(item);
    }

    /// Has a dyno that listens answer its health check.
    fn probe(&self, id: DynoId, addresses: Vec<SocketAddr>) {
        let Some(entry) = self.dynos.get(&id) else { return };
        let Some(check) = entry.terms.health_check.clone() else { return };
        let messages = self.messages.clone();
        let boot = seconds(entry.terms.boot_seconds);
        let since = clock::now() - entry.started_at.unwrap_or(entry.dyno.created_at);
        let left = boot.saturating_sub(Duration::from_micros(u64::try_from(since).unwrap_or_default()));
        tokio::spawn(async move {
            let healthy = health::is_healthy(&check, &addresses, tokio::time::Instant::now() + left).await;
            if let Some(messages) = messages.upgrade() {
                let _ = messages.send(Message::Probed(id, addresses, healthy)).await;
            }
        });
    }

    fn probed(&mut self, id: DynoId, addresses: Vec<SocketAddr>, healthy: bool) {
        let now = clock::now();
        let Some(entry) = self.dynos.get_mut(&id) else { return };
        let change = entry.probed(now, addresses, healthy);
        if !healthy && !change.lines.is_empty() {
            entry.command(Command::Signal(libc::SIGKILL));
        }
        self.changed(id, now, change);
    }

    fn event(&mut self, id: DynoId, event: &shim::Event) {
        let Some(entry) = self.dynos.get_mut(&id) else { return };
        let change = entry.take(event, &self.host.options.limits);
        self.changed(id, time(event), change);
    }

    /// Tells what a change was and acts on it.
    fn changed(&mut self, id: DynoId, at: Micros, change: Change) {
        let Some(entry) = self.dynos.get(&id) else { return };
        let app = entry.dyno.app;
        if change.timed {
            let _ = self.meter.send(meter::Item::Run(entry.run(change.ended.is_some().then_some(at))));
        }
        if let Some(addresses) = change.probe {
            self.probe(id, addresses);
        }
        for line in change.lines {
            self.say(id, at, line);
        }
        if change.changed {
            self.publish(id, change.removed);
        }
        if change.ended.is_some() {
            self.host.network.release(id);
            if change.removed {
                let kept = self.dynos.get(&id).is_some_and(|entry| entry.kind == Kind::OneOff);
                self.remember(id, kept);
            }
        }
        if change.changed {
            self.reconcile(app);
        }
    }

    /// Takes an ended dyno off the list; `kept`: its shim stays a while for readers of its output.
    fn remember(&mut self, id: DynoId, kept: bool) {
        let Some(entry) = self.dynos.remove(&id) else { return };
        if entry.kind == Kind::OneOff {
            self.ended.push_back(Ended { dyno: entry.dyno, exit: entry.exit });
            if self.ended.len() > ENDED {
                self.ended.pop_front();
            }
        }
        if kept {
            let keep = i64::try_from(KEEP.as_micros()).unwrap_or(i64::MAX);
            self.kept.push_back((clock::now() + keep, id, entry.commands));
        } else {
            self.forget(id, entry.commands);
        }
    }

    /// A shim is gone, and with it its dyno if it was still there.
    fn lost(&mut self, id: DynoId) {
        if self.dynos.get(&id).is_some_and(|entry| entry.dyno.state.is_live()) {
            tracing::error!(dyno = %id, "a dyno's shim is gone");
            let now = clock::now();
            self.say(id, now, say::lost());
            self.event(id, &shim::Event::Exited { at: now, exit: Exit::Signal(libc::SIGKILL) });
        }
        if let Some(entry) = self.dynos.get_mut(&id) {
            entry.commands = None; // crashed: nothing of it is left but its entry
        }
        self.kept.retain(|(_, kept, _)| *kept != id);
        self.forget(id, None);
    }

    // What is found at the start.

    fn adopt(&mut self, found: adopt::Found) {
        let id = found.entry.dyno.id;
        if self.dynos.contains_key(&id) {
            return;
        }
        self.dynos.insert(id, found.entry);
        self.publish(id, false);
        if let Some(link) = found.link {
            self.connect(id, Some(link));
            // Whoever started it may have ended before it could tell.
            self.tell_logs(id);
        }
        for event in &found.events {
            self.event(id, event);
        }
    }

    // What others see.

    fn publish(&self, id: DynoId, removed: bool) {
        if let Some(entry) = self.dynos.get(&id) {
            self.publish_entry(&entry.dyno, removed);
        }
    }

    /// Puts a dyno's present state where callers read it, then tells those who watch.
    fn publish_entry(&self, dyno: &Dyno, removed: bool) {
        {
            let mut view = self.view.write().unwrap_or_else(PoisonError::into_inner);
            let dynos = view.entry(dyno.app).or_default();
            dynos.retain(|old| old.id != dyno.id);
            if !removed {
                dynos.push(dyno.clone());
                dynos.sort_by(|a, b| a.name.cmp(&b.name).then(a.created_at.cmp(&b.created_at)));
            }
            if dynos.is_empty() {
                view.remove(&dyno.app);
            }
        }
        let _ = self.events.send(Event { dyno: dyno.clone(), removed });
    }

    pub(super) fn say(&self, id: DynoId, at: Micros, text: String) {
        if let Some(entry) = self.dynos.get(&id) {
            self.say_of(&entry.dyno, at, text);
        }
    }

    fn say_of(&self, dyno: &Dyno, at: Micros, text: String) {
        let (app, process, text) = (dyno.app, dyno.name.to_string(), logs::in_one_line(text));
        self.host.options.logs.send(Line { app, at, source: Source::Heroku, process, text });
    }

    /// Tells the logs role of a dyno whose output is to be read at once; it also looks for itself now and then.
    fn tell_logs(&self, id: DynoId) {
        let path = self.host.options.data.join("run/logs.sock");
        tokio::spawn(async move {
            let told = tokio::time::timeout(Duration::from_secs(5), logs::announce(&path, id)).await;
            if !matches!(told, Ok(Ok(()))) {
                tracing::debug!(dyno = %id, "the logs role was not told of a dyno and has yet to find it");
            }
        });
    }
}

fn time(event: &shim::Event) -> Micros {
    match event {
        shim::Event::Started { at, .. }
        | shim::Event::Failed { at, .. }
        | shim::Event::Bound { at, .. }
        | shim::Event::BootTimeout { at }
        | shim::Event::Stopping { at }
        | shim::Event::StopTimeout { at }
        | shim::Event::NotAttached { at }
        | shim::Event::HungUp { at, .. }
        | shim::Event::Detached { at }
        | shim::Event::OutOfMemory { at }
        | shim::Event::Exited { at, .. } => *at,
    }
}
