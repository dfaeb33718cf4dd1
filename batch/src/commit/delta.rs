//! One entry in the log of a Delta table.

mod rewrite;

use std::collections::HashSet;
use std::sync::Arc;

use deltalake_core::kernel::engine::arrow_conversion::TryIntoKernel as _;
use deltalake_core::kernel::transaction::{
    CommitBuilder, CommitConflictError, CommitProperties, TransactionError,
};
use deltalake_core::kernel::{Action, Add, StructType, Transaction, Version};
use deltalake_core::logstore::LogStoreRef;
use deltalake_core::operations::create::CreateBuilder;
use deltalake_core::protocol::{DeltaOperation, SaveMode};
use deltalake_core::{DeltaTable, DeltaTableError};
use object_store::ObjectStoreExt as _;

use self::rewrite::{Failure, Rewrite};
use super::finished::{FILES, ROWS, in_log};
use super::{Facts, Finished, Outcome};
use crate::Error;
use crate::attempt::{Attempt, Submitted};
use crate::location::{Location, store_path};
use crate::merge::Keys;
use crate::part_file::Part;
use crate::point;
use crate::snapshot::{loaded, table, version_number};
use crate::target::{DeltaChange, Target, check_columns};

pub(super) async fn commit(
    target: &Target,
    change: &DeltaChange,
    mut attempt: Attempt,
    (parts, facts): (&[Part], Facts),
) -> Result<Outcome, Error> {
    let location = &target.location;
    let prepared = prepare(target, &mut attempt, parts).await;
    let (keys, files, log) = match prepared {
        Ok(prepared) => prepared,
        Err(error) => {
            attempt.give_up().await;
            return Err(error);
        }
    };
    let properties = CommitProperties::default()
        .with_metadata(facts.into_iter().chain(counts(parts)))
        .with_application_transaction(Transaction::new(attempt.transaction(), 1));
    let submitted = attempt.submit();
    let transaction = submitted.transaction();
    let mut named = names(parts);
    let committed = match change {
        DeltaChange::Create { appends } => {
            let made = create(target, log, &files, &properties, SaveMode::ErrorIfExists).await;
            match made {
                Err(error) if *appends => match made_meanwhile(target).await {
                    Some(table) => append((&table, target), transaction, files, properties).await,
                    None => Err(error),
                },
                made => made,
            }
        }
        DeltaChange::Replace => replace(target, (log, transaction), files, properties).await,
        DeltaChange::Append(table) => append((table, target), transaction, files, properties).await,
        DeltaChange::Rewrite(old) => {
            let mut rewrite = Rewrite::new(target, &submitted, parts, keys);
            let written = rewrite.commit((log, *old), &files, &properties).await;
            named.extend(rewrite.named);
            match written {
                Err(Failure::Ours(error)) => {
                    // No entry with these files was ever taken, or the log would have told.
                    submitted.withdraw().await;
                    return Err(error);
                }
                Err(Failure::Log(error)) => Err(error),
                Ok(version) => Ok(version),
            }
        }
    };
    match committed {
        Ok(version) => {
            point::reached(point::AFTER_COMMIT);
            submitted.done(&named).await;
            Ok(Outcome::Written(Some(version_number(version))))
        }
        Err(source) => read_back(location, change, (submitted, &named), source).await,
    }
}

/// All that the commit needs, and that can fail without a doubt about what is in the log.
async fn prepare(
    target: &Target,
    attempt: &mut Attempt,
    parts: &[Part],
) -> Result<(Option<Arc<Keys>>, Vec<Action>, LogStoreRef), Error> {
    // The log's store makes missing folders, too, but does not ask the disk to keep them.
    let folder = target.location.path().join("_delta_log");
    attempt.make(&folder).map_err(|source| Error::Write {
        path: folder,
        source: Box::new(source),
    })?;
    Ok((
        Keys::of(target, attempt, parts).await?,
        add_actions(target, attempt, parts).await?,
        table(&target.location)?.log_store(),
    ))
}

fn names(parts: &[Part]) -> HashSet<String> {
    parts.iter().map(|part| part.name.clone()).collect()
}

/// What the results are, whatever else is in the entry of the log.
fn counts(parts: &[Part]) -> Facts {
    let rows: u64 = parts.iter().map(|part| part.rows).sum();
    Facts::from([
        (ROWS.to_owned(), rows.into()),
        (FILES.to_owned(), parts.len().into()),
    ])
}

