//! The program behind an executable that `envelope build` writes: serves the envelope it carries, or
//! one that it is given.

use std::error::Error as _;
use std::io::{self, IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use async_trait::async_trait;
use clap::{Parser, ValueEnum};
use runtime::{EnvelopeFile, Environment, Environments, temporary_place};
use server::{
    Cause, Envelopes, Error, Hints, Needs, Options, Origin, Payload, Wanted, payload, run,
};
use tracing_subscriber::EnvFilter;

/// Serves the envelope that this executable carries over HTTP, or another one.
#[derive(Debug, Parser)]
#[command(name = "envelope-service", version, max_term_width = 100)]
struct Command {
    /// What some hosts start a container with; a service is all that this program is anyway
    #[arg(value_parser = ["serve"], hide = true)]
    _word: Option<String>,

    #[command(flatten)]
    options: Options,

    /// Serve the envelope in this file, and read it again on SIGHUP
    #[arg(long, env = "ENVELOPE_FILE", value_name = "FILE")]
    envelope: Option<PathBuf>,

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

    /// How to log: lines for people, or JSON
    #[arg(long, env = "ENVELOPE_LOG_FORMAT", value_enum, default_value_t = LogFormat::Text)]
    log_format: LogFormat,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum LogFormat {
    Text,
    Json,
}

/// A file, which may hold another envelope each time.
struct FromFile {
    path: PathBuf,
    environments: Environments,
}

#[async_trait]
impl Origin for FromFile {
    async fn envelope(&self) -> Result<Wanted, Cause> {
        Ok(Wanted {
            envelope: Arc::new(EnvelopeFile::open(&self.path)?),
            environments: self.environments.clone(),
        })
    }
}

fn main() -> ExitCode {
    server::give_back_what_is_not_needed();
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
    start_log(command);
    let path = std::env::current_exe()
        .map_err(|source| io("cannot find the program's own file", source))?;
    let carried = payload(&path)?;
    let hints = carried.as_ref().and_then(|payload| match &payload.needs {
        Needs::Machine(hints) => Some(hints),
        Needs::Carried(_) => None,
    });
    let environments = environments(command, hints);
    let origin = command.envelope.clone().map(|path| FromFile {
        path,
        environments: environments.clone(),
    });
    let envelope = match (&origin, &carried) {
        (Some(origin), _) => EnvelopeFile::open(&origin.path)?,
        (None, Some(Payload { offset, length, .. })) => {
            EnvelopeFile::open_section(&path, *offset, *length)?
        }
        (None, None) => return Err(Error::NoPayload { path }),
    };
    let name = envelope.manifest().name.clone();
    let envelope = Arc::new(envelope);
    let environment = async {
        match carried.as_ref().filter(|_| origin.is_none()) {
            Some(payload) => {
                command
                    .environment(&path, payload, &environments, &envelope)
                    .await
            }
            None => environments.realise(&envelope, &say).await,
        }
    };
    let envelopes = match &origin {
        Some(origin) => Envelopes::followed(Arc::clone(&envelope), origin),
        None => Envelopes::from(Arc::clone(&envelope)),
    };
    let settings = command.options.settings();
    let service = run(envelopes, environment, settings.clone(), |address| {
        say(&format!("`{name}` answers at {}", settings.url(address)));
    });
    let executor =
        tokio::runtime::Runtime::new().map_err(|source| io("cannot start threads", source))?;
    executor.block_on(service)
}

impl Command {
    /// The environment of the envelope that this executable carries: carried as well, or the machine's.
    async fn environment(
        &self,
        program: &Path,
        payload: &Payload,
        environments: &Environments,
        envelope: &EnvelopeFile,
    ) -> Result<Environment, runtime::Error> {
        match &payload.needs {
            Needs::Machine(_) => environments.realise(envelope, &say).await,
            Needs::Carried(carried) => {
                let file = payload.environment(program, carried);
                file.realise(envelope, self.places(), &say).await
            }
        }
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

fn start_log(command: &Command) {
    let filter = EnvFilter::try_new(&command.log).unwrap_or_else(|_| EnvFilter::new("info"));
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(io::stderr().is_terminal())
        .with_writer(io::stderr);
    match command.log_format {
        LogFormat::Text => log.init(),
        LogFormat::Json => log.json().init(),
    }
}

/// What the builder knew, as far as nothing else is said. Without it, what is on the path.
fn environments(command: &Command, hints: Option<&Hints>) -> Environments {
    let built = hints.map(|hints| hints.cache_dir.clone());
    let cache = command.cache_dir.clone().or(built);
    Environments {
        cache: cache.unwrap_or_else(|| std::env::temp_dir().join("model-envelope")),
        uv: hints.map_or_else(|| Some("uv".into()), |hints| hints.uv.clone()),
        interpreters: hints.map_or_else(
            || vec!["python3".into()],
            |hints| hints.interpreters.clone(),
        ),
        offline: command.offline,
    }
}

fn io(doing: &str, source: io::Error) -> Error {
    Error::Io {
        doing: doing.to_owned(),
        source,
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
