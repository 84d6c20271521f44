//! Timed dynos: what is due is written down, and what is written down is run, once.
//!
//! [`decide`] turns due jobs into runs, one transaction a job: the run and the job's next time are on the disk together,
//! before anything starts. [`drive::drive`] starts a run's dyno under the run's own id and follows it to its end, so
//! that whoever comes back after a crash finds the same dyno, or none and starts it. [`keep`] does both for as long as
//! the role runs. When a schedule is due is the domain's business (`dozen_domain::cron`).

pub mod drive;

use std::{collections::HashSet, time::Duration};

use dozen_api::clock::{self, Micros};
use dozen_domain::{
    cron::{self, Missed, Overlap},
    ids::DynoId,
    limits::seconds,
};
use jiff::Timestamp;
use tokio::{sync::Notify, task::JoinSet};

use crate::{
    Context,
    ops::{Result, dynos},
    reconcile::driver::chain,
    store::{
        self,
        cron_jobs::{Cause, CronJob, CronRun, Status},
    },
};

/// Longest pause between looks, for clocks that are set while nobody looks.
const PAUSE: Duration = Duration::from_secs(60);
/// Pause before something that failed is tried again.
const RETRY: Duration = Duration::from_secs(5);
/// Times of a schedule that are counted one by one when it was missed; of more, nobody needs to know how many.
const COUNTED: usize = 100_000;

/// A word to [`keep`]: a job or a run has changed.
#[derive(Debug, Default)]
pub struct Bell(Notify);

impl Bell {
    /// Have a look.
    pub fn ring(&self) {
        self.0.notify_one();
    }
}

/// Runs jobs at their times until it is dropped. What it drives is left to the next one then.
pub async fn keep(context: Context) {
    let mut driven = HashSet::new();
    let mut drives = JoinSet::new();
    loop {
        let pause = match step(&context, &mut driven, &mut drives).await {
            Ok(pause) => pause,
            Err(error) => {
                tracing::warn!(error = %chain(&error), "cannot look after timed jobs; trying again");
                RETRY
            }
        };
        tokio::select! {
            () = context.cron.0.notified() => {}
            () = tokio::time::sleep(pause) => {}
            Some(ended) = drives.join_next() => {
                let ended: Result<DynoId, tokio::task::JoinError> = ended;
                match ended {
                    Ok(run) => _ = driven.remove(&run),
                    Err(error) => tracing::error!(%error, "a run of a timed job is not followed any more"),
                }
            }
        }
    }
}

/// Looks once; answers how long nothing will be due.
async fn step(context: &Context, driven: &mut HashSet<DynoId>, drives: &mut JoinSet<DynoId>) -> Result<Duration> {
    decide(context).await?;
    let mut db = context.store.read().await?;
    let (runs, next) = (store::cron_jobs::under_way(&mut db).await?, store::cron_jobs::next_at(&mut db).await?);
    drop(db);
    for run in runs {
        if driven.insert(run.id) {
            let context = context.clone();
            drives.spawn(async move {
                while let Err(error) = drive::drive(&context, run.id).await {
                    tracing::warn!(run = %run.id, error = %chain(&error), "a timed job is not done with; trying again");
                    tokio::time::sleep(RETRY).await;
                }
                run.id
            });
        }
    }
    let until = next.map_or(PAUSE, |next| Duration::from_micros(u64::try_from(next - context.now()).unwrap_or(0)));
    Ok(until.min(PAUSE))
}

/// Writes a run for every job that is due.
///
/// # Errors
/// When the database fails.
pub async fn decide(context: &Context) -> Result<()> {
    let due = store::cron_jobs::due(&mut *context.store.read().await?, context.now()).await?;
    for job in due {
        let mut db = context.store.write().await?;
        // It may have been changed or removed since.
        let now = context.now();
        let Some(mut job) = store::cron_jobs::by_id(&mut db, job.id).await? else { continue };
        let Some(first) = job.next_at.filter(|at| *at <= now) else { continue };
        let passed = passed(&job, first, now);
        for run in runs(context, &mut db, &job, &passed).await? {
            store::cron_jobs::put_run(&mut db, &run).await?;
        }
        job.next_at = next(&job, now);
        store::cron_jobs::put(&mut db, &job).await?;
        db.commit().await?;
    }
    Ok(())
}

/// When a job is due next.
pub fn next(job: &CronJob, after: Micros) -> Option<Micros> {
    if job.paused {
        return None;
    }
    let zone = cron::zone(&job.job.zone).ok()?;
    let after = Timestamp::from_microsecond(after).ok()?;
    job.job.schedule.next(after, &zone).map(Timestamp::as_microsecond)
}

/// Times of a schedule that have passed.
struct Passed {
    first: Micros,
    last: Micros,
    count: usize,
    now: Micros,
}

fn passed(job: &CronJob, first: Micros, now: Micros) -> Passed {
    let (mut last, mut count) = (first, 1);
    while let Some(next) = next(job, last).filter(|next| *next <= now && count < COUNTED) {
        (last, count) = (next, count + 1);
    }
    Passed { first, last, count, now }
}

/// The runs that passed times make: one to be started, or a note that there was none.
async fn runs(
    context: &Context,
    db: &mut sqlx::SqliteConnection,
    job: &CronJob,
    passed: &Passed,
) -> Result<Vec<CronRun>> {
    let late = i64::try_from(seconds(context.limits().cron_late_seconds).as_micros()).unwrap_or(i64::MAX);
    let fresh = passed.now.saturating_sub(passed.last) <= late;
    let missed = passed.count - usize::from(fresh);
    let note = format!("The platform was not running at the time of {missed} runs.");
    let mut made = Vec::new();
    if missed > 0 && job.job.missed == Missed::Skip {
        let mut run = written(context, job, Cause::Missed, passed.first)?;
        (run.status, run.note, run.ended_at) = (Status::Missed, Some(note), Some(passed.now));
        made.push(run);
    } else if missed > 0 && !fresh {
        let mut run = written(context, job, Cause::Missed, passed.last)?;
        run.note = Some(note);
        made.push(run);
    }
    if fresh {
        made.push(written(context, job, Cause::Schedule, passed.last)?);
    }
    let busy = store::cron_jobs::under_way(db).await?.iter().any(|run| run.job == job.id);
    for run in made.iter_mut().filter(|run| run.status == Status::Pending && busy) {
        if job.job.overlap == Overlap::Forbid {
            run.status = Status::Skipped;
            run.note = Some("The run before had not ended.".to_owned());
            run.ended_at = Some(passed.now);
        }
    }
    Ok(made)
}

/// A run to be written.
///
/// # Errors
/// When no name can be made for its dyno.
pub fn written(context: &Context, job: &CronJob, cause: Cause, scheduled_at: Micros) -> Result<CronRun> {
    let dynos = context.engine.dynos(job.app);
    Ok(CronRun {
        id: DynoId::random(),
        job: job.id,
        app: job.app,
        name: dynos::free_name(&dynos, Some(cron::process_type().as_str()))?,
        cause,
        status: Status::Pending,
        command: job.job.command.clone(),
        scheduled_at,
        boot: clock::boot(),
        exit_status: None,
        note: None,
        created_at: context.now(),
        started_at: None,
        ended_at: None,
    })
}
