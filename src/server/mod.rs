//! The parent: binds the sockets, takes the lock, starts the roles and keeps them, and says where everything is.
//!
//! It holds no state of its own and never touches a dyno: killing it ends the roles (their lifeline closes) and
//! nothing else; the next start finds every dyno running.

mod greeting;
pub(crate) mod listeners;
mod supervise;

use std::{io, path::PathBuf, process::ExitCode, time::Duration};

use tokio::{
    signal::unix::{SignalKind, signal},
    sync::{mpsc, watch},
    task::JoinSet,
};

use self::{
    listeners::Listeners,
    supervise::{Lifeline, Supervised},
};
use crate::{
    config::Config,
    data_dir,
    roles::{self, Role},
};

/// How long a new parent waits for the roles of a killed one: their lifeline has closed already.
const FORMER_ROLES: Duration = Duration::from_secs(15);

/// Why the platform does not start, or ended.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The data directory.
    #[error(transparent)]
    DataDir(#[from] data_dir::Error),
    /// A listening socket.
    #[error(transparent)]
    Listen(#[from] listeners::Error),
    /// A program that the platform cannot do without.
    #[error("`{0}` is not on PATH: install it (on Debian and Ubuntu: apt-get install {0})")]
    Tool(&'static str),
    /// A role said no at its first start; it has told why.
    #[error("the {0} role does not start: its message is above")]
    Role(&'static str),
    /// Something of the operating system's.
    #[error("{operation}")]
    Io {
        /// What was attempted.
        operation: &'static str,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
}

/// Runs the platform until SIGTERM or SIGINT.
///
/// # Errors
/// When it cannot start, or a role refuses to.
pub(crate) fn run(config: &Config) -> Result<ExitCode, Error> {
    let io = |operation| move |source| Error::Io { operation, source };
    if config.tool("git").is_none() {
        return Err(Error::Tool("git"));
    }
    data_dir::prepare(&config.data_dir)?;
    let _lock = data_dir::lock(&config.data_dir)?;
    for role in Role::ALL {
        data_dir::lock_role(&config.data_dir, role.name(), data_dir::Held::Alone, FORMER_ROLES)?;
    }
    let listeners = Listeners::bind(&config.listen, config.ssh_given)?;
    let listen = listeners.addresses().map_err(io("ask for the addresses of the listening sockets"))?;
    listeners::record(&config.data_dir, &listen).map_err(io("write run/listen.json in the data directory"))?;
    let first = !config.data_dir.join("admin.json").exists();
    let executable = std::env::current_exe().map_err(io("find the platform's own executable"))?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(io("start the parent's event loop"))?;
    runtime.block_on(keep(config, listeners, listen, executable, first))
}

async fn keep(
    config: &Config,
    listeners: Listeners,
    listen: crate::config::Listen,
    executable: PathBuf,
    first: bool,
) -> Result<ExitCode, Error> {
    let io = |operation| move |source| Error::Io { operation, source };
    let mut terminate = signal(SignalKind::terminate()).map_err(io("listen for SIGTERM"))?;
    let mut hangup = signal(SignalKind::hangup()).map_err(io("listen for SIGHUP"))?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(io("listen for SIGINT"))?;
    let lifeline = Lifeline::new().map_err(io("make the lifeline of the roles"))?;
    let (ready, mut readies) = mpsc::channel(Role::ALL.len());
    // Logs goes last, so that it takes the others' last lines.
    let (stop_others, _) = watch::channel(supervise::Order::Run);
    let (stop_logs, _) = watch::channel(supervise::Order::Run);
    let (renew, _) = watch::channel(0_u64);
    let (mut others, mut logs) = (JoinSet::new(), JoinSet::new());
    for role in Role::ALL {
        let supervised = Supervised::new(role, &executable, &listeners, &lifeline, ready.clone());
        if role == Role::Logs {
            logs.spawn(supervised.keep(stop_logs.subscribe(), renew.subscribe()));
        } else {
            others.spawn(supervised.keep(stop_others.subscribe(), renew.subscribe()));
        }
    }
    drop(ready);

    let mut waiting = Role::ALL.len();
    let mut refused = None;
    loop {
        tokio::select! {
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
            _ = hangup.recv() => {
                tracing::info!("SIGHUP: every role is started anew from the executable");
                renew.send_modify(|count| *count += 1);
            }
            Some(role) = readies.recv() => {
                tracing::debug!(role = role.name(), "role is ready");
                waiting -= 1;
                if waiting == 0 {
                    greeting::say(config, &listen, first, &roles::missing_protections());
                }
            }
            Some(ended) = async { tokio::select! {
                Some(ended) = others.join_next() => Some(ended),
                Some(ended) = logs.join_next() => Some(ended),
                else => None,
            } } => {
                // A role's task ends by itself only when the role refuses to start at all.
                refused = Some(ended.ok().flatten().map_or("unknown", Role::name));
                break;
            }
        }
    }

    if refused.is_none() {
        tracing::info!("stopping; dynos go on");
    }
    let hurry = async {
        tokio::select! { _ = terminate.recv() => {}, _ = interrupt.recv() => {} }
        tracing::warn!("second signal: ending the roles at once");
        stop_others.send_replace(supervise::Order::Kill);
        stop_logs.send_replace(supervise::Order::Kill);
        std::future::pending::<()>().await;
    };
    // Nothing is under way yet in a platform that does not start.
    let order = if refused.is_some() { supervise::Order::Kill } else { supervise::Order::Stop };
    let stop = async {
        stop_others.send_replace(order);
        while others.join_next().await.is_some() {}
        stop_logs.send_if_modified(|now| {
            let first = *now == supervise::Order::Run;
            *now = (*now).max(order);
            first
        });
        while logs.join_next().await.is_some() {}
    };
    tokio::select! { () = hurry => {}, () = stop => {} }
    match refused {
        Some(role) => Err(Error::Role(role)),
        None => Ok(ExitCode::SUCCESS),
    }
}
