//! What is asked, for how long, and over how many connections.

use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use fastrand::Rng;
use futures::future::{join, join_all};
use tokio::runtime::Runtime;

use crate::client::{Question, over_http1, over_http2};
use crate::tally::Tally;

/// Questions for all clients of a service, each another one.
pub(crate) struct Load<F> {
    question: F,
    /// Good answers that are enough.
    wanted: u64,
    /// Of a thousand questions, how many clients go away from.
    pub(crate) fickle: u16,
    is_over: AtomicBool,
    asked: AtomicU64,
    pub(crate) tally: Tally,
}

impl<F: Fn(u64) -> Question + Sync> Load<F> {
    /// Goes on until it is told to end; nobody goes away.
    pub(crate) fn new(question: F) -> Self {
        Self {
            question,
            wanted: u64::MAX,
            fickle: 0,
            is_over: AtomicBool::new(false),
            asked: AtomicU64::new(0),
            tally: Tally::default(),
        }
    }

    pub(crate) fn until(self, wanted: u64) -> Self {
        Self { wanted, ..self }
    }

    pub(crate) fn fickle(self, fickle: u16) -> Self {
        Self { fickle, ..self }
    }

    /// The next question; `None` when it is enough.
    pub(crate) fn next(&self) -> Option<Question> {
        let is_enough =
            self.is_over.load(Ordering::Relaxed) || self.tally.answered() >= self.wanted;
        (!is_enough).then(|| (self.question)(self.asked.fetch_add(1, Ordering::Relaxed)))
    }

    pub(crate) fn end(&self) {
        self.is_over.store(true, Ordering::Relaxed);
    }

    /// Asks until it is enough, over so many connections of HTTP/1.1 and of HTTP/2.
    pub(crate) fn offer(&self, address: SocketAddr, connections: [usize; 2]) {
        let mut random = Rng::with_seed(3);
        let [first, second] =
            connections.map(|count| -> Vec<_> { (0..count).map(|_| random.fork()).collect() });
        let first = first
            .into_iter()
            .map(|random| over_http1(address, self, random));
        let second = second
            .into_iter()
            .map(|random| over_http2(address, self, random));
        let all = join(join_all(first), join_all(second));
        Runtime::new().unwrap().block_on(all);
    }

    /// Does something while clients ask; they end with it.
    pub(crate) fn during<T>(
        &self,
        address: SocketAddr,
        connections: [usize; 2],
        work: impl FnOnce() -> T,
    ) -> T {
        std::thread::scope(|scope| {
            let clients = scope.spawn(|| self.offer(address, connections));
            // Clients that nobody ends would hide that the work has failed.
            let result = catch_unwind(AssertUnwindSafe(work));
            self.end();
            clients.join().unwrap();
            result.unwrap_or_else(|panic| resume_unwind(panic))
        })
    }
}
