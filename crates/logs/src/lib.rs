//! The logs role: one ordered stream of lines per app, its bounded history, and the sessions that read it.
//!
//! ```text
//! shims ---- reader ---> lines ---.
//!                                  >--- channel ---> buffer (disk) ---> session (history), drain
//! roles ---- ingest --------------'        `-------> tail (memory) ---> session (new lines)
//! ```
//!
//! * [`reader`], [`shims`]: fetch the output of dynos from their shims and cut it into lines ([`lines`]).
//! * [`ingest`]: takes the lines of the router and of control.
//! * [`channel`]: gives each line of an app its number, stores it, then shows it to the app's tails.
//! * [`buffer`]: the last lines of an app on disk, in [`block`]s, together with how far each producer is stored.
//! * [`drain`]: sends streams to receivers elsewhere, reading them from history.
//! * [`turns`]: how dynos that write let the drains of their app keep up.
//! * [`session`], [`tail`]: history and new lines, filtered, without gap or repeat between them.
//!
//! **A line is stored together with its producer's position, in one write**, so that after a kill at any instant the
//! role asks the producer for exactly what is missing. **No line waits in memory for the disk**: what cannot be stored
//! is shown to tails, counted, and told (L15). **An idle app costs a few hundred bytes**: no open file, no lines in
//! memory.
//!
//! Not here: which drains there are, and who may read which app (control decides).

mod batch;
mod block;
mod buffer;
mod channel;
mod drain;
mod ingest;
mod lines;
mod reader;
mod server;
mod session;
mod shims;
mod tail;
mod turns;

use std::{
    fs, io,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use dozen_api::socket;
use dozen_domain::{
    limits::{Limits, seconds},
    reach::Reach,
};
use tokio_util::sync::CancellationToken;

/// Where the role lives and what bounds it.
#[derive(Debug, Clone)]
pub struct Options {
    /// `$DOZEN_DATA_DIR/run`: `logs.sock` is made there, `dynos/` is read.
    pub run_dir: PathBuf,
    /// `$DOZEN_DATA_DIR/logs`: history, a directory an app.
    pub logs_dir: PathBuf,
    /// `$DOZEN_DATA_DIR/keys`: the key that seals what is kept of drains.
    pub keys_dir: PathBuf,
    /// Where drains may lead.
    pub reach: Reach,
    /// PEM file of certificates that receivers' are checked against; `None` is what the system trusts.
    pub trust: Option<PathBuf>,
    /// The platform's limits.
    pub limits: Limits,
}

/// Why the role cannot start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// History cannot be kept.
    #[error("cannot write log history in {}; give the platform's user write access to it and free space", path.display())]
    Unwritable {
        /// The directory.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Drains cannot use TLS.
    #[error("cannot set up TLS for drains")]
    Tls(#[from] rustls::Error),
    /// Nobody could reach the role.
    #[error("cannot listen on {}", path.display())]
    Listen {
        /// The socket.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// How often dynos are looked for without being announced, idle files are closed and failed writes tried again.
const SWEEP: Duration = Duration::from_secs(5);

/// How often lines that have expired are removed; sessions do not show them anyway.
const EXPIRY: Duration = Duration::from_secs(600);

/// What the parts of the role share.
struct Role {
    options: Options,
    channels: channel::Channels,
    shims: shims::Shims,
    drains: drain::Drains,
    stop: CancellationToken,
}

/// Runs the role until `shutdown` resolves.
///
/// # Errors
/// When history or socket cannot be made at the start; later failures are logged, counted and outlived.
pub async fn run(options: Options, shutdown: impl Future<Output = ()>) -> Result<(), Error> {
    raise_open_files();
    let unwritable = |source| Error::Unwritable { path: options.logs_dir.clone(), source };
    fs::create_dir_all(&options.logs_dir).map_err(unwritable)?;
    let probe = options.logs_dir.join(".writable");
    fs::write(&probe, b"").and_then(|()| fs::remove_file(&probe)).map_err(unwritable)?;
    let path = options.run_dir.join("logs.sock");
    let listener = socket::bind(&path).map_err(|source| Error::Listen { path, source })?;

    let stop = CancellationToken::new();
    let role = Arc::new(Role {
        channels: channel::Channels::new(&options),
        drains: drain::Drains::new(&options)?,
        shims: shims::Shims::new(options.run_dir.join("dynos")),
        options,
        stop: stop.clone(),
    });
    tracing::info!(logs_dir = %role.options.logs_dir.display(), "collecting logs");
    let _stop_all = stop.drop_guard(); // readers and connections end with this function
    let sweep = async {
        drain::resume(&role).await;
        let mut expired = None;
        loop {
            shims::scan(&role).await;
            role.channels.sweep();
            role.channels.sync().await;
            if expired.is_none_or(|at: Instant| at.elapsed() > EXPIRY) {
                role.channels.expire(seconds(role.options.limits.log_history_seconds));
                expired = Some(Instant::now());
            }
            tokio::time::sleep(SWEEP).await;
        }
    };
    tokio::select! {
        () = shutdown => {}
        () = server::accept(&role, listener) => {}
        () = sweep => {}
    }
    drain::stop(&role).await;
    Ok(())
}

/// Lifts the soft limit of open files to the hard one: a connection a dyno and a file a busy app.
fn raise_open_files() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    if let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }) {
        tracing::warn!(%error, "cannot raise the limit of open files");
    }
}
