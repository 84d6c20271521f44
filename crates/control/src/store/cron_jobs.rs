//! Timed jobs of apps and their runs.

use dozen_api::clock::Micros;
use dozen_domain::{
    cron,
    ids::{AppId, CronJobId, DynoId},
    name::DynoName,
};
use sqlx::{Row, SqliteConnection, sqlite::SqliteRow};

use super::{Error, Result, column};

/// A job.
#[derive(Debug, Clone, PartialEq)]
pub struct CronJob {
    /// Which.
    pub id: CronJobId,
    /// Of which app.
    pub app: AppId,
    /// Name, schedule, command and policies.
    pub job: cron::Job,
    /// It is not run by its schedule.
    pub paused: bool,
    /// It comes from the app's `app.json`.
    pub managed: bool,
    /// When it is due.
    pub next_at: Option<Micros>,
    /// When it was made.
    pub created_at: Micros,
    /// When it was last changed.
    pub updated_at: Micros,
}

/// Why a run was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// Its time came.
    Schedule,
    /// Its time passed while the platform was not running.
    Missed,
    /// Somebody asked for it.
    Manual,
}

/// How a run stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// Its dyno is to be started.
    Pending,
    /// Its dyno was started.
    Running,
    /// It ended with exit status 0.
    Succeeded,
    /// It ended otherwise, or could not be started.
    Failed,
    /// The one before was not over.
    Skipped,
    /// The platform was not running at its time.
    Missed,
    /// The machine was restarted meanwhile; nobody knows how far it came.
    Lost,
}

macro_rules! words {
    ($name:ident { $($variant:ident = $word:literal),+ $(,)? }) => {
        impl $name {
            /// The word of the API and the database.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $word),+ }
            }

            fn read(row: &SqliteRow, column: &'static str) -> Result<Self> {
                match row.try_get::<String, _>(column)?.as_str() {
                    $($word => Ok(Self::$variant),)+
                    other => Err(Error::Column { column, source: other.to_owned().into() }),
                }
            }
        }
    };
}

words!(Cause { Schedule = "schedule", Missed = "missed", Manual = "manual" });
words!(Status {
    Pending = "pending",
    Running = "running",
    Succeeded = "succeeded",
    Failed = "failed",
    Skipped = "skipped",
    Missed = "missed",
    Lost = "lost",
});

/// A run of a job.
#[derive(Debug, Clone, PartialEq)]
pub struct CronRun {
    /// Its dyno's id too.
    pub id: DynoId,
    /// Of which job.
    pub job: CronJobId,
    /// Of which app.
    pub app: AppId,
    /// Its dyno's name, `scheduler.4711`.
    pub name: DynoName,
    /// Why.
    pub cause: Cause,
    /// How it stands.
    pub status: Status,
    /// The job's command as it was then.
    pub command: String,
    /// For which time of the schedule; when it was asked for if by hand.
    pub scheduled_at: Micros,
    /// Boot of the machine on which it was written.
    pub boot: String,
    /// As a shell tells it.
    pub exit_status: Option<i32>,
    /// For people: why it did not do what it should.
    pub note: Option<String>,
    /// When it was written.
    pub created_at: Micros,
    /// When its dyno was started.
    pub started_at: Option<Micros>,
    /// When it ended.
    pub ended_at: Option<Micros>,
}

fn job(row: &SqliteRow) -> Result<CronJob> {
    Ok(CronJob {
        id: column::parse(row, "id")?,
        app: column::parse(row, "app")?,
        job: cron::Job {
            name: row.try_get("name")?,
            schedule: column::parse(row, "schedule")?,
            zone: row.try_get("zone")?,
            command: row.try_get("command")?,
            size: column::parse(row, "size")?,
            overlap: column::parse(row, "overlap")?,
            missed: column::parse(row, "missed")?,
        },
        paused: row.try_get("paused")?,
        managed: row.try_get("managed")?,
        next_at: row.try_get("next_at")?,
        created_at: row.try_get("created_at")?,
        updated_at: row.try_get("updated_at")?,
    })
}

fn run(row: &SqliteRow) -> Result<CronRun> {
    Ok(CronRun {
        id: column::parse(row, "id")?,
        job: column::parse(row, "job")?,
        app: column::parse(row, "app")?,
        name: column::parse(row, "name")?,
        cause: Cause::read(row, "cause")?,
        status: Status::read(row, "status")?,
        command: row.try_get("command")?,
        scheduled_at: row.try_get("scheduled_at")?,
        boot: row.try_get("boot")?,
        exit_status: row.try_get("exit_status")?,
        note: row.try_get("note")?,
        created_at: row.try_get("created_at")?,
        started_at: row.try_get("started_at")?,
        ended_at: row.try_get("ended_at")?,
    })
}

/// Stores a job, new or changed.
///
/// # Errors
/// When another job of the app has its name ([`super::Error::is_taken`]) or the database fails.
pub async fn put(db: &mut SqliteConnection, one: &CronJob) -> Result<()> {
    sqlx::query(
        "INSERT INTO cron_jobs (id, app, name, schedule, zone, command, size, overlap, missed, paused, managed, next_at, \
         created_at, updated_at) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14) \
         ON CONFLICT (id) DO UPDATE SET name = ?3, schedule = ?4, zone = ?5, command = ?6, size = ?7, overlap = ?8, \
         missed = ?9, paused = ?10, managed = ?11, next_at = ?12, updated_at = ?14",
    )
    .bind(one.id.to_string())
    .bind(one.app.to_string())
    .bind(&one.job.name)
    .bind(one.job.schedule.to_string())
    .bind(&one.job.zone)
    .bind(&one.job.command)
    .bind(one.job.size.to_string())
    .bind(one.job.overlap.as_str())
    .bind(one.job.missed.as_str())
    .bind(one.paused)
    .bind(one.managed)
    .bind(one.next_at)
    .bind(one.created_at)
    .bind(one.updated_at)
    .execute(db)
    .await?;
    Ok(())
}

