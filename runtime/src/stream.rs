//! Many batches, one after the other.

use std::time::Duration;

use arrow_array::RecordBatch;
use futures::{Stream, StreamExt as _};

use crate::{Error, Runtime};

impl Runtime {
    /// Maps a stream of batches as [`Runtime::map`] does each: as many at once as there may be
    /// workers, outputs in the order of the batches. `deadline` is for each batch, its wait for a
    /// worker included.
    ///
    /// Nothing is asked of the stream before the outputs are: who reads slowly slows down who writes.
    ///
    /// # Errors
    /// Each item is what [`Runtime::map`] gives.
    pub fn map_stream<'r>(
        &'r self,
        function: Option<&'r str>,
        batches: impl Stream<Item = RecordBatch> + 'r,
        deadline: Duration,
    ) -> impl Stream<Item = Result<RecordBatch, Error>> + 'r {
        let mapped = batches.map(move |rows| self.map(function, rows, deadline));
        mapped.buffered(self.most_workers())
    }
}
