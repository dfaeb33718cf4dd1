//! What a job needs of a query function, and the evidence that a table may be split for it.

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use arrow_array::RecordBatch;
use async_trait::async_trait;
use envelope_format::{Digest, Equality, Function, Manifest, Signature};
use runtime::tile_rows;
use tokio::sync::Semaphore;

use crate::Error;

/// Something that runs the query functions of one envelope. [`runtime::Runtime`] does.
#[async_trait]
pub trait MapRows: Send + Sync {
    /// Identity of the envelope.
    fn digest(&self) -> Digest;

    /// Description of the envelope.
    fn manifest(&self) -> &Manifest;

    /// Gives one row of output for each row of `rows`, in their order. `rows` has exactly the
    /// columns of the function's signature.
    ///
    /// # Errors
    /// Those of [`runtime::Runtime::map`].
    async fn map(
        &self,
        function: &str,
        rows: RecordBatch,
        deadline: Duration,
    ) -> Result<RecordBatch, runtime::Error>;

    /// Calls the function once with all `rows`, and gives what it gives.
    ///
    /// # Errors
    /// Those of [`runtime::Runtime::call`].
    async fn call(
        &self,
        function: &str,
        rows: RecordBatch,
        deadline: Duration,
    ) -> Result<RecordBatch, runtime::Error>;
}

#[async_trait]
impl MapRows for runtime::Runtime {
    fn digest(&self) -> Digest {
        self.envelope().digest()
    }

    fn manifest(&self) -> &Manifest {
        self.envelope().manifest()
    }

    async fn map(
        &self,
        function: &str,
        rows: RecordBatch,
        deadline: Duration,
    ) -> Result<RecordBatch, runtime::Error> {
        Self::map(self, Some(function), rows, deadline).await
    }

    async fn call(
        &self,
        function: &str,
        rows: RecordBatch,
        deadline: Duration,
    ) -> Result<RecordBatch, runtime::Error> {
        Self::call(self, Some(function), rows, deadline).await
    }
}

/// The function of that name; the default one without.
pub(crate) fn function_of<'r>(
    rows: &'r dyn MapRows,
    name: Option<&str>,
) -> Result<&'r Function, Error> {
    let found = rows.manifest().function(name);
    found.map_err(Error::NoSuchFunction)
}

/// Refuses a function for which there is no evidence that a table may be split.
///
/// A function that takes or gives one row for each call is called for each row, so nothing needs
/// evidence.
pub(crate) fn check_row_wise(function: &Function) -> Result<(), Error> {
    if function.certificate.row_wise || is_for_each_row(&function.signature) {
        return Ok(());
    }
    let reason = function.certificate.reason.clone();
    Err(Error::NotRowWise {
        function: function.name.clone(),
        reason: reason.unwrap_or_else(|| {
            "its output for a row was not seen to depend on that row alone".into()
        }),
    })
}

/// Whether a function is called for each row, where rows are not grouped.
fn is_for_each_row(signature: &Signature) -> bool {
    signature.input.shape.is_one_row() || signature.output.shape.is_one_row()
}

/// Whether a function gives one row for all the rows of a call.
pub(crate) fn reduces(signature: &Signature) -> bool {
    signature.output.shape.is_one_row() && !signature.input.shape.is_one_row()
}

/// Rows of one call: whole tiles, so that equal rows give equal bits wherever they stand.
pub(crate) fn rows_of_a_call(wanted: NonZeroUsize, tile: Option<u32>) -> usize {
    let tile = tile_rows(tile);
    (wanted.get() / tile).max(1) * tile
}

/// Whether the same bits come of a row however many others are in its call, as far as was tested.
pub(crate) fn is_paced(function: &Function) -> bool {
    is_for_each_row(&function.signature) || function.certificate.equality == Equality::Bitwise
}

/// What the plan's nodes find in their session: the digest in a node is looked up here.
pub(crate) struct Callable {
    rows: Rows,
    /// One permit for each batch between scan and sink: bounds memory, whatever the number of
    /// partitions that have rows at the moment. None where each partition has its own.
    in_flight: Option<Arc<Semaphore>>,
    /// How many permits there are for all partitions together.
    most_in_flight: usize,
}

