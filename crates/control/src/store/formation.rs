//! How many dynos of which size an app wants, by process type.

use dozen_api::clock::Micros;
use dozen_domain::{
    ids::{AppId, FormationId},
    name::ProcessType,
    size::Size,
};
use sqlx::{SqliteConnection, sqlite::SqliteRow};

use super::{Result, column};

/// Wanted quantity and size of one process type.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Formation {
    /// Which.
    pub id: FormationId,
    /// Of which app.
    pub app: AppId,
    /// Its process type.
    pub process_type: ProcessType,
    /// How many.
    pub quantity: u32,
    /// How large.
    pub size: Size,
    /// When the process type appeared.
    pub created_at: Micros,
    /// When it was last scaled.
    pub updated_at: Micros,
}

fn from_row(row: &SqliteRow) -> Result<Formation> {
    use sqlx::Row;
    Ok(Formation {
        id: column::parse(row, "id")?,
        app: column::parse(row, "app")?,
        process_type: column::parse(row, "type")?,
        quantity: column::integer(row, "quantity")?,
        size: column::parse(row, "size")?,
        created_at: row.try_get("created_at")?,
        updated_at: row.try_get("updated_at")?,
    })
}

/// Adds a process type's formation, or changes its quantity and size.
///
/// # Errors
/// When the database fails.
pub async fn put(db: &mut SqliteConnection, formation: &Formation) -> Result<()> {
    sqlx::query(
        "INSERT INTO formation (id, app, type, quantity, size, created_at, updated_at) \
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7) \
         ON CONFLICT (id) DO UPDATE SET quantity = ?4, size = ?5, updated_at = ?7",
    )
    .bind(formation.id.to_string())
    .bind(formation.app.to_string())
    .bind(formation.process_type.as_str())
    .bind(formation.quantity)
    .bind(formation.size.name())
    .bind(formation.created_at)
    .bind(formation.updated_at)
    .execute(db)
    .await?;
    Ok(())
}

/// An app's formation, by process type.
///
/// # Errors
/// When the database fails.
pub async fn of_app(db: &mut SqliteConnection, app: AppId) -> Result<Vec<Formation>> {
    let query = sqlx::query("SELECT * FROM formation WHERE app = ?1 ORDER BY type").bind(app.to_string());
    query.fetch_all(db).await?.iter().map(from_row).collect()
}

/// Removes a process type that is gone from the slug.
///
/// # Errors
/// When the database fails.
pub async fn delete(db: &mut SqliteConnection, id: FormationId) -> Result<()> {
    sqlx::query("DELETE FROM formation WHERE id = ?1").bind(id.to_string()).execute(db).await?;
    Ok(())
}
