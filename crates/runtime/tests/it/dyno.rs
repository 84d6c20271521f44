//! Starts a dyno under a real shim in directories of its own, and talks to the shim as control and logs do.

use std::{
    collections::BTreeMap,
    fs,
    io::Read,
    os::unix::{net::UnixStream, process::CommandExt},
    path::{Path, PathBuf},
    process::{Command as Process, Stdio},
    time::{Duration, Instant},
};

use dozen_api::{
    clock, frame,
    shim::{Client, Command, Event, Hello, Network, Output, Record, Sandbox, Spec},
    socket,
};
use dozen_domain::{
    config::Secret,
    dyno::Exit,
    ids::{AppId, DynoId},
    release::Version,
    size::Size,
};
use dozen_runtime::{cgroup, sandbox::System, shim};
use tempfile::TempDir;

/// User outside of dynos under test.
pub(crate) const HOST_UID: u32 = 234_567;
/// Longer than anything here takes.
pub(crate) const LONG: Duration = Duration::from_secs(30);
/// A client that may take its time.
pub(crate) const CLIENT: Client = Client { wait_ms: 60_000, idle_ms: 3_600_000, hangup_ms: 5_000, grace_ms: 5_000 };
/// Where this executable is inside.
pub(crate) const PROBE: &str = "/opt/probe";

/// Waits for a condition.
pub(crate) fn wait_until(what: &str, mut met: impl FnMut() -> bool) {
    let until = Instant::now() + LONG;
    while !met() {
        assert!(Instant::now() < until, "{what} did not happen in {LONG:?}");
        std::thread::yield_now();
    }
}

/// A dyno to be.
pub(crate) struct Setup {
    pub(crate) temp: TempDir,
    pub(crate) spec: Spec,
    pub(crate) user: Option<u32>,
    pub(crate) executable: PathBuf,
    _system: System,
}

impl Setup {
    /// A dyno that runs a command with the usual limits and no network.
    pub(crate) fn new(argv: &[&str]) -> Self {
        assert!(rustix::process::geteuid().is_root(), "run these tests as root");
        let temp = tempfile::tempdir().expect("a temporary directory");
        let dyno = DynoId::random();
        let layer = temp.path().join("layer");
        fs::create_dir_all(layer.join("app")).expect("a layer");
        fs::write(layer.join("app/hello.txt"), "hello from the image\n").expect("a file");
        let executable = std::env::current_exe().expect("this executable");
        let system = System::make(&temp.path().join("system"), &[Path::new(PROBE)]).expect("a furnished root");
        let record = Record {
            dyno,
            app: AppId::random(),
            name: "web.1".parse().expect("a dyno's name"),
            size: Size::Basic,
            version: Version(7),
            command: argv.join(" "),
            created_at: clock::now(),
            logged: false,
            engine: BTreeMap::new(),
        };
        let sandbox = Sandbox {
            host_uid: Some(HOST_UID),
            layers: vec![layer],
            scratch: temp.path().join("scratch"),
            system: Some(system.place()),
            disk: None,
            binds: vec![(executable.clone(), PROBE.into(), false)],
            workdir: "/app".into(),
            hostname: "dyno".to_owned(),
            memory_bytes: 256 << 20,
            memory_bound_bytes: 256 << 20,
            pids: 64,
            cpu_shares: 1024,
            open_files: 1024,
            cgroup: Some(format!("dozen-test-{dyno}/dyno")),
            network: Network::None,
        };
        let env = [("PATH", "/usr/bin:/bin"), ("HOME", "/app"), ("HEROKU_APP_NAME", "sheltered-peak-1234")];
        let spec = Spec {
            record,
            env: env.map(|(name, value)| (name.to_owned(), Secret::new(value))).into(),
            argv: argv.iter().map(|&argument| argument.to_owned()).collect(),
            sandbox,
            port: None,
            boot_ms: 60_000,
            terminal: None,
            client: None,
            backlog_bytes: 1 << 20,
            hold_ms: 1_000,
            linger_ms: 600_000,
        };
        Self { temp, spec, user: None, executable, _system: system }
    }

