//! The database: an embedded SQLite file, and the only place with SQL. One file a noun; functions take a connection, so
//! that an operation decides what is one transaction.
//!
//! Write-ahead log with `synchronous = FULL`: a commit is on the disk when it returns, which the release ledger needs.
//! Writers begin with `BEGIN IMMEDIATE` and so never deadlock by upgrading a read.

pub mod accounts;
pub mod addons;
pub mod apps;
pub mod authorizations;
pub mod buildpack_installations;
pub mod builds;
pub mod collaborators;
pub mod column;
pub mod cron_jobs;
pub mod domains;
pub mod drains;
pub mod features;
pub mod formation;
pub mod managed;
pub mod monitors;
pub mod releases;
pub mod removals;
pub mod returns;
pub mod slugs;
pub mod sni_endpoints;
pub mod sources;
pub mod usage;

use std::{
    fs,
    path::{Path, PathBuf},
    str::FromStr,
    time::Duration,
};

use sqlx::{
    Connection as _, Sqlite, SqlitePool, Transaction,
    migrate::{MigrateError, Migrator},
    pool::PoolConnection,
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous},
};

use crate::auth::keys::Damaged;

/// All migrations, built into the executable.
static MIGRATIONS: Migrator = sqlx::migrate!("./migrations");

const CONNECTIONS: u32 = 3; // one writes at a time; each costs about half a megabyte

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
    /// Its file is not what SQLite wrote.
    #[error(
        "the database {url} is damaged ({what}): put back a copy of it and of keys/ from one backup; to begin anew, \
         move it and apps/ of the data directory away"
    )]
    Broken {
        /// Which.
        url: String,
        /// What SQLite found.
        what: String,
    },
    /// Apps are there, and the database that knows them is not.
    #[error(
        "the database {path} is missing or empty, but {apps} holds apps: put the database back, or set DATABASE_URL \
         to where it is; to begin anew, move {apps} away"
    )]
    Missing {
        /// Where it should be.
        path: PathBuf,
        /// What is left.
        apps: PathBuf,
    },
    /// `DATABASE_URL` names something else than SQLite.
    #[error("DATABASE_URL={0}: only sqlite:// is supported")]
    NotSqlite(String),
    /// Its schema could not be brought up to date.
    #[error("bring the database's schema up to date{}", mend(.0))]
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

    /// Says whether the disk is full: SQLITE_FULL, or the index of the write-ahead log could not grow
    /// (SQLITE_IOERR_SHMSIZE). Any other I/O error says something else about the disk.
    pub fn is_disk_full(&self) -> bool {
        const FULL: i32 = 13;
        const INDEX_CANNOT_GROW: i32 = 10 | 19 << 8;
        let Self::Query(error) = self else { return false };
        code(error) == Some(FULL) || extended_code(error) == Some(INDEX_CANNOT_GROW)
    }
}

/// SQLite's extended result code.
fn extended_code(error: &sqlx::Error) -> Option<i32> {
    let sqlx::Error::Database(error) = error else { return None };
    error.code()?.parse().ok()
}

/// SQLite's primary result code.
fn code(error: &sqlx::Error) -> Option<i32> {
    extended_code(error).map(|code| code & 0xff)
}

/// What to do about a schema that cannot be brought up to date, where that is known.
fn mend(error: &MigrateError) -> &'static str {
    match error {
        MigrateError::VersionMissing(_) | MigrateError::VersionMismatch(_) => {
            " (another version of the platform has written it: start that one, or put back a copy from before it)"
        }
        MigrateError::Execute(error) | MigrateError::ExecuteMigration(error, _) if code(error) == Some(13) => {
            " (free some space on its disk and start again)"
        }
        _ => "",
    }
}

/// What the functions of this module answer.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// A part of a list, so that it need not be had whole: what lies between two bounds, both in it, in order of a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Window {
    /// Name of the key; what it means is the list's.
    pub key: &'static str,
    /// Lower bound.
    pub from: Option<String>,
    /// Upper bound.
    pub to: Option<String>,
    /// Greatest first.
    pub descending: bool,
    /// Most rows.
    pub rows: i64,
}

