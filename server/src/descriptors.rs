//! File descriptors: each connection takes one, and a process has only so many.

use rustix::process::{Resource, getrlimit, setrlimit};

/// What everything but connections needs: workers, logs, envelopes, and something over.
const OTHERS: u64 = 256;

/// Allows this process as many descriptors as it may have. How many of `connections` fit, with so
/// many `extra` ones.
pub(crate) fn allow(connections: usize, extra: usize) -> usize {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    if let Err(error) = setrlimit(Resource::Nofile, limit) {
        tracing::debug!(%error, "the limit on file descriptors stays as it is");
    }
    let Some(most) = getrlimit(Resource::Nofile).current else {
        return connections;
    };
    let fitting = fitting(most, extra);
    if fitting < connections {
        tracing::warn!(
            "this process may have {most} file descriptors: {fitting} connections at once instead of {connections}"
        );
    }
    connections.min(fitting)
}

fn fitting(descriptors: u64, extra: usize) -> usize {
    let left = descriptors.saturating_sub(OTHERS);
    let left = usize::try_from(left).unwrap_or(usize::MAX);
    left.saturating_sub(extra).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn something_is_kept_for_everything_else() {
        assert_eq!(fitting(1024, 64), 704);
        assert_eq!(fitting(100, 64), 1);
    }
}