    /// A dyno that runs a script.
    pub(crate) fn bash(script: &str) -> Self {
        Self::new(&["/bin/bash", "-c", script])
    }

    /// A dyno that runs a probe.
    pub(crate) fn probe(arguments: &[&str]) -> Self {
        Self::new(&[&[PROBE, "probe"], arguments].concat())
    }

    /// Changes what is to run.
    pub(crate) fn with(mut self, change: impl FnOnce(&mut Spec)) -> Self {
        change(&mut self.spec);
        self
    }

    /// Starts it.
    pub(crate) fn start(self) -> Dyno {
        self.try_start().expect("the dyno starts")
    }

    /// Starts it, or says why not.
    pub(crate) fn try_start(self) -> Result<Dyno, String> {
        let directory = self.temp.path().join("run");
        fs::create_dir_all(&directory).expect("a directory");
        if let Some(user) = self.user {
            let app = self.spec.sandbox.layers[0].join("app");
            for path in [self.temp.path(), &directory, &app.join("hello.txt"), &app] {
                std::os::unix::fs::chown(path, Some(user), Some(user)).expect("chown");
            }
        }
        let mut process = Process::new(&self.executable);
        process.arg("shim").arg(&directory).stdin(Stdio::piped()).stdout(Stdio::piped());
        if let Some(user) = self.user {
            process.uid(user).gid(user);
        }
        // Another test's fork may hold a fresh copy of the executable open for writing until its exec.
        let mut started = process.spawn();
        while started.as_ref().is_err_and(|error| error.kind() == std::io::ErrorKind::ExecutableFileBusy) {
            started = process.spawn();
        }
        let mut process = started.expect("the shim starts");
        let mut input = process.stdin.take().expect("piped");
        frame::write_blocking(&mut input, &self.spec).expect("the shim reads");
        let mut answer = process.stdout.take().expect("piped");
        let first: Event = frame::read_blocking(&mut answer).expect("the shim answers").expect("an event");
        assert!(process.wait().expect("it can be waited for").success(), "the first process ends at once");
        assert_eq!(answer.read_to_end(&mut Vec::new()).expect("closed"), 0, "nothing comes after the first event");
        let Event::Started { pid, .. } = first else {
            let Event::Failed { error, .. } = first else { panic!("{first:?} is no first event") };
            assert!(!directory.exists(), "a dyno that failed to start leaves no directory");
            assert!(!self.spec.sandbox.scratch.exists(), "a dyno that failed to start leaves no scratch directory");
            return Err(error);
        };
        let control = connect(&directory, &Hello::Control);
        let peer = rustix::net::sockopt::socket_peercred(&control).expect("the shim's credentials");
        let shim = peer.pid.as_raw_nonzero().get();
        Ok(Dyno { directory, control, pid, shim, spec: self.spec, seen: Vec::new(), _temp: self.temp })
    }
}

/// Connects to a shim.
pub(crate) fn connect(directory: &Path, hello: &Hello) -> UnixStream {
    let mut stream = socket::connect_blocking(&directory.join(shim::SOCKET)).expect("the shim listens");
    stream.set_read_timeout(Some(LONG)).expect("a timeout");
    stream.set_write_timeout(Some(LONG)).expect("a timeout");
    frame::write_blocking(&mut stream, hello).expect("the shim reads");
    stream
}

/// A dyno that runs.
pub(crate) struct Dyno {
    pub(crate) directory: PathBuf,
    pub(crate) control: UnixStream,
    /// Its init.
    pub(crate) pid: i32,
    /// Its shim.
    pub(crate) shim: i32,
    pub(crate) spec: Spec,
    pub(crate) seen: Vec<Event>,
    _temp: TempDir,
}

impl Dyno {
    /// Waits for the next event.
    pub(crate) fn next(&mut self) -> Event {
        let event: Event =
            frame::read_blocking(&mut self.control).expect("an event in time").expect("the shim is there");
        self.seen.push(event.clone());
        event
    }

