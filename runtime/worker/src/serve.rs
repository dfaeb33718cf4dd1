//! The worker's loop: load once, then answer calls until the host is gone.

use std::io::{self, Read as _, Write as _};
use std::os::fd::AsFd as _;
use std::os::unix::net::UnixStream;
use std::time::Instant;

use arrow_array::RecordBatch;
use pyo3::prelude::*;
use pyo3::types::PyList;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{Signal, getpgrp, kill_process_group};

use crate::load::{self, Loaded};
use crate::protocol::{self, Answer, Exception, Fault, PREFIX_BYTES, Request};
use crate::python::observer;
use crate::{Batch, capsule, conversions};

/// Serves the host on the socket `descriptor` until it is closed. `view` is how well this process is
/// confined.
#[pyfunction]
pub(crate) fn main(py: Python<'_>, descriptor: i32, view: &str) -> PyResult<()> {
    let socket = UnixStream::from(capsule::own_descriptor(py, descriptor)?);
    die_with_host(socket.try_clone()?)?;
    let mut worker = Worker {
        socket,
        functions: vec![],
        observer: None,
    };
    while let Some((request, body)) = py.detach(|| receive(&mut worker.socket))? {
        match request {
            Request::Load {
                modules,
                file,
                buffers,
                functions,
                observe,
            } => {
                if observe {
                    worker.observer = Some(observer(py, view)?.unbind());
                }
                let began = Instant::now();
                let modules = modules.as_deref();
                let loaded = load::state(py, modules, &file, &buffers, &body)
                    .and_then(|state| load::functions(&state, &functions));
                worker.timed(py, "load", began)?;
                worker.loaded(py, loaded)?;
            }
            Request::Observed => worker.tell(py)?,
            Request::Call {
                id,
                function,
                each_row,
            } => {
                let name = &function;
                worker.answer(py, &Asked { id, name, each_row }, &body)?;
            }
        }
    }
    Ok(())
}

struct Worker {
    socket: UnixStream,
    functions: Vec<Loaded>,
    /// There when the host asked for it.
    observer: Option<Py<PyModule>>,
}

/// One call.
struct Asked<'m> {
    id: u64,
    name: &'m str,
    each_row: bool,
}

impl Worker {
    fn loaded(&mut self, py: Python<'_>, loaded: PyResult<Vec<Loaded>>) -> PyResult<()> {
        match loaded {
            Ok(loaded) => {
                self.functions = loaded;
                let python = Python::version_str()
                    .split(' ')
                    .next()
                    .unwrap_or_default()
                    .to_owned();
                self.send(&Answer::Ready { python }, &[])
            }
            Err(error) => self.send(
                &Answer::NotLoaded {
                    exception: exception(py, &error),
                },
                &[],
            ),
        }
    }

    fn answer(&mut self, py: Python<'_>, asked: &Asked<'_>, body: &[u8]) -> PyResult<()> {
        let &Asked { id, name, each_row } = asked;
        let Some(function) = self.functions.iter().find(|function| function.name == name) else {
            let exception = Exception {
                kind: "LookupError".into(),
                message: name.into(),
                traceback: String::new(),
            };
            return self.send(
                &Answer::Failed {
                    id,
                    fault: Fault::Input,
                    exception,
                },
                &[],
            );
        };
        let rows = protocol::read_rows(body).map_err(crate::batch::arrow_error)?;
        let began = Instant::now();
        let called = if each_row {
            call_each(py, function, &rows)
        } else {
            call(py, function, rows)
        };
        self.timed(py, "call", began)?;
        match called {
            Ok(rows) => {
                let mut body = Vec::new();
                protocol::write_rows(rows.rows(), &mut body).map_err(crate::batch::arrow_error)?;
                self.send(&Answer::Rows { id }, &body)
            }
            Err((fault, error)) => {
                let exception = exception(py, &error);
                self.send(
                    &Answer::Failed {
                        id,
                        fault,
                        exception,
                    },
                    &[],
                )
            }
        }
    }

    /// What the observer has seen, which calls of it are not part of.
    fn tell(&mut self, py: Python<'_>) -> PyResult<()> {
        let seen = match &self.observer {
            Some(observer) => observer
                .bind(py)
                .call_method0("seen")?
                .extract::<String>()?,
            None => "null".into(),
        };
        let seen = serde_json::from_str(&seen).map_err(io::Error::from)?;
        self.send(&Answer::Observed { seen }, &[])
    }

