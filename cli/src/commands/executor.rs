//! `envelope executor`: does parts of the jobs of a cluster.

use std::fmt;
use std::io;
use std::num::NonZeroUsize;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use arrow_array::RecordBatch;
use async_trait::async_trait;
use batch::{Check, EnvelopeCache, Envelopes, InUse, Lender, Lent, MapRows};
use envelope_format::{Digest, Manifest};
use runtime::Sandbox;

use crate::args::Executor;
use crate::error::Error;
use crate::lender::Store;
use crate::on_demand::OnDemand;
use crate::trust;
use crate::wiring::Wiring;

/// Works until it is asked to end, or the scheduler is gone.
pub(crate) async fn executor(
    wiring: &Wiring,
    args: &Executor,
    interrupted: impl Future<Output = Error>,
) -> Result<(), Error> {
    let cores = || std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN);
    let slots = args.slots.unwrap_or_else(cores);
    let folder = tempfile::Builder::new()
        .prefix("envelope-executor-")
        .tempdir();
    let folder = folder.map_err(Error::io("make a folder in", Path::new("/tmp")))?;
    let executor = batch::Executor {
        scheduler: args.scheduler.clone(),
        listen: args.listen,
        credentials: args.credentials.files()?,
        slots,
        stores: wiring.stores(),
        work_folder: folder.path().to_owned(),
        envelopes: Arc::new(Copies {
            wiring: wiring.clone(),
            cache: EnvelopeCache::new(
                wiring.settings.cache.join("envelopes"),
                args.cache_bytes.get(),
            ),
            slots,
            sandbox: args.sandbox.sandbox(),
        }),
    };
    let scheduler = &executor.scheduler;
    wiring.terminal.say(&format!(
        "works on {slots} parts at a time for df://{scheduler}  (Ctrl-C ends it)"
    ));
    let stopping = async {
        interrupted.await;
    };
    Ok(executor.run(stopping).await?)
}

/// The envelopes that this machine keeps; those that it has not come from the store, or from the scheduler's.
struct Copies {
    wiring: Wiring,
    cache: EnvelopeCache,
    slots: NonZeroUsize,
    sandbox: Sandbox,
}

#[async_trait]
impl Envelopes for Copies {
    async fn get(
        &self,
        digest: Digest,
        scheduler: Option<&dyn Lender>,
    ) -> Result<Arc<dyn MapRows>, runtime::Error> {
        let fetch = async || self.fetch(digest, scheduler).await;
        let copy = self.cache.get(digest, &self.vouched(), fetch).await?;
        let envelope = Arc::clone(copy.envelope());
        let environments = self.wiring.environments(envelope.manifest());
        let step = move |step: &str| tracing::info!(%digest, step);
        let rows = OnDemand::new(
            envelope,
            environments,
            self.slots.get(),
            self.sandbox.clone(),
            Arc::new(step),
        )
        // A slot is a core. Other executors may have the other cores of this machine, and threads that
        // wait for each other on too few of them take twice as long.
        .with_threads(1);
        Ok(Arc::new(OfCopy { rows, _copy: copy }))
    }
}

impl Copies {
    /// Where trust is asked for, somebody vouches for what runs.
    fn vouched(&self) -> Check {
        let keys = self.wiring.settings.trust.clone();
        Arc::new(move |envelope, attestation| {
            let Some(keys) = &keys else { return Ok(()) };
            let checked = trust::check(envelope, keys, Some(attestation));
            checked
                .map(drop)
                .map_err(|error| not_to_be_had(envelope.digest(), &error))
        })
    }

    async fn fetch(
        &self,
        digest: Digest,
        scheduler: Option<&dyn Lender>,
    ) -> Result<Lent, runtime::Error> {
        // Unlike an envelope that is nowhere, this may be otherwise in a moment.
        let failed = |source: io::Error| runtime::Error::Io {
            doing: format!("an executor cannot get the envelope `{digest}`"),
            source,
        };
        let here = Store(self.wiring.clone()).lend(&digest).await;
        if let Some(lent) = here.map_err(failed)? {
            return Ok(lent);
        }
        let there = match scheduler {
            Some(scheduler) => scheduler.lend(&digest).await.map_err(failed)?,
            None => None,
        };
        there.ok_or_else(|| not_to_be_had(digest, &"it is in no store that is asked"))
    }
}

/// Workers of a copy. It is in use as long as they are.
struct OfCopy {
    rows: OnDemand,
    _copy: InUse,
}

#[async_trait]
impl MapRows for OfCopy {
    fn digest(&self) -> Digest {
        self.rows.digest()
    }

    fn manifest(&self) -> &Manifest {
        self.rows.manifest()
    }

    async fn map(
        &self,
        function: &str,
        rows: RecordBatch,
        deadline: Duration,
    ) -> Result<RecordBatch, runtime::Error> {
        self.rows.map(function, rows, deadline).await
    }

    async fn call(
        &self,
        function: &str,
        rows: RecordBatch,
        deadline: Duration,
    ) -> Result<RecordBatch, runtime::Error> {
        self.rows.call(function, rows, deadline).await
    }
}

fn not_to_be_had(digest: Digest, why: &dyn fmt::Display) -> runtime::Error {
    runtime::Error::Start {
        reason: format!(
            "an executor cannot get the envelope `{digest}`: {why}; `envelope import` it into the \
             store that executors read, or the scheduler (`--url`, `ENVELOPE_URL`)"
        ),
        stderr: String::new(),
    }
}
