//! Drains: apps' streams to receivers elsewhere.
//!
//! ```text
//! control --(all drains there are)--> kept (disk) --> Drains --> one task a drain
//!                                                                 |- cursor: what is due, read from the app's history
//!                                                                 `- tcp | http | otlp --> link --> receiver
//! ```
//!
//! Each drain is a task with a position ([`cursor`]) and nothing in common with others, so one that is dead, slow or
//! hostile holds up nobody. No task holds more than one chunk of lines. What a receiver says is bounded, and ignored but
//! for its status.

mod cursor;
mod health;
mod http;
mod insecure;
mod kept;
mod link;
mod otlp;
mod request;
mod syslog;
mod tcp;

use std::{
    collections::HashMap,
    fs, io,
    sync::Arc,
    time::{Duration, Instant},
};

use dozen_api::drains::{Address, Destination, Drain, Protocol, Tls};
use dozen_domain::{codes::Code, ids::DrainId, limits::Limits, reach::Reach};
use rustls::ClientConfig;
use tokio::{sync::Mutex, task::JoinHandle};
use tokio_util::sync::CancellationToken;

use self::{
    cursor::{Cursor, Frame},
    health::Health,
    kept::Kept,
};
use crate::{Role, batch::Record, channel::Channel};

/// Pause before a drain whose history cannot be read is tried again.
const PAUSE: Duration = Duration::from_secs(5);
/// Time for which a drain that is stopped may wait for what it has sent to be confirmed.
const GRACE: Duration = Duration::from_millis(500);
/// A certificate that stays bad is told this often.
const REPEAT: Duration = Duration::from_secs(600);

/// What all drains share.
pub(crate) struct Shared {
    limits: Limits,
    reach: Reach,
    tls: Arc<ClientConfig>,
    insecure: Arc<ClientConfig>,
}

impl Shared {
    /// How an address is spoken to over TLS, if it is.
    fn tls(&self, address: &Address) -> Option<Arc<ClientConfig>> {
        match address.tls {
            Tls::None => None,
            Tls::Verified => Some(self.tls.clone()),
            Tls::Insecure => Some(self.insecure.clone()),
        }
    }
}

/// The drains that are served.
pub(crate) struct Drains {
    shared: Arc<Shared>,
    kept: Kept,
    running: Mutex<HashMap<DrainId, Running>>,
}

struct Running {
    drain: Drain,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Drains {
    /// None is served yet.
    ///
    /// # Errors
    /// When TLS cannot be set up.
    pub(crate) fn new(options: &crate::Options) -> Result<Self, rustls::Error> {
        let tls = dozen_api::outbound::tls(options.trust.as_deref())?;
        let insecure = insecure::tls()?;
        let shared = Shared { limits: options.limits.clone(), reach: options.reach.clone(), tls, insecure };
        let kept = Kept::new(&options.logs_dir, &options.keys_dir);
        Ok(Self { shared: Arc::new(shared), kept, running: Mutex::default() })
    }
}

/// Serves the drains that were kept.
pub(crate) async fn resume(role: &Arc<Role>) {
    match role.drains.kept.load() {
        Ok(drains) => serve(role, drains).await,
        Err(error) => tracing::warn!(%error, "cannot read which drains there are; control will tell"),
    }
}

/// Serves these drains in place of those from before; returns when they are kept.
///
/// # Errors
/// When they cannot be kept.
pub(crate) async fn replace(role: &Arc<Role>, drains: Vec<Drain>) -> io::Result<()> {
    let same = {
        let running = role.drains.running.lock().await;
        let is_served = |drain: &Drain| running.get(&drain.id).is_some_and(|one| one.drain == *drain);
        running.len() == drains.len() && drains.iter().all(is_served)
    };
    if !same || !role.drains.kept.is_there() {
        role.drains.kept.store(&drains)?;
        serve(role, drains).await;
    }
    Ok(())
}

async fn serve(role: &Arc<Role>, drains: Vec<Drain>) {
    let mut running = role.drains.running.lock().await;
    let mut wanted: HashMap<DrainId, Drain> = drains.into_iter().map(|drain| (drain.id, drain)).collect();
    let ids: Vec<DrainId> = running.keys().copied().collect();
    for id in ids {
        let same = running.get(&id).is_some_and(|one| wanted.get(&id) == Some(&one.drain));
        if same {
            wanted.remove(&id);
            continue;
        }
        let Some(Running { drain, stop, task }) = running.remove(&id) else { continue };
        stop.cancel();
        drop(task.await); // its position has one writer
        if !wanted.contains_key(&id) {
            forget(role, &drain);
        }
    }
    for (id, drain) in wanted {
        let stop = role.stop.child_token();
        let (role, stopped, own) = (role.clone(), stop.clone(), drain.clone());
        let task = tokio::spawn(async move {
            let late = async {
                stopped.cancelled().await;
                tokio::time::sleep(GRACE).await;
            };
            tokio::select! {
                () = late => {}
                () = run(&role, own, &stopped) => {}
            }
        });
        running.insert(id, Running { drain, stop, task });
    }
}

/// Ends all drains and waits for that; receivers that keep up get a moment to confirm what they were sent.
pub(crate) async fn stop(role: &Role) {
    let running = std::mem::take(&mut *role.drains.running.lock().await);
    running.values().for_each(|one| one.stop.cancel());
    for one in running.into_values() {
        drop(one.task.await);
    }
}

fn forget(role: &Role, drain: &Drain) {
    let path = cursor::path(&role.channels.channel(drain.app), drain.id);
    match fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            tracing::warn!(path = %path.display(), %error, "cannot remove the position of a drain");
        }
        _ => tracing::info!(drain = %drain.id, app = %drain.app, "a drain is gone"),
    }
}

