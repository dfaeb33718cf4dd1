//! Envelopes as files.

use std::fs::File;
use std::io::BufWriter;
use std::path::PathBuf;

use envelope_format::{Content, Draft, Envelope, Manifest, MemberName};
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use crate::fault;

/// Writes an envelope and gives its digest. `manifest` is JSON without `members`; a member is
/// `(name, mapped, content)`, where `mapped` content is kept as it is, on pages of its own.
#[pyfunction]
pub(crate) fn write_envelope(
    py: Python<'_>,
    path: PathBuf,
    manifest: &str,
    members: Vec<(String, bool, Bound<'_, PyBytes>)>,
) -> PyResult<String> {
    let manifest: Manifest = serde_json::from_str(manifest).map_err(|error| {
        fault::raise(py, &fault::Fault::new("invalid_input", error.to_string()))
    })?;
    let mut draft = Draft::new(manifest);
    for (name, mapped, content) in &members {
        let name: MemberName = name.parse().map_err(|error| fault::format(py, &error))?;
        let content = match mapped {
            true => Content::Buffer(content.as_bytes()),
            false => Content::Text(content.as_bytes().to_vec()),
        };
        draft
            .add(name, content)
            .map_err(|error| fault::format(py, &error))?;
    }
    let mut out = BufWriter::new(File::create(path)?);
    let digest = draft
        .write(&mut out)
        .map_err(|error| fault::format(py, &error))?;
    Ok(digest.to_string())
}

/// Opens an envelope; gives its manifest as JSON, and its digest. Runs nothing that is in it.
#[pyfunction]
pub(crate) fn open_envelope(py: Python<'_>, path: PathBuf) -> PyResult<(String, String)> {
    let envelope = Envelope::open(File::open(path)?).map_err(|error| fault::format(py, &error))?;
    let manifest = serde_json::to_string(envelope.manifest()).map_err(std::io::Error::from)?;
    Ok((manifest, envelope.digest().to_string()))
}

/// Reads one member and checks its digest.
#[pyfunction]
pub(crate) fn read_member<'py>(
    py: Python<'py>,
    path: PathBuf,
    name: &str,
) -> PyResult<Bound<'py, PyBytes>> {
    let read = || {
        let name: MemberName = name.parse()?;
        Envelope::open(File::open(path)?)?.read(&name)
    };
    let content = read().map_err(|error: envelope_format::Error| fault::format(py, &error))?;
    Ok(PyBytes::new(py, &content))
}
