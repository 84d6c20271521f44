//! An engine without processes, for tests of whoever calls one: dynos are entries in a map and do what the test says.
//!
//! Left alone, a dyno of the formation is up as soon as it was applied, and a one-off ends at once with exit code 0 and
//! no output. Tests change that: [`Memory::hold_boot`], [`Memory::bind`], [`Memory::crash`], [`Memory::fail_starts`],
//! [`Memory::answer`], [`Memory::hold_one_offs`], [`Memory::print`], [`Memory::finish`]. Nothing here waits, retries
//! or writes log lines; that is the real engine's work.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    net::{Ipv4Addr, SocketAddr},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use dozen_domain::{
    dyno::{Exit, State},
    ids::{AppId, DynoId},
    name::DynoName,
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWriteExt},
    sync::{broadcast, watch},
};

use super::{
    Attached, Connection, Dyno, Engine, Entered, Error, Event, Inside, Meter, OneOff, Program, Resize, Selector, Wanted,
};
use crate::clock::{Clock, SystemClock};

const EVENTS: usize = 1024; // events that a slow watcher may lag behind
const PIPE: usize = 64 << 10; // bytes in flight to a reader of output

/// What a one-off has printed so far and how it ended.
#[derive(Debug, Clone, Default)]
struct Printed {
    bytes: Vec<u8>,
    exit: Option<Exit>,
}

struct Entry {
    dyno: Dyno,
    one_off: bool,
    printed: watch::Sender<Printed>,
    typed: Arc<Mutex<Vec<u8>>>,
}

#[derive(Default)]
struct Inner {
    dynos: BTreeMap<DynoId, Entry>,
    ended: HashMap<DynoId, watch::Sender<Printed>>,
    wanted: HashMap<AppId, Wanted>,
    applied: u64,
    hold_boot: bool,
    hold_one_offs: bool,
    fail_starts: Option<String>,
    lose_output: bool,
    answers: Vec<(String, Exit, Vec<u8>)>,
    web_address: Option<SocketAddr>,
    one_offs: Vec<OneOff>,
    attached: HashSet<DynoId>,
    entered: Vec<(DynoId, Inside)>,
}

/// The engine without processes.
pub struct Memory {
    inner: Mutex<Inner>,
    events: broadcast::Sender<Event>,
    clock: Arc<dyn Clock>,
}

impl Default for Memory {
    fn default() -> Self {
        Self::new()
    }
}

impl Memory {
    /// An engine that runs nothing yet, on the machine's clock.
    pub fn new() -> Self {
        Self::with_clock(Arc::new(SystemClock))
    }

