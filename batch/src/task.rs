//! Which part of a job a plan is carried out for.

use std::sync::Arc;

use datafusion::execution::TaskContext;
use tokio_util::sync::CancellationToken;

/// What the nodes of a plan know about the work they are a part of: an extension of the session's
/// configuration.
///
/// In this process there is none: the plan is whole, and work ends when it is dropped. An executor
/// of a cluster gets a few partitions of the plan, numbered from 0 again, and what it has begun
/// goes on when it is dropped.
#[derive(Debug, Default)]
pub(crate) struct Task {
    /// Numbers in the whole plan of the partitions that are there.
    partitions: Vec<usize>,
    /// Differs between two attempts at the same partition; empty where there is only one.
    pub(crate) attempt: String,
    /// The work is not wanted any more.
    pub(crate) cancelled: CancellationToken,
}

impl Task {
    /// The task that `context` belongs to.
    pub(crate) fn of(context: &TaskContext) -> Arc<Self> {
        let config = context.session_config();
        config.get_extension::<Self>().unwrap_or_default()
    }

    /// The number in the whole plan of a partition that is here.
    pub(crate) fn partition(&self, here: usize) -> usize {
        self.partitions.get(here).copied().unwrap_or(here)
    }
}

#[cfg(feature = "cluster")]
impl Task {
    /// The task with these partitions; `id` is what Ballista calls it:
    /// `TID job/stage.attempt/task.attempt`.
    pub(crate) fn new(partitions: Vec<usize>, id: &str, cancelled: CancellationToken) -> Self {
        let attempt = id.split_once('/').map_or(id, |(_job, attempt)| attempt);
        Self {
            partitions,
            attempt: attempt.replace('/', "-"),
            cancelled,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_a_cluster_partitions_are_their_own() {
        let task = Task::of(&TaskContext::default());
        assert_eq!(task.partition(3), 3);
        assert_eq!(task.attempt, "");
        assert!(!task.cancelled.is_cancelled());
    }

    #[cfg(feature = "cluster")]
    #[test]
    fn an_attempt_has_a_name_that_can_be_in_a_file_name() {
        let task = Task::new(vec![7], "TID 038G6NME/0.1/8.2", CancellationToken::new());
        assert_eq!((task.partition(0), task.attempt.as_str()), (7, "0.1-8.2"));
    }
}
