//! The life of a service: listen, prove, answer, drain.

use std::convert::Infallible;
use std::future::{Future, pending};
use std::io;
use std::net::SocketAddr;
use std::panic::AssertUnwindSafe;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt as _;
use http_body_util::Full;
use hyper::body::Body;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::answer::answer;
use crate::components::Components;
use crate::error::{Error, Refusal};
use crate::reply::Replies;
use crate::settings::Settings;
use crate::stages::Stages;
use crate::telemetry::Timer;

/// Answers calls until `shutdown` resolves, then finishes those in flight and ends the workers.
///
/// `on_ready` is told where the service listens once every function has answered its own sample.
///
/// # Errors
/// [`Error::AddrInUse`], [`Error::Listen`], [`Error::SelfTest`].
pub async fn serve(
    settings: Settings,
    components: Components,
    shutdown: impl Future<Output = ()>,
    on_ready: impl FnOnce(SocketAddr),
) -> Result<(), Error> {
    let listener = Listener::bind(settings.listen).await?;
    serve_on(listener, settings, components, shutdown, on_ready).await
}

/// A port that is ours.
#[derive(Debug)]
pub(crate) struct Listener {
    socket: TcpListener,
    address: SocketAddr,
}

impl Listener {
    pub(crate) async fn bind(address: SocketAddr) -> Result<Self, Error> {
        let refused = |source: io::Error| {
            if source.kind() == io::ErrorKind::AddrInUse {
                Error::AddrInUse { address }
            } else {
                Error::Listen { address, source }
            }
        };
        let socket = TcpListener::bind(address).await.map_err(refused)?;
        let address = socket.local_addr().map_err(refused)?;
        Ok(Self { socket, address })
    }
}

pub(crate) async fn serve_on(
    listener: Listener,
    settings: Settings,
    components: Components,
    shutdown: impl Future<Output = ()>,
    on_ready: impl FnOnce(SocketAddr),
) -> Result<(), Error> {
    let calls = components.calls.clone();
    let drain_deadline = settings.drain_deadline;
    let service = Service::new(settings, &components);
    let proved = prove(&components, service.stages.settings.call_deadline);
    let served = service.run(listener, proved, shutdown, on_ready).await;
    calls.shutdown(drain_deadline).await;
    served
}

/// Asks every function for its own sample: what answers here answers in production.
async fn prove(components: &Components, deadline: Duration) -> Result<(), Error> {
    for (function, sample) in components
        .manifest
        .functions
        .iter()
        .zip(&components.samples)
    {
        let Some(rows) = sample else { continue };
        let answered = components
            .calls
            .call(&function.name, rows.clone(), deadline)
            .await;
        answered.map_err(|source| Error::SelfTest {
            function: function.name.clone(),
            source: Box::new(source),
        })?;
    }
    Ok(())
}

/// What the connections share.
#[derive(Debug)]
struct Service {
    stages: Arc<Stages>,
    replies: Arc<Replies>,
    slots: Arc<Semaphore>,
    connections: GracefulShutdown,
    cut: CancellationToken,
}

impl Service {
    fn new(settings: Settings, components: &Components) -> Self {
        Self {
            slots: Arc::new(Semaphore::new(
                settings.max_connections.clamp(1, Semaphore::MAX_PERMITS),
            )),
            stages: Arc::new(Stages::new(settings, components)),
            replies: Arc::new(Replies::new(components.digest)),
            connections: GracefulShutdown::new(),
            cut: CancellationToken::new(),
        }
    }

    /// Accepts connections while the functions are proved and until `shutdown`, then drains.
    async fn run(
        self,
        listener: Listener,
        proved: impl Future<Output = Result<(), Error>>,
        shutdown: impl Future<Output = ()>,
        on_ready: impl FnOnce(SocketAddr),
    ) -> Result<(), Error> {
        let readiness = self.stages.pages.readiness.clone();
        let proved = async {
            if let Err(error) = proved.await {
                return error;
            }
            readiness.ready();
            on_ready(listener.address);
            pending().await
        };
        let ended = tokio::select! {
            () = shutdown => Ok(()),
            error = proved => Err(error),
            never = self.accept(&listener.socket) => match never {},
        };
        readiness.draining();
        drop(listener);
        self.drain().await;
        ended
    }

