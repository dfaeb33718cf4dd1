//! The job path.

use std::fmt;
use std::sync::Arc;

use arrow_array::RecordBatch;
use datafusion::error::Result as EngineResult;
use datafusion::execution::SessionState;
use datafusion::logical_expr::LogicalPlan;
use datafusion::physical_plan::{
    ExecutionPlan, ExecutionPlanProperties as _, execute_stream_partitioned,
};
use envelope_format::Function;
use futures::TryStreamExt as _;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::attempt::Attempt;
use crate::blame::located;
use crate::commit::{Facts, commit};
use crate::coverage::{self, Written};
use crate::filter::Filter;
use crate::function::{Callable, check_row_wise, rows_of_a_call};
use crate::location::store_path;
use crate::part_file::Part;
use crate::plan::{self, MapSpec, SinkSpec};
use crate::progress::{Progress, report};
use crate::schema::Columns;
use crate::sink_exec::SinkExec;
use crate::source::{Reading, Source};
use crate::target::{Change, Target};
use crate::workplace::Workplace;
use crate::{Error, Job, MapRows};

/// What does the work of a job.
#[derive(Clone)]
pub struct Components {
    /// Runs the functions of the envelope.
    pub rows: Arc<dyn MapRows>,
    /// Identity of the job: in the names of its files and in the log. No two jobs have the same.
    pub id: Uuid,
    /// Is told how far the job is, some times a second.
    pub progress: Arc<dyn Fn(Progress) + Send + Sync>,
    /// Ends the job early.
    pub cancelled: CancellationToken,
}

impl fmt::Debug for Components {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Components")
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}

/// What a job has done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Summary {
    /// Rows that were read, mapped and written.
    pub rows: u64,
    /// Files that were written.
    pub files: u64,
    /// Version of the Delta table that has the results.
    pub version: Option<i64>,
}

impl Summary {
    fn of(parts: &[Part], version: Option<i64>) -> Self {
        let rows = parts.iter().map(|part| part.rows).sum();
        Self {
            rows,
            files: parts.len() as u64,
            version,
        }
    }
}

/// Applies a query function to every row of a table.
///
/// All that can be refused is refused before any work. The results become visible all at once; a
/// job that fails, is cancelled or whose future is dropped leaves nothing behind.
///
/// ```no_run
/// # use std::sync::Arc; use batch::{Components, Job};
/// # async fn example(runtime: runtime::Runtime) -> Result<(), batch::Error> {
/// let mut job = Job::new("warehouse/clients", "warehouse/predictions");
/// job.keep = vec!["client_id".into()];
/// let components = Components {
///     rows: Arc::new(runtime),
///     id: uuid::Uuid::new_v4(),
///     progress: Arc::new(|progress| eprintln!("{} rows", progress.rows_done)),
///     cancelled: tokio_util::sync::CancellationToken::new(),
/// };
/// let summary = batch::run(&job, &components).await?;
/// println!("{} rows in version {:?}", summary.rows, summary.version);
/// # Ok(()) }
/// ```
///
/// # Errors
/// See [`Error`].
pub async fn run(job: &Job, components: &Components) -> Result<Summary, Error> {
    let function = splittable(job, components)?;
    let workplace = Workplace::find(job).await?;
    let (source, filter) = read(job, function).await?;
    let columns = Columns::decide(&source, &function.signature, &job.keep)?;
    let target = Target::check(job, &columns.mapped).await?;
    let decided = Decided {
        job,
        components,
        function,
        source,
        filter,
        columns,
        target,
        workplace,
    };

    let attempt = Attempt::begin(&decided.target, components.id)?;
    let planned = plan(&decided, &attempt).await?;
    let written = match carry_out(&planned, &decided).await {
        Ok(written) => written,
        Err(error) => return Err(decided.located(error).await),
    };
    let parts = coverage::parts(written, planned.partitions())?;
    check_complete(&decided.source, &parts)?;
    let version = commit(&decided.target, attempt, &parts, facts(&decided)).await?;
    Ok(Summary::of(&parts, version))
}

/// Everything about a job that is settled before any work.
pub(crate) struct Decided<'j> {
    job: &'j Job,
    pub(crate) components: &'j Components,
    function: &'j Function,
    pub(crate) source: Arc<Source>,
    filter: Option<Filter>,
    columns: Columns,
    target: Target,
    workplace: Workplace,
}

impl Decided<'_> {
    /// The error with the place in the input that it comes from, if it can be found.
    async fn located(&self, error: Error) -> Error {
        located(error, &self.source, &self.columns.scanned).await
    }
}

/// The table as it is read, and which of its rows are.
async fn read(job: &Job, function: &Function) -> Result<(Arc<Source>, Option<Filter>), Error> {
    let reading = Reading {
        as_of: job.as_of,
        types: runtime::arrow_schema(&function.signature.input),
    };
    let source = Source::read(&job.input()?, &reading).await?;
    let Some(filter) = &job.filter else {
        return Ok((Arc::new(source), None));
    };
    let filter = Filter::parse(filter, &source)?;
    Ok((Arc::new(source.filtered(&filter)), Some(filter)))
}

