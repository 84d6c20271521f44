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
    frame,
    shim::{Command, Event, Hello},
    socket,
};
use dozen_domain::ids::DynoId;
use rustix::process::{Pid, Signal, kill_process};

use crate::{cgroup, engine::Host, shim::SOCKET};

/// Time for a shim to go once its dyno is gone: the logs role takes the last output meanwhile.
const LAST_WORDS: Duration = Duration::from_secs(5);
/// Time beyond the grace of a dyno for the kernel to end what was killed.
const DEATH: Duration = Duration::from_secs(10);

/// Stops every dyno with the usual grace and removes what they used; returns how many there were. A dyno that does not
/// go is killed.
pub async fn tear_down(host: Arc<Host>) -> usize {
    let grace = Duration::from_secs(host.options.limits.stop_seconds);
    let mut stopping = Vec::new();
    for entry in fs::read_dir(host.dynos()).into_iter().flatten().flatten() {
        let directory = entry.path();
        let Some(dyno) = id(&directory) else { continue };
        let host = host.clone();
        stopping.push(tokio::spawn(async move {
            let stopped = tokio::time::timeout(grace + DEATH + LAST_WORDS, stop(&directory, grace)).await;
            if !matches!(stopped, Ok(Ok(()))) {
                tracing::warn!(%dyno, "the dyno did not stop when told; killing it");
            }
            kill_shim(&directory);
            tokio::task::spawn_blocking(move || host.clean(dyno)).await
        }));
    }
    let count = stopping.len();
    for stopped in stopping {
        // A task of the above that panicked has left its dyno; the others go on.
        _ = stopped.await;
    }
    if let Err(error) = host.network.teardown().await {
        tracing::warn!(%error, "the network of the dynos is not removed wholly");
    }
    if let Some(parent) = &host.cgroup {
        cgroup::remove_parent(parent);
    }
    count
}

fn id(path: &Path) -> Option<DynoId> {
    path.file_name()?.to_str()?.parse().ok()
}

/// Tells a shim to end its dyno and to go.
async fn stop(directory: &Path, grace: Duration) -> std::io::Result<()> {
    let path: PathBuf = directory.join(SOCKET);
    let mut shim = socket::connect(&path).await?;
    frame::write(&mut shim, &Hello::Control).await?;
    let grace_ms = u64::try_from(grace.as_millis()).unwrap_or(u64::MAX);
    frame::write(&mut shim, &Command::Stop { signal: 15, grace_ms }).await?;
    while let Some(event) = frame::read::<_, Event>(&mut shim).await? {
        if matches!(event, Event::Exited { .. } | Event::Failed { .. }) {
            break;
        }
    }
    frame::write(&mut shim, &Command::Forget).await?;
    // It closes the connection when it goes.
    let gone = async { while let Ok(Some(_)) = frame::read_bytes(&mut shim).await {} };
    _ = tokio::time::timeout(LAST_WORDS, gone).await;
    Ok(())
}

/// Ends a shim that is still there; its dyno's processes end with it.
fn kill_shim(directory: &Path) {
    let Ok(shim) = socket::connect_blocking(&directory.join(SOCKET)) else { return };
    if let Ok(peer) = rustix::net::sockopt::socket_peercred(&shim) {
        let pid: Pid = peer.pid;
        _ = kill_process(pid, Signal::KILL);
    }
}
