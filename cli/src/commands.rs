//! One file for each command.

mod batch;
mod build;
mod completion;
mod diff;
#[cfg(feature = "cluster")]
mod executor;
mod export;
mod import;
mod keygen;
mod ls;
mod predict;
#[cfg(feature = "cluster")]
mod scheduler;
mod serve;
mod show;
mod sign;
mod sql;
mod tag;
mod vacuum;
mod verify;

use crate::args::Verb;
use crate::error::Error;
use crate::wiring::Wiring;

/// Carries out a command; `interrupted` resolves when the user or the system ends it early.
pub(crate) async fn run(
    verb: Verb,
    wiring: &Wiring,
    interrupted: impl Future<Output = Error>,
) -> Result<(), Error> {
    match verb {
        Verb::Ls(args) => unless(interrupted, ls::ls(wiring, &args)).await,
        Verb::Show(args) => unless(interrupted, show::show(wiring, &args)).await,
        Verb::Verify(args) => unless(interrupted, verify::verify(wiring, &args)).await,
        Verb::Diff(args) => unless(interrupted, diff::diff(wiring, &args)).await,
        Verb::Sign(args) => unless(interrupted, sign::sign(wiring, &args)).await,
        Verb::Keygen(args) => keygen::keygen(wiring, &args),
        Verb::Predict(args) => unless(interrupted, predict::predict(wiring, &args)).await,
        // These end in their own way: one finishes its calls, one removes its files, one says goodbye.
        Verb::Serve(args) => serve::serve(wiring, &args).await,
        Verb::Sql(args) => unless(interrupted, sql::sql(wiring, args)).await,
        Verb::Batch(args) => batch::batch(wiring, args, interrupted).await,
        #[cfg(feature = "cluster")]
        Verb::Executor(args) => executor::executor(wiring, &args, interrupted).await,
        #[cfg(feature = "cluster")]
        Verb::Scheduler(args) => scheduler::scheduler(wiring, &args, interrupted).await,
        Verb::Vacuum(args) => unless(interrupted, vacuum::vacuum(wiring, &args)).await,
        Verb::Build(args) => unless(interrupted, build::build(wiring, &args)).await,
        Verb::Export(args) => unless(interrupted, export::export(wiring, &args)).await,
        Verb::Import(args) => unless(interrupted, import::import(wiring, &args)).await,
        Verb::Tag(args) => unless(interrupted, tag::tag(wiring, &args)).await,
        Verb::Completion(args) => completion::completion(wiring, &args),
    }
}

/// A command that is interrupted is dropped, which ends its workers and removes what they had.
async fn unless(
    interrupted: impl Future<Output = Error>,
    command: impl Future<Output = Result<(), Error>>,
) -> Result<(), Error> {
    tokio::select! {
        done = command => done,
        error = interrupted => Err(error),
    }
}
