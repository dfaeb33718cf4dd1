//! One worker: load, call, end.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use arrow_array::RecordBatch;
use arrow_buffer::Buffer;
use arrow_schema::ArrowError;
use tokio::time::Instant;

use crate::launch::Launch;
use crate::parent::{Child, Forked};
use crate::printed::Printed;
use crate::protocol::{
    Answer, Body, Ending, Exception, Fault, FunctionToLoad, Request, RowsIn, RowsOut,
};
use crate::runtime::Answered;
use crate::wire::{Received, Wire};
use crate::{EnvelopeFile, Error, PythonError};

/// How long a worker may take to import and load: torch on a cold disk takes a minute.
pub(crate) const START_DEADLINE: Duration = Duration::from_secs(300);

/// How long a dying worker may take to end before its death is reported without a reason.
pub(crate) const REAP_DEADLINE: Duration = Duration::from_secs(2);

/// Answers that usually come so soon are waited for awake.
const SOON: Duration = Duration::from_micros(250);

/// A live worker process.
#[derive(Debug)]
pub(crate) struct Process {
    /// Dropped first: the socket is open until the process has been told to end. `None` where it is
    /// this process.
    child: Option<Child>,
    wire: Wire,
    printed: Printed,
    rows: (RowsOut, RowsIn),
    /// How many calls it has answered.
    calls: u64,
    grown_kib: u64,
    /// How long answers take, the last ones counting most.
    usual: Duration,
}

/// What to call.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Call<'c> {
    pub(crate) function: &'c str,
    pub(crate) each_row: bool,
    /// Whether there is a core to spare to wait for a quick answer on.
    pub(crate) awake: bool,
}

impl Process {
    pub(crate) fn new(forked: Forked) -> Self {
        Self {
            child: Some(forked.child),
            printed: Printed::of(forked.stderr),
            ..Self::in_process(forked.wire)
        }
    }

    /// What is at the other end of `wire` is in this process, and prints where it prints.
    pub(crate) fn in_process(wire: Wire) -> Self {
        Self {
            child: None,
            wire,
            printed: Printed::default(),
            rows: Default::default(),
            calls: 0,
            grown_kib: 0,
            usual: Duration::ZERO,
        }
    }

    /// Loads the functions into a process that was forked without them.
    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "all other answers are to other questions"
    )]
    pub(crate) async fn load(
        &mut self,
        launch: &Launch,
        envelope: &EnvelopeFile,
    ) -> Result<(), Error> {
        let (request, pickle) = load_request(launch, envelope)?;
        let asked = tokio::time::timeout(START_DEADLINE, self.ask(&request, pickle.into()));
        match asked.await {
            Ok(Ok(Received { header, .. })) => match header {
                Answer::Ready(_) => Ok(()),
                Answer::NotLoaded { exception } => Err(self.not_started(explain(&exception))),
                _ => Err(self.not_started("it answered out of turn".into())),
            },
            Ok(Err(_)) => {
                let reason = self.death().await;
                Err(self.not_started(reason))
            }
            Err(_) => Err(self.not_started(not_ready())),
        }
    }

    /// How many calls the process has answered.
    pub(crate) fn calls(&self) -> u64 {
        self.calls
    }

    /// How much memory it has got since its first call, in bytes; measured now and then.
    pub(crate) fn grown(&self) -> u64 {
        self.grown_kib * 1024
    }

    /// Its number; 0 where it is this process.
    pub(crate) fn pid(&self) -> i32 {
        self.child.as_ref().map_or(0, Child::pid)
    }

    /// Calls a function. After [`Error::Crashed`] the process is of no more use.
    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "all other answers are to other questions"
    )]
    pub(crate) async fn call(
        &mut self,
        call: Call<'_>,
        rows: &RecordBatch,
    ) -> Result<Answered, Error> {
        let id = self.calls + 1;
        self.printed.during(id);
        let body = self
            .rows
            .0
            .body(rows)
            .map_err(|error| Error::RowsDoNotFit {
                function: call.function.into(),
                reason: error.to_string(),
            })?;
        let request = Request::Call {
            id,
            function: call.function.into(),
            each_row: call.each_row,
        };
        let Received {
            header,
            body,
            fresh,
        } = match self.ask_again(&request, body, call.awake).await {
            Ok(received) => received,
            Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                return Err(self.crashed("something else wrote to its socket".into()));
            }
            Err(_) => {
                let reason = self.death().await;
                return Err(self.crashed(reason));
            }
        };
        match header {
            Answer::Rows {
                id: answered,
                grown_kib,
                inside_ns,
            } if answered == id => {
                self.calls = id;
                self.grown_kib = grown_kib.unwrap_or(self.grown_kib);
                let rows = self
                    .read(body, fresh)
                    .map_err(|error| self.crashed(format!("its rows cannot be read: {error}")))?;
                let inside = Duration::from_nanos(inside_ns);
                Ok(Answered { rows, inside })
            }
            Answer::Failed {
                id: answered,
                fault,
                exception,
            } if answered == id => {
                self.calls = id;
                Err(failure(call.function, fault, exception))
            }
            _ => Err(self.crashed("it answered another call".into())),
        }
    }

    /// The reader of rows panics at some that no writer makes; a worker may send anything.
    fn read(&mut self, body: Buffer, fresh: bool) -> Result<RecordBatch, ArrowError> {
        let rows = &mut self.rows.1;
        catch_unwind(AssertUnwindSafe(|| rows.rows(body, fresh))).unwrap_or_else(|_| {
            Err(ArrowError::IpcError(
                "they are not in Arrow's format".into(),
            ))
        })
    }

    /// What the process has noted about what its functions do.
    pub(crate) async fn observed(&mut self) -> Result<serde_json::Value, Error> {
        match self.ask(&Request::Observed, Body::default()).await {
            Ok(Received {
                header: Answer::Observed { seen },
                ..
            }) => Ok(seen),
            Ok(_) => Err(self.crashed("it answered out of turn".into())),
            Err(_) => {
                let reason = self.death().await;
                Err(self.crashed(reason))
            }
        }
    }

    /// The modules that its calls have imported.
    pub(crate) async fn modules(&mut self) -> Result<Vec<String>, Error> {
        match self.ask(&Request::Modules, Body::default()).await {
            Ok(Received {
                header: Answer::Modules { modules },
                ..
            }) => Ok(modules),
            Ok(_) | Err(_) => Err(self.crashed("it does not tell its modules".into())),
        }
    }

    async fn ask(&mut self, request: &Request, body: Body) -> io::Result<Received<Answer>> {
        self.wire.send(request, body).await?;
        self.wire.receive(Duration::ZERO).await
    }

    /// As `ask`, for what takes about as long each time.
    async fn ask_again(
        &mut self,
        request: &Request,
        body: Body,
        awake: bool,
    ) -> io::Result<Received<Answer>> {
        self.wire.send(request, body).await?;
        let began = Instant::now();
        let is_soon = awake && self.usual < SOON;
        let patience = if is_soon {
            self.usual * 2
        } else {
            Duration::ZERO
        };
        let received = self.wire.receive(patience).await;
        self.usual = (self.usual * 7 + began.elapsed()) / 8;
        received
    }

    /// Whether the process can be called: it has neither ended nor said what nobody asked for.
    pub(crate) fn is_ready(&self) -> bool {
        self.wire.is_quiet()
    }

    /// How the process ended, in words.
    async fn death(&mut self) -> String {
        let Some(child) = &mut self.child else {
            return "the interpreter in this process has ended".into();
        };
        let ending = child.end(REAP_DEADLINE).await;
        self.printed.settle().await;
        told(ending)
    }

    fn crashed(&self, reason: String) -> Error {
        Error::Crashed {
            reason,
            stderr: self.printed.text(),
        }
    }

    fn not_started(&self, reason: String) -> Error {
        Error::Start {
            reason,
            stderr: self.printed.text(),
        }
    }
}

