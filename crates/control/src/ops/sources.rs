//! Source blobs that clients upload before they ask for a build: a place, an address to put, an address to get.
//!
//! The addresses carry their own secret and end after a while; the file goes with them.

use std::path::{Path, PathBuf};

use axum::body::BodyDataStream;
use dozen_api::clock::Micros;
use dozen_domain::ids::SourceId;
use tokio::fs;

use super::{
    Error, Result, room,
    upload::{self, Part},
};
use crate::{
    Context,
    auth::ticket::{self, Refused},
    origin,
    store::{self, accounts::Account, sources::Source},
};

const GET: &str = "source-get";
const PUT: &str = "source-put";

/// A place for an upload and its two addresses.
#[derive(Debug, Clone)]
pub struct Addresses {
    /// Where to read it, or what to name in a build's `source_blob`.
    pub get_url: String,
    /// Where to put it.
    pub put_url: String,
}

fn path(context: &Context, id: SourceId) -> PathBuf {
    context.settings.data_dir.join("sources").join(format!("{id}.tgz"))
}

/// Makes a place for an upload.
///
/// # Errors
/// When the database fails.
pub async fn create(context: &Context, account: &Account) -> Result<Addresses> {
    let now = context.now();
    let life = Micros::try_from(context.limits().source_seconds).unwrap_or(Micros::MAX).saturating_mul(1_000_000);
    let expires_at = now.saturating_add(life);
    let source = Source { id: SourceId::random(), account: account.id, size: None, created_at: now, expires_at };
    let mut db = context.store.write().await?;
    store::sources::insert(&mut db, &source).await?;
    db.commit().await?;
    let url = |purpose| {
        let ticket = ticket::issue(&context.keys.ticket, purpose, expires_at, &source.id);
        format!("{}/sources/{}.tgz?ticket={ticket}", origin::url(&context.settings), source.id)
    };
    Ok(Addresses { get_url: url(GET), put_url: url(PUT) })
}

fn granted(context: &Context, purpose: &str, ticket: &str) -> Result<SourceId> {
    ticket::redeem(&context.keys.ticket, purpose, context.now(), ticket).map_err(|refused| match refused {
        Refused::Expired => Error::Gone("This address has expired. Ask for a new source.".to_owned()),
        Refused::Invalid => Error::NotFound("source"),
    })
}

/// Removes what uploads left that the role did not survive. Called before the first request.
pub(super) fn sweep(context: &Context) {
    upload::sweep(&context.settings.data_dir.join("sources"));
}

/// Stores an upload.
///
/// # Errors
/// When the ticket is not good, the upload too large or broken off, or the disk fails.
pub async fn put(context: &Context, ticket: &str, body: BodyDataStream) -> Result<()> {
    let id = granted(context, PUT, ticket)?;
    room::check(context)?;
    let path = path(context, id);
    // Removed by being dropped: a client that goes away drops all of this.
    let part = Part::beside(&path);
    let size = upload::receive(body, &part.0, context.limits().source_bytes, "A source").await?;
    fs::rename(&part.0, &path).await.map_err(|error| Error::platform(format!("write {}", path.display()), error))?;
    let mut db = context.store.write().await?;
    store::sources::set_size(&mut db, id, i64::try_from(size).unwrap_or(i64::MAX)).await?;
    db.commit().await?;
    Ok(())
}

/// Opens an upload for reading.
///
/// # Errors
/// When the ticket is not good or nothing was uploaded.
pub async fn get(context: &Context, ticket: &str) -> Result<fs::File> {
    let id = granted(context, GET, ticket)?;
    fs::File::open(path(context, id)).await.map_err(|_| Error::NotFound("source"))
}

/// The source that a build's address names, when it is one of ours.
///
/// # Errors
/// When it is ours and no longer good.
pub fn redeem(context: &Context, url: &str) -> Result<Option<SourceId>> {
    let Some((_, rest)) = url.split_once("/sources/") else { return Ok(None) };
    let Some((_, ticket)) = rest.split_once("?ticket=") else { return Ok(None) };
    match granted(context, GET, ticket) {
        Ok(id) => Ok(Some(id)),
        Err(error @ Error::Gone(_)) => Err(error),
        // Somebody else's address may look like ours.
        Err(_) => Ok(None),
    }
}

/// Copies an upload for a build.
///
/// # Errors
/// When nothing was uploaded or the disk fails.
pub async fn copy(context: &Context, id: SourceId, to: &Path) -> Result<()> {
    let from = path(context, id);
    if !fs::try_exists(&from).await.unwrap_or(false) {
        return Err(Error::invalid("Nothing was uploaded to this source: PUT it to its put_url first."));
    }
    let copied = fs::copy(from, to).await;
    copied.map(drop).map_err(|error| Error::platform(format!("write {}", to.display()), error))
}

/// Removes uploads whose addresses have ended.
///
/// # Errors
/// When the database fails.
pub async fn expire(context: &Context) -> Result<usize> {
    let mut db = context.store.write().await?;
    let expired = store::sources::expired(&mut db, context.now()).await?;
    for id in &expired {
        match fs::remove_file(path(context, *id)).await {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(Error::platform("remove an expired source", error));
            }
            _ => store::sources::delete(&mut db, *id).await?,
        }
    }
    db.commit().await?;
    remove_strangers(context).await?;
    Ok(expired.len())
}

/// Removes uploads whose rows went with their accounts.
async fn remove_strangers(context: &Context) -> Result<()> {
    let failed = |error| Error::platform("remove the sources of accounts that are gone", error);
    let mut entries = match fs::read_dir(context.settings.data_dir.join("sources")).await {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        entries => entries.map_err(failed)?,
    };
    while let Some(entry) = entries.next_entry().await.map_err(failed)? {
        let name = entry.file_name();
        let id = name.to_str().and_then(|name| name.strip_suffix(".tgz")).and_then(|id| id.parse().ok());
        let Some(id) = id else { continue };
        // Looked up after the file was seen: a row comes before its file.
        if store::sources::by_id(&mut *context.store.read().await?, id).await?.is_none() {
            fs::remove_file(entry.path()).await.map_err(failed)?;
        }
    }
    Ok(())
}
