//! The driver's part of a job on a cluster: submit, follow, collect; or cancel.

use std::collections::HashSet;
use std::convert::Infallible;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use arrow_array::RecordBatch;
use ballista_core::client::BallistaClient;
use ballista_core::error::BallistaError;
use ballista_core::extension::{BallistaConfigGrpcEndpoint, SessionConfigExt as _};
use ballista_core::serde::protobuf::execute_query_params::Query;
use ballista_core::serde::protobuf::job_status::Status;
use ballista_core::serde::protobuf::{ExecuteQueryParams, KeyValuePair, PartitionLocation};
use datafusion::error::{DataFusionError, Result as EngineResult};
use datafusion::execution::SessionState;
use datafusion::logical_expr::LogicalPlan;
use datafusion::prelude::SessionConfig;
use datafusion_proto::logical_plan::AsLogicalPlan as _;
use datafusion_proto::protobuf::LogicalPlanNode;
use futures::TryStreamExt as _;
use serde::Deserialize;
use serde_json::Value;
use uuid::Uuid;

use super::MOST_MESSAGE_BYTES;
use super::client::Cluster;
use super::codec::LogicalCodec;
use super::failure;
use super::tunnel::Tunnels;
use crate::coverage::{self, Written};
use crate::plan::{self, Cut};
use crate::run::{Decided, Planned};
use crate::sink_exec::SinkExec;
use crate::{Error, Progress};

/// How often the scheduler is asked what became of the job, and how far it is.
const ASK_EVERY: Duration = Duration::from_millis(200);
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// So many times in a row it may not know, while it is busy or has only just taken the job.
const MOST_UNKNOWN: u32 = 25;
/// So many executors may be lost in a row where rows go from one round of tasks to another.
const MOST_ANEW: usize = 8;
/// Between the end of a job and that of the last write of its tasks. What they write later than
/// that stays, and nobody reads it.
const QUIET_AFTER: Duration = Duration::from_millis(500);

impl Cluster {
    /// Has the plan carried out, and gives what its sink says. Begins anew where that is the only way on.
    pub(crate) async fn execute(
        &self,
        planned: &Planned,
        decided: &Decided<'_>,
    ) -> Result<Vec<Written>, Error> {
        for _ in 0..MOST_ANEW {
            if let Some(written) = self.attempt(planned, decided).await? {
                return Ok(written);
            }
            tracing::warn!(
                "a cluster has lost an executor between two rounds of tasks: both begin anew"
            );
        }
        Err(self.wrong("loses one executor after the other"))
    }

    /// Carries the plan out once; none where an executor was lost whose rows a later round of tasks reads.
    async fn attempt(
        &self,
        planned: &Planned,
        decided: &Decided<'_>,
    ) -> Result<Option<Vec<Written>>, Error> {
        let Decided {
            components, source, ..
        } = decided;
        let executors = self.executor_ids().await?;
        let name = components.id.simple().to_string();
        let query = query(&planned.logical, settings(&planned.session, &name))?;
        let job = Running::of(self, self.submit(query).await?);
        let total = source.rows();
        let listener = components.progress.as_ref();
        let shape = (decided.rounds(), total);
        let done = tokio::select! {
            done = self.follow(&job.id) => done.map(Some),
            () = self.lost(executors), if decided.rounds() > 1 => Ok(None),
            () = components.cancelled.cancelled() => Err(Error::Cancelled),
            never = self.report(&job.id, shape, listener) => match never {},
        };
        let written = match done {
            Ok(Some(places)) => self.collect(places).await?,
            ended => {
                self.end(&job.id).await;
                job.ended();
                return ended.map(|_| None);
            }
        };
        job.ended();
        listener(progress(&written, total));
        Ok(Some(written))
    }

    /// Waits until one of `executors` is lost. The engine's adaptive planner has the round of tasks done again
    /// whose rows are gone, but does not take note of what they give, and the job would never end.
    async fn lost(&self, mut executors: HashSet<String>) {
        loop {
            tokio::time::sleep(LOOK_EVERY).await;
            // A page that does not come says nothing.
            let Ok(there) = self.executor_ids().await else {
                continue;
            };
            if !executors.is_subset(&there) {
                return;
            }
            executors = there;
        }
    }