/// That a process has missed [`START_DEADLINE`], in words.
pub(crate) fn not_ready() -> String {
    format!("it was not ready after {} s", START_DEADLINE.as_secs())
}

/// How a process ended, in words.
pub(crate) fn told(ending: Ending) -> String {
    match ending {
        Ending::Signalled(9) => "it was killed (signal 9; often for lack of memory)".into(),
        Ending::Signalled(11) => "segmentation fault (signal 11)".into(),
        Ending::Signalled(6) => "it aborted (signal 6)".into(),
        Ending::Signalled(signal) => format!("signal {signal}"),
        Ending::Exited(status) => format!("it exited with status {status}"),
        Ending::Killed => "it closed its socket".into(),
        Ending::Unknown => "it ended with the process that it was forked from".into(),
    }
}

/// What a worker needs to load the envelope: small things in the message, large ones by place.
pub(crate) fn load_request(
    launch: &Launch,
    envelope: &EnvelopeFile,
) -> Result<(Request, Vec<u8>), Error> {
    let manifest = envelope.manifest();
    let functions = manifest.functions.iter().map(|function| FunctionToLoad {
        name: function.name.clone(),
        input: function.signature.input.clone(),
        output: function.signature.output.clone(),
    });
    let ranges = manifest.state.buffers.iter();
    let ranges = ranges.map(|name| envelope.range(name));
    let buffers = ranges.collect::<Result<Vec<_>, Error>>()?;
    let text = |path: &std::path::Path| path.display().to_string();
    let request = Request::Load {
        modules: launch.modules(envelope).map(|path| text(&path)),
        file: text(envelope.path()),
        buffers: buffers.into_iter().flatten().collect(),
        functions: functions.collect(),
        observe: launch.is_observed(),
    };
    Ok((request, envelope.read(&manifest.state.pickle)?))
}

pub(crate) fn explain(exception: &Exception) -> String {
    format!("{}: {}", exception.kind, exception.message)
}

fn failure(function: &str, fault: Fault, exception: Exception) -> Error {
    let function = function.to_owned();
    match fault {
        Fault::Input => Error::RowsDoNotFit {
            function,
            reason: exception.message,
        },
        Fault::Output => Error::Output {
            function,
            reason: exception.message,
        },
        Fault::Function => {
            let Exception {
                kind,
                message,
                traceback,
            } = exception;
            Error::Function {
                function,
                exception: PythonError {
                    kind,
                    message,
                    traceback,
                },
            }
        }
    }
}
