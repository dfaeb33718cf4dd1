//! The last look before results become visible: every partition of the table once, every row.

use std::collections::BTreeMap;

use crate::Error;
use crate::part_file::Part;

/// What the sink says about a partition: one for each file, or one without a file where there was
/// no row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Written {
    /// Number of the partition in the whole plan.
    pub(crate) partition: u64,
    /// Which attempt at the partition it was.
    pub(crate) attempt: String,
    /// The file.
    pub(crate) part: Option<Part>,
}

/// The files of all partitions, in the order of their names.
///
/// Work that is begun again on another machine, and an executor that comes back from the dead, must
/// neither leave a partition out nor have it twice.
pub(crate) fn parts(written: Vec<Written>, partitions: usize) -> Result<Vec<Part>, Error> {
    let mut attempts: BTreeMap<u64, &str> = BTreeMap::new();
    for Written {
        partition, attempt, ..
    } in &written
    {
        let first = attempts.entry(*partition).or_insert(attempt);
        if *first != attempt {
            return Err(incomplete(format!("partition {partition} was done twice")));
        }
    }
    let expected = 0..partitions as u64;
    if let Some(missing) = expected
        .clone()
        .find(|partition| !attempts.contains_key(partition))
    {
        return Err(incomplete(format!("partition {missing} was not done")));
    }
    if let Some(extra) = attempts
        .keys()
        .find(|partition| !expected.contains(partition))
    {
        return Err(incomplete(format!("there is no partition {extra}")));
    }
    let mut parts: Vec<Part> = written.into_iter().filter_map(|one| one.part).collect();
    parts.sort_by(|one, other| one.name.cmp(&other.name));
    Ok(parts)
}

fn incomplete(reason: String) -> Error {
    Error::Incomplete { reason }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(partition: u64, attempt: &str, file: Option<&str>) -> Written {
        Written {
            partition,
            attempt: attempt.into(),
            part: file.map(|name| Part {
                name: name.into(),
                rows: 1,
                bytes: 1,
                statistics: None,
            }),
        }
    }

    #[test]
    fn a_partition_may_have_some_files_or_none() {
        let all = vec![
            written(1, "b", Some("2")),
            written(0, "a", Some("1")),
            written(1, "b", Some("3")),
            written(2, "c", None),
        ];
        let names: Vec<_> = parts(all, 3)
            .unwrap()
            .into_iter()
            .map(|part| part.name)
            .collect();
        assert_eq!(names, ["1", "2", "3"]);
    }

    #[test]
    fn a_partition_left_out_done_twice_or_unknown_is_refused() {
        let refused = |all, partitions| parts(all, partitions).unwrap_err().to_string();
        let one = || written(0, "a", Some("1"));
        assert!(refused(vec![one()], 2).ends_with("partition 1 was not done"));
        let twice = vec![one(), written(0, "b", Some("2"))];
        assert!(refused(twice, 1).ends_with("partition 0 was done twice"));
        let unknown = vec![one(), written(4, "a", None)];
        assert!(refused(unknown, 1).ends_with("there is no partition 4"));
    }
}
