//! Keeps the route table up to date: from control over `run/routes.sock`, from `run/routes.json` while control is away.
//!
//! The connection is tried again for ever with short pauses. Each message is put into force and then acknowledged, with
//! the dynos that left the table and still have requests from before, so that control knows when nothing more comes to
//! a dyno that it wants to stop. The table is written to disk a moment
//! after changes have begun, whole and atomically; a file that cannot be read is told of and passed over.

use std::{
    collections::HashSet,
    fs,
    io::{self, Write},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    sync::{Arc, Weak},
    time::Duration,
};

use dozen_api::{
    frame,
    routes::{Ack, Assembly, Generation, Message, Report},
    socket,
};
use dozen_domain::{ids::DynoId, limits::millis};
use tokio::{
    sync::{Notify, mpsc},
    time::{Instant, MissedTickBehavior, sleep, timeout},
};

use crate::{Router, table::Table, upstreams::Upstream};

const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);
/// How long a router that starts waits for control before it takes the table on disk.
const CONTROL_FIRST: Duration = Duration::from_secs(1);
/// How often is looked whether dynos that left the table still have requests.
const SETTLE_LOOK: Duration = Duration::from_millis(2);
/// How long changes are gathered before the table is written.
const GATHER: Duration = Duration::from_millis(250);

/// A table on disk that could not be read or written.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("reading the last route table {path}")]
    Read { path: PathBuf, source: io::Error },
    #[error("the last route table {path} makes no sense")]
    Parse { path: PathBuf, source: serde_json::Error },
    #[error("writing the route table {path}")]
    Write { path: PathBuf, source: io::Error },
}

/// Starts from the table on disk when control does not tell its own soon: the one on disk may be a moment older than
/// what control has acknowledged, and requests wait for a first table anyway.
pub(crate) async fn start(table: Arc<Table>, path: PathBuf) {
    if timeout(CONTROL_FIRST, table.ready()).await.is_ok() {
        return;
    }
    if let Err(error) = load(&table, &path) {
        let cause = std::error::Error::source(&error).map(ToString::to_string);
        tracing::error!(%error, cause, "starting without routes, until control tells them");
    }
}

/// Reads the table on disk, if there is one.
///
/// # Errors
/// When it cannot be read.
pub(crate) fn load(table: &Table, path: &Path) -> Result<(), Error> {
    let bytes = match fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(source) => return Err(Error::Read { path: path.to_owned(), source }),
    };
    let message: Message =
        serde_json::from_slice(&bytes).map_err(|source| Error::Parse { path: path.to_owned(), source })?;
    table.start_from(message);
    Ok(())
}

