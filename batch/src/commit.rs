//! Makes the results of a job visible, all at once. Nothing else in this crate does.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use arrow_array::RecordBatch;
use arrow_schema::SchemaRef;
use deltalake_core::kernel::engine::arrow_conversion::TryIntoKernel as _;
use deltalake_core::kernel::transaction::{CommitBuilder, CommitProperties, TransactionError};
use deltalake_core::kernel::{Action, Add, StructType, Transaction, Version};
use deltalake_core::operations::create::CreateBuilder;
use deltalake_core::protocol::{DeltaOperation, SaveMode};
use deltalake_core::{DeltaTable, DeltaTableError};
use futures::TryStreamExt as _;
use object_store::ObjectStoreExt as _;
use rustix::fs::{CWD, RenameFlags, renameat_with};
use serde_json::Value;

use crate::durable::{DurableStore, parent, sync_folder};
use crate::location::{Location, store_path};
use crate::part_file::{Part, PartFile};
use crate::snapshot::{loaded, table, version_number};
use crate::target::{Attempt, Change, Target};
use crate::{Error, Format};

/// What the log says about the job, beside the files.
pub(crate) type Facts = HashMap<String, Value>;

/// Commits the files of `attempt`. Gives the version of the Delta table that has them.
pub(crate) async fn commit(
    target: &Target,
    attempt: Attempt,
    parts: &[Part],
    facts: Facts,
) -> Result<Option<i64>, Error> {
    match target.format {
        Format::Delta => Ok(Some(delta(target, attempt, parts, facts).await?)),
        Format::Parquet => {
            parquet(target, attempt, parts).await?;
            Ok(None)
        }
    }
}

// === Delta: one entry in the log

async fn delta(
    target: &Target,
    mut attempt: Attempt,
    parts: &[Part],
    facts: Facts,
) -> Result<i64, Error> {
    let location = &target.location;
    // The log's store makes missing folders, too, but does not ask the disk to keep them.
    let log = location.path().join("_delta_log");
    attempt.make(&log).map_err(|source| Error::Write {
        path: log,
        source: Box::new(source),
    })?;
    let files = add_actions(&attempt, parts).await?;
    let properties = CommitProperties::default()
        .with_metadata(facts)
        .with_application_transaction(Transaction::new(attempt.job(), 1));
    let committed = match &target.change {
        Change::Create => create(target, files, properties, SaveMode::ErrorIfExists).await,
        Change::Replace => create(target, files, properties, SaveMode::Overwrite).await,
        Change::AppendDelta(table) => append(table, files, properties).await,
        Change::Overwrite => overwrite(location, files, properties).await,
        Change::AppendParquet => {
            Err(DeltaTableError::generic("a Parquet folder has no log").into())
        }
    };
    let version = match committed {
        Ok(version) => version,
        Err(failure) => landed(location, attempt.job())
            .await
            .ok_or_else(|| failure.into_error(location))?,
    };
    attempt.keep();
    Ok(version_number(version))
}

/// Why a commit failed.
enum Failure {
    Delta(DeltaTableError),
    Ours(Error),
}

impl From<DeltaTableError> for Failure {
    fn from(error: DeltaTableError) -> Self {
        Self::Delta(error)
    }
}

impl Failure {
    fn into_error(self, location: &Location) -> Error {
        let table = location.to_string();
        match self {
            Self::Ours(error) => error,
            Self::Delta(source) if is_conflict(&source) => Error::Conflict {
                table,
                source: Some(source),
            },
            Self::Delta(source) => Error::Commit { table, source },
        }
    }

    fn is_conflict(&self) -> bool {
        matches!(self, Self::Delta(source) if is_conflict(source))
    }
}

fn is_conflict(error: &DeltaTableError) -> bool {
    matches!(
        error,
        DeltaTableError::VersionAlreadyExists(_)
            | DeltaTableError::Transaction {
                source: TransactionError::CommitConflict(_)
                    | TransactionError::MaxCommitAttempts(_)
            }
    )
}

/// A commit that failed may have landed nevertheless: the answer was lost, or only the work after
/// it failed. The log knows.
async fn landed(location: &Location, job: &str) -> Option<Version> {
    let table = loaded(location).await.ok()?;
    let state = table.snapshot().ok()?;
    state
        .transaction_version(table.log_store().as_ref(), job.to_owned())
        .await
        .ok()??;
    table.version()
}

/// The first version of a table, or one that replaces columns and files.
async fn create(
    target: &Target,
    files: Vec<Action>,
    properties: CommitProperties,
    mode: SaveMode,
) -> Result<Version, Failure> {
    let columns: StructType = target
        .written
        .as_ref()
        .try_into_kernel()
        .map_err(DeltaTableError::from)?;
    let log = table(&target.location).map_err(Failure::Ours)?.log_store();
    let made = CreateBuilder::new()
        .with_log_store(log)
        .with_columns(columns.into_fields())
        .with_actions(files)
        .with_save_mode(mode)
        // Another attempt would put our columns on top of those that somebody else made meanwhile.
        .with_commit_properties(properties.with_max_retries(0))
        .await?;
    Ok(made.version().unwrap_or_default())
}

async fn append(
    table: &DeltaTable,
    files: Vec<Action>,
    properties: CommitProperties,
) -> Result<Version, Failure> {
    let operation = DeltaOperation::Write {
        mode: SaveMode::Append,
        partition_by: None,
        predicate: None,
    };
    let commit = CommitBuilder::from(properties)
        .with_actions(files)
        .build(Some(table.snapshot()?), table.log_store(), operation)
        .await?;
    Ok(commit.version())
}

