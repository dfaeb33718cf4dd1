//! Why a job failed. Nothing of a failed job is visible in its output.

use std::path::PathBuf;
use std::sync::Arc;

use datafusion::error::DataFusionError;
use deltalake_core::DeltaTableError;

use crate::AsOf;
use crate::location::Location;
use crate::partitions::told;
use crate::sql::Position;

/// Why a job failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// There is no such function in the envelope.
    #[error(transparent)]
    NoSuchFunction(envelope_format::Error),
    /// A job without a function.
    #[error("the job has no model")]
    NoModel,
    /// The table cannot be split: the function needs to see all of its rows at once.
    #[error("`{function}` is not row-wise: {reason}")]
    NotRowWise {
        /// The function.
        function: String,
        /// What the envelope's certificate says.
        reason: String,
    },
    /// The place of a table is neither a path nor a `file://` or `s3://` URL, or cannot be used.
    #[error("`{location}` is not a place that tables can be in: {reason}")]
    Location {
        /// What was given.
        location: String,
        /// What is wrong with it.
        reason: String,
    },
    /// There is no table to read.
    #[error("there is no table at `{table}`: {looked_for}")]
    TableNotFound {
        /// Where it was looked for.
        table: String,
        /// What was looked for there.
        looked_for: String,
    },
    /// The table does not have the snapshot that is asked for.
    #[error("the table `{table}` has no snapshot at {as_of}")]
    NoSnapshot {
        /// The table.
        table: String,
        /// The snapshot.
        as_of: AsOf,
        /// Its latest version.
        latest: u64,
        /// Why the snapshot cannot be read, where it is not after the latest or before the first.
        source: Option<DeltaTableError>,
    },
    /// A snapshot is asked for of a table that keeps none.
    #[error("the table `{table}` keeps no snapshots")]
    NoSnapshots {
        /// The table.
        table: String,
    },
    /// The table to read is damaged, or cannot be read.
    #[error("the table `{table}` cannot be read{}", in_file(file.as_ref()))]
    Read {
        /// The table.
        table: String,
        /// The file of the table, if it is one file's fault.
        file: Option<PathBuf>,
        /// Why.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The table uses a feature that is not known here.
    #[error("the table `{table}` {feature}, which is not supported")]
    Unsupported {
        /// The table.
        table: String,
        /// What it has or uses, with a verb.
        feature: String,
    },
    /// A column that the function takes or that is to be kept is not in the table.
    #[error("the table `{table}` has no column `{column}`{}", nearest_name(nearest.as_ref()))]
    NoColumn {
        /// The table.
        table: String,
        /// The column.
        column: String,
        /// The column with the most similar name.
        nearest: Option<String>,
        /// The columns that there are.
        columns: Vec<String>,
    },
    /// The filter is not a condition on the table's columns, or one that is not known here.
    #[error("the filter `{filter}` {reason}")]
    Filter {
        /// The filter.
        filter: String,
        /// What is wrong with it, with a verb.
        reason: String,
    },
    /// Values of a column cannot be given to the function without a change of meaning.
    #[error("column `{column}` of the table `{table}` is {found}, the function takes {expected}")]
    ColumnType {
        /// The table.
        table: String,
        /// The column.
        column: String,
        /// Type in the table.
        found: String,
        /// Type in the function's signature.
        expected: String,
    },
    /// Files of a table disagree about a column.
    #[error("column `{column}` of the table `{table}` is {expected}, but {found} in `{}`", file.display())]
    FilesDiffer {
        /// The table.
        table: String,
        /// The column.
        column: String,
        /// The file that differs from the ones before.
        file: PathBuf,
        /// Type in that file.
        found: String,
        /// Type in the files before.
        expected: String,
    },
    /// Files of a table are in folders of different partition columns.
    #[error("`{}` has {}, other files of the table `{table}` have {}", file.display(), told(found), told(expected))]
    LayoutsDiffer {
        /// The table.
        table: String,
        /// The file that differs from the ones before.
        file: PathBuf,
        /// Partition columns of that file, outermost folder first.
        found: Vec<String>,
        /// Partition columns of the files before.
        expected: Vec<String>,
    },
    /// A value is missing in a column in which the function takes none.
    #[error("column `{column}` of the table `{table}` has a missing value{}, the function takes none", in_file(file.as_ref()))]
    MissingValue {
        /// The table.
        table: String,
        /// The column.
        column: String,
        /// The file, if it is known.
        file: Option<PathBuf>,
    },
    /// Two columns of the output would have the same name.
    #[error("two columns of the output would be called `{column}`: {reason}")]
    ColumnTwice {
        /// The name.
        column: String,
        /// Where they come from.
        reason: String,
    },
    /// The output's format has no type for a column.
    #[error("column `{column}` is {found}, which a Delta table cannot hold")]
    NoDeltaType {
        /// The column.
        column: String,
        /// Its type.
        found: String,
    },
    /// Rows of the output cannot be shared out among folders.
    #[error("the output cannot be partitioned by `{column}`: {reason}")]
    PartitionBy {
        /// The column.
        column: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The table that is there is in other folders than the results would be.
    #[error("the table `{table}` has {found}, the results would have {wanted}")]
    OtherPartitions {
        /// The table.
        table: String,
        /// Its partition columns.
        found: String,
        /// Those that were asked for.
        wanted: String,
    },
    /// Only the partitions of the results are to be replaced, but there are none.
    #[error("the table `{table}` has no partition columns")]
    NotPartitioned {
        /// The table.
        table: String,
    },
    /// Rows cannot be merged by a column.
    #[error("rows cannot be merged on `{column}`: {reason}")]
    MergeOn {
        /// The column.
        column: String,
        /// What is wrong with it.
        reason: String,
    },
    /// Two rows of the results would take the place of the same row.
    #[error("two rows of the results have {key}: either would replace the other")]
    KeyTwice {
        /// The columns and their values.
        key: String,
    },
    /// The output exists.
    #[error("the table `{table}` exists{}", other_schema(differs.as_ref()))]
    TableExists {
        /// The table.
        table: String,
        /// How its schema differs from that of the results, if it does.
        differs: Option<String>,
    },
    /// What is at the place of the output is not a table of the format that is to be written.
    #[error("`{path}` {reason}")]
    NotThatTable {
        /// The place.
        path: String,
        /// What it is, with a verb.
        reason: String,
    },
    /// The results do not have the columns of the table that they are to be added to.
    #[error("column `{column}` of the results is {found}, the table `{table}` has {expected}")]
    SchemaMismatch {
        /// The table.
        table: String,
        /// The column.
        column: String,
        /// What the results have.
        found: String,
        /// What the table has.
        expected: String,
    },
    /// The function, or what runs it, failed on rows of the table.
    #[error("the function `{function}` failed on {} of the table `{table}`", on(.row.as_deref()))]
    Function {
        /// The function.
        function: String,
        /// The table.
        table: String,
        /// The first row that it fails on alone, as text: columns that are kept, then those that it
        /// takes. None where no single row is to blame.
        row: Option<String>,
        /// Why; a Python exception with its traceback, if the function raised one.
        source: runtime::Error,
    },
    /// The function, or what runs it, failed on a group of rows.
    #[error("the function `{function}` failed on the group {group} of the table `{table}`")]
    Group {
        /// The function.
        function: String,
        /// The table.
        table: String,
        /// The columns that rows are grouped by, and their values.
        group: String,
        /// Why; a Python exception with its traceback, if the function raised one.
        source: runtime::Error,
    },
    /// The rows of a group are more than a call may have.
    #[error("the group {group} of the table `{table}` has more than {most_bytes} bytes")]
    GroupTooLarge {
        /// The table.
        table: String,
        /// The columns that rows are grouped by, and their values.
        group: String,
        /// What a group may have.
        most_bytes: u64,
    },
    /// Rows cannot be grouped by a column.
    #[error("rows cannot be grouped by `{column}`: {reason}")]
    GroupBy {
        /// The column.
        column: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A column of which a group has many values is to stand beside the one row for the group.
    #[error("column `{column}` cannot be kept: `{function}` gives one row for all rows of a group")]
    KeptOfGroup {
        /// The column.
        column: String,
        /// The function.
        function: String,
    },
    /// Several models are to get groups of rows.
    #[error("rows are grouped for one model, not for {count}")]
    GroupsOfSeveral {
        /// How many there are.
        count: usize,
    },
    /// A value cannot be written as it is.
    #[error("column `{column}` holds a value that the output cannot: {reason}")]
    Value {
        /// The column.
        column: String,
        /// Which, and why.
        reason: String,
    },
    /// A file or folder of the output cannot be written.
    #[error("cannot write `{}`", path.display())]
    Write {
        /// The file or folder.
        path: PathBuf,
        /// Why.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The results are written, but the table's log did not take them.
    #[error("the results cannot be committed to the table `{table}`")]
    Commit {
        /// The table.
        table: String,
        /// Why.
        source: DeltaTableError,
    },
    /// Somebody else changed the table in a way that the results do not fit any more.
    #[error("the table `{table}` was changed by somebody else during the job")]
    Conflict {
        /// The table.
        table: String,
        /// How.
        source: Option<DeltaTableError>,
    },
    /// The work that was reported back is not the whole table, once.
    #[error("the results are not complete: {reason}")]
    Incomplete {
        /// What is missing, or there twice.
        reason: String,
    },
    /// The cluster cannot do the job, or is not there any more.
    #[error("the cluster at `{address}` {reason}")]
    Cluster {
        /// Its scheduler.
        address: String,
        /// What is the matter, with a verb.
        reason: String,
    },
    /// Something failed on an executor of the cluster that is not one of the other cases.
    #[error("an executor of the cluster failed: {message}")]
    Executor {
        /// What it said.
        message: String,
        /// Whether the same job may succeed when it is run again.
        transient: bool,
    },
    /// This program was built without clusters.
    #[error("this program cannot use clusters")]
    NoClusters,
    /// A file that lets this program into a cluster cannot be used.
    #[error("`{}` cannot be used as a credential of a cluster: {reason}", path.display())]
    Credentials {
        /// The file.
        path: PathBuf,
        /// Why not.
        reason: String,
    },
    /// A part of a cluster would be reachable from other machines.
    #[error("`{address}` can be reached from other machines")]
    Exposed {
        /// Where it would listen.
        address: String,
    },
    /// A job cannot be called so.
    #[error("`{given}` cannot be {what} of a job: {reason}")]
    JobIdentity {
        /// What was given.
        given: String,
        /// What it was to be: the name or the logical date.
        what: &'static str,
        /// What is wrong with it.
        reason: String,
    },
    /// A job with this name, date and envelope is finished, but it was not this one.
    #[error("the job `{job}` is finished, and its {what} was `{before}`, not `{now}`")]
    OtherJob {
        /// Its name.
        job: String,
        /// What differs.
        what: &'static str,
        /// What it was then.
        before: String,
        /// What it would be now.
        now: String,
    },
    /// A query is wrong, or asks for what cannot be done.
    #[error("the SQL{} cannot be carried out: {reason}", at_place(.at.as_ref()))]
    Sql {
        /// What is wrong.
        reason: String,
        /// Where in its text, if that is known.
        at: Option<Position>,
        /// What may be done about it.
        hint: Option<String>,
    },
    /// A query names an envelope that is not there, or may not be used.
    #[error("`{reference}` at {at} is no envelope that can be used")]
    NoEnvelope {
        /// What the query calls it.
        reference: String,
        /// Where in its text.
        at: Position,
        /// Why.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// What several parts of a query failed with. [`root`](Self::root) says what it is.
    #[error(transparent)]
    Shared(Arc<DataFusionError>),
    /// The job was cancelled.
    #[error("the job was cancelled")]
    Cancelled,
    /// A part of this program panicked: its author's fault.
    #[error("a part of the job panicked: {message}")]
    Panicked {
        /// What it said.
        message: String,
    },
    /// The query engine failed.
    #[error("the job cannot be carried out")]
    Engine {
        /// Why.
        source: DataFusionError,
    },
}

/// Why rows are not merged on a column that is not among those that are written.
pub(crate) const NOT_WRITTEN: &str = "the output has no such column";

fn on(row: Option<&str>) -> String {
    row.map_or_else(|| "rows".to_owned(), |row| format!("the row {row}"))
}

fn at_place(at: Option<&Position>) -> String {
    at.map_or_else(String::new, |at| format!(" at {at}"))
}

impl Error {
    /// The error itself, where several parts of a query have it.
    #[must_use]
    pub fn root(&self) -> &Self {
        if let Self::Shared(shared) = self
            && let DataFusionError::External(root) = shared.find_root()
            && let Some(ours) = root.downcast_ref::<Self>()
        {
            return ours;
        }
        self
    }

    /// What the user may do about it.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        #[expect(clippy::wildcard_enum_match_arm, reason = "the other messages say it themselves")]
        match self.root() {
            Self::Sql { hint, .. } => hint.clone(),
            Self::NotRowWise { .. } => {
                Some("call it once for each group of rows (`--group-by`) or on all rows (`envelope predict`), or make its output for a row depend on that row alone".into())
            }
            Self::NoSnapshot { latest, .. } => Some(format!("its latest version is {latest}")),
            Self::NoSnapshots { .. } => {
                Some("only Delta tables keep what they were; leave out `--as-of`".into())
            }
            Self::NoColumn { columns, .. } if columns.is_empty() => {
                Some("the table has no columns: its files are empty".into())
            }
            Self::NoColumn { columns, .. } => Some(format!("the columns are {}", listed(columns))),
            Self::Filter { .. } => Some(
                "filters have columns, numbers, 'text', DATE '2026-01-31', comparisons, IN, BETWEEN, LIKE, IS NULL, AND, OR, NOT and arithmetic".into(),
            ),
            Self::ColumnType { column, expected, .. } => {
                Some(format!("only lossless changes are made; make `{column}` {expected} in the table first"))
            }
            Self::MissingValue { column, .. } => {
                Some(format!("fill `{column}` in the table, or save the function with a sample in which it is missing"))
            }
            Self::ColumnTwice { column, .. } => {
                Some(format!("do not keep `{column}`, rename it in the table or in the function's output, or give the models other names"))
            }
            Self::NoDeltaType { .. } | Self::Value { .. } => {
                Some("write Parquet (`--format parquet`)".into())
            }
            Self::TableExists { .. } => {
                Some("add to it (`--mode append`), replace it (`--mode overwrite`), or choose another output".into())
            }
            Self::SchemaMismatch { .. } | Self::NotThatTable { .. } => Some("choose another output".into()),
            Self::Unsupported { feature, .. } if feature.contains("deletion vectors") => {
                Some("rewrite it without them first (Spark: `REORG TABLE … APPLY (PURGE)`)".into())
            }
            Self::Conflict { .. } | Self::Incomplete { .. } => Some("run the job again".into()),
            Self::Cluster { .. } => {
                Some("`envelope scheduler` and `envelope executor` make a cluster; if it has credentials (`--cluster-certificate` and others), each program needs them".into())
            }
            Self::NoClusters => Some("build it with them: `cargo build --release -p cli --features cluster`".into()),
            Self::Exposed { .. } => Some(
                "whoever reaches a cluster can run code on it: use an address of this machine alone (127.0.0.1), or give certificates and a token (`--cluster-certificate` and others)".into(),
            ),
            Self::OtherPartitions { .. } => {
                Some("leave out `--partition-by`, replace the table (`--mode overwrite`), or choose another output".into())
            }
            Self::NotPartitioned { .. } => {
                Some("name some (`--partition-by`), or replace the whole table (`--mode overwrite`)".into())
            }
            Self::PartitionBy { .. } => Some("choose other columns (`--partition-by`)".into()),
            Self::MergeOn { column, reason } if reason == NOT_WRITTEN => {
                Some(format!("keep it (`--keep {column}`), or choose other columns (`--merge-on`)"))
            }
            Self::MergeOn { .. } => Some("choose other columns (`--merge-on`)".into()),
            Self::KeyTwice { .. } => {
                Some("merge on more columns, or make the key unique in the input".into())
            }
            Self::GroupTooLarge { .. } => Some(
                "group by more columns (`--group-by`), or allow more (`--max-group-bytes`)".into(),
            ),
            Self::GroupBy { .. } => Some("choose other columns (`--group-by`)".into()),
            Self::KeptOfGroup { column, .. } => {
                Some(format!("leave it out, or group by it, too (`--group-by …,{column}`)"))
            }
            Self::GroupsOfSeveral { .. } => Some("run one job for each model".into()),
            Self::OtherJob { .. } => {
                Some("give this one another name (`--job`) or another date (`--logical-date`)".into())
            }
            _ => self.hint_for_buckets(),
        }
    }

    /// What to look at when a bucket did not do what it was asked.
    fn hint_for_buckets(&self) -> Option<String> {
        let causes =
            std::iter::successors(Some(self as &(dyn std::error::Error + 'static)), |error| {
                error.source()
            });
        let mut stores = causes.filter_map(|cause| cause.downcast_ref::<object_store::Error>());
        #[expect(clippy::wildcard_enum_match_arm, reason = "the other messages say it themselves")]
        stores.find_map(|error| match error {
            error if is_forbidden(error) => Some(
                "look at `AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY`, `AWS_SESSION_TOKEN` and `AWS_REGION`, and at what the key may do".to_owned(),
            ),
            error if told_by(error).contains("NoSuchBucket") => {
                Some("look at the name of the bucket, and at `AWS_ENDPOINT_URL`".to_owned())
            }
            object_store::Error::Generic { store: "S3", .. } => Some(
                "look at `AWS_ENDPOINT_URL`, `AWS_REGION` and `AWS_ACCESS_KEY_ID`, and whether the server is there".to_owned(),
            ),
            _ => None,
        })
    }

    /// Whether the same job may succeed when it is run again.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        match self.root() {
            Self::Function { source, .. } | Self::Group { source, .. } => source.is_transient(),
            Self::Executor { transient, .. } => *transient,
            Self::Conflict { .. }
            | Self::Cancelled
            | Self::Cluster { .. }
            | Self::Commit { .. }
            | Self::Incomplete { .. }
            | Self::Write { .. } => true,
            Self::NoSuchFunction(_)
            | Self::NoModel
            | Self::NotRowWise { .. }
            | Self::Location { .. }
            | Self::TableNotFound { .. }
            | Self::Read { .. }
            | Self::NoSnapshot { .. }
            | Self::NoSnapshots { .. }
            | Self::Unsupported { .. }
            | Self::NoColumn { .. }
            | Self::Filter { .. }
            | Self::ColumnType { .. }
            | Self::FilesDiffer { .. }
            | Self::LayoutsDiffer { .. }
            | Self::MissingValue { .. }
            | Self::ColumnTwice { .. }
            | Self::NoDeltaType { .. }
            | Self::TableExists { .. }
            | Self::NotThatTable { .. }
            | Self::SchemaMismatch { .. }
            | Self::NoClusters
            | Self::Credentials { .. }
            | Self::Exposed { .. }
            | Self::PartitionBy { .. }
            | Self::OtherPartitions { .. }
            | Self::NotPartitioned { .. }
            | Self::MergeOn { .. }
            | Self::KeyTwice { .. }
            | Self::GroupTooLarge { .. }
            | Self::GroupBy { .. }
            | Self::KeptOfGroup { .. }
            | Self::GroupsOfSeveral { .. }
            | Self::JobIdentity { .. }
            | Self::OtherJob { .. }
            | Self::Sql { .. }
            | Self::NoEnvelope { .. }
            | Self::Shared(_)
            | Self::Value { .. }
            | Self::Panicked { .. }
            | Self::Engine { .. } => false,
        }
    }

    /// What the plan's nodes said through the query engine, in our words again.
    pub(crate) fn from_engine(error: DataFusionError) -> Self {
        #[expect(
            clippy::wildcard_enum_match_arm,
            reason = "all else is the engine's own"
        )]
        match error {
            DataFusionError::External(ours) => match ours.downcast::<Self>() {
                Ok(ours) => *ours,
                Err(other) => Self::Engine {
                    source: DataFusionError::External(other),
                },
            },
            DataFusionError::Context(_, cause) => Self::from_engine(*cause),
            DataFusionError::Shared(shared) => match Arc::try_unwrap(shared) {
                Ok(alone) => Self::from_engine(alone),
                Err(shared) => Self::Shared(shared),
            },
            other => Self::Engine { source: other },
        }
    }

    /// The file or folder `path` cannot be written.
    pub(crate) fn unwritable(
        path: impl Into<PathBuf>,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Self {
        Self::Write {
            path: path.into(),
            source: source.into(),
        }
    }

    /// The same about the table that a folder is in.
    pub(crate) fn of_table(mut self, whole: &Location) -> Self {
        if let Self::Read { table, .. } = &mut self {
            *table = whole.to_string();
        }
        self
    }

    /// The way through the query engine.
    pub(crate) fn into_engine(self) -> DataFusionError {
        DataFusionError::External(Box::new(self))
    }
}

/// Whether a server did not let us in. That of a listing comes as one of any kind.
fn is_forbidden(error: &object_store::Error) -> bool {
    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "the others are about something else"
    )]
    match error {
        object_store::Error::PermissionDenied { .. }
        | object_store::Error::Unauthenticated { .. } => true,
        object_store::Error::Generic { source, .. } => source.to_string().contains("403 Forbidden"),
        _ => false,
    }
}

