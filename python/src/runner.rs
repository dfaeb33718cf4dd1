//! Workers for a Python program: the same ones that serve and map.

use std::future::Future;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;
use runtime::{
    EnvelopeFile, Environments, Grant, NoSuchGrant, NoSuchLevel, Runtime, Sandbox, SandboxLevel,
    Trials,
};
use tokio::runtime::Runtime as Executor;
use worker::Batch;

use crate::fault;

/// How often a waiting call looks whether the user has interrupted it.
const INTERRUPT_INTERVAL: Duration = Duration::from_millis(50);

/// Every so many trials people hear how many are done.
const TOLD_TRIALS: u32 = 10;

/// Workers of one envelope, in its own environment.
#[pyclass(frozen, module = "model_envelope")]
pub(crate) struct Runner {
    /// There until it is closed.
    runtime: Mutex<Option<Runtime>>,
    python: String,
    realise_seconds: f64,
    /// Id of the process that made it.
    owner: u32,
}

impl Drop for Runner {
    /// A forked child has a copy of this, but the workers stay its parent's.
    fn drop(&mut self) {
        if self.owner != std::process::id() {
            std::mem::forget(self.taken());
        }
    }
}

impl Runner {
    fn taken(&self) -> Option<Runtime> {
        self.runtime
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take()
    }

    fn runtime(&self) -> PyResult<Runtime> {
        if self.owner != std::process::id() {
            return Err(PyRuntimeError::new_err(
                "these workers belong to the process that was forked",
            ));
        }
        let runtime = self
            .runtime
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        runtime.ok_or_else(|| PyRuntimeError::new_err("these workers have been ended"))
    }
}

/// A notebook is where its author is: what the kernel lacks is no reason not to start.
fn sandbox_of((level, grants): &(String, Vec<String>)) -> Result<Sandbox, String> {
    let level = if level.is_empty() {
        SandboxLevel::default()
    } else {
        level
            .parse()
            .map_err(|error: NoSuchLevel| error.to_string())?
    };
    let grants: Result<Vec<Grant>, NoSuchGrant> = grants.iter().map(|text| text.parse()).collect();
    let sandbox = Sandbox {
        level,
        allow_degraded: true,
        ..Sandbox::default()
    };
    Ok(sandbox.granting(grants.map_err(|error| error.to_string())?))
}

#[pymethods]
impl Runner {
    /// Realises the environment and starts `workers` workers. `progress` is called with text. A file
    /// that is `trusted` was written a moment ago: its large arrays are not checked.
    ///
    /// `observed` workers note what they do and can open only what the envelope needs, and these
    /// paths. With `current`, they run in the environment of that interpreter, as it is. `sandbox` is
    /// the name of a level (an empty one is the default) and grants.
    #[staticmethod]
    #[pyo3(signature = (path, places, workers, progress, *, trusted = false, observed = None, current = None, sandbox = None))]
    #[expect(clippy::too_many_arguments, reason = "keywords in Python")]
    fn start(
        py: Python<'_>,
        path: PathBuf,
        places: (PathBuf, Option<PathBuf>, Vec<PathBuf>, bool),
        workers: usize,
        progress: Option<Py<PyAny>>,
        trusted: bool,
        observed: Option<Vec<PathBuf>>,
        current: Option<PathBuf>,
        sandbox: Option<(String, Vec<String>)>,
    ) -> PyResult<Self> {
        let sandbox = sandbox_of(&sandbox.unwrap_or_default())
            .map_err(|reason| fault::invalid_input(py, reason))?;
        let (cache, uv, interpreters, offline) = places;
        let environments = Environments {
            cache,
            uv,
            interpreters,
            offline,
        };
        let tell = move |step: &str| {
            if let Some(progress) = &progress {
                // What cannot be shown is not worth failing for.
                let _ = Python::attach(|py| progress.call1(py, (step,)));
            }
        };
        let started = async move {
            let envelope = Arc::new(EnvelopeFile::open(path)?);
            let began = Instant::now();
            let environment = match current {
                Some(python) => environments.current(&python).await?,
                None => environments.realise(&envelope, &tell).await?,
            };
            let realise_seconds = began.elapsed().as_secs_f64();
            let python = environment.python().display().to_string();
            let mut builder = Runtime::builder(envelope, environment)
                .workers(workers..=workers)
                .sandbox(sandbox);
            if let Some(also) = observed {
                // A proof asks two workers at once.
                builder = builder.observed(also).threads(threads_of(2)).spare(false);
            }
            if trusted {
                builder = builder.trust_file();
            }
            let runtime = builder.start().await?;
            Ok(Self {
                runtime: Mutex::new(Some(runtime)),
                python,
                realise_seconds,
                owner: std::process::id(),
            })
        };
        wait(py, started)?.map_err(|error| fault::runtime(py, &error))
    }