impl Window {
    /// The whole list.
    pub fn whole(key: &'static str) -> Self {
        Self { key, from: None, to: None, descending: false, rows: i64::MAX }
    }

    /// The lower bound as a number; none when it is something else.
    fn lower(&self) -> Option<i64> {
        self.from.as_ref().and_then(|from| from.parse().ok())
    }

    /// The upper bound, likewise.
    fn upper(&self) -> Option<i64> {
        self.to.as_ref().and_then(|to| to.parse().ok())
    }
}

/// The open database.
#[derive(Debug, Clone)]
pub struct Store {
    pool: SqlitePool,
}

impl Store {
    /// Opens the database, makes it if it is not there, and brings its schema up to date.
    ///
    /// # Errors
    /// When it is no SQLite database, is damaged, cannot be written, comes from a newer version, or is not there while
    /// apps are.
    pub async fn open(data_dir: &Path, url: Option<&str>) -> Result<Self> {
        let url = match url {
            Some(url) if !url.starts_with("sqlite:") => {
                let scheme = url.split(':').next().unwrap_or_default();
                return Err(Error::NotSqlite(format!("{scheme}://…")));
            }
            Some(url) => url.to_owned(),
            None => format!("sqlite://{}", data_dir.join("dozen.db").display()),
        };
        let opening = |source| match broken(&source) {
            Some(what) => Error::Broken { url: url.clone(), what },
            None => Error::Open { url: url.clone(), source },
        };
        let options = match url.strip_prefix("sqlite://") {
            Some(path) if !path.contains('?') => SqliteConnectOptions::new().filename(path),
            _ => SqliteConnectOptions::from_str(&url).map_err(opening)?,
        };
        // An empty database would take what is there for nobody's, and end every dyno.
        let path = options.get_filename().to_owned();
        let apps = data_dir.join("apps");
        if !is_there(&path) && fs::read_dir(&apps).is_ok_and(|mut apps| apps.next().is_some()) {
            return Err(Error::Missing { path, apps });
        }
        let options = options
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .foreign_keys(true)
            // A prepared statement holds some ten kilobytes, in each connection.
            .statement_cache_capacity(24)
            .busy_timeout(Duration::from_secs(10));
        let pool = SqlitePoolOptions::new().max_connections(CONNECTIONS).after_release(|connection, _| {
            Box::pin(async move {
                // After what was sent before it. SQLite itself rolls back when the disk is full; sqlx's own attempt then
                // fails and leaves the connection believing in a transaction for ever: it is of no more use.
                connection.ping().await?;
                Ok(!connection.is_in_transaction())
            })
        });
        let pool = pool.connect_with(options).await;
        let pool = pool.map_err(opening)?;
        // Damage is found now, not when a request happens to touch it.
        let what: String = sqlx::query_scalar("PRAGMA quick_check(1)").fetch_one(&pool).await.map_err(opening)?;
        if what != "ok" {
            pool.close().await;
            return Err(Error::Broken { url, what: what.replace('\n', " ") });
        }
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

/// Says whether a database's file is there with something in it.
pub fn is_there(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|metadata| metadata.len() > 0)
}

/// What is wrong with the file, if that is it (SQLITE_CORRUPT 11, SQLITE_NOTADB 26).
fn broken(error: &sqlx::Error) -> Option<String> {
    let found = code(error)?;
    matches!(found, 11 | 26).then(|| error.as_database_error().map(|error| error.message().to_owned()))?
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt;

    use super::*;

    async fn opened(directory: &Path) -> Result<()> {
        Store::open(directory, None).await?.close().await;
        Ok(())
    }

    #[derive(Debug, thiserror::Error)]
    #[error("from SQLite: {0}")]
    struct Coded(u32);

    impl sqlx::error::DatabaseError for Coded {
        fn message(&self) -> &str {
            "disk I/O error"
        }

        fn code(&self) -> Option<std::borrow::Cow<'_, str>> {
            Some(self.0.to_string().into())
        }

        fn as_error(&self) -> &(dyn std::error::Error + Send + Sync + 'static) {
            self
        }

        fn as_error_mut(&mut self) -> &mut (dyn std::error::Error + Send + Sync + 'static) {
            self
        }

        fn into_error(self: Box<Self>) -> Box<dyn std::error::Error + Send + Sync + 'static> {
            self
        }

