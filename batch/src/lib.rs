//! Applies a query function to every row of a table.
//!
//! ```text
//!   source ──► scan ──► EnvelopeMap ──► EnvelopeSink ──► commit
//!   files of    only the   rows in,        part files       results become
//!   one snapshot columns    rows out        nobody sees      visible at once
//!                needed     (workers)
//! ```
//!
//! The job path is [`run()`]. What it plans is data: the two plan nodes carry the digest of the
//! envelope and the name of the function, never code, so that the same plan can be carried out by
//! another process. The nodes only write files that nobody reads yet; the driver alone makes them
//! visible.
//!
//! Read in this order: a [`Job`] says what to do and [`run()`] does it; `source` finds the files of a
//! table (`formats` and `partitions` say what their columns are, `snapshot` reads the log of a Delta
//! table), `filter` which of its rows are read (`instant`: times with an offset), `schema` decides which columns are read and how they
//! change; `plan`, `map_exec` and `sink_exec` are the nodes, `groups` those for rows that a call gets together; `target` is where results go and `layout` in which folders, an `attempt`
//! owns the files until `commit` makes them visible; `durable` sees to it that they survive a power
//! cut. An `identity` makes runs one job, a `claim` lets one process at a time work on it, and a `split`
//! that one of them has finished is not computed again. Where tables can be, say the `stores`; in a bucket,
//! `notes` do what they can in place of a claim, and a `ledger` what renaming does for Parquet files. [`sql`] puts the same map into queries. [`vacuum()`] deletes what
//! nobody needs. The `workplace` is this process, or a `cluster`.

#![expect(
    clippy::result_large_err,
    reason = "a result stands for a batch of many rows, and callers match on what is inside"
)]

mod as_of;
mod attempt;
mod blame;
mod claim;
#[cfg(feature = "cluster")]
mod cluster;
mod commit;
mod coverage;
mod delta_schema;
mod durable;
mod error;
#[cfg(test)]
mod fake;
mod filter;
mod formats;
mod function;
mod groups;
mod hold;
mod identity;
mod instant;
mod job;
mod layout;
mod ledger;
mod location;
mod map_exec;
mod merge;
mod model;
mod notes;
mod opened;
mod pace;
mod part_file;
mod partitions;
mod plan;
mod point;
mod progress;
mod prune;
mod quotes;
mod run;
mod scan;
mod schema;
mod sink_exec;
mod snapshot;
mod source;
mod split;
pub mod sql;
mod statistics;
mod stores;
mod table_lock;
mod target;
mod task;
mod vacuum;
mod warehouse;
mod whereabouts;
mod workplace;

pub use as_of::{AsOf, NotAsOf};
#[cfg(feature = "cluster")]
pub use cluster::{
    Check, Credentials, EnvelopeCache, Envelopes, Executor, InUse, Lender, Lent, Scheduler,
};
pub use error::Error;
pub use function::MapRows;
pub use identity::Identity;
pub use job::{ClusterAt, Format, Job, Mode, Settings};
pub use model::Model;
pub use progress::Progress;
pub use run::{Components, Summary, run};
pub use stores::Stores;
pub use vacuum::{Vacuumed, vacuum};
