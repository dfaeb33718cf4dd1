//! One entry in the log of a Delta table.

use std::collections::HashMap;

use deltalake_core::kernel::engine::arrow_conversion::TryIntoKernel as _;
use deltalake_core::kernel::transaction::{CommitBuilder, CommitProperties, TransactionError};
use deltalake_core::kernel::{Action, Add, StructType, Transaction, Version};
use deltalake_core::logstore::LogStoreRef;
use deltalake_core::operations::create::CreateBuilder;
use deltalake_core::protocol::{DeltaOperation, SaveMode};
use deltalake_core::{DeltaTable, DeltaTableError};
use futures::TryStreamExt as _;
use object_store::ObjectStoreExt as _;

use super::Facts;
use crate::Error;
use crate::attempt::{Attempt, Submitted};
use crate::durable::DurableStore;
use crate::location::{Location, store_path};
use crate::part_file::Part;
use crate::snapshot::{loaded, table, version_number};
use crate::target::{DeltaChange, Target};

pub(super) async fn commit(
    target: &Target,
    change: &DeltaChange,
    mut attempt: Attempt,
    (parts, facts): (&[Part], Facts),
) -> Result<i64, Error> {
    let location = &target.location;
    // The log's store makes missing folders, too, but does not ask the disk to keep them.
    let folder = location.path().join("_delta_log");
    attempt.make(&folder).map_err(|source| Error::Write {
        path: folder,
        source: Box::new(source),
    })?;
    let files = add_actions(&attempt, parts).await?;
    let log = table(location)?.log_store();
    let properties = CommitProperties::default()
        .with_metadata(facts)
        .with_application_transaction(Transaction::new(attempt.job(), 1));
    let submitted = attempt.submit();
    let committed = match change {
        DeltaChange::Create => {
            create(target, log, files, properties, SaveMode::ErrorIfExists).await
        }
        DeltaChange::Replace => create(target, log, files, properties, SaveMode::Overwrite).await,
        DeltaChange::Append(table) => append(table, files, properties).await,
        DeltaChange::Overwrite => overwrite(log, files, properties).await,
    };
    match committed {
        Ok(version) => Ok(version_number(version)),
        Err(source) => read_back(location, change, submitted, source).await,
    }
}

/// A commit that failed may have landed nevertheless: the answer was lost, or only the work after
/// it failed. The log knows; if it does not have the files, they go.
async fn read_back(
    location: &Location,
    change: &DeltaChange,
    submitted: Submitted,
    source: DeltaTableError,
) -> Result<i64, Error> {
    let name = location.to_string();
    let is_there = match loaded(location).await {
        Ok(table) if has_job(&table, submitted.job()).await => {
            return Ok(version_number(table.version().unwrap_or_default()));
        }
        Ok(_) => true,
        Err(Error::TableNotFound { .. }) => false,
        // Nobody knows: the files stay, for the log may name them.
        Err(_) => {
            return Err(Error::Commit {
                table: name,
                source,
            });
        }
    };
    submitted.withdraw();
    let made_meanwhile = matches!(change, DeltaChange::Create) && is_there;
    if made_meanwhile || is_conflict(&source) {
        return Err(Error::Conflict {
            table: name,
            source: Some(source),
        });
    }
    Err(Error::Commit {
        table: name,
        source,
    })
}

async fn has_job(table: &DeltaTable, job: &str) -> bool {
    let Ok(state) = table.snapshot() else {
        return false;
    };
    let found = state
        .transaction_version(table.log_store().as_ref(), job.to_owned())
        .await;
    matches!(found, Ok(Some(_)))
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

/// The first version of a table, or one that replaces columns and files.
async fn create(
    target: &Target,
    log: LogStoreRef,
    files: Vec<Action>,
    properties: CommitProperties,
    mode: SaveMode,
) -> Result<Version, DeltaTableError> {
    let columns: StructType = target.written.as_ref().try_into_kernel()?;
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
) -> Result<Version, DeltaTableError> {
    let commit = CommitBuilder::from(properties)
        .with_actions(files)
        .build(
            Some(table.snapshot()?),
            table.log_store(),
            write(SaveMode::Append),
        )
        .await?;
    Ok(commit.version())
}

/// Overwriting means all that is there at the commit, so files that came during the job go too.
async fn overwrite(
    log: LogStoreRef,
    files: Vec<Action>,
    properties: CommitProperties,
) -> Result<Version, DeltaTableError> {
    const ATTEMPTS: usize = 10;
    let properties = properties.with_max_retries(0);
    let mut attempt = 1;
    loop {
        let mut table = DeltaTable::new(log.clone());
        table.load().await?;
        match overwrite_once(&table, files.clone(), properties.clone()).await {
            Err(error) if is_conflict(&error) && attempt < ATTEMPTS => attempt += 1,
            outcome => return outcome,
        }
    }
}

async fn overwrite_once(
    table: &DeltaTable,
    mut actions: Vec<Action>,
    properties: CommitProperties,
) -> Result<Version, DeltaTableError> {
    let state = table.snapshot()?;
    let log = table.log_store();
    let old = state.snapshot().file_views(log.as_ref(), None);
    let old: Vec<Action> = old
        .map_ok(|file| Action::Remove(file.remove_action(true)))
        .try_collect()
        .await?;
    actions.extend(old);
    let commit = CommitBuilder::from(properties)
        .with_actions(actions)
        .build(Some(state), log, write(SaveMode::Overwrite))
        .await?;
    Ok(commit.version())
}

fn write(mode: SaveMode) -> DeltaOperation {
    DeltaOperation::Write {
        mode,
        partition_by: None,
        predicate: None,
    }
}

/// One action for each file, after a look whether it is as the sink said.
async fn add_actions(attempt: &Attempt, parts: &[Part]) -> Result<Vec<Action>, Error> {
    let store = DurableStore::local();
    let mut actions = Vec::with_capacity(parts.len());
    for part in parts {
        let path = attempt.folder().join(&part.name);
        let location = store_path(&path)?;
        let damaged = |source: Box<dyn std::error::Error + Send + Sync>| Error::Write {
            path: path.clone(),
            source,
        };
        let found = store
            .head(&location)
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
            ..Add::default()
        }));
    }
    Ok(actions)
}
