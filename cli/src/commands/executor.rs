//! `envelope executor`: does parts of the jobs of a cluster.

use std::num::NonZeroUsize;
use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use batch::{Envelopes, MapRows};
use envelope_format::Digest;
use runtime::{EnvelopeFile, Sandbox};

use crate::args::Executor;
use crate::error::Error;
use crate::on_demand::OnDemand;
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
        envelopes: Arc::new(FromStore {
            wiring: wiring.clone(),
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

/// The envelopes of the store that this executor reads.
struct FromStore {
    wiring: Wiring,
    slots: NonZeroUsize,
    sandbox: Sandbox,
}

#[async_trait]
impl Envelopes for FromStore {
    async fn get(&self, digest: Digest) -> Result<Arc<dyn MapRows>, runtime::Error> {
        let envelope = self.checked(digest).await;
        let envelope = envelope.map_err(|error| not_to_be_had(digest, error))?;
        let environments = self.wiring.environments(envelope.manifest());
        let step = move |step: &str| tracing::info!(%digest, step);
        Ok(Arc::new(OnDemand::new(
            envelope,
            environments,
            self.slots.get(),
            self.sandbox.clone(),
            Arc::new(step),
        )))
    }
}

impl FromStore {
    /// The envelope, of which every byte is what its digest says.
    async fn checked(&self, digest: Digest) -> Result<Arc<EnvelopeFile>, Error> {
        let found = self.wiring.find_trusted(&digest.to_string()).await?;
        let envelope = Arc::clone(&found.envelope);
        let checking = tokio::task::spawn_blocking(move || envelope.verify()).await;
        checking.map_err(|panic| Error::io("read", found.envelope.path())(panic.into()))??;
        Ok(found.envelope)
    }
}

fn not_to_be_had(digest: Digest, error: Error) -> runtime::Error {
    if let Error::Runtime(error) = error {
        return error;
    }
    runtime::Error::Start {
        reason: format!(
            "an executor cannot get the envelope `{digest}`: {error}; `envelope import` it into the \
             store that executors read (`--url`, `ENVELOPE_URL`)"
        ),
        stderr: String::new(),
    }
}
