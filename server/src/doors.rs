//! Which connections are let in.

use std::net::IpAddr;
use std::sync::Arc;

use crate::share::{Share, Shares};

/// Lets connections in up to a limit, and a few more for health and metrics.
///
/// A monitor has to get through when thousands of connections are held open, be it by one client or
/// by all of them behind one proxy: so a connection beyond the limit is not closed at once, but may
/// ask for health and metrics for a moment.
#[derive(Debug)]
pub(crate) struct Doors {
    all: Arc<Shares>,
    extra: Arc<Shares>,
}

/// Place for one connection, until it is dropped.
#[derive(Debug)]
pub(crate) struct Slot {
    pub(crate) is_extra: bool,
    #[expect(dead_code, reason = "held for its drop")]
    share: Share,
}

impl Doors {
    pub(crate) fn new(connections: usize, extra: usize) -> Self {
        Self {
            all: Arc::new(Shares::new(connections)),
            extra: Arc::new(Shares::new(extra)),
        }
    }

    /// `None`: the connection is to be closed.
    pub(crate) fn enter(&self, client: IpAddr) -> Option<Slot> {
        let slot = |is_extra| move |share| Slot { is_extra, share };
        let usual = self.all.take(client).map(slot(false));
        usual.or_else(|| self.extra.take(client).map(slot(true)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn beyond_the_limit_there_is_room_for_monitors() {
        let doors = Doors::new(2, 1);
        let one = IpAddr::from([10, 0, 0, 1]);
        let held: Vec<_> = (0..5).filter_map(|_| doors.enter(one)).collect();
        let extra: Vec<_> = held.iter().map(|slot| slot.is_extra).collect();
        assert_eq!(extra, [false, false, true]);
        drop(held);
        assert!(!doors.enter(one).unwrap().is_extra);
    }
}
