//! The workers of one envelope, as an embedder sees them.

use std::num::NonZero;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use arrow_array::RecordBatch;
use envelope_format::Function;
use tokio::time::timeout;

use crate::certify::{Certified, Trials, certify, is_called_for_each_row};
use crate::fit::fit;
use crate::in_process::InProcess;
use crate::launch::Launch;
use crate::pool::{Limits, Pool};
use crate::process::Call;
use crate::zygote::{Sharing, Zygote};
use crate::{Confinement, EnvelopeFile, Environment, Error, Sandbox, SandboxLevel, padded};

/// Memory that a worker may get in the course of its calls before it is replaced, in bytes.
const MOST_GROWTH: u64 = 1 << 30;

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
    workers: Workers,
}

/// Who answers.
#[derive(Debug, Clone)]
enum Workers {
    Processes(Arc<Pool>),
    Here(Arc<InProcess>),
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
    limits: Limits,
    spare: bool,
    keeps_memory: bool,
}

/// How busy a runtime is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// Live workers, a spare one left out.
    pub workers: usize,
    /// Workers with a call.
    pub busy: usize,
    /// Calls that wait for a worker.
    pub waiting: usize,
    /// Workers that were replaced after a crash, a missed deadline or a dropped call.
    pub replaced: u64,
    /// Workers that were replaced because they had answered enough calls, or had got too much memory.
    pub recycled: u64,
    /// Workers in a row that have ended before they answered a single call. From the fourth on,
    /// another is started after a pause that doubles.
    pub barren: u32,
}

/// What a call gave.
#[derive(Debug, Clone)]
pub struct Answered {
    /// The output.
    pub rows: RecordBatch,
    /// What the worker needed for it: rows into what the function takes, the function, and back. The
    /// rest of what a caller waits for is queueing and transport.
    pub inside: Duration,
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

    /// Replaces each worker after about so many calls; a tenth more or less, so that not all are
    /// replaced at once. No call is lost by it. Default: never.
    pub fn recycle_after_calls(mut self, calls: u64) -> Self {
        self.limits.calls = Some(calls.max(1));
        self
    }

    /// Replaces a worker that has got so much memory, in bytes, since its first call. No call is lost
    /// by it; what a single call takes is not limited by it. Default: 1 GiB.
    pub fn recycle_after_growth(mut self, bytes: u64) -> Self {
        self.limits.growth = bytes;
        self
    }

    /// Whether one worker more than are busy is kept ready, where that is cheap: it takes the place
    /// of one that dies, or the next call when there are more than there were. Default: yes.
    pub fn spare(mut self, spare: bool) -> Self {
        self.spare = spare;
        self
    }

