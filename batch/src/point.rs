//! The points of a job at which it matters what is on the disk already.
//!
//! Each is an event at the level `TRACE`, so that a test can end the process exactly there.

/// Target of the events.
const TARGET: &str = "batch::point";

/// Nothing but the claim is on the disk.
pub(crate) const CLAIMED: &str = "claimed";
/// The first file of a partition is about to be begun.
pub(crate) const BEFORE_FILE: &str = "before_file";
/// A file is whole, no note names it.
pub(crate) const AFTER_FILE: &str = "after_file";
/// A split is noted.
pub(crate) const AFTER_NOTE: &str = "after_note";
/// A file has the rows of another one that stay when rows are merged.
pub(crate) const REWRITTEN: &str = "rewritten";
/// All files of the results are whole.
pub(crate) const BEFORE_COMMIT: &str = "before_commit";
/// The log of a Delta table has the entry; the answer has not come.
pub(crate) const LOG_WRITTEN: &str = "log_written";
/// A folder of Parquet files has become the table, or a part of it; nobody knows yet.
pub(crate) const RENAMED: &str = "renamed";
/// The results are visible, the notes are still there.
pub(crate) const AFTER_COMMIT: &str = "after_commit";

/// Says that the job is there.
pub(crate) fn reached(point: &'static str) {
    tracing::trace!(target: TARGET, point);
}