    /// Notes how long a step took, where somebody observes.
    fn timed(&self, py: Python<'_>, step: &str, began: Instant) -> PyResult<()> {
        match &self.observer {
            Some(observer) => observer
                .bind(py)
                .call_method1("took", (step, began.elapsed().as_secs_f64()))
                .map(drop),
            None => Ok(()),
        }
    }

    fn send(&mut self, answer: &Answer, body: &[u8]) -> PyResult<()> {
        let head = protocol::head(answer, body.len())?;
        self.socket.write_all(&head)?;
        Ok(self.socket.write_all(body)?)
    }
}

/// Rows in, function, rows out; each step knows whose fault its failure is.
fn call(py: Python<'_>, function: &Loaded, rows: RecordBatch) -> Result<Batch, (Fault, PyErr)> {
    let blame = |fault| move |error| (fault, error);
    let argument = function.decode.bind(py).call1((Batch::new(rows),));
    let argument = argument.map_err(blame(Fault::Input))?;
    let value = function.apply.bind(py).call1((argument,));
    let value = value.map_err(blame(Fault::Function))?;
    let encoded = function.encode.bind(py).call1((value,));
    let encoded = encoded.map_err(blame(Fault::Output))?;
    unwrapped(&encoded).map_err(blame(Fault::Output))
}

/// Calls a function that gives one row per call for each row.
fn call_each(
    py: Python<'_>,
    function: &Loaded,
    rows: &RecordBatch,
) -> Result<Batch, (Fault, PyErr)> {
    let answers = PyList::empty(py);
    for row in 0..rows.num_rows() {
        let answer = call(py, function, rows.slice(row, 1))?;
        answers
            .append(answer)
            .map_err(|error| (Fault::Output, error))?;
    }
    let joined = py.get_type::<Batch>().call_method1("concat", (answers,));
    joined
        .and_then(|joined| unwrapped(&joined))
        .map_err(|error| (Fault::Output, error))
}

fn unwrapped(object: &Bound<'_, PyAny>) -> PyResult<Batch> {
    Ok(object.cast::<Batch>()?.get().clone())
}

fn exception(py: Python<'_>, error: &PyErr) -> Exception {
    let value = error.value(py);
    // Before 3.12 the interpreter keeps the two apart until somebody catches the exception.
    if let Some(frames) = error.traceback(py) {
        let _ = value.setattr("__traceback__", frames);
    }
    let text = |object: PyResult<Bound<'_, PyAny>>| {
        object.map(|text| text.to_string()).unwrap_or_default()
    };
    let kind = text(value.get_type().qualname().map(Bound::into_any));
    let traceback =
        conversions(py).and_then(|module| module.call_method1("traceback_text", (value,)));
    Exception {
        kind,
        message: text(value.str().map(Bound::into_any)),
        traceback: text(traceback),
    }
}

fn receive(socket: &mut UnixStream) -> io::Result<Option<(Request, Vec<u8>)>> {
    let mut prefix = [0; PREFIX_BYTES];
    match socket.read_exact(&mut prefix) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        other => other?,
    }
    let (header_bytes, body_bytes) = protocol::lengths(&prefix)?;
    let mut header = vec![0; header_bytes];
    socket.read_exact(&mut header)?;
    let mut body = vec![0; body_bytes];
    socket.read_exact(&mut body)?;
    Ok(Some((serde_json::from_slice(&header)?, body)))
}

/// Ends this process and everything it started as soon as the host closes its end of the socket,
/// also while the interpreter is busy. (A parent-death signal would follow the *thread* that
/// started us, and would not reach grandchildren.)
fn die_with_host(socket: UnixStream) -> io::Result<()> {
    let watch = move || {
        let mut watched = [PollFd::from_borrowed_fd(socket.as_fd(), PollFlags::RDHUP)];
        while poll(&mut watched, None).is_err() {}
        // We lead our process group: the launcher made it.
        let _ = kill_process_group(getpgrp(), Signal::KILL);
    };
    std::thread::Builder::new()
        .name("die-with-host".into())
        .spawn(watch)
        .map(drop)
}
