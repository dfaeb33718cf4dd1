//! The job path.

use std::fmt;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use arrow_array::RecordBatch;
use datafusion::error::Result as EngineResult;
use datafusion::execution::{SessionState, TaskContext};
use datafusion::logical_expr::LogicalPlan;
use datafusion::physical_plan::{ExecutionPlan, ExecutionPlanProperties as _};
use futures::TryStreamExt as _;
use futures::future::BoxFuture;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::attempt::{Attempt, tidy};
use crate::blame::located;
use crate::claim::Record;
use crate::commit::{Facts, Finished, Outcome, commit, finished};
use crate::coverage::{self, Written};
use crate::filter::Filter;
use crate::function::Callable;
use crate::groups::{self, GroupsSpec};
use crate::hold::Hold;
use crate::identity::Key;
use crate::location::store_path;
use crate::model::{Splittable, asked, digests, splittable, types};
use crate::part_file::Part;
use crate::plan::{self, Callables, Cut, SinkSpec};
use crate::point;
use crate::progress::{Progress, report};
use crate::scan::SnapshotTable;
use crate::schema::Columns;
use crate::sink_exec::SinkExec;
use crate::source::{Reading, Source};
use crate::target::{Change, Target};
use crate::workplace::Workplace;
use crate::{AsOf, Error, Identity, Job, Model, Stores};

/// What does the work of a job.
#[derive(Clone)]
pub struct Components {
    /// The functions that are applied to each row: their results stand side by side.
    pub models: Vec<Model>,
    /// Identity of the job: in the names of its files and in the log. No two jobs have the same.
    pub id: Uuid,
    /// Is told how far the job is, some times a second.
    pub progress: Arc<dyn Fn(Progress) + Send + Sync>,
    /// Opens the stores that tables are in.
    pub stores: Stores,
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
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Summary {
    /// Rows that were written.
    pub rows: u64,
    /// Files that were written.
    pub files: u64,
    /// Files among them that an earlier attempt at the same job had finished.
    pub files_reused: u64,
    /// Version of the Delta table that has the results, as far as its log still tells.
    pub version: Option<i64>,
    /// Whether an earlier run of the same job had done all this, so that nothing was changed.
    pub already_done: bool,
}

impl Summary {
    pub(crate) fn of(parts: &[Part], files_reused: u64, outcome: Outcome) -> Self {
        match outcome {
            Outcome::Before(finished) => Self::before(&finished),
            Outcome::Written(version) => Self {
                rows: parts.iter().map(|part| part.rows).sum(),
                files: parts.len() as u64,
                files_reused,
                version,
                already_done: false,
            },
        }
    }

    fn before(finished: &Finished) -> Self {
        Self {
            rows: finished.rows,
            files: finished.file_count,
            files_reused: 0,
            version: finished.version,
            already_done: true,
        }
    }
}

/// Applies query functions to every row of a table.
///
/// All that can be refused is refused before any work. The results become visible all at once; a
/// job that fails, is cancelled or whose future is dropped leaves nothing behind. A job with an
/// [identity](Job::identity) leaves what it has finished, for the run that completes it.
///
/// ```no_run
/// # use std::sync::Arc; use batch::{Components, Job, Model};
/// # async fn example(runtime: runtime::Runtime) -> Result<(), batch::Error> {
/// let mut job = Job::new("warehouse/clients", "warehouse/predictions");
/// job.keep = vec!["client_id".into()];
/// let components = Components {
///     models: vec![Model::new(Arc::new(runtime))],
///     id: uuid::Uuid::new_v4(),
///     progress: Arc::new(|progress| eprintln!("{} rows", progress.rows_done)),
///     stores: batch::Stores::new(std::env::vars()),
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
    begin_run(job, components).await
}

/// Boxed, as all that this crate lets others wait for: who links it would compile the whole job again.
fn begin_run<'r>(
    job: &'r Job,
    components: &'r Components,
) -> BoxFuture<'r, Result<Summary, Error>> {
    Box::pin(some_attempts(job, components))
}

async fn some_attempts(job: &Job, components: &Components) -> Result<Summary, Error> {
    const ATTEMPTS: usize = 5;
    let mut attempt = 1;
    loop {
        match attempt_at(job, components).await {
            // What is finished lasts, so that another look at the table and another commit cost little.
            Err(Error::Conflict { .. }) if job.identity.is_some() && attempt < ATTEMPTS => {
                attempt += 1;
            }
            Err(error) => return done_meanwhile(job, components).await.ok_or(error),
            done => return done,
        }
    }
}

