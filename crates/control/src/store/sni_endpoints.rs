//! Certificates of apps' domains. A key is stored sealed; who may see it is not decided here.

use dozen_api::clock::Micros;
use dozen_domain::ids::{AppId, SniEndpointId};
use sqlx::{Row, SqliteConnection, sqlite::SqliteRow};

use super::{Result, column};

/// A certificate of an app.
#[derive(Debug, Clone, PartialEq)]
pub struct SniEndpoint {
    /// Which.
    pub id: SniEndpointId,
    /// Of which app.
    pub app: AppId,
    /// Its name, unique in the app.
    pub name: String,
    /// The platform gets and renews it.
    pub managed: bool,
    /// An authority that this machine trusts has signed it.
    pub trusted: bool,
    /// The chain in PEM.
    pub chain: String,
    /// The key in PEM, sealed with the id as context.
    pub sealed_key: Vec<u8>,
    /// Valid from.
    pub starts_at: Micros,
    /// Valid until.
    pub expires_at: Micros,
    /// When it was added.
    pub created_at: Micros,
    /// When it was last changed.
    pub updated_at: Micros,
}

fn from_row(row: &SqliteRow) -> Result<SniEndpoint> {
    Ok(SniEndpoint {
        id: column::parse(row, "id")?,
        app: column::parse(row, "app")?,
        name: row.try_get("name")?,
        managed: row.try_get("managed")?,
        trusted: row.try_get("trusted")?,
        chain: row.try_get("chain")?,
        sealed_key: row.try_get("sealed_key")?,
        starts_at: row.try_get("starts_at")?,
        expires_at: row.try_get("expires_at")?,
        created_at: row.try_get("created_at")?,
        updated_at: row.try_get("updated_at")?,
    })
}

/// Adds a certificate, or changes everything but id, app and name of the one with this id.
///
/// # Errors
/// When the app has another one of this name ([`super::Error::is_taken`]) or the database fails.
pub async fn put(db: &mut SqliteConnection, one: &SniEndpoint) -> Result<()> {
    sqlx::query(
        "INSERT INTO sni_endpoints \
         (id, app, name, managed, trusted, chain, sealed_key, starts_at, expires_at, created_at, updated_at) \
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11) ON CONFLICT (id) DO UPDATE SET managed = ?4, \
         trusted = ?5, chain = ?6, sealed_key = ?7, starts_at = ?8, expires_at = ?9, updated_at = ?11",
    )
    .bind(one.id.to_string())
    .bind(one.app.to_string())
    .bind(&one.name)
    .bind(one.managed)
    .bind(one.trusted)
    .bind(&one.chain)
    .bind(&one.sealed_key)
    .bind(one.starts_at)
    .bind(one.expires_at)
    .bind(one.created_at)
    .bind(one.updated_at)
    .execute(db)
    .await?;
    Ok(())
}

/// An app's certificates by name.
///
/// # Errors
/// When the database fails.
pub async fn of_app(db: &mut SqliteConnection, app: AppId) -> Result<Vec<SniEndpoint>> {
    let query = sqlx::query("SELECT * FROM sni_endpoints WHERE app = ?1 ORDER BY name").bind(app.to_string());
    query.fetch_all(db).await?.iter().map(from_row).collect()
}

/// Removes a certificate; its domains have none then.
///
/// # Errors
/// When the database fails.
pub async fn delete(db: &mut SqliteConnection, id: SniEndpointId) -> Result<()> {
    sqlx::query("DELETE FROM sni_endpoints WHERE id = ?1").bind(id.to_string()).execute(db).await?;
    Ok(())
}

/// Removes an app's managed certificates that no domain uses.
///
/// # Errors
/// When the database fails.
pub async fn delete_unused(db: &mut SqliteConnection, app: AppId) -> Result<()> {
    let query = sqlx::query(
        "DELETE FROM sni_endpoints WHERE app = ?1 AND managed AND id NOT IN \
         (SELECT sni_endpoint FROM domains WHERE app = ?1 AND sni_endpoint IS NOT NULL)",
    );
    query.bind(app.to_string()).execute(db).await?;
    Ok(())
}

/// Removes all of an app's managed certificates.
///
/// # Errors
/// When the database fails.
pub async fn delete_managed(db: &mut SqliteConnection, app: AppId) -> Result<()> {
    sqlx::query("DELETE FROM sni_endpoints WHERE app = ?1 AND managed").bind(app.to_string()).execute(db).await?;
    Ok(())
}
