//! One phase of a build in its container: started, listened to, and never left running.

use std::{io, path::PathBuf, sync::Arc, time::Duration};

use dozen_api::{
    build::{Error, Spec as Request},
    clock,
    shim::{Command, Event, Network, Record, Spec},
};
use dozen_domain::{
    config::{Secret, Vars},
    dyno::Exit,
    ids::{AppId, DynoId},
    name::DynoName,
    release::Version,
    size::{Quota, Size},
};
use tokio::{io::AsyncWriteExt, sync::mpsc};

use super::{Deadline, Sink, disk, folder::Folder, platform};
use crate::{
    engine::{self, EXECUTABLE, Heard, Host, Reading, key, kind},
    shim::KEEP_SCRATCH,
};

/// Programs that find the trust store by a variable. An operator's own value wins.
const TRUST: &[&str] = &[
    "SSL_CERT_FILE",
    "CURL_CA_BUNDLE",
    "REQUESTS_CA_BUNDLE",
    "PIP_CERT",
    "NODE_EXTRA_CA_CERTS",
    "GIT_SSL_CAINFO",
    "CARGO_HTTP_CAINFO",
];
/// How long a killed container may take to be gone.
const DEATH: Duration = Duration::from_secs(10);
/// Events on their way from the shim.
const EVENTS: usize = 16;

/// How a phase ended.
#[derive(Debug)]
pub(super) enum Outcome {
    Exited { exit: Exit, out_of_memory: bool },
    TimeOver,
    DiskOver,
    LogOver,
}

/// What both phases of a build have in common.
pub(super) struct Phase<'a> {
    host: &'a Arc<Host>,
    folder: &'a Folder,
    app: AppId,
    env: Vars,
    deadline: Deadline,
    /// Bytes that may still be printed.
    log_bytes: u64,
}

impl<'a> Phase<'a> {
    pub(super) fn new(host: &'a Arc<Host>, folder: &'a Folder, request: &Request) -> Self {
        let bundle = host.options.ca_bundle.as_ref().map(|path| path.display().to_string());
        let trust = |bundle: String| TRUST.iter().map(move |name| ((*name).to_owned(), Secret::new(bundle.clone())));
        let mut env: Vars = bundle.into_iter().flat_map(trust).collect();
        env.extend(request.platform_env.clone());
        let limits = &host.options.limits;
        Self {
            host,
            folder,
            app: request.app,
            env,
            deadline: Deadline::after(limits.build_seconds),
            log_bytes: limits.build_log_bytes,
        }
    }

    fn binds(&self) -> Vec<(PathBuf, PathBuf, bool)> {
        let Folder { path, env, source, buildpacks, .. } = self.folder;
        let options = &self.host.options;
        let mut binds = vec![
            (options.exe.clone(), EXECUTABLE.into(), false),
            (path.clone(), "/build".into(), true),
            (source.clone(), "/build/source.tar".into(), false),
            (env.clone(), "/build/env".into(), false),
            (self.host.cache(self.app), "/cache".into(), true),
        ];
        let read_only = |(outside, inside): &(PathBuf, PathBuf)| (outside.clone(), inside.clone(), false);
        binds.extend(buildpacks.iter().map(read_only));
        binds.extend(options.toolchains.iter().filter(|(outside, _)| outside.is_dir()).map(read_only));
        // What lies below these the container sees in any case.
        let seen = |path: &PathBuf| ["/usr", "/etc/ssl"].iter().any(|tree| path.starts_with(tree));
        let bundle = options.ca_bundle.iter().filter(|path| !seen(path) && path.is_file());
        binds.extend(bundle.map(|path| (path.clone(), path.clone(), false)));
        binds
    }

    /// Runs `dozen builder <phase>` as this dyno above these layers, printing to `output`. Ends what it started when it
    /// is dropped.
    pub(super) async fn run(
        &mut self,
        phase: &str,
        dyno: DynoId,
        layers: Vec<PathBuf>,
        output: Sink<'_>,
    ) -> Result<Outcome, Error> {
        let builds = phase == "build";
        let limits = &self.host.options.limits;
        let quota = Quota { memory: limits.build_memory_bytes, pids: limits.build_pids, ..Size::Standard1X.quota() };
        let mut record = Record {
            dyno,
            app: self.app,
            name: name(),
            size: Size::Standard1X,
            version: Version(0),
            command: format!("builder {phase}"),
            created_at: clock::now(),
            logged: false,
            engine: [(key::KIND.to_owned(), kind::BUILD.to_owned())].into(),
        };
        if builds {
            record.engine.insert(KEEP_SCRATCH.to_owned(), String::new());
        }
        let uid = self.host.owners.uid(self.app).map_err(platform("find the app's user"))?;
        let mut sandbox = engine::sandbox(self.host, &record, uid, quota);
        sandbox.layers = layers;
        sandbox.binds = self.binds();
        sandbox.network = if builds || self.folder.foreign {
            let lease = self.host.network.lease(dyno).map_err(platform("give the build an address"))?;
            record.engine.extend(lease.number.map(|number| (key::LEASE.to_owned(), number.to_string())));
            lease.network
        } else {
            Network::None
        };
        let written = vec![sandbox.scratch.clone()];
        let watched = vec![sandbox.scratch.clone(), self.folder.path.clone(), self.host.cache(self.app)];
        let spec = Spec {
            record,
            env: self.env.clone(),
            argv: [EXECUTABLE, "builder", phase].map(str::to_owned).to_vec(),
            sandbox,
            port: None,
            boot_ms: 0,
            terminal: None,
            client: None,
            backlog_bytes: limits.shim_backlog_bytes,
            hold_ms: limits.shim_hold_ms,
            linger_ms: 0,
        };
        let (disk_bytes, passed) = (limits.build_disk_bytes, self.deadline.passed());
        let mut running = Running::start(self.host, &spec).await?;
        let outcome = tokio::select! {
            outcome = running.listen(output, &mut self.log_bytes) => outcome.map_err(platform("follow the build"))?,
            () = passed => Outcome::TimeOver,
            () = disk::exceeded(watched, disk_bytes), if builds => Outcome::DiskOver,
        };
        match outcome {
            // What was written since the last look counts too; only here can it have grown far in so short a time.
            Outcome::Exited { exit: Exit::Code(0), .. } if builds && disk::more(written, disk_bytes).await => {
                Ok(Outcome::DiskOver)
            }
            Outcome::Exited { .. } => Ok(outcome),
            _ => {
                running.kill().await;
                Ok(outcome)
            }
        }
    }
}

