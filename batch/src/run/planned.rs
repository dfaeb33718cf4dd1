//! The plan of a job: scan, map, sink.

use std::sync::Arc;

use datafusion::error::Result as EngineResult;
use datafusion::execution::SessionState;
use datafusion::logical_expr::LogicalPlan;
use datafusion::physical_plan::{ExecutionPlan, ExecutionPlanProperties as _};

use crate::Error;
use crate::attempt::Attempt;
use crate::function::Callable;
use crate::groups::{self, GroupsSpec};
use crate::location::store_path;
use crate::plan::{self, Callables, SinkSpec};
use crate::scan::SnapshotTable;
use crate::target::Change;

use super::Decided;

/// A plan in both forms and the session that it was made in.
pub(crate) struct Planned {
    #[cfg(feature = "cluster")]
    pub(crate) logical: LogicalPlan,
    pub(super) plan: Arc<dyn ExecutionPlan>,
    pub(crate) session: SessionState,
}

impl Planned {
    /// How many partitions the table is read in.
    pub(crate) fn partitions(&self) -> usize {
        self.plan.output_partitioning().partition_count()
    }
}

pub(super) async fn plan(decided: &Decided<'_>, attempt: &Attempt) -> Result<Planned, Error> {
    let session = session(decided, attempt).map_err(Error::from_engine)?;
    let mapped = scanned(decided)
        .and_then(|scanned| mapped(decided, scanned))
        .map_err(Error::from_engine)?;
    let sink = sink_spec(decided, attempt)?;
    let sunk = plan::sink(sink, &decided.target.written, mapped).map_err(Error::from_engine)?;
    let plan = session.create_physical_plan(&sunk).await;
    Ok(Planned {
        plan: plan.map_err(|error| decided.of_filter(Error::from_engine(error)))?,
        #[cfg(feature = "cluster")]
        logical: sunk,
        session,
    })
}

/// What finds the functions and the stores that the plan's nodes name.
fn session(decided: &Decided<'_>, attempt: &Attempt) -> EngineResult<SessionState> {
    let Decided {
        job, components, ..
    } = decided;
    let workers = decided.workplace.workers(&job.settings);
    let callables = components.models.iter().map(|model| {
        let callable = Callable::new(Arc::clone(&model.rows), workers);
        (model.rows.digest(), callable)
    });
    let sort_bytes = job.settings.sort_bytes.saturating_mul(workers).get();
    let (files, stores) = (Arc::new(attempt.files()), &components.stores);
    let environment = match decided.is_grouped() {
        true => stores.sorting(files, sort_bytes)?,
        false => stores.environment(files)?,
    };
    let rows = rows_at_a_time(decided);
    let callables = Callables::of(callables);
    Ok(plan::session(callables, environment, decided.cut, rows))
}

/// The rows that are read, with the columns that are needed.
fn scanned(decided: &Decided<'_>) -> EngineResult<LogicalPlan> {
    let table = SnapshotTable::new(Arc::clone(&decided.source));
    let table = match decided.is_grouped() {
        true => table.placed(),
        false => table,
    };
    let columns = decided.columns.scanned.clone();
    plan::scan(table, columns, decided.filter.as_ref())
}

/// The functions applied to the rows of `scanned`, one after the other.
fn mapped(decided: &Decided<'_>, scanned: LogicalPlan) -> EngineResult<LogicalPlan> {
    let Decided {
        job,
        models,
        source,
        columns,
        ..
    } = decided;
    let mut maps = models.iter().zip(&columns.maps);
    maps.try_fold(scanned, |input, (model, map)| {
        let spec = model.spec(&job.settings, &source.name, map);
        if !decided.is_grouped() {
            return plan::map(spec, &map.columns, input);
        }
        let spec = GroupsSpec::new(job, spec, source);
        plan::groups(spec, &map.columns, input)
    })
}

/// How many rows are read at a time: as many as a call has.
fn rows_at_a_time(decided: &Decided<'_>) -> usize {
    if decided.is_grouped() {
        return groups::BATCH_ROWS;
    }
    let settings = &decided.job.settings;
    let models = decided.models.iter();
    let rows = models.map(|model| model.rows_of_a_call(settings)).max();
    rows.unwrap_or(settings.batch_rows.get())
}

fn sink_spec(decided: &Decided<'_>, attempt: &Attempt) -> Result<SinkSpec, Error> {
    let Decided { job, target, .. } = decided;
    let folder = match decided.workplace.is_shared() {
        true => attempt.workshop(),
        false => attempt.folder().to_path_buf(),
    };
    Ok(SinkSpec {
        store: target.location.store_name(),
        folder: store_path(&folder)?.to_string(),
        job: attempt.job().to_owned(),
        splits: splits(attempt)?,
        filter: job.filter.clone(),
        partition_by: target.layout.columns(),
        file_rows: job.settings.file_rows.get(),
        statistics: matches!(target.change, Change::Delta(_)),
    })
}

fn splits(attempt: &Attempt) -> Result<Option<String>, Error> {
    let folder = attempt.splits();
    let folder = folder.map(|folder| store_path(&folder)).transpose()?;
    Ok(folder.map(|folder| folder.to_string()))
}
