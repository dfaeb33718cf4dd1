//! Lends workers to calls, takes them back, replaces broken ones.

use std::num::NonZero;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arrow_array::RecordBatch;
use envelope_format::Function;
use futures::future::join_all;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep, timeout, timeout_at};

use crate::certify::{Certified, Trials, certify, is_called_for_each_row};
use crate::fit::fit;
use crate::launch::Launch;
use crate::process::{Call, Process};
use crate::{Confinement, EnvelopeFile, Environment, Error, Sandbox, padded};

/// A worker beyond the least number that had nothing to do for so long is ended.
const IDLE_DEADLINE: Duration = Duration::from_secs(60);

/// A worker that cannot start is not tried again before this.
const START_PAUSE: Duration = Duration::from_secs(1);

/// Workers of one envelope, ready to be called. Clones share them.
///
/// ```no_run
/// # use std::sync::Arc; use std::time::Duration;
/// # async fn example(environments: runtime::Environments, rows: arrow_array::RecordBatch) -> Result<(), runtime::Error> {
/// let envelope = Arc::new(runtime::EnvelopeFile::open("ltv.envelope")?);
/// let environment = environments.realise(&envelope, &|step| eprintln!("{step}")).await?;
/// let runtime = runtime::Runtime::builder(envelope, environment).workers(1..=2).start().await?;
/// let predictions = runtime.call(None, rows, Duration::from_secs(5)).await?;
/// # Ok(()) }
/// ```
#[derive(Debug, Clone)]
pub struct Runtime {
    pool: Arc<Pool>,
}

/// What an embedder may choose about a [`Runtime`].
#[derive(Debug)]
#[must_use = "a builder does nothing until `start`"]
pub struct Builder {
    envelope: Arc<EnvelopeFile>,
    environment: Environment,
    workers: RangeInclusive<usize>,
    threads: Option<usize>,
    observed: Option<Vec<PathBuf>>,
    sandbox: Sandbox,
    verifies: bool,
}

/// How busy a runtime is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Usage {
    /// Live workers.
    pub workers: usize,
    /// Workers with a call.
    pub busy: usize,
    /// Calls that wait for a worker.
    pub waiting: usize,
    /// Workers that were replaced after a crash, a missed deadline or a dropped call.
    pub replaced: u64,
}

impl Builder {
    /// How many workers: the first number from the beginning, up to the second under load.
    /// Default: one for each core, all from the beginning.
    pub fn workers(mut self, workers: RangeInclusive<usize>) -> Self {
        let most = (*workers.end()).max(1);
        self.workers = (*workers.start()).clamp(1, most)..=most;
        self
    }

    /// Threads of BLAS and OpenMP in each worker. Default: cores divided by the most workers, at
    /// least 1, so that all workers together have one thread for each core.
    pub fn threads(mut self, threads: usize) -> Self {
        self.threads = Some(threads.max(1));
        self
    }

    /// What workers may do to this machine. Default: [`Sandbox::default`].
    pub fn sandbox(mut self, sandbox: Sandbox) -> Self {
        self.sandbox = sandbox;
        self
    }

    /// Workers note what they do, see [`Runtime::observed`], and can open only what the envelope, its
    /// environment and any operating system have, and `also`. Where the kernel has no Landlock they
    /// can open everything; what they note says so. Of the [`sandbox`](Self::sandbox) only the level
    /// counts, up to `default`; the network is open.
    pub fn observed(mut self, also: Vec<PathBuf>) -> Self {
        self.observed = Some(also);
        self
    }

    /// Leaves out the check of the large arrays' digests, which is made once for each file on each
    /// machine: for who has written the file a moment ago.
    pub fn trust_file(mut self) -> Self {
        self.verifies = false;
        self
    }

    /// Starts the first workers; returns when each has loaded the envelope.
    ///
    /// # Errors
    /// [`Error::Start`], [`Error::WrongInterpreter`], [`Error::Io`], [`Error::Envelope`];
    /// [`Error::Sandbox`] when this machine cannot confine workers as much as they should be.
    pub async fn start(self) -> Result<Runtime, Error> {
        // Code of one minor crashes another: refuse before a byte is unpickled.
        self.environment.check(self.envelope.manifest())?;
        if self.verifies {
            verify_mapped(&self.envelope, &self.environment).await?;
        }
        let threads = self
            .threads
            .unwrap_or_else(|| (cores() / self.workers.end()).max(1));
        let observed = self.observed.as_deref();
        let sandbox = &self.sandbox;
        let launch = Launch::prepare(&self.envelope, self.environment, threads, sandbox, observed)?;
        let (least, most) = self.workers.into_inner();
        let pool = Arc::new(Pool {
            envelope: self.envelope,
            launch,
            least,
            most,
            state: Mutex::default(),
            changed: Notify::new(),
        });
        let started = pool.start_first().await;
        pool.launch.learn_confinement().await?; // the reason of a refusal, if it was one
        started?;
        if least < most {
            tokio::spawn(end_idle(Arc::downgrade(&pool)));
        }
        Ok(Runtime { pool })
    }
}

