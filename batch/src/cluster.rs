//! Jobs on a Ballista cluster: a scheduler, executors that run functions in worker processes, and
//! the driver's side of both.
//!
//! ```text
//!  driver ── logical plan ──► scheduler ── tasks ──► executor ── rows ──► workers
//!    ▲                           │  one partition       │ the envelope by its digest,
//!    │       rows of the sink    │  of the table each   │ from the executor's store
//!    └───────────────────────────┴──────────────────────┘
//! ```
//!
//! The plan that travels is data (`codec`). The scheduler makes tasks of it and moves those of an
//! executor that is lost; the executor gets an envelope when its first rows come (`envelopes`): from what
//! its machine keeps (`cache`), from a store, or from the scheduler (`lending`). It ends
//! tasks that nobody wants (`engine`) and says what went wrong in a form that survives the way back
//! (`failure`). The driver submits, follows, cancels and collects (`driver`), over one connection
//! (`client`); it commits as it does without a cluster.
//!
//! What Ballista starts listens to this machine only. With `credentials`, other machines get in by a
//! `door` in front of it, to which their own parts come through a `tunnel`.

mod cache;
mod client;
mod codec;
mod credentials;
mod door;
mod driver;
mod engine;
mod envelopes;
mod executor;
mod failure;
mod lending;
mod listen;
mod reach;
mod scheduler;
mod tunnel;

pub use cache::{Check, EnvelopeCache, InUse};
pub(crate) use client::Cluster;
pub use credentials::Credentials;
pub use envelopes::Envelopes;
pub(crate) use envelopes::Fetched;
pub use executor::Executor;
pub use lending::{Lender, Lent};
pub use scheduler::Scheduler;

/// The longest message between the parts of a cluster. The plan of a table with some 100,000 files
/// fits.
const MOST_MESSAGE_BYTES: u32 = 64 << 20;