    /// Whether workers keep the memory that a call needed for the next one, 128 MiB of it: for who calls
    /// them with many rows again and again. Default: no, most of it goes back to the machine.
    pub fn keep_memory(mut self, keep: bool) -> Self {
        self.keeps_memory = keep;
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
        let launch = launch.keeping_memory(self.keeps_memory);
        let zygote = Zygote::new(launch, Arc::clone(&self.envelope));
        let pool =
            Pool::start(zygote, self.envelope, self.workers, self.limits, self.spare).await?;
        Ok(Runtime {
            workers: Workers::Processes(pool),
        })
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
            limits: Limits {
                calls: None,
                growth: MOST_GROWTH,
            },
            spare: true,
            keeps_memory: false,
        }
    }

    /// Loads the functions into this process: no second one is started, and calls take microseconds
    /// less.
    ///
    /// All that isolation gives is lost. A function that crashes takes this process with it; one that
    /// is past its deadline is reported so, but goes on, and the next call waits for it; there is no
    /// sandbox, threads of BLAS and OpenMP are as this process's variables say, and the interpreter
    /// stays until the process ends: there can be one only. The environment's interpreter must have a
    /// shared library (`--enable-shared`).
    ///
    /// # Errors
    /// As [`Builder::start`].
    pub async fn in_process(
        envelope: Arc<EnvelopeFile>,
        environment: Environment,
    ) -> Result<Self, Error> {
        environment.check(envelope.manifest())?;
        verify_mapped(&envelope, &environment).await?;
        let open = Sandbox {
            level: SandboxLevel::None,
            ..Sandbox::default()
        };
        let launch = Launch::prepare(&envelope, environment, cores(), &open, None)?;
        let here = InProcess::start(launch, envelope).await?;
        Ok(Self {
            workers: Workers::Here(Arc::new(here)),
        })
    }

    /// The envelope.
    #[must_use]
    pub fn envelope(&self) -> &EnvelopeFile {
        match &self.workers {
            Workers::Processes(pool) => pool.envelope(),
            Workers::Here(here) => here.envelope(),
        }
    }

    /// The most workers there may be at once.
    #[must_use]
    pub fn most_workers(&self) -> usize {
        match &self.workers {
            Workers::Processes(pool) => pool.most(),
            Workers::Here(_) => 1,
        }
    }

    /// How the workers are confined. `None` where there are none, in this process.
    #[must_use]
    pub fn sandbox(&self) -> Option<&Confinement> {
        self.pool().ok()?.confinement()
    }

    /// How much the workers share: what may be done before they are forked. `None` while there is
    /// nothing to fork from.
    pub async fn sharing(&self) -> Option<Sharing> {
        self.pool().ok()?.sharing().await
    }

    /// Numbers of the worker processes that have nothing to do.
    #[must_use]
    pub fn idle_processes(&self) -> Vec<i32> {
        self.pool()
            .map_or_else(|_| vec![], |pool| pool.idle_processes())
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
        Ok(self.call_timed(function, rows, deadline).await?.rows)
    }

    /// As [`Runtime::call`]; tells how long the worker needed, too.
    ///
    /// # Errors
    /// As [`Runtime::call`].
    pub async fn call_timed(
        &self,
        function: Option<&str>,
        rows: RecordBatch,
        deadline: Duration,
    ) -> Result<Answered, Error> {
        let function = self.envelope().function(function)?;
        self.call_in_time(function, false, &rows, deadline).await
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
            .call_in_time(function, each_row, &rows, deadline)
            .await?
            .rows;
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
    /// [`Error::Crashed`], [`Error::Start`], [`Error::Stopped`], [`Error::NeedsProcesses`].
    pub async fn observed(&self) -> Result<serde_json::Value, Error> {
        let mut worker = self.pool()?.lend().await?;
        let seen = worker.observed().await?;
        worker.returned();
        Ok(seen)
    }

    async fn call_in_time(
        &self,
        function: &Function,
        each_row: bool,
        rows: &RecordBatch,
        deadline: Duration,
    ) -> Result<Answered, Error> {
        let count = rows.num_rows();
        let rows = in_whole_tiles(function, fit(function, rows)?)?;
        let call = Call {
            function: &function.name,
            each_row,
            awake: false,
        };
        let answered = async {
            match &self.workers {
                Workers::Processes(pool) => lend_and_call(pool, call, &rows).await,
                Workers::Here(here) => here.call(call, &rows).await,
            }
        };
        let mut answered = timeout(deadline, answered)
            .await
            .unwrap_or(Err(Error::Deadline { after: deadline }))?;
        if rows.num_rows() > count && answered.rows.num_rows() == rows.num_rows() {
            answered.rows = answered.rows.slice(0, count);
        }
        Ok(answered)
    }

    /// Tests whether the output of a function for a row of `sample` depends on the rows around it.
    ///
    /// Takes a worker for as long as it lasts, and starts another. `tell` hears how many of how many
    /// trials are done.
    ///
    /// # Errors
    /// [`Error::NoSuchFunction`], [`Error::RowsDoNotFit`] when the sample does not fit,
    /// [`Error::Start`], [`Error::Stopped`], [`Error::NeedsProcesses`]. What the function does is not an error here.
    pub async fn certify(
        &self,
        function: Option<&str>,
        sample: &RecordBatch,
        trials: Trials,
        tell: &(dyn Fn(u32, u32) + Sync),
    ) -> Result<Certified, Error> {
        let function = self.envelope().function(function)?;
        certify(self.pool()?, function, sample, trials, tell).await
    }

    /// How busy it is.
    #[must_use]
    pub fn usage(&self) -> Usage {
        match &self.workers {
            Workers::Processes(pool) => pool.usage(),
            Workers::Here(here) => here.usage(),
        }
    }

    fn pool(&self) -> Result<&Arc<Pool>, Error> {
        match &self.workers {
            Workers::Processes(pool) => Ok(pool),
            Workers::Here(_) => Err(Error::NeedsProcesses),
        }
    }

    /// Ends the workers. Calls under way have `grace` to finish; then their workers are killed.
    pub async fn shutdown(&self, grace: Duration) {
        if let Workers::Processes(pool) = &self.workers {
            pool.shutdown(grace).await;
        }
    }
}

/// A worker that answered is healthy, whatever the answer; any other end of the loan (a crash, the
/// deadline, a dropped call) replaces it.
async fn lend_and_call(
    pool: &Arc<Pool>,
    call: Call<'_>,
    rows: &RecordBatch,
) -> Result<Answered, Error> {
    let mut worker = pool.lend().await?;
    let answer = worker.call(call, rows).await;
    if !matches!(answer, Err(Error::Crashed { .. } | Error::Io { .. })) {
        worker.returned();
    }
    answer
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

/// Cores that this process may use.
pub(crate) fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, NonZero::get)
}
