//! Host names of apps.

use dozen_api::clock::Micros;
use dozen_domain::ids::{AppId, DomainId, SniEndpointId};
use sqlx::{Row, SqliteConnection, sqlite::SqliteRow};

use super::{Result, column};

/// A host name that leads to an app.
#[derive(Debug, Clone, PartialEq)]
pub struct Domain {
    /// Which.
    pub id: DomainId,
    /// Of which app.
    pub app: AppId,
    /// In lower case; `*.example.com` is a wildcard.
    pub hostname: String,
    /// Added by a person; the app's own name below the platform's domain is not.
    pub custom: bool,
    /// Its certificate and that one's name.
    pub sni_endpoint: Option<(SniEndpointId, String)>,
    /// How it goes with its managed certificate: a word of the Platform API's, and why.
    pub progress: Option<(String, Option<String>)>,
    /// When it was added.
    pub created_at: Micros,
    /// When it was last changed.
    pub updated_at: Micros,
}

/// The columns of a [`Domain`]. A literal, because SQL texts are never put together at run time.
macro_rules! select {
    ($rest:literal) => {
        concat!(
            "SELECT domains.*, sni_endpoints.name AS endpoint_name, \
             CASE WHEN managed_apps.app IS NULL OR kind <> 'custom' THEN NULL \
             WHEN NOT sni_endpoints.managed THEN 'cert issued' \
             ELSE coalesce(managed_domains.status, 'pending') END AS acm_status, \
             CASE WHEN NOT sni_endpoints.managed THEN 'a certificate of its own' ELSE managed_domains.reason END \
             AS acm_reason FROM domains \
             LEFT JOIN managed_apps ON managed_apps.app = domains.app \
             LEFT JOIN managed_domains ON managed_domains.domain = domains.id \
             LEFT JOIN sni_endpoints ON sni_endpoints.id = domains.sni_endpoint ",
            $rest
        )
    };
}

fn from_row(row: &SqliteRow) -> Result<Domain> {
    Ok(Domain {
        id: column::parse(row, "id")?,
        app: column::parse(row, "app")?,
        hostname: row.try_get("hostname")?,
        custom: row.try_get::<String, _>("kind")? == "custom",
        sni_endpoint: column::parse_optional(row, "sni_endpoint")?.zip(row.try_get("endpoint_name")?),
        progress: row
            .try_get::<Option<String>, _>("acm_status")?
            .map(|status| Ok::<_, sqlx::Error>((status, row.try_get("acm_reason")?)))
            .transpose()?,
        created_at: row.try_get("created_at")?,
        updated_at: row.try_get("updated_at")?,
    })
}

/// Adds a domain.
///
/// # Errors
/// When some app has it already ([`super::Error::is_taken`]) or the database fails.
pub async fn insert(db: &mut SqliteConnection, domain: &Domain) -> Result<()> {
    sqlx::query(
        "INSERT INTO domains (id, app, hostname, kind, created_at, updated_at, sni_endpoint) \
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
    )
    .bind(domain.id.to_string())
    .bind(domain.app.to_string())
    .bind(&domain.hostname)
    .bind(if domain.custom { "custom" } else { "heroku" })
    .bind(domain.created_at)
    .bind(domain.updated_at)
    .bind(domain.sni_endpoint.as_ref().map(|(id, _)| id.to_string()))
    .execute(db)
    .await?;
    Ok(())
}

/// Gives an app's own domain another name.
///
/// # Errors
/// When some app has it already ([`super::Error::is_taken`]) or the database fails.
pub async fn rename_own(db: &mut SqliteConnection, app: AppId, hostname: &str, now: Micros) -> Result<()> {
    sqlx::query("UPDATE domains SET hostname = ?2, updated_at = ?3 WHERE app = ?1 AND kind = 'heroku'")
        .bind(app.to_string())
        .bind(hostname)
        .bind(now)
        .execute(db)
        .await?;
    Ok(())
}

/// An app's domains, its own first, then by name.
///
/// # Errors
/// When the database fails.
pub async fn of_app(db: &mut SqliteConnection, app: AppId) -> Result<Vec<Domain>> {
    let query = sqlx::query(select!("WHERE domains.app = ?1 ORDER BY kind = 'heroku' DESC, hostname"));
    query.bind(app.to_string()).fetch_all(db).await?.iter().map(from_row).collect()
}

/// Gives a domain a certificate, or takes it away.
///
/// # Errors
/// When the database fails.
pub async fn set_sni_endpoint(
    db: &mut SqliteConnection,
    id: DomainId,
    endpoint: Option<SniEndpointId>,
    now: Micros,
) -> Result<()> {
    sqlx::query("UPDATE domains SET sni_endpoint = ?2, updated_at = ?3 WHERE id = ?1")
        .bind(id.to_string())
        .bind(endpoint.map(|endpoint| endpoint.to_string()))
        .bind(now)
        .execute(db)
        .await?;
    Ok(())
}

/// Removes a domain.
///
/// # Errors
/// When the database fails.
pub async fn delete(db: &mut SqliteConnection, id: DomainId) -> Result<()> {
    sqlx::query("DELETE FROM domains WHERE id = ?1").bind(id.to_string()).execute(db).await?;
    Ok(())
}

/// Domains of any app that are this name, a wildcard over it, or, when it is a wildcard, below it.
///
/// # Errors
/// When the database fails.
pub async fn overlapping(db: &mut SqliteConnection, hostname: &str) -> Result<Vec<Domain>> {
    let plain = hostname.strip_prefix("*.").unwrap_or(hostname);
    let below = if plain.len() < hostname.len() { format!(".{plain}") } else { String::new() };
    let query = sqlx::query(select!(
        "WHERE hostname = ?1 \
         OR (substr(hostname, 1, 2) = '*.' AND substr(?1, 1 - length(hostname)) = substr(hostname, 2)) \
         OR (?2 <> '' AND substr(hostname, -length(?2)) = ?2) ORDER BY hostname = ?1 DESC"
    ));
    query.bind(hostname).bind(below).fetch_all(db).await?.iter().map(from_row).collect()
}
