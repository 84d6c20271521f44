//! The database: an embedded SQLite file, and the only place with SQL. One file a noun; functions take a connection, so
//! that an operation decides what is one transaction.
//!
//! Write-ahead log with `synchronous = FULL`: a commit is on the disk when it returns, which the release ledger needs.
//! Writers begin with `BEGIN IMMEDIATE` and so never deadlock by upgrading a read.

pub mod accounts;
pub mod apps;
pub mod authorizations;
pub mod buildpack_installations;
pub mod builds;
pub mod collaborators;
pub mod column;
pub mod domains;
pub mod features;
pub mod formation;
pub mod releases;
pub mod removals;
pub mod slugs;
pub mod sources;

use std::{path::Path, str::FromStr, time::Duration};

use sqlx::{
    Sqlite, SqlitePool, Transaction,
    migrate::{MigrateError, Migrator},
    pool::PoolConnection,
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous},
};

use crate::auth::keys::Damaged;

/// All migrations, built into the executable.
static MIGRATIONS: Migrator = sqlx::migrate!("./migrations");

const CONNECTIONS: u32 = 4; // one writes at a time; each costs about half a megabyte

/// Why the database did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It could not be opened.
    #[error("open the database {url} (is the directory writable, the disk full, the file damaged?)")]
    Open {
        /// Which.
        url: String,
        /// Why.
        #[source]
        source: sqlx::Error,
    },
    /// `DATABASE_URL` names something else than SQLite.
    #[error("DATABASE_URL={0}: only sqlite:// is supported")]
    NotSqlite(String),
    /// Its schema could not be brought up to date.
    #[error("bring the database's schema up to date")]
    Migrate(#[from] MigrateError),
    /// A query failed.
    #[error("query the database")]
    Query(#[from] sqlx::Error),
    /// A column holds what it never should.
    #[error("column {column} of the database holds something unexpected")]
    Column {
        /// Which.
        column: &'static str,
        /// What was expected.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// Config vars cannot be unsealed.
    #[error("config vars of a release")]
    Sealed(#[from] Damaged),
}

impl Error {
    /// Says whether a unique column has this value already.
    pub fn is_taken(&self) -> bool {
        matches!(self, Self::Query(sqlx::Error::Database(error)) if error.is_unique_violation())
    }

    /// Says whether the disk is full (SQLITE_FULL 13, or the write failed: SQLITE_IOERR 10).
    pub fn is_disk_full(&self) -> bool {
        let Self::Query(sqlx::Error::Database(error)) = self else { return false };
        let code = error.code().and_then(|code| code.parse::<i32>().ok());
        matches!(code.map(|code| code & 0xff), Some(10 | 13))
    }
}

/// What the functions of this module answer.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// The open database.
#[derive(Debug, Clone)]
pub struct Store {
    pool: SqlitePool,
}

impl Store {
    /// Opens the database, makes it if it is not there, and brings its schema up to date.
    ///
    /// # Errors
    /// When it is no SQLite database, cannot be written, or comes from a newer version.
    pub async fn open(data_dir: &Path, url: Option<&str>) -> Result<Self> {
        let url = match url {
            Some(url) if !url.starts_with("sqlite:") => {
                let scheme = url.split(':').next().unwrap_or_default();
                return Err(Error::NotSqlite(format!("{scheme}://…")));
            }
            Some(url) => url.to_owned(),
            None => format!("sqlite://{}", data_dir.join("dozen.db").display()),
        };
        let opening = |source| Error::Open { url: url.clone(), source };
        let options = match url.strip_prefix("sqlite://") {
            Some(path) if !path.contains('?') => SqliteConnectOptions::new().filename(path),
            _ => SqliteConnectOptions::from_str(&url).map_err(opening)?,
        };
        let options = options
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .foreign_keys(true)
            .busy_timeout(Duration::from_secs(10));
        let pool = SqlitePoolOptions::new().max_connections(CONNECTIONS).connect_with(options).await;
        let pool = pool.map_err(|source| Error::Open { url: url.clone(), source })?;
        MIGRATIONS.run(&pool).await?;
        Ok(Self { pool })
    }

    /// A connection for reading.
    ///
    /// # Errors
    /// When none is free within the pool's limit.
    pub async fn read(&self) -> Result<PoolConnection<Sqlite>> {
        Ok(self.pool.acquire().await?)
    }

    /// A transaction for writing. It is rolled back when dropped without `commit`.
    ///
    /// # Errors
    /// When another writer does not finish within the busy limit.
    pub async fn write(&self) -> Result<Transaction<'static, Sqlite>> {
        Ok(self.pool.begin_with("BEGIN IMMEDIATE").await?)
    }

    /// Writes everything into the main file and closes it.
    pub async fn close(&self) {
        self.pool.close().await;
    }
}
