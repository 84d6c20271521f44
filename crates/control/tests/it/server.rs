//! A control role of a test's own: real sockets and a real database in a temporary directory, an engine and builds that
//! do what the test says.

use std::{
    net::{SocketAddr, TcpListener},
    path::{Path, PathBuf},
    process::{Output, Stdio},
    sync::{Arc, Mutex},
    time::Duration,
};

use async_trait::async_trait;
use dozen_api::{
    build::{self, Builds, Built, Spec, Submodule},
    clock::SystemClock,
    engine::memory::Memory as Engine,
    logs::Sender,
};
use dozen_control::{
    Context, listen, ops,
    reconcile::Nudge,
    state::{Listeners, Settings},
    store::{Window, accounts::Account, apps::App, builds::Build, releases::Release},
};
use dozen_domain::{
    config::Secret,
    ids::AppId,
    image::{BuildResult, Digest},
    limits::Limits,
};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::TcpStream,
    process::Command,
    sync::{oneshot, watch},
    task::JoinHandle,
};

pub(crate) const TOKEN: &str = "0d1e2f30-aaaa-4bbb-8ccc-000000000001";

/// Longest wait for anything.
const PATIENCE: Duration = Duration::from_secs(60);

/// Builds as a test wants them.
pub(crate) struct Scripted {
    /// Builds wait while this is set.
    pub(crate) hold: watch::Sender<bool>,
    /// Builds that have begun and not ended.
    pub(crate) running: watch::Sender<u32>,
    /// They fail.
    pub(crate) fail: watch::Sender<bool>,
    /// Process types of what they make.
    pub(crate) types: Mutex<Vec<(&'static str, &'static str)>>,
    /// The sources' file names and the submodules, of each build.
    pub(crate) seen: Mutex<Vec<(Vec<String>, Vec<Submodule>)>>,
    /// What was to be kept, each time.
    pub(crate) kept: Mutex<Vec<(AppId, Vec<Digest>)>>,
    /// The built-in buildpack that detection finds.
    pub(crate) detected: Mutex<Option<String>>,
}

struct Counted<'a>(&'a watch::Sender<u32>);

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.send_modify(|running| *running -= 1);
    }
}

#[async_trait]
impl Builds for Scripted {
    async fn build(&self, spec: Spec, output: &mut (dyn AsyncWrite + Send + Unpin)) -> Result<Built, build::Error> {
        self.running.send_modify(|running| *running += 1);
        let _counted = Counted(&self.running);
        let bytes = std::fs::read(&spec.source).expect("a source");
        let names = names(&bytes);
        let number = {
            let mut seen = self.seen.lock().expect("not poisoned");
            seen.push((names, spec.submodules));
            seen.len()
        };
        output.write_all("-----> Scripted app detected\n".as_bytes()).await.expect("an output");
        let _ = self.hold.subscribe().wait_for(|hold| !hold).await;
        if *self.fail.borrow() {
            output.write_all(b" !     Push rejected, failed to compile Scripted app.\n").await.expect("an output");
            return Err(build::Error::Failed);
        }
        let types = self.types.lock().expect("not poisoned").clone();
        Ok(Built {
            image: Digest(format!("sha256:{number:064x}")),
            result: BuildResult {
                language: "Scripted".to_owned(),
                detected: self.detected.lock().expect("not poisoned").clone(),
                process_types: types
                    .iter()
                    .map(|(name, run)| (name.parse().expect("a type"), (*run).to_owned()))
                    .collect(),
                launch_env: [("FROM_IMAGE".to_owned(), "1".to_owned())].into(),
                config_defaults: Default::default(),
                cron: None,
                health_check: None,
                layers: Vec::new(),
            },
            size: 10_905_190,
            layers: Vec::new(),
            foreign_ms: 0,
        })
    }

    async fn import(&self, _: AppId, _: &Path, _: BuildResult) -> Result<Built, build::Error> {
        Err(build::Error::Failed)
    }

    async fn export(&self, _: AppId, _: &Digest, _: &Path) -> Result<(), build::Error> {
        Err(build::Error::Failed)
    }

    async fn purge_cache(&self, _: AppId) -> Result<(), build::Error> {
        Ok(())
    }

    async fn retain(&self, app: AppId, keep: &[Digest]) -> Result<(), build::Error> {
        self.kept.lock().expect("not poisoned").push((app, keep.to_vec()));
        Ok(())
    }
}

