//! A logs role to test: in this process, or in one of its own that can be killed.

use std::{
    path::{Path, PathBuf},
    pin::Pin,
    process::{Child, Command, Stdio},
    time::Duration,
};

use dozen_api::{
    logs::{Line, Place, Sender, Sent, Session, Source, open_session},
    socket,
};
use dozen_domain::{ids::AppId, limits::Limits, reach::Reach};
use dozen_logs::Options;
use futures_util::{Stream, StreamExt};
use tempfile::TempDir;
use tokio::{sync::oneshot, task::JoinHandle, time::timeout};

pub(crate) const LONG: Duration = Duration::from_secs(60);

/// Options for a data directory; drains may lead anywhere. The lines of most tests are of 2024, so they do not expire
/// where that is not what a test is about.
pub(crate) fn options(directory: &Path, mut limits: Limits) -> Options {
    if limits.log_history_seconds == Limits::default().log_history_seconds {
        limits.log_history_seconds = u64::MAX;
    }
    // Likewise, a busy machine may be quiet in the middle of a line for longer than people would wait.
    if limits.log_partial_ms == Limits::default().log_partial_ms {
        limits.log_partial_ms = 3_600_000;
    }
    Options {
        run_dir: directory.join("run"),
        logs_dir: directory.join("logs"),
        keys_dir: directory.join("keys"),
        reach: Reach::everything(),
        trust: Some(directory.join("trust.pem")),
        limits,
    }
}

type Running = JoinHandle<Result<(), dozen_logs::Error>>;

/// A data directory, and perhaps a role that runs on it.
pub(crate) struct Role {
    pub(crate) directory: TempDir,
    pub(crate) limits: Limits,
    running: Option<(oneshot::Sender<()>, Running)>,
}

impl Role {
    pub(crate) fn stopped(limits: Limits) -> Self {
        let directory = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(directory.path().join("run/dynos")).unwrap();
        Self { directory, limits, running: None }
    }

    pub(crate) async fn start() -> Self {
        Self::start_with(Limits::default()).await
    }

    pub(crate) async fn start_with(limits: Limits) -> Self {
        let mut role = Self::stopped(limits);
        role.run().await;
        role
    }

    pub(crate) fn options(&self) -> Options {
        let directory = self.directory.path();
        options(directory, self.limits.clone())
    }

    /// Starts the role and waits until it answers.
    pub(crate) async fn run(&mut self) {
        let (stop, stopped) = oneshot::channel::<()>();
        let options = self.options();
        let task = tokio::spawn(dozen_logs::run(options, async {
            stopped.await.ok();
        }));
        self.running = Some((stop, task));
        timeout(LONG, async {
            while socket::connect(&self.socket()).await.is_err() {
                tokio::task::yield_now().await;
            }
        })
        .await
        .unwrap();
    }

    pub(crate) async fn stop(&mut self) {
        let (stop, task) = self.running.take().unwrap();
        stop.send(()).unwrap();
        task.await.unwrap().unwrap();
    }

    pub(crate) async fn restart(&mut self) {
        self.stop().await;
        self.run().await;
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.directory.path().join("run/logs.sock")
    }

    pub(crate) fn dynos(&self) -> PathBuf {
        self.directory.path().join("run/dynos")
    }

    pub(crate) fn sender(&self) -> Sender {
        Sender::connect(self.socket(), "test", 1_000_000)
    }

    pub(crate) fn session(&self, session: Session) -> Reading {
        Reading { stream: Box::pin(open_session(self.socket(), session)) }
    }

    /// All of an app's history.
    pub(crate) async fn history(&self, app: AppId) -> Vec<String> {
        self.session(all(app)).rest().await
    }

    /// Waits until an app's history ends with this text.
    pub(crate) async fn history_up_to(&self, app: AppId, end: &str) -> Vec<String> {
        let mut tail = self.session(Session { tail: true, ..all(app) });
        tail.until(end).await;
        self.history(app).await
    }
}

pub(crate) fn all(app: AppId) -> Session {
    Session { app, source: None, process: None, lines: u64::MAX, tail: false, after: None }
}

pub(crate) fn line(app: AppId, source: Source, process: &str, text: &str) -> Line {
    Line { app, at: 1_704_067_200_000_000, source, process: process.to_owned(), text: text.to_owned() }
}

/// The part of a printed line after its time.
pub(crate) fn untimed(line: &str) -> &str {
    line.split_once(' ').map_or(line, |(_, rest)| rest)
}

/// The text of a printed line.
pub(crate) fn text(line: &str) -> &str {
    line.split_once("]: ").map_or(line, |(_, text)| text)
}

/// A session being read.
pub(crate) struct Reading {
    stream: Pin<Box<dyn Stream<Item = std::io::Result<Sent>>>>,
}

impl Reading {
    pub(crate) async fn next(&mut self) -> Option<Sent> {
        timeout(LONG, self.stream.next()).await.unwrap().map(Result::unwrap)
    }

    /// The next line with its place; history's end is passed over.
    pub(crate) async fn line(&mut self) -> (Place, String) {
        loop {
            match self.next().await.unwrap() {
                Sent::Line { place, text } => return (place, text),
                Sent::Caught { .. } => {}
            }
        }
    }

    /// The lines up to and with the one of this text.
    pub(crate) async fn until(&mut self, end: &str) -> Vec<(Place, String)> {
        let mut lines = Vec::new();
        loop {
            let line = self.line().await;
            let last = text(&line.1) == end;
            lines.push(line);
            if last {
                return lines;
            }
        }
    }

    /// Waits for history's end; gives the lines before it.
    pub(crate) async fn caught(&mut self) -> Vec<String> {
        let mut lines = Vec::new();
        while let Sent::Line { text, .. } = self.next().await.unwrap() {
            lines.push(text);
        }
        lines
    }

    /// The lines until the stream ends.
    pub(crate) async fn rest(mut self) -> Vec<String> {
        let mut lines = Vec::new();
        while let Some(sent) = self.next().await {
            if let Sent::Line { text, .. } = sent {
                lines.push(text);
            }
        }
        lines
    }
}

const DIRECTORY: &str = "DOZEN_LOGS_TEST_DIRECTORY";
const LIMITS: &str = "DOZEN_LOGS_TEST_LIMITS";

/// A role in a process of its own; it ends with the test.
pub(crate) struct Process {
    pub(crate) child: Child,
}

impl Process {
    pub(crate) fn start(role: &Role) -> Self {
        let child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "role::role_process", "--nocapture"])
            .env(DIRECTORY, role.directory.path())
            .env(LIMITS, serde_json::to_string(&role.limits).unwrap())
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        Self { child }
    }

    /// SIGKILL.
    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// Not a test: what [`Process`] runs. It ends when the test that started it does.
#[test]
fn role_process() {
    let Some(directory) = std::env::var_os(DIRECTORY).map(PathBuf::from) else { return };
    let limits = serde_json::from_str(&std::env::var(LIMITS).unwrap()).unwrap();
    let options = options(&directory, limits);
    let (orphaned, end) = oneshot::channel::<()>();
    std::thread::spawn(move || {
        std::io::copy(&mut std::io::stdin(), &mut std::io::sink()).ok();
        drop(orphaned);
    });
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let run = dozen_logs::run(options, async {
        end.await.ok();
    });
    runtime.block_on(run).unwrap();
}
