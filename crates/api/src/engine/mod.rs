//! The seam to where dynos run. Control says in domain words what should be; the engine makes it so and reports what is.
//!
//! Control's database holds the wanted state and is the only place that lasts. [`Engine::apply`] is level-triggered:
//! control repeats it whenever it starts and whenever something changed, and doing it twice changes nothing. The
//! engine places, starts, restarts after crashes, replaces on a new release, stops; it writes the dyno's own lines
//! (`heroku[web.1]: State changed from starting to up`) to the log itself.

pub mod memory;

use std::{collections::BTreeMap, fmt::Debug, net::SocketAddr, sync::Arc, time::Duration};

use async_trait::async_trait;
use dozen_domain::{
    config::Vars,
    dyno::{Exit, State},
    ids::{AppId, DynoId, ReleaseId},
    image::Digest,
    name::{AppName, DynoName, ProcessType},
    release::Version,
    settings::Stop,
    size::Size,
};
use futures_util::future::BoxFuture;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::broadcast,
};

use crate::clock::Micros;

/// What one app should be running, whole.
#[derive(Debug, Clone, PartialEq)]
pub struct Wanted {
    /// Which app.
    pub app: AppId,
    /// Its name.
    pub app_name: AppName,
    /// The release in force.
    pub release: ReleaseId,
    /// Its number.
    pub version: Version,
    /// The image of the release.
    pub image: Digest,
    /// Environment of every process: launch environment, config vars, `HEROKU_*` metadata. The engine adds `PORT` and
    /// `DYNO`.
    pub env: Vars,
    /// Process types with their wanted quantity; a type with 0 is listed too.
    pub processes: Vec<Process>,
    /// New web dynos are up before old ones stop.
    pub preboot: bool,
    /// Time for a web dyno to bind its port before R10.
    pub boot_timeout: Duration,
    /// Load and memory of its dynos are written into its log (`log-runtime-metrics`).
    pub runtime_metrics: bool,
    /// Path that a new web dyno must answer before it is up; without one it is up once it listens.
    pub health_check: Option<HealthCheck>,
    /// Whether dynos are replaced by fresh ones once a day.
    pub cycle: bool,
}

/// What a new web dyno must answer, with a status below 400, before it gets requests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HealthCheck {
    /// The `Host` that it is asked as.
    pub host: String,
    /// The path.
    pub path: String,
}

/// One process type.
#[derive(Debug, Clone, PartialEq)]
pub struct Process {
    /// Its name.
    pub process_type: ProcessType,
    /// Its command, run by a shell.
    pub command: String,
    /// How many.
    pub quantity: u32,
    /// How large.
    pub size: Size,
    /// How its dynos are stopped.
    pub stop: Stop,
}

/// A dyno that runs one command once.
#[derive(Debug, Clone)]
pub struct OneOff {
    /// Its id, chosen by the caller so that asking twice starts one.
    pub dyno: DynoId,
    /// Whose.
    pub app: AppId,
    /// Its app's name.
    pub app_name: AppName,
    /// `run.4711`, `release.1234`.
    pub name: DynoName,
    /// Release whose config it runs under.
    pub version: Version,
    /// The image.
    pub image: Digest,
    /// Environment, as in [`Wanted::env`].
    pub env: Vars,
    /// Its command, run by a shell.
    pub command: String,
    /// How large.
    pub size: Size,
    /// It is stopped after this.
    pub time_to_live: Option<Duration>,
    /// A client will attach; the terminal's columns and rows if it has one.
    pub attach: Option<Attach>,
    /// Whether output goes to the app's log.
    pub logged: bool,
}

/// What an attached client is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Attach {
    /// A terminal of this size.
    Terminal {
        /// Characters a row.
        columns: u16,
        /// Rows.
        rows: u16,
    },
    /// Pipes.
    Pipes,
}

/// Which of an app's dynos.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Selector {
    /// All of the formation (not one-offs).
    All,
    /// One type's.
    Type(ProcessType),
    /// One by name, one-offs too.
    Dyno(DynoName),
}

/// One dyno as it is.
#[derive(Debug, Clone, PartialEq)]
pub struct Dyno {
    /// Which.
    pub id: DynoId,
    /// Whose.
    pub app: AppId,
    /// `web.1`.
    pub name: DynoName,
    /// Release it runs.
    pub version: Version,
    /// Its command.
    pub command: String,
    /// Its size.
    pub size: Size,
    /// When it was created.
    pub created_at: Micros,
    /// Its state.
    pub state: State,
}

/// Something happened to a dyno; the dyno is as it was just after.
#[derive(Debug, Clone)]
pub struct Event {
    /// The dyno after the change.
    pub dyno: Dyno,
    /// It is gone from the engine's list (replaced, scaled down, forgotten).
    pub removed: bool,
}

/// Both directions of an attached dyno.
pub struct Attached {
    /// To its standard input.
    pub input: Box<dyn AsyncWrite + Send + Unpin>,
    /// Its output from the beginning; ends when the dyno is gone.
    pub output: Box<dyn AsyncRead + Send + Unpin>,
}

impl Debug for Attached {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Attached")
    }
}

/// A command to run inside a running dyno, beside what runs there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inside {
    /// What.
    pub program: Program,
    /// Variables over the dyno's own.
    pub env: BTreeMap<String, String>,
    /// What its standard streams are.
    pub attach: Attach,
    /// With pipes: standard error apart from standard output.
    pub separate_errors: bool,
}

/// What runs inside a dyno.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Program {
    /// A command as people write it in a Procfile, after the app's profile scripts.
    Command(String),
    /// An interactive shell.
    Shell,
    /// The platform's server of the SSH file transfer protocol.
    Files,
}

