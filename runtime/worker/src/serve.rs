//! The loop of every process: answer what the host asks, until it is gone.

use std::io;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use arrow_array::RecordBatch;
use pyo3::prelude::*;
use pyo3::types::PyList;

use crate::fork::{Children, Side};
use crate::link::{Link, Received};
use crate::load::{self, Loaded};
use crate::protocol::{
    Answer, Body, Exception, Fault, IN_PROCESS, Keys, Loading, Request, RowsIn, RowsOut,
};
use crate::python::{loading, observer};
use crate::{Batch, capsule, conversions};

/// A worker tells how much memory it has once in so many calls.
const CALLS_PER_MEASURE: u64 = 64;

/// Serves the host on the socket `descriptor` until it is closed. `view` is how well this process is
/// confined.
#[pyfunction]
pub(crate) fn main(py: Python<'_>, descriptor: i32, view: &str) -> PyResult<()> {
    let socket = capsule::own_descriptor(py, descriptor)?;
    let mut worker = Worker {
        link: Link::first(socket)?,
        view: view.to_owned(),
        functions: vec![],
        observer: None,
        children: Children::default(),
        calls: Calls::default(),
    };
    let served = worker.serve_all(py);
    if view == IN_PROCESS {
        py.import("sys")?.getattr("stdout")?.call_method0("flush")?;
        // Libraries that have run in it do not all survive the end of an interpreter.
        py.detach(|| {
            loop {
                std::thread::park();
            }
        })
    }
    py.detach(|| worker.children.end_all());
    served
}

struct Worker {
    link: Link,
    view: String,
    functions: Vec<Loaded>,
    /// There when the host asked for it.
    observer: Option<Py<PyModule>>,
    children: Children,
    calls: Calls,
}

/// What one call leaves for the next.
#[derive(Debug, Default)]
struct Calls {
    input: RowsIn,
    output: RowsOut,
    count: u64,
    /// Memory of its own that the process had at the first call, in KiB.
    first_kib: u64,
}

/// One call.
struct Asked<'m> {
    id: u64,
    name: &'m str,
    each_row: bool,
}

impl Worker {
    fn serve_all(&mut self, py: Python<'_>) -> PyResult<()> {
        while let Some(received) = py.detach(|| self.link.receive())? {
            self.serve(py, received)?;
        }
        Ok(())
    }

    fn serve(&mut self, py: Python<'_>, received: Received) -> PyResult<()> {
        let Received {
            request,
            body,
            fresh,
            descriptors,
        } = received;
        match request {
            Request::Fork { keys } => self.fork(py, descriptors, keys),
            Request::End { pid, patience_ms } => {
                let patience = Duration::from_millis(patience_ms.into());
                let ending = py.detach(|| self.children.end(pid, patience));
                self.tell(&Answer::Ended { ending })
            }
            Request::Import { folder, modules } => {
                load::import(py, folder.as_deref(), modules)?;
                self.tell(&Answer::Imported)
            }
            Request::Load {
                modules,
                file,
                buffers,
                functions,
                observe,
            } => {
                if observe && self.observer.is_none() {
                    self.observer = Some(observer(py, &self.view)?.unbind());
                }
                let began = Instant::now();
                let modules = modules.as_deref();
                let loaded = load::state(py, modules, &file, &buffers, &body).and_then(
                    |(state, loading)| Ok((load::functions(&state, &functions)?, loading)),
                );
                self.timed(py, "load", began)?;
                self.loaded(py, loaded)
            }
            Request::Observed => self.tell_observed(py),
            Request::Modules => {
                let modules = loading(py)?.call_method0("imported_since")?.extract()?;
                self.tell(&Answer::Modules { modules })
            }
            Request::Call {
                id,
                function,
                each_row,
            } => {
                let name = &function;
                let rows = self.calls.input.rows(body, fresh);
                let rows = rows.map_err(crate::batch::arrow_error)?;
                self.answer(py, &Asked { id, name, each_row }, rows)
            }
        }
    }

