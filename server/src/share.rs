//! Who may hold how much of something that there is a limited number of.
//!
//! Under pressure each client is held to about the same number, so that one who asks a hundred times
//! as much cannot starve the others; without pressure one client may have nearly everything. Nobody
//! counts clients for that: a client may hold [`GREED`] times what is free at the moment, and what is
//! free shrinks as more of them come (a dynamic threshold, as switches have for their buffers).

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// A client alone may hold 8/9 of everything, two 8/17 each: a newcomer always finds something free.
const GREED: usize = 8;

/// So many of a thing, lent to clients.
#[derive(Debug)]
pub(crate) struct Shares {
    limit: usize,
    held: Mutex<Held>,
}

#[derive(Debug, Default)]
struct Held {
    total: usize,
    /// Only of clients that hold something.
    by: HashMap<IpAddr, usize>,
}

/// One of the things; given back when it is dropped.
#[derive(Debug)]
#[must_use = "a share is held for as long as it lives"]
pub(crate) struct Share {
    shares: Arc<Shares>,
    client: IpAddr,
}

impl Shares {
    pub(crate) fn new(limit: usize) -> Self {
        Self {
            limit: limit.max(1),
            held: Mutex::default(),
        }
    }

    pub(crate) fn limit(&self) -> usize {
        self.limit
    }

    pub(crate) fn held(&self) -> usize {
        self.state().total
    }

    /// One for `client`, unless it has enough.
    pub(crate) fn take(self: &Arc<Self>, client: IpAddr) -> Option<Share> {
        let client = network(client);
        let mut held = self.state();
        let has = held.by.get(&client).copied().unwrap_or(0);
        if !may_take(has, self.limit.saturating_sub(held.total)) {
            return None;
        }
        held.total += 1;
        held.by.insert(client, has + 1);
        Some(Share {
            shares: Arc::clone(self),
            client,
        })
    }

    fn state(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        let mut held = self.shares.state();
        held.total -= 1;
        if let Some(has) = held.by.get_mut(&self.client) {
            *has -= 1;
            if *has == 0 {
                held.by.remove(&self.client);
            }
        }
    }
}

fn may_take(has: usize, free: usize) -> bool {
    has < free.saturating_mul(GREED)
}

/// Whom an address belongs to: of version 6 everybody has 2⁶⁴.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => {
            let prefix = address.to_bits() & !u128::from(u64::MAX);
            IpAddr::V6(Ipv6Addr::from_bits(prefix))
        }
        v4 @ IpAddr::V4(_) => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(number: u8) -> IpAddr {
        IpAddr::from([10, 0, 0, number])
    }

    fn takes_all(shares: &Arc<Shares>, who: IpAddr) -> Vec<Share> {
        std::iter::from_fn(|| shares.take(who)).collect()
    }

    #[test]
    fn a_share_is_given_back_when_it_is_dropped() {
        let shares = Arc::new(Shares::new(1));
        let share = shares.take(client(1));
        assert!(
            share.is_some() && shares.take(client(1)).is_none() && shares.take(client(2)).is_none()
        );
        drop(share);
        assert_eq!((shares.held(), shares.state().by.len()), (0, 0));
        assert!(shares.take(client(2)).is_some());
    }

    #[test]
    fn one_client_may_have_nearly_everything() {
        let shares = Arc::new(Shares::new(900));
        assert_eq!(takes_all(&shares, client(1)).len(), 800);
    }

    #[test]
    fn a_newcomer_finds_something_free() {
        let shares = Arc::new(Shares::new(900));
        let _greedy = takes_all(&shares, client(1));
        assert!(takes_all(&shares, client(2)).len() >= 80);
    }

    #[test]
    fn a_greedy_client_shrinks_to_what_the_others_have() {
        let shares = Arc::new(Shares::new(170));
        let mut greedy = takes_all(&shares, client(1));
        let mut others = vec![];
        // Whatever the greedy one gives back, both want.
        for _ in 0..1000 {
            drop(greedy.pop());
            others.extend(shares.take(client(2)));
            greedy.extend(shares.take(client(1)));
        }
        assert!(
            others.len().abs_diff(greedy.len()) <= 2,
            "{} and {}",
            others.len(),
            greedy.len()
        );
    }

    #[test]
    fn there_are_never_more_than_the_limit() {
        let shares = Arc::new(Shares::new(50));
        let all: Vec<_> = (0..=255)
            .flat_map(|number| takes_all(&shares, client(number)))
            .collect();
        assert_eq!((all.len(), shares.held()), (50, 50));
    }

    #[test]
    fn addresses_of_one_network_are_one_client() {
        let address = |text: &str| network(text.parse().unwrap());
        assert_eq!(address("2001:db8::1"), address("2001:db8::ffff:0:0:1"));
        assert_ne!(address("2001:db8::1"), address("2001:db8:0:1::1"));
        assert_eq!(address("::ffff:10.0.0.1"), address("10.0.0.1"));
        assert_ne!(address("10.0.0.1"), address("10.0.0.2"));
    }
}
