//! Has the plan of a job carried out: in this process, or on a cluster.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use arrow_array::RecordBatch;
use datafusion::error::Result as EngineResult;
use datafusion::execution::TaskContext;
use datafusion::physical_plan::{ExecutionPlan, ExecutionPlanProperties as _};
use futures::TryStreamExt as _;
use tokio::task::JoinSet;

use crate::Error;
use crate::coverage::Written;
use crate::progress::{Progress, report};
use crate::sink_exec::SinkExec;
use crate::workplace::Workplace;

use super::{Decided, Planned};

/// Has the plan carried out where the job is to be done.
pub(super) async fn carry_out(
    planned: &Planned,
    decided: &Decided<'_>,
) -> Result<Vec<Written>, Error> {
    match &decided.workplace {
        Workplace::Here => execute(planned, decided).await,
        #[cfg(feature = "cluster")]
        Workplace::Cluster(cluster) => cluster.execute(planned, decided).await,
    }
}

/// Carries the plan out in this process, as many partitions at once as there are workers.
async fn execute(planned: &Planned, decided: &Decided<'_>) -> Result<Vec<Written>, Error> {
    let Planned { plan, session, .. } = planned;
    let Decided {
        job,
        components,
        source,
        workplace,
        ..
    } = decided;
    let rows_total = source.rows();
    let todo = Arc::new(AtomicUsize::new(0));
    let mut partitions = JoinSet::new();
    for _ in 0..workplace.workers(&job.settings).get() {
        let (plan, context) = (Arc::clone(plan), session.task_ctx());
        partitions.spawn(some_partitions(plan, context, Arc::clone(&todo)));
    }
    let listener = components.progress.as_ref();
    let cancelled = components.cancelled.cancelled();
    finish(partitions, plan, rows_total, listener, cancelled).await
}

/// Tells `listener` how far `partitions` of the plan are until all are done, or it is cancelled; gives what
/// its sink says.
pub(crate) async fn finish(
    mut partitions: JoinSet<EngineResult<Vec<RecordBatch>>>,
    plan: &Arc<dyn ExecutionPlan>,
    rows_total: Option<u64>,
    listener: &(dyn Fn(Progress) + Send + Sync),
    cancelled: impl Future<Output = ()>,
) -> Result<Vec<Written>, Error> {
    let outcome = tokio::select! {
        written = gather(&mut partitions) => written,
        () = cancelled => Err(Error::Cancelled),
        never = report(plan, rows_total, listener) => match never {},
    };
    // What still runs would write files that nobody deletes.
    partitions.shutdown().await;
    listener(Progress::of(plan, rows_total));
    outcome
}

/// Carries out one partition after the other, until there are none left to do.
async fn some_partitions(
    plan: Arc<dyn ExecutionPlan>,
    context: Arc<TaskContext>,
    todo: Arc<AtomicUsize>,
) -> EngineResult<Vec<RecordBatch>> {
    let count = plan.output_partitioning().partition_count();
    let mut given = vec![];
    loop {
        let partition = todo.fetch_add(1, Ordering::Relaxed);
        if partition >= count {
            return Ok(given);
        }
        let rows = plan.execute(partition, Arc::clone(&context))?;
        given.extend(rows.try_collect::<Vec<_>>().await?);
    }
}

async fn gather(
    partitions: &mut JoinSet<EngineResult<Vec<RecordBatch>>>,
) -> Result<Vec<Written>, Error> {
    let mut written = vec![];
    while let Some(partition) = partitions.join_next().await {
        let batches = partition.map_err(panicked)?.map_err(Error::from_engine)?;
        for batch in &batches {
            written.extend(SinkExec::read(batch).map_err(Error::from_engine)?);
        }
    }
    Ok(written)
}

fn panicked(error: tokio::task::JoinError) -> Error {
    let Ok(panic) = error.try_into_panic() else {
        return Error::Cancelled;
    };
    let text = panic.downcast_ref::<String>().map(String::as_str);
    let message = text
        .or_else(|| panic.downcast_ref::<&str>().copied())
        .unwrap_or("no message");
    Error::Panicked {
        message: message.to_owned(),
    }
}
