//! One worker process: start, talk, kill.

use std::collections::VecDeque;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream as StdUnixStream;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arrow_array::RecordBatch;
use rustix::process::{Pid, Signal, kill_process_group};
use serde::de::DeserializeOwned;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::UnixStream;
use tokio::process::{Child, ChildStderr};

use crate::launch::Launch;
use crate::protocol::{self, Answer, Exception, Fault, FunctionToLoad, PREFIX_BYTES, Request};
use crate::{EnvelopeFile, Error, PythonError};

/// How long a worker may take to import and load: torch on a cold disk takes a minute.
const START_DEADLINE: Duration = Duration::from_secs(300);

/// Lines of standard error that are kept to explain a death.
const STDERR_LINES: usize = 20;

/// Longest line of standard error that is kept, in bytes; the rest of it is cut.
const STDERR_LINE_BYTES: usize = 2000;

/// How long a dying worker may take to be reaped before its death is reported without a reason.
const REAP_DEADLINE: Duration = Duration::from_secs(2);

/// A live worker process that has loaded its envelope.
#[derive(Debug)]
pub(crate) struct Process {
    child: Child,
    /// Its process group, which it leads and which what it starts belongs to.
    group: Option<Pid>,
    socket: UnixStream,
    stderr: StderrTail,
    next_call: u64,
}

/// The last lines that a process wrote to standard error.
#[derive(Debug, Clone, Default)]
struct StderrTail(Arc<Mutex<VecDeque<String>>>);

/// What to call.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Call<'c> {
    pub(crate) function: &'c str,
    pub(crate) each_row: bool,
}

impl Process {
    /// Starts a process and loads the envelope's functions into it.
    pub(crate) async fn start(launch: &Launch, envelope: &EnvelopeFile) -> Result<Self, Error> {
        let (request, pickle) = load_request(launch, envelope)?;
        let mut process = Self::spawn(launch).map_err(|source| Error::Io {
            doing: "cannot start a worker process".into(),
            source,
        })?;
        match tokio::time::timeout(START_DEADLINE, process.load(&request, &pickle)).await {
            Ok(Ok(Answer::Ready { .. })) => Ok(process),
            Ok(Ok(Answer::NotLoaded { exception })) => {
                Err(process.not_started(explain(&exception)))
            }
            Ok(Ok(_)) => Err(process.not_started("it answered out of turn".into())),
            Ok(Err(_)) => {
                let reason = process.death().await;
                Err(process.not_started(reason))
            }
            Err(_) => Err(process.not_started(format!(
                "it was not ready after {} s",
                START_DEADLINE.as_secs()
            ))),
        }
    }

    fn spawn(launch: &Launch) -> io::Result<Self> {
        let (ours, theirs) = StdUnixStream::pair()?;
        ours.set_nonblocking(true)?;
        let mut child = launch.spawn(OwnedFd::from(theirs))?;
        let stderr = StderrTail::default();
        if let Some(pipe) = child.stderr.take() {
            tokio::spawn(stderr.clone().follow(pipe));
        }
        let group = child
            .id()
            .and_then(|id| i32::try_from(id).ok())
            .and_then(Pid::from_raw);
        Ok(Self {
            child,
            group,
            socket: UnixStream::from_std(ours)?,
            stderr,
            next_call: 0,
        })
    }

    async fn load(&mut self, request: &Request, pickle: &[u8]) -> io::Result<Answer> {
        send(&mut self.socket, request, pickle).await?;
        Ok(receive(&mut self.socket).await?.0)
    }

