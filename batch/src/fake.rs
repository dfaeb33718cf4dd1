//! What tests use in place of the workers: a query function written in Rust.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use arrow_array::cast::AsArray as _;
use arrow_array::types::Float64Type;
use arrow_array::{ArrayRef, Float64Array, RecordBatch};
use arrow_schema::{Schema, SchemaRef};
use async_trait::async_trait;
use envelope_format::{DataType, Digest, Field, Manifest};

use crate::MapRows;

/// Doubles `x`. Fails, panics or hangs when it is told to.
pub(crate) struct Fake {
    pub(crate) manifest: Manifest,
    digest: Digest,
    /// Does something else than doubling from this call on.
    trouble: Option<(usize, Trouble)>,
    calls: AtomicUsize,
    /// Rows of each call.
    pub(crate) sizes: Mutex<Vec<usize>>,
}

#[derive(Clone, Copy)]
pub(crate) enum Trouble {
    Raises,
    Panics,
    Hangs,
    LosesRows,
}

impl Fake {
    pub(crate) fn new() -> Self {
        Self {
            manifest: Manifest::example(),
            digest: Digest::of(b"fake"),
            trouble: None,
            calls: AtomicUsize::new(0),
            sizes: Mutex::default(),
        }
    }

    /// The function of another envelope.
    pub(crate) fn called(envelope: &str) -> Self {
        Self {
            digest: Digest::of(envelope.as_bytes()),
            ..Self::new()
        }
    }

    /// Does well in the first calls, but not in the one with this number.
    pub(crate) fn with_trouble(self, call: usize, trouble: Trouble) -> Self {
        Self {
            trouble: Some((call, trouble)),
            ..self
        }
    }

    /// Says that it gives tiles the same bits only.
    pub(crate) fn with_tile(mut self, rows: u32) -> Self {
        self.manifest.functions[0].certificate.tile = Some(rows);
        self
    }

    /// Gives its output under other names, too.
    pub(crate) fn with_outputs(mut self, names: &[&str]) -> Self {
        let output = &mut self.manifest.functions[0].signature.output;
        output.shape = envelope_format::Shape::PandasDataFrame;
        output.fields = names
            .iter()
            .map(|name| Field::new(*name, DataType::Float64, false))
            .collect();
        self
    }

    pub(crate) fn calls(&self) -> usize {
        self.calls.load(Ordering::SeqCst)
    }
}

#[async_trait]
impl MapRows for Fake {
    fn digest(&self) -> Digest {
        self.digest
    }

    fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    async fn map(
        &self,
        function: &str,
        rows: RecordBatch,
        _: Duration,
    ) -> Result<RecordBatch, runtime::Error> {
        self.sizes.lock().unwrap().push(rows.num_rows());
        let call = self.calls.fetch_add(1, Ordering::SeqCst);
        match self.trouble {
            Some((from, Trouble::Raises)) if call >= from => {
                return Err(runtime::Error::Function {
                    function: function.to_owned(),
                    exception: runtime::PythonError {
                        kind: "ValueError".into(),
                        message: "bad row".into(),
                        traceback: "line 1, in double".into(),
                    },
                });
            }
            Some((from, Trouble::Panics)) if call >= from => panic!("told to"),
            Some((from, Trouble::Hangs)) if call >= from => std::future::pending().await,
            Some((from, Trouble::LosesRows)) if call >= from => {
                return Ok(double(self, &rows.slice(1, rows.num_rows() - 1)));
            }
            _ => {}
        }
        Ok(double(self, &rows))
    }
}

fn double(fake: &Fake, rows: &RecordBatch) -> RecordBatch {
    let doubled = rows
        .column(0)
        .as_primitive::<Float64Type>()
        .unary::<_, Float64Type>(|x| x * 2.0);
    let doubled: ArrayRef = Arc::new(Float64Array::from(doubled));
    let schema = runtime::arrow_schema(&fake.manifest.functions[0].signature.output);
    let columns = vec![doubled; schema.fields().len()];
    RecordBatch::try_new(schema, columns).unwrap()
}

/// A schema of plain fields: name, type, nullable.
pub(crate) fn schema_of(fields: &[(&str, arrow_schema::DataType, bool)]) -> SchemaRef {
    let field = |(name, data_type, nullable): &(&str, arrow_schema::DataType, bool)| {
        arrow_schema::Field::new(*name, data_type.clone(), *nullable)
    };
    Arc::new(Schema::new(fields.iter().map(field).collect::<Vec<_>>()))
}

/// Rows that the function takes.
#[cfg(feature = "cluster")]
pub(crate) fn rows_of(x: &[f64]) -> RecordBatch {
    let schema = schema_of(&[("x", arrow_schema::DataType::Float64, false)]);
    let x: ArrayRef = Arc::new(Float64Array::from(x.to_vec()));
    RecordBatch::try_new(schema, vec![x]).unwrap()
}
