//! Statistics of rows: computed when a function is saved, checked when they are read.

use std::fs::File;
use std::path::PathBuf;

use envelope_format::Envelope;
use envelope_format::statistics::{InvalidStatistics, Statistics, TableStatistics};
use pyo3::prelude::*;
use worker::Batch;

use crate::fault;

/// The document with the statistics of what a function takes and gives.
#[pyfunction]
pub(crate) fn statistics(
    py: Python<'_>,
    input: PyRef<'_, Batch>,
    output: PyRef<'_, Batch>,
) -> PyResult<String> {
    let (input, output) = (input.rows().clone(), output.rows().clone());
    let described = py.detach(|| {
        let described =
            Statistics::new(runtime::statistics(&input)?, runtime::statistics(&output)?);
        described.to_json()
    });
    described.map_err(|error| fault::statistics(py, &error))
}

/// Reads the statistics of a function and checks them against its signature.
#[pyfunction]
pub(crate) fn read_statistics(
    py: Python<'_>,
    path: PathBuf,
    function: &str,
) -> PyResult<Option<String>> {
    let read = || {
        let envelope = Envelope::open(File::open(path)?)?;
        let function = envelope.manifest().function(Some(function))?;
        let member = function.statistics.as_ref();
        let bytes = member.map(|member| envelope.read(member)).transpose()?;
        Ok(bytes.map(|bytes| (bytes, function.signature.clone())))
    };
    let found = read().map_err(|error: envelope_format::Error| fault::format(py, &error))?;
    let Some((bytes, signature)) = found else {
        return Ok(None);
    };
    let read = Statistics::from_bytes(&bytes, &signature).and_then(|found| found.to_json());
    read.map(Some)
        .map_err(|error| fault::statistics(py, &error))
}

/// Merges the statistics of rows, each as JSON.
#[pyfunction]
pub(crate) fn merge_statistics(py: Python<'_>, one: &str, other: &str) -> PyResult<String> {
    let parse = |text| {
        serde_json::from_str::<TableStatistics>(text)
            .map_err(|source| InvalidStatistics::Syntax { source })
    };
    let merged = || {
        serde_json::to_string(&parse(one)?.merge(&parse(other)?)?)
            .map_err(|source| InvalidStatistics::Syntax { source })
    };
    merged().map_err(|error| fault::statistics(py, &error))
}
