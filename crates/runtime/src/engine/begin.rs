//! The start of one dyno: from what is wanted to what its shim is told, and what can go wrong on the way.

use std::{sync::Arc, time::Duration};

use dozen_api::{
    engine::{Attach, Error, OneOff, Wanted},
    shim::{Client, Event, Record, Spec},
};
use dozen_domain::{config::Vars, image::Digest, limits::Limits};

use super::{
    entry::Entry,
    environment::{argv, environment},
    host::{EXECUTABLE, Host},
    launch, say, start_error,
};
use crate::{artefacts, network};

/// Why a dyno was not started.
#[derive(Debug, thiserror::Error)]
pub(super) enum Fault {
    #[error("use image {}", image.0)]
    Image {
        image: Digest,
        #[source]
        source: artefacts::Error,
    },
    #[error("give the dyno an address")]
    Address(#[source] network::Error),
    #[error("give the dyno a port")]
    Port(#[source] std::io::Error),
    #[error("start the dyno")]
    Launch(#[source] launch::Error),
    #[error("a blocking task ended early")]
    Task,
}

impl Fault {
    /// What the app's owner reads.
    pub(super) fn line(&self) -> String {
        match self {
            Self::Image { source: artefacts::Error::Checksum { expected, actual }, .. } => {
                say::checksum(expected, actual)
            }
            Self::Image { source: artefacts::Error::Missing(_) | artefacts::Error::Damaged { .. }, .. } => {
                say::damaged()
            }
            _ => say::platform(),
        }
    }

    /// What the caller gets.
    pub(super) fn error(&self) -> Error {
        match self {
            Self::Image { image, source } => Error::Image(image.clone(), source.to_string()),
            other => start_error("start the dyno", other.chain()),
        }
    }

    /// The whole chain of causes as one line, for the platform's log.
    pub(super) fn chain(&self) -> String {
        let mut text = self.to_string();
        let mut cause = std::error::Error::source(self);
        while let Some(error) = cause {
            text += &format!(": {error}");
            cause = error.source();
        }
        text
    }
}

/// What a start needs beyond the dyno itself.
pub(super) struct Begin {
    image: Digest,
    env: Vars,
    boot: Duration,
    attach: Option<Attach>,
    logged: bool,
}

impl Begin {
    pub(super) fn formation(wanted: &Wanted) -> Self {
        Self {
            image: wanted.image.clone(),
            env: wanted.env.clone(),
            boot: wanted.boot_timeout,
            attach: None,
            logged: true,
        }
    }

    pub(super) fn one_off(one_off: OneOff) -> Self {
        Self {
            image: one_off.image,
            env: one_off.env,
            boot: Duration::ZERO,
            attach: one_off.attach,
            logged: one_off.logged,
        }
    }

    /// Whether it is for a client that is yet to come.
    pub(super) fn awaits_client(&self) -> bool {
        self.attach.is_some()
    }

    /// Gives the dyno its address and port.
    pub(super) fn prepare(self, host: &Host, entry: &Entry) -> Result<Prepared, Fault> {
        let dyno = &entry.dyno;
        let port = entry.is_web().then(|| host.network.port()).transpose().map_err(Fault::Port)?;
        let lease = host.network.lease(dyno.id).map_err(Fault::Address)?;
        let record = Record {
            dyno: dyno.id,
            app: dyno.app,
            name: dyno.name.clone(),
            size: dyno.size,
            version: dyno.version,
            command: dyno.command.clone(),
            created_at: dyno.created_at,
            logged: self.logged,
            engine: entry.record(lease.number),
        };
        Ok(Prepared { begin: self, record, port, network: lease.network })
    }
}

fn client(limits: &Limits) -> Client {
    let milliseconds = |seconds: u64| seconds.saturating_mul(1000);
    Client {
        wait_ms: milliseconds(limits.attach_wait_seconds),
        idle_ms: milliseconds(limits.attach_idle_seconds),
        hangup_ms: milliseconds(limits.hangup_seconds),
        grace_ms: milliseconds(limits.stop_seconds),
    }
}

/// A start with everything at hand but the image.
pub(super) struct Prepared {
    begin: Begin,
    record: Record,
    port: Option<u16>,
    network: dozen_api::shim::Network,
}

impl Prepared {
    /// Mounts what the image has and starts the shim.
    pub(super) async fn start(self, host: &Arc<Host>) -> Result<Event, Fault> {
        let Self { begin, record, port, network } = self;
        let (app, image) = (record.app, begin.image.clone());
        let on = host.clone();
        let mounts = tokio::task::spawn_blocking(move || {
            let mounts = on.store.mounts(app, &image)?;
            Ok((mounts, on.owners.uid(app)?, on.system()))
        });
        let (mounts, uid, system) = mounts
            .await
            .map_err(|_| Fault::Task)?
            .map_err(|source| Fault::Image { image: begin.image.clone(), source })?;
        let mut sandbox = launch::sandbox(host, &record, uid, record.size.quota());
        sandbox.layers.clone_from(&mounts.layers);
        sandbox.network = network;
        sandbox.memory_bound_bytes = host.options.limits.memory_bound(sandbox.memory_bytes);
        sandbox.system = system.as_ref().map(|system| system.place());
        sandbox.disk.clone_from(&host.disk);
        // The platform's own programs for apps, such as the server of static sites.
        sandbox.binds.push((host.options.exe.clone(), EXECUTABLE.into(), false));
        let terminal = match begin.attach {
            Some(Attach::Terminal { columns, rows }) => Some((columns, rows)),
            Some(Attach::Pipes) | None => None,
        };
        let spec = Spec {
            env: environment(&mounts.launch_env, &begin.env, (record.dyno, &record.name), record.size, port),
            argv: argv(&record.command),
            record,
            sandbox,
            port,
            boot_ms: u64::try_from(begin.boot.as_millis()).unwrap_or(u64::MAX),
            terminal,
            client: begin.attach.map(|_| client(&host.options.limits)),
            backlog_bytes: host.options.limits.shim_backlog_bytes,
            hold_ms: host.options.limits.shim_hold_ms,
            linger_ms: host.options.limits.shim_linger_seconds.saturating_mul(1_000),
        };
        // What is ready of the root is kept until the dyno has taken its copy.
        let started = launch::start(host, &spec).await.map_err(Fault::Launch);
        drop(system);
        started
    }
}