fn name() -> DynoName {
    #[expect(clippy::expect_used, reason = "a literal that follows the rules for dyno names")]
    "build.1".parse().expect("build.1 is a dyno's name")
}

/// A container that runs; dropping this kills it.
struct Running {
    host: Arc<Host>,
    dyno: DynoId,
    heard: mpsc::Receiver<Heard>,
    commands: mpsc::Sender<Command>,
    ended: bool,
}

impl Running {
    async fn start(host: &Arc<Host>, spec: &Spec) -> Result<Self, Error> {
        let dyno = spec.record.dyno;
        // The start itself cannot be undone half way: if nobody waits for its end any more, it is ended then.
        let (on, directory) = (host.clone(), host.directory(dyno));
        let connect = move || {
            let (messages, heard) = mpsc::channel(EVENTS);
            let commands = engine::keep(directory, None, engine::into(messages));
            Self { host: on, dyno, heard, commands, ended: false }
        };
        let waiting = Cancel { host: host.clone(), dyno, armed: true };
        engine::start(host, spec).await.map_err(platform("start the build's container"))?;
        waiting.disarm();
        Ok(connect())
    }

    /// Hands on what is printed until the container is gone.
    async fn listen(&mut self, output: Sink<'_>, log_bytes: &mut u64) -> io::Result<Outcome> {
        let directory = self.host.directory(self.dyno);
        let heard = &mut self.heard;
        let ended = &mut self.ended;
        let pump = async {
            let mut reading = Reading::open(&directory, true).await?;
            while let Some(piece) = reading.next().await? {
                let fits = usize::try_from(*log_bytes).unwrap_or(usize::MAX).min(piece.bytes.len());
                output.write_all(&piece.bytes[..fits]).await?;
                output.flush().await?;
                *log_bytes -= fits as u64;
                if fits < piece.bytes.len() {
                    return Ok(false);
                }
            }
            Ok(true)
        };
        let exit = async {
            let mut out_of_memory = false;
            loop {
                match heard.recv().await {
                    Some(Heard::Event(Event::Exited { exit, .. })) => return (exit, out_of_memory),
                    Some(Heard::Event(Event::OutOfMemory { .. })) => out_of_memory = true,
                    Some(Heard::Event(_)) => {}
                    Some(Heard::Lost) | None => return (Exit::Signal(libc::SIGKILL), out_of_memory),
                }
            }
        };
        tokio::pin!(pump);
        tokio::pin!(exit);
        let whole: io::Result<bool>;
        let (exit, out_of_memory) = tokio::select! {
            pumped = &mut pump => match pumped {
                Ok(false) => return Ok(Outcome::LogOver),
                pumped => { whole = pumped; exit.await }
            },
            exited = &mut exit => { whole = pump.await; exited }
        };
        *ended = true;
        match whole? {
            true => Ok(Outcome::Exited { exit, out_of_memory }),
            false => Ok(Outcome::LogOver),
        }
    }

    /// Kills it and waits until it is gone.
    async fn kill(&mut self) {
        if self.ended {
            return;
        }
        let _ = self.commands.send(Command::Signal(libc::SIGKILL)).await;
        let gone = async {
            while let Some(Heard::Event(event)) = self.heard.recv().await {
                if matches!(event, Event::Exited { .. }) {
                    return;
                }
            }
        };
        let _ = tokio::time::timeout(DEATH, gone).await;
        self.ended = true;
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.host.network.release(self.dyno);
        if !self.ended {
            let _ = self.commands.try_send(Command::Signal(libc::SIGKILL));
        }
        let _ = self.commands.try_send(Command::Forget);
    }
}

/// A start that may be given up: if it is, whatever comes of it is killed.
struct Cancel {
    host: Arc<Host>,
    dyno: DynoId,
    armed: bool,
}

impl Cancel {
    fn disarm(mut self) {
        self.armed = false;
    }
}

impl Drop for Cancel {
    fn drop(&mut self) {
        if self.armed {
            // The shim sees that its record is gone and ends its dyno.
            self.host.clean_later(self.dyno);
        }
    }
}
