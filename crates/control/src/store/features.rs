//! Which features are switched on or off, where somebody did; others are at their default.

use dozen_api::clock::Micros;
use dozen_domain::ids::{AccountId, AppId};
use sqlx::{Row, SqliteConnection, sqlite::SqliteRow};

use super::Result;

/// A feature that somebody switched.
#[derive(Debug, Clone, PartialEq)]
pub struct Switch {
    /// Its name.
    pub name: String,
    /// On or off.
    pub enabled: bool,
    /// When it was first switched.
    pub created_at: Micros,
    /// When it was last switched.
    pub updated_at: Micros,
}

fn from_row(row: &SqliteRow) -> Result<Switch> {
    Ok(Switch {
        name: row.try_get("name")?,
        enabled: row.try_get("enabled")?,
        created_at: row.try_get("created_at")?,
        updated_at: row.try_get("updated_at")?,
    })
}

/// An app's switched features.
///
/// # Errors
/// When the database fails.
pub async fn of_app(db: &mut SqliteConnection, app: AppId) -> Result<Vec<Switch>> {
    let query = sqlx::query("SELECT * FROM app_features WHERE app = ?1").bind(app.to_string());
    query.fetch_all(db).await?.iter().map(from_row).collect()
}

/// An account's switched features.
///
/// # Errors
/// When the database fails.
pub async fn of_account(db: &mut SqliteConnection, account: AccountId) -> Result<Vec<Switch>> {
    let query = sqlx::query("SELECT * FROM account_features WHERE account = ?1").bind(account.to_string());
    query.fetch_all(db).await?.iter().map(from_row).collect()
}

/// Switches an app's feature.
///
/// # Errors
/// When the database fails.
pub async fn switch_app(db: &mut SqliteConnection, app: AppId, name: &str, enabled: bool, now: Micros) -> Result<()> {
    sqlx::query(
        "INSERT INTO app_features (app, name, enabled, created_at, updated_at) VALUES (?1, ?2, ?3, ?4, ?4) \
         ON CONFLICT (app, name) DO UPDATE SET enabled = ?3, updated_at = ?4",
    )
    .bind(app.to_string())
    .bind(name)
    .bind(enabled)
    .bind(now)
    .execute(db)
    .await?;
    Ok(())
}

/// Switches an account's feature.
///
/// # Errors
/// When the database fails.
pub async fn switch_account(
    db: &mut SqliteConnection,
    account: AccountId,
    name: &str,
    enabled: bool,
    now: Micros,
) -> Result<()> {
    sqlx::query(
        "INSERT INTO account_features (account, name, enabled, created_at, updated_at) VALUES (?1, ?2, ?3, ?4, ?4) \
         ON CONFLICT (account, name) DO UPDATE SET enabled = ?3, updated_at = ?4",
    )
    .bind(account.to_string())
    .bind(name)
    .bind(enabled)
    .bind(now)
    .execute(db)
    .await?;
    Ok(())
}