    /// The same on a clock of the test's.
    pub fn with_clock(clock: Arc<dyn Clock>) -> Self {
        Self { inner: Mutex::default(), events: broadcast::channel(EVENTS).0, clock }
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tell(&self, dyno: &Dyno, removed: bool) {
        let _ = self.events.send(Event { dyno: dyno.clone(), removed });
    }

    /// What was last applied to an app.
    pub fn wanted(&self, app: AppId) -> Option<Wanted> {
        self.inner().wanted.get(&app).cloned()
    }

    /// How often [`Engine::apply`] was called.
    pub fn applied(&self) -> u64 {
        self.inner().applied
    }

    /// One-offs that were started, oldest first.
    pub fn one_offs(&self) -> Vec<OneOff> {
        self.inner().one_offs.clone()
    }

    /// Whether web dynos stay `starting` until [`Memory::bind`].
    pub fn hold_boot(&self, hold: bool) {
        self.inner().hold_boot = hold;
    }

    /// Whether one-offs run until [`Memory::finish`].
    pub fn hold_one_offs(&self, hold: bool) {
        self.inner().hold_one_offs = hold;
    }

    /// What was started inside dynos, oldest first.
    pub fn entered(&self) -> Vec<(DynoId, Inside)> {
        self.inner().entered.clone()
    }

    /// From now on starts fail for this reason (`None`: they succeed again).
    pub fn fail_starts(&self, reason: Option<&str>) {
        self.inner().fail_starts = reason.map(str::to_owned);
    }

    /// Whether output cannot be had, as when a shim is gone already; how dynos end is known all the same.
    pub fn lose_output(&self, lose: bool) {
        self.inner().lose_output = lose;
    }

    /// Where all web dynos are said to listen; otherwise each has a port of its own that nobody listens on.
    pub fn web_address(&self, address: SocketAddr) {
        self.inner().web_address = Some(address);
    }

    /// One-offs whose command contains `command` print `output` and end like this; the last answer given wins.
    pub fn answer(&self, command: &str, exit: Exit, output: &str) {
        self.inner().answers.push((command.to_owned(), exit, output.as_bytes().to_vec()));
    }

    /// A held web dyno binds its port.
    pub fn bind(&self, app: AppId, name: &str) {
        let since = self.clock.now();
        self.change(app, name, |inner, id| {
            let address = inner.address(id);
            State::Up { since, addresses: vec![address] }
        });
    }

    /// A dyno crashes and waits ten seconds for its next start.
    pub fn crash(&self, app: AppId, name: &str) {
        let since = self.clock.now();
        self.change(app, name, |_, _| State::Crashed { since, retry_at: since + 10_000_000, crashes: 1 });
    }

    /// A one-off prints.
    pub fn print(&self, dyno: DynoId, text: &str) {
        if let Some(entry) = self.inner().dynos.get(&dyno) {
            entry.printed.send_modify(|printed| printed.bytes.extend_from_slice(text.as_bytes()));
        }
    }

    /// What attached clients have typed into a one-off.
    pub fn typed(&self, dyno: DynoId) -> Vec<u8> {
        let inner = self.inner();
        let typed = inner.dynos.get(&dyno).map(|entry| entry.typed.clone());
        drop(inner);
        typed.map_or_else(Vec::new, |typed| typed.lock().unwrap_or_else(PoisonError::into_inner).clone())
    }

    /// A one-off ends.
    pub fn finish(&self, dyno: DynoId, exit: Exit) {
        let since = self.clock.now();
        let mut inner = self.inner();
        let Some(mut entry) = inner.dynos.remove(&dyno) else { return };
        entry.dyno.state = State::Complete { since, exit };
        entry.printed.send_modify(|printed| printed.exit = Some(exit));
        inner.ended.insert(dyno, entry.printed);
        drop(inner);
        self.tell(&entry.dyno, true);
    }

    fn change(&self, app: AppId, name: &str, state: impl FnOnce(&Inner, DynoId) -> State) {
        let mut inner = self.inner();
        let found = inner.dynos.values().find(|e| e.dyno.app == app && e.dyno.name.to_string() == name);
        let Some(id) = found.map(|entry| entry.dyno.id) else { return };
        let state = state(&inner, id);
        let Some(entry) = inner.dynos.get_mut(&id) else { return };
        entry.dyno.state = state;
        let dyno = entry.dyno.clone();
        drop(inner);
        self.tell(&dyno, false);
    }

    fn insert(&self, inner: &mut Inner, dyno: Dyno, one_off: bool) {
        let entry = Entry { dyno, one_off, printed: watch::channel(Printed::default()).0, typed: Arc::default() };
        self.tell(&entry.dyno, false);
        inner.dynos.insert(entry.dyno.id, entry);
    }

    /// Starts what is missing and drops what is too much; events tell each step.
    fn settle(&self, inner: &mut Inner, app: AppId) {
        let now = self.clock.now();
        let wanted = inner.wanted.get(&app).cloned();
        let mut slots: BTreeMap<DynoName, (String, dozen_domain::size::Size)> = BTreeMap::new();
        for process in wanted.iter().flat_map(|wanted| &wanted.processes) {
            for number in 1..=process.quantity {
                let name = DynoName::new(process.process_type.clone(), number);
                slots.insert(name, (process.command.clone(), process.size));
            }
        }
        let version = wanted.map(|wanted| wanted.version);
        let right = |dyno: &Dyno| {
            Some(dyno.version) == version
                && slots.get(&dyno.name).is_some_and(|slot| *slot == (dyno.command.clone(), dyno.size))
        };
        let formation = inner.dynos.values().filter(|e| e.dyno.app == app && !e.one_off);
        let wrong: Vec<DynoId> = formation.filter(|e| !right(&e.dyno)).map(|e| e.dyno.id).collect();
        for id in wrong {
            self.stop_entry(inner, id, now);
        }
        let (Some(version), None) = (version, &inner.fail_starts) else { return };
        for (name, (command, size)) in slots {
            if inner.dynos.values().any(|e| e.dyno.app == app && e.dyno.name == name) {
                continue;
            }
            let id = DynoId::random();
            let state = State::Starting { since: now };
            let web = name.process_type().is_web();
            let dyno = Dyno { id, app, name, version, command, size, created_at: now, state };
            self.insert(inner, dyno, false);
            if !(web && inner.hold_boot) {
                let addresses = if web { vec![inner.address(id)] } else { Vec::new() };
                if let Some(entry) = inner.dynos.get_mut(&id) {
                    entry.dyno.state = State::Up { since: now, addresses };
                    self.tell(&entry.dyno, false);
                }
            }
        }
    }

    fn stop_entry(&self, inner: &mut Inner, id: DynoId, now: i64) {
        let Some(mut entry) = inner.dynos.remove(&id) else { return };
        entry.dyno.state = State::Stopping { since: now };
        self.tell(&entry.dyno, false);
        let exit = Exit::Signal(15);
        entry.dyno.state =
            if entry.one_off { State::Complete { since: now, exit } } else { State::Down { since: now } };
        entry.printed.send_modify(|printed| printed.exit = Some(exit));
        inner.ended.insert(id, entry.printed);
        self.tell(&entry.dyno, true);
    }

    fn replace(&self, app: AppId, which: &Selector, one_offs: bool) -> Result<Vec<Dyno>, Error> {
        let now = self.clock.now();
        let mut inner = self.inner();
        let mut old: Vec<Dyno> = inner
            .dynos
            .values()
            .filter(|entry| entry.dyno.app == app)
            .filter(|entry| match which {
                Selector::All => !entry.one_off,
                Selector::Type(process_type) => !entry.one_off && entry.dyno.name.process_type() == process_type,
                Selector::Dyno(name) => entry.dyno.name == *name && (one_offs || !entry.one_off),
            })
            .map(|entry| entry.dyno.clone())
            .collect();
        if old.is_empty() && matches!(which, Selector::Dyno(_)) {
            return Err(Error::NoSuchDyno);
        }
        old.sort_by(|a, b| a.name.cmp(&b.name));
        for dyno in &old {
            self.stop_entry(&mut inner, dyno.id, now);
        }
        self.settle(&mut inner, app);
        Ok(old)
    }

    fn printed(&self, dyno: DynoId) -> Result<watch::Receiver<Printed>, Error> {
        let inner = self.inner();
        let live = inner.dynos.get(&dyno).map(|entry| entry.printed.subscribe());
        live.or_else(|| inner.ended.get(&dyno).map(watch::Sender::subscribe)).ok_or(Error::NoSuchDyno)
    }
}

impl Inner {
    fn address(&self, id: DynoId) -> SocketAddr {
        let (high, _) = id.0.as_u64_pair();
        let port = 20_000 + (high % 30_000) as u16;
        self.web_address.unwrap_or_else(|| (Ipv4Addr::LOCALHOST, port).into())
    }
}

fn reader(mut printed: watch::Receiver<Printed>) -> Box<dyn AsyncRead + Send + Unpin> {
    let (mut ours, theirs) = tokio::io::duplex(PIPE);
    tokio::spawn(async move {
        let mut sent = 0;
        loop {
            let (new, over) = {
                let now = printed.borrow_and_update();
                (now.bytes[sent..].to_vec(), now.exit.is_some())
            };
            sent += new.len();
            if ours.write_all(&new).await.is_err() || over || printed.changed().await.is_err() {
                return;
            }
        }
    });
    Box::new(theirs)
}

#[async_trait]
impl Engine for Memory {
    async fn adopt(&self) -> Result<(), Error> {
        Ok(())
    }

