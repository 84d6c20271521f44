//! Who may see an app: its owner and its collaborators.

use dozen_api::clock::Micros;
use dozen_domain::ids::{AccountId, AppId, CollaboratorId};
use sqlx::{Row, SqliteConnection, sqlite::SqliteRow};

use super::{Error, Result, column};

/// What somebody may do with an app.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// See, deploy, configure, scale.
    Collaborator,
    /// That, and decide who else may; rename, destroy.
    Owner,
}

impl Role {
    /// The word of the API and the database.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Collaborator => "collaborator",
            Self::Owner => "owner",
        }
    }
}

/// Somebody's membership of an app.
#[derive(Debug, Clone, PartialEq)]
pub struct Collaborator {
    /// Which.
    pub id: CollaboratorId,
    /// Of which app.
    pub app: AppId,
    /// Who.
    pub account: AccountId,
    /// Who, as people write it.
    pub email: String,
    /// As what.
    pub role: Role,
    /// Since when.
    pub created_at: Micros,
    /// When it was last changed.
    pub updated_at: Micros,
}

fn role(row: &SqliteRow) -> Result<Role> {
    match row.try_get::<String, _>("role")?.as_str() {
        "owner" => Ok(Role::Owner),
        "collaborator" => Ok(Role::Collaborator),
        other => Err(Error::Column { column: "role", source: other.to_owned().into() }),
    }
}

fn from_row(row: &SqliteRow) -> Result<Collaborator> {
    Ok(Collaborator {
        id: column::parse(row, "id")?,
        app: column::parse(row, "app")?,
        account: column::parse(row, "account")?,
        email: row.try_get("email")?,
        role: role(row)?,
        created_at: row.try_get("created_at")?,
        updated_at: row.try_get("updated_at")?,
    })
}

/// Adds a membership.
///
/// # Errors
/// When there is one already ([`Error::is_taken`]) or the database fails.
pub async fn insert(db: &mut SqliteConnection, collaborator: &Collaborator) -> Result<()> {
    sqlx::query(
        "INSERT INTO collaborators (id, app, account, role, created_at, updated_at) VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
    )
    .bind(collaborator.id.to_string())
    .bind(collaborator.app.to_string())
    .bind(collaborator.account.to_string())
    .bind(collaborator.role.as_str())
    .bind(collaborator.created_at)
    .bind(collaborator.updated_at)
    .execute(db)
    .await?;
    Ok(())
}

/// An app's people, the owner first.
///
/// # Errors
/// When the database fails.
pub async fn of_app(db: &mut SqliteConnection, app: AppId) -> Result<Vec<Collaborator>> {
    let query = sqlx::query(
        "SELECT collaborators.*, email FROM collaborators JOIN accounts ON accounts.id = account WHERE app = ?1 \
         ORDER BY role = 'owner' DESC, email",
    );
    query.bind(app.to_string()).fetch_all(db).await?.iter().map(from_row).collect()
}

/// What an account may do with an app; `None`: not even see it.
///
/// # Errors
/// When the database fails.
pub async fn role_of(db: &mut SqliteConnection, app: AppId, account: AccountId) -> Result<Option<Role>> {
    let query = sqlx::query("SELECT role FROM collaborators WHERE app = ?1 AND account = ?2");
    let row = query.bind(app.to_string()).bind(account.to_string()).fetch_optional(db).await?;
    row.as_ref().map(role).transpose()
}

/// Ends a membership.
///
/// # Errors
/// When the database fails.
pub async fn delete(db: &mut SqliteConnection, id: CollaboratorId) -> Result<()> {
    sqlx::query("DELETE FROM collaborators WHERE id = ?1").bind(id.to_string()).execute(db).await?;
    Ok(())
}
