//! Keeps one role running: starts its process, waits for its end, starts it again, at once at first and then ever later.
//!
//! A role inherits its listening sockets and two pipes by number: the lifeline, whose end says that the parent is gone,
//! and one on which it says that it is ready.

use std::{
    io,
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd},
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio},
    time::{Duration, Instant},
};

use rustix::{
    io::FdFlags,
    pipe::{PipeFlags, pipe_with},
    process::{Pid, Signal, kill_process},
};
use tokio::{
    io::AsyncReadExt,
    net::unix::pipe,
    process::{Child, Command},
    sync::{mpsc, watch},
    task::JoinSet,
};

use super::listeners::Listeners;
use crate::roles::Role;

/// Pause before the second restart in a row; it doubles with every further one.
const BACKOFF: Duration = Duration::from_millis(200);
/// Longest pause between restarts.
const BACKOFF_MAX: Duration = Duration::from_secs(10);
/// A role that lived this long starts with a clean slate.
const STEADY: Duration = Duration::from_secs(30);
/// Time between SIGTERM and SIGKILL of a role: the router's longest request (30 s) and a little.
const GRACE: Duration = Duration::from_secs(35);

/// What the roles should do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Order {
    /// Run, and be started again.
    Run,
    /// End what is under way and go.
    Stop,
    /// Go at once.
    Kill,
}

/// Longest time that a successor may take to be ready before the former process is kept.
const SUCCESSION: Duration = Duration::from_secs(30);

/// What a role's keeper wakes up for.
enum Happened {
    /// It is to be replaced by what the executable's file is now.
    Renewed,
    Ended(io::Result<ExitStatus>),
    /// The readiness pipe was written to, or closed.
    Told(bool),
    Ordered,
}

/// The pipe that tells roles that the parent is gone: only the parent holds its writing end.
#[derive(Debug)]
pub(super) struct Lifeline {
    reader: OwnedFd,
    _writer: OwnedFd,
}

impl Lifeline {
    /// Makes it.
    pub(super) fn new() -> io::Result<Self> {
        let (reader, writer) = pipe_with(PipeFlags::CLOEXEC)?;
        Ok(Self { reader, _writer: writer })
    }
}

/// One role and what it needs to be started.
pub(super) struct Supervised {
    role: Role,
    executable: PathBuf,
    lifeline: RawFd,
    listeners: Vec<(&'static str, RawFd)>,
    ready: mpsc::Sender<Role>,
}

impl Supervised {
    /// The descriptors stay open as long as `listeners` and `lifeline` live, which is as long as the parent does.
    pub(super) fn new(
        role: Role,
        executable: &Path,
        listeners: &Listeners,
        lifeline: &Lifeline,
        ready: mpsc::Sender<Role>,
    ) -> Self {
        let listeners = match role {
            Role::Control => {
                let ssh = listeners.ssh.as_ref().map(|listener| ("ssh", listener.as_raw_fd()));
                let always = [("api", listeners.api.as_raw_fd()), ("tls", listeners.tls.as_raw_fd())];
                always.into_iter().chain(ssh).collect()
            }
            Role::Router => {
                let plain = [("plain", &listeners.router), ("tls", &listeners.router_tls)];
                let metrics = listeners.router_metrics.as_ref().map(|metrics| ("metrics", metrics));
                plain.into_iter().chain(metrics).map(|(name, listener)| (name, listener.as_raw_fd())).collect()
            }
            Role::Logs => Vec::new(),
        };
        let lifeline = lifeline.reader.as_raw_fd();
        Self { role, executable: executable.to_owned(), lifeline, listeners, ready }
    }

    fn spawn(&self) -> io::Result<(Child, pipe::Receiver)> {
        let (reader, writer) = pipe_with(PipeFlags::CLOEXEC)?;
        let mut command = Command::new(&self.executable);
        command.arg("role").arg(self.role.name());
        command.arg(format!("lifeline={}", self.lifeline)).arg(format!("ready={}", writer.as_raw_fd()));
        command.args(self.listeners.iter().map(|(name, fd)| format!("{name}={fd}")));
        command.stdin(Stdio::null());
        // An own process group: Ctrl-C in a terminal reaches the parent alone, which then stops the roles in order.
        command.process_group(0);
        // Many arenas cost memory and two workers do not need them.
        command.env("MALLOC_ARENA_MAX", "2");
        // Large buffers of a push or a build go back to the kernel when they are done with (bench/idle).
        command.env("MALLOC_TRIM_THRESHOLD_", "65536").env("MALLOC_MMAP_THRESHOLD_", "65536");
        let mut inherited = vec![self.lifeline, writer.as_fd().as_raw_fd()];
        inherited.extend(self.listeners.iter().map(|(_, fd)| *fd));
        let keep_open = move || {
            for fd in &inherited {
                // SAFETY: the parent keeps these descriptors open across the fork (see `new`; the writer lives until
                // after `spawn`), and the child has copies of all of them.
                let fd = unsafe { BorrowedFd::borrow_raw(*fd) };
                rustix::io::fcntl_setfd(fd, FdFlags::empty())?;
            }
            Ok(())
        };
        // SAFETY: `keep_open` allocates nothing, takes no lock and makes one system call a descriptor.
        unsafe { command.pre_exec(keep_open) };
        let child = command.spawn()?;
        drop(writer);
        rustix::io::ioctl_fionbio(&reader, true)?;
        Ok((child, pipe::Receiver::from_owned_fd(reader)?))
    }