    async fn apply(&self, wanted: Wanted) -> Result<(), Error> {
        let mut inner = self.inner();
        inner.applied += 1;
        let app = wanted.app;
        inner.wanted.insert(app, wanted);
        self.settle(&mut inner, app);
        Ok(())
    }

    async fn remove(&self, app: AppId) -> Result<(), Error> {
        let now = self.clock.now();
        let mut inner = self.inner();
        inner.wanted.remove(&app);
        let ids: Vec<DynoId> = inner.dynos.values().filter(|e| e.dyno.app == app).map(|e| e.dyno.id).collect();
        for id in ids {
            self.stop_entry(&mut inner, id, now);
        }
        Ok(())
    }

    async fn restart(&self, app: AppId, which: Selector) -> Result<Vec<Dyno>, Error> {
        self.replace(app, &which, false)
    }

    async fn stop(&self, app: AppId, which: Selector) -> Result<Vec<Dyno>, Error> {
        self.replace(app, &which, true)
    }

    async fn run(&self, one_off: OneOff) -> Result<Dyno, Error> {
        let now = self.clock.now();
        let mut inner = self.inner();
        if let Some(entry) = inner.dynos.get(&one_off.dyno) {
            return Ok(entry.dyno.clone());
        }
        if let Some(reason) = &inner.fail_starts {
            return Err(Error::Start { operation: "start the dyno".to_owned(), source: reason.clone().into() });
        }
        let mut dyno = Dyno {
            id: one_off.dyno,
            app: one_off.app,
            name: one_off.name.clone(),
            version: one_off.version,
            command: one_off.command.clone(),
            size: one_off.size,
            created_at: now,
            state: State::Starting { since: now },
        };
        self.insert(&mut inner, dyno.clone(), true);
        dyno.state = State::Up { since: now, addresses: Vec::new() };
        self.tell(&dyno, false);
        if let Some(entry) = inner.dynos.get_mut(&dyno.id) {
            entry.dyno.state = dyno.state.clone();
        }
        let answer = inner.answers.iter().rev().find(|(command, ..)| one_off.command.contains(command.as_str()));
        let answer = match answer {
            Some((_, exit, output)) => Some((*exit, output.clone())),
            None if inner.hold_one_offs => None,
            None => Some((Exit::Code(0), Vec::new())),
        };
        let time_to_live = one_off.time_to_live;
        inner.one_offs.push(one_off);
        drop(inner);
        if let Some((exit, output)) = answer {
            self.print(dyno.id, &String::from_utf8_lossy(&output));
            self.finish(dyno.id, exit);
        } else if time_to_live == Some(Duration::ZERO) {
            self.finish(dyno.id, Exit::Signal(15));
        }
        Ok(dyno)
    }

