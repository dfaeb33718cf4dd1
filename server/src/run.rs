//! From an envelope to a service that answers: realise, start, prove, serve.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;

use runtime::{EnvelopeFile, Environment, Runtime};
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::components::Components;
use crate::error::Error;
use crate::service::{Listener, serve_on};
use crate::settings::Settings;

/// Serves an envelope until the process is told to stop by `SIGTERM` or `SIGINT`.
///
/// The port is taken first: that it is in use should be known before minutes are spent on
/// `environment`, which is awaited afterwards. A second signal drops the calls in flight.
///
/// # Errors
/// [`Error::AddrInUse`], [`Error::Listen`], [`Error::Runtime`], [`Error::SelfTest`],
/// [`Error::Interrupted`].
pub async fn run(
    envelope: Arc<EnvelopeFile>,
    environment: impl Future<Output = Result<Environment, runtime::Error>>,
    settings: Settings,
    on_ready: impl FnOnce(SocketAddr),
) -> Result<(), Error> {
    let mut signals = Signals::new()?;
    let listener = Listener::bind(settings.listen).await?;
    let starting = async {
        let environment = environment.await?;
        Ok::<_, Error>(
            Runtime::builder(envelope, environment)
                .workers(settings.workers.clone())
                .sandbox(settings.sandbox.clone())
                .start()
                .await?,
        )
    };
    let runtime = tokio::select! {
        runtime = starting => runtime?,
        () = signals.next() => return Ok(()),
    };
    let components = Components::new(runtime)?;
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let shutdown = async { drop(stopped.await) };
    let serving = serve_on(listener, settings, components, shutdown, on_ready);
    let interrupted = async {
        signals.next().await;
        drop(stop);
        signals.next().await;
    };
    tokio::select! {
        served = serving => served,
        () = interrupted => Err(Error::Interrupted),
    }
}

/// The signals that ask a process to end.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn new() -> Result<Self, Error> {
        let listen = |kind| {
            signal(kind).map_err(|source| Error::Io {
                doing: "cannot listen to signals".to_owned(),
                source,
            })
        };
        Ok(Self {
            terminate: listen(SignalKind::terminate())?,
            interrupt: listen(SignalKind::interrupt())?,
        })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}
