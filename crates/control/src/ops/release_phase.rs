//! The release phase: a release whose slug has a `release` process type is in force only after that command succeeded.
//!
//! Pending releases are run one after the other within an app, in the order of the ledger, each as the one-off dyno
//! `release.N`. The dyno's id is the release's, and that it is about to start is on record before it does: so a role that
//! comes back finds a command that still runs or has ended, starts one that never was, and never runs one twice. Output
//! goes to the app's log and to the file behind `output_stream_url`.

use std::{
    collections::HashSet,
    path::PathBuf,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use dozen_api::{
    clock,
    engine::{self, OneOff, Selector},
};
use dozen_domain::{
    dyno::Exit,
    ids::{AppId, DynoId, ReleaseId},
    limits::seconds,
    name::{DynoName, ProcessType},
    release::Status,
    size::Size,
};
use tokio::sync::watch;

use super::{
    Error, Result, environment,
    output::{self, Kind, Writer},
    releases,
};
use crate::{
    Context,
    reconcile::driver::{Scope, Task, chain},
    store::{self, releases::Release},
};

/// How much longer than our own patience the engine's is, so that ours ends first and can say so.
const ENGINE_EXTRA: Duration = Duration::from_secs(30);

/// Which apps' commands run, and a word to everybody who waits for one.
#[derive(Debug, Default)]
pub struct Phases {
    running: Mutex<HashSet<AppId>>,
    ended: watch::Sender<u64>,
}

/// Where a release command's output is.
pub fn output_path(context: &Context, app: AppId, release: ReleaseId) -> PathBuf {
    output::path(context, Kind::Release, app, release.0)
}

/// Where clients read a release command's output.
pub fn output_url(context: &Context, release: &Release) -> String {
    output::url(context, Kind::Release, release.app, release.id.0)
}

/// Waits for the end of a release's phase.
///
/// # Errors
/// When the release is gone or the database fails.
pub async fn wait(context: &Context, id: ReleaseId) -> Result<Release> {
    let mut ended = context.phases.ended.subscribe();
    loop {
        ended.mark_unchanged();
        let release = store::releases::by_id(&mut *context.store.read().await?, id).await?;
        let release = release.ok_or(Error::NotFound("release"))?;
        if release.status != Status::Pending {
            return Ok(release);
        }
        // The sender lives as long as the context.
        let _ = ended.changed().await;
    }
}

/// Task `release_phase`: sees to it that every pending release is being run.
pub struct ReleasePhase(pub Context);

#[async_trait]
impl Task for ReleasePhase {
    fn name(&self) -> &'static str {
        "release_phase"
    }

    fn period(&self) -> Duration {
        Duration::from_secs(60)
    }

    async fn run(&self, _: &Scope) -> Result<String> {
        let pending = store::releases::pending(&mut *self.0.store.read().await?).await?;
        let apps: HashSet<AppId> = pending.iter().map(|release| release.app).collect();
        let mut started = 0_u32;
        for app in apps {
            if self.0.phases.running.lock().unwrap_or_else(PoisonError::into_inner).insert(app) {
                tokio::spawn(run_app(self.0.clone(), app));
                started += 1;
            }
        }
        Ok(format!("{} pending, {started} begun", pending.len()))
    }
}

/// Runs an app's pending releases until there is none.
async fn run_app(context: Context, app: AppId) {
    let all = async {
        while let Some(release) = next(&context, app).await? {
            let succeeded = run(&context, &release).await?;
            releases::finish(&context, release.id, succeeded).await?;
            context.phases.ended.send_modify(|ended| *ended += 1);
        }
        Ok::<(), Error>(())
    };
    let outcome = all.await;
    // Also when none ended: who waits for a release of an app that was destroyed is to see that it is gone.
    context.phases.ended.send_modify(|ended| *ended += 1);
    context.phases.running.lock().unwrap_or_else(PoisonError::into_inner).remove(&app);
    match outcome {
        // One may have come between the last look and the removal.
        Ok(()) => {
            if matches!(next(&context, app).await, Ok(Some(_))) {
                context.nudge.nudge(app);
            }
        }
        Err(error) => tracing::error!(%app, error = %chain(&error), "release phase left undone; tried again later"),
    }
}

async fn next(context: &Context, app: AppId) -> Result<Option<Release>> {
    let pending = store::releases::pending(&mut *context.store.read().await?).await?;
    Ok(pending.into_iter().find(|release| release.app == app))
}

