//! Add-ons of apps. Each has one attachment, in the same row.

use dozen_api::clock::Micros;
use dozen_domain::ids::{AddonAttachmentId, AddonId, AppId};
use sqlx::{Row, SqliteConnection, sqlite::SqliteRow};

use super::{Result, column};

/// An add-on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Addon {
    /// Which.
    pub id: AddonId,
    /// Whose.
    pub app: AppId,
    /// Its name, unique on the platform.
    pub name: String,
    /// `service:plan`
    pub plan: String,
    /// Its attachment to the app.
    pub attachment_id: AddonAttachmentId,
    /// The attachment's name, unique in the app.
    pub attachment: String,
    /// When it was made.
    pub created_at: Micros,
    /// When it was last changed.
    pub updated_at: Micros,
}

fn from_row(row: &SqliteRow) -> Result<Addon> {
    Ok(Addon {
        id: column::parse(row, "id")?,
        app: column::parse(row, "app")?,
        name: row.try_get("name")?,
        plan: row.try_get("plan")?,
        attachment_id: column::parse(row, "attachment_id")?,
        attachment: row.try_get("attachment")?,
        created_at: row.try_get("created_at")?,
        updated_at: row.try_get("updated_at")?,
    })
}

/// Adds one, or renames the one with this id.
///
/// # Errors
/// When its name or its attachment's is taken ([`super::Error::is_taken`]) or the database fails.
pub async fn put(db: &mut SqliteConnection, one: &Addon) -> Result<()> {
    sqlx::query(
        "INSERT INTO addons (id, app, name, plan, attachment_id, attachment, created_at, updated_at) \
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8) ON CONFLICT (id) DO UPDATE SET name = ?3, updated_at = ?8",
    )
    .bind(one.id.to_string())
    .bind(one.app.to_string())
    .bind(&one.name)
    .bind(&one.plan)
    .bind(one.attachment_id.to_string())
    .bind(&one.attachment)
    .bind(one.created_at)
    .bind(one.updated_at)
    .execute(db)
    .await?;
    Ok(())
}

/// An app's add-ons by name.
///
/// # Errors
/// When the database fails.
pub async fn of_app(db: &mut SqliteConnection, app: AppId) -> Result<Vec<Addon>> {
    let query = sqlx::query("SELECT * FROM addons WHERE app = ?1 ORDER BY name").bind(app.to_string());
    query.fetch_all(db).await?.iter().map(from_row).collect()
}

/// Removes one.
///
/// # Errors
/// When the database fails.
pub async fn delete(db: &mut SqliteConnection, id: AddonId) -> Result<()> {
    sqlx::query("DELETE FROM addons WHERE id = ?1").bind(id.to_string()).execute(db).await?;
    Ok(())
}
