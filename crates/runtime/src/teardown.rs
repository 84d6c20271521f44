//! Takes everything of a data directory off the machine: dynos, control groups, bridge and packet filter.
//!
//! It is the opposite of a start and runs in the place of a platform, never beside one: an engine would start again what
//! is stopped here. What lasts (images, logs, scratch of nobody) stays in the data directory.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use dozen_api::{
    clock::{self, Micros},
    frame,
    shim::{Command, Event, Hello, Record},
    socket,
};
use dozen_domain::{ids::DynoId, settings::Stop};
use rustix::process::{Pid, Signal, kill_process};

use crate::{
    cgroup,
    engine::{self, Host},
    shim::{RECORD, SOCKET},
};

/// Time for a shim to go once its dyno is gone: the logs role takes the last output meanwhile.
const LAST_WORDS: Duration = Duration::from_secs(5);
/// Time beyond the grace of a dyno for the kernel to end what was killed.
const DEATH: Duration = Duration::from_secs(10);

/// Stops every dyno as it wants to be stopped and removes what they used; returns which there were and when each was
/// gone. A dyno that does not go is killed.
pub async fn tear_down(host: Arc<Host>) -> Vec<(DynoId, Micros)> {
    let usual = Stop::usual(&host.options.limits);
    let mut stopping = Vec::new();
    for entry in fs::read_dir(host.dynos()).into_iter().flatten().flatten() {
        let directory = entry.path();
        let Some(dyno) = id(&directory) else { continue };
        let host = host.clone();
        stopping.push(tokio::spawn(async move {
            let how = stop_of(&directory, usual);
            let stopped = tokio::time::timeout(how.grace + DEATH + LAST_WORDS, stop(&directory, how)).await;
            let ended_at = match stopped {
                Ok(Ok(at)) => at,
                _ => {
                    tracing::warn!(%dyno, "the dyno did not stop when told; killing it");
                    clock::now()
                }
            };
            kill_shim(&directory);
            _ = tokio::task::spawn_blocking(move || host.clean(dyno)).await;
            (dyno, ended_at)
        }));
    }
    let mut ends = Vec::new();
    for stopped in stopping {
        // A task of the above that panicked has left its dyno; the others go on.
        ends.extend(stopped.await);
    }
    if let Err(error) = host.network.teardown().await {
        tracing::warn!(%error, "the network of the dynos is not removed wholly");
    }
    if let Some(parent) = &host.cgroup {
        cgroup::remove_parent(parent);
    }
    ends
}

fn id(path: &Path) -> Option<DynoId> {
    path.file_name()?.to_str()?.parse().ok()
}

/// How the dyno in this directory is stopped.
fn stop_of(directory: &Path, usual: Stop) -> Stop {
    let record = fs::read(directory.join(RECORD)).ok().and_then(|bytes| serde_json::from_slice::<Record>(&bytes).ok());
    record.map_or(usual, |record| engine::stop(&record, usual))
}

/// Tells a shim to end its dyno and to go; answers when the dyno was gone.
async fn stop(directory: &Path, how: Stop) -> std::io::Result<Micros> {
    let path: PathBuf = directory.join(SOCKET);
    let mut shim = socket::connect(&path).await?;
    frame::write(&mut shim, &Hello::Control).await?;
    let grace_ms = u64::try_from(how.grace.as_millis()).unwrap_or(u64::MAX);
    frame::write(&mut shim, &Command::Stop { signal: how.signal.number(), grace_ms }).await?;
    let mut ended_at = None;
    while ended_at.is_none()
        && let Some(event) = frame::read::<_, Event>(&mut shim).await?
    {
        if let Event::Exited { at, .. } | Event::Failed { at, .. } = event {
            ended_at = Some(at);
        }
    }
    frame::write(&mut shim, &Command::Forget).await?;
    // It closes the connection when it goes.
    let gone = async { while let Ok(Some(_)) = frame::read_bytes(&mut shim).await {} };
    _ = tokio::time::timeout(LAST_WORDS, gone).await;
    Ok(ended_at.unwrap_or_else(clock::now))
}

/// Ends a shim that is still there; its dyno's processes end with it.
fn kill_shim(directory: &Path) {
    let Ok(shim) = socket::connect_blocking(&directory.join(SOCKET)) else { return };
    if let Ok(peer) = rustix::net::sockopt::socket_peercred(&shim) {
        let pid: Pid = peer.pid;
        _ = kill_process(pid, Signal::KILL);
    }
}