/// What runs the functions of an envelope.
enum Rows {
    Here(Arc<dyn MapRows>),
    #[cfg(feature = "cluster")]
    Fetched(crate::cluster::Fetched),
}

impl Rows {
    async fn get(&self) -> Result<&dyn MapRows, runtime::Error> {
        match self {
            Self::Here(here) => Ok(here.as_ref()),
            #[cfg(feature = "cluster")]
            Self::Fetched(envelope) => Ok(envelope.get().await?.as_ref()),
        }
    }
}

impl Callable {
    /// For a plan with `partitions` partitions and as many workers.
    pub(crate) fn new(rows: Arc<dyn MapRows>, partitions: NonZeroUsize) -> Self {
        Self::of(Rows::Here(rows), partitions)
    }

    /// For plans in which one partition may wait for another: a join reads all of one side first, and would
    /// wait for ever if the other side had all permits.
    pub(crate) fn apart(rows: Arc<dyn MapRows>, workers: NonZeroUsize) -> Self {
        Self {
            in_flight: None,
            ..Self::of(Rows::Here(rows), workers)
        }
    }

    /// For an executor with `slots` workers, which gets the envelope when the first rows come.
    #[cfg(feature = "cluster")]
    pub(crate) fn fetched(envelope: crate::cluster::Fetched, slots: NonZeroUsize) -> Self {
        Self::of(Rows::Fetched(envelope), slots)
    }

    fn of(rows: Rows, partitions: NonZeroUsize) -> Self {
        // Two for each worker: one in its hands, one ready for when it is done.
        let most_in_flight = partitions.get() * 2;
        Self {
            rows,
            in_flight: Some(Arc::new(Semaphore::new(most_in_flight))),
            most_in_flight,
        }
    }

    /// The permits of one of `partitions` partitions, and how many there are.
    pub(crate) fn permits(&self, partitions: usize) -> (Arc<Semaphore>, usize) {
        if let Some(shared) = &self.in_flight {
            return (Arc::clone(shared), self.most_in_flight);
        }
        let share = self.most_in_flight.div_ceil(partitions.max(1)).max(2);
        (Arc::new(Semaphore::new(share)), share)
    }

    /// As [`MapRows::map`].
    pub(crate) async fn map(
        &self,
        function: &str,
        rows: RecordBatch,
        deadline: Duration,
    ) -> Result<RecordBatch, runtime::Error> {
        self.rows.get().await?.map(function, rows, deadline).await
    }

    /// As [`MapRows::call`].
    pub(crate) async fn call(
        &self,
        function: &str,
        rows: RecordBatch,
        deadline: Duration,
    ) -> Result<RecordBatch, runtime::Error> {
        self.rows.get().await?.call(function, rows, deadline).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_consists_of_whole_tiles() {
        let rows = |wanted, tile| rows_of_a_call(NonZeroUsize::new(wanted).unwrap(), tile);
        assert_eq!(rows(100, None), 100);
        assert_eq!(rows(100, Some(8)), 96);
        assert_eq!(rows(3, Some(8)), 8);
    }

    #[test]
    fn a_function_without_evidence_is_refused() {
        let mut function = Manifest::example().functions.remove(0);
        function.certificate.row_wise = false;
        function.certificate.reason = Some("the mean of all rows is taken away".into());
        let error = check_row_wise(&function).unwrap_err();
        assert_eq!(
            error.to_string(),
            "`double` is not row-wise: the mean of all rows is taken away"
        );
        assert!(error.hint().is_some());
    }

    #[test]
    fn a_function_that_gives_one_row_needs_no_evidence() {
        let mut function = Manifest::example().functions.remove(0);
        function.certificate.row_wise = false;
        function.signature.output.shape = envelope_format::Shape::Scalar;
        assert!(check_row_wise(&function).is_ok());
    }
}
