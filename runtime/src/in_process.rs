//! An interpreter in this process: for who wants no second one.

use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

use arrow_array::RecordBatch;
use tokio::sync::{mpsc, oneshot};

use crate::interpreter::{BOOT, Disposition, Interpreter};
use crate::launch::Launch;
use crate::parent::new_keys;
use crate::process::{Call, Process};
use crate::protocol::{IN_PROCESS, Keys};
use crate::runtime::{Answered, Usage};
use crate::wire::Wire;
use crate::{EnvelopeFile, Error};

/// Python's frames are large, and libraries' deeper than ours.
const STACK_BYTES: usize = 64 << 20;

/// The functions of one envelope, loaded into this process.
#[derive(Debug)]
pub(crate) struct InProcess {
    envelope: Arc<EnvelopeFile>,
    jobs: mpsc::UnboundedSender<Job>,
    waiting: AtomicUsize,
    /// Custom modules are imported from there, now or later.
    _launch: Launch,
}

#[derive(Debug)]
struct Job {
    function: String,
    each_row: bool,
    rows: RecordBatch,
    answer: oneshot::Sender<Result<Answered, Error>>,
}

impl InProcess {
    /// Starts the interpreter of the environment, which stays until this process ends.
    pub(crate) async fn start(launch: Launch, envelope: Arc<EnvelopeFile>) -> Result<Self, Error> {
        let signals = Disposition::of_interrupt();
        let wire = begin(&launch).await?;
        let mut process = Process::in_process(wire);
        let loaded = process.load(&launch, &envelope).await;
        signals.restore();
        loaded?;
        let (jobs, waiting) = mpsc::unbounded_channel();
        tokio::spawn(work(process, waiting));
        Ok(Self {
            envelope,
            jobs,
            waiting: AtomicUsize::new(0),
            _launch: launch,
        })
    }

    pub(crate) fn envelope(&self) -> &EnvelopeFile {
        &self.envelope
    }

    /// Calls a function. A call that nobody waits for any more goes on, and the next one waits for it.
    pub(crate) async fn call(&self, call: Call<'_>, rows: &RecordBatch) -> Result<Answered, Error> {
        let (answer, answered) = oneshot::channel();
        let job = Job {
            function: call.function.to_owned(),
            each_row: call.each_row,
            rows: rows.clone(),
            answer,
        };
        let _waiting = Waiting::begin(&self.waiting);
        self.jobs.send(job).map_err(|_| Error::Stopped)?;
        answered.await.map_err(|_| Error::Stopped)?
    }

    pub(crate) fn usage(&self) -> Usage {
        let waiting = self.waiting.load(Ordering::Relaxed);
        Usage {
            workers: 1,
            busy: waiting.min(1),
            waiting: waiting.saturating_sub(1),
            replaced: 0,
            recycled: 0,
            barren: 0,
        }
    }
}

/// One call after the other.
async fn work(mut process: Process, mut jobs: mpsc::UnboundedReceiver<Job>) {
    while let Some(job) = jobs.recv().await {
        if job.answer.is_closed() {
            continue;
        }
        let call = Call {
            function: &job.function,
            each_row: job.each_row,
            awake: false,
        };
        let answer = process.call(call, &job.rows).await;
        let is_over = matches!(answer, Err(Error::Crashed { .. }));
        let _ = job.answer.send(answer); // nobody may be waiting any more
        if is_over {
            return;
        }
    }
}

/// Runs the interpreter in a thread of its own; gives the other end of its socket.
async fn begin(launch: &Launch) -> Result<Wire, Error> {
    /// An interpreter whose libraries have run cannot be begun again in the same process.
    static BEGUN: AtomicBool = AtomicBool::new(false);

    let failed = |reason: &str| Error::Start {
        reason: reason.into(),
        stderr: String::new(),
    };
    let environment = launch.environment();
    let library = environment
        .library
        .as_deref()
        .and_then(|path| path.to_str());
    let library = library.ok_or_else(|| {
        failed(
            "its interpreter has no shared library; use worker processes, or another interpreter",
        )
    })?;
    if BEGUN.swap(true, Ordering::SeqCst) {
        return Err(failed(
            "this process has an interpreter already, and can have one only",
        ));
    }
    let interpreter = Interpreter::load(library, &environment.version)
        .ok_or_else(|| failed("the shared library of its interpreter cannot be loaded"))?;
    let (ours, theirs) = UnixStream::pair().map_err(cannot_begin)?;
    let python = environment.python.display().to_string();
    let core = launch.core().display().to_string();
    let run = move || {
        let theirs = OwnedFd::from(theirs);
        let descriptor = theirs.as_raw_fd().to_string();
        // The interpreter owns it from now on.
        std::mem::forget(theirs);
        let line = [&*python, "-I", "-c", BOOT, &core, &descriptor, IN_PROCESS];
        interpreter.run(&line)
    };
    let thread = thread::Builder::new().name("python".into());
    thread
        .stack_size(STACK_BYTES)
        .spawn(run)
        .map_err(cannot_begin)?;
    let keys = new_keys().map_err(cannot_begin)?;
    let mut wire = Wire::new(ours, None, Keys::from_bytes(keys)).map_err(cannot_begin)?;
    wire.introduce(&keys).await.map_err(cannot_begin)?;
    Ok(wire)
}

fn cannot_begin(source: std::io::Error) -> Error {
    Error::Io {
        doing: "cannot start an interpreter in this process".into(),
        source,
    }
}

/// Counts a call for as long as it lives.
struct Waiting<'c>(&'c AtomicUsize);

impl<'c> Waiting<'c> {
    fn begin(count: &'c AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(count)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
