//! Apps.

use dozen_api::clock::Micros;
use dozen_domain::{
    ids::{AccountId, AppId},
    name::AppName,
};
use sqlx::{Row, SqliteConnection, sqlite::SqliteRow};

use super::{Result, column};

/// An app, with what lists show of its owner and current release.
#[derive(Debug, Clone, PartialEq)]
pub struct App {
    /// Which.
    pub id: AppId,
    /// Its name, unique on the platform.
    pub name: AppName,
    /// Whose.
    pub owner: AccountId,
    /// The owner's e-mail.
    pub owner_email: String,
    /// The platform gets and renews the certificates of its domains.
    pub acm: bool,
    /// Requests meet the maintenance page (H80).
    pub maintenance: bool,
    /// Stack of the next build.
    pub build_stack: String,
    /// Bytes of its git repository, once pushed to.
    pub repo_size: Option<i64>,
    /// Bytes of the current slug.
    pub slug_size: Option<i64>,
    /// What the current slug's buildpack calls itself.
    pub buildpack_description: Option<String>,
    /// When the newest release was made.
    pub released_at: Option<Micros>,
    /// When it was made.
    pub created_at: Micros,
    /// When it was last changed.
    pub updated_at: Micros,
}

/// The columns of an [`App`], from `apps` joined with its owner and the slug of its current release (the newest that
/// succeeded). A literal, because SQL texts are never put together at run time.
macro_rules! select {
    ($rest:literal) => {
        concat!(
            "SELECT apps.*, accounts.email AS owner_email, slugs.size AS slug_size, slugs.buildpack_description, \
             (SELECT max(created_at) FROM releases WHERE app = apps.id) AS released_at, \
             EXISTS (SELECT 1 FROM managed_apps WHERE app = apps.id) AS acm \
             FROM apps JOIN accounts ON accounts.id = apps.owner LEFT JOIN slugs ON slugs.id = \
             (SELECT slug FROM releases JOIN release_outcomes ON release = releases.id AND status = 'succeeded' \
             WHERE app = apps.id ORDER BY version DESC LIMIT 1) ",
            $rest
        )
    };
}

fn from_row(row: &SqliteRow) -> Result<App> {
    Ok(App {
        id: column::parse(row, "id")?,
        name: column::parse(row, "name")?,
        owner: column::parse(row, "owner")?,
        owner_email: row.try_get("owner_email")?,
        acm: row.try_get("acm")?,
        maintenance: row.try_get("maintenance")?,
        build_stack: row.try_get("build_stack")?,
        repo_size: row.try_get("repo_size")?,
        slug_size: row.try_get("slug_size")?,
        buildpack_description: row.try_get("buildpack_description")?,
        released_at: row.try_get("released_at")?,
        created_at: row.try_get("created_at")?,
        updated_at: row.try_get("updated_at")?,
    })
}

/// Adds an app.
///
/// # Errors
/// When the name is taken ([`super::Error::is_taken`]) or the database fails.
pub async fn insert(db: &mut SqliteConnection, app: &App) -> Result<()> {
    sqlx::query(
        "INSERT INTO apps (id, name, owner, maintenance, build_stack, repo_size, created_at, updated_at) \
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
    )
    .bind(app.id.to_string())
    .bind(app.name.as_str())
    .bind(app.owner.to_string())
    .bind(app.maintenance)
    .bind(&app.build_stack)
    .bind(app.repo_size)
    .bind(app.created_at)
    .bind(app.updated_at)
    .execute(db)
    .await?;
    Ok(())
}

/// Changes name, maintenance, build stack.
///
/// # Errors
/// When the name is taken ([`super::Error::is_taken`]) or the database fails.
pub async fn update(db: &mut SqliteConnection, app: &App) -> Result<()> {
    sqlx::query("UPDATE apps SET name = ?2, maintenance = ?3, build_stack = ?4, updated_at = ?5 WHERE id = ?1")
        .bind(app.id.to_string())
        .bind(app.name.as_str())
        .bind(app.maintenance)
        .bind(&app.build_stack)
        .bind(app.updated_at)
        .execute(db)
        .await?;
    Ok(())
}

/// Records that an app was changed in what other tables hold: a release, its formation.
///
/// # Errors
/// When the database fails.
pub async fn touch(db: &mut SqliteConnection, app: AppId, now: Micros) -> Result<()> {
    let query = sqlx::query("UPDATE apps SET updated_at = max(updated_at, ?2) WHERE id = ?1");
    query.bind(app.to_string()).bind(now).execute(db).await?;
    Ok(())
}

/// Records the size of the app's git repository in bytes.
///
/// # Errors
/// When the database fails.
pub async fn set_repo_size(db: &mut SqliteConnection, app: AppId, bytes: i64) -> Result<()> {
    let query = sqlx::query("UPDATE apps SET repo_size = ?2 WHERE id = ?1").bind(app.to_string()).bind(bytes);
    query.execute(db).await?;
    Ok(())
}

/// Removes an app and everything that belongs to it.
///
/// # Errors
/// When the database fails.
pub async fn delete(db: &mut SqliteConnection, app: AppId) -> Result<()> {
    sqlx::query("DELETE FROM apps WHERE id = ?1").bind(app.to_string()).execute(db).await?;
    Ok(())
}

/// The app with this id.
///
/// # Errors
/// When the database fails.
pub async fn by_id(db: &mut SqliteConnection, id: AppId) -> Result<Option<App>> {
    let row = sqlx::query(select!("WHERE apps.id = ?1")).bind(id.to_string()).fetch_optional(db).await?;
    row.as_ref().map(from_row).transpose()
}

/// The app with this name.
///
/// # Errors
/// When the database fails.
pub async fn by_name(db: &mut SqliteConnection, name: &str) -> Result<Option<App>> {
    let row = sqlx::query(select!("WHERE apps.name = ?1")).bind(name).fetch_optional(db).await?;
    row.as_ref().map(from_row).transpose()
}

/// Apps that an account owns or works on, by name.
///
/// # Errors
/// When the database fails.
pub async fn of_account(db: &mut SqliteConnection, account: AccountId) -> Result<Vec<App>> {
    let query =
        sqlx::query(select!("WHERE apps.id IN (SELECT app FROM collaborators WHERE account = ?1) ORDER BY apps.name"));
    query.bind(account.to_string()).fetch_all(db).await?.iter().map(from_row).collect()
}

/// How many apps an account owns.
///
/// # Errors
/// When the database fails.
pub async fn owned(db: &mut SqliteConnection, account: AccountId) -> Result<u64> {
    let row = sqlx::query("SELECT count(*) AS n FROM apps WHERE owner = ?1").bind(account.to_string());
    column::integer(&row.fetch_one(db).await?, "n")
}

/// All apps of the platform, by name: for the reconcilers.
///
/// # Errors
/// When the database fails.
pub async fn all(db: &mut SqliteConnection) -> Result<Vec<App>> {
    sqlx::query(select!("ORDER BY apps.name")).fetch_all(db).await?.iter().map(from_row).collect()
}
