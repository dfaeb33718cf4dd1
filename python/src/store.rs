//! The local store of envelopes.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::SystemTime;

use envelope_format::{Digest, InvalidDigest};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use registry::{Reference, Registry, TagQuery, Version};

use crate::fault;
use crate::runner::wait;

/// The versions that are kept in a folder. A version is given as JSON.
#[pyclass(frozen, module = "model_envelope")]
pub(crate) struct Store {
    registry: Registry,
}

#[pymethods]
impl Store {
    #[new]
    fn open(py: Python<'_>, root: PathBuf) -> PyResult<Self> {
        let registry =
            wait(py, Registry::open(&root))?.map_err(|error| fault::registry(py, &error))?;
        Ok(Self { registry })
    }

    /// A new file in the store to write an envelope into, for `adopt`.
    fn stage(&self, py: Python<'_>) -> PyResult<PathBuf> {
        self.registry
            .stage()
            .map_err(|error| fault::registry(py, &error))
    }

    /// Keeps the envelope in `path`, which `stage` gave and this process has written, as the next
    /// version under its name. The file is moved.
    fn adopt(&self, py: Python<'_>, path: PathBuf) -> PyResult<String> {
        #[expect(
            clippy::disallowed_methods,
            reason = "this is where the package reads the clock"
        )]
        let now = SystemTime::now();
        json(
            &wait(py, self.registry.adopt(&path, now))?
                .map_err(|error| fault::registry(py, &error))?,
        )
    }

    /// The newest version that `reference` means.
    fn resolve(&self, py: Python<'_>, reference: &str) -> PyResult<String> {
        let reference: Reference = reference
            .parse()
            .map_err(|error| fault::registry(py, &error))?;
        json(
            &wait(py, self.registry.resolve(&reference))?
                .map_err(|error| fault::registry(py, &error))?,
        )
    }

    /// Versions that match a tag query, newest first.
    fn find(&self, py: Python<'_>, query: &str, limit: usize) -> PyResult<Vec<String>> {
        let query: TagQuery = query
            .parse()
            .map_err(|error| fault::registry(py, &registry::Error::TagQuery(error)))?;
        let found = wait(py, self.registry.find(&query, limit))?
            .map_err(|error| fault::registry(py, &error))?;
        found.iter().map(json).collect()
    }

    /// Sets tags, or removes those that are `None`.
    fn set_tags(
        &self,
        py: Python<'_>,
        digest: &str,
        changes: BTreeMap<String, Option<String>>,
    ) -> PyResult<String> {
        let digest = parsed(digest)?;
        let changed = self.registry.set_tags(&digest, &changes);
        json(&wait(py, changed)?.map_err(|error| fault::registry(py, &error))?)
    }

    /// Where the bytes of a version are.
    fn path(&self, py: Python<'_>, digest: &str) -> PyResult<PathBuf> {
        self.registry
            .envelope_path(&parsed(digest)?)
            .map_err(|error| fault::registry(py, &error))
    }
}

fn parsed(digest: &str) -> PyResult<Digest> {
    digest
        .parse()
        .map_err(|error: InvalidDigest| PyValueError::new_err(error.to_string()))
}

fn json(version: &Version) -> PyResult<String> {
    Ok(serde_json::to_string(version).map_err(std::io::Error::from)?)
}
