//! The SQLite file that holds the rows.

use std::fs::File;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::Duration;

use sqlx::sqlite::{SqliteConnectOptions, SqlitePoolOptions, SqliteSynchronous};
use sqlx::{AssertSqlSafe, ConnectOptions as _, SqlitePool};

use crate::Error;
use crate::error::database;

const FILE: &str = "registry.sqlite";

/// In order; the layout of a store is the number of those that were applied to it.
const MIGRATIONS: [&str; 1] = [include_str!("../migrations/0001_versions.sql")];

/// Before this, two processes that write one WAL file can corrupt it
/// (<https://www.sqlite.org/wal.html#walresetbug>).
const OLDEST_SQLITE: [u32; 3] = [3, 51, 3];

/// Another process holds the database for milliseconds; this long means that it is stuck.
const BUSY_TIMEOUT: Duration = Duration::from_secs(30);

/// Readers do not block each other, and writers wait for each other anyway.
const MAX_CONNECTIONS: u32 = 4;

/// Opens the database in the folder `root`, and brings it to the newest layout.
pub(crate) async fn open(root: &Path) -> Result<SqlitePool, Error> {
    // Held until the end: switching a new file to WAL is the one step in which SQLite does not
    // wait for another process that does the same.
    let _lock = match lock(root.join("lock")).await {
        Err(Error::Io { source, .. }) if is_read_only(&source) && is_there(root) => {
            return open_to_read(root).await;
        }
        locked => locked?,
    };
    let options = SqliteConnectOptions::new()
        .filename(root.join(FILE))
        .create_if_missing(true)
        .foreign_keys(true)
        // In WAL mode anything less may lose the last commits when the power fails.
        .synchronous(SqliteSynchronous::Full)
        .busy_timeout(BUSY_TIMEOUT)
        .disable_statement_logging();
    let pool = SqlitePoolOptions::new().max_connections(MAX_CONNECTIONS);
    let pool = pool
        .connect_with(options)
        .await
        .map_err(database("open a connection"))?;
    check_sqlite(&pool).await?;
    // WAL is a property of the file: later connections find it so.
    sqlx::query("PRAGMA journal_mode = WAL")
        .execute(&pool)
        .await
        .map_err(database("switch to WAL"))?;
    migrate(&pool).await?;
    Ok(pool)
}

/// Somebody else's store can be looked at.
async fn open_to_read(root: &Path) -> Result<SqlitePool, Error> {
    let options = SqliteConnectOptions::new()
        .filename(root.join(FILE))
        .read_only(true)
        // Without a log nobody is writing, and SQLite would have to make one to read.
        .immutable(!root.join(format!("{FILE}-wal")).exists())
        .busy_timeout(BUSY_TIMEOUT)
        .disable_statement_logging();
    let pool = SqlitePoolOptions::new().max_connections(MAX_CONNECTIONS);
    pool.connect_with(options)
        .await
        .map_err(database("open a connection to read"))
}

fn is_there(root: &Path) -> bool {
    root.join(FILE).exists()
}

fn is_read_only(error: &std::io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem
    )
}

async fn lock(path: PathBuf) -> Result<File, Error> {
    let failed = |source| Error::Io {
        doing: "lock",
        path: path.clone(),
        source,
    };
    let file = File::options()
        .create(true)
        .append(true)
        .open(&path)
        .map_err(failed)?;
    let locked = tokio::task::spawn_blocking(move || file.lock().map(|()| file));
    locked
        .await
        .map_err(std::io::Error::other)
        .flatten()
        .map_err(failed)
}

async fn check_sqlite(pool: &SqlitePool) -> Result<(), Error> {
    let found: String = sqlx::query_scalar("SELECT sqlite_version()")
        .fetch_one(pool)
        .await
        .map_err(database("ask for the version"))?;
    let numbers: Vec<u32> = found
        .split('.')
        .map_while(|number| number.parse().ok())
        .collect();
    if numbers.as_slice() < OLDEST_SQLITE.as_slice() {
        Err(Error::OldSqlite { found })
    } else {
        Ok(())
    }
}

async fn migrate(pool: &SqlitePool) -> Result<(), Error> {
    let failed = database("bring the tables up to date");
    let known = MIGRATIONS.len();
    let mut transaction = pool.begin().await.map_err(&failed)?;
    let found: i64 = sqlx::query_scalar("PRAGMA user_version")
        .fetch_one(&mut *transaction)
        .await
        .map_err(&failed)?;
    let applied = usize::try_from(found).unwrap_or(usize::MAX);
    if applied > known {
        return Err(Error::NewerStore {
            found,
            known: i64::try_from(known).unwrap_or(i64::MAX),
        });
    }
    if applied == known {
        return Ok(());
    }
    for migration in &MIGRATIONS[applied..] {
        sqlx::raw_sql(*migration)
            .execute(&mut *transaction)
            .await
            .map_err(&failed)?;
    }
    // A pragma takes no bound values; this one is a number of ours.
    let layout = AssertSqlSafe(format!("PRAGMA user_version = {known}"));
    sqlx::raw_sql(layout)
        .execute(&mut *transaction)
        .await
        .map_err(&failed)?;
    transaction.commit().await.map_err(&failed)
}