/// What another run of the same job has done while this one was at it. Where a claim keeps others away,
/// there is none.
async fn done_meanwhile(job: &Job, components: &Components) -> Option<Summary> {
    let output = job.output(&components.stores).await.ok()?;
    let identity = job.identity.as_ref()?;
    output.bucket()?;
    let key = identity.key(&digests(&components.models));
    let found = finished(&output, job.format, &key).await.ok()??;
    let models = splittable(job, &components.models).ok()?;
    let input = job.input_place(&components.stores).await.ok()?.to_string();
    check_same_job((job, input), identity, &models, &found).ok()?;
    Some(Summary::before(&found))
}

async fn attempt_at(job: &Job, components: &Components) -> Result<Summary, Error> {
    let models = splittable(job, &components.models)?;
    let hold = match claim(job, components, &models).await? {
        Claimed::Done(finished) => return Ok(Summary::before(&finished)),
        Claimed::Ours(hold) => hold,
    };
    let before = hold.as_ref().and_then(|(_, hold)| hold.record());
    let decided = decide(job, components, models, before).await?;

    let mut attempt = begin(&decided, hold).await?;
    let (parts, reused) = match results(&decided, &attempt).await {
        Ok(results) => results,
        Err(error) => {
            attempt.give_up().await;
            return Err(error);
        }
    };
    let outcome = commit(&decided.target, attempt, &parts, facts(&decided)).await?;
    Ok(Summary::of(&parts, reused, outcome))
}

/// The files of the results, none of which is visible yet, and how many an earlier attempt had finished.
async fn results(decided: &Decided<'_>, attempt: &Attempt) -> Result<(Vec<Part>, u64), Error> {
    let planned = plan(decided, attempt).await?;
    let written = match carry_out(&planned, decided).await {
        Ok(written) => written,
        Err(error) => return Err(decided.located(error).await),
    };
    let (reused, taken) = (coverage::reused(&written), coverage::rows_taken(&written));
    let parts = coverage::parts(written, planned.partitions())?;
    if decided.workplace.is_shared() {
        attempt.take_in(&parts)?;
    }
    check_complete(&decided.source, taken)?;
    Ok((parts, reused))
}

/// What there is to do for a job.
enum Claimed {
    /// Nothing: another run has done it.
    Done(Finished),
    /// All of it. If the job has an identity, no other process works on it where there are locks.
    Ours(Option<(Key, Hold)>),
}

