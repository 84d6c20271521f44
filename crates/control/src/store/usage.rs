//! When dynos ran. Rows are added and read, never changed; the database refuses it too.

use dozen_api::{clock::Micros, engine::Run};
use dozen_domain::{
    ids::{AccountId, AppId, DynoId},
    name::{DynoName, ProcessType},
    size::Size,
    usage::Month,
};
use sqlx::{Row, SqliteConnection, sqlite::SqliteRow};

use super::{Result, apps::App, column};

/// A dyno's time on record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Span {
    /// Of which app.
    pub app: AppId,
    /// Its name, as it was then.
    pub app_name: String,
    /// Who owned it then.
    pub owner: Option<AccountId>,
    /// The dyno's process type.
    pub process_type: ProcessType,
    /// The dyno's size.
    pub size: Size,
    /// It ran one command once.
    pub one_off: bool,
    /// When its process was started.
    pub started_at: Micros,
    /// When that was gone; none while it is there.
    pub ended_at: Option<Micros>,
    /// Whether somebody saw its end.
    pub seen: bool,
}

fn from_row(row: &SqliteRow) -> Result<Span> {
    let name: DynoName = column::parse(row, "name")?;
    let owner: String = row.try_get("owner")?;
    Ok(Span {
        app: column::parse(row, "app")?,
        app_name: row.try_get("app_name")?,
        owner: owner.parse().ok(),
        process_type: name.process_type().clone(),
        size: column::parse(row, "size")?,
        one_off: row.try_get("one_off")?,
        started_at: row.try_get("started_at")?,
        ended_at: row.try_get("ended_at")?,
        seen: row.try_get("seen")?,
    })
}

/// Adds a dyno's start, and its end when it has one; what is there stays. `app` is none when it was destroyed before its
/// dyno was heard of.
///
/// # Errors
/// When the database fails.
pub async fn record(db: &mut SqliteConnection, run: &Run, app: Option<&App>) -> Result<()> {
    sqlx::query(
        "INSERT INTO dyno_starts (dyno, app, app_name, owner, name, size, one_off, started_at) \
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8) ON CONFLICT DO NOTHING",
    )
    .bind(run.dyno.to_string())
    .bind(run.app.to_string())
    .bind(app.map(|app| app.name.to_string()).unwrap_or_default())
    .bind(app.map(|app| app.owner.to_string()).unwrap_or_default())
    .bind(run.name.to_string())
    .bind(run.size.name())
    .bind(run.one_off)
    .bind(run.started_at)
    .execute(&mut *db)
    .await?;
    match run.ended_at {
        Some(at) => end(db, run.dyno, at, true).await,
        None => Ok(()),
    }
}

/// Adds the end of a dyno whose start is on record; the first one stays.
///
/// # Errors
/// When the database fails.
pub async fn end(db: &mut SqliteConnection, dyno: DynoId, at: Micros, seen: bool) -> Result<()> {
    sqlx::query(
        "INSERT INTO dyno_ends (dyno, ended_at, seen) \
         SELECT dyno, max(started_at, ?2), ?3 FROM dyno_starts WHERE dyno = ?1 ON CONFLICT DO NOTHING",
    )
    .bind(dyno.to_string())
    .bind(at)
    .bind(seen)
    .execute(db)
    .await?;
    Ok(())
}

/// Dynos whose end is not on record.
///
/// # Errors
/// When the database fails.
pub async fn open(db: &mut SqliteConnection) -> Result<Vec<DynoId>> {
    let query = "SELECT dyno FROM dyno_starts WHERE dyno NOT IN (SELECT dyno FROM dyno_ends)";
    let rows = sqlx::query(query).fetch_all(db).await?;
    rows.iter().map(|row| column::parse(row, "dyno")).collect()
}

/// Everything on record that lies in a month, of one app or of all.
///
/// # Errors
/// When the database fails.
pub async fn of_month(db: &mut SqliteConnection, month: Month, app: Option<AppId>) -> Result<Vec<Span>> {
    let query = sqlx::query(
        "SELECT s.app, coalesce(apps.name, s.app_name) AS app_name, s.owner, s.name, s.size, s.one_off, s.started_at, \
         e.ended_at, coalesce(e.seen, 1) AS seen FROM dyno_starts s LEFT JOIN dyno_ends e ON e.dyno = s.dyno \
         LEFT JOIN apps ON apps.id = s.app \
         WHERE s.started_at < ?2 AND coalesce(e.ended_at, ?2) > ?1 AND (?3 IS NULL OR s.app = ?3)",
    )
    .bind(month.start())
    .bind(month.end())
    .bind(app.map(|app| app.to_string()));
    query.fetch_all(db).await?.iter().map(from_row).collect()
}
