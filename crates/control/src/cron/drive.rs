//! One run of a job, from the row that says so to its end.
//!
//! Every step may be cut off and done again. The dyno has the run's id, and the engine starts one dyno an id; an engine
//! that does not know it has not started it, unless the machine itself was restarted since the run was written. Then
//! nobody knows, and the run counts as lost rather than being done twice.

use dozen_api::{
    clock::{self, Micros},
    engine::{self, OneOff, Selector},
};
use dozen_domain::{cron::Overlap, dyno::Exit, ids::DynoId, limits::seconds};

use crate::{
    Context,
    ops::{Error, Result, cron_jobs, dynos, environment, output::Writer},
    reconcile::driver::chain,
    store::{
        self,
        cron_jobs::{CronJob, CronRun, Status},
    },
};

/// Who starts jobs, as Heroku's own scheduler signs.
const ACTOR: &str = "scheduler@addons.heroku.com";

/// Brings a run to its end, wherever it stands.
///
/// # Errors
/// When the database, the disk or the engine fails in a way that may pass; the run is as it was, or further.
pub async fn drive(context: &Context, id: DynoId) -> Result<()> {
    let mut db = context.store.read().await?;
    let run = store::cron_jobs::run_by_id(&mut db, id).await?;
    // A job that was removed takes its runs along; their dynos go on to their end and nobody asks for it.
    let Some(mut run) = run.filter(|run| matches!(run.status, Status::Pending | Status::Running)) else {
        return Ok(());
    };
    let Some(job) = store::cron_jobs::by_id(&mut db, run.job).await? else { return Ok(()) };
    drop(db);
    let path = cron_jobs::output_path(context, &run);
    let writing = |error| Error::platform(format!("write {}", path.display()), error);
    let most = context.limits().cron_output_bytes;
    let (mut output, held) = match path.exists() {
        true => context.outputs.resume(&path, most).map_err(writing)?,
        false => (context.outputs.create(&path, most).map_err(writing)?, Vec::new()),
    };
    // It may have been started by a role that was killed before it could write that down.
    if run.status == Status::Pending {
        let started = context.engine.dynos(run.app).into_iter().find(|dyno| dyno.id == id);
        if let Some(dyno) = started {
            begun(context, &mut run, dyno.created_at).await?;
        }
    }
    let exit = loop {
        match follow(context, id, &held, &mut output).await {
            Ok(exit) => break exit,
            Err(engine::Error::NoSuchDyno) if run.status == Status::Pending && run.boot == clock::boot() => {
                make_way(context, &job, &run).await?;
                if let Err(error) = start(context, &job, &run).await {
                    tracing::warn!(run = %run.id, error = %chain(&error), "a timed job did not start");
                    return finish(context, run, Status::Failed, None, Some(error.answer().message)).await;
                }
                let now = context.now();
                begun(context, &mut run, now).await?;
            }
            Err(engine::Error::NoSuchDyno) => {
                let note = "The machine was restarted before this run had ended.".to_owned();
                return finish(context, run, Status::Lost, None, Some(note)).await;
            }
            Err(error) => return Err(error.into()),
        }
    };
    let status = if exit.success() { Status::Succeeded } else { Status::Failed };
    // Started and ended while nobody looked: not before it was written down.
    run.started_at = run.started_at.or(Some(run.created_at));
    finish(context, run, status, Some(exit.status()), None).await
}

/// Ends earlier runs of the job if that is its policy.
async fn make_way(context: &Context, job: &CronJob, run: &CronRun) -> Result<()> {
    if job.job.overlap != Overlap::Replace {
        return Ok(());
    }
    let others = store::cron_jobs::under_way(&mut *context.store.read().await?).await?;
    for other in others.into_iter().take_while(|other| other.id != run.id).filter(|other| other.job == job.id) {
        match context.engine.stop(other.app, Selector::Dyno(other.name.clone())).await {
            Ok(_) | Err(engine::Error::NoSuchDyno) => {}
            Err(error) => return Err(error.into()),
        }
        match context.engine.wait(other.id).await {
            Ok(_) | Err(engine::Error::NoSuchDyno) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// Starts the dyno of a run.
async fn start(context: &Context, job: &CronJob, run: &CronRun) -> Result<()> {
    let nothing = || Error::invalid("Nothing was deployed to this app yet. Use git push heroku main.");
    let mut db = context.store.read().await?;
    let app = store::apps::by_id(&mut db, job.app).await?.ok_or(Error::NotFound("app"))?;
    let release = store::releases::current(&mut db, app.id).await?.ok_or_else(nothing)?;
    let slug = store::slugs::by_id(&mut db, release.slug.ok_or_else(nothing)?).await?.ok_or_else(nothing)?;
    drop(db);
    let command = dynos::expand(&run.command, &slug.process_types, context.limits().command_bytes)?;
    context.log_api(app.id, format!("Starting process with command `{command}` by user {ACTOR}"));
    let one_off = OneOff {
        dyno: run.id,
        app: app.id,
        app_name: app.name.clone(),
        name: run.name.clone(),
        version: release.version,
        image: slug.image.clone().ok_or_else(nothing)?,
        env: environment::of(context, &app, &release, &slug)?,
        command,
        size: job.job.size,
        time_to_live: Some(seconds(context.limits().cron_run_seconds)),
        attach: None,
        logged: true,
    };
    context.engine.run(one_off).await?;
    Ok(())
}

/// Copies output until the command ends, without what is `held` from before.
async fn follow(context: &Context, dyno: DynoId, held: &[u8], output: &mut Writer) -> Result<Exit, engine::Error> {
    match context.engine.output(dyno).await {
        Ok(mut said) => output.copy(&mut said, held).await,
        // Its output is gone, but how it ended may be known.
        Err(engine::Error::NoSuchDyno) => {}
        Err(error) => return Err(error),
    }
    context.engine.wait(dyno).await
}

/// Writes down that the dyno of a run was started.
async fn begun(context: &Context, run: &mut CronRun, at: Micros) -> Result<()> {
    (run.status, run.started_at) = (Status::Running, Some(at));
    write(context, run).await
}

async fn finish(
    context: &Context,
    mut run: CronRun,
    status: Status,
    exit_status: Option<i32>,
    note: Option<String>,
) -> Result<()> {
    run.status = status;
    run.exit_status = exit_status;
    run.note = note.or(run.note);
    run.ended_at = Some(context.now());
    write(context, &run).await?;
    cron_jobs::prune(context, run.app, run.job).await
}

async fn write(context: &Context, run: &CronRun) -> Result<()> {
    let mut db = context.store.write().await?;
    // The job may have been removed meanwhile, and this run with it.
    if store::cron_jobs::run_by_id(&mut db, run.id).await?.is_some() {
        store::cron_jobs::put_run(&mut db, run).await?;
    }
    db.commit().await?;
    Ok(())
}
