//! Which envelope should be served now, asked again while a service runs.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use envelope_format::Digest;
use runtime::{EnvelopeFile, Environment, Environments, Runtime};
use tokio::signal::unix::Signal;
use tokio::time::sleep;

use crate::components::Components;
use crate::error::Error;
use crate::settings::Settings;
use crate::swap::Swap;

/// Why there is no answer to what should be served.
pub type Cause = Box<dyn std::error::Error + Send + Sync>;

/// Knows which envelope should be served. It is asked on `SIGHUP`, and every so often where
/// [`Settings::watch`] says so.
#[async_trait]
pub trait Origin: Send + Sync {
    /// The envelope that should be served now.
    async fn envelope(&self) -> Result<Wanted, Cause>;
}

/// An envelope, and how its environment is made real.
#[derive(Debug, Clone)]
pub struct Wanted {
    /// The envelope.
    pub envelope: Arc<EnvelopeFile>,
    /// Where its environment is, or will be.
    pub environments: Environments,
}

impl Wanted {
    /// Its workers, in its environment.
    pub(crate) async fn start(
        self,
        settings: &Settings,
        progress: &(dyn Fn(&str) + Sync),
    ) -> Result<Components, Error> {
        let environment = self.environments.realise(&self.envelope, progress).await?;
        start(self.envelope, environment, settings).await
    }
}

/// The workers of an envelope, in its environment.
pub(crate) async fn start(
    envelope: Arc<EnvelopeFile>,
    environment: Environment,
    settings: &Settings,
) -> Result<Components, Error> {
    let mut builder = Runtime::builder(envelope, environment)
        .workers(settings.workers.clone())
        .sandbox(settings.sandbox.clone());
    if let Some(calls) = settings.recycle_calls {
        builder = builder.recycle_after_calls(calls);
    }
    if let Some(bytes) = settings.recycle_growth_bytes {
        builder = builder.recycle_after_growth(bytes);
    }
    Components::new(builder.start().await?)
}

/// Serves what `origin` says, whenever it is asked. Never ends by itself.
pub(crate) async fn follow(swap: &Swap, origin: &dyn Origin, mut hangup: Signal) {
    let watch = swap.lasting().settings.watch;
    // What has failed is not tried again every time: it would be the same.
    let mut failed = None;
    loop {
        let is_asked = tokio::select! {
            _ = hangup.recv() => true,
            () = every(watch) => false,
        };
        match origin.envelope().await {
            Ok(wanted) => {
                let digest = wanted.envelope.digest();
                if !is_asked && failed == Some(digest) {
                    continue;
                }
                failed = turn_to(swap, wanted).await.err().map(|error| {
                    refused(swap, digest, &error);
                    digest
                });
            }
            Err(cause) if is_asked => {
                swap.was_refused();
                cannot_tell(&*cause);
            }
            // It is asked again soon: a file that is being replaced, a store that is busy.
            Err(cause) => cannot_tell(&*cause),
        }
    }
}

/// When it is time to look again.
pub(crate) async fn every(watch: Option<Duration>) {
    match watch {
        Some(time) => sleep(time).await,
        None => std::future::pending().await,
    }
}

async fn turn_to(swap: &Swap, wanted: Wanted) -> Result<(), Error> {
    if swap.back_to(wanted.envelope.digest()).await {
        return Ok(());
    }
    let settings = &swap.lasting().settings;
    let components = wanted
        .start(settings, &|step| tracing::info!("{step}"))
        .await
        .inspect_err(|_| swap.was_refused())?;
    swap.to(components).await
}

fn cannot_tell(cause: &(dyn std::error::Error + 'static)) {
    tracing::error!(
        error = %Chain(cause),
        "cannot find out what should be served; what was served before still is"
    );
}

fn refused(swap: &Swap, digest: Digest, error: &Error) {
    tracing::error!(
        code = error.code(),
        error = %Chain(error),
        %digest,
        serving = %swap.digest(),
        "an envelope cannot be served; what was served before still is"
    );
}

/// An error and its causes on one line.
pub(crate) struct Chain<'e>(pub(crate) &'e (dyn std::error::Error + 'static));

impl std::fmt::Display for Chain<'_> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{}", self.0)?;
        let mut cause = self.0.source();
        while let Some(error) = cause {
            write!(formatter, ": {error}")?;
            cause = error.source();
        }
        Ok(())
    }
}