/// Overwriting means all that is there at the commit, so files that came during the job go too.
async fn overwrite(
    location: &Location,
    files: Vec<Action>,
    properties: CommitProperties,
) -> Result<Version, Failure> {
    const ATTEMPTS: usize = 10;
    let properties = properties.with_max_retries(0);
    let mut attempt = 1;
    loop {
        let table = loaded(location).await.map_err(Failure::Ours)?;
        match overwrite_once(&table, files.clone(), properties.clone()).await {
            Err(failure) if failure.is_conflict() && attempt < ATTEMPTS => attempt += 1,
            outcome => return outcome,
        }
    }
}

async fn overwrite_once(
    table: &DeltaTable,
    mut actions: Vec<Action>,
    properties: CommitProperties,
) -> Result<Version, Failure> {
    let state = table.snapshot()?;
    let log = table.log_store();
    let old = state.snapshot().file_views(log.as_ref(), None);
    let old: Vec<Action> = old
        .map_ok(|file| Action::Remove(file.remove_action(true)))
        .try_collect()
        .await?;
    actions.extend(old);
    let operation = DeltaOperation::Write {
        mode: SaveMode::Overwrite,
        partition_by: None,
        predicate: None,
    };
    let commit = CommitBuilder::from(properties)
        .with_actions(actions)
        .build(Some(state), log, operation)
        .await?;
    Ok(commit.version())
}

/// One action for each file, after a look whether it is as the sink said.
async fn add_actions(attempt: &Attempt, parts: &[Part]) -> Result<Vec<Action>, Error> {
    let store = DurableStore::local();
    let mut actions = Vec::with_capacity(parts.len());
    for part in parts {
        let path = attempt.folder().join(&part.name);
        let damaged = |source: Box<dyn std::error::Error + Send + Sync>| Error::Write {
            path: path.clone(),
            source,
        };
        let found = store
            .head(&store_path(&path)?)
            .await
            .map_err(|source| damaged(Box::new(source)))?;
        if found.size != part.bytes {
            return Err(damaged(
                format!("it has {} bytes, {} were written", found.size, part.bytes).into(),
            ));
        }
        actions.push(Action::Add(Add {
            path: part.name.clone(),
            partition_values: HashMap::new(),
            size: i64::try_from(part.bytes).unwrap_or(i64::MAX),
            modification_time: found.last_modified.timestamp_millis(),
            data_change: true,
            stats: part.statistics.clone(),
            tags: None,
            deletion_vector: None,
            base_row_id: None,
            default_row_commit_version: None,
            clustering_provider: None,
        }));
    }
    Ok(actions)
}

// === Parquet: one renaming of a folder

async fn parquet(target: &Target, attempt: Attempt, parts: &[Part]) -> Result<(), Error> {
    let path = target.location.path();
    if parts.is_empty() {
        if let Change::AppendParquet = target.change {
            return Ok(());
        }
        // A folder without a file would not say which columns the table has.
        write_empty(&attempt, &target.written).await?;
    }
    let write = |source: std::io::Error| Error::Write {
        path: path.to_path_buf(),
        source: Box::new(source),
    };
    sync_folder(attempt.folder()).map_err(write)?;
    match &target.change {
        Change::Create => create_folder(attempt, &target.location)?,
        Change::AppendParquet => {
            // A folder in the folder, so that readers see all new files or none.
            std::fs::rename(
                attempt.folder(),
                path.join(format!("part-{}", attempt.job())),
            )
            .map_err(write)?;
            sync_folder(path).map_err(write)?;
            attempt.keep();
        }
        Change::Overwrite | Change::Replace | Change::AppendDelta(_) => {
            exchange(attempt.folder(), path).map_err(write)?;
            // What is at the attempt's place now is the old table: dropping the attempt deletes it.
        }
    }
    sync_folder(&parent(path)).map_err(write)
}

fn create_folder(attempt: Attempt, location: &Location) -> Result<(), Error> {
    let path = location.path();
    match std::fs::rename(attempt.folder(), path) {
        Ok(()) => {
            attempt.keep();
            Ok(())
        }
        Err(error) if error.kind() == std::io::ErrorKind::DirectoryNotEmpty => {
            Err(Error::Conflict {
                table: location.to_string(),
                source: None,
            })
        }
        Err(source) => Err(Error::Write {
            path: path.to_path_buf(),
            source: Box::new(source),
        }),
    }
}

/// Two folders change places, in one step where the file system knows how.
fn exchange(new: &Path, old: &Path) -> std::io::Result<()> {
    match renameat_with(CWD, new, CWD, old, RenameFlags::EXCHANGE) {
        Ok(()) => Ok(()),
        Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOSYS | rustix::io::Errno::NOTSUP) => {
            let aside = new.with_extension("old");
            std::fs::rename(old, &aside)?;
            std::fs::rename(new, old)?;
            std::fs::rename(aside, new)
        }
        Err(error) => Err(error.into()),
    }
}

async fn write_empty(attempt: &Attempt, schema: &SchemaRef) -> Result<(), Error> {
    let name = format!("part-00000-00000-{}.parquet", attempt.job());
    let location = store_path(&attempt.folder().join(&name))?;
    let mut file = PartFile::begin(
        Arc::new(DurableStore::local()),
        location,
        name,
        schema,
        false,
    )?;
    file.write(&RecordBatch::new_empty(Arc::clone(schema)))
        .await?;
    file.finish().await?;
    Ok(())
}
