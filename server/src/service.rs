//! The life of a service: listen, prove, answer, drain.

use std::convert::Infallible;
use std::future::{Future, pending};
use std::net::SocketAddr;
use std::panic::AssertUnwindSafe;
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt as _;
use hyper::body::Body;
use hyper::{Request, Response};
use tokio::net::TcpStream;
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
use crate::ports::{Listener, Port, Ports};
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
/// [`Error::AddrInUse`], [`Error::Listen`], [`Error::Tls`], [`Error::SelfTest`].
pub async fn serve(
    settings: Settings,
    components: Components,
    shutdown: impl Future<Output = ()>,
    on_ready: impl FnOnce(SocketAddr),
) -> Result<(), Error> {
    let ports = Ports::take(&settings).await?;
    let swap = Swap::new(settings, components);
    serve_on(ports, swap, shutdown, on_ready).await
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
    let ports = Ports::take(&swap.lasting().settings).await?;
    serve_on(ports, swap, shutdown, on_ready).await
}

pub(crate) async fn serve_on(
    ports: Ports,
    swap: Swap,
    shutdown: impl Future<Output = ()>,
    on_ready: impl FnOnce(SocketAddr),
) -> Result<(), Error> {
    let served = Service::new(swap.clone())
        .run(ports, shutdown, on_ready)
        .await;
    swap.shutdown().await;
    served
}

/// What the connections share.
#[derive(Debug)]
struct Service {
    swap: Swap,
    doors: Doors,
    doors_of_monitors: Doors,
    connections: TaskTracker,
    closing: CancellationToken,
    cut: CancellationToken,
}

impl Service {
    fn new(swap: Swap) -> Self {
        let settings = &swap.lasting().settings;
        let extra = settings.extra_connections;
        let extras = match settings.listen_for_monitors {
            Some(_) => 2 * extra,
            None => extra,
        };
        let connections = descriptors::allow(settings.max_connections, extras);
        Self {
            doors: Doors::new(connections, extra),
            doors_of_monitors: Doors::new(extra, 1),
            connections: TaskTracker::new(),
            closing: CancellationToken::new(),
            cut: CancellationToken::new(),
            swap,
        }
    }

    /// Accepts connections while the functions are proved and until `shutdown`, then drains.
    async fn run(
        self,
        ports: Ports,
        shutdown: impl Future<Output = ()>,
        on_ready: impl FnOnce(SocketAddr),
    ) -> Result<(), Error> {
        self.swap.renew_certificates()?;
        let readiness = self.swap.lasting().readiness.clone();
        let proved = async {
            if let Err(error) = self.swap.current().prove().await {
                return error;
            }
            readiness.ready();
            on_ready(ports.calls.address);
            pending().await
        };
        let ended = tokio::select! {
            () = shutdown => Ok(()),
            error = proved => Err(error),
            never = self.accept_all(&ports) => match never {},
        };
        readiness.draining();
        drop(ports);
        self.drain().await;
        ended
    }

    async fn accept_all(&self, ports: &Ports) -> Infallible {
        let calls = self.accept(&ports.calls, Port::Calls);
        let Some(monitors) = &ports.monitors else {
            return calls.await;
        };
        tracing::info!(address = %monitors.address, "health and metrics are answered by plain HTTP");
        tokio::select! {
            never = calls => never,
            never = self.accept(monitors, Port::Monitors) => never,
        }
    }

    async fn accept(&self, listener: &Listener, port: Port) -> Infallible {
        loop {
            match listener.socket.accept().await {
                Ok((stream, peer)) => self.let_in(stream, peer, port),
                Err(error) => {
                    // Most likely out of file descriptors: some will be free soon.
                    tracing::warn!(%error, "cannot accept a connection");
                    sleep(Duration::from_millis(50)).await;
                }
            }
        }
    }

    /// Answers the requests of one connection in a task of its own.
    fn let_in(&self, stream: TcpStream, peer: SocketAddr, port: Port) {
        let doors = match port {
            Port::Calls => &self.doors,
            Port::Monitors => &self.doors_of_monitors,
        };
        let Some(slot) = doors.enter(peer.ip()) else {
            return;
        };
        let conversation = Conversation {
            swap: self.swap.clone(),
            address: peer.ip(),
            port,
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
pub(crate) async fn respond<B>(serving: &Serving, mut request: Request<B>) -> Response<Content>
where
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: std::error::Error + Send + Sync + 'static,
{
    let Serving {
        stages, replies, ..
    } = serving;
    stages.aliases.resolve(&mut request);
    let mut timer = Timer::start(Protocol::of(&request));
    let reply = replies.begin(&request);
    #[cfg(feature = "otlp")]
    timer.has_span(reply.span(serving.tracer.as_ref(), request.headers()));
    let meter = Meter::new(&stages.admission.bytes);
    let request = request.map(|body| meter.meter(body));
    let answering = async {
        stages.entrance.check(&request)?;
        answer_in(reply.protocol(), stages, request, &mut timer).await
    };
    let answered = AssertUnwindSafe(answering).catch_unwind().await;
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
