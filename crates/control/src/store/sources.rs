//! Uploaded source blobs, by which a build can be asked for.

use dozen_api::clock::Micros;
use dozen_domain::ids::{AccountId, SourceId};
use sqlx::{Row, SqliteConnection};

use super::{Result, column};

/// A place for one upload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// Which.
    pub id: SourceId,
    /// Whose.
    pub account: AccountId,
    /// Bytes; `None` before the upload.
    pub size: Option<i64>,
    /// When it was made.
    pub created_at: Micros,
    /// When its addresses end.
    pub expires_at: Micros,
}

/// Adds a source.
///
/// # Errors
/// When the database fails.
pub async fn insert(db: &mut SqliteConnection, source: &Source) -> Result<()> {
    sqlx::query("INSERT INTO sources (id, account, size, created_at, expires_at) VALUES (?1, ?2, ?3, ?4, ?5)")
        .bind(source.id.to_string())
        .bind(source.account.to_string())
        .bind(source.size)
        .bind(source.created_at)
        .bind(source.expires_at)
        .execute(db)
        .await?;
    Ok(())
}

/// Records an upload.
///
/// # Errors
/// When the database fails.
pub async fn set_size(db: &mut SqliteConnection, id: SourceId, size: i64) -> Result<()> {
    let query = sqlx::query("UPDATE sources SET size = ?2 WHERE id = ?1").bind(id.to_string()).bind(size);
    query.execute(db).await?;
    Ok(())
}

/// The source with this id.
///
/// # Errors
/// When the database fails.
pub async fn by_id(db: &mut SqliteConnection, id: SourceId) -> Result<Option<Source>> {
    let row = sqlx::query("SELECT * FROM sources WHERE id = ?1").bind(id.to_string()).fetch_optional(db).await?;
    let Some(row) = row else { return Ok(None) };
    Ok(Some(Source {
        id: column::parse(&row, "id")?,
        account: column::parse(&row, "account")?,
        size: row.try_get("size")?,
        created_at: row.try_get("created_at")?,
        expires_at: row.try_get("expires_at")?,
    }))
}

/// Sources whose addresses ended before `now`.
///
/// # Errors
/// When the database fails.
pub async fn expired(db: &mut SqliteConnection, now: Micros) -> Result<Vec<SourceId>> {
    let rows = sqlx::query("SELECT id FROM sources WHERE expires_at <= ?1").bind(now).fetch_all(db).await?;
    rows.iter().map(|row| column::parse(row, "id")).collect()
}

/// Forgets a source.
///
/// # Errors
/// When the database fails.
pub async fn delete(db: &mut SqliteConnection, id: SourceId) -> Result<()> {
    sqlx::query("DELETE FROM sources WHERE id = ?1").bind(id.to_string()).execute(db).await?;
    Ok(())
}
