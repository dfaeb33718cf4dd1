//! From an envelope to a service that answers: realise, start, prove, serve, follow.

use std::future::{Future, pending};
use std::net::SocketAddr;
use std::sync::Arc;

use runtime::{EnvelopeFile, Environment};
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::error::Error;
use crate::follow::{Origin, follow, start};
use crate::ports::Ports;
use crate::service::serve_on;
use crate::settings::Settings;
use crate::swap::Swap;
use crate::tls::renew;

/// What [`run`] serves: an envelope, and who knows what should be served later.
pub struct Envelopes<'o> {
    first: Arc<EnvelopeFile>,
    origin: Option<&'o dyn Origin>,
}

impl std::fmt::Debug for Envelopes<'_> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("Envelopes")
            .field("first", &self.first)
            .finish_non_exhaustive()
    }
}

impl From<Arc<EnvelopeFile>> for Envelopes<'_> {
    /// Always this one.
    fn from(first: Arc<EnvelopeFile>) -> Self {
        Self {
            first,
            origin: None,
        }
    }
}

impl<'o> Envelopes<'o> {
    /// This one, and then what `origin` says.
    pub fn followed(first: Arc<EnvelopeFile>, origin: &'o dyn Origin) -> Self {
        Self {
            first,
            origin: Some(origin),
        }
    }
}

/// Serves an envelope until the process is told to stop by `SIGTERM` or `SIGINT`.
///
/// The port is taken first: that it is in use should be known before minutes are spent on the first
/// envelope's `environment`, which is awaited afterwards. A second signal drops the calls in flight. On `SIGHUP` the origin of the envelope, if
/// there is one, is asked for what should be served now: a new envelope takes the place of the old
/// one with no failed call, and one that cannot be served leaves it. The files of [`Settings::tls`] are read again, too.
///
/// # Errors
/// [`Error::AddrInUse`], [`Error::Listen`], [`Error::Tls`], [`Error::Runtime`], [`Error::SelfTest`],
/// [`Error::Interrupted`].
pub async fn run(
    envelopes: impl Into<Envelopes<'_>>,
    environment: impl Future<Output = Result<Environment, runtime::Error>>,
    settings: Settings,
    on_ready: impl FnOnce(SocketAddr),
) -> Result<(), Error> {
    let Envelopes { first, origin } = envelopes.into();
    let mut signals = Signals::new()?;
    // From now on: unheard, it would end the process.
    let hangup = listen(SignalKind::hangup())?;
    let renewal = listen(SignalKind::hangup())?;
    let ports = Ports::take(&settings).await?;
    let starting = async { start(first, environment.await?, &settings).await };
    let components = tokio::select! {
        components = starting => components?,
        () = signals.next() => return Ok(()),
    };
    let swap = Swap::new(settings, components);
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let (ready, is_ready) = tokio::sync::oneshot::channel::<()>();
    let shutdown = async { drop(stopped.await) };
    let serving = serve_on(ports, swap.clone(), shutdown, |address| {
        drop(ready);
        on_ready(address);
    });
    let following = async {
        drop(is_ready.await);
        match origin {
            Some(origin) => follow(&swap, origin, hangup).await,
            None => ignore(hangup).await,
        }
    };
    let interrupted = async {
        signals.next().await;
        drop(stop);
        signals.next().await;
    };
    tokio::select! {
        served = serving => served,
        () = interrupted => Err(Error::Interrupted),
        () = following => Ok(()),
        () = renewed(&swap, renewal) => Ok(()),
    }
}

/// Shows the certificate that is in the files now, if there is one to show.
async fn renewed(swap: &Swap, hangup: Signal) {
    let lasting = swap.lasting();
    match &lasting.certificates {
        Some(certificates) => renew(certificates, hangup, lasting.settings.watch).await,
        None => pending().await,
    }
}

/// There is only one envelope, for ever.
async fn ignore(mut hangup: Signal) {
    while hangup.recv().await.is_some() {
        tracing::info!("this service has only the envelope that it was started with");
    }
    pending().await
}

/// The signals that ask a process to end.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn new() -> Result<Self, Error> {
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

fn listen(kind: SignalKind) -> Result<Signal, Error> {
    signal(kind).map_err(|source| Error::Io {
        doing: "cannot listen to signals".to_owned(),
        source,
    })
}
