//! Accounts.

use dozen_api::clock::Micros;
use dozen_domain::ids::AccountId;
use sqlx::{Row, SqliteConnection, sqlite::SqliteRow};

use super::{Result, column};
use crate::auth::password::Stored;

/// A person who may sign in.
#[derive(Clone, PartialEq)]
pub struct Account {
    /// Which.
    pub id: AccountId,
    /// E-mail, unique without regard to case.
    pub email: String,
    /// Full name.
    pub name: Option<String>,
    /// Made at first start.
    pub admin: bool,
    /// If it has one.
    pub password: Option<Stored>,
    /// May be tracked; nothing is.
    pub allow_tracking: bool,
    /// Sees beta features.
    pub beta: bool,
    /// When it was made.
    pub created_at: Micros,
    /// When it was last changed.
    pub updated_at: Micros,
    /// Last login with e-mail and password.
    pub last_login: Option<Micros>,
}

impl std::fmt::Debug for Account {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Account").field("id", &self.id).field("email", &self.email).finish_non_exhaustive()
    }
}

pub(super) fn from_row(row: &SqliteRow) -> Result<Account> {
    let hash: Option<Vec<u8>> = row.try_get("password_hash")?;
    let salt: Option<Vec<u8>> = row.try_get("password_salt")?;
    let rounds: Option<u32> = row.try_get("password_rounds")?;
    let password = match (hash, salt, rounds) {
        (Some(hash), Some(salt), Some(rounds)) => Some(Stored { hash, salt, rounds }),
        _ => None,
    };
    Ok(Account {
        id: column::parse(row, "id")?,
        email: row.try_get("email")?,
        name: row.try_get("name")?,
        admin: row.try_get("admin")?,
        password,
        allow_tracking: row.try_get("allow_tracking")?,
        beta: row.try_get("beta")?,
        created_at: row.try_get("created_at")?,
        updated_at: row.try_get("updated_at")?,
        last_login: row.try_get("last_login")?,
    })
}

/// Adds an account.
///
/// # Errors
/// When the e-mail is taken ([`super::Error::is_taken`]) or the database fails.
pub async fn insert(db: &mut SqliteConnection, account: &Account) -> Result<()> {
    let password = account.password.as_ref();
    sqlx::query(
        "INSERT INTO accounts (id, email, name, admin, password_hash, password_salt, password_rounds, allow_tracking, \
         beta, created_at, updated_at, last_login) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12)",
    )
    .bind(account.id.to_string())
    .bind(&account.email)
    .bind(&account.name)
    .bind(account.admin)
    .bind(password.map(|stored| stored.hash.clone()))
    .bind(password.map(|stored| stored.salt.clone()))
    .bind(password.map(|stored| stored.rounds))
    .bind(account.allow_tracking)
    .bind(account.beta)
    .bind(account.created_at)
    .bind(account.updated_at)
    .bind(account.last_login)
    .execute(db)
    .await?;
    Ok(())
}

/// Changes what may change of an account.
///
/// # Errors
/// When the database fails.
pub async fn update(db: &mut SqliteConnection, account: &Account) -> Result<()> {
    sqlx::query(
        "UPDATE accounts SET name = ?2, allow_tracking = ?3, beta = ?4, updated_at = ?5, last_login = ?6 WHERE id = ?1",
    )
    .bind(account.id.to_string())
    .bind(&account.name)
    .bind(account.allow_tracking)
    .bind(account.beta)
    .bind(account.updated_at)
    .bind(account.last_login)
    .execute(db)
    .await?;
    Ok(())
}

/// The account with this id.
///
/// # Errors
/// When the database fails.
pub async fn by_id(db: &mut SqliteConnection, id: AccountId) -> Result<Option<Account>> {
    let row = sqlx::query("SELECT * FROM accounts WHERE id = ?1").bind(id.to_string()).fetch_optional(db).await?;
    row.as_ref().map(from_row).transpose()
}

/// The account with this e-mail, whatever its case.
///
/// # Errors
/// When the database fails.
pub async fn by_email(db: &mut SqliteConnection, email: &str) -> Result<Option<Account>> {
    let row = sqlx::query("SELECT * FROM accounts WHERE email = ?1").bind(email).fetch_optional(db).await?;
    row.as_ref().map(from_row).transpose()
}

/// The account of the platform's first start.
///
/// # Errors
/// When the database fails.
pub async fn first_admin(db: &mut SqliteConnection) -> Result<Option<Account>> {
    let query = sqlx::query("SELECT * FROM accounts WHERE admin ORDER BY created_at, id LIMIT 1");
    let row = query.fetch_optional(db).await?;
    row.as_ref().map(from_row).transpose()
}

/// Whether there is any account.
///
/// # Errors
/// When the database fails.
pub async fn any(db: &mut SqliteConnection) -> Result<bool> {
    Ok(sqlx::query("SELECT 1 FROM accounts LIMIT 1").fetch_optional(db).await?.is_some())
}
