//! Answers on their way to the client: how long one may take over HTTP/2.
//!
//! There a client can leave the window of a stream shut and the connection alive, which no limit on
//! the connection notices. So a large answer is handed over in pieces, and the connection is given up
//! when the last one is not taken in time.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::body::{Body, Frame, SizeHint};
use tokio::time::sleep;
use tokio_util::sync::{CancellationToken, DropGuard};

/// What may lie in the buffer of a stream whose window is shut. Shorter answers are not watched.
const PIECE_BYTES: usize = 16 << 10;

/// The body of an answer.
#[derive(Debug)]
pub(crate) struct Delivery {
    rest: Bytes,
    /// At most so many bytes at once.
    piece: usize,
    /// Tells that the last piece has been taken, or the stream has ended.
    #[expect(dead_code, reason = "held for its drop")]
    watched: Option<DropGuard>,
}

impl Delivery {
    /// In one piece: a client who does not take it keeps the connection from being written.
    pub(crate) async fn whole(body: Full<Bytes>) -> Self {
        let rest = bytes(body).await;
        Self {
            piece: usize::MAX,
            rest,
            watched: None,
        }
    }

    /// In pieces; `overdue` is cancelled when they are not taken within `time`.
    pub(crate) async fn watched(
        body: Full<Bytes>,
        time: Duration,
        overdue: &CancellationToken,
    ) -> Self {
        let rest = bytes(body).await;
        let watched = (rest.len() > PIECE_BYTES).then(|| watch(time, overdue.clone()));
        Self {
            piece: PIECE_BYTES,
            rest,
            watched,
        }
    }
}

/// All of a body that is in memory already.
async fn bytes(mut body: Full<Bytes>) -> Bytes {
    match body.frame().await {
        Some(Ok(frame)) => frame.into_data().unwrap_or_default(),
        None => Bytes::new(),
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
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if self.rest.is_empty() {
            return Poll::Ready(None);
        }
        let length = self.piece.min(self.rest.len());
        let piece = self.rest.split_to(length);
        Poll::Ready(Some(Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.rest.len() as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn body(length: usize) -> Full<Bytes> {
        Full::new(Bytes::from(vec![7; length]))
    }

    #[tokio::test]
    async fn an_answer_is_the_same_in_pieces() {
        let overdue = CancellationToken::new();
        for length in [0, 1, PIECE_BYTES, PIECE_BYTES + 1, 100_000] {
            let delivery = Delivery::watched(body(length), Duration::from_secs(1), &overdue).await;
            assert_eq!(delivery.size_hint().exact(), Some(length as u64));
            let collected = delivery.collect().await.unwrap().to_bytes();
            assert_eq!(collected, vec![7; length]);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_large_answer_must_be_taken_in_time() {
        let overdue = CancellationToken::new();
        let time = Duration::from_secs(30);
        drop(Delivery::watched(body(100_000), time, &overdue).await);
        let _small = Delivery::watched(body(100), time, &overdue).await;
        sleep(2 * time).await;
        assert!(!overdue.is_cancelled());
        let _large = Delivery::watched(body(100_000), time, &overdue).await;
        sleep(2 * time).await;
        assert!(overdue.is_cancelled());
    }
}
