//! Slugs: what builds made or clients brought.

use std::collections::BTreeMap;

use dozen_api::clock::Micros;
use dozen_domain::{
    ids::{AppId, SlugId},
    image::{Digest, ProcessTypes},
    name::ProcessType,
};
use serde_json::{Map, Value};
use sqlx::{Row, SqliteConnection, sqlite::SqliteRow};

use super::{Error, Result, column};

/// A built image and what the builder found out about it.
#[derive(Debug, Clone, PartialEq)]
pub struct Slug {
    /// Which.
    pub id: SlugId,
    /// Of which app.
    pub app: AppId,
    /// The OCI manifest; `None` for one that was only announced through the API.
    pub image: Option<Digest>,
    /// `SHA256:…` of the archive; of a built slug's once somebody asked for it.
    pub checksum: Option<String>,
    /// Commit of the source.
    pub commit: Option<String>,
    /// First line of the commit's message.
    pub commit_description: Option<String>,
    /// What the buildpacks call themselves.
    pub buildpack_description: Option<String>,
    /// Commands by process type, in the order of the Procfile.
    pub process_types: ProcessTypes,
    /// Environment that the image sets, below config vars.
    pub launch_env: BTreeMap<String, String>,
    /// Path of the health check of its `app.json`.
    pub health_check: Option<String>,
    /// Digests of the compressed layers, lowest first.
    pub layers: Vec<Digest>,
    /// Compressed size in bytes.
    pub size: Option<i64>,
    /// `heroku-24`.
    pub stack: String,
    /// When it was made.
    pub created_at: Micros,
    /// When it was last changed.
    pub updated_at: Micros,
    /// When its image was removed.
    pub deleted_at: Option<Micros>,
}

fn from_row(row: &SqliteRow) -> Result<Slug> {
    let types: Map<String, Value> = column::json(row, "process_types")?;
    let wrong =
        |error: Box<dyn std::error::Error + Send + Sync>| Error::Column { column: "process_types", source: error };
    let process_types = types.into_iter().map(|(name, command)| {
        let name: ProcessType = name.parse().map_err(|error| wrong(Box::new(error)))?;
        Ok((name, command.as_str().unwrap_or_default().to_owned()))
    });
    Ok(Slug {
        id: column::parse(row, "id")?,
        app: column::parse(row, "app")?,
        image: row.try_get::<Option<String>, _>("image")?.map(Digest),
        checksum: row.try_get("checksum")?,
        commit: row.try_get("commit")?,
        commit_description: row.try_get("commit_description")?,
        buildpack_description: row.try_get("buildpack_description")?,
        process_types: process_types.collect::<Result<_>>()?,
        launch_env: column::json(row, "launch_env")?,
        health_check: row.try_get("health_check")?,
        layers: column::json(row, "layers")?,
        size: row.try_get("size")?,
        stack: row.try_get("stack")?,
        created_at: row.try_get("created_at")?,
        updated_at: row.try_get("updated_at")?,
        deleted_at: row.try_get("deleted_at")?,
    })
}

/// Adds a slug.
///
/// # Errors
/// When the database fails.
pub async fn insert(db: &mut SqliteConnection, slug: &Slug) -> Result<()> {
    let types: Map<String, Value> =
        slug.process_types.iter().map(|(name, command)| (name.to_string(), command.clone().into())).collect();
    sqlx::query(
        "INSERT INTO slugs (id, app, image, checksum, \"commit\", commit_description, buildpack_description, \
         process_types, launch_env, layers, size, stack, created_at, updated_at, deleted_at, health_check) \
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16)",
    )
    .bind(slug.id.to_string())
    .bind(slug.app.to_string())
    .bind(slug.image.as_ref().map(|digest| digest.0.clone()))
    .bind(&slug.checksum)
    .bind(&slug.commit)
    .bind(&slug.commit_description)
    .bind(&slug.buildpack_description)
    .bind(Value::Object(types).to_string())
    .bind(serde_json::json!(slug.launch_env).to_string())
    .bind(serde_json::json!(slug.layers).to_string())
    .bind(slug.size)
    .bind(&slug.stack)
    .bind(slug.created_at)
    .bind(slug.updated_at)
    .bind(slug.deleted_at)
    .bind(&slug.health_check)
    .execute(db)
    .await?;
    Ok(())
}

/// Records what came of a slug's archive: image, layers, size, checksum. Says whether it had none before.
///
/// # Errors
/// When the database fails.
pub async fn set_blob(db: &mut SqliteConnection, slug: &Slug) -> Result<bool> {
    let query = sqlx::query(
        "UPDATE slugs SET image = ?2, layers = ?3, size = ?4, checksum = ?5, updated_at = ?6 \
         WHERE id = ?1 AND image IS NULL AND deleted_at IS NULL",
    );
    let done = query
        .bind(slug.id.to_string())
        .bind(slug.image.as_ref().map(|digest| digest.0.clone()))
        .bind(serde_json::json!(slug.layers).to_string())
        .bind(slug.size)
        .bind(&slug.checksum)
        .bind(slug.updated_at)
        .execute(db)
        .await?;
    Ok(done.rows_affected() == 1)
}

/// Records the checksum of an archive that was made of an image.
///
/// # Errors
/// When the database fails.
pub async fn set_checksum(db: &mut SqliteConnection, id: SlugId, checksum: &str) -> Result<()> {
    let query = sqlx::query("UPDATE slugs SET checksum = ?2 WHERE id = ?1 AND deleted_at IS NULL");
    query.bind(id.to_string()).bind(checksum).execute(db).await?;
    Ok(())
}

/// The slug with this id.
///
/// # Errors
/// When the database fails.
pub async fn by_id(db: &mut SqliteConnection, id: SlugId) -> Result<Option<Slug>> {
    let row = sqlx::query("SELECT * FROM slugs WHERE id = ?1").bind(id.to_string()).fetch_optional(db).await?;
    row.as_ref().map(from_row).transpose()
}

/// An app's slugs whose images are there, oldest first.
///
/// # Errors
/// When the database fails.
pub async fn kept(db: &mut SqliteConnection, app: AppId) -> Result<Vec<Slug>> {
    let query = sqlx::query("SELECT * FROM slugs WHERE app = ?1 AND deleted_at IS NULL ORDER BY created_at, id");
    query.bind(app.to_string()).fetch_all(db).await?.iter().map(from_row).collect()
}

/// Marks a slug whose image goes.
///
/// # Errors
/// When the database fails.
pub async fn mark_deleted(db: &mut SqliteConnection, id: SlugId, now: Micros) -> Result<()> {
    let query = sqlx::query("UPDATE slugs SET deleted_at = ?2, updated_at = ?2 WHERE id = ?1");
    query.bind(id.to_string()).bind(now).execute(db).await?;
    Ok(())
}
