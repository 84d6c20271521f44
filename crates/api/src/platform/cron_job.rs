//! `GET /apps/{app}/cron-jobs`: Dozen's own, not in Heroku's schema.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::Named;

/// A timed job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CronJob {
    /// Of which app.
    pub app: Named,
    /// What is run.
    pub command: String,
    /// When it was made.
    pub created_at: String,
    /// Five fields behind the schedule.
    pub expression: String,
    /// Id.
    pub id: Uuid,
    /// Whether it comes from `app.json` and follows that.
    pub managed: bool,
    /// `skip` or `run`.
    pub missed: String,
    /// Its name.
    pub name: String,
    /// When it is due; null while it is paused.
    pub next_at: Option<String>,
    /// `forbid`, `allow` or `replace`.
    pub overlap: String,
    /// Whether it is not run by its schedule.
    pub paused: bool,
    /// As it was given.
    pub schedule: String,
    /// Size of its dynos.
    pub size: String,
    /// The schedule's time zone.
    pub timezone: String,
    /// When it was last changed.
    pub updated_at: String,
}

/// A run of a job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CronRun {
    /// `schedule`, `missed` or `manual`.
    pub cause: String,
    /// What was run.
    pub command: String,
    /// When it was written down.
    pub created_at: String,
    /// Its dyno.
    pub dyno: Named,
    /// From start to end, as far as both are known.
    pub duration_seconds: Option<u64>,
    /// When it ended.
    pub ended_at: Option<String>,
    /// As a shell tells it.
    pub exit_status: Option<i32>,
    /// Id.
    pub id: Uuid,
    /// Why it did not do what it should.
    pub note: Option<String>,
    /// What it printed, as plain text.
    pub output_stream_url: String,
    /// For which time of the schedule.
    pub scheduled_at: String,
    /// When its dyno was started.
    pub started_at: Option<String>,
    /// `pending`, `running`, `succeeded`, `failed`, `skipped`, `missed` or `lost`.
    pub status: String,
}
