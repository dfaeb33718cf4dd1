//! Envelopes as files.

use std::fs::File;
use std::io::Read as _;
use std::path::PathBuf;

use envelope_format::limits::MAX_ATTESTATION_BYTES;
use envelope_format::{Attestation, Buffers, Envelope, InvalidKey, Manifest, MemberName, Trust};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PySlice};
use runtime::EnvelopeFile;

use crate::fault;
use crate::flush::Flush;

/// Copied from Python, hashed and written at a time, in bytes: it fits the processor's cache.
const CHUNK_BYTES: usize = 4 << 20;

/// Writes an envelope: first the large buffers, once, then the rest, as often as it changes.
#[pyclass(module = "model_envelope")]
pub(crate) struct EnvelopeWriter {
    buffers: Buffers<File>,
    /// `None` once it has ended.
    flush: Option<Flush>,
}

#[pymethods]
impl EnvelopeWriter {
    #[new]
    fn create(path: PathBuf) -> PyResult<Self> {
        let file = File::create(path)?;
        let flush = Flush::begin(file.try_clone()?)?;
        Ok(Self {
            buffers: Buffers::new(file),
            flush: Some(flush),
        })
    }

    /// Writes a mapped member from a `memoryview` of bytes.
    fn buffer(&mut self, py: Python<'_>, name: &str, view: &Bound<'_, PyAny>) -> PyResult<()> {
        let name: MemberName = name.parse().map_err(|error| fault::format(py, &error))?;
        let size: usize = view.getattr("nbytes")?.extract()?;
        let mut buffer = self.buffers.begin(name, size as u64);
        for start in (0..size).step_by(CHUNK_BYTES) {
            let end = size.min(start + CHUNK_BYTES);
            let range = PySlice::new(py, isize::try_from(start)?, isize::try_from(end)?, 1);
            let chunk = view.get_item(range)?.call_method0("tobytes")?;
            let chunk = chunk.cast::<PyBytes>()?.as_bytes();
            py.detach(|| buffer.write(chunk))
                .map_err(|error| unwritten(py, error))?;
            if let Some(flush) = &mut self.flush {
                flush.written(chunk.len() as u64);
            }
        }
        buffer.finish().map_err(|error| unwritten(py, error))
    }

    /// Asks for the mapped members to be brought to the disk, without waiting for it.
    fn flush(&mut self) {
        if let Some(flush) = &mut self.flush {
            flush.now();
        }
    }

    /// Waits for what [`EnvelopeWriter::flush`] asked for. Who keeps the file flushes the rest.
    fn flushed(&mut self, py: Python<'_>) -> PyResult<()> {
        let flush = self.flush.take();
        py.detach(|| flush.map_or(Ok(()), Flush::end))
            .map_err(|source| unwritten(py, envelope_format::Error::Io { source }))
    }

    /// Writes everything else; gives the digest. `manifest` is JSON without `members`.
    fn finish(
        &self,
        py: Python<'_>,
        manifest: &str,
        members: Vec<(String, Bound<'_, PyBytes>)>,
    ) -> PyResult<String> {
        let manifest: Manifest = serde_json::from_str(manifest).map_err(|error| {
            fault::raise(py, &fault::Fault::new("invalid_input", error.to_string()))
        })?;
        let members = members.iter().map(|(name, content)| {
            let name = name.parse().map_err(|error| fault::format(py, &error))?;
            Ok((name, content.as_bytes().to_vec()))
        });
        let members = members.collect::<PyResult<Vec<_>>>()?;
        let written = self.buffers.finish(&manifest, &members);
        let digest = written.map_err(|error| unwritten(py, error))?;
        Ok(digest.to_string())
    }
}

/// A full disk is no fault of the envelope: `OSError`, as from any other write.
fn unwritten(py: Python<'_>, error: envelope_format::Error) -> PyErr {
    if let envelope_format::Error::Io { source } = error {
        let message = format!("cannot write the envelope: {source}");
        return std::io::Error::new(source.kind(), message).into();
    }
    fault::format(py, &error)
}

/// Offsets and lengths of the mapped members `names`, which are checked once for each file;
/// `cache` is where that is remembered.
#[pyfunction]
pub(crate) fn mapped_members(
    py: Python<'_>,
    path: PathBuf,
    names: Vec<String>,
    cache: PathBuf,
) -> PyResult<Vec<(u64, u64)>> {
    let ranges = py.detach(|| {
        let envelope = EnvelopeFile::open(path)?;
        envelope.verify_mapped(&cache)?;
        let names = names.iter().filter_map(|name| name.parse().ok());
        let ranges = names.map(|name| envelope.range(&name));
        ranges.collect::<Result<Vec<_>, runtime::Error>>()
    });
    let ranges = ranges.map_err(|error| fault::runtime(py, &error))?;
    Ok(ranges.into_iter().flatten().collect())
}

/// Opens an envelope; gives its manifest as JSON, and its digest. Runs nothing that is in it.
#[pyfunction]
pub(crate) fn open_envelope(py: Python<'_>, path: PathBuf) -> PyResult<(String, String)> {
    let envelope = envelope_format::open_file(&path)
        .and_then(Envelope::open)
        .map_err(|error| fault::format(py, &error))?;
    let manifest = serde_json::to_string(envelope.manifest()).map_err(std::io::Error::from)?;
    Ok((manifest, envelope.digest().to_string()))
}

/// Checks that a key in the file `keys` vouches for an envelope, at `now` (seconds since 1970-01-01),
/// and every byte of it. Runs nothing that is in it.
#[pyfunction]
pub(crate) fn check_trust(py: Python<'_>, path: PathBuf, keys: PathBuf, now: u64) -> PyResult<()> {
    let trust: Trust = std::fs::read_to_string(keys)?
        .parse()
        .map_err(|error: InvalidKey| PyValueError::new_err(error.to_string()))?;
    let checked = || {
        let envelope = Envelope::open(envelope_format::open_file(&path)?)?;
        let attestation = envelope_format::open_file(&path.with_added_extension("attestation"))?;
        let mut bytes = vec![];
        attestation
            .take(MAX_ATTESTATION_BYTES + 1)
            .read_to_end(&mut bytes)?;
        Attestation::parse(&bytes)?.check(envelope.digest(), &trust, now)?;
        envelope.verify()
    };
    checked().map_err(|error| fault::format(py, &error))
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
        Envelope::open(envelope_format::open_file(&path)?)?.read(&name)
    };
    let content = read().map_err(|error: envelope_format::Error| fault::format(py, &error))?;
    Ok(PyBytes::new(py, &content))
}
