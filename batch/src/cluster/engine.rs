//! How an executor carries a task out: ends it when nobody wants it, and says what went wrong.
//!
//! Ballista drops the future of a task that is cancelled, but what that future has begun goes on by
//! itself. So each task has a token, which its nodes look at and which is cancelled when the future
//! is dropped.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use ballista_core::JobId;
use ballista_core::serde::protobuf::{
    RuntimeStatsReport, ShuffleWritePartition, TaskColumnStats, WindowStateReport,
};
use ballista_executor::execution_engine::{
    DefaultExecutionEngine, ExecutionEngine, QueryStageExecutor,
};
use datafusion::error::Result;
use datafusion::execution::TaskContext;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::metrics::MetricsSet;
use datafusion::prelude::SessionConfig;
use tokio_util::sync::CancellationToken;

use super::failure;
use crate::task::Task;

/// Carries tasks out until `stopped`.
pub(super) struct Engine {
    inner: DefaultExecutionEngine,
    stopped: CancellationToken,
}

impl Engine {
    pub(super) fn new(stopped: CancellationToken) -> Self {
        Self {
            inner: DefaultExecutionEngine::new(),
            stopped,
        }
    }
}

impl ExecutionEngine for Engine {
    fn create_query_stage_exec(
        &self,
        job: JobId,
        stage: usize,
        task: usize,
        partitions: Vec<usize>,
        plan: Arc<dyn ExecutionPlan>,
        work_folder: &str,
        config: &SessionConfig,
    ) -> Result<Arc<dyn QueryStageExecutor>> {
        let inner = self.inner.create_query_stage_exec(
            job,
            stage,
            task,
            partitions.clone(),
            plan,
            work_folder,
            config,
        )?;
        Ok(Arc::new(Stage {
            inner,
            partitions,
            stopped: self.stopped.clone(),
        }))
    }
}

/// The task as Ballista sees it.
#[derive(Debug)]
struct Stage {
    inner: Arc<dyn QueryStageExecutor>,
    partitions: Vec<usize>,
    stopped: CancellationToken,
}

impl fmt::Display for Stage {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.fmt(formatter)
    }
}

#[async_trait]
impl QueryStageExecutor for Stage {
    async fn execute_query_stage(
        &self,
        task: usize,
        context: Arc<TaskContext>,
    ) -> Result<Vec<ShuffleWritePartition>> {
        let cancelled = self.stopped.child_token();
        let _unless_done = cancelled.clone().drop_guard();
        let id = context.task_id().unwrap_or_default();
        let known = Task::new(self.partitions.clone(), &id, cancelled);
        let context = Arc::new(with_task(&context, known));
        let done = self.inner.execute_query_stage(task, context).await;
        done.map_err(|error| failure::sent(&error))
    }

    fn collect_plan_metrics(&self) -> Vec<MetricsSet> {
        self.inner.collect_plan_metrics()
    }

    fn collect_runtime_stats_reports(&self) -> Vec<RuntimeStatsReport> {
        self.inner.collect_runtime_stats_reports()
    }

    fn collect_window_state_reports(&self) -> Result<Vec<WindowStateReport>> {
        self.inner.collect_window_state_reports()
    }

    fn collect_column_stats(&self) -> Vec<TaskColumnStats> {
        self.inner.collect_column_stats()
    }
}

/// The same context, in which nodes find their task.
fn with_task(context: &TaskContext, task: Task) -> TaskContext {
    let config = context.session_config().clone();
    TaskContext::new(
        context.task_id(),
        context.session_id(),
        config.with_extension(Arc::new(task)),
        context.scalar_functions().clone(),
        context.higher_order_functions().clone(),
        context.aggregate_functions().clone(),
        context.window_functions().clone(),
        context.runtime_env(),
    )
}
