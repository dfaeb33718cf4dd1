//! The native half of the Python package: writes and opens envelopes, remembers them in the local
//! store, and runs their functions in workers. What can be said in Python is said in Python.
#![allow(
    clippy::needless_pass_by_value,
    reason = "arguments come from Python by value"
)]

mod archive;
mod fault;
mod flush;
mod runner;
mod statistics;
mod store;

use pyo3::prelude::*;

#[pymodule]
mod _native {
    use pyo3::prelude::*;

    #[pymodule_export]
    use super::archive::{EnvelopeWriter, check_trust, mapped_members, open_envelope, read_member};
    #[pymodule_export]
    use super::runner::Runner;
    #[pymodule_export]
    use super::statistics::{merge_statistics, read_statistics, statistics};
    #[pymodule_export]
    use super::store::Store;

    #[pymodule_init]
    fn init(module: &Bound<'_, PyModule>) -> PyResult<()> {
        module.add("Batch", module.py().get_type::<worker::Batch>())
    }

    /// The conversions between Python objects and batches: the same code as in the workers.
    #[pyfunction]
    fn conversions(py: Python<'_>) -> PyResult<Bound<'_, PyModule>> {
        worker::conversions(py).cloned()
    }
}
