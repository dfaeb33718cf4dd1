//! Finds a job whose results are visible already.

use std::collections::HashSet;

use deltalake_core::DeltaTable;
use deltalake_core::kernel::Version;
use serde::Deserialize;

use super::{Facts, bucket, parquet};
use crate::identity::Key;
use crate::location::Location;
use crate::snapshot::{loaded, unreadable, version_number};
use crate::{Error, Format};

/// Fact: rows of the results.
pub(super) const ROWS: &str = "resultRows";
/// Fact: files of the results.
pub(super) const FILES: &str = "resultFiles";

/// A job whose results are visible.
#[derive(Debug, Default)]
pub(crate) struct Finished {
    /// Version of the Delta table that has them; none where the log does not tell any more.
    pub(crate) version: Option<i64>,
    /// Rows that were written.
    pub(crate) rows: u64,
    /// Files that were written, as the table names them.
    pub(crate) files: HashSet<String>,
    /// How many they were.
    pub(crate) file_count: u64,
    /// What the log says about the job.
    pub(crate) facts: Facts,
}

/// The job `key`, if its results are in the table.
pub(crate) async fn finished(
    location: &Location,
    format: Format,
    key: &Key,
) -> Result<Option<Finished>, Error> {
    match format {
        Format::Parquet if location.bucket().is_some() => bucket::finished(location, key).await,
        Format::Parquet => parquet::finished(location, key).await,
        Format::Delta => match loaded(location).await {
            Ok(table) => in_log(location, &table, key.text()).await,
            Err(Error::TableNotFound { .. }) => Ok(None),
            Err(error) => Err(error),
        },
    }
}

/// The transaction `name` in the log of a table.
pub(super) async fn in_log(
    location: &Location,
    table: &DeltaTable,
    name: &str,
) -> Result<Option<Finished>, Error> {
    let wrong = |source| unreadable(location, source);
    let state = table.snapshot().map_err(wrong)?;
    let log = table.log_store();
    let found = state.transaction_version(log.as_ref(), name).await;
    if found.map_err(wrong)?.is_none() {
        return Ok(None);
    }
    // The snapshot says that there is one, but not where.
    for version in (0..=state.version()).rev() {
        let Some(entry) = log.read_commit_entry(version).await.map_err(wrong)? else {
            break;
        };
        if let Some(finished) = entry_of(&entry, name, version) {
            return Ok(Some(finished));
        }
    }
    Ok(Some(Finished::default()))
}

/// The entry, if it is that of the transaction.
fn entry_of(entry: &[u8], name: &str, version: Version) -> Option<Finished> {
    let actions: Vec<Action> = entry
        .split(|byte| *byte == b'\n')
        .filter_map(|line| serde_json::from_slice(line).ok())
        .collect();
    let is_it = |action: &Action| action.txn.as_ref().is_some_and(|txn| txn.app_id == name);
    if !actions.iter().any(is_it) {
        return None;
    }
    let mut finished = Finished {
        version: Some(version_number(version)),
        ..Finished::default()
    };
    for action in actions {
        finished
            .facts
            .extend(action.commit_info.unwrap_or_default());
        finished.files.extend(action.add.map(|add| add.path()));
    }
    let count = |fact| finished.facts.get(fact).and_then(serde_json::Value::as_u64);
    (finished.rows, finished.file_count) = (
        count(ROWS).unwrap_or_default(),
        count(FILES).unwrap_or_default(),
    );
    Some(finished)
}

/// What is of interest in one line of the log.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Action {
    txn: Option<Transaction>,
    add: Option<Add>,
    commit_info: Option<Facts>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Transaction {
    app_id: String,
}

#[derive(Debug, Deserialize)]
struct Add {
    path: String,
}

impl Add {
    /// The log has it as a URL has it.
    fn path(&self) -> String {
        percent_encoding::percent_decode_str(&self.path)
            .decode_utf8_lossy()
            .into_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_tells_the_rows_and_files_of_its_transaction() {
        let entry = concat!(
            r#"{"commitInfo":{"operation":"WRITE","queryFunction":"f","resultRows":7,"resultFiles":1}}"#,
            "\n",
            r#"{"add":{"path":"c=a%2520b/part.parquet"}}"#,
            "\n",
            r#"{"txn":{"appId":"j","version":1}}"#,
        );
        let finished = entry_of(entry.as_bytes(), "j", 3).unwrap();
        assert_eq!((finished.version, finished.rows), (Some(3), 7));
        assert!(finished.files.contains("c=a%20b/part.parquet"));
        assert_eq!(finished.facts["queryFunction"], "f");
        assert!(entry_of(entry.as_bytes(), "k", 3).is_none());
    }
}
