//! One file for each command.

mod ls;
mod show;
mod verify;
mod predict;
mod serve;
mod build;
mod batch;
mod export;
mod import;
mod tag;
mod completion;

pub(crate) use batch::batch;
pub(crate) use serve::serve;

use crate::args::Verb;
use crate::error::Error;
use crate::wiring::Wiring;

/// Carries out a command that may simply be dropped when it is interrupted.
pub(crate) async fn run(verb: Verb, wiring: &Wiring) -> Result<(), Error> {
    match verb {
        Verb::Ls(args) => ls::ls(wiring, &args).await,
        Verb::Show(args) => show::show(wiring, &args).await,
        Verb::Verify(args) => verify::verify(wiring, &args).await,
        Verb::Predict(args) => predict::predict(wiring, &args).await,
        Verb::Serve(args) => serve(wiring, &args).await,
        Verb::Build(args) => build::build(wiring, &args).await,
        Verb::Batch(args) => batch(wiring, args, std::future::pending()).await,
        Verb::Export(args) => export::export(wiring, &args).await,
        Verb::Import(args) => import::import(wiring, &args).await,
        Verb::Tag(args) => tag::tag(wiring, &args).await,
        Verb::Completion(args) => completion::completion(wiring, &args),
    }
}
