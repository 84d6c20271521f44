//! The ledger's rows. They are added and read, never changed; the database refuses it too.

use dozen_api::clock::Micros;
use dozen_domain::{
    ids::{AccountId, AppId, ReleaseId, SlugId},
    release::{Status, Version},
};
use sqlx::{Row, SqliteConnection, sqlite::SqliteRow};

use super::{Result, Window, column};

/// A release, with how it ended and whether it is in force.
#[derive(Debug, Clone, PartialEq)]
pub struct Release {
    /// Which.
    pub id: ReleaseId,
    /// Of which app.
    pub app: AppId,
    /// Its number.
    pub version: Version,
    /// `Deploy 2c3a0b2e`.
    pub description: String,
    /// Who made it.
    pub account: AccountId,
    /// Who made it, as it was then.
    pub email: String,
    /// What runs; `None` before the first deploy.
    pub slug: Option<SlugId>,
    /// All config vars, sealed with the release's id as context.
    pub config: Vec<u8>,
    /// Add-on attachments, JSON.
    pub attachments: String,
    /// Process types with the quantity they start with, JSON.
    pub formation: String,
    /// When it was made.
    pub created_at: Micros,
    /// Hash of the row before; zeros for the first.
    pub previous_hash: Vec<u8>,
    /// Hash over that and this row.
    pub hash: Vec<u8>,
    /// How it ended; not part of the row.
    pub status: Status,
    /// When it ended (or was made, while pending).
    pub updated_at: Micros,
    /// Whether it is the newest that succeeded.
    pub current: bool,
    /// Whether its slug is still there.
    pub slug_kept: bool,
    /// Whether its slug has a `release` process type.
    pub has_release_phase: bool,
}

/// The columns of a [`Release`].
macro_rules! select {
    ($rest:literal) => {
        concat!(
            "SELECT releases.*, coalesce(o.status, 'pending') AS status, coalesce(o.at, releases.created_at) AS at, \
             slugs.id IS NOT NULL AND slugs.deleted_at IS NULL AS slug_kept, \
             coalesce(json_extract(slugs.process_types, '$.release') IS NOT NULL, 0) AS has_release_phase, \
             releases.version IS (SELECT max(r.version) FROM releases AS r JOIN release_outcomes \
             ON release = r.id AND status = 'succeeded' WHERE r.app = releases.app) AS current \
             FROM releases LEFT JOIN release_outcomes AS o ON o.release = releases.id \
             LEFT JOIN slugs ON slugs.id = releases.slug ",
            $rest
        )
    };
}

fn from_row(row: &SqliteRow) -> Result<Release> {
    Ok(Release {
        id: column::parse(row, "id")?,
        app: column::parse(row, "app")?,
        version: Version(column::integer(row, "version")?),
        description: row.try_get("description")?,
        account: column::parse(row, "account")?,
        email: row.try_get("email")?,
        slug: column::parse_optional(row, "slug")?,
        config: row.try_get("config")?,
        attachments: row.try_get("attachments")?,
        formation: row.try_get("formation")?,
        created_at: row.try_get("created_at")?,
        previous_hash: row.try_get("previous_hash")?,
        hash: row.try_get("hash")?,
        status: column::parse(row, "status")?,
        updated_at: row.try_get("at")?,
        current: row.try_get("current")?,
        slug_kept: row.try_get("slug_kept")?,
        has_release_phase: row.try_get("has_release_phase")?,
    })
}

/// Adds a row and moves the ledger's head. Only [`crate::ops::releases`] calls it.
///
/// # Errors
/// When the database fails.
pub async fn append(db: &mut SqliteConnection, release: &Release) -> Result<()> {
    sqlx::query(
        "INSERT INTO releases (id, app, version, description, account, email, slug, config, attachments, formation, \
         created_at, previous_hash, hash) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13)",
    )
    .bind(release.id.to_string())
    .bind(release.app.to_string())
    .bind(release.version.0)
    .bind(&release.description)
    .bind(release.account.to_string())
    .bind(&release.email)
    .bind(release.slug.map(|slug| slug.to_string()))
    .bind(&release.config)
    .bind(&release.attachments)
    .bind(&release.formation)
    .bind(release.created_at)
    .bind(&release.previous_hash)
    .bind(&release.hash)
    .execute(&mut *db)
    .await?;
    sqlx::query(
        "INSERT INTO ledger_heads (app, version, hash) VALUES (?1, ?2, ?3) \
         ON CONFLICT (app) DO UPDATE SET version = ?2, hash = ?3",
    )
    .bind(release.app.to_string())
    .bind(release.version.0)
    .bind(&release.hash)
    .execute(db)
    .await?;
    Ok(())
}