/// An app's jobs by name.
///
/// # Errors
/// When the database fails.
pub async fn of_app(db: &mut SqliteConnection, app: AppId) -> Result<Vec<CronJob>> {
    let query = sqlx::query("SELECT * FROM cron_jobs WHERE app = ?1 ORDER BY name").bind(app.to_string());
    query.fetch_all(db).await?.iter().map(job).collect()
}

/// One job.
///
/// # Errors
/// When the database fails.
pub async fn by_id(db: &mut SqliteConnection, id: CronJobId) -> Result<Option<CronJob>> {
    let query = sqlx::query("SELECT * FROM cron_jobs WHERE id = ?1").bind(id.to_string());
    query.fetch_optional(db).await?.as_ref().map(job).transpose()
}

/// Jobs that are due at a time.
///
/// # Errors
/// When the database fails.
pub async fn due(db: &mut SqliteConnection, now: Micros) -> Result<Vec<CronJob>> {
    let query = sqlx::query("SELECT * FROM cron_jobs WHERE next_at <= ?1 ORDER BY next_at").bind(now);
    query.fetch_all(db).await?.iter().map(job).collect()
}

/// When the next job is due.
///
/// # Errors
/// When the database fails.
pub async fn next_at(db: &mut SqliteConnection) -> Result<Option<Micros>> {
    Ok(sqlx::query_scalar("SELECT min(next_at) FROM cron_jobs").fetch_one(db).await?)
}

/// Removes a job and its history.
///
/// # Errors
/// When the database fails.
pub async fn delete(db: &mut SqliteConnection, id: CronJobId) -> Result<()> {
    sqlx::query("DELETE FROM cron_jobs WHERE id = ?1").bind(id.to_string()).execute(db).await?;
    Ok(())
}

/// Stores a run, new or changed.
///
/// # Errors
/// When this time of the schedule has its run already ([`super::Error::is_taken`]), or the database fails.
pub async fn put_run(db: &mut SqliteConnection, one: &CronRun) -> Result<()> {
    sqlx::query(
        "INSERT INTO cron_runs (id, job, app, name, cause, status, command, scheduled_at, boot, exit_status, note, \
         created_at, started_at, ended_at) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14) \
         ON CONFLICT (id) DO UPDATE SET status = ?6, exit_status = ?10, note = ?11, started_at = ?13, ended_at = ?14",
    )
    .bind(one.id.to_string())
    .bind(one.job.to_string())
    .bind(one.app.to_string())
    .bind(one.name.to_string())
    .bind(one.cause.as_str())
    .bind(one.status.as_str())
    .bind(&one.command)
    .bind(one.scheduled_at)
    .bind(&one.boot)
    .bind(one.exit_status)
    .bind(&one.note)
    .bind(one.created_at)
    .bind(one.started_at)
    .bind(one.ended_at)
    .execute(db)
    .await?;
    Ok(())
}

/// A job's runs, newest first.
///
/// # Errors
/// When the database fails.
pub async fn runs(db: &mut SqliteConnection, job: CronJobId) -> Result<Vec<CronRun>> {
    let query = sqlx::query("SELECT * FROM cron_runs WHERE job = ?1 ORDER BY created_at DESC, rowid DESC");
    query.bind(job.to_string()).fetch_all(db).await?.iter().map(run).collect()
}

/// One run.
///
/// # Errors
/// When the database fails.
pub async fn run_by_id(db: &mut SqliteConnection, id: DynoId) -> Result<Option<CronRun>> {
    let query = sqlx::query("SELECT * FROM cron_runs WHERE id = ?1").bind(id.to_string());
    query.fetch_optional(db).await?.as_ref().map(run).transpose()
}

/// Runs that are to be started or have not ended, oldest first.
///
/// # Errors
/// When the database fails.
pub async fn under_way(db: &mut SqliteConnection) -> Result<Vec<CronRun>> {
    let query =
        sqlx::query("SELECT * FROM cron_runs WHERE status IN ('pending', 'running') ORDER BY created_at, rowid");
    query.fetch_all(db).await?.iter().map(run).collect()
}

/// Removes a job's runs beyond the newest `keep` that have ended; answers them.
///
/// # Errors
/// When the database fails.
pub async fn prune(db: &mut SqliteConnection, job: CronJobId, keep: u64) -> Result<Vec<DynoId>> {
    let query = sqlx::query(
        "DELETE FROM cron_runs WHERE job = ?1 AND status NOT IN ('pending', 'running') AND id NOT IN \
         (SELECT id FROM cron_runs WHERE job = ?1 ORDER BY created_at DESC, rowid DESC LIMIT ?2) RETURNING id",
    );
    let keep = i64::try_from(keep).unwrap_or(i64::MAX);
    let rows = query.bind(job.to_string()).bind(keep).fetch_all(db).await?;
    rows.iter().map(|row| column::parse(row, "id")).collect()
}
