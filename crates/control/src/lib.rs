//! The control role: Platform API, git, builds, release ledger, reconcilers.
//!
//! A noun has the same file name in each layer: `http/releases.rs` (extract, authorise, call one operation, convert) ->
//! `ops/releases.rs` (rules, one transaction, nudge) -> `store/releases.rs` (the only place with its SQL).
//! `http/routes.rs` is the whole route table of the API. What runs dynos and builds is behind traits and handed in by
//! the root package; this crate reads no environment and opens no listening TCP socket itself.

pub mod acme;
pub mod auth;
pub mod cron;
pub mod git;
pub mod hook;
pub mod http;
pub mod listen;
pub mod ops;
pub mod origin;
pub mod reconcile;
pub mod routes_feed;
pub mod sessions;
pub mod state;
pub mod store;
pub mod tls;
pub mod traffic;

use std::{future::Future, io, path::PathBuf, sync::Arc};

use dozen_api::{build::Builds, clock::SystemClock, engine::Engine, logs};
use dozen_domain::{
    config::{Secret, Vars},
    limits::Limits,
    network::Prefix,
    reach::Reach,
};

pub use state::Context;

/// Everything that the control role is told at its start.
#[derive(Debug)]
pub struct Options {
    /// `$DOZEN_DATA_DIR`.
    pub data_dir: PathBuf,
    /// `sqlite://…`; `None` is `dozen.db` in the data directory.
    pub database_url: Option<String>,
    /// Plain HTTP.
    pub api_listener: std::net::TcpListener,
    /// The same over TLS, plus git, rendezvous and exec-manager.
    pub tls_listener: std::net::TcpListener,
    /// SSH of the exec family, if it is to be served.
    pub ssh_listener: Option<std::net::TcpListener>,
    /// All limits.
    pub limits: Limits,
    /// Apps answer below this name.
    pub apps_domain: String,
    /// Port of the router's plain listener, for an app's `web_url`.
    pub router_port: u16,
    /// `host[:port]` of git remotes; always https.
    pub git_host: String,
    /// Base of plain URLs that clients are given, without a slash at the end: `http://localhost:5000`.
    pub api_url: String,
    /// The same over TLS: `https://localhost:5443`.
    pub tls_url: String,
    /// E-mail of the first account; only the first start looks at it.
    pub admin_email: Option<String>,
    /// Token of the first account; only the first start looks at it.
    pub admin_api_key: Option<Secret>,
    /// This machine's name.
    pub hostname: String,
    /// The operator's variables that builds get (`DOZEN_BUILD_ENV`).
    pub build_env: Vars,
    /// Private networks from which sources may be fetched (`DOZEN_FETCH_ALLOW_NETWORKS`).
    pub fetch_allow_networks: Vec<Prefix>,
    /// Where folders may be that are buildpacks (`DOZEN_BUILDPACK_DIRS`).
    pub buildpack_dirs: Vec<PathBuf>,
    /// Where the platform connects to on somebody's behalf.
    pub reach: Reach,
    /// What the certificates are for.
    pub certificates: tls::Names,
    /// The certificate authority for apps' domains.
    pub acme: acme::Settings,
    /// Command of git's pre-receive hook, a program that calls [`hook::main`]: this executable and `git-hook`.
    pub hook: Vec<String>,
}

/// Why the control role could not start or go on.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The database.
    #[error("{0}")]
    Store(#[from] store::Error),
    /// A file or socket.
    #[error("{operation}")]
    Io {
        /// What was attempted, with its path.
        operation: String,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
    /// The first account.
    #[error("{0}")]
    Operation(#[from] ops::Error),
    /// The certificates.
    #[error("{0}")]
    Tls(#[from] tls::Error),
    /// Git.
    #[error("{0}")]
    Git(#[from] git::Error),
}

/// Runs the control role until `shutdown` resolves.
///
/// # Errors
/// When the database, the keys or the first account cannot be had, or a listener fails.
pub async fn run(
    options: Options,
    engine: Arc<dyn Engine>,
    builds: Arc<dyn Builds>,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> Result<(), Error> {
    let capacity = usize::try_from(options.limits.log_local_buffer_lines).unwrap_or(usize::MAX);
    let logs = logs::Sender::connect(options.data_dir.join("run/logs.sock"), "control", capacity);
    let (options, listeners) = state::Settings::split(options);
    let (nudge, nudges) = reconcile::Nudge::channel();
    let context = Context::open(options, engine, builds, logs, Arc::new(SystemClock), nudge).await?;
    sessions::account::settle(&context);
    listen::run(context, listeners, nudges, shutdown).await
}
