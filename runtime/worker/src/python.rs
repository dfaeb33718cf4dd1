//! The Python sources of the conversions, compiled in.

use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;

use crate::Batch;
use crate::prepared::Columns;

const LOADING: &str = include_str!("python/loading.py");

const OBSERVE: &str = include_str!("python/observe.py");

/// In the order in which they need each other.
const SOURCES: [(&str, &str); 8] = [
    ("_envelope_kinds", include_str!("python/kinds.py")),
    ("_envelope_columns", include_str!("python/columns.py")),
    ("_envelope_objects", include_str!("python/objects.py")),
    ("_envelope_tables", include_str!("python/tables.py")),
    ("_envelope_same", include_str!("python/same.py")),
    ("_envelope_rows", include_str!("python/rows.py")),
    ("_envelope_frames", include_str!("python/frames.py")),
    ("_envelope_prepared", include_str!("python/prepared.py")),
];

/// The module `rows.py`, made on first use.
///
/// # Errors
/// When the interpreter cannot run it.
pub fn conversions(py: Python<'_>) -> PyResult<&Bound<'_, PyModule>> {
    static MODULE: PyOnceLock<Py<PyModule>> = PyOnceLock::new();
    let module = MODULE.get_or_try_init(py, || {
        let batch = define(py, "", "_envelope_batch")?;
        batch.add("Batch", py.get_type::<Batch>())?;
        batch.add("Columns", py.get_type::<Columns>())?;
        for (name, source) in SOURCES {
            define(py, source, name)?;
        }
        let rows = py.import("_envelope_rows")?;
        PyResult::Ok(rows.unbind())
    })?;
    Ok(module.bind(py))
}

/// The module `loading.py`, made on first use.
pub(crate) fn loading(py: Python<'_>) -> PyResult<&Bound<'_, PyModule>> {
    static MODULE: PyOnceLock<Py<PyModule>> = PyOnceLock::new();
    let module = MODULE.get_or_try_init(py, || {
        PyResult::Ok(define(py, LOADING, "_envelope_loading")?.unbind())
    })?;
    Ok(module.bind(py))
}

/// The conversions of one function, from the module `prepared.py`: what makes its argument of a
/// batch, what calls it with that, and what makes a batch of its answer.
pub(crate) fn prepared<'py>(
    function: &Bound<'py, PyAny>,
    input: &Bound<'py, PyAny>,
    output: &Bound<'py, PyAny>,
) -> PyResult<(Py<PyAny>, Py<PyAny>, Py<PyAny>)> {
    conversions(function.py())?;
    let module = function.py().import("_envelope_prepared")?;
    module
        .call_method1("prepare", (function, input, output, "prediction"))?
        .extract()
}

/// The module `observe.py`, which from now on notes what this process does.
pub(crate) fn observer<'py>(py: Python<'py>, view: &str) -> PyResult<Bound<'py, PyModule>> {
    let module = define(py, OBSERVE, "_envelope_observe")?;
    module.call_method1("begin", (view,))?;
    Ok(module)
}

/// Makes a module from source and registers it, as an import would.
fn define<'py>(py: Python<'py>, source: &str, name: &str) -> PyResult<Bound<'py, PyModule>> {
    let types = py.import("types")?;
    let module = types
        .getattr("ModuleType")?
        .call1((name,))?
        .cast_into::<PyModule>()?;
    py.import("sys")?
        .getattr("modules")?
        .set_item(name, &module)?;
    let code = py.import("builtins")?.getattr("compile")?;
    let code = code.call1((source, format!("<{name}>"), "exec"))?;
    py.import("builtins")?
        .getattr("exec")?
        .call1((code, module.dict()))?;
    Ok(module)
}
