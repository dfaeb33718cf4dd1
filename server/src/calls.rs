//! What the service needs from a runtime.

use std::fmt::Debug;
use std::time::Duration;

use arrow_array::RecordBatch;
use async_trait::async_trait;
use envelope_format::Signature;
use runtime::{Confinement, Error, Runtime, Usage};

/// Calls query functions.
#[async_trait]
pub trait Calls: Debug + Send + Sync + 'static {
    /// Asks `function` for its output for `rows`; fails when that takes longer than `deadline`.
    async fn call(
        &self,
        function: &str,
        rows: RecordBatch,
        deadline: Duration,
    ) -> Result<RecordBatch, Error>;

    /// The most calls that run at once.
    fn most_workers(&self) -> usize;

    /// How busy the workers are.
    fn usage(&self) -> Usage;

    /// How the workers are confined; `None` where there are none to confine.
    fn confinement(&self) -> Option<Confinement> {
        None
    }

    /// Ends the workers. Calls under way have `grace` to finish.
    async fn shutdown(&self, grace: Duration);
}

#[async_trait]
impl Calls for Runtime {
    async fn call(
        &self,
        function: &str,
        rows: RecordBatch,
        deadline: Duration,
    ) -> Result<RecordBatch, Error> {
        let Signature { input, output } = &self.envelope().function(Some(function))?.signature;
        match (input.shape.is_one_row(), output.shape.is_one_row()) {
            // A function from one row to one row is asked for each row of the call.
            (true, true) => self.map(Some(function), rows, deadline).await,
            (true, false) if rows.num_rows() > 1 => Err(Error::RowsDoNotFit {
                function: function.to_owned(),
                reason: format!(
                    "it takes one row at a time, the call has {}",
                    rows.num_rows()
                ),
            }),
            _ => Self::call(self, Some(function), rows, deadline).await,
        }
    }

    fn most_workers(&self) -> usize {
        Self::most_workers(self)
    }

    fn usage(&self) -> Usage {
        Self::usage(self)
    }

    fn confinement(&self) -> Option<Confinement> {
        self.sandbox().cloned()
    }

    async fn shutdown(&self, grace: Duration) {
        Self::shutdown(self, grace).await;
    }
}