/// Looks whether the job is done already; if not, claims it.
async fn claim(
    job: &Job,
    components: &Components,
    models: &[Splittable<'_>],
) -> Result<Claimed, Error> {
    let Some(identity) = &job.identity else {
        return Ok(Claimed::Ours(None));
    };
    let key = identity.key(&digests(&components.models));
    let output = job.output(&components.stores).await?.resolved();
    let mut hold = None;
    let mut found = finished(&output, job.format, &key).await?;
    if found.is_none() {
        let taken = Hold::take(&output, job.format, key.short(), &components.cancelled);
        hold = Some(taken.await?);
        point::reached(point::CLAIMED);
        // Whoever we waited for may have done it.
        found = finished(&output, job.format, &key).await?;
    }
    let Some(found) = found else {
        return Ok(Claimed::Ours(hold.map(|hold| (key, hold))));
    };
    drop(hold);
    let input = job.input_place(&components.stores).await?.to_string();
    check_same_job((job, input), identity, models, &found)?;
    tidy(&output, job.format, &key, &found).await;
    Ok(Claimed::Done(found))
}

/// Refuses a job that has the identity of a finished one, but does something else.
fn check_same_job(
    (job, input): (&Job, String),
    identity: &Identity,
    models: &[Splittable<'_>],
    finished: &Finished,
) -> Result<(), Error> {
    if finished.facts.is_empty() {
        // The output does not tell what the job was.
        return Ok(());
    }
    let told = |fact: &str| finished.facts.get(fact).and_then(|before| before.as_str());
    for (fact, what, now) in asked(job, models, input) {
        let before = told(fact);
        if before != now.as_deref() {
            let told = |text: Option<&str>| text.unwrap_or("none").to_owned();
            return Err(Error::OtherJob {
                job: identity.name().to_owned(),
                what,
                before: told(before),
                now: told(now.as_deref()),
            });
        }
    }
    Ok(())
}

/// Everything about a job that is settled before any work.
pub(crate) struct Decided<'j> {
    job: &'j Job,
    pub(crate) components: &'j Components,
    models: Vec<Splittable<'j>>,
    pub(crate) source: Arc<Source>,
    filter: Option<Filter>,
    columns: Columns,
    target: Target,
    workplace: Workplace,
    cut: Cut,
}

/// Settles all that can be refused. An attempt before this one has settled which version is read, and
/// how it is cut.
async fn decide<'j>(
    job: &'j Job,
    components: &'j Components,
    models: Vec<Splittable<'j>>,
    before: Option<Record>,
) -> Result<Decided<'j>, Error> {
    let input = job.input_place(&components.stores).await?.to_string();
    let asked = as_of_text(job);
    let before = before.filter(|before| before.input == input && before.as_of == asked);
    let version = before.as_ref().and_then(|before| before.version);
    let version = version.and_then(|version| u64::try_from(version).ok());
    let as_of = version.map(AsOf::Version).or(job.as_of);
    let workplace = Workplace::find(job).await?;
    let (source, filter) = read(job, components, &models, as_of).await?;
    let passed = groups::passed(job, &models, &source)?;
    let columns = Columns::decide(&source, &models, &passed)?;
    let target = Target::check(job, &components.stores, &columns.mapped).await?;
    let before = before.filter(|_| job.group_by.is_empty());
    let count = before.and_then(|before| NonZeroUsize::new(before.splits));
    Ok(Decided {
        cut: Cut {
            count: count.unwrap_or_else(|| partition_count(job, &workplace, &source)),
            fixed: job.identity.is_some() || !job.group_by.is_empty() || workplace.is_shared(),
        },
        job,
        components,
        models,
        source,
        filter,
        columns,
        target,
        workplace,
    })
}

fn as_of_text(job: &Job) -> Option<String> {
    job.as_of.map(|as_of| as_of.to_string())
}

/// One for each worker; more for a large table if what is done of it may have to last. Never more where rows
/// are grouped: each partition of theirs gets rows from all, so all must be worked on at once.
fn partition_count(job: &Job, workplace: &Workplace, source: &Source) -> NonZeroUsize {
    let workers = workplace.workers(&job.settings);
    if job.identity.is_none() || !job.group_by.is_empty() {
        return workers;
    }
    let bytes: u64 = source.files.iter().map(|file| file.bytes).sum();
    let splits = bytes.div_ceil(job.settings.split_bytes.get());
    let splits = usize::try_from(splits).ok().and_then(NonZeroUsize::new);
    splits.map_or(workers, |splits| splits.max(workers))
}

/// Makes room for the files; notes first what the next attempt needs to know.
async fn begin(decided: &Decided<'_>, hold: Option<(Key, Hold)>) -> Result<Attempt, Error> {
    let Decided {
        components,
        job,
        source,
        target,
        cut,
        ..
    } = decided;
    let Some((key, mut hold)) = hold else {
        return Attempt::begin(target, components.id).await;
    };
    hold.note(&Record {
        job: key.text().to_owned(),
        input: source.name.clone(),
        as_of: as_of_text(job),
        version: source.version,
        splits: cut.count.get(),
    })
    .await?;
    Attempt::again(target, &key, hold, components.id)
}

impl Decided<'_> {
    /// How many rounds of tasks a cluster needs: rows that are grouped go to the task that has their group.
    #[cfg(feature = "cluster")]
    pub(crate) fn rounds(&self) -> usize {
        1 + usize::from(!self.job.group_by.is_empty())
    }

    /// The error with the place in the input that it comes from, if it can be found.
    async fn located(&self, error: Error) -> Error {
        let Ok(place) = self.job.input_place(&self.components.stores).await else {
            return error;
        };
        located(error, (&place, &self.source), &self.columns.scanned).await
    }
}

