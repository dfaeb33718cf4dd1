//! What is to be done.

use std::num::{NonZeroU64, NonZeroUsize};
use std::time::Duration;

use crate::{AsOf, Identity};

/// One application of query functions to a table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Job {
    /// Folder of the tables that are given as `database.table`: path, `file://` or `s3://` URL. Without
    /// one, all tables are given by path.
    pub warehouse: Option<String>,
    /// The table that is read: name, path, `file://` or `s3://` URL of a Delta table, of a folder with Parquet, CSV,
    /// JSON lines or Arrow files, or of one such file.
    pub input: String,
    /// Which snapshot of the input is read; the latest when absent.
    pub as_of: Option<AsOf>,
    /// Which rows of the input are read: an SQL condition on its columns; all when absent.
    pub filter: Option<String>,
    /// The table that is written: name, path, `file://` or `s3://` URL of a folder.
    pub output: String,
    /// Columns of the input that the output has too, before the columns that the functions give.
    pub keep: Vec<String>,
    /// Columns of the input: the function is called once for all rows that have the same values in these
    /// (a missing value is one), and the output has them, first. When empty, a call gets any rows.
    pub group_by: Vec<String>,
    /// What happens when the output exists.
    pub mode: Mode,
    /// How the output is kept.
    pub format: Format,
    /// Columns of the output that are in the names of its folders, outermost first. Those of the table
    /// that is there when empty.
    pub partition_by: Vec<String>,
    /// Makes runs of this job one: its results are in the output once, however often it is run. Without
    /// one, each run is a job of its own.
    pub identity: Option<Identity>,
    /// How the work is done.
    pub settings: Settings,
}

impl Job {
    /// Applies functions to the table `input`; writes a new Delta table `output`.
    #[must_use]
    pub fn new(input: impl Into<String>, output: impl Into<String>) -> Self {
        Self {
            warehouse: None,
            input: input.into(),
            as_of: None,
            filter: None,
            output: output.into(),
            keep: vec![],
            group_by: vec![],
            mode: Mode::default(),
            format: Format::default(),
            partition_by: vec![],
            identity: None,
            settings: Settings::default(),
        }
    }
}

/// What happens when the output exists.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub enum Mode {
    /// The job is refused before any work.
    #[default]
    Error,
    /// Rows are added to those there are.
    Append,
    /// Rows take the place of those there are.
    Overwrite,
    /// Rows take the place of those in the partitions that they are in. Other partitions stay.
    OverwritePartitions,
    /// Each row takes the place of those with the same values in these columns, or is added. Two rows
    /// of the results with the same values are refused.
    MergeOn(Vec<String>),
}

/// How a table is kept.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum Format {
    /// Parquet files and a transaction log.
    #[default]
    Delta,
    /// Parquet files.
    Parquet,
}

/// Where a cluster is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClusterAt {
    /// Its scheduler, as `df://HOST:PORT`.
    pub scheduler: String,
    /// What lets this program in. Without, the cluster is on this machine.
    #[cfg(feature = "cluster")]
    pub credentials: Option<crate::Credentials>,
}

/// What an operator may set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Rows of one call. Rounded down to whole tiles where the envelope asks for tiles.
    pub batch_rows: NonZeroUsize,
    /// The cluster that does the work; this process when absent.
    pub cluster: Option<ClusterAt>,
    /// How many parts of the table are worked on at once; one for each core when absent. On a
    /// cluster, into how many parts the table is shared out; four for each slot when absent.
    pub partitions: Option<NonZeroUsize>,
    /// Time that one call of [`batch_rows`](Self::batch_rows) rows may take.
    pub call_deadline: Duration,
    /// Memory for the rows of a group: more in one group are refused. So many groups are in memory at once as
    /// there are two for each worker.
    pub max_group_bytes: NonZeroUsize,
    /// Memory for sorting rows into groups, for each worker; what does not fit is written to temporary
    /// files. On a cluster executors have [their own](Self::SORT_BYTES).
    pub sort_bytes: NonZeroUsize,
    /// Rows after which a file is closed and the next one begun.
    pub file_rows: NonZeroUsize,
    /// How much of the input, in bytes, an attempt at a job with an identity does over again at most for
    /// each worker when the attempt before has died.
    pub split_bytes: NonZeroU64,
}

impl Settings {
    /// What [`sort_bytes`](Self::sort_bytes) usually is, and always on an executor for each of its tasks.
    pub const SORT_BYTES: NonZeroUsize = NonZeroUsize::MIN.saturating_add((256 << 20) - 1);

    /// How many parts of a table this process works on at once: as many as it has workers.
    #[must_use]
    pub fn workers(&self) -> NonZeroUsize {
        let cores = || std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN);
        self.partitions.unwrap_or_else(cores)
    }
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            // Large enough that the fixed cost of a call (some 100 µs) vanishes, small enough that
            // a few batches of a wide table fit in memory for each worker.
            batch_rows: NonZeroUsize::MIN.saturating_add(65_536 - 1),
            cluster: None,
            partitions: None,
            call_deadline: Duration::from_secs(600),
            // Some million rows; what a function makes of them takes a few times as much in its worker.
            max_group_bytes: NonZeroUsize::MIN.saturating_add((512 << 20) - 1),
            sort_bytes: Self::SORT_BYTES,
            // A few ten MB of a usual table: few enough files for a listing, enough of them for
            // the next reader to share out among its cores.
            file_rows: NonZeroUsize::MIN.saturating_add((1 << 20) - 1),
            // Some seconds of a usual function's work, and few enough files of a good length.
            split_bytes: NonZeroU64::MIN.saturating_add((64 << 20) - 1),
        }
    }
}