async fn verify_mapped(
    envelope: &Arc<EnvelopeFile>,
    environment: &Environment,
) -> Result<(), Error> {
    let (envelope, cache) = (Arc::clone(envelope), environment.cache.clone());
    let verified = tokio::task::spawn_blocking(move || envelope.verify_mapped(&cache)).await;
    verified.unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()))
}

impl Runtime {
    /// Begins a runtime for `envelope` in `environment`.
    pub fn builder(envelope: Arc<EnvelopeFile>, environment: Environment) -> Builder {
        let cores = cores();
        Builder {
            envelope,
            environment,
            workers: cores..=cores,
            threads: None,
            observed: None,
            sandbox: Sandbox::default(),
            verifies: true,
        }
    }

    /// The envelope.
    #[must_use]
    pub fn envelope(&self) -> &EnvelopeFile {
        &self.pool.envelope
    }

    /// The most workers there may be at once.
    #[must_use]
    pub fn most_workers(&self) -> usize {
        self.pool.most
    }

    /// How the workers are confined. `None` only if their launcher did not say.
    #[must_use]
    pub fn sandbox(&self) -> Option<&Confinement> {
        self.pool.launch.confinement()
    }

    /// Calls a function once, on all of `rows`.
    ///
    /// `function` is `None` for the envelope's default one. Columns are matched by name: those that
    /// the signature does not know are ignored, order does not matter; nothing is cast.
    /// A call that is dropped costs its worker, which is replaced. Where the certificate has a tile,
    /// the function is given whole tiles, so that equal rows give equal bits.
    ///
    /// # Errors
    /// [`Error::NoSuchFunction`], [`Error::RowsDoNotFit`], [`Error::Function`], [`Error::Output`],
    /// [`Error::Crashed`], [`Error::Deadline`], [`Error::Start`], [`Error::Stopped`].
    pub async fn call(
        &self,
        function: Option<&str>,
        rows: RecordBatch,
        deadline: Duration,
    ) -> Result<RecordBatch, Error> {
        let function = self.envelope().function(function)?;
        self.lend_and_call(function, false, &rows, deadline).await
    }

    /// Gives one row of output for each row of `rows`: a function that takes or gives a single row
    /// is called for each row, any other once.
    ///
    /// # Errors
    /// As [`Runtime::call`]; [`Error::Output`] when there are more or fewer rows than in `rows`.
    pub async fn map(
        &self,
        function: Option<&str>,
        rows: RecordBatch,
        deadline: Duration,
    ) -> Result<RecordBatch, Error> {
        let function = self.envelope().function(function)?;
        let each_row = is_called_for_each_row(function);
        if each_row && rows.num_rows() == 0 {
            return Ok(RecordBatch::new_empty(crate::arrow_schema(
                &function.signature.output,
            )));
        }
        let output = self
            .lend_and_call(function, each_row, &rows, deadline)
            .await?;
        if output.num_rows() == rows.num_rows() {
            return Ok(output);
        }
        Err(Error::Output {
            function: function.name.clone(),
            reason: format!("it gave {} rows for {}", output.num_rows(), rows.num_rows()),
        })
    }

    /// What a worker has noted since it started: durations, versions, files, warnings. `null` unless
    /// [`Builder::observed`] was asked for.
    ///
    /// # Errors
    /// [`Error::Crashed`], [`Error::Start`], [`Error::Stopped`].
    pub async fn observed(&self) -> Result<serde_json::Value, Error> {
        let mut worker = self.pool.lend().await?;
        let seen = worker.observed().await?;
        worker.returned();
        Ok(seen)
    }