/// The table as it is read, and which of its rows are.
async fn read(
    job: &Job,
    components: &Components,
    models: &[Splittable<'_>],
    as_of: Option<AsOf>,
) -> Result<(Arc<Source>, Option<Filter>), Error> {
    let reading = Reading {
        as_of,
        types: types(models),
    };
    let source = Source::read(&job.input(&components.stores).await?, &reading).await?;
    let Some(filter) = &job.filter else {
        return Ok((Arc::new(source), None));
    };
    let filter = Filter::parse(filter, &source)?;
    Ok((Arc::new(source.filtered(&filter)), Some(filter)))
}

/// A plan in both forms and the session that it was made in.
pub(crate) struct Planned {
    #[cfg(feature = "cluster")]
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
        models,
        source,
        filter,
        columns,
        target,
        workplace,
        cut,
    } = decided;
    let settings = &job.settings;
    let is_grouped = !job.group_by.is_empty();
    let workers = workplace.workers(settings);
    let callables = components.models.iter().map(|model| {
        let callable = Callable::new(Arc::clone(&model.rows), workers);
        (model.rows.digest(), callable)
    });
    let sort_bytes = settings.sort_bytes.saturating_mul(workers).get();
    let (files, stores) = (Arc::new(attempt.files()), &components.stores);
    let environment = match is_grouped {
        true => stores.sorting(files, sort_bytes),
        false => stores.environment(files),
    };
    let environment = environment.map_err(Error::from_engine)?;
    let rows = rows_at_a_time(job, models);
    let session = plan::session(Callables::of(callables), environment, *cut, rows);
    let table = SnapshotTable::new(Arc::clone(source));
    let table = match is_grouped {
        true => table.placed(),
        false => table,
    };
    let mapped = plan::scan(table, columns.scanned.clone(), filter.as_ref())
        .and_then(|scanned| mapped(decided, scanned))
        .map_err(Error::from_engine)?;
    let sink = sink_spec(decided, attempt)?;
    let sunk = plan::sink(sink, &target.written, mapped).map_err(Error::from_engine)?;
    let plan = session
        .create_physical_plan(&sunk)
        .await
        .map_err(Error::from_engine)?;
    Ok(Planned {
        #[cfg(feature = "cluster")]
        logical: sunk,
        plan,
        session,
    })
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
        if job.group_by.is_empty() {
            return plan::map(spec, &map.columns, input);
        }
        let spec = GroupsSpec::new(job, spec, source);
        plan::groups(spec, &map.columns, input)
    })
}

/// How many rows are read at a time: as many as a call has.
fn rows_at_a_time(job: &Job, models: &[Splittable<'_>]) -> usize {
    if !job.group_by.is_empty() {
        return groups::BATCH_ROWS;
    }
    let rows = models
        .iter()
        .map(|model| model.rows_of_a_call(&job.settings));
    rows.max().unwrap_or(job.settings.batch_rows.get())
}

fn splits(attempt: &Attempt) -> Result<Option<String>, Error> {
    let folder = attempt.splits();
    let folder = folder.map(|folder| store_path(&folder)).transpose()?;
    Ok(folder.map(|folder| folder.to_string()))
}

/// Has the plan carried out where the job is to be done.
async fn carry_out(planned: &Planned, decided: &Decided<'_>) -> Result<Vec<Written>, Error> {
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

/// The last look before results become visible: as many rows are in them as the table says it has.
fn check_complete(source: &Source, taken: u64) -> Result<(), Error> {
    match source.rows() {
        Some(expected) if expected != taken => Err(Error::Read {
            table: source.name.clone(),
            file: None,
            source: format!("it says that it has {expected} rows, but {taken} were read").into(),
        }),
        _ => Ok(()),
    }
}

/// What the log of a Delta table keeps about the job.
fn facts(decided: &Decided<'_>) -> Facts {
    let Decided {
        job,
        components,
        models,
        source,
        ..
    } = decided;
    let digests = digests(&components.models);
    let digests: Vec<_> = digests.iter().map(ToString::to_string).collect();
    let envelopes = match digests.as_slice() {
        [only] => ("envelopeDigest".into(), only.clone().into()),
        _ => ("envelopeDigests".into(), digests.into()),
    };
    let mut facts = Facts::from([
        envelopes,
        ("jobId".into(), components.id.simple().to_string().into()),
    ]);
    for (fact, _, asked) in asked(job, models, source.name.clone()) {
        facts.extend(asked.map(|asked| (fact.to_owned(), asked.into())));
    }
    if let Some(identity) = &job.identity {
        facts.insert("jobName".into(), identity.name().into());
        facts.insert("logicalDate".into(), identity.logical_date().into());
    }
    if let Some(version) = source.version {
        facts.insert("inputVersion".into(), version.into());
    }
    facts
}

#[cfg(test)]
mod tests;