    async fn attach(&self, dyno: DynoId) -> Result<Attached, Error> {
        if !self.inner().attached.insert(dyno) {
            return Err(Error::Attached);
        }
        let output = reader(self.printed(dyno)?);
        let typed = self.inner().dynos.get(&dyno).map(|entry| entry.typed.clone()).unwrap_or_default();
        let (input, mut from) = tokio::io::duplex(PIPE);
        tokio::spawn(async move {
            let mut buffer = [0; 1024];
            while let Ok(n @ 1..) = from.read(&mut buffer).await {
                typed.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(&buffer[..n]);
            }
        });
        Ok(Attached { input: Box::new(input), output })
    }

    async fn enter(&self, dyno: DynoId, inside: Inside) -> Result<Entered, Error> {
        let mut inner = self.inner();
        if !inner.dynos.contains_key(&dyno) {
            return Err(Error::NoSuchDyno);
        }
        let said = match &inside.program {
            Program::Command(command) => {
                inner.answers.iter().rev().find(|(asked, ..)| command.contains(asked.as_str())).cloned()
            }
            Program::Shell | Program::Files => None,
        };
        inner.entered.push((dyno, inside));
        drop(inner);
        // What has no answer says again whatever it is told.
        let (input, echo) = tokio::io::duplex(PIPE);
        let output: Box<dyn AsyncRead + Send + Unpin> = match &said {
            Some((_, _, output)) => Box::new(std::io::Cursor::new(output.clone())),
            None => Box::new(echo),
        };
        let exit = said.map_or(Exit::Code(0), |(_, exit, _)| exit);
        let resize: Resize = Box::new(|_, _| {});
        let exit = Box::pin(async move { Ok(Some(exit)) });
        Ok(Entered { input: Box::new(input), output, errors: None, resize: Some(resize), exit })
    }

    async fn dial(&self, dyno: DynoId, to: SocketAddr) -> Result<Box<dyn Connection>, Error> {
        self.printed(dyno)?;
        let stream = tokio::net::TcpStream::connect(to).await;
        let failed =
            |error| Error::Start { operation: format!("connect to {to} from the dyno"), source: Box::new(error) };
        Ok(Box::new(stream.map_err(failed)?))
    }

