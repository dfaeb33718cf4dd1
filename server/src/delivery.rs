//! Answers on their way to the client: how long one may take over HTTP/2.
//!
//! There a client can leave the window of a stream shut and the connection alive, which no limit on
//! the connection notices. So a large answer is handed over in pieces, and the connection is given up
//! when the last one is not taken in time.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::HeaderMap;
use hyper::body::{Body, Frame, SizeHint};
use tokio::time::sleep;
use tokio_util::sync::{CancellationToken, DropGuard};

/// What may lie in the buffer of a stream whose window is shut. Shorter answers are not watched.
const PIECE_BYTES: usize = 16 << 10;

/// What an answer is made of.
#[derive(Debug)]
pub(crate) enum Content {
    /// All of it, and the headers behind it, which only gRPC has.
    Whole(Bytes, Option<HeaderMap>),
    /// Messages as they come.
    Messages(tonic::body::Body),
}

impl From<Full<Bytes>> for Content {
    fn from(body: Full<Bytes>) -> Self {
        Self::Whole(body.into_inner().unwrap_or_default(), None)
    }
}

/// The body of an answer.
#[derive(Debug)]
pub(crate) struct Delivery {
    rest: Bytes,
    /// At most so many bytes at once.
    piece: usize,
    trailers: Option<HeaderMap>,
    messages: Option<tonic::body::Body>,
    /// Tells that the last piece has been taken, or the stream has ended.
    #[expect(dead_code, reason = "held for its drop")]
    watched: Option<DropGuard>,
}

impl Delivery {
    /// In one piece: a client who does not take it keeps the connection from being written.
    pub(crate) fn whole(content: Content) -> Self {
        let (rest, trailers, messages) = match content {
            Content::Whole(rest, trailers) => (rest, trailers, None),
            Content::Messages(messages) => (Bytes::new(), None, Some(messages)),
        };
        Self {
            rest,
            piece: usize::MAX,
            trailers,
            messages,
            watched: None,
        }
    }

    /// In pieces; `overdue` is cancelled when they are not taken within `time`. Messages that come one
    /// by one are short.
    pub(crate) fn watched(content: Content, time: Duration, overdue: &CancellationToken) -> Self {
        let delivery = Self::whole(content);
        let is_long = delivery.rest.len() > PIECE_BYTES;
        Self {
            piece: PIECE_BYTES,
            watched: is_long.then(|| watch(time, overdue.clone())),
            ..delivery
        }
    }
}

fn watch(time: Duration, overdue: CancellationToken) -> DropGuard {
    let taken = CancellationToken::new();
    let guard = taken.clone().drop_guard();
    tokio::spawn(async move {
        tokio::select! {
            () = taken.cancelled() => {}
            () = sleep(time) => overdue.cancel(),
        }
    });
    guard
}

impl Body for Delivery {
    type Data = Bytes;
    type Error = tonic::Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, tonic::Status>>> {
        if !self.rest.is_empty() {
            let length = self.piece.min(self.rest.len());
            let piece = self.rest.split_to(length);
            return Poll::Ready(Some(Ok(Frame::data(piece))));
        }
        if let Some(trailers) = self.trailers.take() {
            return Poll::Ready(Some(Ok(Frame::trailers(trailers))));
        }
        match &mut self.messages {
            Some(messages) => Pin::new(messages).poll_frame(context),
            None => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        let messages = self.messages.as_ref();
        self.rest.is_empty() && self.trailers.is_none() && messages.is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        if self.trailers.is_some() || self.messages.is_some() {
            return SizeHint::default();
        }
        SizeHint::with_exact(self.rest.len() as u64)
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt as _;

    use super::*;

    fn body(length: usize) -> Content {
        Content::Whole(Bytes::from(vec![7; length]), None)
    }

    #[tokio::test]
    async fn an_answer_is_the_same_in_pieces() {
        let overdue = CancellationToken::new();
        for length in [0, 1, PIECE_BYTES, PIECE_BYTES + 1, 100_000] {
            let delivery = Delivery::watched(body(length), Duration::from_secs(1), &overdue);
            assert_eq!(delivery.size_hint().exact(), Some(length as u64));
            let collected = delivery.collect().await.unwrap().to_bytes();
            assert_eq!(collected, vec![7; length]);
        }
    }

    #[tokio::test]
    async fn trailers_come_behind_the_last_piece() {
        let trailers =
            HeaderMap::from_iter([("grpc-status".parse().unwrap(), "0".parse().unwrap())]);
        for length in [0, 100_000] {
            let content = Content::Whole(Bytes::from(vec![7; length]), Some(trailers.clone()));
            let overdue = CancellationToken::new();
            let delivery = Delivery::watched(content, Duration::from_secs(1), &overdue);
            assert!(!delivery.is_end_stream());
            let collected = delivery.collect().await.unwrap();
            assert_eq!(collected.trailers(), Some(&trailers));
            assert_eq!(collected.to_bytes().len(), length);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_large_answer_must_be_taken_in_time() {
        let overdue = CancellationToken::new();
        let time = Duration::from_secs(30);
        drop(Delivery::watched(body(100_000), time, &overdue));
        let _small = Delivery::watched(body(100), time, &overdue);
        sleep(2 * time).await;
        assert!(!overdue.is_cancelled());
        let _large = Delivery::watched(body(100_000), time, &overdue);
        sleep(2 * time).await;
        assert!(overdue.is_cancelled());
    }
}