/// The function, if a table may be split for it.
fn splittable<'j>(job: &Job, components: &'j Components) -> Result<&'j Function, Error> {
    let manifest = components.rows.manifest();
    let function = manifest
        .function(job.function.as_deref())
        .map_err(Error::NoSuchFunction)?;
    check_row_wise(function)?;
    Ok(function)
}

/// A plan in both forms and the session that it was made in.
pub(crate) struct Planned {
    pub(crate) logical: LogicalPlan,
    plan: Arc<dyn ExecutionPlan>,
    pub(crate) session: SessionState,
}

impl Planned {
    /// How many partitions the table is read in.
    pub(crate) fn partitions(&self) -> usize {
        self.plan.output_partitioning().partition_count()
    }
}

async fn plan(decided: &Decided<'_>, attempt: &Attempt) -> Result<Planned, Error> {
    let Decided {
        job,
        components,
        function,
        source,
        filter,
        columns,
        target,
        workplace,
    } = decided;
    let settings = &job.settings;
    let tile = function.certificate.tile;
    let batch_rows = rows_of_a_call(settings.batch_rows, tile);
    let map = MapSpec {
        digest: components.rows.digest(),
        function: function.name.clone(),
        signature: function.signature.clone(),
        tile,
        keep: job.keep.clone(),
        batch_rows,
        call_deadline: settings.call_deadline,
        table: source.name.clone(),
    };
    let sink = SinkSpec {
        folder: store_path(attempt.folder())?.to_string(),
        job: attempt.job().to_owned(),
        file_rows: settings.file_rows.get(),
        statistics: matches!(target.change, Change::Delta(_)),
    };
    let partitions = workplace.partitions(settings);
    let callable = Callable::new(Arc::clone(&components.rows), partitions);
    let envelope = (components.rows.digest(), callable);
    let session = plan::session(envelope, Arc::new(attempt.store()), partitions, batch_rows);
    let input = plan::scan(Arc::clone(source), columns.scanned.clone(), filter.as_ref())
        .map_err(Error::from_engine)?;
    let mapped = plan::map(map, &columns.mapped, input).map_err(Error::from_engine)?;
    let sunk = plan::sink(sink, &target.written, mapped).map_err(Error::from_engine)?;
    let plan = session
        .create_physical_plan(&sunk)
        .await
        .map_err(Error::from_engine)?;
    Ok(Planned {
        logical: sunk,
        plan,
        session,
    })
}

/// Has the plan carried out where the job is to be done.
async fn carry_out(planned: &Planned, decided: &Decided<'_>) -> Result<Vec<Written>, Error> {
    match &decided.workplace {
        Workplace::Here => execute(planned, decided).await,
        #[cfg(feature = "cluster")]
        Workplace::Cluster(cluster) => cluster.execute(planned, decided).await,
    }
}

/// Carries the plan out in this process, all partitions at once.
async fn execute(planned: &Planned, decided: &Decided<'_>) -> Result<Vec<Written>, Error> {
    let Planned { plan, session, .. } = planned;
    let Decided {
        components, source, ..
    } = decided;
    let rows_total = source.rows();
    let streams = execute_stream_partitioned(Arc::clone(plan), session.task_ctx())
        .map_err(Error::from_engine)?;
    let mut partitions = JoinSet::new();
    for stream in streams {
        partitions.spawn(stream.try_collect::<Vec<_>>());
    }
    let listener = components.progress.as_ref();
    let outcome = tokio::select! {
        written = gather(&mut partitions) => written,
        () = components.cancelled.cancelled() => Err(Error::Cancelled),
        never = report(plan, rows_total, listener) => match never {},
    };
    // What still runs would write files that nobody deletes.
    partitions.shutdown().await;
    listener(Progress::of(plan, rows_total));
    outcome
}

async fn gather(
    partitions: &mut JoinSet<EngineResult<Vec<RecordBatch>>>,
) -> Result<Vec<Written>, Error> {
    let mut written = vec![];
    while let Some(partition) = partitions.join_next().await {
        let batches = partition.map_err(panicked)?.map_err(Error::from_engine)?;
        written.extend(batches.iter().flat_map(SinkExec::read));
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

/// The last look before results become visible: as many rows out as the table says it has.
fn check_complete(source: &Source, parts: &[Part]) -> Result<(), Error> {
    let written: u64 = parts.iter().map(|part| part.rows).sum();
    match source.rows() {
        Some(expected) if expected != written => Err(Error::Read {
            table: source.name.clone(),
            file: None,
            source: format!("it says that it has {expected} rows, but {written} were read").into(),
        }),
        _ => Ok(()),
    }
}

/// What the log of a Delta table keeps about the job.
fn facts(decided: &Decided<'_>) -> Facts {
    let Decided {
        components,
        function,
        source,
        ..
    } = decided;
    let mut facts = Facts::from([
        (
            "envelopeDigest".into(),
            components.rows.digest().to_string().into(),
        ),
        ("queryFunction".into(), function.name.clone().into()),
        ("jobId".into(), components.id.simple().to_string().into()),
        ("inputTable".into(), source.name.clone().into()),
    ]);
    if let Some(version) = source.version {
        facts.insert("inputVersion".into(), version.into());
    }
    if let Some(filter) = &decided.filter {
        facts.insert("inputFilter".into(), filter.text.clone().into());
    }
    facts
}

#[cfg(test)]
mod tests;
