//! Apps that were destroyed and whose remains are not cleared up yet. A trigger adds the rows.

use dozen_domain::ids::AppId;
use sqlx::SqliteConnection;

use super::{Result, column};

/// All of them.
///
/// # Errors
/// When the database fails.
pub async fn all(db: &mut SqliteConnection) -> Result<Vec<AppId>> {
    let rows = sqlx::query("SELECT app FROM removals").fetch_all(db).await?;
    rows.iter().map(|row| column::parse(row, "app")).collect()
}

/// Nothing is left of this app.
///
/// # Errors
/// When the database fails.
pub async fn delete(db: &mut SqliteConnection, app: AppId) -> Result<()> {
    sqlx::query("DELETE FROM removals WHERE app = ?1").bind(app.to_string()).execute(db).await?;
    Ok(())
}
