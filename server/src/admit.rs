//! How many calls may be in flight.
//!
//! A call that is not admitted costs nothing: its body is not read. Health and metrics need no
//! permit, so they are answered when everything else is refused.

use tokio::sync::{Semaphore, SemaphorePermit};

use crate::error::Refusal;

/// Admits calls up to a limit.
#[derive(Debug)]
pub(crate) struct Admission {
    permits: Semaphore,
    limit: usize,
}

/// The right to be in flight; given back when it is dropped, however the call ends.
#[derive(Debug)]
#[must_use = "a call is in flight as long as its permit lives"]
pub(crate) struct Permit<'a>(
    #[expect(dead_code, reason = "held for its drop")] SemaphorePermit<'a>,
);

impl Admission {
    pub(crate) fn new(limit: usize) -> Self {
        let limit = limit.clamp(1, Semaphore::MAX_PERMITS);
        Self {
            permits: Semaphore::new(limit),
            limit,
        }
    }

    pub(crate) fn admit(&self) -> Result<Permit<'_>, Refusal> {
        self.permits
            .try_acquire()
            .map(Permit)
            .map_err(|_| Refusal::Full { limit: self.limit })
    }

    /// Calls that hold a permit.
    pub(crate) fn in_flight(&self) -> usize {
        self.limit - self.permits.available_permits()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_permit_is_given_back_when_it_is_dropped() {
        let admission = Admission::new(2);
        let first = admission.admit().unwrap();
        let _second = admission.admit().unwrap();
        assert_eq!(admission.in_flight(), 2);
        assert!(matches!(admission.admit(), Err(Refusal::Full { limit: 2 })));
        drop(first);
        assert_eq!(admission.in_flight(), 1);
        assert!(admission.admit().is_ok());
    }
}
