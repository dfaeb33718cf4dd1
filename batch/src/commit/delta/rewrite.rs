//! An entry that takes files out of the table, too.
//!
//! The log's own rules let files that came meanwhile stay beside such an entry. So it is only ever the
//! successor of the version that was looked at: if another entry comes first, all is looked at again.

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;
use std::sync::Arc;

use deltalake_core::kernel::transaction::{
    CommitBuilder, CommitConflictError, CommitProperties, TransactionError,
};
use deltalake_core::kernel::{Action, Version};
use deltalake_core::logstore::LogStoreRef;
use deltalake_core::protocol::SaveMode;
use deltalake_core::{DeltaTable, DeltaTableError};

use super::{add_actions, check_new, is_conflict, write};
use crate::Error;
use crate::attempt::Submitted;
use crate::layout::{Layout, Values};
use crate::merge::{Keys, Left};
use crate::part_file::Part;
use crate::snapshot::files;
use crate::source::DataFile;
use crate::target::{Old, Target, check_columns};

/// Each time, another writer was quicker: with so many in a row there is no end in sight.
const TRIES: usize = 50;

/// Why there is no entry.
#[derive(Debug)]
pub(super) enum Failure {
    /// The log has not taken it, or nobody knows.
    Log(DeltaTableError),
    /// There was nothing to ask the log for.
    Ours(Error),
}

impl From<DeltaTableError> for Failure {
    fn from(error: DeltaTableError) -> Self {
        Self::Log(error)
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Ours(error)
    }
}

/// The results of a job, and what is known of the files that they take the place of.
pub(super) struct Rewrite<'c> {
    target: &'c Target,
    submitted: &'c Submitted,
    partitions: HashSet<Values>,
    keys: Option<Arc<Keys>>,
    /// What is left of each file, by its path. It does not change: files never do.
    left: HashMap<PathBuf, Left>,
    /// Files that the last entry names beside those of the results.
    pub(super) named: HashSet<String>,
}

impl<'c> Rewrite<'c> {
    pub(super) fn new(
        target: &'c Target,
        submitted: &'c Submitted,
        parts: &[Part],
        keys: Option<Arc<Keys>>,
    ) -> Self {
        Self {
            target,
            submitted,
            partitions: parts.iter().map(|part| part.values.clone()).collect(),
            keys,
            left: HashMap::new(),
            named: HashSet::new(),
        }
    }

    /// Commits `adds` in the place of the files that are `old`.
    pub(super) async fn commit(
        &mut self,
        (log, old): (LogStoreRef, Old),
        adds: &[Action],
        properties: &CommitProperties,
    ) -> Result<Version, Failure> {
        let mut tries = 1;
        loop {
            // Read anew each time: the same job may have come meanwhile, and must not count twice.
            let mut table = DeltaTable::new(Arc::clone(&log));
            table.load().await?;
            check_new(&table, self.submitted.transaction()).await?;
            self.check_unchanged(&table)?;
            let actions = [adds, &self.changes(&table, old).await?].concat();
            match self.commit_once(&table, actions, properties.clone()).await {
                Err(error) if is_conflict(&error) && tries < TRIES => tries += 1,
                outcome => return Ok(outcome?),
            }
        }
    }

    async fn commit_once(
        &self,
        table: &DeltaTable,
        actions: Vec<Action>,
        properties: CommitProperties,
    ) -> Result<Version, DeltaTableError> {
        let commit = CommitBuilder::from(properties.with_max_retries(0))
            .with_actions(actions)
            .build(
                Some(table.snapshot()?),
                table.log_store(),
                write(SaveMode::Overwrite, self.target),
            )
            .await?;
        Ok(commit.version())
    }

    /// Refuses a table that has other columns by now.
    fn check_unchanged(&self, table: &DeltaTable) -> Result<(), DeltaTableError> {
        let (state, target) = (table.snapshot()?, self.target);
        let same_layout = *state.metadata().partition_columns() == target.layout.columns();
        if same_layout && check_columns(&target.location, state, &target.written).is_ok() {
            return Ok(());
        }
        Err(TransactionError::CommitConflict(CommitConflictError::MetadataChanged).into())
    }

    /// The files that go, and those that come with what is left of them.
    async fn changes(&mut self, table: &DeltaTable, old: Old) -> Result<Vec<Action>, Error> {
        let mut actions = vec![];
        let mut rest = vec![];
        for (view, file) in files(&self.target.location, table).await? {
            match self.left(&file, old).await? {
                Left::All => continue,
                Left::Nothing => {}
                Left::Some(part) => rest.push(part),
            }
            actions.push(Action::Remove(view.remove_action(true)));
        }
        self.named = super::names(&rest);
        let attempt = self.submitted.attempt();
        actions.extend(add_actions(self.target, attempt, &rest).await?);
        Ok(actions)
    }

    async fn left(&mut self, file: &DataFile, old: Old) -> Result<Left, Error> {
        match (old, &self.keys) {
            (Old::WithKeys, Some(keys)) => {
                if let Some(left) = self.left.get(&file.path) {
                    return Ok(left.clone());
                }
                let next = (self.left.len(), true);
                let left = keys.left(file, self.submitted.attempt(), next).await?;
                self.left.insert(file.path.clone(), left.clone());
                Ok(left)
            }
            (Old::OfPartitions, _) if !self.is_replaced(file) => Ok(Left::All),
            (Old::All | Old::OfPartitions | Old::WithKeys, _) => Ok(Left::Nothing),
        }
    }

    fn is_replaced(&self, file: &DataFile) -> bool {
        self.partitions
            .contains(&Layout::texts(&file.partition_values))
    }
}
