//! A whole runtime on this machine for one test: data directory, network, store, engine, and the lines it logs.

use std::{
    fs,
    net::SocketAddr,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{Arc, Mutex},
    time::Duration,
};

use dozen_api::{
    engine::{Dyno, Engine, OneOff, Process, Wanted},
    logs,
};
use dozen_domain::{
    config::Vars,
    dyno::State,
    ids::{AppId, DynoId, ReleaseId},
    image::{BuildResult, Digest},
    limits::Limits,
    release::Version,
    settings::Stop,
    size::Size,
};
use dozen_runtime::engine::{Host, Machine, Options};
use rustix::process::{Pid, Signal};
use tempfile::TempDir;

use crate::dyno::LONG;

/// A web process that listens as soon as it can.
pub(crate) const SERVE: &str = "exec /opt/dozen/bin/dozen probe listen 0.0.0.0 $PORT";

/// The runtime of one test.
pub(crate) struct Platform {
    pub(crate) data: TempDir,
    pub(crate) host: Arc<Host>,
    pub(crate) engine: Machine,
    pub(crate) app: AppId,
    pub(crate) image: Digest,
    logs: Arc<logs::Memory>,
    said: Mutex<Vec<String>>,
}

impl Platform {
    pub(crate) async fn start(limits: Limits) -> Self {
        assert!(rustix::process::geteuid().is_root(), "run these tests as root");
        let data = tempfile::tempdir().expect("a directory");
        // As the platform makes its own.
        fs::set_permissions(data.path(), fs::Permissions::from_mode(0o700)).expect("closed to others");
        let (sender, logs) = logs::Sender::memory();
        let host = Arc::new(Host::prepare(options(data.path(), limits, sender)).await.expect("the machine is ready"));
        let engine = Machine::new(host.clone());
        engine.adopt().await.expect("nothing to adopt");
        let app = AppId::random();
        let image = image(&host, app, &[("hello.txt", "hello from the image\n")]);
        Self { data, host, engine, app, image, logs: Arc::new(logs), said: Mutex::default() }
    }

    /// Control is killed and comes back: a new engine on what is there.
    pub(crate) async fn restart_engine(&mut self) {
        self.again(|| (), |_| ()).await;
    }

    /// Control is killed, something happens, and it comes back.
    pub(crate) async fn away(&mut self, meanwhile: impl FnOnce()) {
        self.again(meanwhile, |_| ()).await;
    }

    /// Control is killed and comes back; the new engine is given something before it looks.
    pub(crate) async fn restart_engine_with(&mut self, give: impl FnOnce(&Machine)) {
        self.again(|| (), give).await;
    }

    async fn again(&mut self, meanwhile: impl FnOnce(), give: impl FnOnce(&Machine)) {
        let limits = Limits::default();
        let (sender, logs) = logs::Sender::memory();
        let host = Host::prepare(options(self.data.path(), limits, sender)).await.expect("the machine is ready");
        self.host = Arc::new(host);
        self.engine = Machine::new(self.host.clone()); // the old one's task ends when it is dropped
        meanwhile();
        self.logs = Arc::new(logs);
        self.said.lock().expect("no panic").clear();
        give(&self.engine);
        self.engine.adopt().await.expect("adopted");
    }

    pub(crate) fn wanted(&self, version: u32, processes: &[(&str, &str, u32)]) -> Wanted {
        Wanted {
            app: self.app,
            app_name: "some-app".parse().expect("a name"),
            release: ReleaseId::random(),
            version: Version(version),
            image: self.image.clone(),
            env: Vars::new(),
            processes: processes
                .iter()
                .map(|(name, command, quantity)| Process {
                    process_type: name.parse().expect("a type"),
                    command: (*command).to_owned(),
                    quantity: *quantity,
                    size: Size::Basic,
                    stop: Stop::usual(&Limits::default()),
                })
                .collect(),
            preboot: false,
            boot_timeout: LONG,
            runtime_metrics: false,
            health_check: None,
            cycle: true,
        }
    }

    pub(crate) fn one_off(&self, name: &str, command: &str) -> OneOff {
        OneOff {
            dyno: DynoId::random(),
            app: self.app,
            app_name: "some-app".parse().expect("a name"),
            name: name.parse().expect("a name"),
            version: Version(1),
            image: self.image.clone(),
            env: Vars::new(),
            command: command.to_owned(),
            size: Size::Basic,
            time_to_live: None,
            attach: None,
            logged: false,
        }
    }

    /// Names and states: `web.1 up`.
    pub(crate) fn states(&self) -> Vec<String> {
        let word = |dyno: &Dyno| format!("{} {}", dyno.name, dyno.state.word());
        self.engine.dynos(self.app).iter().map(word).collect()
    }

    /// Waits until the app's dynos are these; looks again whenever something has happened to one.
    pub(crate) async fn settle(&self, expected: &[&str]) {
        let mut events = self.engine.watch();
        let waiting = async {
            while self.states() != expected {
                let _ = events.recv().await;
            }
        };
        let settled = tokio::time::timeout(LONG, waiting).await;
        assert!(settled.is_ok(), "{:?} in place of {expected:?}; {:#?}", self.states(), self.lines("").await);
    }

    pub(crate) fn dyno(&self, name: &str) -> Dyno {
        let mut dynos = self.engine.dynos(self.app).into_iter();
        dynos.rfind(|dyno| dyno.name.to_string() == name).expect("a dyno of this name")
    }

    pub(crate) fn address(&self, name: &str) -> SocketAddr {
        match self.dyno(name).state {
            State::Up { addresses, .. } => addresses[0],
            state => panic!("{name} is {}", state.word()),
        }
    }

