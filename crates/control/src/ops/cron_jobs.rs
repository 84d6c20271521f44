//! Timed jobs of apps: making, changing, running by hand, and what became of their runs.

use std::path::PathBuf;

use dozen_domain::{
    cron::{self, Asked, Job},
    ids::{AppId, CronJobId},
};
use serde::Deserialize;
use sqlx::SqliteConnection;

use super::{
    Error, Result,
    output::{self, Kind},
};
use crate::{
    cron as clock,
    state::Context,
    store::{
        self,
        accounts::Account,
        apps::App,
        cron_jobs::{Cause, CronJob, CronRun},
    },
};

impl From<cron::Invalid> for Error {
    fn from(error: cron::Invalid) -> Self {
        let text = error.to_string();
        let mut letters = text.chars();
        let first = letters.next().map(|first| first.to_ascii_uppercase());
        Self::Invalid(first.into_iter().chain(letters).chain(['.']).collect())
    }
}

/// What may be changed of a job; what is missing stays.
#[derive(Debug, Default, Deserialize)]
pub struct Change {
    /// A new name.
    pub name: Option<String>,
    /// When.
    pub schedule: Option<String>,
    /// What.
    pub command: Option<String>,
    /// In which time zone.
    pub timezone: Option<String>,
    /// How large a dyno.
    pub size: Option<String>,
    /// When the run before has not ended.
    pub overlap: Option<String>,
    /// When its time passed while the platform was not running.
    pub missed: Option<String>,
    /// Whether it is not to be run by its schedule.
    pub paused: Option<bool>,
}

/// An app's jobs by name.
///
/// # Errors
/// When the database fails.
pub async fn list(context: &Context, app: &App) -> Result<Vec<CronJob>> {
    Ok(store::cron_jobs::of_app(&mut *context.store.read().await?, app.id).await?)
}

/// One of an app's jobs, by name or id.
///
/// # Errors
/// When there is none or the database fails.
pub async fn find(context: &Context, app: &App, identity: &str) -> Result<CronJob> {
    let is = |one: &CronJob| one.job.name == identity || one.id.to_string() == identity;
    list(context, app).await?.into_iter().find(is).ok_or(Error::NotFound("cron_job"))
}

/// Makes a job.
///
/// # Errors
/// When it breaks a rule, its name is taken, there are too many, or the database fails.
pub async fn create(context: &Context, app: &App, actor: &Account, asked: &Asked) -> Result<CronJob> {
    let job = asked.check()?;
    let mut db = context.store.write().await?;
    let most = context.limits().cron_jobs_per_app;
    if store::cron_jobs::of_app(&mut db, app.id).await?.len() as u64 >= most {
        return Err(Error::Invalid(format!("An app may have {most} cron jobs at most.")));
    }
    let one = fresh(context, app.id, job, false);
    put(&mut db, &one).await?;
    db.commit().await?;
    context.log_api(app.id, format!("Create cron job {} ({}) by user {}", one.job.name, one.job.schedule, actor.email));
    context.cron.ring();
    Ok(one)
}

fn fresh(context: &Context, app: AppId, job: Job, managed: bool) -> CronJob {
    let now = context.now();
    let id = CronJobId::random();
    let mut one = CronJob { id, app, job, paused: false, managed, next_at: None, created_at: now, updated_at: now };
    one.next_at = clock::next(&one, now);
    one
}

async fn put(db: &mut SqliteConnection, one: &CronJob) -> Result<()> {
    match store::cron_jobs::put(db, one).await {
        Err(error) if error.is_taken() => {
            Err(Error::Invalid(format!("This app has a cron job called {} already.", one.job.name)))
        }
        other => Ok(other?),
    }
}

/// Changes a job. A new schedule counts from now.
///
/// # Errors
/// When there is none, the change breaks a rule, or the database fails.
pub async fn update(context: &Context, app: &App, actor: &Account, identity: &str, change: Change) -> Result<CronJob> {
    let mut one = find(context, app, identity).await?;
    let asked = Asked {
        name: Some(change.name.unwrap_or_else(|| one.job.name.clone())),
        schedule: change.schedule.unwrap_or_else(|| one.job.schedule.to_string()),
        command: change.command.unwrap_or_else(|| one.job.command.clone()),
        timezone: Some(change.timezone.unwrap_or_else(|| one.job.zone.clone())),
        size: Some(change.size.unwrap_or_else(|| one.job.size.to_string())),
        overlap: Some(change.overlap.unwrap_or_else(|| one.job.overlap.as_str().to_owned())),
        missed: Some(change.missed.unwrap_or_else(|| one.job.missed.as_str().to_owned())),
    };
    let job = asked.check()?;
    let mut db = context.store.write().await?;
    let present = store::cron_jobs::by_id(&mut db, one.id).await?.ok_or(Error::NotFound("cron_job"))?;
    let paused = change.paused.unwrap_or(one.paused);
    let timed = job.schedule != present.job.schedule || job.zone != present.job.zone || paused != present.paused;
    (one.job, one.paused, one.updated_at) = (job, paused, context.now());
    one.next_at = if timed { clock::next(&one, context.now()) } else { present.next_at };
    put(&mut db, &one).await?;
    db.commit().await?;
    context.log_api(app.id, format!("Update cron job {} by user {}", one.job.name, actor.email));
    context.cron.ring();
    Ok(one)
}

