//! The part of Model Envelope that runs inside `CPython`: one build for every minor from 3.10 on.
//!
//! As a cdylib it is the core of a worker process: the launcher starts an interpreter, which loads
//! this library by path and calls `main`. As an rlib it gives the Python package the same
//! conversions, so that saving and serving cannot disagree about what a value is.
//!
//! Read in this order: [`serve`] is the worker's loop; `python/rows.py` and `python/columns.py`
//! convert between Python objects and [`Batch`]es; [`read`] and [`assemble`] do it value by value,
//! [`exact`] changes types where that changes no value. `python/prepared.py`, `python/frames.py` and
//! [`prepared`] do the same for usual functions, with all that a signature says settled beforehand.
#![allow(
    clippy::needless_pass_by_value,
    clippy::too_many_arguments,
    reason = "arguments come from Python by value, and the interpreter's token is one of them"
)]

mod assemble;
mod batch;
mod capsule;
mod exact;
mod fork;
mod link;
mod load;
mod prepared;
#[path = "../../src/protocol.rs"]
#[allow(dead_code, reason = "the host's half of a shared file")]
mod protocol;
mod python;
mod read;
#[path = "../../src/schema.rs"]
#[allow(
    dead_code,
    unreachable_pub,
    reason = "the host's half of a shared file"
)]
mod schema;
mod serve;

pub use batch::Batch;
pub use python::conversions;

use pyo3::prelude::*;

/// The module that the interpreter of a worker loads.
#[pymodule]
fn envelope_worker(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_function(wrap_pyfunction!(serve::main, module)?)
}
