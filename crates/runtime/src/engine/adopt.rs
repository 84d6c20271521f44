//! Finds the dynos that run already, and clears away what is left of those that do not.

use std::{collections::HashSet, fs, io, path::PathBuf, sync::Arc};

use dozen_api::{
    clock,
    logs::{Line, Source},
    shim::{Command, Event, Record},
};
use dozen_domain::ids::DynoId;

use super::{
    entry::{Entry, key, kind},
    host::Host,
    link,
};
use crate::shim::{EXIT, RECORD};

/// A dyno that was found.
pub(super) struct Found {
    pub(super) entry: Entry,
    /// What has happened to it so far.
    pub(super) events: Vec<Event>,
    /// Its shim, unless that has ended and left only its last word.
    pub(super) link: Option<link::Found>,
}

/// Looks into `run/dynos` and asks every shim there for its present state. What has no shim any more (its machine was
/// restarted, or it was killed, and its dyno with it) is removed; so are builds, for nobody waits for them now.
pub(super) async fn scan(host: &Arc<Host>) -> io::Result<Vec<Found>> {
    let mut asked = Vec::new();
    let mut known = HashSet::new();
    for entry in fs::read_dir(host.dynos())? {
        let directory = entry?.path();
        let Some(dyno) = id(&directory) else { continue };
        known.insert(dyno);
        let host = host.clone();
        asked.push(tokio::spawn(async move { ask(&host, dyno, directory).await }));
    }
    let mut found = Vec::new();
    for answer in asked {
        found.extend(answer.await.map_err(io::Error::other)?);
    }
    // Only of what a former process left: builds and dynos may have begun meanwhile.
    for scratch in &host.found {
        if id(scratch).is_some_and(|dyno| !known.contains(&dyno)) {
            let scratch = scratch.clone();
            tokio::task::spawn_blocking(move || crate::artefacts::remove_tree(&scratch));
        }
    }
    Ok(found)
}

fn id(path: &std::path::Path) -> Option<DynoId> {
    path.file_name()?.to_str()?.parse().ok()
}

async fn ask(host: &Arc<Host>, dyno: DynoId, directory: PathBuf) -> Option<Found> {
    let record = fs::read(directory.join(RECORD)).ok().and_then(|bytes| serde_json::from_slice::<Record>(&bytes).ok());
    let link = link::find(&directory).await.ok();
    let exit = fs::read(directory.join(EXIT)).ok().and_then(|bytes| serde_json::from_slice::<Event>(&bytes).ok());
    let built = record.as_ref().is_some_and(|r| r.engine.get(key::KIND).is_some_and(|k| k == kind::BUILD));
    if let (Some(link), true) = (link.as_ref(), built) {
        end_build(host, dyno, directory, link.events.clone()).await;
        return None;
    }
    let entry = record.as_ref().and_then(|record| Entry::found(record, directory, &host.options.limits));
    match (entry, link, exit) {
        (Some(entry), Some(mut link), _) => {
            if let Some(number) = record.as_ref().and_then(|r| r.engine.get(key::LEASE)).and_then(|n| n.parse().ok()) {
                host.network.claim(dyno, number);
            }
            let events = std::mem::take(&mut link.events);
            Some(Found { entry, events, link: Some(link) })
        }
        (Some(entry), None, Some(exit)) => Some(Found { entry, events: vec![exit], link: None }),
        (Some(mut entry), None, None) => {
            let (app, at, process) = (entry.dyno.app, clock::now(), entry.dyno.name.to_string());
            for text in entry.lost() {
                let process = process.clone();
                host.options.logs.send(Line { app, at, source: Source::Heroku, process, text });
            }
            host.clean_later(dyno);
            None
        }
        _ => {
            host.clean_later(dyno);
            None
        }
    }
}

/// Kills a build that was under way, and clears up when its shim is gone.
async fn end_build(host: &Arc<Host>, dyno: DynoId, directory: PathBuf, events: Vec<Event>) {
    let (messages, mut heard) = tokio::sync::mpsc::channel(16);
    let commands = link::keep(directory, None, link::into(messages));
    let host = host.clone();
    tokio::spawn(async move {
        if !events.iter().any(|event| matches!(event, Event::Exited { .. })) {
            let _ = commands.send(Command::Signal(libc::SIGKILL)).await;
        }
        let _ = commands.send(Command::Forget).await;
        while let Some(link::Heard::Event(_)) = heard.recv().await {}
        host.clean_later(dyno);
    });
}
