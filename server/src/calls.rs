//! What the service needs from a runtime.

use std::fmt::Debug;
use std::time::Duration;

use arrow_array::RecordBatch;
use async_trait::async_trait;
use runtime::{Error, Runtime, Usage};

/// Calls query functions.
#[async_trait]
pub trait Calls: Debug + Send + Sync + 'static {
    /// Asks `function` for its output for `rows`; fails when that takes longer than `deadline`.
    async fn call(&self, function: &str, rows: RecordBatch, deadline: Duration) -> Result<RecordBatch, Error>;

    /// How busy the workers are.
    fn usage(&self) -> Usage;

    /// Ends the workers. Calls under way have `grace` to finish.
    async fn shutdown(&self, grace: Duration);
}

#[async_trait]
impl Calls for Runtime {
    async fn call(&self, function: &str, rows: RecordBatch, deadline: Duration) -> Result<RecordBatch, Error> {
        let input = self.envelope().function(Some(function))?.signature.input.shape;
        // A function that takes one row at a time is asked for each row of the call.
        if input.is_one_row() {
            self.map(Some(function), rows, deadline).await
        } else {
            Self::call(self, Some(function), rows, deadline).await
        }
    }

    fn usage(&self) -> Usage {
        Self::usage(self)
    }

    async fn shutdown(&self, grace: Duration) {
        Self::shutdown(self, grace).await;
    }
}