    async fn output(&self, dyno: DynoId) -> Result<Box<dyn AsyncRead + Send + Unpin>, Error> {
        if self.inner().lose_output {
            return Err(Error::NoSuchDyno);
        }
        Ok(reader(self.printed(dyno)?))
    }

    async fn wait(&self, dyno: DynoId) -> Result<Exit, Error> {
        let mut printed = self.printed(dyno)?;
        let ended = printed.wait_for(|printed| printed.exit.is_some()).await.map_err(|_| Error::NoSuchDyno)?;
        ended.exit.ok_or(Error::NoSuchDyno)
    }

    fn dynos(&self, app: AppId) -> Vec<Dyno> {
        let inner = self.inner();
        let mut dynos: Vec<Dyno> =
            inner.dynos.values().filter(|entry| entry.dyno.app == app).map(|entry| entry.dyno.clone()).collect();
        dynos.sort_by(|a, b| a.name.cmp(&b.name).then(a.created_at.cmp(&b.created_at)));
        dynos
    }

    fn apps(&self) -> Vec<AppId> {
        let mut apps: Vec<AppId> = self.inner().dynos.values().map(|entry| entry.dyno.app).collect();
        apps.sort_unstable();
        apps.dedup();
        apps
    }

    fn watch(&self) -> broadcast::Receiver<Event> {
        self.events.subscribe()
    }

    /// Nothing runs here, so there is nothing to tell.
    fn set_meter(&self, _meter: Arc<dyn Meter>) {}
}

#[cfg(test)]
mod tests {
    use dozen_domain::{
        config::Vars,
        ids::ReleaseId,
        image::Digest,
        release::Version,
        settings::{Signal, Stop},
        size::Size,
    };

    use super::*;
    use crate::engine::Process;

    fn wanted(app: AppId, version: u32, web: u32) -> Wanted {
        Wanted {
            app,
            app_name: "some-app".parse().expect("a name"),
            release: ReleaseId::random(),
            version: Version(version),
            image: Digest("sha256:0".to_owned()),
            env: Vars::new(),
            processes: vec![Process {
                process_type: "web".parse().expect("a type"),
                command: "serve".to_owned(),
                quantity: web,
                size: Size::Basic,
                stop: Stop { signal: Signal::Term, grace: Duration::from_secs(30) },
            }],
            preboot: false,
            boot_timeout: Duration::from_secs(60),
            runtime_metrics: false,
            health_check: None,
            cycle: true,
        }
    }

    #[tokio::test]
    async fn applied_twice_nothing_changes_and_a_new_version_replaces() {
        let (engine, app) = (Memory::new(), AppId::random());
        engine.apply(wanted(app, 1, 2)).await.expect("applied");
        let first = engine.dynos(app);
        assert_eq!(first.iter().map(|d| d.name.to_string()).collect::<Vec<_>>(), ["web.1", "web.2"]);
        assert!(first.iter().all(|dyno| dyno.state.word() == "up"));
        engine.apply(wanted(app, 1, 2)).await.expect("applied");
        assert_eq!(engine.dynos(app), first);
        engine.apply(wanted(app, 2, 1)).await.expect("applied");
        let second = engine.dynos(app);
        assert_eq!(second.len(), 1);
        assert_ne!(second[0].id, first[0].id);
    }

    #[tokio::test]
    async fn a_one_off_answers_as_told_and_its_exit_and_output_stay() {
        let (engine, app) = (Memory::new(), AppId::random());
        engine.answer("migrate", Exit::Code(3), "no such table\n");
        let one_off = OneOff {
            dyno: DynoId::random(),
            app,
            app_name: "some-app".parse().expect("a name"),
            name: "release.1".parse().expect("a name"),
            version: Version(1),
            image: Digest("sha256:0".to_owned()),
            env: Vars::new(),
            command: "rake db:migrate".to_owned(),
            size: Size::Basic,
            time_to_live: None,
            attach: None,
            logged: true,
        };
        let dyno = engine.run(one_off).await.expect("started");
        assert_eq!(engine.wait(dyno.id).await.expect("an exit"), Exit::Code(3));
        let mut output = String::new();
        engine.output(dyno.id).await.expect("output").read_to_string(&mut output).await.expect("text");
        assert_eq!(output, "no such table\n");
        assert!(engine.dynos(app).is_empty());
    }
}