    /// Calls a function once, on all rows. `timeout` is in seconds.
    fn call(
        &self,
        py: Python<'_>,
        function: &str,
        rows: PyRef<'_, Batch>,
        timeout: f64,
    ) -> PyResult<Batch> {
        let rows = rows.rows().clone();
        let deadline = Duration::try_from_secs_f64(timeout).unwrap_or(Duration::MAX);
        let runtime = self.runtime()?;
        let answered = runtime.call(Some(function), rows, deadline);
        wait(py, answered)?
            .map(Batch::new)
            .map_err(|error| fault::runtime(py, &error))
    }

    /// What an observed worker has noted, as JSON.
    fn observed(&self, py: Python<'_>) -> PyResult<String> {
        let runtime = self.runtime()?;
        let seen = wait(py, runtime.observed())?.map_err(|error| fault::runtime(py, &error))?;
        Ok(seen.to_string())
    }

    /// Tests whether the output for a row of `sample` depends on the other rows: the certificate
    /// (JSON), and the sample's output as it is given in the certified way. `progress` is called
    /// with text.
    fn certify(
        &self,
        py: Python<'_>,
        function: &str,
        sample: PyRef<'_, Batch>,
        progress: Option<Py<PyAny>>,
    ) -> PyResult<(String, Option<Batch>)> {
        let sample = sample.rows().clone();
        let runtime = self.runtime()?;
        let tell = move |done: u32, planned: u32| {
            // Telling takes the interpreter's lock; not for each of many short calls.
            if done.is_multiple_of(TOLD_TRIALS)
                && let Some(progress) = &progress
            {
                let step =
                    format!("testing whether rows depend on each other, {done} of {planned}");
                let _ = Python::attach(|py| progress.call1(py, (step,)));
            }
        };
        let tested = runtime.certify(Some(function), &sample, Trials::default(), &tell);
        let tested = wait(py, tested)?.map_err(|error| fault::runtime(py, &error))?;
        let certificate = serde_json::to_string(&tested.certificate)
            .map_err(|error| PyRuntimeError::new_err(error.to_string()))?;
        Ok((certificate, tested.output.map(Batch::new)))
    }

    /// Interpreter of the realised environment.
    #[getter]
    fn python(&self) -> &str {
        &self.python
    }

    /// How long it took to find or make the environment.
    #[getter]
    fn realise_seconds(&self) -> f64 {
        self.realise_seconds
    }

    /// Ends the workers, and removes their folder.
    fn close(&self, py: Python<'_>) -> PyResult<()> {
        match self.taken() {
            Some(runtime) if self.owner == std::process::id() => {
                wait(py, runtime.shutdown(Duration::ZERO))
            }
            theirs => {
                std::mem::forget(theirs);
                Ok(())
            }
        }
    }
}

/// Waits without holding the interpreter; an interrupt ends the wait and drops the future.
pub(crate) fn wait<T: Send>(py: Python<'_>, future: impl Future<Output = T> + Send) -> PyResult<T> {
    let mut future = Box::pin(future);
    loop {
        let turn = py.detach(|| {
            executor()
                .block_on(async { tokio::time::timeout(INTERRUPT_INTERVAL, future.as_mut()).await })
        });
        match turn {
            Ok(value) => return Ok(value),
            Err(_) => py.check_signals()?,
        }
    }
}

/// Threads of each of so many workers that are busy at once.
fn threads_of(workers: usize) -> usize {
    std::thread::available_parallelism().map_or(1, |cores| cores.get() / workers)
}

/// The threads that run futures: this process's own, for those of a parent did not come along when
/// it was forked. A parent's executor stays where it is; ending it would wait for those threads.
fn executor() -> &'static Executor {
    static EXECUTOR: Mutex<Option<(u32, &'static Executor)>> = Mutex::new(None);
    let process = std::process::id();
    let mut executor = EXECUTOR.lock().unwrap_or_else(PoisonError::into_inner);
    match *executor {
        Some((owner, made)) if owner == process => made,
        _ => {
            let made: &'static Executor = Box::leak(Box::new(new_executor()));
            *executor = Some((process, made));
            made
        }
    }
}

fn new_executor() -> Executor {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    let built = builder
        .worker_threads(2)
        .thread_name("model-envelope")
        .enable_all()
        .build();
    #[expect(
        clippy::expect_used,
        reason = "a process that cannot start two threads cannot do anything"
    )]
    built.expect("the operating system gives no threads")
}
