//! The mark that a job with an identity leaves in a folder of Parquet files.
//!
//! It is an empty file whose name says which job it was and how much it wrote.

use super::Finished;
use crate::part_file::Part;

/// What names of marks begin with. Readers skip it; and the file is empty, for those that do not.
const MARK: &str = "_envelope-job-";

/// Name of the mark of the job `id`, which has written `parts`.
pub(super) fn name(id: &str, parts: &[Part]) -> String {
    let rows: u64 = parts.iter().map(|part| part.rows).sum();
    format!("{MARK}{id}-{rows}-{}", parts.len())
}

/// Whether a name is that of a mark.
pub(crate) fn is_mark(name: &str) -> bool {
    name.starts_with(MARK)
}

/// What the mark says, if it is that of the job `id`.
pub(super) fn read(name: &str, id: &str) -> Option<Finished> {
    let counts = name.strip_prefix(MARK)?.strip_prefix(id)?;
    let (rows, files) = counts.strip_prefix('-')?.split_once('-')?;
    Some(Finished {
        rows: rows.parse().ok()?,
        file_count: files.parse().ok()?,
        ..Finished::default()
    })
}