    /// Waits for an event, skipping others.
    pub(crate) fn wait_for<T>(&mut self, mut wanted: impl FnMut(&Event) -> Option<T>) -> T {
        loop {
            if let Some(found) = wanted(&self.next()) {
                return found;
            }
        }
    }

    /// Waits for its end.
    pub(crate) fn exit(&mut self) -> Exit {
        self.wait_for(|event| match event {
            Event::Exited { exit, .. } => Some(*exit),
            _ => None,
        })
    }

    /// Says something as control does.
    pub(crate) fn tell(&mut self, command: &Command) {
        frame::write_blocking(&mut self.control, command).expect("the shim reads");
    }

    /// Attaches as the dyno's client.
    pub(crate) fn attach(&self) -> UnixStream {
        let mut stream = self.connect(&Hello::Attach);
        let taken: Option<bool> = frame::read_blocking(&mut stream).expect("an answer");
        assert_eq!(taken, Some(true), "the client is taken");
        stream
    }

    /// Connects as something else.
    pub(crate) fn connect(&self, hello: &Hello) -> UnixStream {
        connect(&self.directory, hello)
    }

    /// Its whole output, waiting for its end.
    pub(crate) fn output(&self) -> String {
        let mut stream = self.connect(&Hello::Output { from: 0, ack: false });
        let mut text = Vec::new();
        while let Some(piece) = read_output(&mut stream).filter(|piece| !piece.bytes.is_empty()) {
            assert_eq!(piece.offset, text.len() as u64);
            text.extend_from_slice(&piece.bytes);
        }
        String::from_utf8_lossy(&text).into_owned()
    }

    /// Reads output until it holds a text; returns what came.
    pub(crate) fn wait_for_output(&self, wanted: &str) -> String {
        let mut stream = self.connect(&Hello::Output { from: 0, ack: false });
        let mut text = String::new();
        while !text.contains(wanted) {
            let piece = read_output(&mut stream).expect("the shim is there");
            assert!(!piece.bytes.is_empty(), "the dyno ended without saying {wanted:?}: {text}");
            text.push_str(&String::from_utf8_lossy(&piece.bytes));
        }
        text
    }
}

impl Drop for Dyno {
    fn drop(&mut self) {
        let _ = frame::write_blocking(&mut self.control, &Command::Signal(libc::SIGKILL));
        let _ = frame::write_blocking(&mut self.control, &Command::Forget);
        let ended = |event: Option<Event>| event.is_none_or(|event| matches!(event, Event::Exited { .. }));
        if !self.seen.iter().any(|event| matches!(event, Event::Exited { .. })) {
            while !frame::read_blocking(&mut self.control).map_or(true, ended) {}
        }
        wait_until("the end of the dyno's processes", || !is_alive(self.pid));
        if let Some(path) = self.spec.sandbox.cgroup.as_deref() {
            let group = cgroup::Cgroup::open(path); // the shim may be at it, or may have been killed
            group.kill();
            let _ = group.remove();
            cgroup::remove_parent(path.split('/').next().unwrap_or_default());
        }
    }
}

/// Reads one piece of output; `None` when the shim has gone.
pub(crate) fn read_output(stream: &mut UnixStream) -> Option<Output> {
    let mut length = [0; 4];
    stream.read_exact(&mut length).ok()?;
    let mut bytes = vec![0; u32::from_le_bytes(length) as usize];
    stream.read_exact(&mut bytes).expect("a whole frame");
    Some(Output::decode(&bytes).expect("a piece of output"))
}

/// How often a process has gone to sleep of its own accord.
pub(crate) fn switches(pid: i32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("it lives");
    let line = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
    line.and_then(|count| count.trim().parse().ok()).expect("a count")
}

/// Says whether a process exists (a zombie does not).
pub(crate) fn is_alive(pid: i32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/stat"))
        .is_ok_and(|stat| stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with('Z')))
}
