//! Bodies are counted while they arrive: all requests together may hold so many bytes.
//!
//! What a body says about its length costs nothing; what has come of it counts, until its request
//! is answered.

use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};

use crate::admit::Budget;

/// The bytes of one request, until it is dropped.
#[derive(Debug)]
pub(crate) struct Meter(Arc<Counted>);

#[derive(Debug)]
struct Counted {
    budget: Arc<Budget>,
    held: AtomicU64,
    is_over: AtomicBool,
}

/// A body that ends early when there is no room for more of it.
#[derive(Debug)]
pub(crate) struct Metered<B> {
    body: Pin<Box<B>>,
    /// Gone once the request is answered: what is read on is thrown away, and does not count.
    counted: Weak<Counted>,
    has_begun: bool,
}

/// Why a body ended early.
#[derive(Debug, thiserror::Error)]
pub(crate) enum MeteredError<E> {
    #[error("too many bytes are in flight")]
    Over,
    #[error(transparent)]
    Body(E),
}

impl Meter {
    pub(crate) fn new(budget: &Arc<Budget>) -> Self {
        Self(Arc::new(Counted {
            budget: Arc::clone(budget),
            held: AtomicU64::new(0),
            is_over: AtomicBool::new(false),
        }))
    }

    pub(crate) fn meter<B>(&self, body: B) -> Metered<B> {
        Metered {
            body: Box::pin(body),
            counted: Arc::downgrade(&self.0),
            has_begun: false,
        }
    }

    /// Whether the body ended because there was no room for more.
    pub(crate) fn is_over(&self) -> bool {
        self.0.is_over.load(Ordering::Relaxed)
    }
}

impl Counted {
    fn allows(&self, bytes: u64) -> bool {
        let fits = self.budget.take(bytes);
        if fits {
            self.held.fetch_add(bytes, Ordering::Relaxed);
        } else {
            self.is_over.store(true, Ordering::Relaxed);
        }
        fits
    }

    /// What is stated and cannot fit is not read at all.
    fn could_allow(&self, stated: u64) -> bool {
        let lacks = self.budget.lacks(stated);
        self.is_over.fetch_or(lacks, Ordering::Relaxed);
        !lacks
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.budget.give_back(*self.held.get_mut());
    }
}

impl<B: Body<Data = Bytes>> Body for Metered<B> {
    type Data = Bytes;
    type Error = MeteredError<B::Error>;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let Some(counted) = self.counted.upgrade() else {
            let frame = ready!(self.body.as_mut().poll_frame(context));
            return Poll::Ready(frame.map(|frame| frame.map_err(MeteredError::Body)));
        };
        if !std::mem::replace(&mut self.has_begun, true)
            && !counted.could_allow(self.body.size_hint().lower())
        {
            return Poll::Ready(Some(Err(MeteredError::Over)));
        }
        let frame = ready!(self.body.as_mut().poll_frame(context));
        let bytes = match &frame {
            Some(Ok(frame)) => frame.data_ref().map_or(0, Bytes::len),
            Some(Err(_)) | None => 0,
        };
        if !counted.allows(bytes as u64) {
            return Poll::Ready(Some(Err(MeteredError::Over)));
        }
        Poll::Ready(frame.map(|frame| frame.map_err(MeteredError::Body)))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::{BodyExt as _, Full, StreamBody};

    use super::*;

    #[tokio::test]
    async fn bytes_count_until_the_request_is_answered() {
        let budget = Arc::new(Budget::new(10));
        let meter = Meter::new(&budget);
        let body = meter.meter(Full::new(Bytes::from_static(b"12345678")));
        assert_eq!(body.collect().await.unwrap().to_bytes().len(), 8);
        assert_eq!(budget.held(), 8);
        let second = Meter::new(&budget);
        let body = second.meter(Full::new(Bytes::from_static(b"123")));
        assert!(body.collect().await.is_err() && second.is_over() && !meter.is_over());
        drop(meter);
        assert_eq!(budget.held(), 0);
    }

    #[tokio::test]
    async fn a_body_that_does_not_say_its_length_ends_where_there_is_no_more_room() {
        let budget = Arc::new(Budget::new(10));
        let meter = Meter::new(&budget);
        let endless = futures::stream::repeat_with(|| {
            Ok::<_, std::convert::Infallible>(Frame::data(Bytes::from_static(b"1234")))
        });
        assert!(
            meter
                .meter(StreamBody::new(endless))
                .collect()
                .await
                .is_err()
        );
        assert!(meter.is_over());
        assert_eq!(budget.held(), 8);
    }
}
