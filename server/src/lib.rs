//! One envelope as an HTTP service.
//!
//! [`run`](fn@run) makes a service of an envelope file, [`serve`] of a runtime that is there already, and
//! [`build`] writes one executable that carries its envelope. Read in this order: [`Settings`] say
//! how a service behaves and [`Components`] what it is made of; `service` is its life, `answer` the
//! whole path of a request, and each stage of that path a file.
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
//! The core knows rows as Arrow and nothing else; JSON is one pair of files, `decode` and `encode`.

mod admit;
mod answer;
mod batcher;
mod body;
mod calls;
mod column;
mod components;
mod decimal;
mod decode;
mod encode;
mod error;
mod executable;
mod fault;
mod function;
pub mod json;
mod moment;
mod openapi;
mod options;
mod pages;
mod reply;
mod route;
mod run;
mod service;
mod settings;
mod stages;
mod telemetry;

pub use calls::Calls;
pub use components::Components;
pub use error::Error;
pub use executable::{Built, Hints, Needs, Payload, Surroundings, build, payload};
pub use options::{Options, SandboxOptions};
pub use run::run;
pub use service::serve;
pub use settings::Settings;