    /// Becomes two processes; the new one serves another socket.
    fn fork(&mut self, py: Python<'_>, descriptors: Vec<OwnedFd>, keys: Keys) -> PyResult<()> {
        let Ok([socket, stderr, arena]) = <[OwnedFd; 3]>::try_from(descriptors) else {
            let reason = "it has too many files open".into();
            return self.tell(&Answer::NotForked { reason });
        };
        match self.children.fork(py, &stderr)? {
            Side::Child => {
                self.link = Link::new(socket, Some(arena), keys);
                self.keep_for_itself(py)
            }
            Side::Parent { child } => self.tell(&Answer::Forked {
                pid: child.as_raw_nonzero().get(),
            }),
            Side::Refused { reason } => self.tell(&Answer::NotForked { reason }),
        }
    }

    /// What functions fork has no part in the conversation with the host: the end of this process
    /// would not be noticed before theirs.
    fn keep_for_itself(&self, py: Python<'_>) -> PyResult<()> {
        let descriptors = self.link.descriptors();
        loading(py)?
            .call_method1("keep_for_itself", (descriptors,))
            .map(drop)
    }

    fn loaded(&mut self, py: Python<'_>, loaded: PyResult<(Vec<Loaded>, Loading)>) -> PyResult<()> {
        match loaded {
            Ok((functions, done)) => {
                self.functions = functions;
                loading(py)?.call_method0("settled")?;
                self.tell(&Answer::Ready(done))
            }
            Err(error) => self.tell(&Answer::NotLoaded {
                exception: exception(py, &error),
            }),
        }
    }

    fn answer(&mut self, py: Python<'_>, asked: &Asked<'_>, rows: RecordBatch) -> PyResult<()> {
        let &Asked { id, name, each_row } = asked;
        let grown_kib = self.calls.measured(py)?;
        let Some(function) = self.functions.iter().find(|function| function.name == name) else {
            let exception = Exception {
                kind: "LookupError".into(),
                message: name.into(),
                traceback: String::new(),
            };
            let fault = Fault::Input;
            return self.tell(&Answer::Failed {
                id,
                fault,
                exception,
            });
        };
        let began = Instant::now();
        let called = if each_row {
            call_each(py, function, &rows)
        } else {
            call(py, function, rows)
        };
        let inside_ns = u64::try_from(began.elapsed().as_nanos()).unwrap_or(u64::MAX);
        self.timed(py, "call", began)?;
        match called {
            Ok(rows) => {
                let body = self.calls.output.body(rows.rows());
                let body = body.map_err(crate::batch::arrow_error)?;
                let answer = Answer::Rows {
                    id,
                    grown_kib,
                    inside_ns,
                };
                Ok(py.detach(|| self.link.send(&answer, &body))?)
            }
            Err((fault, error)) => {
                let exception = exception(py, &error);
                self.tell(&Answer::Failed {
                    id,
                    fault,
                    exception,
                })
            }
        }
    }

    /// What the observer has seen, which calls of it are not part of.
    fn tell_observed(&self, py: Python<'_>) -> PyResult<()> {
        let seen = match &self.observer {
            Some(observer) => observer
                .bind(py)
                .call_method0("seen")?
                .extract::<String>()?,
            None => "null".into(),
        };
        let seen = serde_json::from_str(&seen).map_err(io::Error::from)?;
        self.tell(&Answer::Observed { seen })
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

    fn tell(&self, answer: &Answer) -> PyResult<()> {
        Ok(self.link.send(answer, &Body::default())?)
    }
}

impl Calls {
    /// How much memory the process has got since its first call, in KiB, when it is time to tell.
    fn measured(&mut self, py: Python<'_>) -> PyResult<Option<u64>> {
        let count = self.count;
        self.count += 1;
        if !count.is_multiple_of(CALLS_PER_MEASURE) {
            return Ok(None);
        }
        let own: u64 = loading(py)?.call_method0("own_kib")?.extract()?;
        if count == 0 {
            self.first_kib = own;
        }
        Ok(Some(own.saturating_sub(self.first_kib)))
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
