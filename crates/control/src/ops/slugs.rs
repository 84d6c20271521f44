//! Slugs: what builds made or clients brought, their archives, and which of them may go.
//!
//! A slug that a client makes is a row first, then an archive that is put to an address with its own secret and ticket's
//! end, and becomes an image here; only then can it be released. The archive is kept as it came, so that whoever gets it
//! gets the bytes of its checksum. The archive of a built slug is made when it is asked for, the same each time; the first
//! who asks for the slug has it made for its checksum.

use std::{
    collections::HashSet,
    path::{Path, PathBuf},
};

use axum::body::BodyDataStream;
use dozen_api::{build, clock::Micros};
use dozen_domain::{
    ids::{AppId, SlugId},
    image::{BuildResult, Digest, ProcessTypes},
};
use serde::Deserialize;
use serde_json::{Map, Value};
use tokio::fs;

use super::{
    Error, Result, apps,
    builds::Turn,
    fetch, room, stacks,
    upload::{self, Part},
};
use crate::{
    Context,
    auth::ticket::{self, Refused},
    origin,
    reconcile::driver::chain,
    store::{self, accounts::Account, slugs::Slug},
};

/// Releases whose slugs are never removed: what `heroku releases` can list and roll back to.
const LISTED: i64 = 50;
const GET: &str = "slug-get";
const PUT: &str = "slug-put";

/// An app's slug, with the checksum of its archive.
///
/// # Errors
/// When there is none or the database fails.
pub async fn find(context: &Context, app: AppId, id: &str) -> Result<Slug> {
    let id: SlugId = id.parse().map_err(|_| Error::NotFound("slug"))?;
    let found = store::slugs::by_id(&mut *context.store.read().await?, id).await?;
    let mut slug = found.filter(|slug| slug.app == app).ok_or(Error::NotFound("slug"))?;
    if let (None, None, Some(image)) = (&slug.checksum, slug.deleted_at, &slug.image) {
        match exported(context, &slug, image).await {
            Ok((_, checksum)) => slug.checksum = Some(checksum),
            // What is known of it is still worth an answer; only that stays open.
            Err(error) => tracing::warn!(slug = %slug.id, error = %chain(&error), "cannot tell a slug's checksum"),
        }
    }
    Ok(slug)
}

/// Makes the archive of a built slug, opens it, and has its checksum on record. It is gone once it is closed.
async fn exported(context: &Context, slug: &Slug, image: &Digest) -> Result<(fs::File, String)> {
    let slot = context.building.slot().await;
    let part = scratch(context, slug.id);
    upload::make_directory(&part.0).await?;
    let exported = context.builds.export(slug.app, image, &part.0).await;
    exported.map_err(|error| Error::platform("make the archive of a slug", error))?;
    let checksum = fetch::shown_checksum(fetch::checksum(&part.0).await?);
    let file = fs::File::open(&part.0).await;
    let file = file.map_err(|error| Error::platform("read the archive of a slug", error))?;
    drop((slot, part));
    // Another version of the platform may have packed it in another way.
    if slug.checksum.as_ref() != Some(&checksum) {
        let mut db = context.store.write().await?;
        store::slugs::set_checksum(&mut db, slug.id, &checksum).await?;
        db.commit().await?;
    }
    Ok((file, checksum))
}

/// What `POST /apps/{app}/slugs` says of a slug that is to come.
#[derive(Debug, Deserialize)]
pub struct New {
    /// Commands by process type.
    pub process_types: Map<String, Value>,
    /// What the client built it with.
    #[serde(default)]
    pub buildpack_provided_description: Option<String>,
    /// `SHA256:…` that the archive must have.
    #[serde(default)]
    pub checksum: Option<String>,
    /// Commit of the source.
    #[serde(default)]
    pub commit: Option<String>,
    /// First line of its message.
    #[serde(default)]
    pub commit_description: Option<String>,
    /// Name or id of its stack.
    #[serde(default)]
    pub stack: Option<String>,
}

/// Announces a slug: its archive is to be put to [`blob`]'s address.
///
/// # Errors
/// When process types, checksum or stack make no sense, or the database fails.
pub async fn create(context: &Context, account: &Account, app: AppId, new: New) -> Result<Slug> {
    stacks::check(new.stack.as_deref())?;
    let given = |text: Option<String>| text.filter(|text| !text.is_empty());
    let checksum = given(new.checksum);
    checksum.as_deref().map(fetch::parse_checksum).transpose()?;
    let now = context.now();
    let slug = Slug {
        id: SlugId::random(),
        app,
        image: None,
        checksum,
        commit: given(new.commit),
        commit_description: given(new.commit_description),
        buildpack_description: given(new.buildpack_provided_description),
        process_types: process_types(new.process_types)?,
        launch_env: Default::default(),
        health_check: None,
        layers: Vec::new(),
        size: None,
        stack: apps::STACK.to_owned(),
        created_at: now,
        updated_at: now,
        deleted_at: None,
    };
    let mut db = context.store.write().await?;
    store::slugs::insert(&mut db, &slug).await?;
    db.commit().await?;
    context.log_api(app, format!("Slug {} created by user {}", slug.id, account.email));
    Ok(slug)
}

