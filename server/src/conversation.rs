//! One connection: its limits, its requests, its end.

use std::convert::Infallible;
use std::error::Error;
use std::net::IpAddr;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response, Version};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep, timeout, timeout_at};
use tokio_util::sync::CancellationToken;

use crate::admit::Client;
use crate::delivery::Delivery;
use crate::doors::Slot;
use crate::patience::Patient;
use crate::ports::Port;
use crate::service::respond;
use crate::settings::Settings;
use crate::swap::Swap;
use crate::tls::Agreed;

/// How long a connection beyond the limit may take for its questions about health.
const EXTRA_TIME: Duration = Duration::from_secs(2);

/// One connection, HTTP/1.1 or HTTP/2 as the client likes.
pub(crate) struct Conversation {
    pub(crate) swap: Swap,
    pub(crate) address: IpAddr,
    pub(crate) port: Port,
    pub(crate) slot: Slot,
    /// Calls in flight are finished, no others begun.
    pub(crate) closing: CancellationToken,
}

/// What the requests of a connection tell it.
#[derive(Debug, Default)]
struct Activity {
    /// Told of the first request.
    first: Notify,
    begun: AtomicU64,
    ended: AtomicU64,
}

/// A request between its headers and its answer, or its end.
struct UnderWay(Arc<Activity>);

impl Conversation {
    /// Ends when the client does, or has no patience with us, or we with it.
    pub(crate) async fn hold(self, stream: TcpStream) {
        // An answer is one write; waiting for more to send only delays it.
        let _ = stream.set_nodelay(true);
        if self.slot.is_extra {
            _ = timeout(EXTRA_TIME, self.open(stream)).await;
        } else {
            self.open(stream).await;
        }
    }

    /// Where there are certificates, calls are spoken of in private; monitors read what is no secret.
    async fn open(self, stream: TcpStream) {
        let lasting = self.swap.lasting();
        let stream = Patient::new(stream, lasting.settings.write_timeout);
        let deadline = Instant::now() + lasting.settings.header_timeout;
        let certificates = lasting.certificates.as_ref();
        let Some(certificates) = certificates.filter(|_| self.port == Port::Calls) else {
            let protocol = protocol(&lasting.settings);
            return self.converse(stream, protocol, deadline).await;
        };
        let shaken = tokio::select! {
            shaken = timeout_at(deadline, certificates.shake_hands(stream)) => shaken,
            () = self.closing.cancelled() => return,
        };
        match shaken {
            Ok(Ok((stream, agreed))) => {
                let protocol = agreed.only(protocol(&lasting.settings));
                self.converse(stream, protocol, deadline).await;
            }
            Ok(Err(error)) => tracing::debug!(error = &error as &dyn Error, "a handshake failed"),
            Err(_) => tracing::debug!("a handshake took too long"),
        }
    }

    /// The first headers have to be there at the `deadline`.
    async fn converse<S>(self, stream: S, protocol: Builder<TokioExecutor>, deadline: Instant)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let settings = &self.swap.lasting().settings;
        let activity = Arc::new(Activity::default());
        let overdue = CancellationToken::new();
        let service = {
            let (swap, activity, overdue) = (self.swap.clone(), activity.clone(), overdue.clone());
            let client = Client {
                address: self.address,
                is_extra: self.slot.is_extra,
                port: self.port,
            };
            service_fn(move |mut request: Request<Incoming>| {
                request.extensions_mut().insert(client);
                let under_way = activity.begin();
                let (swap, overdue) = (swap.clone(), overdue.clone());
                async move {
                    let response = reply(&swap, request, &overdue).await;
                    drop(under_way);
                    Ok::<_, Infallible>(response)
                }
            })
        };
        let mut connection = pin!(protocol.serve_connection(TokioIo::new(stream), service));
        // hyper has no patience limit before it knows the protocol, nor one for all headers of HTTP/2.
        let spoke = tokio::select! {
            _ = connection.as_mut() => false,
            begun = timeout_at(deadline, activity.first.notified()) => begun.is_ok(),
            () = self.closing.cancelled() => true,
        };
        if !spoke {
            return;
        }
        let ended = tokio::select! {
            ended = connection.as_mut() => ended,
            () = overdue.cancelled() => return,
            () = self.is_to_end(&activity, settings.idle_timeout) => {
                connection.as_mut().graceful_shutdown();
                tokio::select! {
                    ended = connection => ended,
                    () = overdue.cancelled() => return,
                    // A client of HTTP/2 has to say goodbye as well.
                    () = activity.is_silent_for(settings.header_timeout) => return,
                }
            }
        };
        if let Err(error) = ended {
            tracing::debug!(error, "a connection broke");
        }
    }

    /// The service drains, or the client has been silent for too long.
    async fn is_to_end(&self, activity: &Activity, idle_timeout: Duration) {
        tokio::select! {
            () = self.closing.cancelled() => {}
            () = activity.is_silent_for(idle_timeout) => {}
        }
    }
}

impl Activity {
    fn begin(self: &Arc<Self>) -> UnderWay {
        self.begun.fetch_add(1, Ordering::Relaxed);
        self.first.notify_one();
        UnderWay(self.clone())
    }

    /// hyper knows when a connection of HTTP/1 is silent, and not when one of HTTP/2 is.
    async fn is_silent_for(&self, time: Duration) {
        loop {
            let begun = self.begun.load(Ordering::Relaxed);
            sleep(time).await;
            let ended = self.ended.load(Ordering::Relaxed);
            if ended == begun && self.begun.load(Ordering::Relaxed) == begun {
                return;
            }
        }
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.ended.fetch_add(1, Ordering::Relaxed);
    }
}

/// Asks what is served at the moment; the request stays with it.
async fn reply(
    swap: &Swap,
    request: Request<Incoming>,
    overdue: &CancellationToken,
) -> Response<Delivery> {
    let version = request.version();
    let serving = swap.current();
    let time = serving.stages.settings.write_timeout;
    respond(&serving, request).await.map(|content| {
        if version < Version::HTTP_2 {
            Delivery::whole(content)
        } else {
            Delivery::watched(content, time, overdue)
        }
    })
}

fn protocol(settings: &Settings) -> Builder<TokioExecutor> {
    let mut builder = Builder::new(TokioExecutor::new());
    let header_bytes = usize::try_from(settings.max_header_bytes).unwrap_or(usize::MAX);
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(settings.idle_timeout)
        .max_headers(settings.max_headers)
        .max_buf_size(header_bytes.max(LEAST_BUFFER));
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(settings.max_streams)
        .max_pending_accept_reset_streams(settings.max_reset_streams)
        .max_local_error_reset_streams(settings.max_error_streams)
        .max_header_list_size(settings.max_header_bytes)
        .max_send_buf_size(SEND_BUFFER)
        .keep_alive_interval(Duration::from_secs(20))
        .keep_alive_timeout(Duration::from_secs(20));
    builder
}

impl Agreed {
    /// Nothing else is spoken than what was agreed upon.
    fn only(self, builder: Builder<TokioExecutor>) -> Builder<TokioExecutor> {
        match self {
            Self::Http1 => builder.http1_only(),
            Self::Http2 => builder.http2_only(),
        }
    }
}

/// hyper takes no smaller buffer.
const LEAST_BUFFER: usize = 8192;

/// What one stream may have waiting for its window.
const SEND_BUFFER: usize = 64 << 10;