    /// Starts another process of the role beside the one that runs and waits until it serves.
    async fn successor(&self, order: &mut watch::Receiver<Order>) -> Option<Child> {
        let (mut child, mut readiness) = self
            .spawn()
            .inspect_err(|error| tracing::error!(role = self.role.name(), %error, "cannot start the role"))
            .ok()?;
        let mut byte = [0];
        let ready = tokio::select! {
            read = readiness.read(&mut byte) => matches!(read, Ok(1)),
            () = tokio::time::sleep(SUCCESSION) => false,
            _ = order.wait_for(|order| *order > Order::Run) => false,
        };
        if ready {
            return Some(child);
        }
        // It has said why it does not serve.
        _ = child.kill().await;
        None
    }

    /// Keeps the role running until told otherwise. Ends early, and names the role, when it exits by itself before it
    /// was ever ready: it has said why, and starting it again would not help.
    pub(super) async fn keep(
        self,
        mut order: watch::Receiver<Order>,
        mut renewal: watch::Receiver<u64>,
    ) -> Option<Role> {
        let name = self.role.name();
        // Processes that were replaced and finish what they are at.
        let mut retiring = JoinSet::new();
        let mut restarts = 0;
        let mut was_ready = false;
        loop {
            let started = Instant::now();
            match self.spawn() {
                Err(error) => tracing::error!(role = name, %error, "cannot start the role"),
                Ok((mut child, mut readiness)) => {
                    let (mut told, mut renewed) = (false, false);
                    let status = loop {
                        let mut byte = [0];
                        let happened = tokio::select! {
                            status = child.wait() => Happened::Ended(status),
                            read = readiness.read(&mut byte), if !told => Happened::Told(matches!(read, Ok(1))),
                            _ = order.wait_for(|order| *order > Order::Run) => Happened::Ordered,
                            // The sender lives as long as the parent.
                            Ok(()) = renewal.changed(), if was_ready => Happened::Renewed,
                        };
                        match happened {
                            Happened::Ended(status) => break status,
                            Happened::Ordered => {
                                stop(&mut child, &mut order).await;
                                while retiring.join_next().await.is_some() {}
                                return None;
                            }
                            Happened::Renewed if self.role.overlaps() => match self.successor(&mut order).await {
                                Some(successor) => {
                                    tracing::info!(
                                        role = name,
                                        "a new process has taken over; the former one finishes"
                                    );
                                    let (mut former, mut order) =
                                        (std::mem::replace(&mut child, successor), order.clone());
                                    retiring.spawn(async move { stop(&mut former, &mut order).await });
                                }
                                None => {
                                    tracing::error!(role = name, "the new process is not ready; the former one goes on")
                                }
                            },
                            Happened::Renewed => {
                                tracing::info!(role = name, "starting the role anew");
                                stop(&mut child, &mut order).await;
                                renewed = true;
                                break child.wait().await;
                            }
                            Happened::Told(ready) => {
                                told = true;
                                if ready && !std::mem::replace(&mut was_ready, true) {
                                    // The parent may be stopping already and not listen.
                                    _ = self.ready.send(self.role).await;
                                } else if ready {
                                    tracing::info!(role = name, "role is back");
                                }
                            }
                        }
                    };
                    if renewed {
                        restarts = 0;
                        continue;
                    }
                    if !was_ready && status.as_ref().is_ok_and(|status| status.code().is_some()) {
                        return Some(self.role);
                    }
                    tracing::warn!(role = name, status = %describe(status), "role ended; starting it again");
                }
            }
            restarts = if started.elapsed() > STEADY { 0 } else { restarts + 1 };
            // The first restart is immediate.
            let pause = match restarts {
                0 | 1 => Duration::ZERO,
                n => BACKOFF_MAX.min(BACKOFF * 2_u32.pow((n - 2).min(16))),
            };
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                _ = order.wait_for(|order| *order > Order::Run) => return None,
            }
        }
    }
}

async fn stop(child: &mut Child, order: &mut watch::Receiver<Order>) {
    let pid = child.id().and_then(|pid| Pid::from_raw(pid.cast_signed()));
    if let Some(pid) = pid {
        // It may have gone by itself meanwhile.
        _ = kill_process(pid, Signal::TERM);
    }
    tokio::select! {
        _ = child.wait() => return,
        () = tokio::time::sleep(GRACE) => tracing::warn!("a role outlived its grace; killing it"),
        _ = order.wait_for(|order| *order == Order::Kill) => {}
    }
    _ = child.kill().await;
}

fn describe(status: io::Result<ExitStatus>) -> String {
    match status {
        Ok(status) => status.to_string(),
        Err(error) => error.to_string(),
    }
}
