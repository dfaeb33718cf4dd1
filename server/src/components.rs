//! What does the work: a description of the envelope, something to call, rows to try it on.

use std::io::Cursor;
use std::sync::Arc;

use arrow_array::RecordBatch;
use arrow_ipc::reader::StreamReader;
use arrow_select::concat::concat_batches;
use envelope_format::{Digest, Function, Manifest};
use runtime::{EnvelopeFile, Runtime};

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
    // Arrow's reader panics on some damaged schemas instead of refusing them.
    let read = std::panic::catch_unwind(|| read_stream(bytes));
    let reason = match read {
        Ok(Ok(rows)) => return Ok(Some(rows)),
        Ok(Err(error)) => error.to_string(),
        Err(_) => "its schema is damaged".to_owned(),
    };
    Err(Error::Sample {
        function: function.name.clone(),
        reason,
    })
}

fn read_stream(bytes: Vec<u8>) -> Result<RecordBatch, arrow_schema::ArrowError> {
    let reader = StreamReader::try_new(Cursor::new(bytes), None)?;
    let schema = reader.schema();
    let batches = reader.collect::<Result<Vec<_>, _>>()?;
    concat_batches(&schema, &batches)
}