    async fn accept(&self, socket: &TcpListener) -> Infallible {
        loop {
            let Ok(slot) = self.slots.clone().acquire_owned().await else {
                unreachable!("the semaphore is never closed");
            };
            match socket.accept().await {
                Ok((stream, _)) => self.converse(stream, slot),
                Err(error) => {
                    // Most likely out of file descriptors: some will be free soon.
                    tracing::warn!(%error, "cannot accept a connection");
                    sleep(Duration::from_millis(50)).await;
                }
            }
        }
    }

    /// Answers the requests of one connection in a task of its own.
    fn converse(&self, stream: TcpStream, slot: OwnedSemaphorePermit) {
        let conversation = Conversation {
            stages: self.stages.clone(),
            replies: self.replies.clone(),
            begun: Arc::new(Notify::new()),
            watcher: self.connections.watcher(),
            slot,
        };
        let cut = self.cut.clone();
        tokio::spawn(async move {
            tokio::select! {
                () = conversation.hold(stream) => {}
                () = cut.cancelled() => {}
            }
        });
    }

    /// Lets the calls in flight end, and cuts off those that take too long.
    async fn drain(self) {
        let deadline = self.stages.settings.drain_deadline;
        if timeout(deadline, self.connections.shutdown())
            .await
            .is_err()
        {
            tracing::warn!(
                "calls that did not end within {} s are dropped",
                deadline.as_secs_f64()
            );
        }
        self.cut.cancel();
    }
}

/// One connection, HTTP/1.1 or HTTP/2 as the client likes.
struct Conversation {
    stages: Arc<Stages>,
    replies: Arc<Replies>,
    /// Told of the first request.
    begun: Arc<Notify>,
    watcher: Watcher,
    slot: OwnedSemaphorePermit,
}

/// One client cannot take more calls at once than this over one HTTP/2 connection.
const MAX_STREAMS: u32 = 256;

impl Conversation {
    async fn hold(self, stream: TcpStream) {
        let Self {
            stages,
            replies,
            begun,
            watcher,
            slot,
        } = self;
        // An answer is one write; waiting for more to send only delays it.
        let _ = stream.set_nodelay(true);
        let header_timeout = stages.settings.header_timeout;
        let protocol = protocol(stages.settings.idle_timeout);
        let first = begun.clone();
        let service = service_fn(move |request| {
            begun.notify_one();
            let (stages, replies) = (stages.clone(), replies.clone());
            async move { Ok::<_, Infallible>(respond(&stages, &replies, request).await) }
        });
        let connection = protocol
            .serve_connection(TokioIo::new(stream), service)
            .into_owned();
        let mut connection = pin!(watcher.watch(connection));
        // hyper has no patience limit before it knows the protocol, nor one for all headers of HTTP/2.
        let spoke = tokio::select! {
            _ = &mut connection => false,
            begun = timeout(header_timeout, first.notified()) => begun.is_ok(),
        };
        if spoke && let Err(error) = connection.await {
            tracing::debug!(error, "a connection broke");
        }
        drop(slot);
    }
}

fn protocol(idle_timeout: Duration) -> Builder<TokioExecutor> {
    let mut builder = Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(idle_timeout);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(MAX_STREAMS)
        .keep_alive_interval(Duration::from_secs(20))
        .keep_alive_timeout(Duration::from_secs(20));
    builder
}

/// Makes a response of whatever becomes of a request; counts and logs it once.
pub(crate) async fn respond<B>(
    stages: &Stages,
    replies: &Replies,
    request: Request<B>,
) -> Response<Full<Bytes>>
where
    B: Body<Data = Bytes> + Send + 'static,
{
    let mut timer = Timer::start();
    let reply = replies.begin(&request);
    let answered = AssertUnwindSafe(answer(stages, request, &mut timer))
        .catch_unwind()
        .await;
    let answered = answered.unwrap_or(Err(Refusal::Internal));
    let response = reply.finish(answered, timer.function());
    timer.finish(response.status());
    response
}
