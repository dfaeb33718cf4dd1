//! Long work on a thread of its own, so that health checks and short calls need not wait for it.

use arrow_array::RecordBatch;
use tokio::task::spawn_blocking;

use crate::error::Refusal;

/// Work on fewer bytes takes less than a millisecond, and the change of thread would cost more.
const APART_BYTES: usize = 256 << 10;

/// What a cell takes as text, roughly.
const CELL_BYTES: usize = 16;

/// What `work` on so many bytes gives.
pub(crate) async fn apart<T: Send + 'static>(
    bytes: usize,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Refusal> {
    if bytes < APART_BYTES {
        return Ok(work());
    }
    spawn_blocking(work).await.map_err(|_| Refusal::Internal)
}

/// What rows take when they are written, roughly. Not the size of their buffers: other calls of the
/// same batch share them.
pub(crate) fn written_bytes(rows: &RecordBatch) -> usize {
    rows.num_rows()
        .saturating_mul(rows.num_columns() * CELL_BYTES)
}
