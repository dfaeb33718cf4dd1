//! One envelope as an HTTP service.
//!
//! [`run`](fn@run) makes a service of an envelope file, [`serve`] of a runtime that is there already, and
//! [`build`] writes one executable that carries its envelope. Read in this order: [`Settings`] say
//! how a service behaves and [`Components`] what it is made of; `service` is its life, [`Swap`] what it
//! serves at the moment, `conversation` a connection, `answer` the whole path of a request, and each
//! stage of that path a file.
//!
//! ```text
//!           ┌────────── answer ───────────────────────────────────────────────┐
//! request ─►│ route ─► admit ─► body ─► decode ─► batcher ─► Calls ─► encode  │─► reply
//!           └─────────────────────────────────────────────────────────────────┘
//! ```
//!
//! ```no_run
//! # async fn example(runtime: runtime::Runtime) -> Result<(), server::Error> {
//! let settings = server::Settings { listen: ([127, 0, 0, 1], 0).into(), ..Default::default() };
//! let components = server::Components::new(runtime)?;
//! let shutdown = async { drop(tokio::signal::ctrl_c().await) };
//! server::serve(settings, components, shutdown, |address| println!("http://{address}")).await
//! # }
//! ```
//!
//! The core knows rows as Arrow and nothing else; JSON is one pair of files, `decode` and `encode`, and
//! what differs between protocols is in `protocol`.

mod admit;
mod aliases;
mod answer;
mod apart;
mod backlog;
mod batcher;
mod body;
mod calls;
mod column;
mod components;
mod conversation;
mod decimal;
mod decode;
mod delivery;
mod descriptors;
mod doors;
mod encode;
mod entrance;
mod error;
mod executable;
mod exposition;
mod fault;
mod follow;
mod front;
mod function;
mod health;
pub mod json;
mod media;
mod memory;
mod metered;
mod models;
mod moment;
mod openapi;
mod options;
#[cfg(feature = "otlp")]
mod otlp;
mod pace;
mod pages;
mod patience;
mod ports;
mod protocol;
mod reply;
mod route;
mod run;
mod sampler;
mod service;
mod serving;
mod settings;
mod share;
mod stages;
mod swap;
mod telemetry;
mod tls;
mod trace;

pub use calls::Calls;
pub use components::Components;
pub use error::Error;
pub use executable::{Built, Hints, Needs, Payload, Surroundings, build, payload};
pub use follow::{Cause, Origin, Wanted};
pub use memory::{give_back_what_is_not_needed, keep_what_is_needed_again};
pub use options::{Options, SandboxOptions};
#[cfg(feature = "otlp")]
pub use otlp::{Collector, OtlpOptions, Sampling};
pub use run::{Envelopes, run};
pub use service::{serve, serve_with};
pub use settings::{Coercion, Settings};
pub use swap::Swap;
pub use tls::{TlsError, TlsFiles};
