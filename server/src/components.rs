//! What does the work: a description of the envelope, something to call, rows to try it on.

use std::sync::Arc;

use arrow_array::RecordBatch;
use envelope_format::{Digest, Function, Manifest};
use runtime::{EnvelopeFile, Runtime, read_arrow_stream};

use crate::calls::Calls;
use crate::error::Error;

/// What a service is made of. [`Components::new`] takes it all from a runtime; tests may put in
/// something else to call.
#[derive(Debug, Clone)]
pub struct Components {
    /// The description of the envelope.
    pub manifest: Manifest,
    /// Its identity.
    pub digest: Digest,
    /// For each function of the manifest: the input that it was proved on, if the envelope has it.
    pub samples: Vec<Option<RecordBatch>>,
    /// Whom the calls go to.
    pub calls: Arc<dyn Calls>,
}

impl Components {
    /// Serves the envelope of `runtime`.
    ///
    /// # Errors
    /// [`Error::Sample`], [`Error::Runtime`] when the envelope is damaged.
    pub fn new(runtime: Runtime) -> Result<Self, Error> {
        let envelope = runtime.envelope();
        let samples = envelope
            .manifest()
            .functions
            .iter()
            .map(|function| sample(envelope, function));
        Ok(Self {
            samples: samples.collect::<Result<_, _>>()?,
            manifest: envelope.manifest().clone(),
            digest: envelope.digest(),
            calls: Arc::new(runtime),
        })
    }
}

fn sample(envelope: &EnvelopeFile, function: &Function) -> Result<Option<RecordBatch>, Error> {
    let Some(sample) = &function.sample else {
        return Ok(None);
    };
    let bytes = envelope.read(&sample.input)?;
    let reason = match read_arrow_stream(bytes, usize::MAX) {
        Ok(rows) => return Ok(Some(rows)),
        Err(error) => error.to_string(),
    };
    Err(Error::Sample {
        function: function.name.clone(),
        reason,
    })
}
