//! Builds: rows, locks and recovery. [`run`] is how one goes from source to release.
//!
//! One build an app at a time: a push that meets another is refused, one asked for through the API waits. Output is
//! stored in the app's directory as it comes ([`super::output`]). A build that the role's end cut off is failed at the
//! next start; nothing resumes it.

pub mod run;

use std::{
    collections::HashMap,
    fs,
    io::Write as _,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use dozen_api::{build::Submodule, logs};
use dozen_domain::{
    buildpack::Reference,
    ids::{AppId, BuildId, SourceId},
};
use serde::Deserialize;
use tokio::sync::{OwnedMutexGuard, OwnedSemaphorePermit, Semaphore};

use super::{
    Error, Result, apps, buildpack_installations, fetch,
    output::{self, Kind, Writer},
    slugs, sources,
};
use crate::{
    Context,
    reconcile::driver::chain,
    store::{
        self, Window,
        accounts::Account,
        apps::App,
        buildpack_installations::Installation,
        builds::{Build, Status},
        releases::Release,
    },
};

/// Begin of the names of builds' files in `tmp`.
const SCRATCH: &str = "build-";

/// Who may build: one an app, so many on the machine.
#[derive(Debug)]
pub struct Building {
    apps: Mutex<HashMap<AppId, Queue>>,
    slots: Arc<Semaphore>,
}

/// One app's queue.
#[derive(Debug, Default)]
struct Queue {
    turn: Arc<tokio::sync::Mutex<()>>,
    /// Builds that have the turn or wait for it.
    builds: usize,
    /// Builds that were asked for and have no turn yet: their source is being fetched, or they wait.
    asked: u64,
}

/// Held by a build that was asked for, until its turn has come.
struct Place {
    context: Context,
    app: AppId,
}

impl Place {
    /// A place among the builds that wait.
    fn take(context: &Context, app: &App) -> Result<Self> {
        let limits = context.limits();
        let mut apps = context.building.apps.lock().unwrap_or_else(PoisonError::into_inner);
        if apps.values().map(|queue| queue.asked).sum::<u64>() >= limits.builds_queued {
            return Err(Error::Conflict(format!(
                "{} builds wait on this platform already. Try again when some have ended.",
                limits.builds_queued
            )));
        }
        let queue = apps.entry(app.id).or_default();
        if queue.asked >= limits.builds_queued_per_app {
            return Err(Error::Conflict(format!(
                "{} builds of {} wait already. Try again when one has ended.",
                limits.builds_queued_per_app, app.name
            )));
        }
        queue.asked += 1;
        Ok(Self { context: context.clone(), app: app.id })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut apps = self.context.building.apps.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(queue) = apps.get_mut(&self.app) {
            queue.asked = queue.asked.saturating_sub(1);
        }
    }
}

/// Held while an app's build runs.
pub struct Turn {
    context: Context,
    app: AppId,
    building: bool,
    /// Held, never looked at.
    guard: Option<OwnedMutexGuard<()>>,
}

impl Building {
    /// So many builds at once.
    pub fn new(concurrent: u64) -> Self {
        let slots = usize::try_from(concurrent).unwrap_or(1).clamp(1, Semaphore::MAX_PERMITS);
        Self { apps: Mutex::default(), slots: Arc::new(Semaphore::new(slots)) }
    }

    /// Whether a build of the app runs, waits, or is being cleared up after.
    pub fn is_busy(&self, app: AppId) -> bool {
        let apps = self.apps.lock().unwrap_or_else(PoisonError::into_inner);
        apps.get(&app).is_some_and(|queue| queue.builds > 0 || queue.turn.try_lock().is_err())
    }

    /// A place among the machine's builds, once one is free.
    pub(super) async fn slot(&self) -> Option<OwnedSemaphorePermit> {
        // The semaphore is never closed.
        self.slots.clone().acquire_owned().await.ok()
    }

    fn enter(&self, app: AppId, only_first: bool) -> Option<Arc<tokio::sync::Mutex<()>>> {
        let mut apps = self.apps.lock().unwrap_or_else(PoisonError::into_inner);
        let queue = apps.entry(app).or_default();
        if only_first && queue.builds > 0 {
            return None;
        }
        queue.builds += 1;
        Some(queue.turn.clone())
    }

    fn leave(&self, app: AppId) {
        let mut apps = self.apps.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(queue) = apps.get_mut(&app) {
            queue.builds = queue.builds.saturating_sub(1);
        }
    }
}

impl Turn {
    /// The app's turn, unless another build has it or waits for it.
    pub async fn take_free(context: &Context, app: AppId) -> Option<Self> {
        let queue = context.building.enter(app, true)?;
        Some(Self::wait(context, app, queue).await)
    }

    /// The app's turn, once builds before this one have ended.
    pub async fn take(context: &Context, app: AppId) -> Option<Self> {
        let queue = context.building.enter(app, false)?;
        Some(Self::wait(context, app, queue).await)
    }

    async fn wait(context: &Context, app: AppId, queue: Arc<tokio::sync::Mutex<()>>) -> Self {
        // Made before the wait, so that giving up waiting leaves the queue too.
        let mut turn = Self { context: context.clone(), app, building: true, guard: None };
        turn.guard = Some(queue.lock_owned().await);
        turn
    }

    /// The build is over; what is still done in this turn does not count as one.
    fn built(&mut self) {
        if std::mem::take(&mut self.building) {
            self.context.building.leave(self.app);
        }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.built();
    }
}

/// A source at hand.
#[derive(Debug)]
pub struct Source {
    /// A tar, plain or gzipped; removed when the build has ended.
    pub path: PathBuf,
    /// Submodules that it names but does not hold.
    pub submodules: Vec<Submodule>,
}

/// Where a build's scratch file belongs.
pub fn scratch(context: &Context, build: BuildId, suffix: &str) -> PathBuf {
    context.settings.data_dir.join("tmp").join(format!("{SCRATCH}{build}{suffix}"))
}

/// Where a build's output is.
pub fn output_path(context: &Context, app: AppId, build: BuildId) -> PathBuf {
    output::path(context, Kind::Build, app, build.0)
}

/// Where clients read a build's output.
pub fn output_url(context: &Context, build: &Build) -> String {
    output::url(context, Kind::Build, build.app, build.id.0)
}

/// Records a build and begins its output.
///
/// # Errors
/// When the database or the disk fails.
pub(crate) async fn begin(context: &Context, build: &Build) -> Result<Writer> {
    let path = output_path(context, build.app, build.id);
    let writer = context.outputs.create(&path, context.limits().build_log_bytes);
    let writer = writer.map_err(|error| Error::platform(format!("write {}", path.display()), error))?;
    let mut db = context.store.write().await?;
    store::builds::insert(&mut db, build).await?;
    db.commit().await?;
    context.log_api(build.app, format!("Build started by user {}", build.email));
    let (stream, app) = (context.clone(), build.app);
    Ok(writer.echoed(move |line| stream.log(app, logs::Source::App, "build", line)))
}

/// A build that is about to begin.
pub(crate) fn fresh(context: &Context, id: BuildId, app: &App, account: &Account, source_url: String) -> Build {
    let now = context.now();
    Build {
        id,
        app: app.id,
        account: account.id,
        email: account.email.clone(),
        status: Status::Pending,
        source_url,
        source_checksum: None,
        source_version: None,
        source_version_description: None,
        buildpacks: Vec::new(),
        stack: apps::STACK.to_owned(),
        slug: None,
        release: None,
        foreign_ms: 0,
        created_at: now,
        updated_at: now,
    }
}

/// What `POST /apps/{app}/builds` asks for.
#[derive(Debug, Deserialize)]
pub struct New {
    /// Where the source is.
    pub source_blob: SourceBlob,
    /// Buildpacks in place of the app's own.
    #[serde(default)]
    pub buildpacks: Option<Vec<Buildpack>>,
}

/// Where a build's source is.
#[derive(Debug, Deserialize)]
pub struct SourceBlob {
    /// `http://`, `https://`, or the `get_url` of a source.
    pub url: String,
    /// `SHA256:…` that it must have.
    #[serde(default)]
    pub checksum: Option<String>,
    /// What the client calls it, usually a commit.
    #[serde(default)]
    pub version: Option<String>,
    /// What the client says of it.
    #[serde(default)]
    pub version_description: Option<String>,
}

/// A buildpack as the API has it: an address, or the name of a registered one.
#[derive(Debug, Deserialize)]
pub struct Buildpack {
    /// Its address.
    #[serde(default)]
    pub url: Option<String>,
    /// Its name.
    #[serde(default)]
    pub name: Option<String>,
}

/// Starts a build from a source blob; it goes on by itself.
///
/// # Errors
/// When address, checksum or a buildpack make no sense, the account may not use the source, too many builds wait, or the
/// database fails.
pub async fn create(context: &Context, account: &Account, app: &App, new: New) -> Result<Build> {
    let blob = new.source_blob;
    let origin = match sources::redeem(context, &blob.url)? {
        Some(source) => Origin::Uploaded(source),
        None => Origin::Address(fetch::check(&blob.url)?),
    };
    let checksum = blob.checksum.as_deref().filter(|sum| !sum.is_empty()).map(fetch::parse_checksum).transpose()?;
    let mut buildpacks = Vec::new();
    for buildpack in new.buildpacks.unwrap_or_default() {
        let text = buildpack.url.or(buildpack.name);
        let text = text.ok_or_else(|| Error::invalid("A buildpack needs a url or a name."))?;
        buildpack_installations::reference(&text, &context.settings.buildpack_dirs)?;
        buildpacks.push(text);
    }
    super::room::check(context)?;
    let place = Place::take(context, app)?;
    let mut build = fresh(context, BuildId::random(), app, account, blob.url);
    build.source_checksum = blob.checksum;
    build.source_version = blob.version.filter(|version| !version.is_empty());
    build.source_version_description = blob.version_description;
    build.buildpacks = buildpacks;
    let writer = begin(context, &build).await?;
    let (context, app, account, asked) = (context.clone(), app.clone(), account.clone(), build.clone());
    tokio::spawn(async move {
        let job = run::Job::new(context.clone(), app, account, asked, writer);
        let path = scratch(&context, job.build.id, ".tgz");
        let had = match &origin {
            Origin::Uploaded(source) => sources::copy(&context, *source, &path).await,
            Origin::Address(url) => fetch::to_file(&context, url, &path, context.limits().source_bytes).await,
        };
        let had = match (had, checksum) {
            (Ok(()), Some(checksum)) => fetch::verify(&path, checksum).await,
            (had, _) => had,
        };
        match had {
            Ok(()) => {
                if let Some(turn) = Turn::take(&context, job.build.app).await {
                    drop(place);
                    job.run(Source { path, submodules: Vec::new() }, turn).await;
                }
            }
            Err(error) => {
                let _ = tokio::fs::remove_file(&path).await;
                if error.is_ours() {
                    tracing::error!(build = %job.build.id, error = %chain(&error), "cannot have the source of a build");
                }
                job.fail(&error.answer().message).await;
            }
        }
    });
    Ok(build)
}

enum Origin {
    Uploaded(SourceId),
    Address(http::Uri),
}

/// The buildpacks of a build: those it asked for, else the app's.
async fn buildpacks(context: &Context, build: &Build) -> Result<Vec<Reference>> {
    // Looked at again: the operator may have changed what is listed.
    let reference = |text: &String| buildpack_installations::reference(text, &context.settings.buildpack_dirs);
    if !build.buildpacks.is_empty() {
        return build.buildpacks.iter().map(reference).collect();
    }
    let installed = store::buildpack_installations::of_app(&mut *context.store.read().await?, build.app).await?;
    installed.iter().map(|Installation { url, .. }| reference(url)).collect()
}

/// A part of an app's builds.
///
/// # Errors
/// When the database fails.
pub async fn list(context: &Context, app: AppId, window: &Window) -> Result<Vec<Build>> {
    Ok(store::builds::window(&mut *context.store.read().await?, app, window).await?)
}

/// An app's build.
///
/// # Errors
/// When there is none or the database fails.
pub async fn find(context: &Context, app: AppId, id: &str) -> Result<Build> {
    let id: BuildId = id.parse().map_err(|_| Error::NotFound("build"))?;
    let found = store::builds::by_id(&mut *context.store.read().await?, id).await?;
    found.filter(|build| build.app == app).ok_or(Error::NotFound("build"))
}

/// The release that runs a pushed commit, or is about to, when its build is the newest that succeeded: then another push
/// of it (to the other of `main` and `master`, or again after a push that broke off once it was built) has nothing to do.
///
/// # Errors
/// When the database fails.
pub async fn released(context: &Context, app: AppId, commit: &str) -> Result<Option<Release>> {
    let mut db = context.store.read().await?;
    let Some(build) = store::builds::newest_succeeded(&mut db, app).await? else { return Ok(None) };
    let pushed = build.source_url.starts_with(&apps::git_host(context)) && build.source_url.ends_with(commit);
    if !pushed || build.source_version.as_deref() != Some(commit) || build.slug.is_none() {
        return Ok(None);
    }
    let newest = store::releases::newest_not_failed(&mut db, app).await?;
    Ok(newest.filter(|release| release.slug == build.slug && release.slug_kept))
}

/// Throws an app's build caches away.
///
/// # Errors
/// When the artefact store fails.
pub async fn purge_cache(context: &Context, app: AppId) -> Result<()> {
    let purged = context.builds.purge_cache(app).await;
    purged.map_err(|error| Error::platform("purge the build cache", error))
}

/// Forgets what is older than the newest `builds_kept` builds and releases of an app: builds with their outputs, and
/// outputs of release commands. Files go by what is in the database afterwards, so doing it again mends what a kill left.
///
/// # Errors
/// When the database or the disk fails.
pub async fn forget(context: &Context, app: AppId) -> Result<u64> {
    let keep = i64::try_from(context.limits().builds_kept).unwrap_or(i64::MAX);
    let mut db = context.store.write().await?;
    let forgotten = store::builds::forget(&mut db, app, keep).await?;
    db.commit().await?;
    let mut db = context.store.read().await?;
    let builds = store::builds::ids(&mut db, app).await?.into_iter().map(|id| id.0).collect();
    let releases = store::releases::newest_ids(&mut db, app, keep).await?.into_iter().map(|id| id.0).collect();
    drop(db);
    let context = context.clone();
    let removed = tokio::task::spawn_blocking(move || {
        output::retain(&context, Kind::Build, app, &builds)?;
        output::retain(&context, Kind::Release, app, &releases)
    });
    let failed = |error| Error::platform("remove old outputs", error);
    removed.await.map_err(|error| failed(std::io::Error::other(error)))?.map_err(failed)?;
    Ok(forgotten)
}

/// Fails builds that the role's last end cut off, and removes what they left in `tmp`. Called once, at start.
///
/// # Errors
/// When the database fails.
pub async fn recover(context: &Context) -> Result<()> {
    let mut db = context.store.write().await?;
    for mut build in store::builds::pending(&mut db).await? {
        build.status = Status::Failed;
        build.updated_at = context.now();
        store::builds::update(&mut db, &build).await?;
        let path = output_path(context, build.app, build.id);
        let line = "\n !     The platform was restarted during this build. Nothing was released; push again.\n";
        let added = fs::OpenOptions::new().append(true).create(true).open(&path);
        if let Err(error) = added.and_then(|mut file| file.write_all(line.as_bytes())) {
            tracing::warn!(path = %path.display(), %error, "cannot add to the output of a build");
        }
    }
    db.commit().await?;
    remove_scratch(&context.settings.data_dir.join("tmp"));
    sources::sweep(context);
    slugs::sweep(context);
    Ok(())
}

fn remove_scratch(directory: &Path) {
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        if entry.file_name().to_string_lossy().starts_with(SCRATCH) {
            let _ = fs::remove_file(entry.path());
        }
    }
}
