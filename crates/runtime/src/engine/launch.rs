//! Starts a shim and hears from it whether its dyno runs.

use std::{fs, os::unix::fs::DirBuilderExt, process::Stdio, sync::Arc, time::Duration};

use dozen_api::{
    frame,
    shim::{Event, Sandbox, Spec},
};
use dozen_domain::size::Quota;
use tokio::process::Command;

use super::host::Host;

/// Making a container takes milliseconds; a shim that has not answered by then hangs.
const ANSWER: Duration = Duration::from_secs(30);

/// Why a dyno was not started.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("{operation}")]
    Io {
        operation: &'static str,
        #[source]
        source: std::io::Error,
    },
    #[error("the shim did not answer within {} seconds", ANSWER.as_secs())]
    Timeout,
    #[error("the shim ended without an answer: {0}")]
    Silent(String),
    #[error("the container could not be started: {0}")]
    Failed(String),
}

fn failed(operation: &'static str) -> impl FnOnce(std::io::Error) -> Error {
    move |source| Error::Io { operation, source }
}

/// A sandbox with nothing in it yet: user, limits and place of the dyno.
pub(crate) fn sandbox(host: &Host, spec: &dozen_api::shim::Record, uid: Option<u32>, quota: Quota) -> Sandbox {
    Sandbox {
        host_uid: uid,
        layers: Vec::new(),
        scratch: host.scratch(spec.dyno),
        system: None,
        disk: None,
        binds: Vec::new(),
        workdir: "/app".into(),
        hostname: spec.dyno.to_string(),
        memory_bytes: quota.memory,
        memory_bound_bytes: quota.memory,
        pids: quota.pids,
        cpu_shares: quota.cpu_shares,
        open_files: quota.open_files,
        cgroup: host.cgroup(spec.dyno),
        network: dozen_api::shim::Network::None,
    }
}

/// Starts a shim; returns its first event, [`Event::Started`]. When that fails nothing of the dyno is left.
pub(crate) async fn start(host: &Arc<Host>, spec: &Spec) -> Result<Event, Error> {
    let result = attempt(host, spec).await;
    if result.is_err() {
        host.clean_later(spec.record.dyno);
    }
    result
}

async fn attempt(host: &Host, spec: &Spec) -> Result<Event, Error> {
    let directory = host.directory(spec.record.dyno);
    let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(&directory);
    made.map_err(failed("make the dyno's directory"))?;
    let log = directory.join("shim.log");
    let stderr = fs::File::create(&log).map_err(failed("make the shim's log"))?;
    // The shim lives on when this process is gone, so it must hold none of its pipes, and has no use for its
    // environment, which may hold secrets of the platform.
    let mut child = Command::new(&host.options.exe)
        .arg("shim")
        .arg(&directory)
        .env_clear()
        .current_dir("/")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(stderr)
        .spawn()
        .map_err(failed("start the shim"))?;
    let (stdin, stdout) = (child.stdin.take(), child.stdout.take());
    let (Some(mut stdin), Some(mut stdout)) = (stdin, stdout) else {
        return Err(Error::Silent("it has no pipes".to_owned()));
    };
    let exchange = async {
        frame::write(&mut stdin, spec).await?;
        drop(stdin);
        frame::read::<_, Event>(&mut stdout).await
    };
    match tokio::time::timeout(ANSWER, exchange).await {
        Ok(Ok(Some(Event::Failed { error, .. }))) => Err(Error::Failed(error)),
        Ok(Ok(Some(event))) => Ok(event),
        Ok(Ok(None) | Err(_)) => {
            let said = fs::read_to_string(&log).unwrap_or_default();
            Err(Error::Silent(said.lines().last().unwrap_or("it said nothing").to_owned()))
        }
        Err(_) => {
            let _ = child.kill().await;
            Err(Error::Timeout)
        }
    }
}
