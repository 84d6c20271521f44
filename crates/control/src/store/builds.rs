//! Builds: what was asked for, how it ended, what came of it.

use dozen_api::clock::Micros;
use dozen_domain::ids::{AccountId, AppId, BuildId, ReleaseId, SlugId};
use sqlx::{Row, SqliteConnection, sqlite::SqliteRow};

use super::{Error, Result, Window, column};

/// How a build stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// It runs or waits.
    Pending,
    /// It made a slug.
    Succeeded,
    /// It did not.
    Failed,
}

impl Status {
    /// The word of the API and the database.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
        }
    }
}

/// A build.
#[derive(Debug, Clone, PartialEq)]
pub struct Build {
    /// Which.
    pub id: BuildId,
    /// Of which app.
    pub app: AppId,
    /// Who asked for it.
    pub account: AccountId,
    /// Who asked for it, as it was then.
    pub email: String,
    /// How it stands.
    pub status: Status,
    /// Where the source came from.
    pub source_url: String,
    /// `SHA256:…` that the source must have.
    pub source_checksum: Option<String>,
    /// Commit, or what the client calls the source.
    pub source_version: Option<String>,
    /// First line of the commit's message, or what the client says of the source.
    pub source_version_description: Option<String>,
    /// Addresses of the buildpacks that were asked for.
    pub buildpacks: Vec<String>,
    /// `heroku-24`.
    pub stack: String,
    /// What it made.
    pub slug: Option<SlugId>,
    /// The release that followed.
    pub release: Option<ReleaseId>,
    /// Milliseconds spent in foreign programs.
    pub foreign_ms: u64,
    /// When it began.
    pub created_at: Micros,
    /// When it last changed.
    pub updated_at: Micros,
}

fn from_row(row: &SqliteRow) -> Result<Build> {
    let status = match row.try_get::<String, _>("status")?.as_str() {
        "pending" => Status::Pending,
        "succeeded" => Status::Succeeded,
        "failed" => Status::Failed,
        other => return Err(Error::Column { column: "status", source: other.to_owned().into() }),
    };
    Ok(Build {
        id: column::parse(row, "id")?,
        app: column::parse(row, "app")?,
        account: column::parse(row, "account")?,
        email: row.try_get("email")?,
        status,
        source_url: row.try_get("source_url")?,
        source_checksum: row.try_get("source_checksum")?,
        source_version: row.try_get("source_version")?,
        source_version_description: row.try_get("source_version_description")?,
        buildpacks: column::json(row, "buildpacks")?,
        stack: row.try_get("stack")?,
        slug: column::parse_optional(row, "slug")?,
        release: column::parse_optional(row, "release")?,
        foreign_ms: column::integer(row, "foreign_ms")?,
        created_at: row.try_get("created_at")?,
        updated_at: row.try_get("updated_at")?,
    })
}

/// Adds a build.
///
/// # Errors
/// When the database fails.
pub async fn insert(db: &mut SqliteConnection, build: &Build) -> Result<()> {
    sqlx::query(
        "INSERT INTO builds (id, app, account, email, status, source_url, source_checksum, source_version, \
         source_version_description, buildpacks, stack, slug, release, foreign_ms, created_at, updated_at) \
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16)",
    )
    .bind(build.id.to_string())
    .bind(build.app.to_string())
    .bind(build.account.to_string())
    .bind(&build.email)
    .bind(build.status.as_str())
    .bind(&build.source_url)
    .bind(&build.source_checksum)
    .bind(&build.source_version)
    .bind(&build.source_version_description)
    .bind(serde_json::json!(build.buildpacks).to_string())
    .bind(&build.stack)
    .bind(build.slug.map(|slug| slug.to_string()))
    .bind(build.release.map(|release| release.to_string()))
    .bind(i64::try_from(build.foreign_ms).unwrap_or(i64::MAX))
    .bind(build.created_at)
    .bind(build.updated_at)
    .execute(db)
    .await?;
    Ok(())
}

