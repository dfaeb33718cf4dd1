//! The program `envelope`.
//!
//! Read in this order: `args` is what can be typed, `settings` what is set, `wiring` puts the crates
//! together, and each file of `commands` is one command. Results go to standard output, all else to
//! standard error; `error` gives every failure a name and an exit code.

mod args;
mod commands;
mod error;
#[cfg(feature = "cluster")]
mod lender;
mod on_demand;
mod progress;
mod report;
mod rows;
mod settings;
mod table;
mod terminal;
mod trust;
mod wiring;

use std::process::ExitCode;
use std::time::Duration;

use clap::Parser as _;
use tokio::signal::unix::{SignalKind, signal};

use crate::args::{Command, Verb};
use crate::error::Error;
use crate::settings::{Settings, Surroundings, Voice};
use crate::terminal::Terminal;
use crate::wiring::Wiring;

const THIS_PROGRAM: &str = "this program";

fn main() -> ExitCode {
    let command = match Command::try_parse() {
        Ok(command) => command,
        Err(error) => return usage(&error),
    };
    if moves_tables(&command.verb) {
        server::keep_what_is_needed_again();
    } else {
        server::give_back_what_is_not_needed();
    }
    let around = Surroundings::of_this_process();
    let terminal = Terminal {
        voice: Voice::decide(&command.global, &around),
    };
    let done = Settings::decide(&command.global, &around).and_then(|settings| {
        run(
            command.verb,
            &Wiring {
                settings,
                terminal: terminal.clone(),
            },
        )
    });
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            report::report(&terminal, &error);
            ExitCode::from(error.kind().exit)
        }
    }
}

fn run(verb: Verb, wiring: &Wiring) -> Result<(), Error> {
    wiring.terminal.start_log(usual_log(&verb));
    let executor = tokio::runtime::Runtime::new()
        .map_err(Error::io("start threads for", THIS_PROGRAM.as_ref()))?;
    let done = executor.block_on(commands::run(verb, wiring, interrupted()));
    // What still runs has nobody left to tell.
    executor.shutdown_timeout(Duration::from_secs(1));
    done
}

/// Whether the program needs the same memory again and again, for one batch after the other.
fn moves_tables(verb: &Verb) -> bool {
    #[cfg(feature = "cluster")]
    if matches!(verb, Verb::Executor(_)) {
        return true;
    }
    matches!(verb, Verb::Batch(_) | Verb::Sql(_))
}

fn usual_log(verb: &Verb) -> &'static str {
    #[cfg(feature = "cluster")]
    if matches!(verb, Verb::Scheduler(_) | Verb::Executor(_)) {
        // Pages of text about jobs that were cancelled and schedulers that are gone, which end in an
        // error of ours.
        return "warn,ballista_executor=off,ballista_scheduler::state::task_manager=off";
    }
    if matches!(verb, Verb::Serve(_)) {
        "warn,server=info,runtime=info"
    } else {
        // That two writers meet is no error where both land; where one does not, ours says so.
        "warn,deltalake_core::kernel::transaction=off"
    }
}

/// Resolves when the user or the system asks the program to end.
async fn interrupted() -> Error {
    let signals =
        signal(SignalKind::interrupt()).and_then(|one| Ok((one, signal(SignalKind::terminate())?)));
    match signals {
        Ok((mut interrupt, mut terminate)) => tokio::select! {
            _ = interrupt.recv() => Error::Interrupted { signal: 2 },
            _ = terminate.recv() => Error::Interrupted { signal: 15 },
        },
        Err(source) => Error::io("listen to signals for", THIS_PROGRAM.as_ref())(source),
    }
}

/// Help goes to standard output; a wrong command line is told in the way that was asked for.
fn usage(error: &clap::Error) -> ExitCode {
    let wants_json = std::env::args_os().any(|argument| argument == "--json");
    if error.use_stderr() && wants_json {
        report::report_usage(
            error
                .to_string()
                .lines()
                .next()
                .unwrap_or_default()
                .replacen("error: ", "", 1),
        );
    } else {
        _ = error.print();
    }
    ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2))
}
