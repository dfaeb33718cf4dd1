//! Runs the query functions of an envelope in isolated CPython processes: rows in, rows out.
//!
//! This process links no Python. It starts worker processes, each of which embeds the CPython of
//! the envelope's realised environment, and speaks Arrow with them:
//!
//! ```text
//!  this process                                   worker process
//!  ┌───────────────────────────┐                  ┌──────────────────────────────┐
//!  │ Runtime::call ─► pool     │   Unix socket    │ launcher ─► CPython          │
//!  │        ▲          │ lends │  header + Arrow  │   worker core (abi3 cdylib)  │
//!  │        │          ▼       │ ───────────────► │   rows ─► DataFrame, …       │
//!  │        └────── process ◄──│──────────────────│   query function             │
//!  └───────────────────────────┘                  └──────────────────────────────┘
//! ```
//!
//! Read in this order: an [`EnvelopeFile`] is the file; [`Environments`] makes its lock real on
//! disk; a [`Runtime`] lends workers to calls, and tests whether rows depend on each other ([`Trials`]).

mod arrow_stream;
mod bisect;
mod carried;
mod certify;
mod envelope_file;
mod environment;
mod error;
mod fit;
mod in_process;
mod interpreter;
mod launch;
mod lossless;
mod parent;
mod pool;
mod printed;
mod process;
mod protocol;
mod runtime;
mod sandbox;
mod schema;
mod statistics;
mod stream;
mod tile;
mod view;
mod wire;
mod zygote;

pub use arrow_stream::read_arrow_stream;
pub use bisect::Mapped;
pub use carried::{
    Carried, CarriedError, CarriedFile, GlibcVersion, MissingLibrary, pack, temporary_place,
};
pub use certify::{Certified, Trials, difference};
pub use envelope_file::EnvelopeFile;
pub use environment::{Environment, Environments};
pub use error::{Error, PythonError};
pub use lossless::lossless;
pub use runtime::{Answered, Builder, Runtime, Usage};
pub use sandbox::{Confinement, Grant, NoSuchGrant, NoSuchLevel, Sandbox, SandboxLevel};
pub use schema::{arrow_schema, arrow_type, signature_type};
pub use statistics::statistics;
pub use tile::{padded, tile_rows, whole_tiles};
pub use zygote::Sharing;