    /// Waits until the job is done; gives the places of what it gave.
    async fn follow(&self, job: &str) -> Result<Vec<PartitionLocation>, Error> {
        let mut unknown = 0;
        loop {
            unknown += 1;
            match self.status(job).await {
                Ok(Some(Status::Successful(done))) => return Ok(done.partition_location),
                Ok(Some(Status::Failed(failed))) => return Err(failure::received(&failed.error)),
                Ok(Some(Status::Queued(_) | Status::Running(_))) => unknown = 0,
                Ok(None) if unknown > MOST_UNKNOWN => {
                    return Err(self.wrong("does not know the job any more"));
                }
                Err(error) if unknown > MOST_UNKNOWN => return Err(error),
                Ok(None) | Err(_) => {}
            }
            tokio::time::sleep(ASK_EVERY).await;
        }
    }

    /// Tells `listener` how far the job is, again and again. Rows count when their partition is done, in each
    /// round of tasks.
    async fn report(
        &self,
        job: &str,
        (rounds, rows_total): (usize, Option<u64>),
        listener: &(dyn Fn(Progress) + Send + Sync),
    ) -> Infallible {
        let mut ticks = tokio::time::interval(LOOK_EVERY);
        let page = format!("/api/job/{job}/stages");
        loop {
            ticks.tick().await;
            // A page that does not come is no reason to end the job.
            let stages: Stages = self.page(&page).await.unwrap_or_default();
            let (rows_done, files_done) = stages.done(rounds);
            listener(Progress {
                rows_done,
                rows_total,
                files_done,
            });
        }
    }

    /// Gets the rows of the sink from the executors that have them.
    async fn collect(&self, places: Vec<PartitionLocation>) -> Result<Vec<Written>, Error> {
        let mut written = vec![];
        for place in places {
            let batches = self.fetched(place).await;
            let batches = batches
                .map_err(|error| self.wrong(format_args!("has lost the results: {error}")))?;
            for batch in &batches {
                written.extend(SinkExec::read(batch).map_err(Error::from_engine)?);
            }
        }
        Ok(written)
    }

    async fn fetched(&self, place: PartitionLocation) -> EngineResult<Vec<RecordBatch>> {
        let lost = |what: &str| DataFusionError::Execution(format!("no {what} of a partition"));
        let layout = place.layout();
        let executor = place.executor_meta.ok_or_else(|| lost("executor"))?;
        let partition = place.partition_id.ok_or_else(|| lost("number"))?;
        let port = u16::try_from(executor.port).map_err(|_| lost("port"))?;
        let way = self.tunnels.as_ref().map(Tunnels::by_address);
        let way = way.map(|way| Arc::new(BallistaConfigGrpcEndpoint::new(way)));
        let (host, most) = (&executor.host, MOST_MESSAGE_BYTES as usize);
        let mut client = BallistaClient::try_new(host, port, most, false, way, 3, 500, 0, 0)
            .await
            .map_err(BallistaError::into_datafusion)?;
        let rows = client
            .fetch_partition(&executor.id, &partition.into(), place.file_id, layout, true)
            .await
            .map_err(BallistaError::into_datafusion)?;
        rows.try_collect().await
    }

    /// Ends the tasks of a job that is not wanted. The scheduler itself ends those of one that failed.
    async fn end(&self, job: &str) {
        let has_failed = matches!(self.status(job).await, Ok(Some(Status::Failed(_))));
        if !has_failed && let Err(error) = self.cancel(job).await {
            tracing::warn!(%error, job, "tasks of a job that has ended may go on");
        }
        tokio::time::sleep(QUIET_AFTER).await;
    }
}

/// A job that is cancelled when nobody waits for it any more.
struct Running<'c> {
    cluster: &'c Cluster,
    id: String,
    ended: bool,
}

impl<'c> Running<'c> {
    fn of(cluster: &'c Cluster, id: String) -> Self {
        Self {
            cluster,
            id,
            ended: false,
        }
    }

    fn ended(mut self) {
        self.ended = true;
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        if self.ended {
            return;
        }
        let (cluster, id) = (self.cluster.clone(), std::mem::take(&mut self.id));
        if let Ok(executor) = tokio::runtime::Handle::try_current() {
            executor.spawn(async move { cluster.end(&id).await });
        }
    }
}

