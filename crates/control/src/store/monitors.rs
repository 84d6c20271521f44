//! What scales process types by how their requests go.

use dozen_api::clock::Micros;
use dozen_domain::{
    autoscale::{Measure, Policy},
    ids::{AppId, MonitorId},
    name::ProcessType,
};
use sqlx::{Row, SqliteConnection, sqlite::SqliteRow};

use super::{Result, column};

/// What scales one process type.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Monitor {
    /// Which.
    pub id: MonitorId,
    /// Of which app.
    pub app: AppId,
    /// Its process type.
    pub process_type: ProcessType,
    /// Range and measure.
    pub policy: Policy,
    /// Whether it acts.
    pub active: bool,
    /// Whether people are told when the most dynos run and more are needed.
    pub notifies: bool,
    /// Least minutes between two such words.
    pub notification_minutes: u32,
    /// When it was made.
    pub created_at: Micros,
    /// When it was last changed.
    pub updated_at: Micros,
}

impl Monitor {
    /// Says whether it may leave its process type without dynos until a request comes.
    pub fn may_sleep(&self) -> bool {
        self.active && self.policy.min == 0
    }
}

const RESPONSE_TIME: &str = "response_time";
const QUEUE: &str = "queue";

fn from_row(row: &SqliteRow) -> Result<Monitor> {
    let value = column::integer(row, "value")?;
    // The table knows no third.
    let measure = match row.try_get::<&str, _>("measure")? {
        QUEUE => Measure::Queue(value),
        _ => Measure::ResponseTime(value),
    };
    Ok(Monitor {
        id: column::parse(row, "id")?,
        app: column::parse(row, "app")?,
        process_type: column::parse(row, "type")?,
        policy: Policy { min: column::integer(row, "min")?, max: column::integer(row, "max")?, measure },
        active: row.try_get("active")?,
        notifies: row.try_get("notifies")?,
        notification_minutes: column::integer(row, "notification_minutes")?,
        created_at: row.try_get("created_at")?,
        updated_at: row.try_get("updated_at")?,
    })
}

/// Adds a monitor, or changes it.
///
/// # Errors
/// When its process type has another, or the database fails.
pub async fn put(db: &mut SqliteConnection, monitor: &Monitor) -> Result<()> {
    let (measure, value) = match monitor.policy.measure {
        Measure::ResponseTime(value) => (RESPONSE_TIME, value),
        Measure::Queue(value) => (QUEUE, value),
    };
    sqlx::query(
        "INSERT INTO monitors (id, app, type, measure, value, min, max, active, notifies, notification_minutes, \
         created_at, updated_at) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12) \
         ON CONFLICT (id) DO UPDATE SET measure = ?4, value = ?5, min = ?6, max = ?7, active = ?8, notifies = ?9, \
         notification_minutes = ?10, updated_at = ?12",
    )
    .bind(monitor.id.to_string())
    .bind(monitor.app.to_string())
    .bind(monitor.process_type.as_str())
    .bind(measure)
    .bind(i64::try_from(value).unwrap_or(i64::MAX))
    .bind(monitor.policy.min)
    .bind(monitor.policy.max)
    .bind(monitor.active)
    .bind(monitor.notifies)
    .bind(monitor.notification_minutes)
    .bind(monitor.created_at)
    .bind(monitor.updated_at)
    .execute(db)
    .await?;
    Ok(())
}

/// An app's monitors, by process type.
///
/// # Errors
/// When the database fails.
pub async fn of_app(db: &mut SqliteConnection, app: AppId) -> Result<Vec<Monitor>> {
    let query = sqlx::query("SELECT * FROM monitors WHERE app = ?1 ORDER BY type").bind(app.to_string());
    query.fetch_all(db).await?.iter().map(from_row).collect()
}

/// All monitors that act.
///
/// # Errors
/// When the database fails.
pub async fn active(db: &mut SqliteConnection) -> Result<Vec<Monitor>> {
    let query = sqlx::query("SELECT * FROM monitors WHERE active ORDER BY app, type");
    query.fetch_all(db).await?.iter().map(from_row).collect()
}

/// Removes a monitor.
///
/// # Errors
/// When the database fails.
pub async fn delete(db: &mut SqliteConnection, id: MonitorId) -> Result<()> {
    sqlx::query("DELETE FROM monitors WHERE id = ?1").bind(id.to_string()).execute(db).await?;
    Ok(())
}