/// Runs one release's command, or waits for it when it was begun before. Says whether it succeeded.
async fn run(context: &Context, release: &Release) -> Result<bool> {
    let path = output_path(context, release.app, release.id);
    let writing = |error| Error::platform(format!("write {}", path.display()), error);
    let most = context.limits().build_log_bytes;
    let (mut output, held) = match path.exists() {
        false => (context.outputs.create(&path, most).map_err(writing)?, Vec::new()),
        true => context.outputs.resume(&path, most).map_err(writing)?,
    };
    let mut db = context.store.write().await?;
    let mut startable = store::releases::intend_command(&mut db, release.id, &clock::boot()).await?;
    db.commit().await?;
    let dyno = DynoId(release.id.0);
    let limit = seconds(context.limits().release_phase_seconds);
    loop {
        match tokio::time::timeout(limit, follow(context, release, dyno, &held, &mut output)).await {
            Ok(Ok(exit)) => {
                if !exit.success() {
                    output.complain(&format!("Release command failed with exit status {}.", exit.status()));
                }
                return Ok(exit.success());
            }
            Ok(Err(engine::Error::NoSuchDyno)) if startable => {
                if let Err(error) = begin(context, release, dyno).await {
                    tracing::warn!(release = %release.id, error = %chain(&error), "a release command did not start");
                    output.complain(&format!("The release command could not be started: {}.", chain(&error)));
                    return Ok(false);
                }
                startable = false;
                let mut db = context.store.write().await?;
                store::releases::command_began(&mut db, release.id).await?;
                db.commit().await?;
            }
            Ok(Err(engine::Error::NoSuchDyno)) => {
                output.complain("The machine was restarted while the release command ran. Retry the release.");
                return Ok(false);
            }
            Ok(Err(error)) => return Err(error.into()),
            Err(_) => {
                output.complain(&format!("Release command timed out after {} seconds.", limit.as_secs()));
                let stopped = context.engine.stop(release.app, Selector::Dyno(name(release))).await;
                if let Err(error) = stopped {
                    tracing::warn!(release = %release.id, error = %chain(&error), "cannot stop a release command");
                }
                return Ok(false);
            }
        }
    }
}

/// Starts the command of a release.
async fn begin(context: &Context, release: &Release, dyno: DynoId) -> Result<()> {
    let mut db = context.store.read().await?;
    let app = store::apps::by_id(&mut db, release.app).await?.ok_or(Error::NotFound("app"))?;
    let slug = release.slug.ok_or(Error::NotFound("slug"))?;
    let slug = store::slugs::by_id(&mut db, slug).await?.ok_or(Error::NotFound("slug"))?;
    drop(db);
    let command = slug.process_types.iter().find(|(process_type, _)| process_type.is_release());
    let (_, command) = command.ok_or(Error::NotFound("release command"))?;
    let image = slug.image.clone().ok_or(Error::NotFound("image"))?;
    context.log_api(release.app, format!("Running release {} commands by user {}", release.version, release.email));
    let one_off = OneOff {
        dyno,
        app: app.id,
        app_name: app.name.clone(),
        name: name(release),
        version: release.version,
        image,
        env: environment::of(context, &app, release, &slug)?,
        command: command.clone(),
        size: Size::Basic,
        time_to_live: Some(seconds(context.limits().release_phase_seconds) + ENGINE_EXTRA),
        attach: None,
        logged: true,
    };
    context.engine.run(one_off).await?;
    Ok(())
}

/// `release.1234`, the same for the same release.
fn name(release: &Release) -> DynoName {
    const NUMBERS: u128 = 9_000; // four digits, as one-offs have them
    let number = 1_000 + (release.id.0.as_u128() % NUMBERS) as u32;
    DynoName::new(ProcessType::release(), number)
}

/// Copies output until the command ends, without what is `held` from before.
///
/// How it ended is asked at once and for itself: the engine knows it even where the dyno's shim, and with it what nobody
/// has read yet, is gone.
async fn follow(
    context: &Context,
    release: &Release,
    dyno: DynoId,
    held: &[u8],
    output: &mut Writer,
) -> Result<Exit, engine::Error> {
    let (exit, copied) = tokio::join!(context.engine.wait(dyno), copy(context, dyno, held, output));
    if let (Ok(_), Err(error)) = (&exit, copied) {
        tracing::warn!(release = %release.id, error = %chain(&error), "cannot read what a release command printed");
        let name = name(release);
        output.complain(&format!("The end of this output was lost. `heroku logs --dyno-name {name}` may have it."));
    }
    exit
}

async fn copy(context: &Context, dyno: DynoId, held: &[u8], output: &mut Writer) -> Result<(), engine::Error> {
    output.copy(&mut context.engine.output(dyno).await?, held).await;
    Ok(())
}
