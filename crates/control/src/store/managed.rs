//! Apps whose certificates the platform gets and renews, how that goes for each of their domains, and the platform's
//! accounts with certificate authorities.

use dozen_api::clock::Micros;
use dozen_domain::ids::{AppId, DomainId};
use sqlx::{Row, SqliteConnection};

use super::{Result, column};

/// How it goes for a domain.
#[derive(Debug, Clone, PartialEq)]
pub struct Progress {
    /// In the Platform API's words: `in-progress`, `cert issued`, `failing`, `failed`.
    pub status: String,
    /// Why so.
    pub reason: Option<String>,
    /// Failures in a row.
    pub failures: u32,
    /// When something is to be done next: a renewal, or another attempt.
    pub next_at: Micros,
}

/// A domain of a managed app.
#[derive(Debug, Clone, PartialEq)]
pub struct Managed {
    /// Which.
    pub domain: DomainId,
    /// Its app.
    pub app: AppId,
    /// Its name.
    pub hostname: String,
    /// How it goes; `None` before the first attempt.
    pub progress: Option<Progress>,
}

/// Manages an app's certificates from now on.
///
/// # Errors
/// When the database fails.
pub async fn enable(db: &mut SqliteConnection, app: AppId, now: Micros) -> Result<()> {
    let query = sqlx::query("INSERT INTO managed_apps (app, created_at) VALUES (?1, ?2) ON CONFLICT (app) DO NOTHING");
    query.bind(app.to_string()).bind(now).execute(db).await?;
    Ok(())
}

/// Leaves an app's certificates alone from now on, and forgets how it went.
///
/// # Errors
/// When the database fails.
pub async fn disable(db: &mut SqliteConnection, app: AppId) -> Result<()> {
    reset(db, app).await?;
    sqlx::query("DELETE FROM managed_apps WHERE app = ?1").bind(app.to_string()).execute(db).await?;
    Ok(())
}

/// Forgets how it went for domains that have no certificate: the next look begins with them.
///
/// # Errors
/// When the database fails.
pub async fn retry(db: &mut SqliteConnection, app: AppId) -> Result<()> {
    let query = sqlx::query(
        "DELETE FROM managed_domains WHERE status <> 'cert issued' \
         AND domain IN (SELECT id FROM domains WHERE app = ?1)",
    );
    query.bind(app.to_string()).execute(db).await?;
    Ok(())
}

async fn reset(db: &mut SqliteConnection, app: AppId) -> Result<()> {
    let query = sqlx::query("DELETE FROM managed_domains WHERE domain IN (SELECT id FROM domains WHERE app = ?1)");
    query.bind(app.to_string()).execute(db).await?;
    Ok(())
}

/// All custom domains of managed apps, but for those that have a certificate of their owner's.
///
/// # Errors
/// When the database fails.
pub async fn all(db: &mut SqliteConnection) -> Result<Vec<Managed>> {
    let query = sqlx::query(
        "SELECT domains.id, domains.app, domains.hostname, m.status, m.reason, m.failures, m.next_at FROM domains \
         JOIN managed_apps ON managed_apps.app = domains.app LEFT JOIN managed_domains AS m ON m.domain = domains.id \
         LEFT JOIN sni_endpoints ON sni_endpoints.id = domains.sni_endpoint \
         WHERE domains.kind = 'custom' AND coalesce(sni_endpoints.managed, 1) ORDER BY domains.hostname",
    );
    let read = |row: &sqlx::sqlite::SqliteRow| {
        let progress = match row.try_get::<Option<String>, _>("status")? {
            Some(status) => Some(Progress {
                status,
                reason: row.try_get("reason")?,
                failures: column::integer(row, "failures")?,
                next_at: row.try_get("next_at")?,
            }),
            None => None,
        };
        let (domain, app) = (column::parse(row, "id")?, column::parse(row, "app")?);
        Ok(Managed { domain, app, hostname: row.try_get("hostname")?, progress })
    };
    query.fetch_all(db).await?.iter().map(read).collect()
}

/// Records how it goes for a domain. A domain or a management that has gone meanwhile stays gone.
///
/// # Errors
/// When the database fails.
pub async fn record(db: &mut SqliteConnection, domain: DomainId, progress: &Progress, now: Micros) -> Result<()> {
    sqlx::query(
        "INSERT INTO managed_domains (domain, status, reason, failures, next_at, updated_at) \
         SELECT domains.id, ?2, ?3, ?4, ?5, ?6 FROM domains JOIN managed_apps ON managed_apps.app = domains.app \
         WHERE domains.id = ?1 ON CONFLICT (domain) DO UPDATE SET \
         status = ?2, reason = ?3, failures = ?4, next_at = ?5, updated_at = ?6",
    )
    .bind(domain.to_string())
    .bind(&progress.status)
    .bind(&progress.reason)
    .bind(progress.failures)
    .bind(progress.next_at)
    .bind(now)
    .execute(db)
    .await?;
    Ok(())
}

/// The sealed credentials of the account with an authority.
///
/// # Errors
/// When the database fails.
pub async fn account(db: &mut SqliteConnection, directory: &str) -> Result<Option<Vec<u8>>> {
    let row = sqlx::query("SELECT sealed FROM acme_accounts WHERE directory = ?1").bind(directory);
    Ok(row.fetch_optional(db).await?.map(|row| row.try_get("sealed")).transpose()?)
}

/// Keeps them; `None` forgets them.
///
/// # Errors
/// When the database fails.
pub async fn set_account(db: &mut SqliteConnection, directory: &str, sealed: Option<&[u8]>, now: Micros) -> Result<()> {
    sqlx::query("DELETE FROM acme_accounts WHERE directory = ?1").bind(directory).execute(&mut *db).await?;
    if let Some(sealed) = sealed {
        let query = sqlx::query("INSERT INTO acme_accounts (directory, sealed, created_at) VALUES (?1, ?2, ?3)");
        query.bind(directory).bind(sealed).bind(now).execute(db).await?;
    }
    Ok(())
}
