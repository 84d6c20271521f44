//! Log and telemetry drains. Their targets are sealed ([`crate::ops::drains`] opens them).

use dozen_api::clock::Micros;
use dozen_domain::ids::{AppId, DrainId};
use sqlx::{Row, SqliteConnection, sqlite::SqliteRow};

use super::{Error, Result, column};

/// What a drain is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Lines as syslog messages.
    Log,
    /// OpenTelemetry.
    Telemetry,
}

impl Kind {
    fn as_str(self) -> &'static str {
        match self {
            Self::Log => "log",
            Self::Telemetry => "telemetry",
        }
    }
}

/// A drain as it is stored.
#[derive(Debug, Clone)]
pub struct Drain {
    /// Which.
    pub id: DrainId,
    /// Whose.
    pub app: AppId,
    /// What for.
    pub kind: Kind,
    /// `d.` and a UUID.
    pub token: String,
    /// Where to, sealed.
    pub target: Vec<u8>,
    /// When it was added.
    pub created_at: Micros,
    /// When it was last changed.
    pub updated_at: Micros,
}

fn from_row(row: &SqliteRow) -> Result<Drain> {
    let kind: String = row.try_get("kind")?;
    let kind = [Kind::Log, Kind::Telemetry].into_iter().find(|one| one.as_str() == kind);
    let unknown = || Error::Column { column: "kind", source: "neither log nor telemetry".into() };
    Ok(Drain {
        id: column::parse(row, "id")?,
        app: column::parse(row, "app")?,
        kind: kind.ok_or_else(unknown)?,
        token: row.try_get("token")?,
        target: row.try_get("target")?,
        created_at: row.try_get("created_at")?,
        updated_at: row.try_get("updated_at")?,
    })
}

/// Adds a drain.
///
/// # Errors
/// When the database fails.
pub async fn insert(db: &mut SqliteConnection, drain: &Drain) -> Result<()> {
    sqlx::query(
        "INSERT INTO drains (id, app, kind, token, target, created_at, updated_at) \
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
    )
    .bind(drain.id.to_string())
    .bind(drain.app.to_string())
    .bind(drain.kind.as_str())
    .bind(&drain.token)
    .bind(&drain.target)
    .bind(drain.created_at)
    .bind(drain.updated_at)
    .execute(db)
    .await?;
    Ok(())
}

/// Gives a drain another target.
///
/// # Errors
/// When the database fails.
pub async fn update(db: &mut SqliteConnection, id: DrainId, target: &[u8], now: Micros) -> Result<()> {
    let query = sqlx::query("UPDATE drains SET target = ?2, updated_at = ?3 WHERE id = ?1");
    query.bind(id.to_string()).bind(target).bind(now).execute(db).await?;
    Ok(())
}

/// Removes a drain.
///
/// # Errors
/// When the database fails.
pub async fn delete(db: &mut SqliteConnection, id: DrainId) -> Result<()> {
    sqlx::query("DELETE FROM drains WHERE id = ?1").bind(id.to_string()).execute(db).await?;
    Ok(())
}

/// An app's drains of one kind, oldest first.
///
/// # Errors
/// When the database fails.
pub async fn of_app(db: &mut SqliteConnection, app: AppId, kind: Kind) -> Result<Vec<Drain>> {
    let query = sqlx::query("SELECT * FROM drains WHERE app = ?1 AND kind = ?2 ORDER BY created_at, id");
    query.bind(app.to_string()).bind(kind.as_str()).fetch_all(db).await?.iter().map(from_row).collect()
}

/// One drain.
///
/// # Errors
/// When the database fails.
pub async fn by_id(db: &mut SqliteConnection, id: DrainId) -> Result<Option<Drain>> {
    let query = sqlx::query("SELECT * FROM drains WHERE id = ?1");
    query.bind(id.to_string()).fetch_optional(db).await?.as_ref().map(from_row).transpose()
}

/// Every drain of every app, with the app's name.
///
/// # Errors
/// When the database fails.
pub async fn all(db: &mut SqliteConnection) -> Result<Vec<(Drain, String)>> {
    let query =
        "SELECT drains.*, apps.name AS app_name FROM drains JOIN apps ON apps.id = drains.app ORDER BY drains.id";
    let rows = sqlx::query(query).fetch_all(db).await?;
    rows.iter().map(|row| Ok((from_row(row)?, row.try_get("app_name")?))).collect()
}
