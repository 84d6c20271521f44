//! OAuth authorizations and the hashes of their tokens.

use dozen_api::clock::Micros;
use dozen_domain::ids::{AccountId, AuthorizationId, TokenId};
use sqlx::{Row, SqliteConnection, sqlite::SqliteRow};

use super::{Result, accounts, accounts::Account, column};
use crate::auth::token::Hash;

/// An authorization with its one token.
#[derive(Debug, Clone, PartialEq)]
pub struct Authorization {
    /// Which.
    pub id: AuthorizationId,
    /// Whose.
    pub account: AccountId,
    /// What for.
    pub description: Option<String>,
    /// `global` and the like.
    pub scope: Vec<String>,
    /// The token's id.
    pub token_id: TokenId,
    /// The token's hash.
    pub token_hash: Hash,
    /// What may be shown of the token.
    pub token_hint: String,
    /// When the token ends.
    pub token_expires_at: Option<Micros>,
    /// When it was made.
    pub created_at: Micros,
    /// When it was last changed.
    pub updated_at: Micros,
}

fn from_row(row: &SqliteRow) -> Result<Authorization> {
    let hash: Vec<u8> = row.try_get("token_hash")?;
    let wrong = |error| super::Error::Column { column: "token_hash", source: Box::new(error) };
    Ok(Authorization {
        id: column::parse(row, "id")?,
        account: column::parse(row, "account")?,
        description: row.try_get("description")?,
        scope: column::json(row, "scope")?,
        token_id: column::parse(row, "token_id")?,
        token_hash: hash.as_slice().try_into().map_err(wrong)?,
        token_hint: row.try_get("token_hint")?,
        token_expires_at: row.try_get("token_expires_at")?,
        created_at: row.try_get("created_at")?,
        updated_at: row.try_get("updated_at")?,
    })
}

/// Adds an authorization, or changes it.
///
/// # Errors
/// When the database fails.
pub async fn put(db: &mut SqliteConnection, authorization: &Authorization) -> Result<()> {
    sqlx::query(
        "INSERT INTO authorizations (id, account, description, scope, token_id, token_hash, token_hint, \
         token_expires_at, created_at, updated_at) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10) \
         ON CONFLICT (id) DO UPDATE SET description = ?3, scope = ?4, token_id = ?5, token_hash = ?6, token_hint = ?7, \
         token_expires_at = ?8, updated_at = ?10",
    )
    .bind(authorization.id.to_string())
    .bind(authorization.account.to_string())
    .bind(&authorization.description)
    .bind(serde_json::json!(authorization.scope).to_string())
    .bind(authorization.token_id.to_string())
    .bind(authorization.token_hash.to_vec())
    .bind(&authorization.token_hint)
    .bind(authorization.token_expires_at)
    .bind(authorization.created_at)
    .bind(authorization.updated_at)
    .execute(db)
    .await?;
    Ok(())
}

/// An account's authorizations, oldest first.
///
/// # Errors
/// When the database fails.
pub async fn of_account(db: &mut SqliteConnection, account: AccountId) -> Result<Vec<Authorization>> {
    let query = sqlx::query("SELECT * FROM authorizations WHERE account = ?1 ORDER BY created_at, id");
    query.bind(account.to_string()).fetch_all(db).await?.iter().map(from_row).collect()
}

/// The authorization with this id.
///
/// # Errors
/// When the database fails.
pub async fn by_id(db: &mut SqliteConnection, id: AuthorizationId) -> Result<Option<Authorization>> {
    let query = sqlx::query("SELECT * FROM authorizations WHERE id = ?1").bind(id.to_string());
    query.fetch_optional(db).await?.as_ref().map(from_row).transpose()
}

/// The authorization whose token has this hash, with its account, unless it has ended.
///
/// # Errors
/// When the database fails.
pub async fn by_token(db: &mut SqliteConnection, hash: &Hash, now: Micros) -> Result<Option<(Authorization, Account)>> {
    let query = sqlx::query(
        "SELECT * FROM authorizations WHERE token_hash = ?1 AND (token_expires_at IS NULL OR token_expires_at > ?2)",
    );
    let Some(row) = query.bind(hash.to_vec()).bind(now).fetch_optional(&mut *db).await? else { return Ok(None) };
    let authorization = from_row(&row)?;
    let account = accounts::by_id(db, authorization.account).await?;
    Ok(account.map(|account| (authorization, account)))
}

/// Removes an authorization; its token ends with it.
///
/// # Errors
/// When the database fails.
pub async fn delete(db: &mut SqliteConnection, id: AuthorizationId) -> Result<()> {
    sqlx::query("DELETE FROM authorizations WHERE id = ?1").bind(id.to_string()).execute(db).await?;
    Ok(())
}

/// Removes the authorizations whose token ended before `now`.
///
/// # Errors
/// When the database fails.
pub async fn delete_ended(db: &mut SqliteConnection, now: Micros) -> Result<()> {
    sqlx::query("DELETE FROM authorizations WHERE token_expires_at <= ?1").bind(now).execute(db).await?;
    Ok(())
}