/// Records that a release's command is about to be started on this boot of the machine; the first record stays. Says
/// whether it may yet be started: that was on this same boot, and it is not known to have begun.
///
/// # Errors
/// When the database fails.
pub async fn intend_command(db: &mut SqliteConnection, release: ReleaseId, boot: &str) -> Result<bool> {
    sqlx::query("INSERT INTO release_commands (release, boot, begun) VALUES (?1, ?2, 0) ON CONFLICT DO NOTHING")
        .bind(release.to_string())
        .bind(boot)
        .execute(&mut *db)
        .await?;
    let row = sqlx::query("SELECT boot = ?2 AND NOT begun AS startable FROM release_commands WHERE release = ?1")
        .bind(release.to_string())
        .bind(boot)
        .fetch_one(db)
        .await?;
    Ok(row.try_get("startable")?)
}

/// Records that a release's command has begun.
///
/// # Errors
/// When the database fails.
pub async fn command_began(db: &mut SqliteConnection, release: ReleaseId) -> Result<()> {
    sqlx::query("UPDATE release_commands SET begun = 1 WHERE release = ?1")
        .bind(release.to_string())
        .execute(db)
        .await?;
    Ok(())
}

/// Records how a release ended; the first answer stays.
///
/// # Errors
/// When the database fails.
pub async fn finish(db: &mut SqliteConnection, release: ReleaseId, succeeded: bool, now: Micros) -> Result<()> {
    sqlx::query("INSERT INTO release_outcomes (release, status, at) VALUES (?1, ?2, ?3) ON CONFLICT DO NOTHING")
        .bind(release.to_string())
        .bind(if succeeded { "succeeded" } else { "failed" })
        .bind(now)
        .execute(db)
        .await?;
    Ok(())
}

/// An app's releases, oldest first.
///
/// # Errors
/// When the database fails.
pub async fn of_app(db: &mut SqliteConnection, app: AppId) -> Result<Vec<Release>> {
    let query = sqlx::query(select!("WHERE releases.app = ?1 ORDER BY releases.version"));
    query.bind(app.to_string()).fetch_all(db).await?.iter().map(from_row).collect()
}

/// A part of an app's releases, by `version` or `id`.
///
/// # Errors
/// When the database fails.
pub async fn window(db: &mut SqliteConnection, app: AppId, window: &Window) -> Result<Vec<Release>> {
    let by_id = window.key == "id";
    let query = match (by_id, window.descending) {
        (false, false) => sqlx::query(select!(
            "WHERE releases.app = ?1 AND releases.version >= coalesce(?2, 0) \
             AND releases.version <= coalesce(?3, 9223372036854775807) ORDER BY releases.version LIMIT ?4"
        )),
        (false, true) => sqlx::query(select!(
            "WHERE releases.app = ?1 AND releases.version >= coalesce(?2, 0) \
             AND releases.version <= coalesce(?3, 9223372036854775807) ORDER BY releases.version DESC LIMIT ?4"
        )),
        (true, false) => sqlx::query(select!(
            "WHERE releases.app = ?1 AND releases.id >= coalesce(?2, '') AND releases.id <= coalesce(?3, '~') \
             ORDER BY releases.id LIMIT ?4"
        )),
        (true, true) => sqlx::query(select!(
            "WHERE releases.app = ?1 AND releases.id >= coalesce(?2, '') AND releases.id <= coalesce(?3, '~') \
             ORDER BY releases.id DESC LIMIT ?4"
        )),
    };
    let query = query.bind(app.to_string());
    let query = match by_id {
        true => query.bind(window.from.clone()).bind(window.to.clone()),
        false => query.bind(window.lower()).bind(window.upper()),
    };
    query.bind(window.rows).fetch_all(db).await?.iter().map(from_row).collect()
}

/// The release with this id.
///
/// # Errors
/// When the database fails.
pub async fn by_id(db: &mut SqliteConnection, id: ReleaseId) -> Result<Option<Release>> {
    let row = sqlx::query(select!("WHERE releases.id = ?1")).bind(id.to_string()).fetch_optional(db).await?;
    row.as_ref().map(from_row).transpose()
}

/// An app's release of this number.
///
/// # Errors
/// When the database fails.
pub async fn by_version(db: &mut SqliteConnection, app: AppId, version: Version) -> Result<Option<Release>> {
    let query = sqlx::query(select!("WHERE releases.app = ?1 AND releases.version = ?2"));
    let row = query.bind(app.to_string()).bind(version.0).fetch_optional(db).await?;
    row.as_ref().map(from_row).transpose()
}