/// Changes a terminal's size: columns, rows.
pub type Resize = Box<dyn Fn(u16, u16) + Send + Sync>;

/// A process inside a dyno. Dropping it closes its streams and hangs it up.
pub struct Entered {
    /// To its standard input; shut down, that ends (with pipes).
    pub input: Box<dyn AsyncWrite + Send + Unpin>,
    /// What it prints.
    pub output: Box<dyn AsyncRead + Send + Unpin>,
    /// Its standard error, when that was to be apart.
    pub errors: Option<Box<dyn AsyncRead + Send + Unpin>>,
    /// Of its terminal, if it has one.
    pub resize: Option<Resize>,
    /// How it ends; `None` when its dyno ended under it, or why it could not be started.
    pub exit: BoxFuture<'static, Result<Option<Exit>, String>>,
}

impl Debug for Entered {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Entered")
    }
}

/// A connection from inside a dyno.
pub trait Connection: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Connection for S {}

/// Why the engine could not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No dyno of this app has that name or id.
    #[error("there is no such dyno")]
    NoSuchDyno,
    /// Somebody attached to this dyno before, or the time for that is over.
    #[error("the dyno has or had its client")]
    Attached,
    /// The image is not in the store, or damaged (R17).
    #[error("image {0:?} cannot be used: {1}")]
    Image(Digest, String),
    /// Making or starting the container failed.
    #[error("{operation}")]
    Start {
        /// What was attempted.
        operation: String,
        /// Why it failed.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

/// Holds a dyno's stop back until nobody sends it requests any more.
#[async_trait]
pub trait Gate: Send + Sync + 'static {
    /// Called for a web dyno that is to stop: after its [`Event`] with [`State::Stopping`], before the first signal.
    /// Returns once requests go elsewhere, or after a short while when the router is away; never fails.
    async fn before_stop(&self, dyno: &Dyno);
}

/// The time in which a dyno's process existed, as its shim tells it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Run {
    /// Which.
    pub dyno: DynoId,
    /// Whose.
    pub app: AppId,
    /// `web.1`.
    pub name: DynoName,
    /// Its size.
    pub size: Size,
    /// It runs one command once.
    pub one_off: bool,
    /// When its process was started.
    pub started_at: Micros,
    /// When that was gone; none while it is there.
    pub ended_at: Option<Micros>,
}

/// Keeps the record of when dynos ran.
#[async_trait]
pub trait Meter: Send + Sync + 'static {
    /// Records starts and ends; each may be told several times, and every end is told with its start. Returns once they
    /// are on disk, however long that takes: what told the engine goes only then.
    async fn record(&self, runs: Vec<Run>);

    /// After [`Engine::adopt`]: only these are still there. The end of every other run on record was seen by nobody.
    async fn adopted(&self, present: Vec<DynoId>);
}

/// Where dynos run.
#[async_trait]
pub trait Engine: Send + Sync + 'static {
    /// Finds what runs already. Called once, before anything else; afterwards [`Engine::dynos`] is complete.
    async fn adopt(&self) -> Result<(), Error>;

    /// Makes an app run what is wanted; returns when that has been taken up, not when it is done.
    async fn apply(&self, wanted: Wanted) -> Result<(), Error>;

    /// Stops everything of an app, one-offs too, and forgets it with its scratch directories.
    async fn remove(&self, app: AppId) -> Result<(), Error>;

    /// Replaces dynos of the formation by new ones under the same names; returns the old ones.
    async fn restart(&self, app: AppId, which: Selector) -> Result<Vec<Dyno>, Error>;

    /// Stops dynos. Those of the formation are started again (as on Heroku), one-offs are not. Returns them.
    async fn stop(&self, app: AppId, which: Selector) -> Result<Vec<Dyno>, Error>;

    /// Starts a one-off dyno.
    async fn run(&self, one_off: OneOff) -> Result<Dyno, Error>;

    /// Opens both directions of a dyno started with [`OneOff::attach`], once.
    async fn attach(&self, dyno: DynoId) -> Result<Attached, Error>;

    /// Starts a process inside a running dyno.
    async fn enter(&self, dyno: DynoId, inside: Inside) -> Result<Entered, Error>;

    /// Connects to an address as one of the dyno's own processes would.
    async fn dial(&self, dyno: DynoId, to: SocketAddr) -> Result<Box<dyn Connection>, Error>;

    /// A dyno's output from the beginning, as far as it is still held; ends when the dyno is gone.
    async fn output(&self, dyno: DynoId) -> Result<Box<dyn AsyncRead + Send + Unpin>, Error>;

    /// Waits for a one-off dyno's end.
    async fn wait(&self, dyno: DynoId) -> Result<Exit, Error>;

    /// The app's dynos as they are: live, crashed, and one-offs; sorted by name, at most one a name except while a
    /// replacement is under way.
    fn dynos(&self, app: AppId) -> Vec<Dyno>;

    /// Apps that have dynos, so that those of apps that are gone can be removed after [`Engine::adopt`].
    fn apps(&self) -> Vec<AppId>;

    /// Changes from now on. A receiver that lags must read [`Engine::dynos`] again.
    fn watch(&self) -> broadcast::Receiver<Event>;

    /// Gives the engine what to ask before it stops a web dyno. Called once, before [`Engine::adopt`]; an engine whose
    /// routing is not control's (Kubernetes) has no use for it.
    fn set_gate(&self, _gate: Arc<dyn Gate>) {}

    /// Gives the engine what to tell of every dyno's start and end. Called once, before [`Engine::adopt`].
    fn set_meter(&self, meter: Arc<dyn Meter>);
}
