//! The program behind an executable that `envelope build` writes: serves the envelope it carries.

use std::error::Error as _;
use std::io::{self, Write as _};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use clap::Parser;
use runtime::{EnvelopeFile, Environment, Environments, temporary_place};
use server::{Error, Hints, Needs, Options, payload, run};
use tracing_subscriber::EnvFilter;

/// Serves the envelope that this executable carries over HTTP.
#[derive(Debug, Parser)]
#[command(name = "envelope-service", version, max_term_width = 100)]
struct Command {
    #[command(flatten)]
    options: Options,

    /// Folder of environments [default: the user's cache, or that of the machine that built this]
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
    let Some(payload) = payload(&path)? else {
        return Err(Error::NoPayload { path });
    };
    let envelope = EnvelopeFile::open_section(&path, payload.offset, payload.length)?;
    let envelope = Arc::new(envelope);
    let name = envelope.manifest().name.clone();
    let on_ready = |address: SocketAddr| say(&format!("`{name}` answers at http://{address}"));
    let environment = async {
        match &payload.needs {
            Needs::Machine(hints) => command.realise(hints, &envelope).await,
            Needs::Carried(carried) => {
                let file = payload.environment(&path, carried);
                file.realise(&envelope, command.places(), &say).await
            }
        }
    };
    let settings = command.options.settings();
    let service = run(Arc::clone(&envelope), environment, settings, on_ready);
    let executor =
        tokio::runtime::Runtime::new().map_err(|source| io("cannot start threads", source))?;
    executor.block_on(service)
}

impl Command {
    /// The environment of an executable that carries none.
    async fn realise(
        &self,
        hints: &Hints,
        envelope: &EnvelopeFile,
    ) -> Result<Environment, runtime::Error> {
        let hints = hints.clone();
        let environments = Environments {
            cache: self.cache_dir.clone().unwrap_or(hints.cache_dir),
            uv: hints.uv,
            interpreters: hints.interpreters,
            offline: self.offline,
        };
        environments.realise(envelope, &say).await
    }

    /// Where an environment that is carried may be unpacked: what was asked for and nothing else, or
    /// the user's cache, and a folder of this user's below the temporary one where that cannot be.
    fn places(&self) -> Vec<PathBuf> {
        if let Some(folder) = &self.cache_dir {
            return vec![folder.clone()];
        }
        let named = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
        let named = named.filter(|folder| folder.is_absolute());
        let home = std::env::home_dir().filter(|home| home.is_absolute());
        let cache = named.or_else(|| Some(home?.join(".cache")));
        let cache = cache.map(|folder| folder.join("model-envelope"));
        cache.into_iter().chain([temporary_place()]).collect()
    }
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
