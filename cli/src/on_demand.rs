//! Workers that start when the first rows come.

use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow_array::RecordBatch;
use async_trait::async_trait;
use batch::MapRows;
use envelope_format::{Digest, Manifest};
use runtime::{EnvelopeFile, Environments, Error, Runtime, Sandbox};
use tokio::sync::OnceCell;

/// Is told which step has begun.
pub(crate) type Step = Arc<dyn Fn(&str) + Send + Sync>;

/// The functions of an envelope. A job that is refused has started nothing.
pub(crate) struct OnDemand {
    envelope: Arc<EnvelopeFile>,
    environments: Environments,
    workers: usize,
    sandbox: Sandbox,
    step: Step,
    /// Threads of libraries in each worker; a fair share of the cores where none is said.
    threads: Option<usize>,
    runtime: OnceCell<Started>,
}

struct Started {
    runtime: Runtime,
    took: Duration,
}

impl OnDemand {
    pub(crate) fn new(
        envelope: Arc<EnvelopeFile>,
        environments: Environments,
        workers: usize,
        sandbox: Sandbox,
        step: Step,
    ) -> Self {
        Self {
            envelope,
            environments,
            workers,
            sandbox,
            step,
            threads: None,
            runtime: OnceCell::new(),
        }
    }

    /// Has libraries use so many threads in each worker.
    pub(crate) fn with_threads(self, threads: usize) -> Self {
        Self {
            threads: Some(threads),
            ..self
        }
    }

    /// Ends the workers, if there are any.
    pub(crate) async fn shutdown(&self) {
        if let Some(started) = self.runtime.get() {
            started.runtime.shutdown(Duration::ZERO).await;
        }
    }

    /// How long it took to realise the environment and to start the workers, if they were needed.
    pub(crate) fn start_took(&self) -> Option<Duration> {
        self.runtime.get().map(|started| started.took)
    }

    /// The workers, which start now unless they have.
    async fn runtime(&self) -> Result<&Runtime, Error> {
        let started = self.runtime.get_or_try_init(|| self.start()).await?;
        Ok(&started.runtime)
    }

    async fn start(&self) -> Result<Started, Error> {
        let began = Instant::now();
        let envelope = Arc::clone(&self.envelope);
        let environment = self
            .environments
            .realise(&envelope, &|step| (self.step)(step))
            .await?;
        (self.step)("starting workers");
        let builder = Runtime::builder(envelope, environment);
        let builder = match self.threads {
            Some(threads) => builder.threads(threads),
            None => builder,
        };
        let runtime = builder
            .workers(self.workers..=self.workers)
            .sandbox(self.sandbox.clone())
            .spare(false)
            .keep_memory(true)
            .start()
            .await?;
        Ok(Started {
            runtime,
            took: began.elapsed(),
        })
    }
}

#[async_trait]
impl MapRows for OnDemand {
    fn digest(&self) -> Digest {
        self.envelope.digest()
    }

    fn manifest(&self) -> &Manifest {
        self.envelope.manifest()
    }

    async fn map(
        &self,
        function: &str,
        rows: RecordBatch,
        deadline: Duration,
    ) -> Result<RecordBatch, Error> {
        let runtime = self.runtime().await?;
        runtime.map(Some(function), rows, deadline).await
    }

    async fn call(
        &self,
        function: &str,
        rows: RecordBatch,
        deadline: Duration,
    ) -> Result<RecordBatch, Error> {
        let runtime = self.runtime().await?;
        runtime.call(Some(function), rows, deadline).await
    }
}
