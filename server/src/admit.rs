//! How much may be in flight: calls, by client, and bytes of bodies.
//!
//! A call that is not admitted costs nothing: its body is not read. Health and metrics need no
//! permit, so they are answered when everything else is refused.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use hyper::http::Extensions;

use crate::error::Refusal;
use crate::ports::Port;
use crate::share::{Share, Shares};

/// Who sent a request. Put into its extensions by the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Client {
    pub(crate) address: IpAddr,
    /// It came over a connection that was kept back for health and metrics, when all others were in use.
    pub(crate) is_extra: bool,
    /// Where the connection came in.
    pub(crate) port: Port,
}

impl Client {
    pub(crate) fn of(extensions: &Extensions) -> Self {
        let nobody = Self {
            address: IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            is_extra: false,
            port: Port::Calls,
        };
        extensions.get::<Self>().copied().unwrap_or(nobody)
    }
}

/// Admits calls up to a limit, none of the clients to more than its share.
#[derive(Debug)]
pub(crate) struct Admission {
    calls: Arc<Shares>,
    pub(crate) bytes: Arc<Budget>,
}

/// The right to be in flight; given back when it is dropped, however the call ends.
#[derive(Debug)]
#[must_use = "a call is in flight as long as its permit lives"]
pub(crate) struct Permit(#[expect(dead_code, reason = "held for its drop")] Share);

impl Admission {
    pub(crate) fn new(max_calls: usize, max_bytes: u64) -> Self {
        Self {
            calls: Arc::new(Shares::new(max_calls)),
            bytes: Arc::new(Budget::new(max_bytes)),
        }
    }

    /// Admits the call of the client in the request's `extensions`.
    pub(crate) fn admit(&self, extensions: &Extensions) -> Result<Permit, Refusal> {
        let client = Client::of(extensions);
        let limit = self.calls.limit();
        let share = (!client.is_extra).then(|| self.calls.take(client.address));
        share.flatten().map(Permit).ok_or(Refusal::Full { limit })
    }

    /// Calls that hold a permit.
    pub(crate) fn in_flight(&self) -> usize {
        self.calls.held()
    }
}

/// Bytes that all requests together may hold.
#[derive(Debug)]
pub(crate) struct Budget {
    limit: u64,
    held: AtomicU64,
}

impl Budget {
    pub(crate) fn new(limit: u64) -> Self {
        Self {
            limit,
            held: AtomicU64::new(0),
        }
    }

    pub(crate) fn held(&self) -> u64 {
        self.held.load(Ordering::Relaxed)
    }

    /// Whether so many more would be too many.
    pub(crate) fn lacks(&self, bytes: u64) -> bool {
        self.held().saturating_add(bytes) > self.limit
    }

    /// Takes so many, unless they would be too many.
    pub(crate) fn take(&self, bytes: u64) -> bool {
        let before = self.held.fetch_add(bytes, Ordering::Relaxed);
        let fits = before.saturating_add(bytes) <= self.limit;
        if !fits {
            self.give_back(bytes);
        }
        fits
    }

    pub(crate) fn give_back(&self, bytes: u64) {
        self.held.fetch_sub(bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn from(last: u8, is_extra: bool) -> Extensions {
        let mut extensions = Extensions::new();
        extensions.insert(Client {
            address: IpAddr::from([10, 0, 0, last]),
            is_extra,
            port: Port::Calls,
        });
        extensions
    }

    #[test]
    fn a_permit_is_given_back_when_it_is_dropped() {
        let admission = Admission::new(2, 1);
        let first = admission.admit(&Extensions::new()).unwrap();
        let _second = admission.admit(&Extensions::new()).unwrap();
        assert_eq!(admission.in_flight(), 2);
        let refused = admission.admit(&Extensions::new());
        assert!(matches!(refused, Err(Refusal::Full { limit: 2 })));
        drop(first);
        assert_eq!(admission.in_flight(), 1);
        assert!(admission.admit(&Extensions::new()).is_ok());
    }

    #[test]
    fn a_greedy_client_leaves_room_for_others() {
        let admission = Admission::new(90, 1);
        let greedy: Vec<_> = (0..1000)
            .map_while(|_| admission.admit(&from(1, false)).ok())
            .collect();
        assert_eq!(greedy.len(), 80);
        assert!(admission.admit(&from(2, false)).is_ok());
    }

    #[test]
    fn a_connection_kept_back_for_health_carries_no_calls() {
        assert!(Admission::new(90, 1).admit(&from(1, true)).is_err());
    }

    #[test]
    fn bytes_are_taken_whole_or_not_at_all() {
        let budget = Budget::new(10);
        assert!(budget.take(6) && !budget.take(5) && budget.take(4));
        assert_eq!(budget.held(), 10);
        budget.give_back(6);
        assert!(budget.lacks(7) && !budget.lacks(6));
    }
}
