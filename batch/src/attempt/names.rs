//! Names of the files of jobs.

/// Name of a file.
pub(crate) fn file_name(partition: usize, position: usize, job: &str) -> String {
    format!("part-{partition:05}-{position:05}-{job}.parquet")
}

/// The job that a file is of, by its name; none if it is not a file of ours. Files that are not whole
/// have names that begin with a dot.
pub(crate) fn job_of(name: &str) -> Option<&str> {
    const LENGTH: usize = 32;
    let name = name.strip_prefix('.').unwrap_or(name);
    let (partition, rest) = name.strip_prefix("part-")?.split_once('-')?;
    let (position, job) = rest.split_once('-')?;
    let numbers = [partition, position]
        .map(|part| part.len() >= 5 && part.bytes().all(|letter| letter.is_ascii_digit()));
    let id = job.get(..LENGTH)?;
    let is_id = id.bytes().all(|letter| letter.is_ascii_hexdigit());
    (numbers == [true, true] && is_id && name.contains(".parquet")).then_some(id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_of_ours_tell_a_job() {
        let id = "0123456789abcdef0123456789abcdef";
        let whole = file_name(3, 100_000, &format!("{id}-0123456789ab"));
        assert_eq!(job_of(&whole), Some(id));
        assert_eq!(job_of(&file_name(0, 0, id)), Some(id));
        assert_eq!(job_of(&format!(".{whole}.77-1")), Some(id));
        for other in [
            "part-00000-4d0e6c2c-5f0e-4a0e-9c3e-3f6a5a0e3b1d-c000.snappy.parquet",
            "part-00000-00000-0123.parquet",
            "data.parquet",
            "_delta_log",
        ] {
            assert_eq!(job_of(other), None, "{other}");
        }
    }
}