fn names(bytes: &[u8]) -> Vec<String> {
    let plain = match flate2::read::GzDecoder::new(bytes) {
        mut gzip if bytes.starts_with(&[0x1f, 0x8b]) => {
            let mut plain = Vec::new();
            std::io::Read::read_to_end(&mut gzip, &mut plain).expect("gzip");
            plain
        }
        _ => bytes.to_vec(),
    };
    let mut archive = tar::Archive::new(plain.as_slice());
    let entries = archive.entries().expect("a tar");
    entries.map(|entry| entry.expect("an entry").path().expect("a path").display().to_string()).collect()
}

/// A running control role.
pub(crate) struct Server {
    pub(crate) context: Context,
    pub(crate) engine: Arc<Engine>,
    pub(crate) builds: Arc<Scripted>,
    pub(crate) api: SocketAddr,
    pub(crate) tls: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    running: Option<JoinHandle<()>>,
    /// Kept to the end.
    pub(crate) directory: Arc<TempDir>,
}

impl Server {
    pub(crate) async fn start() -> Self {
        Self::with(|_| {}).await
    }

    pub(crate) async fn with(change: impl FnOnce(&mut Limits)) -> Self {
        let mut limits = Limits::default();
        change(&mut limits);
        let directory = Arc::new(tempfile::tempdir().expect("a directory"));
        Self::on(directory, limits, Arc::new(Engine::new())).await
    }

    /// Starts on a data directory and an engine, as after a restart of the role.
    pub(crate) async fn on(directory: Arc<TempDir>, limits: Limits, engine: Arc<Engine>) -> Self {
        std::fs::create_dir_all(directory.path().join("run")).expect("a directory");
        let builds = Arc::new(Scripted {
            hold: watch::Sender::new(false),
            running: watch::Sender::new(0),
            fail: watch::Sender::new(false),
            types: Mutex::new(vec![("web", "./serve")]),
            seen: Mutex::default(),
            kept: Mutex::default(),
            detected: Mutex::default(),
        });
        let bind = || TcpListener::bind("127.0.0.1:0").expect("a port");
        let (api_listener, tls_listener) = (bind(), bind());
        let api = api_listener.local_addr().expect("an address");
        let tls = tls_listener.local_addr().expect("an address");
        let ssh_listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let settings = Settings {
            ssh: ssh_listener.local_addr().ok(),
            api_url: format!("http://{api}"),
            tls_url: format!("https://{tls}"),
            admin_email: Some("admin@example.com".to_owned()),
            admin_api_key: Some(Secret::new(TOKEN)),
            limits,
            hook: vec![hook().display().to_string()],
            ..Settings::of_directory(directory.path().to_owned())
        };
        let (logs, _) = Sender::memory();
        let (nudge, nudges) = Nudge::channel();
        let (engine_seam, builds_seam) = (engine.clone(), builds.clone());
        let context = Context::open(settings, engine_seam, builds_seam, logs, Arc::new(SystemClock), nudge);
        let context = context.await.expect("a context");
        let (stop, stopped) = oneshot::channel();
        let listeners = Listeners { api: api_listener, tls: tls_listener, ssh: Some(ssh_listener) };
        let running = tokio::spawn({
            let context = context.clone();
            async move {
                let stopped = async move { drop(stopped.await) };
                listen::run(context, listeners, nudges, stopped).await.expect("a role that runs");
            }
        });
        Self { context, engine, builds, api, tls, stop: Some(stop), running: Some(running), directory }
    }

    /// Stops the role and waits for its end.
    pub(crate) async fn stop(&mut self) {
        drop(self.stop.take());
        if let Some(running) = self.running.take() {
            running.await.expect("a clean end");
        }
    }

    /// Ends the role without a word, as `kill -9` does; what it started and did not wait for goes on to its end.
    pub(crate) async fn kill(&mut self) {
        if let Some(running) = self.running.take() {
            running.abort();
            let _ = running.await;
        }
    }

    pub(crate) async fn admin(&self) -> Account {
        let token = dozen_control::auth::token::Token::presented(TOKEN);
        ops::accounts::by_token(&self.context, &token).await.expect("the admin").1
    }

    pub(crate) async fn app(&self, name: &str) -> App {
        let new = ops::apps::New { name: Some(name.to_owned()), ..ops::apps::New::default() };
        ops::apps::create(&self.context, &self.admin().await, new).await.expect("an app")
    }

    pub(crate) async fn releases(&self, app: &App) -> Vec<Release> {
        ops::releases::list(&self.context, app.id, &Window::whole("version")).await.expect("releases")
    }

    pub(crate) async fn builds_of(&self, app: &App) -> Vec<Build> {
        ops::builds::list(&self.context, app.id, &Window::whole("started_at")).await.expect("builds")
    }

    pub(crate) fn data(&self, path: &str) -> PathBuf {
        self.directory.path().join(path)
    }