/// Counts as a reader of a stream for as long as it lives.
struct Reader(Arc<Channel>);

impl Reader {
    fn new(channel: Arc<Channel>) -> Self {
        channel.drained(true);
        Self(channel)
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.0.drained(false);
    }
}

/// Why a receiver did not take what was meant for it.
type Failure = dyn std::error::Error + Send + Sync;

/// One drain being served.
struct Task {
    shared: Arc<Shared>,
    drain: Drain,
    cursor: Cursor,
    health: Health,
    told: Option<Instant>, // when its certificate was complained of
}

/// Serves one drain until it is stopped.
async fn run(role: &Role, drain: Drain, stop: &CancellationToken) {
    let reader = Reader::new(role.channels.channel(drain.app));
    let health = Health::new(&role.options.limits, &drain.to);
    let mut failing = false;
    loop {
        let error = match Cursor::open(drain.id, reader.0.clone()) {
            Ok(cursor) => {
                let shared = role.drains.shared.clone();
                let (drain, health) = (drain.clone(), health.clone());
                let mut task = Task { shared, drain, cursor, health, told: None };
                match serve_one(&mut task, stop).await {
                    Ok(()) => return,
                    Err(error) => error,
                }
            }
            Err(error) => error,
        };
        if !failing {
            tracing::warn!(drain = %drain.id, app = %drain.app, %error, "a drain cannot go on now");
        }
        failing = true;
        tokio::time::sleep(PAUSE).await;
    }
}

async fn serve_one(task: &mut Task, stop: &CancellationToken) -> io::Result<()> {
    let stopped = stop.cancelled();
    match task.drain.to.clone() {
        Destination::Log(url) => match Address::parse(url.expose()) {
            Ok(address) if address.protocol == Protocol::Syslog => tcp::run(task, &address, stop).await,
            Ok(address) => tokio::select! {
                ended = http::run(task, &address) => ended,
                () = stopped => Ok(()),
            },
            // Control has checked it; an older control had other rules.
            Err(why) => {
                tracing::warn!(drain = %task.drain.id, "the URL of a drain {why}");
                Ok(())
            }
        },
        Destination::Telemetry(to) => tokio::select! {
            ended = otlp::run(task, &to) => ended,
            () = stopped => Ok(()),
        },
    }
}

impl Task {
    /// The next frame of lines that wait; see [`Cursor::next`]. It is hurried for as long as the receiver works.
    fn next(&mut self, most: usize, put: impl FnMut(&mut Vec<u8>, &Record<'_>)) -> io::Result<Option<Frame>> {
        let frame = self.cursor.next(self.health.waiting(), most, put)?;
        self.cursor.lag(frame.is_some() && self.health.is_good());
        Ok(frame)
    }

    /// Notes a failure, tells who should know, and waits as long as it takes to the next attempt. `to` is the
    /// receiver's address without secrets.
    async fn failed(&mut self, error: &Failure, to: &str) {
        let (pause, log) = self.health.bad();
        self.cursor.lag(false);
        if log {
            tracing::info!(drain = %self.drain.id, app = %self.drain.app, to, error = %chain(error), "a drain fails");
        }
        if let Some(why) = certificate(error)
            && self.told.is_none_or(|told| told.elapsed() > REPEAT)
        {
            self.told = Some(Instant::now());
            let (code, why) = (Code::L14, why.to_string().replace(['"', '\n'], "'"));
            let text = format!("Error {code} ({}): error=\"{why}\" uri=\"{to}\"", code.description());
            self.cursor.channel().tell(&text);
        }
        tokio::time::sleep(pause).await;
    }
}

/// What is wrong with a certificate, if that is what an error is about.
fn certificate(error: &Failure) -> Option<&rustls::Error> {
    let link = match error.downcast_ref::<request::Error>() {
        Some(request::Error::Link(link)) => Some(link),
        _ => error.downcast_ref::<link::Error>(),
    };
    match link {
        Some(link::Error::Certificate(why)) => Some(why),
        _ => None,
    }
}

fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text = format!("{text}: {error}");
        source = error.source();
    }
    text
}