/// An app's newest release, whatever its status: its config vars are the app's.
///
/// # Errors
/// When the database fails.
pub async fn newest(db: &mut SqliteConnection, app: AppId) -> Result<Option<Release>> {
    let query = sqlx::query(select!("WHERE releases.app = ?1 ORDER BY releases.version DESC LIMIT 1"));
    let row = query.bind(app.to_string()).fetch_optional(db).await?;
    row.as_ref().map(from_row).transpose()
}

/// An app's release in force: the newest that succeeded.
///
/// # Errors
/// When the database fails.
pub async fn current(db: &mut SqliteConnection, app: AppId) -> Result<Option<Release>> {
    let query = sqlx::query(select!(
        "WHERE releases.app = ?1 AND o.status = 'succeeded' ORDER BY releases.version DESC LIMIT 1"
    ));
    let row = query.bind(app.to_string()).fetch_optional(db).await?;
    row.as_ref().map(from_row).transpose()
}

/// An app's newest release that did not fail: the next one starts from its slug.
///
/// # Errors
/// When the database fails.
pub async fn newest_not_failed(db: &mut SqliteConnection, app: AppId) -> Result<Option<Release>> {
    let query = sqlx::query(select!(
        "WHERE releases.app = ?1 AND o.status IS NOT 'failed' ORDER BY releases.version DESC LIMIT 1"
    ));
    let row = query.bind(app.to_string()).fetch_optional(db).await?;
    row.as_ref().map(from_row).transpose()
}

/// All pending releases of the platform, oldest first within an app: for the release phase.
///
/// # Errors
/// When the database fails.
pub async fn pending(db: &mut SqliteConnection) -> Result<Vec<Release>> {
    let query = sqlx::query(select!("WHERE o.status IS NULL ORDER BY releases.app, releases.version"));
    query.fetch_all(db).await?.iter().map(from_row).collect()
}

/// Ids of an app's newest releases, as many as asked for.
///
/// # Errors
/// When the database fails.
pub async fn newest_ids(db: &mut SqliteConnection, app: AppId, most: i64) -> Result<Vec<ReleaseId>> {
    let query = sqlx::query("SELECT id FROM releases WHERE app = ?1 ORDER BY version DESC LIMIT ?2");
    let rows = query.bind(app.to_string()).bind(most).fetch_all(db).await?;
    rows.iter().map(|row| column::parse(row, "id")).collect()
}

/// Slugs that an app's newest `listed` releases, or its newest `succeeded` ones that succeeded, have.
///
/// # Errors
/// When the database fails.
pub async fn needed_slugs(db: &mut SqliteConnection, app: AppId, listed: i64, succeeded: i64) -> Result<Vec<SlugId>> {
    let query = sqlx::query(
        "SELECT slug FROM (SELECT slug FROM releases WHERE app = ?1 ORDER BY version DESC LIMIT ?2) \
         WHERE slug IS NOT NULL UNION \
         SELECT slug FROM (SELECT slug FROM releases JOIN release_outcomes ON release = releases.id \
         AND status = 'succeeded' WHERE app = ?1 ORDER BY version DESC LIMIT ?3) WHERE slug IS NOT NULL",
    );
    let rows = query.bind(app.to_string()).bind(listed).bind(succeeded).fetch_all(db).await?;
    rows.iter().map(|row| column::parse(row, "slug")).collect()
}

/// Slugs that any of an app's releases has.
///
/// # Errors
/// When the database fails.
pub async fn released_slugs(db: &mut SqliteConnection, app: AppId) -> Result<Vec<SlugId>> {
    let query = sqlx::query("SELECT DISTINCT slug FROM releases WHERE app = ?1 AND slug IS NOT NULL");
    let rows = query.bind(app.to_string()).fetch_all(db).await?;
    rows.iter().map(|row| column::parse(row, "slug")).collect()
}

/// Number and hash of the last row of an app's ledger.
///
/// # Errors
/// When the database fails.
pub async fn head(db: &mut SqliteConnection, app: AppId) -> Result<Option<(Version, Vec<u8>)>> {
    let query = sqlx::query("SELECT version, hash FROM ledger_heads WHERE app = ?1").bind(app.to_string());
    let Some(row) = query.fetch_optional(db).await? else { return Ok(None) };
    Ok(Some((Version(column::integer(&row, "version")?), row.try_get("hash")?)))
}
