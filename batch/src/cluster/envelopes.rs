//! Where executors get envelopes from, and how many they keep ready.

use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use envelope_format::Digest;
use tokio::sync::OnceCell;

use super::lending::Lender;
use crate::MapRows;
use crate::function::Callable;

/// Envelopes that an executor can run, by their digests.
#[async_trait]
pub trait Envelopes: Send + Sync {
    /// Gets an envelope, checks that its bytes are those of the digest, and makes it ready. Its
    /// workers end when what is given is dropped. `scheduler` lends what is not to be had on this
    /// machine; one that is on this machine itself has nothing else.
    ///
    /// # Errors
    /// [`runtime::Error::Start`] when it is not to be had; those of starting a runtime.
    async fn get(
        &self,
        digest: Digest,
        scheduler: Option<&dyn Lender>,
    ) -> Result<Arc<dyn MapRows>, runtime::Error>;
}

/// One envelope on one executor: got once, however many tasks ask for it at the same time.
pub(crate) struct Fetched {
    digest: Digest,
    envelopes: Arc<dyn Envelopes>,
    scheduler: Option<Arc<dyn Lender>>,
    ready: OnceCell<Arc<dyn MapRows>>,
}

impl Fetched {
    /// A failure is not kept: the next task tries again.
    pub(crate) async fn get(&self) -> Result<&Arc<dyn MapRows>, runtime::Error> {
        self.ready
            .get_or_try_init(|| self.envelopes.get(self.digest, self.scheduler.as_deref()))
            .await
    }
}

/// Envelopes with idle workers that an executor keeps at most. Each has a worker for each slot, so
/// more than a few would fill the memory with models that nobody asks for.
const MOST_READY: usize = 4;

/// The envelopes that are ready on an executor, the one that was asked for last at the end.
pub(super) struct Ready {
    envelopes: Arc<dyn Envelopes>,
    scheduler: Option<Arc<dyn Lender>>,
    slots: NonZeroUsize,
    callables: Mutex<Vec<(Digest, Arc<Callable>)>>,
}

impl Ready {
    pub(super) fn new(
        envelopes: Arc<dyn Envelopes>,
        scheduler: Option<Arc<dyn Lender>>,
        slots: NonZeroUsize,
    ) -> Self {
        Self {
            envelopes,
            scheduler,
            slots,
            callables: Mutex::default(),
        }
    }

    pub(super) fn find(&self, digest: &Digest) -> Arc<Callable> {
        let mut callables = self
            .callables
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let known = callables.iter().position(|(known, _)| known == digest);
        let callable = match known {
            Some(place) => callables.remove(place).1,
            None => Arc::new(self.fetched(*digest)),
        };
        callables.push((*digest, Arc::clone(&callable)));
        make_room(&mut callables);
        callable
    }

    fn fetched(&self, digest: Digest) -> Callable {
        let envelope = Fetched {
            digest,
            envelopes: Arc::clone(&self.envelopes),
            scheduler: self.scheduler.clone(),
            ready: OnceCell::new(),
        };
        Callable::fetched(envelope, self.slots)
    }
}

/// Lets go of what was not asked for the longest, unless a task is still at work with it.
fn make_room(callables: &mut Vec<(Digest, Arc<Callable>)>) {
    let mut too_many = callables.len().saturating_sub(MOST_READY);
    callables.retain(|(_, callable)| {
        let idle = too_many > 0 && Arc::strong_count(callable) == 1;
        too_many -= usize::from(idle);
        !idle
    });
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Duration;

    use super::*;
    use crate::fake::{Fake, rows_of};

    #[derive(Default)]
    struct Counting(AtomicUsize);

    #[async_trait]
    impl Envelopes for Counting {
        async fn get(
            &self,
            _: Digest,
            _: Option<&dyn Lender>,
        ) -> Result<Arc<dyn MapRows>, runtime::Error> {
            self.0.fetch_add(1, Ordering::SeqCst);
            tokio::task::yield_now().await;
            Ok(Arc::new(Fake::new()))
        }
    }

    fn ready() -> (Arc<Counting>, Ready) {
        let counting = Arc::<Counting>::default();
        let envelopes: Arc<dyn Envelopes> = Arc::<Counting>::clone(&counting);
        (counting, Ready::new(envelopes, None, NonZeroUsize::MIN))
    }

    async fn call(callable: &Callable) {
        let rows = rows_of(&[1.0]);
        let output = callable.map("double", rows, Duration::MAX).await;
        assert_eq!(output.unwrap().num_rows(), 1);
    }

    #[tokio::test]
    async fn an_envelope_is_got_once_for_all_who_ask() {
        let (counting, ready) = ready();
        let digest = Digest::of(b"one");
        let (one, other) = (ready.find(&digest), ready.find(&digest));
        let third = ready.find(&digest);
        tokio::join!(call(&one), call(&other), call(&third));
        assert_eq!(counting.0.load(Ordering::SeqCst), 1);
    }

    #[tokio::test]
    async fn few_idle_envelopes_are_kept_and_none_is_taken_from_a_task() {
        let (_, ready) = ready();
        let digest = |number: usize| Digest::of(&number.to_le_bytes());
        let at_work = ready.find(&digest(0));
        for number in 1..=2 * MOST_READY {
            ready.find(&digest(number));
        }
        let kept: Vec<_> = ready
            .callables
            .lock()
            .unwrap()
            .iter()
            .map(|(kept, _)| *kept)
            .collect();
        assert_eq!(kept.len(), MOST_READY);
        assert_eq!(kept[0], digest(0), "a task is at work with it");
        assert_eq!(kept[MOST_READY - 1], digest(2 * MOST_READY));
        assert!(Arc::ptr_eq(&at_work, &ready.find(&digest(0))));
    }
}
