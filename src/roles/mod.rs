//! Which roles there are and how their processes begin and end; [`wiring`] says what each is made of.
//!
//! A role is a process that the parent starts (`dozen role NAME`), with its listening sockets and two pipes inherited by
//! number. It runs until SIGTERM or until its lifeline closes, which means that the parent is gone.

mod wiring;

use std::{
    ffi::OsString,
    future::Future,
    io,
    net::TcpListener,
    os::fd::{FromRawFd, OwnedFd, RawFd},
    process::ExitCode,
    time::Duration,
};

use rustix::io::FdFlags;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::unix::pipe,
    runtime::{Builder, Runtime},
    signal::unix::{SignalKind, signal},
};

pub(crate) use wiring::{
    builder, control_groups, git_hook, missing_protections, protections, sftp_server, shim, static_server, tear_down,
};

use crate::{
    commands::complain,
    config::{self, Config},
    data_dir, own_log,
};

/// How long a role that restarts waits for its former self to be gone.
const FORMER_SELF: Duration = Duration::from_secs(10);
/// Time that a role has to end once its parent is gone.
const ORPHAN_GRACE: Duration = Duration::from_secs(5);

/// A role.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    /// Lines, their history and sessions.
    Logs,
    /// Platform API, git, releases, dynos wanted.
    Control,
    /// Requests to dynos.
    Router,
}

impl Role {
    /// All, in the order in which they are started.
    pub(crate) const ALL: [Self; 3] = [Self::Logs, Self::Control, Self::Router];

    /// The word after `dozen role`.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Logs => "logs",
            Self::Control => "control",
            Self::Router => "router",
        }
    }

    /// Whether a successor serves beside a process that finishes what it is at.
    pub(crate) fn overlaps(self) -> bool {
        self == Self::Router
    }

    /// Threads: the router's work is the requests', one thread a processor; the others wait most of the time.
    fn runtime(self) -> io::Result<Runtime> {
        match self {
            Self::Logs => Builder::new_current_thread().enable_all().build(),
            Self::Control => Builder::new_multi_thread().worker_threads(2).enable_all().build(),
            Self::Router => Builder::new_multi_thread().enable_all().build(),
        }
    }
}

/// Why a role ended otherwise than asked.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// Somebody typed it.
    #[error("a role is started by `dozen server` alone")]
    NotOurs,
    /// The environment.
    #[error(transparent)]
    Config(#[from] config::Error),
    #[error(transparent)]
    DataDir(#[from] data_dir::Error),
    #[error("{operation}")]
    Io {
        operation: &'static str,
        #[source]
        source: io::Error,
    },
    #[error(transparent)]
    Wiring(#[from] wiring::Error),
}

/// Descriptors that the parent handed over.
struct Inherited {
    lifeline: OwnedFd,
    ready: OwnedFd,
    listeners: Vec<(String, TcpListener)>,
}

impl Inherited {
    /// Takes `name=fd` words. From here on no child of this process inherits the descriptors.
    fn take(words: &[OsString]) -> Option<Self> {
        let mut fds = Vec::new();
        for word in words {
            let (name, fd) = word.to_str()?.split_once('=')?;
            let fd: RawFd = fd.parse().ok().filter(|fd| *fd > 2)?;
            // SAFETY: the parent left this descriptor open for this process alone, each number once (checked below),
            // and nothing has opened or closed descriptors since the process began.
            let owned = unsafe { OwnedFd::from_raw_fd(fd) };
            if rustix::io::fcntl_setfd(&owned, FdFlags::CLOEXEC).is_err() {
                // Not open: somebody else's doing. Dropping it would close what is not ours.
                std::mem::forget(owned);
                return None;
            }
            fds.push((name.to_owned(), owned));
        }
        let mut named = |name: &str| fds.iter().position(|(given, _)| given == name).map(|at| fds.remove(at).1);
        let (lifeline, ready) = (named("lifeline")?, named("ready")?);
        let listeners = fds.into_iter().map(|(name, fd)| (name, TcpListener::from(fd))).collect();
        Some(Self { lifeline, ready, listeners })
    }

    /// As [`Inherited::listener`], if the parent has it.
    fn optional(&mut self, name: &str) -> Result<Option<TcpListener>, Error> {
        match self.listeners.iter().any(|(given, _)| given == name) {
            true => self.listener(name).map(Some),
            false => Ok(None),
        }
    }

    fn listener(&mut self, name: &str) -> Result<TcpListener, Error> {
        let at = self.listeners.iter().position(|(given, _)| given == name).ok_or(Error::NotOurs)?;
        let listener = self.listeners.remove(at).1;
        let set = listener.set_nonblocking(true);
        set.map_err(|source| Error::Io { operation: "prepare an inherited socket", source })?;
        Ok(listener)
    }
}

/// `dozen role NAME fd=…`: runs a role to its end.
pub(crate) fn run(arguments: &[OsString]) -> ExitCode {
    match role(arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            complain(&error);
            ExitCode::FAILURE
        }
    }
}

fn role(arguments: &[OsString]) -> Result<(), Error> {
    let (name, words) = arguments.split_first().ok_or(Error::NotOurs)?;
    let role = Role::ALL.into_iter().find(|role| *name == role.name()).ok_or(Error::NotOurs)?;
    let mut inherited = Inherited::take(words).ok_or(Error::NotOurs)?;
    let config = Config::from_env()?;
    own_log::start(config.log, config.log_format);
    let how = if role.overlaps() { data_dir::Held::Together } else { data_dir::Held::Alone };
    let _lock = data_dir::lock_role(&config.data_dir, role.name(), how, FORMER_SELF)?;
    raise_open_files();
    let io = |operation| move |source| Error::Io { operation, source };
    let runtime = role.runtime().map_err(io("start the event loop"))?;
    let lifeline = std::mem::replace(&mut inherited.lifeline, dev_null().map_err(io("open /dev/null"))?);
    let done = runtime.block_on(async {
        let shutdown = shutdown(lifeline).map_err(io("listen for signals"))?;
        match role {
            Role::Logs => wiring::logs(&config, inherited, shutdown).await,
            Role::Router => wiring::router(&config, inherited, shutdown).await,
            Role::Control => wiring::control(&config, inherited, shutdown).await,
        }
    });
    // What still runs in the background is meant to be interrupted at any instant.
    runtime.shutdown_background();
    done
}

/// Lifts the soft limit of open files to the hard one: the usual 1,024 are the router's at some five hundred requests at
/// once. Dynos get a limit of their own.
fn raise_open_files() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    if let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }) {
        tracing::warn!(%error, "cannot raise the limit of open files");
    }
}

