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

/// Doubles `x`, or gives sums of it. Fails, panics or hangs when it is told to.
pub(crate) struct Fake {
    pub(crate) manifest: Manifest,
    digest: Digest,
    /// Does something else than doubling from this call on.
    trouble: Option<(usize, Trouble)>,
    calls: AtomicUsize,
    /// Rows of each call.
    pub(crate) sizes: Mutex<Vec<usize>>,
    /// What it makes of `x`.
    given: Given,
}

/// What the function gives.
#[derive(Clone, Copy)]
enum Given {
    /// Twice each value.
    Doubled,
    /// The sum of all values.
    Sum,
    /// For each value, the sum of those up to it.
    RunningSums,
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
            given: Given::Doubled,
        }
    }

    /// Gives one row for all the rows of a call: the sum of `x`.
    pub(crate) fn sum() -> Self {
        let mut fake = Self::new();
        let function = &mut fake.manifest.functions[0];
        function.signature.output.shape = envelope_format::Shape::Scalar;
        function.certificate.row_wise = false;
        fake.given = Given::Sum;
        fake
    }

    /// Gives for each row the sum of `x` in the rows of the call up to it.
    pub(crate) fn running_sums() -> Self {
        let mut fake = Self::new();
        fake.manifest.functions[0].certificate.row_wise = false;
        fake.given = Given::RunningSums;
        fake
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

    /// Takes another column, which changes nothing.
    pub(crate) fn with_input(mut self, name: &str) -> Self {
        let input = &mut self.manifest.functions[0].signature.input;
        input.fields.push(Field::new(name, DataType::Int64, false));
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
                return Ok(given(self, &rows.slice(1, rows.num_rows() - 1)));
            }
            _ => {}
        }
        Ok(given(self, &rows))
    }

    async fn call(
        &self,
        function: &str,
        rows: RecordBatch,
        deadline: Duration,
    ) -> Result<RecordBatch, runtime::Error> {
        self.map(function, rows, deadline).await
    }
}

fn given(fake: &Fake, rows: &RecordBatch) -> RecordBatch {
    let x = rows.column(0).as_primitive::<Float64Type>().values();
    let mut sum = 0.0;
    let running = x.iter().map(|x| {
        sum += x;
        sum
    });
    let given: Vec<f64> = match fake.given {
        Given::Doubled => x.iter().map(|x| x * 2.0).collect(),
        Given::RunningSums => running.collect(),
        Given::Sum => running.last().into_iter().collect(),
    };
    let given: ArrayRef = Arc::new(Float64Array::from(given));
    let schema = runtime::arrow_schema(&fake.manifest.functions[0].signature.output);
    let columns = vec![given; schema.fields().len()];
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
