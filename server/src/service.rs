//! The life of a service: listen, prove, answer, drain.

use std::convert::Infallible;
use std::future::{Future, pending};
use std::io;
use std::net::SocketAddr;
use std::panic::AssertUnwindSafe;
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt as _;
use hyper::body::Body;
use hyper::{Request, Response};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::answer::answer;
use crate::components::Components;
use crate::conversation::Conversation;
use crate::delivery::Content;
use crate::descriptors;
use crate::doors::Doors;
use crate::error::{Error, Refusal};
use crate::metered::Meter;
use crate::protocol::{Protocol, grpc};
use crate::serving::Serving;
use crate::settings::Settings;
use crate::stages::Stages;
use crate::swap::Swap;
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
    serve_on(
        listener,
        Swap::new(settings, components),
        shutdown,
        on_ready,
    )
    .await
}

/// As [`serve`], for who keeps a clone of `swap` to serve other envelopes later.
///
/// # Errors
/// As [`serve`].
pub async fn serve_with(
    swap: Swap,
    shutdown: impl Future<Output = ()>,
    on_ready: impl FnOnce(SocketAddr),
) -> Result<(), Error> {
    let listener = Listener::bind(swap.lasting().settings.listen).await?;
    serve_on(listener, swap, shutdown, on_ready).await
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
    swap: Swap,
    shutdown: impl Future<Output = ()>,
    on_ready: impl FnOnce(SocketAddr),
) -> Result<(), Error> {
    let served = Service::new(swap.clone())
        .run(listener, shutdown, on_ready)
        .await;
    swap.shutdown().await;
    served
}

/// What the connections share.
#[derive(Debug)]
struct Service {
    swap: Swap,
    doors: Doors,
    connections: TaskTracker,
    closing: CancellationToken,
    cut: CancellationToken,
}

impl Service {
    fn new(swap: Swap) -> Self {
        let settings = &swap.lasting().settings;
        let extra = settings.extra_connections;
        let connections = descriptors::allow(settings.max_connections, extra);
        Self {
            doors: Doors::new(connections, extra),
            connections: TaskTracker::new(),
            closing: CancellationToken::new(),
            cut: CancellationToken::new(),
            swap,
        }
    }

    /// Accepts connections while the functions are proved and until `shutdown`, then drains.
    async fn run(
        self,
        listener: Listener,
        shutdown: impl Future<Output = ()>,
        on_ready: impl FnOnce(SocketAddr),
    ) -> Result<(), Error> {
        let readiness = self.swap.lasting().readiness.clone();
        let proved = async {
            if let Err(error) = self.swap.current().prove().await {
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
            match socket.accept().await {
                Ok((stream, peer)) => self.let_in(stream, peer),
                Err(error) => {
                    // Most likely out of file descriptors: some will be free soon.
                    tracing::warn!(%error, "cannot accept a connection");
                    sleep(Duration::from_millis(50)).await;
                }
            }
        }
    }

    /// Answers the requests of one connection in a task of its own.
    fn let_in(&self, stream: TcpStream, peer: SocketAddr) {
        let Some(slot) = self.doors.enter(peer.ip()) else {
            return;
        };
        let conversation = Conversation {
            swap: self.swap.clone(),
            address: peer.ip(),
            slot,
            closing: self.closing.clone(),
        };
        let cut = self.cut.clone();
        self.connections.spawn(async move {
            tokio::select! {
                () = conversation.hold(stream) => {}
                () = cut.cancelled() => {}
            }
        });
    }

    /// Lets the calls in flight end, and cuts off those that take too long.
    async fn drain(self) {
        self.closing.cancel();
        self.connections.close();
        let deadline = self.swap.lasting().settings.drain_deadline;
        if timeout(deadline, self.connections.wait()).await.is_err() {
            tracing::warn!(
                "calls that did not end within {} s are dropped",
                deadline.as_secs_f64()
            );
        }
        self.cut.cancel();
    }
}

/// Makes a response of whatever becomes of a request; counts and logs it once.
pub(crate) async fn respond<B>(serving: &Serving, request: Request<B>) -> Response<Content>
where
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: std::error::Error + Send + Sync + 'static,
{
    let Serving {
        stages, replies, ..
    } = serving;
    let mut timer = Timer::start();
    let reply = replies.begin(&request);
    #[cfg(feature = "otlp")]
    timer.has_span(reply.span(serving.tracer.as_ref(), request.headers()));
    let meter = Meter::new(&stages.admission.bytes);
    let request = request.map(|body| meter.meter(body));
    let answered = AssertUnwindSafe(answer_in(reply.protocol(), stages, request, &mut timer))
        .catch_unwind()
        .await;
    let mut answered = answered.unwrap_or(Err(Refusal::Internal));
    if answered.is_err() && meter.is_over() {
        answered = Err(Refusal::TooMuchInFlight { what: "bytes" });
    }
    let status = reply.status(&answered);
    let response = reply.finish(answered, timer.function());
    timer.finish(status);
    response
}

async fn answer_in<B>(
    protocol: Protocol,
    stages: &Stages,
    request: Request<B>,
    timer: &mut Timer,
) -> Result<Response<Content>, Refusal>
where
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: std::error::Error + Send + Sync + 'static,
{
    if protocol == Protocol::Grpc {
        return grpc::answer(stages, request, timer).await;
    }
    let answered = answer(stages, request, timer).await;
    answered.map(|response| response.map(Content::from))
}
