//! The machine engine: keeps each app's dynos in line with what is wanted, through their shims.
//!
//! One task owns all state ([`actor`]) and is told everything as messages: by callers, by the connections to the shims
//! ([`link`]), by starts that have ended ([`launch`]). What to do follows from [`dozen_domain::plan`]; what a dyno is
//! follows from its shim's events in one place ([`entry`]). What runs is kept by the shims, what is wanted by control's
//! database, and nothing by the engine: it may be killed between any two steps, and [`Engine::adopt`] followed by
//! [`Engine::apply`] goes on from what is found.

mod actor;
mod adopt;
mod begin;
mod cycling;
mod entry;
mod environment;
mod health;
mod host;
mod inside;
mod launch;
mod link;
mod measure;
mod meter;
mod say;

use std::{
    collections::HashMap,
    net::SocketAddr,
    path::Path,
    sync::{Arc, OnceLock, PoisonError, RwLock},
};

use async_trait::async_trait;
use dozen_api::engine::{
    Attached, Connection, Dyno, Engine, Entered, Error, Event, Gate, Inside, Meter, OneOff, Selector, Wanted,
};
use dozen_domain::{
    dyno::Exit,
    ids::{AppId, DynoId},
};
use tokio::{
    io::AsyncRead,
    sync::{broadcast, mpsc, oneshot},
};

use actor::{Actor, Message};
pub(crate) use entry::{key, kind, stop};
pub(crate) use host::EXECUTABLE;
pub use host::{Error as HostError, Host, Options};
pub(crate) use launch::{sandbox, start};
pub(crate) use link::{Heard, Reading, into, keep};

/// Events that a watcher may lag behind.
const EVENTS: usize = 4096;
/// Messages that wait for the engine's task; senders wait when it is full.
const MESSAGES: usize = 1024;

/// What callers may read without asking the task.
type View = Arc<RwLock<HashMap<AppId, Vec<Dyno>>>>;

/// The engine of one machine. Dropping it ends its task and leaves all dynos running.
pub struct Machine {
    host: Arc<Host>,
    messages: mpsc::Sender<Message>,
    events: broadcast::Sender<Event>,
    view: View,
    gate: Arc<OnceLock<Arc<dyn Gate>>>,
    meter: Arc<OnceLock<Arc<dyn Meter>>>,
}

impl Machine {
    /// Starts the engine's task. Nothing is known until [`Engine::adopt`].
    pub fn new(host: Arc<Host>) -> Self {
        let (messages, receiver) = mpsc::channel(MESSAGES);
        let events = broadcast::channel(EVENTS).0;
        let (view, gate, meter) = (View::default(), Arc::new(OnceLock::new()), Arc::new(OnceLock::new()));
        let metered = measure::Metered::default();
        let (seen, on) = (Arc::downgrade(&view), host.clone());
        tokio::spawn(measure::run(on, seen, metered.clone()));
        let (items, queue) = mpsc::unbounded_channel();
        tokio::spawn(meter::work(host.clone(), meter.clone(), queue));
        let actor =
            Actor::new(host.clone(), messages.downgrade(), events.clone(), view.clone(), gate.clone(), metered, items);
        tokio::spawn(actor.run(receiver));
        Self { host, messages, events, view, gate, meter }
    }

    async fn ask<T>(&self, message: impl FnOnce(oneshot::Sender<T>) -> Message) -> Result<T, Error> {
        let (answer, answered) = oneshot::channel();
        let sent = self.messages.send(message(answer)).await.is_ok();
        match (sent, answered.await) {
            (true, Ok(answer)) => Ok(answer),
            _ => Err(start_error("ask the engine", "its task has ended")),
        }
    }

    fn shim(&self, dyno: DynoId) -> Result<std::path::PathBuf, Error> {
        let directory = self.host.directory(dyno);
        if host::socket(&directory).exists() { Ok(directory) } else { Err(Error::NoSuchDyno) }
    }
}

fn start_error(operation: &str, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Error {
    Error::Start { operation: operation.to_owned(), source: source.into() }
}

fn unreachable_shim(directory: &Path) -> impl FnOnce(std::io::Error) -> Error {
    let operation = format!("connect to the shim in {}", directory.display());
    move |source| Error::Start { operation, source: source.into() }
}

#[async_trait]
impl Engine for Machine {
    async fn adopt(&self) -> Result<(), Error> {
        let found = adopt::scan(&self.host).await.map_err(|error| start_error("look for running dynos", error))?;
        self.ask(|answer| Message::Adopt(found, answer)).await
    }

    async fn apply(&self, wanted: Wanted) -> Result<(), Error> {
        self.ask(|answer| Message::Apply(Box::new(wanted), answer)).await
    }

    async fn remove(&self, app: AppId) -> Result<(), Error> {
        self.ask(|answer| Message::Remove(app, answer)).await
    }

    async fn restart(&self, app: AppId, which: Selector) -> Result<Vec<Dyno>, Error> {
        self.ask(|answer| Message::Replace(app, which, answer)).await?
    }

    async fn stop(&self, app: AppId, which: Selector) -> Result<Vec<Dyno>, Error> {
        // On Heroku a stopped dyno of the formation comes back, so to stop is to restart; one-offs just end in both.
        self.restart(app, which).await
    }

    async fn run(&self, one_off: OneOff) -> Result<Dyno, Error> {
        self.ask(|answer| Message::Run(Box::new(one_off), answer)).await?
    }

    async fn attach(&self, dyno: DynoId) -> Result<Attached, Error> {
        let directory = self.shim(dyno)?;
        link::attach(&directory).await.map_err(unreachable_shim(&directory))?.ok_or(Error::Attached)
    }

    async fn enter(&self, dyno: DynoId, inside: Inside) -> Result<Entered, Error> {
        inside::enter(&self.shim(dyno)?, inside).await
    }

    async fn dial(&self, dyno: DynoId, to: SocketAddr) -> Result<Box<dyn Connection>, Error> {
        inside::dial(&self.shim(dyno)?, to).await
    }

    async fn output(&self, dyno: DynoId) -> Result<Box<dyn AsyncRead + Send + Unpin>, Error> {
        let directory = self.shim(dyno)?;
        link::output(&directory).await.map_err(unreachable_shim(&directory))
    }

    async fn wait(&self, dyno: DynoId) -> Result<Exit, Error> {
        let mut exit = self.ask(|answer| Message::Wait(dyno, answer)).await?.ok_or(Error::NoSuchDyno)?;
        let exit = exit.wait_for(Option::is_some).await.map_err(|_| Error::NoSuchDyno)?;
        exit.ok_or(Error::NoSuchDyno)
    }

    fn dynos(&self, app: AppId) -> Vec<Dyno> {
        self.view.read().unwrap_or_else(PoisonError::into_inner).get(&app).cloned().unwrap_or_default()
    }

    fn apps(&self) -> Vec<AppId> {
        self.view.read().unwrap_or_else(PoisonError::into_inner).keys().copied().collect()
    }

    fn watch(&self) -> broadcast::Receiver<Event> {
        self.events.subscribe()
    }

    fn set_gate(&self, gate: Arc<dyn Gate>) {
        let _ = self.gate.set(gate);
    }

    fn set_meter(&self, meter: Arc<dyn Meter>) {
        let _ = self.meter.set(meter);
    }
}