fn dev_null() -> io::Result<OwnedFd> {
    Ok(std::fs::File::open("/dev/null")?.into())
}

/// Resolves on SIGTERM, or when the parent is gone; then the process also ends by force a little later.
fn shutdown(lifeline: OwnedFd) -> io::Result<impl Future<Output = ()> + Send + 'static> {
    let mut terminate = signal(SignalKind::terminate())?;
    rustix::io::ioctl_fionbio(&lifeline, true)?;
    let mut lifeline = pipe::Receiver::from_owned_fd(lifeline)?;
    let (gone, orphaned) = tokio::sync::oneshot::channel();
    tokio::spawn(async move {
        _ = lifeline.read(&mut [0]).await;
        _ = gone.send(());
        tokio::time::sleep(ORPHAN_GRACE).await;
        std::process::exit(1);
    });
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = orphaned => tracing::warn!("the parent is gone; ending"),
        }
    })
}

/// Tells the parent that the role is ready once `probe` succeeds.
fn announce<F: Future<Output = bool> + Send>(ready: OwnedFd, probe: impl Fn() -> F + Send + Sync + 'static) {
    tokio::spawn(async move {
        while !probe().await {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let sent = rustix::io::ioctl_fionbio(&ready, true).map_err(io::Error::from);
        if let Ok(mut ready) = sent.and_then(|()| pipe::Sender::from_owned_fd(ready)) {
            // A parent that has gone meanwhile needs no answer.
            _ = ready.write_all(b"+").await;
        }
    });
}

/// Runs one future to its end, for a command.
///
/// # Errors
/// When there can be no event loop.
pub(crate) fn block_on<T>(future: impl Future<Output = T>) -> io::Result<T> {
    Ok(Builder::new_current_thread().enable_all().build()?.block_on(future))
}

#[cfg(test)]
mod tests {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

    #[test]
    fn as_many_files_may_be_open_as_the_system_lets_a_role_have() {
        let limit = getrlimit(Resource::Nofile);
        let less = limit.maximum.map(|most| most - 1);
        setrlimit(Resource::Nofile, Rlimit { current: less, ..limit }).expect("a limit");
        super::raise_open_files();
        assert_eq!(getrlimit(Resource::Nofile).current, limit.maximum);
    }
}