/// Follows control for ever; fires `changed` after each change, and tells how requests went.
pub(crate) async fn follow(router: Arc<Router>, path: PathBuf, changed: Arc<Notify>) {
    let mut pause = FIRST_PAUSE;
    loop {
        let mut heard = false;
        if let Err(error) = talk(&router, &path, &changed, &mut heard).await {
            tracing::debug!(%error, path = %path.display(), "control does not tell routes");
        }
        if heard {
            tracing::info!("control is away, routing goes on with the last table");
            pause = FIRST_PAUSE;
        }
        sleep(pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

async fn talk(router: &Router, path: &Path, changed: &Notify, heard: &mut bool) -> io::Result<()> {
    let table = &router.table;
    let (mut from, mut to) = socket::connect(path).await?.into_split();
    let (applied, news) = mpsc::unbounded_channel();
    let (sender, mut reports) = mpsc::unbounded_channel();
    let hear = async {
        let mut assembly = Assembly::default();
        while let Some(message) = frame::read::<_, Message>(&mut from).await? {
            let Some(message) = assembly.take(message) else { continue };
            let known = |app: Option<_>| app.map_or_else(|| table.upstreams(), |app| table.upstreams_of(app));
            let app = message.app();
            let before = known(app);
            let generation = match app {
                Some(_) => table.apply(message),
                // A large table takes longer than requests should wait for this thread.
                None => {
                    let table = table.clone();
                    tokio::task::spawn_blocking(move || table.apply(message)).await.map_err(io::Error::other)?
                }
            };
            let after: HashSet<*const Upstream> = known(app).iter().map(Arc::as_ptr).collect();
            let left = before.iter().filter(|dyno| !after.contains(&Arc::as_ptr(dyno)));
            let left: Left = left.map(|dyno| (dyno.id, Arc::downgrade(dyno))).collect();
            drop(before);
            // Its receiver lives as long as this future.
            let _ = applied.send((generation, left));
            *heard = true;
            changed.notify_one();
        }
        Ok(())
    };
    let tell = async {
        let mut tick = tokio::time::interval(millis(router.limits.router_traffic_ms));
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let report = tokio::select! {
                biased;
                Some(ack) = reports.recv() => Report::Ack(ack),
                _ = tick.tick() => match router.metrics.take() {
                    traffic if traffic.apps.is_empty() => continue,
                    traffic => Report::Traffic(traffic),
                },
            };
            frame::write(&mut to, &report).await?;
        }
    };
    tokio::select! {
        ended = hear => ended,
        ended = tell => ended,
        () = acknowledge(&sender, news) => Ok(()),
    }
}

/// Dynos that left the table. Whoever works on a request of one, or has only just chosen it, holds it.
type Left = Vec<(DynoId, Weak<Upstream>)>;

/// Acknowledges each generation, and again whenever fewer of the dynos that left the table are busy.
async fn acknowledge(to: &mpsc::UnboundedSender<Ack>, mut news: mpsc::UnboundedReceiver<(Generation, Left)>) {
    let (mut left, mut said) = (Left::new(), Ack::default());
    loop {
        let next = if left.is_empty() {
            news.recv().await
        } else {
            timeout(SETTLE_LOOK, news.recv()).await.unwrap_or(Some((said.generation, Left::new())))
        };
        let Some((generation, more)) = next else { return };
        left.extend(more);
        left.retain(|(_, dyno)| dyno.strong_count() > 0);
        let ack = Ack { generation, busy: left.iter().map(|(dyno, _)| *dyno).collect() };
        if ack != said {
            // Its receiver lives as long as this future.
            let _ = to.send(ack.clone());
            said = ack;
        }
    }
}

/// Writes the table to disk after changes, for ever.
pub(crate) async fn save(table: Arc<Table>, path: PathBuf, changed: Arc<Notify>) {
    let mut pause = GATHER;
    loop {
        changed.notified().await;
        sleep(pause).await;
        let began = Instant::now();
        let (table, path) = (table.clone(), path.clone());
        let written = tokio::task::spawn_blocking(move || write(&table, &path)).await;
        // A large table that changes all the time is written so often that it costs a twentieth of a core.
        pause = GATHER.max(began.elapsed() * 20);
        if let Ok(Err(error)) = written {
            let source = std::error::Error::source(&error).map(ToString::to_string);
            tracing::error!(%error, cause = source, "a restart of the router without control would not know the latest routes");
        }
    }
}

/// Writes the table to disk: beside the old one, then in its place.
///
/// # Errors
/// When the disk does not take it; the old one stays.
pub(crate) fn write(table: &Table, path: &Path) -> Result<(), Error> {
    // Another router may be about to do the same: while one takes over from the other.
    let new = path.with_extension(format!("json.{}.new", std::process::id()));
    let written = || -> io::Result<()> {
        // It holds keys. One that was left half written by a crash may have any mode.
        match fs::remove_file(&new) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new)?;
        file.write_all(&serde_json::to_vec(&table.snapshot())?)?;
        file.sync_all()?;
        fs::rename(&new, path)
    };
    written().map_err(|source| Error::Write { path: path.to_owned(), source })
}