fn query(plan: &LogicalPlan, settings: Vec<KeyValuePair>) -> Result<ExecuteQueryParams, Error> {
    let mut bytes = vec![];
    LogicalPlanNode::try_from_logical_plan(plan, &LogicalCodec::default())
        .and_then(|node| node.try_encode(&mut bytes))
        .map_err(Error::from_engine)?;
    Ok(ExecuteQueryParams {
        session_id: Uuid::new_v4().to_string(),
        operation_id: Uuid::new_v4().to_string(),
        settings,
        query: Some(Query::LogicalPlan(bytes)),
    })
}

/// The session that the scheduler plans in: shares the table out as the driver's own does.
fn settings(session: &SessionState, name: &str) -> Vec<KeyValuePair> {
    let ours = session.config();
    let cut = Cut {
        count: NonZeroUsize::new(ours.target_partitions()).unwrap_or(NonZeroUsize::MIN),
        fixed: true,
    };
    let config = plan::cut_up(SessionConfig::new_with_ballista(), cut, ours.batch_size())
        .with_ballista_job_name(name)
        // The other planner forgets that results went with an executor.
        .set_bool("ballista.planner.adaptive.enabled", true)
        // The sink has as many partitions as the driver's plan, whatever rows come to them.
        .set_bool("ballista.planner.coalesce.enabled", false)
        .set_bool("ballista.planner.propagate_empty.enabled", false)
        // One partition for each task: less is done again when one is lost.
        .set_u64("ballista.scheduler.max_partitions_per_task", 1);
    let entries = config.options().entries().into_iter();
    let pair = |entry: datafusion::config::ConfigEntry| KeyValuePair {
        key: entry.key,
        value: entry.value,
    };
    entries.map(pair).collect()
}

/// The scheduler's page about the stages of a job, as far as it matters here.
#[derive(Debug, Default, Deserialize)]
struct Stages {
    stages: Vec<Stage>,
}

#[derive(Debug, Deserialize)]
struct Stage {
    stage_id: String,
    tasks: Vec<Option<TaskSeen>>,
}

#[derive(Debug, Deserialize)]
struct TaskSeen {
    /// Text, or an object where there is more to say.
    status: Value,
    input_rows: u64,
    output_rows: u64,
}

impl Stages {
    /// Rows of the table and files of the output that are done. All rows pass through each of the rounds, and
    /// the last one gives files.
    fn done(&self, rounds: usize) -> (u64, u64) {
        let mut stages: Vec<&Stage> = self.stages.iter().collect();
        stages.sort_by_key(|stage| stage.stage_id.parse().unwrap_or(usize::MAX));
        let rows: u64 = stages
            .iter()
            .map(|stage| stage.sum(|task| task.input_rows))
            .sum();
        let last = stages.iter().skip(rounds - 1);
        let files = last.map(|stage| stage.sum(|task| task.output_rows)).sum();
        (rows / rounds as u64, files)
    }
}

impl Stage {
    /// Over tasks that are done.
    fn sum(&self, count: impl Fn(&TaskSeen) -> u64) -> u64 {
        let tasks = self.tasks.iter().flatten();
        let done = tasks.filter(|task| task.status == "Successful");
        done.map(count).sum()
    }
}

fn progress(written: &[Written], rows_total: Option<u64>) -> Progress {
    let parts = written.iter().flat_map(|one| &one.parts);
    Progress {
        rows_done: coverage::rows_taken(written),
        rows_total,
        files_done: parts.count() as u64,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_count_when_their_task_is_done() {
        let page = r#"{"stages": [{"stage_id": "1", "tasks": [
            {"status": "Successful", "input_rows": 70, "output_rows": 2},
            {"status": "Running", "input_rows": 5, "output_rows": 0},
            null,
            {"status": {"Failed": {"reason": "ResultLost", "error": ""}}, "input_rows": 70, "output_rows": 2},
            {"status": "Successful", "input_rows": 30, "output_rows": 1}]}]}"#;
        let stages: Stages = serde_json::from_str(page).unwrap();
        assert_eq!(stages.done(1), (100, 3));
    }

    #[test]
    fn rows_that_pass_through_two_rounds_count_half_in_each() {
        let page = r#"{"stages": [
            {"stage_id": "10", "tasks": [{"status": "Successful", "input_rows": 20, "output_rows": 1}]},
            {"stage_id": "9", "tasks": [{"status": "Successful", "input_rows": 80, "output_rows": 80}]}]}"#;
        let stages: Stages = serde_json::from_str(page).unwrap();
        assert_eq!(stages.done(2), (50, 1));
    }
}