fn process_types(given: Map<String, Value>) -> Result<ProcessTypes> {
    let one = |(name, command): (String, Value)| match command {
        Value::String(command) if !command.trim().is_empty() && !command.contains('\0') => Ok((name.parse()?, command)),
        _ => Err(Error::invalid(format!("process_types: {name} must have a command."))),
    };
    let types = given.into_iter().map(one).collect::<Result<ProcessTypes>>()?;
    if types.is_empty() {
        return Err(Error::invalid(
            "process_types must name a process type with its command, like {\"web\": \"./serve\"}.",
        ));
    }
    Ok(types)
}

/// How a slug's archive is had: method and address. The address carries its own secret and ends after a while.
pub fn blob(context: &Context, slug: &Slug) -> (&'static str, String) {
    let life = Micros::try_from(context.limits().slug_url_seconds).unwrap_or(Micros::MAX).saturating_mul(1_000_000);
    let (method, purpose) = if slug.image.is_some() || slug.deleted_at.is_some() { ("GET", GET) } else { ("PUT", PUT) };
    let ticket = ticket::issue(&context.keys.ticket, purpose, context.now().saturating_add(life), &slug.id);
    (method, format!("{}/slugs/{}.tgz?ticket={ticket}", origin::url(&context.settings), slug.id))
}

async fn granted(context: &Context, purpose: &str, ticket: &str) -> Result<Slug> {
    let id: SlugId =
        ticket::redeem(&context.keys.ticket, purpose, context.now(), ticket).map_err(|refused| match refused {
            Refused::Expired => Error::Gone("This address has expired. Ask for the slug's blob again.".to_owned()),
            Refused::Invalid => Error::NotFound("slug"),
        })?;
    let slug = store::slugs::by_id(&mut *context.store.read().await?, id).await?.ok_or(Error::NotFound("slug"))?;
    if slug.deleted_at.is_some() {
        return Err(Error::Gone("This slug was removed to save space.".to_owned()));
    }
    Ok(slug)
}

/// Where the archive of an uploaded slug is kept.
fn path(context: &Context, app: AppId, id: SlugId) -> PathBuf {
    directory(context, app).join(format!("{id}.tgz"))
}

fn directory(context: &Context, app: AppId) -> PathBuf {
    context.settings.data_dir.join("apps").join(app.to_string()).join("slugs")
}

fn scratch(context: &Context, id: SlugId) -> Part {
    Part::beside(&context.settings.data_dir.join("tmp").join(format!("slug-{id}")))
}

/// Removes what uploads left that the role did not survive. Called before the first request.
pub(super) fn sweep(context: &Context) {
    upload::sweep(&context.settings.data_dir.join("tmp"));
}

/// Takes a slug's archive and makes its image.
///
/// # Errors
/// When the ticket is not good, the slug has its archive already, what comes is no slug or too large or another than its
/// checksum says; or the database, the disk or the artefact store fails. The slug stays as it was: it may be put again.
pub async fn put(context: &Context, ticket: &str, body: BodyDataStream) -> Result<()> {
    const TAKEN: &str = "This slug has its blob already. Create another slug for another one.";
    let slug = granted(context, PUT, ticket).await?;
    if slug.image.is_some() {
        return Err(Error::Conflict(TAKEN.to_owned()));
    }
    room::check(context)?;
    let part = scratch(context, slug.id);
    let size = upload::receive(body, &part.0, context.limits().slug_bytes, "A slug").await?;
    let checksum = fetch::checksum(&part.0).await?;
    if let Some(expected) = slug.checksum.as_deref().map(fetch::parse_checksum).transpose()?
        && expected != checksum
    {
        return Err(Error::invalid(
            "The blob does not have the checksum that its slug was created with. Put it again.",
        ));
    }
    // From here to the row no build of the app removes images that no row names.
    let turn = Turn::take(context, slug.app).await;
    let _slot = context.building.slot().await;
    // The app may have been destroyed meanwhile, or somebody else been faster.
    let mut slug = granted(context, PUT, ticket).await?;
    if slug.image.is_some() {
        return Err(Error::Conflict(TAKEN.to_owned()));
    }
    let result = BuildResult {
        language: slug.buildpack_description.clone().unwrap_or_default(),
        detected: None,
        process_types: slug.process_types.clone(),
        launch_env: Default::default(),
        config_defaults: Default::default(),
        layers: Vec::new(),
        cron: None,
        health_check: None,
    };
    let built = context.builds.import(slug.app, &part.0, result).await.map_err(|error| match error {
        build::Error::Archive(why) => Error::Invalid(why),
        build::Error::Limit(why) => Error::TooLarge(why),
        error => Error::platform("make an image of a slug", error),
    })?;
    slug.image = Some(built.image);
    slug.layers = built.layers;
    slug.size = i64::try_from(size).ok();
    slug.checksum = Some(fetch::shown_checksum(checksum));
    slug.updated_at = context.now();
    keep(&part.0, &path(context, slug.app, slug.id)).await?;
    let mut db = context.store.write().await?;
    if !store::slugs::set_blob(&mut db, &slug).await? {
        return Err(Error::NotFound("slug"));
    }
    db.commit().await?;
    drop(turn);
    Ok(())
}