    async fn lend_and_call(
        &self,
        function: &Function,
        each_row: bool,
        rows: &RecordBatch,
        deadline: Duration,
    ) -> Result<RecordBatch, Error> {
        let count = rows.num_rows();
        let rows = in_whole_tiles(function, fit(function, rows)?)?;
        let answered = async {
            let mut worker = self.pool.lend().await?;
            let answer = worker
                .call(
                    Call {
                        function: &function.name,
                        each_row,
                    },
                    &rows,
                )
                .await;
            // A worker that answered is healthy, whatever the answer; any other end of the loan
            // (a crash, the deadline, a dropped call) replaces it.
            if !matches!(answer, Err(Error::Crashed { .. } | Error::Io { .. })) {
                worker.returned();
            }
            answer
        };
        let output = timeout(deadline, answered)
            .await
            .unwrap_or(Err(Error::Deadline { after: deadline }))?;
        let filled = rows.num_rows() > count && output.num_rows() == rows.num_rows();
        Ok(if filled {
            output.slice(0, count)
        } else {
            output
        })
    }

    /// Tests whether the output of a function for a row of `sample` depends on the rows around it.
    ///
    /// Takes a worker for as long as it lasts, and starts another. `tell` hears how many of how many
    /// trials are done.
    ///
    /// # Errors
    /// [`Error::NoSuchFunction`], [`Error::RowsDoNotFit`] when the sample does not fit,
    /// [`Error::Start`], [`Error::Stopped`]. What the function does is not an error here.
    pub async fn certify(
        &self,
        function: Option<&str>,
        sample: &RecordBatch,
        trials: Trials,
        tell: &(dyn Fn(u32, u32) + Sync),
    ) -> Result<Certified, Error> {
        let function = self.envelope().function(function)?;
        certify(&self.pool, function, sample, trials, tell).await
    }

    /// How busy it is.
    #[must_use]
    pub fn usage(&self) -> Usage {
        let state = self.pool.state();
        Usage {
            workers: state.idle.len() + state.lent,
            busy: state.lent,
            waiting: state.waiting,
            replaced: state.replaced,
        }
    }

    /// Ends the workers. Calls under way have `grace` to finish; then their workers are killed.
    pub async fn shutdown(&self, grace: Duration) {
        {
            let mut state = self.pool.state();
            state.stopped = true;
            state.idle.clear();
        }
        self.pool.changed.notify_waiters();
        let deadline = Instant::now() + grace;
        loop {
            let changed = self.pool.changed.notified();
            if self.pool.state().lent == 0 || timeout_at(deadline, changed).await.is_err() {
                return;
            }
        }
    }
}

/// Where the certificate says that bits are equal in whole tiles, all calls are made of these.
fn in_whole_tiles(function: &Function, rows: RecordBatch) -> Result<RecordBatch, Error> {
    let certificate = &function.certificate;
    let tile = certificate.tile.filter(|_| certificate.row_wise);
    padded(rows, tile).map_err(|error| Error::RowsDoNotFit {
        function: function.name.clone(),
        reason: error.to_string(),
    })
}

#[derive(Debug)]
pub(crate) struct Pool {
    envelope: Arc<EnvelopeFile>,
    launch: Launch,
    least: usize,
    most: usize,
    state: Mutex<State>,
    /// A worker came back, a start ended, or the pool stopped.
    changed: Notify,
}

#[derive(Debug, Default)]
struct State {
    /// The one used last is used next: the others' memory may go cold.
    idle: Vec<(Process, Option<Instant>)>,
    lent: usize,
    starting: usize,
    waiting: usize,
    replaced: u64,
    /// Why the last start failed, while no worker is alive.
    broken: Option<(String, String)>,
    stopped: bool,
}

impl Pool {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn start_first(&self) -> Result<(), Error> {
        let starts = (0..self.least).map(|_| Process::start(&self.launch, &self.envelope));
        let mut started = vec![];
        for process in join_all(starts).await {
            started.push((process?, None));
        }
        self.state().idle = started;
        Ok(())
    }

    /// A worker that is not one of the pool's.
    pub(crate) async fn start_process(&self) -> Result<Process, Error> {
        Process::start(&self.launch, &self.envelope).await
    }