        fn kind(&self) -> sqlx::error::ErrorKind {
            sqlx::error::ErrorKind::Other
        }
    }

    #[test]
    fn only_a_full_disk_is_told_as_one() {
        let is_full = |code| Error::Query(sqlx::Error::Database(Box::new(Coded(code)))).is_disk_full();
        // SQLITE_FULL, SQLITE_IOERR_SHMSIZE.
        assert!(is_full(13) && is_full(4874));
        // SQLITE_IOERR, _READ, _WRITE, _FSYNC, SQLITE_READONLY, SQLITE_CORRUPT.
        for other in [10, 266, 778, 1034, 8, 11] {
            assert!(!is_full(other), "{other}");
        }
    }

    #[tokio::test]
    async fn a_damaged_database_is_told_at_start_and_left_as_it_is() {
        let directory = tempfile::tempdir().expect("a directory");
        opened(directory.path()).await.expect("made");
        let path = directory.path().join("dozen.db");
        let sound = fs::read(&path).expect("a file");
        let half = sound.len() as u64 / 2;
        for (at, length) in [(0, sound.len()), (half, sound.len()), (0, 10_000)] {
            fs::write(&path, &sound).expect("a file");
            let file = fs::File::options().write(true).open(&path).expect("a file");
            file.write_all_at(&[0xa5; 8192], at).expect("written");
            file.set_len(length as u64).expect("cut");
            let before = fs::read(&path).expect("a file");
            let error = opened(directory.path()).await.expect_err("damaged");
            assert!(matches!(error, Error::Broken { .. }), "{at}: {error:?}");
            assert!(fs::read(&path).expect("a file") == before, "it was changed");
        }
        fs::write(&path, &sound).expect("a file");
        opened(directory.path()).await.expect("the copy is good");
    }

    #[tokio::test]
    async fn a_database_of_a_newer_version_says_which_version_to_start() {
        let directory = tempfile::tempdir().expect("a directory");
        let store = Store::open(directory.path(), None).await.expect("a store");
        let newer = "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time) \
                     VALUES (9999, 'from the future', 1, x'00', 0)";
        sqlx::query(newer).execute(&store.pool).await.expect("a row");
        store.close().await;
        let error = opened(directory.path()).await.expect_err("too new");
        assert!(error.to_string().contains("another version of the platform has written it"), "{error}");
    }

    #[tokio::test]
    async fn a_transaction_that_sqlite_itself_has_ended_does_no_lasting_harm() {
        let directory = tempfile::tempdir().expect("a directory");
        let store = Store::open(directory.path(), None).await.expect("a store");
        for _ in 0..2 * CONNECTIONS {
            let mut ended = store.write().await.expect("a transaction");
            sqlx::query("ROLLBACK").execute(&mut *ended).await.expect("what SQLite does on a full disk");
            ended.commit().await.expect_err("nothing to commit");
        }
        store.write().await.expect("a transaction").commit().await.expect("committed");
    }

    #[tokio::test]
    async fn without_its_database_a_platform_with_apps_does_not_start() {
        let directory = tempfile::tempdir().expect("a directory");
        fs::create_dir(directory.path().join("apps")).expect("a directory");
        opened(directory.path()).await.expect("a first start");
        fs::create_dir(directory.path().join("apps/one")).expect("a directory");
        opened(directory.path()).await.expect("a later start");
        fs::remove_file(directory.path().join("dozen.db")).expect("removed");
        let error = opened(directory.path()).await.expect_err("missing");
        assert!(matches!(error, Error::Missing { .. }), "{error:?}");
        assert!(!directory.path().join("dozen.db").exists());
    }
}