async fn keep(part: &Path, path: &Path) -> Result<()> {
    let failed = |error| Error::platform(format!("write {}", path.display()), error);
    if let Some(directory) = path.parent() {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(directory).await.map_err(failed)?;
    }
    fs::rename(part, path).await.map_err(failed)
}

/// Opens a slug's archive; answers its size as well.
///
/// # Errors
/// When the ticket is not good, the slug is gone, or its archive cannot be made.
pub async fn get(context: &Context, ticket: &str) -> Result<(fs::File, u64)> {
    let slug = granted(context, GET, ticket).await?;
    let image = slug.image.as_ref().ok_or(Error::NotFound("slug"))?;
    let failed = |error| Error::platform("read the archive of a slug", error);
    let file = match fs::File::open(path(context, slug.app, slug.id)).await {
        Ok(file) => file,
        Err(_) => exported(context, &slug, image).await?.0,
    };
    let size = file.metadata().await.map_err(failed)?.len();
    Ok((file, size))
}

/// Removes kept archives of slugs that are not among these.
async fn remove_archives(context: &Context, app: AppId, keep: &[Slug]) -> Result<()> {
    let directory = directory(context, app);
    let failed = |error| Error::platform(format!("remove old archives from {}", directory.display()), error);
    let mut entries = match fs::read_dir(&directory).await {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        entries => entries.map_err(failed)?,
    };
    while let Some(entry) = entries.next_entry().await.map_err(failed)? {
        let name = entry.file_name();
        if !keep.iter().any(|slug| name.to_str() == Some(&format!("{}.tgz", slug.id))) {
            fs::remove_file(entry.path()).await.map_err(failed)?;
        }
    }
    Ok(())
}

/// Removes images that no release within the limit needs. Call it while no build of the app runs.
///
/// The rows are marked first, so that nobody rolls back to an image that is about to go.
///
/// # Errors
/// When the database or the artefact store fails; the next build tries again.
pub async fn prune(context: &Context, app: AppId) -> Result<()> {
    let mut db = context.store.write().await?;
    let slugs = store::slugs::kept(&mut db, app).await?;
    let most = i64::try_from(context.limits().slugs_kept_releases).unwrap_or(i64::MAX);
    let needed: HashSet<SlugId> =
        store::releases::needed_slugs(&mut db, app, LISTED, most).await?.into_iter().collect();
    let released: HashSet<SlugId> = store::releases::released_slugs(&mut db, app).await?.into_iter().collect();
    let now = context.now();
    let patience = Micros::try_from(context.limits().slug_unreleased_seconds).unwrap_or(Micros::MAX);
    let since = now.saturating_sub(patience.saturating_mul(1_000_000));
    // A slug that was never released may be on its way to be.
    let waits = |slug: &Slug| !released.contains(&slug.id) && slug.created_at > since;
    let (keep, remove): (Vec<_>, Vec<_>) = slugs.into_iter().partition(|slug| needed.contains(&slug.id) || waits(slug));
    if remove.is_empty() {
        return Ok(());
    }
    for slug in &remove {
        store::slugs::mark_deleted(&mut db, slug.id, now).await?;
    }
    db.commit().await?;
    remove_archives(context, app, &keep).await?;
    let images: Vec<Digest> = keep.into_iter().filter_map(|slug| slug.image).collect();
    context.builds.retain(app, &images).await.map_err(|error| Error::platform("remove old images", error))
}