    /// A repository with one commit and this server's app as the remote `dozen`.
    pub(crate) async fn repository(&self, app: &str) -> Repository {
        let repository = Repository::init().await;
        repository.git(&["remote", "add", "dozen", &self.url(app, TOKEN)]).await;
        repository
    }

    pub(crate) fn url(&self, app: &str, token: &str) -> String {
        format!("http://x:{token}@{}/{app}.git", self.api)
    }

    /// One HTTP request by hand; status and body.
    pub(crate) async fn http(&self, method: &str, path: &str, head: &str, body: &[u8]) -> (u16, String) {
        let mut stream = TcpStream::connect(self.api).await.expect("a connection");
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\nContent-Length: {}\r\n{head}\r\n",
            self.api,
            body.len()
        );
        stream.write_all(head.as_bytes()).await.expect("a request");
        stream.write_all(body).await.expect("a body");
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.expect("an answer");
        let answer = String::from_utf8_lossy(&answer).into_owned();
        let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status");
        let body = if head.to_ascii_lowercase().contains("transfer-encoding: chunked") {
            dechunk(body)
        } else {
            body.to_owned()
        };
        (status, body)
    }

    /// The same with the admin's token and JSON both ways.
    pub(crate) async fn api(&self, method: &str, path: &str, body: &serde_json::Value) -> (u16, serde_json::Value) {
        let head = format!("Authorization: Bearer {TOKEN}\r\nContent-Type: application/json\r\n");
        let (status, body) = self.http(method, path, &head, body.to_string().as_bytes()).await;
        (status, serde_json::from_str(&body).unwrap_or_default())
    }
}

fn dechunk(mut body: &str) -> String {
    let mut whole = String::new();
    while let Some((size, rest)) = body.split_once("\r\n") {
        let size = usize::from_str_radix(size.trim(), 16).expect("a chunk's size");
        if size == 0 {
            break;
        }
        whole.push_str(&rest[..size]);
        body = &rest[size + 2..];
    }
    whole
}

/// The example that is built beside the tests.
fn hook() -> PathBuf {
    let own = std::env::current_exe().expect("the test's executable");
    let target = own.parent().and_then(Path::parent).expect("a target directory");
    target.join("examples/git_hook")
}

/// A person's repository.
pub(crate) struct Repository {
    pub(crate) directory: TempDir,
}

impl Repository {
    async fn init() -> Self {
        let repository = Self { directory: tempfile::tempdir().expect("a directory") };
        repository.git(&["init", "--quiet", "--initial-branch=main"]).await;
        repository.commit("Procfile", "web: ./serve\n", "First").await;
        repository
    }

    pub(crate) fn command(&self) -> Command {
        let mut command = Command::new("git");
        command
            .current_dir(self.directory.path())
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("HOME", self.directory.path())
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .env("GIT_TERMINAL_PROMPT", "0")
            .env("LANG", "C.UTF-8")
            .args(["-c", "user.name=A", "-c", "user.email=a@example.com", "-c", "protocol.file.allow=always"])
            .stdin(Stdio::null())
            .kill_on_drop(true);
        command
    }

    /// Runs git; success or not, and what it said.
    pub(crate) async fn try_git(&self, arguments: &[&str]) -> (bool, String) {
        let ran = self.command().args(arguments).output();
        let Output { status, stdout, stderr } =
            tokio::time::timeout(PATIENCE, ran).await.expect("git in time").expect("git");
        (status.success(), String::from_utf8_lossy(&[stdout, stderr].concat()).into_owned())
    }

    /// Runs git, which succeeds; what it said.
    pub(crate) async fn git(&self, arguments: &[&str]) -> String {
        let (succeeded, said) = self.try_git(arguments).await;
        assert!(succeeded, "git {arguments:?}: {said}");
        said
    }

    pub(crate) async fn commit(&self, file: &str, text: &str, message: &str) {
        std::fs::write(self.directory.path().join(file), text).expect("a file");
        self.git(&["add", "--", file]).await;
        self.git(&["commit", "--quiet", "-m", message]).await;
    }

    pub(crate) async fn head(&self) -> String {
        self.git(&["rev-parse", "HEAD"]).await.trim().to_owned()
    }

    pub(crate) async fn push(&self) -> (bool, String) {
        self.try_git(&["push", "dozen", "main"]).await
    }
}

/// Waits for a condition.
pub(crate) async fn until<T, F: Future<Output = Option<T>>>(what: &str, mut look: impl FnMut() -> F) -> T {
    let looking = async {
        loop {
            if let Some(found) = look().await {
                return found;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, looking).await.unwrap_or_else(|_| panic!("no {what} in time"))
}
