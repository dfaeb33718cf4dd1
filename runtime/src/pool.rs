//! Lends workers to calls, takes them back, replaces broken ones.

use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use arrow_array::RecordBatch;

use crate::{EnvelopeFile, Environment, Error};

/// Workers of one envelope, ready to be called.
#[derive(Debug, Clone)]
pub struct Runtime {}

/// What an embedder may choose about a [`Runtime`].
#[derive(Debug)]
pub struct Builder {}

/// How busy a runtime is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Usage {
    /// Live workers.
    pub workers: usize,
    /// Workers with a call.
    pub busy: usize,
    /// Calls that wait for a worker.
    pub waiting: usize,
    /// Workers that were replaced after a crash or a missed deadline.
    pub replaced: u64,
}

impl Runtime {
    /// Begins a runtime for `envelope` in `environment`.
    #[must_use]
    pub fn builder(envelope: Arc<EnvelopeFile>, environment: Environment) -> Builder {
        todo!()
    }

    /// The envelope.
    #[must_use]
    pub fn envelope(&self) -> &EnvelopeFile {
        todo!()
    }

    /// Calls a function once, on all of `rows`.
    ///
    /// `function` is `None` for the envelope's default one. Columns are matched by name: those that
    /// the signature does not know are ignored, order does not matter; nothing is cast.
    /// A call that is dropped costs its worker.
    ///
    /// # Errors
    /// [`Error::NoSuchFunction`], [`Error::RowsDoNotFit`], [`Error::Function`], [`Error::Output`],
    /// [`Error::Crashed`], [`Error::Deadline`], [`Error::Start`], [`Error::Stopped`].
    pub async fn call(&self, function: Option<&str>, rows: RecordBatch, deadline: Duration) -> Result<RecordBatch, Error> {
        todo!()
    }

    /// Gives one row of output for each row of `rows`: a row-wise function is called once, one that
    /// gives a single row per call is called for each row.
    ///
    /// # Errors
    /// As [`Runtime::call`].
    pub async fn map(&self, function: Option<&str>, rows: RecordBatch, deadline: Duration) -> Result<RecordBatch, Error> {
        todo!()
    }

    /// How busy it is.
    #[must_use]
    pub fn usage(&self) -> Usage {
        todo!()
    }

    /// Ends the workers. Calls under way have `grace` to finish; then their workers are killed.
    pub async fn shutdown(&self, grace: Duration) {
        todo!()
    }
}

impl Builder {
    /// How many workers: the first number from the beginning, up to the second under load.
    /// Default: one for each core, all from the beginning.
    #[must_use]
    pub fn workers(self, workers: RangeInclusive<usize>) -> Self {
        todo!()
    }

    /// Threads of BLAS and OpenMP in each worker. Default: cores divided by the most workers, at least 1.
    #[must_use]
    pub fn threads(self, threads: usize) -> Self {
        todo!()
    }

    /// Starts the first workers; returns when each has loaded the envelope.
    ///
    /// # Errors
    /// [`Error::Start`], [`Error::WrongInterpreter`], [`Error::Io`], [`Error::Envelope`].
    pub async fn start(self) -> Result<Runtime, Error> {
        todo!()
    }
}
