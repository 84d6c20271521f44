//! Releases that the platform made by itself because another did not come up.

use dozen_domain::ids::ReleaseId;
use sqlx::SqliteConnection;

use super::{Result, column};

/// Adds one.
///
/// # Errors
/// When the database fails.
pub async fn insert(db: &mut SqliteConnection, release: ReleaseId, failed: ReleaseId) -> Result<()> {
    let query = sqlx::query("INSERT INTO returns (release, failed) VALUES (?1, ?2)");
    query.bind(release.to_string()).bind(failed.to_string()).execute(db).await?;
    Ok(())
}

/// The release that did not come up, when this one was made for that.
///
/// # Errors
/// When the database fails.
pub async fn failed(db: &mut SqliteConnection, release: ReleaseId) -> Result<Option<ReleaseId>> {
    let query = sqlx::query("SELECT failed FROM returns WHERE release = ?1").bind(release.to_string());
    query.fetch_optional(db).await?.as_ref().map(|row| column::parse(row, "failed")).transpose()
}