/// What a server says, as far as it was heard.
fn told_by(error: &object_store::Error) -> String {
    let cause = std::error::Error::source(error).map(ToString::to_string);
    format!("{error} {}", cause.unwrap_or_default())
}

fn in_file(file: Option<&PathBuf>) -> String {
    file.map_or_else(String::new, |file| format!(" in `{}`", file.display()))
}

/// What a message says after a name that is not there.
pub(crate) fn nearest_name(nearest: Option<&String>) -> String {
    nearest.map_or_else(String::new, |nearest| {
        format!(", did you mean `{nearest}`?")
    })
}

fn other_schema(how: Option<&String>) -> String {
    how.map_or_else(String::new, |how| {
        format!(", and with another schema: {how}")
    })
}

fn listed(columns: &[String]) -> String {
    // A wide table must not fill the terminal.
    const MOST: usize = 40;
    let names = columns
        .iter()
        .take(MOST)
        .map(|name| format!("`{name}`"))
        .collect::<Vec<_>>()
        .join(", ");
    if columns.len() > MOST {
        format!("{names} and {} more", columns.len() - MOST)
    } else {
        names
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_is_not_let_into_a_bucket_learns_what_to_look_at() {
        let hint = |answer: &str| {
            let source = object_store::Error::Generic {
                store: "S3",
                source: answer.into(),
            };
            let error = Error::Read {
                table: "s3://b/t".into(),
                file: None,
                source: Box::new(source),
            };
            error.hint().unwrap()
        };
        assert!(hint("GET: 403 Forbidden").contains("AWS_SECRET_ACCESS_KEY"));
        assert!(hint("connection refused").contains("AWS_ENDPOINT_URL"));
    }
}
