//! The last look before results become visible: every partition of the table once, every row.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::Error;
use crate::part_file::Part;

/// What the sink says about a partition, when its files are complete.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Written {
    /// Number of the partition in the whole plan.
    pub(crate) partition: u64,
    /// Its files. None, where there was no row.
    pub(crate) parts: Vec<Part>,
    /// Rows of the input that are in them, where one row of theirs may stand for many.
    pub(crate) taken: Option<u64>,
    /// Whether an earlier attempt at the job had finished them.
    pub(crate) reused: bool,
}

/// How many files an earlier attempt at the job had finished.
pub(crate) fn reused(written: &[Written]) -> u64 {
    let reused = written.iter().filter(|one| one.reused);
    reused.map(|one| one.parts.len() as u64).sum()
}

/// How many rows of the input are in the files.
pub(crate) fn rows_taken(written: &[Written]) -> u64 {
    let rows = |one: &Written| one.parts.iter().map(|part| part.rows).sum();
    let taken = written
        .iter()
        .map(|one| one.taken.unwrap_or_else(|| rows(one)));
    taken.sum()
}

/// The files of all partitions, in the order of their names.
///
/// Work that is begun again on another machine, and an executor that comes back from the dead, must
/// neither leave a partition out nor have it twice.
pub(crate) fn parts(written: Vec<Written>, partitions: usize) -> Result<Vec<Part>, Error> {
    let mut done = BTreeSet::new();
    for Written { partition, .. } in &written {
        if !done.insert(*partition) {
            return Err(incomplete(format!("partition {partition} was done twice")));
        }
    }
    let expected = 0..partitions as u64;
    if let Some(missing) = expected.clone().find(|partition| !done.contains(partition)) {
        return Err(incomplete(format!("partition {missing} was not done")));
    }
    if let Some(extra) = done.iter().find(|partition| !expected.contains(partition)) {
        return Err(incomplete(format!("there is no partition {extra}")));
    }
    let mut parts: Vec<Part> = written.into_iter().flat_map(|one| one.parts).collect();
    parts.sort_by(|one, other| one.name.cmp(&other.name));
    Ok(parts)
}

fn incomplete(reason: String) -> Error {
    Error::Incomplete { reason }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(partition: u64, files: &[&str]) -> Written {
        let part = |name: &&str| Part {
            name: (*name).into(),
            values: vec![],
            rows: 1,
            bytes: 1,
            statistics: None,
        };
        Written {
            partition,
            parts: files.iter().map(part).collect(),
            taken: None,
            reused: partition == 1,
        }
    }

    #[test]
    fn a_partition_may_have_some_files_or_none() {
        let all = vec![written(1, &["2", "3"]), written(0, &["1"]), written(2, &[])];
        assert_eq!((reused(&all), rows_taken(&all)), (2, 3));
        let names: Vec<_> = parts(all, 3)
            .unwrap()
            .into_iter()
            .map(|part| part.name)
            .collect();
        assert_eq!(names, ["1", "2", "3"]);
    }

    #[test]
    fn a_row_that_stands_for_many_counts_as_many() {
        let of_groups = Written {
            taken: Some(70),
            ..written(0, &["1"])
        };
        assert_eq!(rows_taken(&[of_groups, written(1, &["2", "3"])]), 72);
    }

    #[test]
    fn a_partition_left_out_done_twice_or_unknown_is_refused() {
        let refused = |all, partitions| parts(all, partitions).unwrap_err().to_string();
        let one = || written(0, &["1"]);
        assert!(refused(vec![one()], 2).ends_with("partition 1 was not done"));
        let twice = vec![one(), written(0, &["2"])];
        assert!(refused(twice, 1).ends_with("partition 0 was done twice"));
        let unknown = vec![one(), written(4, &[])];
        assert!(refused(unknown, 1).ends_with("there is no partition 4"));
    }
}