/// Removes a job with its history. A run under way goes on to its end.
///
/// # Errors
/// When there is none or the database fails.
pub async fn remove(context: &Context, app: &App, actor: &Account, identity: &str) -> Result<CronJob> {
    let one = find(context, app, identity).await?;
    let mut db = context.store.write().await?;
    let runs = store::cron_jobs::runs(&mut db, one.id).await?;
    store::cron_jobs::delete(&mut db, one.id).await?;
    db.commit().await?;
    forget(context, &runs);
    context.log_api(app.id, format!("Remove cron job {} by user {}", one.job.name, actor.email));
    Ok(one)
}

/// Removes the jobs that people made, as a part of somebody's transaction: [`cleared`] comes after its commit, with the
/// runs that are answered.
pub(super) async fn clear(db: &mut SqliteConnection, app: AppId) -> Result<Vec<CronRun>> {
    let mut runs = Vec::new();
    for one in store::cron_jobs::of_app(db, app).await?.iter().filter(|one| !one.managed) {
        runs.extend(store::cron_jobs::runs(db, one.id).await?);
        store::cron_jobs::delete(db, one.id).await?;
    }
    Ok(runs)
}

/// Removes what the runs of jobs that are gone printed.
pub(super) fn cleared(context: &Context, runs: &[CronRun]) {
    forget(context, runs);
    context.cron.ring();
}

/// Runs a job now, whatever its schedule and whether it is paused. Its overlap policy is for the schedule alone.
///
/// # Errors
/// When there is none or the database fails.
pub async fn run(context: &Context, app: &App, actor: &Account, identity: &str) -> Result<CronRun> {
    let one = find(context, app, identity).await?;
    let run = clock::written(context, &one, Cause::Manual, context.now())?;
    let mut db = context.store.write().await?;
    store::cron_jobs::put_run(&mut db, &run).await?;
    db.commit().await?;
    context.log_api(app.id, format!("Run cron job {} as {} by user {}", one.job.name, run.name, actor.email));
    context.cron.ring();
    Ok(run)
}

/// A job's runs, newest first.
///
/// # Errors
/// When there is no such job or the database fails.
pub async fn runs(context: &Context, app: &App, identity: &str) -> Result<Vec<CronRun>> {
    let one = find(context, app, identity).await?;
    Ok(store::cron_jobs::runs(&mut *context.store.read().await?, one.id).await?)
}

/// Makes an app's jobs those of its `app.json`. Jobs that were made otherwise stay, unless one has the same name.
///
/// # Errors
/// When the database fails.
pub async fn sync(context: &Context, db: &mut SqliteConnection, app: AppId, asked: &[Asked]) -> Result<()> {
    let present = store::cron_jobs::of_app(db, app).await?;
    let mut wanted = Vec::new();
    for asked in asked {
        wanted.push(asked.check()?);
    }
    for old in present.iter().filter(|old| old.managed && !wanted.iter().any(|job| job.name == old.job.name)) {
        store::cron_jobs::delete(db, old.id).await?;
    }
    for job in wanted {
        let mut one = match present.iter().find(|old| old.job.name == job.name) {
            Some(old) if old.job == job && old.managed => continue,
            Some(old) => CronJob { job, managed: true, updated_at: context.now(), ..old.clone() },
            None => fresh(context, app, job, true),
        };
        one.next_at = clock::next(&one, context.now());
        store::cron_jobs::put(db, &one).await?;
    }
    Ok(())
}

/// Removes runs beyond those that are kept.
///
/// # Errors
/// When the database fails.
pub async fn prune(context: &Context, app: AppId, job: CronJobId) -> Result<()> {
    let mut db = context.store.write().await?;
    let gone = store::cron_jobs::prune(&mut db, job, context.limits().cron_runs_kept).await?;
    db.commit().await?;
    for run in gone {
        // What is left of a file takes room and nothing else; the app's destruction takes it along.
        let _ = std::fs::remove_file(output::path(context, Kind::Cron, app, run.0));
    }
    Ok(())
}

/// Removes outputs of runs that are in no history any more.
///
/// # Errors
/// When the database or the disk fails.
pub async fn sweep(context: &Context, app: AppId) -> Result<()> {
    let mut db = context.store.read().await?;
    let mut kept = std::collections::HashSet::new();
    for job in store::cron_jobs::of_app(&mut db, app).await? {
        kept.extend(store::cron_jobs::runs(&mut db, job.id).await?.into_iter().map(|run| run.id.0));
    }
    drop(db);
    let swept = output::retain(context, Kind::Cron, app, &kept);
    swept.map_err(|error| Error::platform(format!("remove old outputs of cron jobs of {app}"), error))?;
    Ok(())
}

fn forget(context: &Context, runs: &[CronRun]) {
    for run in runs {
        let _ = std::fs::remove_file(output_path(context, run));
    }
}

/// Where a run's output is.
pub fn output_path(context: &Context, run: &CronRun) -> PathBuf {
    output::path(context, Kind::Cron, run.app, run.id.0)
}

/// Where clients read a run's output.
pub fn output_url(context: &Context, run: &CronRun) -> String {
    output::url(context, Kind::Cron, run.app, run.id.0)
}
