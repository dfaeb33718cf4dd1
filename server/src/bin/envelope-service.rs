//! The program behind an executable that `envelope build` writes: serves the envelope it carries.

use std::error::Error as _;
use std::io::{self, Write as _};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use clap::Parser;
use runtime::{EnvelopeFile, Environments};
use server::{Error, Options, Payload, payload, run};
use tracing_subscriber::EnvFilter;

/// Serves the envelope that this executable carries over HTTP.
#[derive(Debug, Parser)]
#[command(name = "envelope-service", version, max_term_width = 100)]
struct Command {
    /// What SageMaker starts a container with; a service is all that this program is anyway
    #[arg(value_parser = ["serve"], hide = true)]
    _word: Option<String>,

    #[command(flatten)]
    options: Options,

    /// Folder of realised environments [default: the one of the machine that built this]
    #[arg(long, env = "ENVELOPE_CACHE_DIR", value_name = "FOLDER")]
    cache_dir: Option<PathBuf>,

    /// Never use the network
    #[arg(long, env = "ENVELOPE_OFFLINE", value_parser = clap::builder::FalseyValueParser::new())]
    offline: bool,

    /// What to log: a level, or levels of parts
    #[arg(
        long,
        env = "ENVELOPE_LOG",
        value_name = "FILTER",
        default_value = "info"
    )]
    log: String,
}

fn main() -> ExitCode {
    let command = Command::parse();
    match serve(&command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say(&describe(&error));
            ExitCode::from(error.exit_code())
        }
    }
}

fn serve(command: &Command) -> Result<(), Error> {
    let filter = EnvFilter::try_new(&command.log).unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr)
        .init();
    let io = |doing: &str, source| Error::Io {
        doing: doing.to_owned(),
        source,
    };
    let path = std::env::current_exe()
        .map_err(|source| io("cannot find the program's own file", source))?;
    let Some(Payload {
        offset,
        length,
        hints,
    }) = payload(&path)?
    else {
        return Err(Error::NoPayload { path });
    };
    let envelope = Arc::new(EnvelopeFile::open_section(path, offset, length)?);
    let name = envelope.manifest().name.clone();
    let environments = Environments {
        cache: command.cache_dir.clone().unwrap_or(hints.cache_dir),
        uv: hints.uv,
        interpreters: hints.interpreters,
        offline: command.offline,
    };
    let on_ready = |address: SocketAddr| say(&format!("`{name}` answers at http://{address}"));
    let service = run(
        envelope,
        &environments,
        command.options.settings(),
        &say,
        on_ready,
    );
    let executor =
        tokio::runtime::Runtime::new().map_err(|source| io("cannot start threads", source))?;
    executor.block_on(service)
}

/// The error, its causes and what to do about it, one on each line.
fn describe(error: &Error) -> String {
    let mut lines = vec![format!("error[{}]: {error}", error.code())];
    let mut cause = error.source();
    while let Some(error) = cause {
        lines.push(format!("  cause: {error}"));
        cause = error.source();
    }
    lines.extend(error.hint().map(|hint| format!("  hint: {hint}")));
    lines.join("\n")
}

/// Standard error is for people. That it is closed is no reason to stop serving.
fn say(line: &str) {
    let _ = writeln!(io::stderr(), "{line}");
}
