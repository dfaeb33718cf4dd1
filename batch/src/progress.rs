//! How far a job is.

use std::sync::Arc;
use std::time::Duration;

use datafusion::physical_plan::ExecutionPlan;

use crate::groups::GroupsExec;
use crate::sink_exec::SinkExec;

/// How far a job is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Progress {
    /// Rows that are written to files which are not visible yet; rows of the input whose group is
    /// done, where there are groups.
    pub rows_done: u64,
    /// Rows of the input, where known without reading it.
    pub rows_total: Option<u64>,
    /// Files that are complete.
    pub files_done: u64,
}

impl Progress {
    /// Reads how far `plan` is from the counters of its sink.
    pub(crate) fn of(plan: &Arc<dyn ExecutionPlan>, rows_total: Option<u64>) -> Self {
        let metrics = plan.metrics().unwrap_or_default();
        let count = |name| {
            metrics
                .sum_by_name(name)
                .map_or(0, |sum| sum.as_usize() as u64)
        };
        let of_groups = GroupsExec::rows_done(plan, None);
        Self {
            rows_done: of_groups.unwrap_or_else(|| count(SinkExec::ROWS)),
            rows_total,
            files_done: count(SinkExec::FILES),
        }
    }
}

/// Ten times a second looks alive and costs nothing.
const PERIOD: Duration = Duration::from_millis(100);

/// Tells `listener` how far `plan` is, again and again; ends only when it is dropped.
pub(crate) async fn report(
    plan: &Arc<dyn ExecutionPlan>,
    rows_total: Option<u64>,
    listener: &(dyn Fn(Progress) + Send + Sync),
) -> std::convert::Infallible {
    let mut ticks = tokio::time::interval(PERIOD);
    loop {
        ticks.tick().await;
        listener(Progress::of(plan, rows_total));
    }
}
