//! Pickle and mapped buffers → callables.

use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyList};

use crate::conversions;
use crate::protocol::{FunctionToLoad, Loading};
use crate::python::{loading, prepared};

/// A query function that is ready to be called.
#[derive(Debug)]
pub(crate) struct Loaded {
    pub(crate) name: String,
    /// Makes the argument of a batch.
    pub(crate) decode: Py<PyAny>,
    /// Calls the function with it.
    pub(crate) apply: Py<PyAny>,
    /// Makes a batch of the answer.
    pub(crate) encode: Py<PyAny>,
}

/// Unpickles the functions as a `dict` by name, their large arrays mapped copy-on-write from `file`;
/// tells what that did to the process.
pub(crate) fn state<'py>(
    py: Python<'py>,
    modules: Option<&str>,
    file: &str,
    ranges: &[(u64, u64)],
    pickle: &[u8],
) -> PyResult<(Bound<'py, PyAny>, Loading)> {
    conversions(py)?;
    add_to_path(py, modules)?;
    let pickle = py
        .import("io")?
        .call_method1("BytesIO", (PyBytes::new(py, pickle),))?;
    let loaded = loading(py)?.call_method1("load", (pickle, buffers(py, file, ranges)?))?;
    let (state, modules, threads) = loaded.extract()?;
    let python = Python::version_str().split(' ').next();
    let python = python.unwrap_or_default().to_owned();
    let loading = Loading {
        python,
        modules,
        threads,
    };
    Ok((state, loading))
}

/// Imports modules, as far as they can be.
pub(crate) fn import(py: Python<'_>, folder: Option<&str>, names: Vec<String>) -> PyResult<()> {
    conversions(py)?;
    add_to_path(py, folder)?;
    loading(py)?.call_method1("import_all", (names,)).map(drop)
}

/// The folder of the envelope's custom modules comes first; it is there once.
fn add_to_path(py: Python<'_>, folder: Option<&str>) -> PyResult<()> {
    let path = py.import("sys")?.getattr("path")?;
    match folder {
        Some(folder) if !path.contains(folder)? => {
            path.call_method1("insert", (0, folder)).map(drop)
        }
        Some(_) | None => Ok(()),
    }
}

/// The functions of an unpickled state.
pub(crate) fn functions(
    state: &Bound<'_, PyAny>,
    functions: &[FunctionToLoad],
) -> PyResult<Vec<Loaded>> {
    let json = state.py().import("json")?.getattr("loads")?;
    let object = |rows| -> PyResult<Bound<'_, PyAny>> {
        let text = serde_json::to_string(rows).map_err(std::io::Error::from)?;
        json.call1((text,))
    };
    let loaded = functions.iter().map(|function| {
        let callable = state.get_item(&function.name)?;
        let (input, output) = (object(&function.input)?, object(&function.output)?);
        let (decode, apply, encode) = prepared(&callable, &input, &output)?;
        Ok(Loaded {
            name: function.name.clone(),
            decode,
            apply,
            encode,
        })
    });
    loaded.collect()
}

/// Copy-on-write, because some estimators write through arrays that say they are read-only; the
/// pages stay shared between workers until one does.
fn buffers<'py>(
    py: Python<'py>,
    file: &str,
    ranges: &[(u64, u64)],
) -> PyResult<Bound<'py, PyList>> {
    let list = PyList::empty(py);
    if ranges.is_empty() {
        return Ok(list);
    }
    let mmap = py.import("mmap")?;
    let options = PyDict::new(py);
    options.set_item("flags", mmap.getattr("MAP_PRIVATE")?)?;
    let protection: i32 = mmap.getattr("PROT_READ")?.extract::<i32>()?
        | mmap.getattr("PROT_WRITE")?.extract::<i32>()?;
    options.set_item("prot", protection)?;
    let opened = py
        .import("builtins")?
        .getattr("open")?
        .call1((file, "rb"))?;
    let descriptor = opened.call_method0("fileno")?;
    for (offset, length) in ranges {
        if *length == 0 {
            list.append(PyBytes::new(py, b""))?; // an empty range cannot be mapped
            continue;
        }
        options.set_item("offset", offset)?;
        let mapped = mmap
            .getattr("mmap")?
            .call((&descriptor, length), Some(&options))?;
        list.append(
            py.import("builtins")?
                .getattr("memoryview")?
                .call1((mapped,))?,
        )?;
    }
    opened.call_method0("close")?;
    Ok(list)
}
