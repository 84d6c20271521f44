//! The buildpacks that people chose for an app, in order.

use dozen_domain::ids::AppId;
use sqlx::{Row, SqliteConnection};

use super::Result;

/// One entry of an app's list of buildpacks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Installation {
    /// `urn:buildpack:heroku/python`, or a URL.
    pub url: String,
    /// What lists show.
    pub name: String,
}

/// An app's buildpacks in order.
///
/// # Errors
/// When the database fails.
pub async fn of_app(db: &mut SqliteConnection, app: AppId) -> Result<Vec<Installation>> {
    let query = sqlx::query("SELECT url, name FROM buildpack_installations WHERE app = ?1 ORDER BY ordinal");
    let rows = query.bind(app.to_string()).fetch_all(db).await?;
    rows.iter().map(|row| Ok(Installation { url: row.try_get("url")?, name: row.try_get("name")? })).collect()
}

/// Replaces an app's buildpacks.
///
/// # Errors
/// When the database fails.
pub async fn replace(db: &mut SqliteConnection, app: AppId, installations: &[Installation]) -> Result<()> {
    let query = sqlx::query("DELETE FROM buildpack_installations WHERE app = ?1").bind(app.to_string());
    query.execute(&mut *db).await?;
    for (ordinal, installation) in (0_i64..).zip(installations) {
        sqlx::query("INSERT INTO buildpack_installations (app, ordinal, url, name) VALUES (?1, ?2, ?3, ?4)")
            .bind(app.to_string())
            .bind(ordinal)
            .bind(&installation.url)
            .bind(&installation.name)
            .execute(&mut *db)
            .await?;
    }
    Ok(())
}
