//! Which shims there are, and that each with output for an app's stream is read by one reader.
//!
//! Dynos are announced, found by a scan at the start, and by one every few seconds in case an announcement was lost.

use std::{
    collections::{HashMap, HashSet},
    fs, io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use dozen_api::{
    clock,
    logs::Source,
    shim::{Lost, Record},
};
use dozen_domain::{
    codes::Code,
    ids::{AppId, DynoId},
};

use crate::{
    Role,
    batch::{Batch, Mark, Producer},
    reader,
};

/// The position of a dyno of whose output nothing more will come, because the rest was told to be lost.
pub(crate) const LOST: u64 = u64::MAX;

/// The dynos whose directories were seen, with the app in whose stream their output belongs.
pub(crate) struct Shims {
    directory: PathBuf,
    known: Mutex<HashMap<DynoId, Option<AppId>>>,
}

impl Shims {
    /// None yet; `directory` is `run/dynos`.
    pub(crate) fn new(directory: PathBuf) -> Self {
        Self { directory, known: Mutex::default() }
    }

    fn known(&self) -> MutexGuard<'_, HashMap<DynoId, Option<AppId>>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Begins to read a dyno's output, unless that is done or it has none to store. Without its directory nothing happens:
/// a scan will find it.
pub(crate) fn add(role: &Arc<Role>, dyno: DynoId) {
    let mut known = role.shims.known();
    if known.contains_key(&dyno) {
        return;
    }
    let directory = role.shims.directory.join(dyno.to_string());
    let record = match read_record(&directory) {
        Ok(record) => record,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return, // not written yet
        Err(error) => {
            tracing::warn!(%dyno, %error, "cannot read what a dyno's shim says of itself");
            return;
        }
    };
    known.insert(dyno, record.logged.then_some(record.app));
    drop(known);
    if record.logged {
        let role = role.clone();
        tokio::spawn(async move {
            let stop = role.stop.clone();
            tokio::select! {
                () = stop.cancelled() => {}
                () = reader::run(role, record, directory) => {}
            }
        });
    }
}

fn read_record(directory: &Path) -> io::Result<Record> {
    Ok(serde_json::from_slice(&fs::read(directory.join("dyno.json"))?)?)
}

/// Looks which dynos there are: begins to read new ones, forgets those that are gone.
pub(crate) async fn scan(role: &Arc<Role>) {
    let before: Vec<(DynoId, Option<AppId>)> = role.shims.known().iter().map(|(dyno, app)| (*dyno, *app)).collect();
    let present = match list(&role.shims.directory) {
        Ok(present) => present,
        Err(error) => {
            tracing::warn!(directory = %role.shims.directory.display(), %error, "cannot look for dynos");
            return;
        }
    };
    for dyno in &present {
        add(role, *dyno);
        tokio::task::yield_now().await;
    }
    tell_lost(role);
    for (dyno, app) in before.into_iter().filter(|(dyno, _)| !present.contains(dyno)) {
        role.shims.known().remove(&dyno);
        if let Some(app) = app {
            role.channels.channel(app).forget(Producer::Dyno(dyno.0));
        }
    }
}

/// Tells (L13) what shims have left word of: output that was not stored while there was time for it.
fn tell_lost(role: &Role) {
    let entries = fs::read_dir(&role.shims.directory).into_iter().flatten().flatten();
    for path in entries.map(|entry| entry.path()).filter(|path| path.extension().is_some_and(|e| e == Lost::EXTENSION))
    {
        let dyno = path.file_stem().and_then(|name| name.to_str()?.parse::<DynoId>().ok());
        let lost = fs::read(&path).ok().and_then(|text| serde_json::from_slice::<Lost>(&text).ok());
        if let (Some(dyno), Some(lost)) = (dyno, lost) {
            let channel = role.channels.channel(lost.app);
            channel.append(&loss(
                dyno,
                &format!("{} bytes of {} lost since {}.", lost.bytes, lost.name, clock::rfc3339_micros(lost.since)),
            ));
            channel.forget(Producer::Dyno(dyno.0));
        }
        if let Err(error) = fs::remove_file(&path) {
            tracing::warn!(path = %path.display(), %error, "cannot remove a dyno's last word");
        }
    }
}

/// A line that says what of a dyno's output is lost, stored once however often it is given.
pub(crate) fn loss(dyno: DynoId, what: &str) -> Batch {
    let mark = Some(Mark { producer: Producer::Dyno(dyno.0), position: LOST });
    let mut batch = Batch { mark, ..Batch::default() };
    batch.push(clock::now(), Source::App, "log-shuttle", format!("Error {}: {what}", Code::L13).as_bytes());
    batch
}

fn list(directory: &Path) -> io::Result<HashSet<DynoId>> {
    let entries = match fs::read_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(HashSet::new()),
        entries => entries?,
    };
    let mut dynos = HashSet::new();
    for entry in entries {
        dynos.extend(entry?.file_name().to_str().and_then(|name| name.parse::<DynoId>().ok()));
    }
    Ok(dynos)
}