/// A commit that failed may have landed nevertheless: the answer was lost, or only the work after
/// it failed; or another attempt at the same job was quicker. The log knows; if it does not have the
/// transaction, the files go.
async fn read_back(
    location: &Location,
    change: &DeltaChange,
    (submitted, named): (Submitted, &HashSet<String>),
    source: DeltaTableError,
) -> Result<Outcome, Error> {
    let table = location.to_string();
    let found = match loaded(location).await {
        Ok(table) => in_log(location, &table, submitted.transaction())
            .await
            .map(|finished| (true, finished)),
        Err(Error::TableNotFound { .. }) => Ok((false, None)),
        Err(error) => Err(error),
    };
    match found {
        Ok((_, Some(finished))) => Ok(landed(finished, submitted, named).await),
        Ok((is_there, None)) => {
            submitted.withdraw().await;
            let made_meanwhile = matches!(change, DeltaChange::Create { .. }) && is_there;
            if made_meanwhile || is_conflict(&source) {
                let source = Some(source);
                return Err(Error::Conflict { table, source });
            }
            Err(Error::Commit { table, source })
        }
        // Nobody knows: the files stay, for the log may name them.
        Err(_) => Err(Error::Commit { table, source }),
    }
}

/// The log has the transaction. Its files tell whether it was this attempt.
async fn landed(finished: Finished, submitted: Submitted, named: &HashSet<String>) -> Outcome {
    let version = finished.version;
    if version.is_none() {
        // The entry is gone from the log: what it named, nobody can tell, so nothing is deleted.
        drop(submitted);
        return Outcome::Before(finished);
    }
    submitted.done(&finished.files).await;
    if finished.files == *named {
        return Outcome::Written(version);
    }
    Outcome::Before(finished)
}

/// Refuses to commit on top of a version that has the transaction. The log's own rules refuse one
/// that comes later.
async fn check_new(table: &DeltaTable, transaction: &str) -> Result<(), DeltaTableError> {
    let log = table.log_store();
    let state = table.snapshot()?;
    match state.transaction_version(log.as_ref(), transaction).await? {
        None => Ok(()),
        Some(_) => Err(done_before()),
    }
}

fn done_before() -> DeltaTableError {
    TransactionError::CommitConflict(CommitConflictError::ConcurrentTransaction).into()
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
    files: &[Action],
    properties: &CommitProperties,
    mode: SaveMode,
) -> Result<Version, DeltaTableError> {
    let columns: StructType = target.written.as_ref().try_into_kernel()?;
    let made = CreateBuilder::new()
        .with_log_store(log)
        .with_columns(columns.into_fields())
        .with_partition_columns(target.layout.columns())
        .with_actions(files.to_vec())
        .with_save_mode(mode)
        // Another attempt would put our columns on top of those that somebody else made meanwhile.
        .with_commit_properties(properties.clone().with_max_retries(0))
        .await?;
    Ok(made.version().unwrap_or_default())
}

/// The table that somebody else has made since there was none, if the results fit into it.
async fn made_meanwhile(target: &Target) -> Option<DeltaTable> {
    let table = loaded(&target.location).await.ok()?;
    let state = table.snapshot().ok()?;
    check_columns(&target.location, state, &target.written).ok()?;
    let is_alike = *state.metadata().partition_columns() == target.layout.columns();
    is_alike.then_some(table)
}

/// Columns and files in the place of those there are.
async fn replace(
    target: &Target,
    (log, transaction): (LogStoreRef, &str),
    files: Vec<Action>,
    properties: CommitProperties,
) -> Result<Version, DeltaTableError> {
    let mut table = DeltaTable::new(log.clone());
    table.load().await?;
    check_new(&table, transaction).await?;
    create(target, log, &files, &properties, SaveMode::Overwrite).await
}

async fn append(
    (table, target): (&DeltaTable, &Target),
    transaction: &str,
    files: Vec<Action>,
    properties: CommitProperties,
) -> Result<Version, DeltaTableError> {
    check_new(table, transaction).await?;
    let commit = CommitBuilder::from(properties)
        .with_actions(files)
        .build(
            Some(table.snapshot()?),
            table.log_store(),
            write(SaveMode::Append, target),
        )
        .await?;
    Ok(commit.version())
}

fn write(mode: SaveMode, target: &Target) -> DeltaOperation {
    let columns = target.layout.columns();
    DeltaOperation::Write {
        mode,
        partition_by: (!columns.is_empty()).then_some(columns),
        predicate: None,
    }
}

/// One action for each file, after a look whether it is as the sink said.
async fn add_actions(
    target: &Target,
    attempt: &Attempt,
    parts: &[Part],
) -> Result<Vec<Action>, Error> {
    let columns = target.layout.columns();
    let store = target.location.store();
    let mut actions = Vec::with_capacity(parts.len());
    for part in parts {
        let path = attempt.folder().join(&part.name);
        let location = store_path(&path)?;
        let damaged = |source: Box<dyn std::error::Error + Send + Sync>| Error::Write {
            path: target.location.named(&path),
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
            partition_values: columns.iter().cloned().zip(part.values.clone()).collect(),
            size: i64::try_from(part.bytes).unwrap_or(i64::MAX),
            modification_time: found.last_modified.timestamp_millis(),
            data_change: true,
            stats: part.statistics.clone(),
            ..Add::default()
        }));
    }
    Ok(actions)
}
