//! Which envelope is served, and how another takes its place.
//!
//! The new one answers its samples first, in its own workers. Then the next request finds it; those
//! in flight end where they began. What was served before keeps its workers for a while: bringing it
//! back is one write of a pointer.

use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use envelope_format::Digest;
use tokio::sync::Mutex;
use tokio::task::{AbortHandle, spawn};
use tokio::time::sleep;

use crate::components::Components;
use crate::error::Error;
use crate::serving::Serving;
use crate::settings::Settings;
use crate::stages::Lasting;
use crate::telemetry::Swapped;

/// What a service serves, and the means to change it while it runs. Clones are of the same service.
///
/// ```no_run
/// # async fn example(first: runtime::Runtime, second: runtime::Runtime) -> Result<(), server::Error> {
/// let swap = server::Swap::new(server::Settings::default(), server::Components::new(first)?);
/// let service = tokio::spawn(server::serve_with(swap.clone(), std::future::pending(), |_| ()));
/// let before = swap.digest();
/// swap.to(server::Components::new(second)?).await?;
/// swap.back_to(before).await;
/// # Ok(()) }
/// ```
#[derive(Debug, Clone)]
pub struct Swap(Arc<State>);

#[derive(Debug)]
struct State {
    lasting: Lasting,
    current: RwLock<Arc<Serving>>,
    /// Held while one takes the place of another: one after the other.
    previous: Mutex<Option<Previous>>,
}

/// What was served before.
#[derive(Debug)]
struct Previous {
    serving: Arc<Serving>,
    /// Ends it after a while.
    timer: AbortHandle,
}

impl Swap {
    /// A service of `components`. Must be called within a Tokio runtime.
    #[must_use]
    pub fn new(settings: Settings, components: Components) -> Self {
        let lasting = Lasting::new(settings);
        let serving = Serving::new(&lasting, components);
        serving.announce(&lasting);
        Self(Arc::new(State {
            current: RwLock::new(Arc::new(serving)),
            previous: Mutex::default(),
            lasting,
        }))
    }

    /// The envelope that is served now.
    #[must_use]
    pub fn digest(&self) -> Digest {
        self.current().digest()
    }

    /// Serves `components` from now on, if every function of theirs answers its own sample. Otherwise
    /// their workers are ended and all stays as it is.
    ///
    /// # Errors
    /// [`Error::SelfTest`].
    pub async fn to(&self, components: Components) -> Result<(), Error> {
        let mut previous = self.0.previous.lock().await;
        let calls = components.calls.clone();
        if components.digest == self.digest() {
            calls.shutdown(Duration::ZERO).await;
            return Ok(());
        }
        let serving = Serving::new(&self.0.lasting, components);
        if let Err(error) = serving.prove().await {
            self.was_refused();
            calls.shutdown(Duration::ZERO).await;
            return Err(error);
        }
        self.take_place(&mut previous, Arc::new(serving), Swapped::New);
        Ok(())
    }

    /// Serves the envelope again that was served before, if it is that of `digest` and its workers
    /// are still there. Tells whether it is served now.
    pub async fn back_to(&self, digest: Digest) -> bool {
        let mut previous = self.0.previous.lock().await;
        if self.digest() == digest {
            return true;
        }
        let Some(before) = previous.take_if(|before| before.serving.digest() == digest) else {
            return false;
        };
        before.timer.abort();
        self.take_place(&mut previous, before.serving, Swapped::Back);
        true
    }

    /// Reads the files of [`Settings::tls`] again, as after a renewal: new connections are shown what is
    /// in them now. If that cannot be used, they go on being shown what was in them before.
    ///
    /// # Errors
    /// [`Error::Tls`].
    pub fn renew_certificates(&self) -> Result<(), Error> {
        match &self.0.lasting.certificates {
            Some(certificates) => Ok(certificates.read()?),
            None => Ok(()),
        }
    }

    /// An envelope that was to be served did not even start.
    pub(crate) fn was_refused(&self) {
        self.0.lasting.telemetry.swapped(Swapped::Refused);
    }

    pub(crate) fn current(&self) -> Arc<Serving> {
        let current = self.0.current.read();
        Arc::clone(&current.unwrap_or_else(PoisonError::into_inner))
    }

    pub(crate) fn lasting(&self) -> &Lasting {
        &self.0.lasting
    }

    fn take_place(&self, previous: &mut Option<Previous>, next: Arc<Serving>, how: Swapped) {
        let lasting = &self.0.lasting;
        next.announce(lasting);
        let now = next.digest();
        let before = {
            let mut current = self
                .0
                .current
                .write()
                .unwrap_or_else(PoisonError::into_inner);
            std::mem::replace(&mut *current, next)
        };
        tracing::info!(digest = %now, before = %before.digest(), "another envelope is served");
        lasting.telemetry.swapped(how);
        let timer = self.keep_for_a_while(before.digest());
        // Two of them may be kept for a moment, and not more.
        if let Some(older) = previous.replace(Previous {
            serving: before,
            timer,
        }) {
            older.timer.abort();
            spawn(end(older.serving, lasting.settings.drain_deadline));
        }
    }

    fn keep_for_a_while(&self, digest: Digest) -> AbortHandle {
        // The service may end before.
        let (state, time) = (
            Arc::downgrade(&self.0),
            self.0.lasting.settings.keep_previous,
        );
        let timer = async move {
            sleep(time).await;
            let Some(state) = state.upgrade() else { return };
            let mut previous = state.previous.lock().await;
            let kept = previous.take_if(|kept| kept.serving.digest() == digest);
            drop(previous);
            if let Some(kept) = kept {
                end(kept.serving, state.lasting.settings.drain_deadline).await;
            }
        };
        spawn(timer).abort_handle()
    }

    /// Ends the workers of all that was served. Requests must have ended.
    pub(crate) async fn shutdown(&self) {
        let grace = self.0.lasting.settings.drain_deadline;
        let previous = self.0.previous.lock().await.take();
        if let Some(previous) = previous {
            previous.timer.abort();
            previous.serving.ending().shutdown(grace).await;
        }
        self.current().ending().shutdown(grace).await;
        #[cfg(feature = "otlp")]
        if let Some(spans) = &self.0.lasting.spans {
            spans.shutdown().await;
        }
    }
}

/// Waits for the requests that `serving` answers, then ends its workers.
async fn end(serving: Arc<Serving>, grace: Duration) {
    let ending = serving.ending();
    drop(serving);
    ending.complete(grace).await;
}
