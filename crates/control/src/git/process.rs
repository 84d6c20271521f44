//! Git's own programs as child processes: a clean environment, a process group of their own, and an end that is sure.

use std::{
    path::Path,
    process::{ExitStatus, Stdio},
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

use super::{Error, Registered, Service};
use crate::hook::protocol::{PUSH, SOCKET};

/// Where programs are looked for; the platform's own environment never reaches git.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// Time for git and what it started to end after SIGTERM.
const TERM_GRACE: Duration = Duration::from_secs(5);

/// What one run of git is to do.
pub(super) struct Run<'a> {
    pub(super) data_dir: &'a Path,
    pub(super) repository: &'a Path,
    pub(super) service: Service,
    /// Only tell the references, the answer to `info/refs`.
    pub(super) advertise: bool,
    /// The client's `Git-Protocol` header.
    pub(super) protocol: Option<&'a str>,
    /// Largest pack.
    pub(super) push_bytes: u64,
}

/// A git process that is stopped, with everything it started, when this is dropped before its end.
pub(super) struct Running {
    child: Option<Child>,
    group: Option<Pid>,
    /// Gone when git is.
    registered: Option<Registered>,
}

/// `git` with an environment of our making.
pub(super) fn command(data_dir: &Path) -> Command {
    let mut command = Command::new("git");
    command
        .env_clear()
        .env("PATH", PATH)
        .env("HOME", data_dir.join("tmp"))
        .env("LANG", "C.UTF-8")
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env("GIT_TERMINAL_PROMPT", "0")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

/// Says whether git can be run, and which it is.
pub(super) async fn version() -> Result<String, Error> {
    let output = command(Path::new("/")).arg("version").output().await.map_err(Error::Git)?;
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

impl Run<'_> {
    /// Starts git; its hook proves with the registration's secret which push it belongs to.
    pub(super) fn start(&self, registered: Option<Registered>) -> Result<(Running, ChildStdin, ChildStdout), Error> {
        let mut command = command(self.data_dir);
        let hooks = self.data_dir.join("hooks");
        let mut setting = |name: &str, value: &std::ffi::OsStr| {
            let mut text = std::ffi::OsString::from(format!("{name}="));
            text.push(value);
            command.arg("-c").arg(text);
        };
        // The repository may belong to another user than the process, as under sudo; it is ours all the same.
        setting("safe.directory", self.repository.as_os_str());
        setting("core.hooksPath", hooks.as_os_str());
        for (name, value) in [
            ("receive.maxInputSize", self.push_bytes.to_string().as_str()),
            ("receive.autogc", "false"),
            ("receive.denyDeleteCurrent", "ignore"),
            ("transfer.fsckObjects", "true"),
            // Flaws of old histories that every git reads without harm.
            ("receive.fsck.zeroPaddedFilemode", "ignore"),
            ("receive.fsck.missingSpaceBeforeDate", "ignore"),
            ("receive.fsck.badTimezone", "ignore"),
            ("uploadpack.allowFilter", "true"),
        ] {
            setting(name, value.as_ref());
        }
        command.args([self.service.program(), "--stateless-rpc"]);
        if self.advertise {
            command.arg("--http-backend-info-refs");
        }
        command.arg(self.repository);
        if let Some(protocol) = self.protocol {
            command.env("GIT_PROTOCOL", protocol);
        }
        if let Some(registered) = &registered {
            command.env(PUSH, &registered.secret).env(SOCKET, self.data_dir.join("run/control.sock"));
        }
        let mut child = command.process_group(0).stdin(Stdio::piped()).spawn().map_err(Error::Git)?;
        let (Some(input), Some(output)) = (child.stdin.take(), child.stdout.take()) else {
            return Err(Error::Git(std::io::ErrorKind::BrokenPipe.into()));
        };
        if let Some(stderr) = child.stderr.take() {
            tokio::spawn(trace(self.service, stderr));
        }
        let group = child.id().and_then(|id| Pid::from_raw(id.cast_signed()));
        Ok((Running { child: Some(child), group, registered }, input, output))
    }
}

impl Running {
    /// Waits for the end. Cancelling keeps the process under guard.
    pub(super) async fn wait(&mut self) -> std::io::Result<ExitStatus> {
        let Some(child) = &mut self.child else { return Err(std::io::ErrorKind::NotFound.into()) };
        let status = child.wait().await?;
        self.child = None;
        self.registered = None;
        Ok(status)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let (Some(mut child), Some(group)) = (self.child.take(), self.group) else { return };
        // Not reaped yet, so the group's number is still its own.
        let _ = kill_process_group(group, Signal::TERM);
        let registered = self.registered.take();
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        runtime.spawn(async move {
            if tokio::time::timeout(TERM_GRACE, child.wait()).await.is_err() {
                let _ = kill_process_group(group, Signal::KILL);
                let _ = child.wait().await;
            }
            drop(registered);
        });
    }
}

/// Git's complaints go to the platform's own log.
async fn trace(service: Service, stderr: tokio::process::ChildStderr) {
    use tokio::io::{AsyncBufReadExt as _, BufReader};
    let mut lines = BufReader::new(stderr).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        tracing::debug!(program = service.program(), %line, "git says");
    }
}