    /// Lines said of a dyno so far; of all when `name` is empty.
    pub(crate) async fn lines(&self, name: &str) -> Vec<String> {
        // Lines come just after the event that a test has waited for.
        tokio::time::sleep(Duration::from_millis(20)).await;
        let mut said = self.said.lock().expect("no panic");
        said.extend(self.logs.take().into_iter().map(|line| format!("{} {}", line.process, line.text)));
        let of = |line: &&String| name.is_empty() || line.starts_with(&format!("{name} "));
        let text = |line: &String| line.split_once(' ').map(|(_, text)| text.to_owned());
        said.iter().filter(of).filter_map(text).collect()
    }

    /// Waits until what was said of a dyno so far is as it should be, and returns it.
    pub(crate) async fn until(&self, name: &str, met: impl Fn(&[String]) -> bool) -> Vec<String> {
        let waiting = async {
            loop {
                let lines = self.lines(name).await;
                if met(&lines) {
                    return lines;
                }
            }
        };
        match tokio::time::timeout(LONG, waiting).await {
            Ok(lines) => lines,
            Err(_) => panic!("{:#?}", self.lines("").await),
        }
    }

    /// Stops everything.
    pub(crate) async fn end(self) {
        self.engine.remove(self.app).await.expect("removed");
        self.settle(&[]).await;
    }
}

impl Drop for Platform {
    fn drop(&mut self) {
        let chosen = fs::read(self.data.path().join("network.json")).unwrap_or_default();
        let chosen: serde_json::Value = serde_json::from_slice(&chosen).unwrap_or_default();
        let quietly = |program: &str, arguments: &[&str]| {
            let _ = Command::new(program).args(arguments).stdout(Stdio::null()).stderr(Stdio::null()).status();
        };
        quietly("ip", &["link", "del", chosen["bridge"].as_str().unwrap_or_default()]);
        if let Some(group) = self.host.cgroup(DynoId::random()) {
            dozen_runtime::cgroup::remove_parent(group.split('/').next().unwrap_or_default());
        }
        quietly("nft", &["delete", "table", "inet", chosen["table"].as_str().unwrap_or_default()]);
    }
}

pub(crate) fn options(data: &Path, limits: Limits, logs: logs::Sender) -> Options {
    Options {
        data: data.to_owned(),
        exe: std::env::current_exe().expect("this executable"),
        limits,
        logs,
        root: true,
        allow_networks: Vec::new(),
        buildpack_dirs: Vec::new(),
        toolchains: Vec::new(),
        ca_bundle: None,
    }
}

/// An image of the app with these files.
pub(crate) fn image(host: &Host, app: AppId, files: &[(&str, &str)]) -> Digest {
    let upper: PathBuf = host.store().directory().join("tmp").join(DynoId::random().to_string());
    fs::create_dir_all(&upper).expect("a directory");
    for (path, text) in files {
        fs::write(upper.join(path), text).expect("a file");
    }
    let result = BuildResult {
        language: "Procfile".to_owned(),
        detected: None,
        process_types: Vec::new(),
        launch_env: [("FROM_IMAGE".to_owned(), "yes".to_owned())].into(),
        config_defaults: Default::default(),
        cron: None,
        health_check: None,
        layers: Vec::new(),
    };
    host.store().commit(app, &upper, &result, &[]).expect("an image").image
}

/// Kills a dyno's shim as an accident would.
pub(crate) fn kill_shim(platform: &Platform, dyno: DynoId) {
    rustix::process::kill_process(shim(platform, dyno), Signal::KILL).expect("killed");
}

/// The shim of a dyno.
pub(crate) fn shim(platform: &Platform, dyno: DynoId) -> Pid {
    let directory = platform.data.path().join("run/dynos").join(dyno.to_string());
    let directory = directory.to_str().expect("text").to_owned();
    for entry in fs::read_dir("/proc").expect("processes").flatten() {
        let command = fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let arguments: Vec<&[u8]> = command.split(|byte| *byte == 0).collect();
        let name = entry.file_name();
        let pid = name.to_str().and_then(|pid| pid.parse().ok());
        // Its dyno's init has the same command line, and the shim for its parent.
        let status = fs::read_to_string(entry.path().join("status")).unwrap_or_default();
        let parent = status.lines().find_map(|line| line.strip_prefix("PPid:")).unwrap_or_default().trim();
        let is_init = fs::read(format!("/proc/{parent}/cmdline")).is_ok_and(|parent| parent == command);
        if arguments.get(1) == Some(&&b"shim"[..]) && arguments.get(2) == Some(&directory.as_bytes()) && !is_init {
            return pid.and_then(Pid::from_raw).expect("a pid");
        }
    }
    panic!("no shim runs in {directory}");
}

/// Kills a process and returns when it is gone.
pub(crate) fn kill_and_wait(pid: Pid) {
    let descriptor = rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty()).expect("it runs");
    rustix::process::kill_process(pid, Signal::KILL).expect("killed");
    let mut polled = [rustix::event::PollFd::new(&descriptor, rustix::event::PollFlags::IN)];
    rustix::event::poll(&mut polled, None).expect("a wait");
}

/// Stops every process of a dyno with SIGSTOP, as a debugger would; how many that were.
pub(crate) fn stand_still(platform: &Platform, dyno: DynoId) -> usize {
    fn below(pid: i32) -> Vec<i32> {
        let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
        let children: Vec<i32> = children.split_whitespace().filter_map(|pid| pid.parse().ok()).collect();
        children.into_iter().flat_map(|child| [vec![child], below(child)].concat()).collect()
    }
    let all = below(shim(platform, dyno).as_raw_nonzero().get());
    for pid in all.iter().filter_map(|pid| Pid::from_raw(*pid)) {
        rustix::process::kill_process(pid, Signal::STOP).expect("stopped");
    }
    all.len()
}