    /// Waits for an idle worker; starts another when there are none and more are allowed.
    pub(crate) async fn lend(self: &Arc<Self>) -> Result<LentWorker, Error> {
        let _waiting = Waiting::begin(self);
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable(); // before looking: a return in between must wake us
            if let Some(lent) = self.try_lend()? {
                return Ok(lent);
            }
            changed.await;
        }
    }

    fn try_lend(self: &Arc<Self>) -> Result<Option<LentWorker>, Error> {
        let mut state = self.state();
        if state.stopped {
            return Err(Error::Stopped);
        }
        // One that died while it had nothing to do must not cost a call.
        while let Some((mut process, _)) = state.idle.pop() {
            if process.is_alive() {
                state.lent += 1;
                return Ok(Some(LentWorker {
                    pool: Arc::clone(self),
                    process: Some(process),
                }));
            }
            state.replaced += 1;
        }
        if let Some((reason, stderr)) = state.broken.take() {
            return Err(Error::Start { reason, stderr });
        }
        let wanted = state.lent + state.starting < self.most && state.starting < state.waiting;
        if wanted {
            state.starting += 1;
            tokio::spawn(Arc::clone(self).start_another());
        }
        Ok(None)
    }

    async fn start_another(self: Arc<Self>) {
        let started = Process::start(&self.launch, &self.envelope).await;
        if started.is_err() {
            sleep(START_PAUSE).await;
        }
        let mut state = self.state();
        state.starting -= 1;
        match started {
            Ok(process) if !state.stopped => state.idle.push((process, Some(Instant::now()))),
            Ok(_) => {}
            Err(error) => {
                tracing::error!("{error}");
                let alive = state.lent + state.idle.len();
                state.broken = (alive == 0).then(|| broken(error));
            }
        }
        drop(state);
        self.changed.notify_waiters();
    }

    fn give_back(self: &Arc<Self>, process: Option<Process>) {
        let mut state = self.state();
        state.lent -= 1;
        match process {
            Some(process) if !state.stopped => state.idle.push((process, Some(Instant::now()))),
            Some(_) => {}
            None if state.stopped => {}
            None => {
                state.replaced += 1;
                let alive = state.lent + state.idle.len() + state.starting;
                // A dropped call may end outside of any runtime, when a program is coming down.
                if alive < self.least.max(state.waiting.min(self.most))
                    && let Ok(handle) = tokio::runtime::Handle::try_current()
                {
                    state.starting += 1;
                    handle.spawn(Arc::clone(self).start_another());
                }
            }
        }
        drop(state);
        self.changed.notify_waiters();
    }
}

fn broken(error: Error) -> (String, String) {
    if let Error::Start { reason, stderr } = error {
        return (reason, stderr);
    }
    (error.to_string(), String::new())
}

/// Ends workers that have had nothing to do, down to the least number.
async fn end_idle(pool: std::sync::Weak<Pool>) {
    loop {
        sleep(IDLE_DEADLINE / 4).await;
        let Some(pool) = pool.upgrade() else { return };
        let mut state = pool.state();
        let mut surplus = (state.idle.len() + state.lent).saturating_sub(pool.least);
        let now = Instant::now();
        state.idle.retain(|(_, since)| {
            let idle = since.is_some_and(|since| now.duration_since(since) > IDLE_DEADLINE);
            let end = idle && surplus > 0;
            surplus -= usize::from(end);
            !end
        });
    }
}

/// A worker that is ours until the loan ends.
#[derive(Debug)]
#[must_use = "a loan that is dropped without `returned` costs the worker"]
pub(crate) struct LentWorker {
    pool: Arc<Pool>,
    /// `None` once the loan has ended.
    process: Option<Process>,
}

impl LentWorker {
    pub(crate) async fn call(
        &mut self,
        call: Call<'_>,
        rows: &RecordBatch,
    ) -> Result<RecordBatch, Error> {
        match &mut self.process {
            Some(process) => process.call(call, rows).await,
            None => Err(Error::Stopped),
        }
    }

    async fn observed(&mut self) -> Result<serde_json::Value, Error> {
        match &mut self.process {
            Some(process) => process.observed().await,
            None => Err(Error::Stopped),
        }
    }

    /// The worker is healthy: another call may use it.
    pub(crate) fn returned(mut self) {
        let process = self.process.take();
        self.pool.give_back(process);
    }
}

impl Drop for LentWorker {
    /// An unfinished loan may leave a damaged or busy worker: kill it and start another.
    fn drop(&mut self) {
        if let Some(process) = self.process.take() {
            drop(process);
            self.pool.give_back(None);
        }
    }
}

/// Counts a call as waiting for as long as it lives.
struct Waiting<'p>(&'p Pool);

impl<'p> Waiting<'p> {
    fn begin(pool: &'p Pool) -> Self {
        pool.state().waiting += 1;
        Self(pool)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.state().waiting -= 1;
    }
}

fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, NonZero::get)
}