    /// Calls a function. After [`Error::Crashed`] the process is of no more use.
    pub(crate) async fn call(
        &mut self,
        call: Call<'_>,
        rows: &RecordBatch,
    ) -> Result<RecordBatch, Error> {
        self.next_call += 1;
        let id = self.next_call;
        let mut body = Vec::new();
        protocol::write_rows(rows, &mut body).map_err(|error| Error::RowsDoNotFit {
            function: call.function.into(),
            reason: error.to_string(),
        })?;
        let request = Request::Call {
            id,
            function: call.function.into(),
            each_row: call.each_row,
        };
        let answered = async {
            send(&mut self.socket, &request, &body).await?;
            receive::<Answer>(&mut self.socket).await
        };
        match answered.await {
            Ok((Answer::Rows { id: answered }, body)) if answered == id => {
                protocol::read_rows(&body).map_err(|error| Error::Output {
                    function: call.function.into(),
                    reason: format!("its rows cannot be read: {error}"),
                })
            }
            Ok((
                Answer::Failed {
                    id: answered,
                    fault,
                    exception,
                },
                _,
            )) if answered == id => Err(failure(call.function, fault, exception)),
            Ok(_) => Err(self.crashed("it answered another call".into())),
            Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                Err(self.crashed("something else wrote to its socket".into()))
            }
            Err(_) => {
                let reason = self.death().await;
                Err(self.crashed(reason))
            }
        }
    }

    /// Whether the process has not ended yet.
    pub(crate) fn is_alive(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// How the process ended, in words.
    async fn death(&mut self) -> String {
        use std::os::unix::process::ExitStatusExt as _;

        match tokio::time::timeout(REAP_DEADLINE, self.child.wait()).await {
            Ok(Ok(status)) => match (status.signal(), status.code()) {
                (Some(9), _) => "it was killed (signal 9; often for lack of memory)".into(),
                (Some(11), _) => "segmentation fault (signal 11)".into(),
                (Some(6), _) => "it aborted (signal 6)".into(),
                (Some(signal), _) => format!("signal {signal}"),
                (None, code) => format!("it exited with status {}", code.unwrap_or_default()),
            },
            Ok(Err(_)) | Err(_) => "it closed its socket".into(),
        }
    }

    fn crashed(&self, reason: String) -> Error {
        Error::Crashed {
            reason,
            stderr: self.stderr.text(),
        }
    }

    fn not_started(&self, reason: String) -> Error {
        Error::Start {
            reason,
            stderr: self.stderr.text(),
        }
    }
}

impl Drop for Process {
    /// Ends the process and everything it started.
    fn drop(&mut self) {
        if let Some(group) = self.group {
            // All of it may have ended already; then there is nothing to kill.
            let _ = kill_process_group(group, Signal::KILL);
        }
    }
}

impl StderrTail {
    async fn follow(self, pipe: ChildStderr) {
        let mut reader = BufReader::new(pipe);
        let mut line = Vec::new();
        loop {
            line.clear();
            // Bounded: a model that floods standard error without a line end must not fill our memory.
            match (&mut reader)
                .take(STDERR_LINE_BYTES as u64)
                .read_until(b'\n', &mut line)
                .await
            {
                Ok(0) | Err(_) => return,
                Ok(_) => self.push(String::from_utf8_lossy(&line).trim_end().to_owned()),
            }
        }
    }

    fn push(&self, line: String) {
        tracing::debug!(target: "worker", "{line}");
        let mut lines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if lines.len() == STDERR_LINES {
            lines.pop_front();
        }
        lines.push_back(line);
    }

    fn text(&self) -> String {
        let lines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        lines
            .iter()
            .map(String::as_str)
            .collect::<Vec<_>>()
            .join("\n")
    }
}

/// What a worker needs to load the envelope: small things in the message, large ones by place.
fn load_request(launch: &Launch, envelope: &EnvelopeFile) -> Result<(Request, Vec<u8>), Error> {
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
    };
    Ok((request, envelope.read(&manifest.state.pickle)?))
}

fn explain(exception: &Exception) -> String {
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

async fn send(socket: &mut UnixStream, request: &Request, body: &[u8]) -> io::Result<()> {
    let head = protocol::head(request, body.len())?;
    socket.write_all(&head).await?;
    socket.write_all(body).await
}

async fn receive<T: DeserializeOwned>(socket: &mut UnixStream) -> io::Result<(T, Vec<u8>)> {
    let mut prefix = [0; PREFIX_BYTES];
    socket.read_exact(&mut prefix).await?;
    let (header_bytes, body_bytes) = protocol::lengths(&prefix)?;
    let mut header = vec![0; header_bytes];
    socket.read_exact(&mut header).await?;
    let mut body = vec![0; body_bytes];
    socket.read_exact(&mut body).await?;
    let header = serde_json::from_slice(&header)
        .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
    Ok((header, body))
}