/// Writes how a build stands: status, slug, release, time in foreign programs.
///
/// # Errors
/// When the database fails.
pub async fn update(db: &mut SqliteConnection, build: &Build) -> Result<()> {
    sqlx::query(
        "UPDATE builds SET status = ?2, slug = ?3, release = ?4, foreign_ms = ?5, updated_at = ?6 WHERE id = ?1",
    )
    .bind(build.id.to_string())
    .bind(build.status.as_str())
    .bind(build.slug.map(|slug| slug.to_string()))
    .bind(build.release.map(|release| release.to_string()))
    .bind(i64::try_from(build.foreign_ms).unwrap_or(i64::MAX))
    .bind(build.updated_at)
    .execute(db)
    .await?;
    Ok(())
}

/// A part of an app's builds, by `started_at` (microseconds) or `id`.
///
/// # Errors
/// When the database fails.
pub async fn window(db: &mut SqliteConnection, app: AppId, window: &Window) -> Result<Vec<Build>> {
    let by_id = window.key == "id";
    let query = sqlx::query(match (by_id, window.descending) {
        (false, false) => {
            "SELECT * FROM builds WHERE app = ?1 AND created_at >= coalesce(?2, 0) \
             AND created_at <= coalesce(?3, 9223372036854775807) ORDER BY created_at, id LIMIT ?4"
        }
        (false, true) => {
            "SELECT * FROM builds WHERE app = ?1 AND created_at >= coalesce(?2, 0) \
             AND created_at <= coalesce(?3, 9223372036854775807) ORDER BY created_at DESC, id DESC LIMIT ?4"
        }
        (true, false) => {
            "SELECT * FROM builds WHERE app = ?1 AND id >= coalesce(?2, '') AND id <= coalesce(?3, '~') \
             ORDER BY id LIMIT ?4"
        }
        (true, true) => {
            "SELECT * FROM builds WHERE app = ?1 AND id >= coalesce(?2, '') AND id <= coalesce(?3, '~') \
             ORDER BY id DESC LIMIT ?4"
        }
    })
    .bind(app.to_string());
    let query = match by_id {
        true => query.bind(window.from.clone()).bind(window.to.clone()),
        false => query.bind(window.lower()).bind(window.upper()),
    };
    query.bind(window.rows).fetch_all(db).await?.iter().map(from_row).collect()
}

/// The build with this id.
///
/// # Errors
/// When the database fails.
pub async fn by_id(db: &mut SqliteConnection, id: BuildId) -> Result<Option<Build>> {
    let row = sqlx::query("SELECT * FROM builds WHERE id = ?1").bind(id.to_string()).fetch_optional(db).await?;
    row.as_ref().map(from_row).transpose()
}

/// Forgets an app's builds that have ended, but for the newest so many; answers how many those were.
///
/// # Errors
/// When the database fails.
pub async fn forget(db: &mut SqliteConnection, app: AppId, keep: i64) -> Result<u64> {
    let query = sqlx::query(
        "DELETE FROM builds WHERE status <> 'pending' AND id IN \
         (SELECT id FROM builds WHERE app = ?1 ORDER BY created_at DESC, id DESC LIMIT -1 OFFSET ?2)",
    );
    Ok(query.bind(app.to_string()).bind(keep).execute(db).await?.rows_affected())
}

/// Ids of an app's builds.
///
/// # Errors
/// When the database fails.
pub async fn ids(db: &mut SqliteConnection, app: AppId) -> Result<Vec<BuildId>> {
    let rows = sqlx::query("SELECT id FROM builds WHERE app = ?1").bind(app.to_string()).fetch_all(db).await?;
    rows.iter().map(|row| column::parse(row, "id")).collect()
}

/// An app's newest build that succeeded.
///
/// # Errors
/// When the database fails.
pub async fn newest_succeeded(db: &mut SqliteConnection, app: AppId) -> Result<Option<Build>> {
    let query = sqlx::query(
        "SELECT * FROM builds WHERE app = ?1 AND status = 'succeeded' ORDER BY created_at DESC, id DESC LIMIT 1",
    );
    let row = query.bind(app.to_string()).fetch_optional(db).await?;
    row.as_ref().map(from_row).transpose()
}

/// Builds that were pending when the role last stopped.
///
/// # Errors
/// When the database fails.
pub async fn pending(db: &mut SqliteConnection) -> Result<Vec<Build>> {
    let rows = sqlx::query("SELECT * FROM builds WHERE status = 'pending'").fetch_all(db).await?;
    rows.iter().map(from_row).collect()
}
