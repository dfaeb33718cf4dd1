//! What the user has set: flags, then environment variables, then defaults.

use std::ffi::OsString;
use std::io::IsTerminal as _;
use std::path::{Path, PathBuf};

use terminal_size::{Width, terminal_size_of};

use crate::args::{Color, Global};
use crate::error::Error;

/// Everything that the commands may ask about their surroundings. Plain values.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Settings {
    /// Folder of the store.
    pub(crate) store: PathBuf,
    /// Folder of realised environments.
    pub(crate) cache: PathBuf,
    /// The `uv` program, if there is one.
    pub(crate) uv: Option<PathBuf>,
    /// The folders of `PATH`.
    pub(crate) path: Vec<PathBuf>,
    /// Never use the network.
    pub(crate) offline: bool,
    /// The keys without which no envelope runs.
    pub(crate) trust: Option<PathBuf>,
}

/// How the program speaks. Known before anything can go wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Voice {
    pub(crate) json: bool,
    pub(crate) volume: Volume,
    /// Whether standard output is colored.
    pub(crate) color_output: bool,
    /// Whether standard error is colored.
    pub(crate) color_error: bool,
    /// Whether bars may be drawn on standard error.
    pub(crate) bars: bool,
    /// Which log lines are written, if it was said.
    pub(crate) log: Option<String>,
    /// Whether log lines are JSON.
    pub(crate) log_json: bool,
    /// Columns of the terminal, or as many as a file of text usually has.
    pub(crate) width: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Volume {
    Quiet,
    Normal,
    Verbose,
}

/// The surroundings, as the operating system tells them.
pub(crate) struct Surroundings {
    pub(crate) variable: fn(&str) -> Option<OsString>,
    pub(crate) home: Option<PathBuf>,
    /// Folder of this program.
    pub(crate) beside: Option<PathBuf>,
    pub(crate) output_is_terminal: bool,
    pub(crate) error_is_terminal: bool,
    /// Columns of the terminal that standard output is.
    pub(crate) columns: Option<u16>,
}

impl Surroundings {
    /// The only place that reads environment variables, but for those that are options of a service.
    pub(crate) fn of_this_process() -> Self {
        Self {
            variable: |name| std::env::var_os(name),
            home: std::env::home_dir().filter(|home| home.is_absolute()),
            beside: program().and_then(|program| Some(program.parent()?.to_owned())),
            output_is_terminal: std::io::stdout().is_terminal(),
            error_is_terminal: std::io::stderr().is_terminal(),
            columns: terminal_size_of(std::io::stdout()).map(|(Width(columns), _)| columns),
        }
    }

    /// An empty variable is as good as none.
    fn get(&self, name: &str) -> Option<OsString> {
        (self.variable)(name).filter(|value| !value.is_empty())
    }

    fn text(&self, name: &str) -> Option<String> {
        self.get(name)
            .map(|value| value.to_string_lossy().into_owned())
    }

    fn path(&self, name: &str) -> Option<PathBuf> {
        self.get(name).map(PathBuf::from)
    }

    /// For what nobody should be wrong about: another value is refused.
    fn is_true(&self, name: &str) -> Result<bool, Error> {
        match self.text(name).unwrap_or_default().as_str() {
            "" | "0" | "false" | "no" | "off" => Ok(false),
            "1" | "true" | "yes" | "on" => Ok(true),
            other => Err(Error::Usage {
                reason: format!("`{name}` is `{other}`, which is neither true nor false"),
                hint: "write 1 or 0, or leave it out",
            }),
        }
    }

    /// A folder of the XDG base directories: relative ones are to be ignored.
    fn xdg(&self, name: &str, below_home: &str) -> Option<PathBuf> {
        let named = self.path(name).filter(|folder| folder.is_absolute());
        let folder = named.or_else(|| Some(self.home.as_ref()?.join(below_home)))?;
        Some(folder.join("model-envelope"))
    }
}

/// The variables that say where buckets are and what lets us in. They are handed on as they are, and kept
/// out of the settings, which may be shown.
pub(crate) fn object_storage() -> impl Iterator<Item = (String, String)> {
    let text = |(name, value): (OsString, OsString)| {
        Some((name.into_string().ok()?, value.into_string().ok()?))
    };
    let all = std::env::vars_os().filter_map(text);
    all.filter(|(name, _)| name.starts_with("AWS_"))
}

fn program() -> Option<PathBuf> {
    std::env::current_exe().and_then(std::fs::canonicalize).ok()
}

impl Voice {
    pub(crate) fn decide(flags: &Global, around: &Surroundings) -> Self {
        let color = |is_terminal| match flags.color.unwrap_or(Color::Auto) {
            Color::Always => true,
            Color::Never => false,
            Color::Auto => is_terminal && around.get("NO_COLOR").is_none() && !is_dumb(around),
        };
        let volume = match (flags.quiet, flags.verbose) {
            (true, _) => Volume::Quiet,
            (_, true) => Volume::Verbose,
            _ => Volume::Normal,
        };
        let wants_bars = around.text("ENVELOPE_PROGRESS").as_deref() != Some("0");
        Self {
            json: flags.json,
            volume,
            color_output: color(around.output_is_terminal),
            color_error: color(around.error_is_terminal),
            bars: around.error_is_terminal
                && wants_bars
                && volume > Volume::Quiet
                && !is_dumb(around),
            log: around.text("ENVELOPE_LOG"),
            log_json: around.text("ENVELOPE_LOG_FORMAT").as_deref() == Some("json"),
            width: width(around),
        }
    }
}

/// `COLUMNS` comes first: it is how other programs are told, too.
fn width(around: &Surroundings) -> usize {
    const USUAL: usize = 100;
    let told = around
        .text("COLUMNS")
        .and_then(|columns| columns.parse().ok());
    let columns = told.or(around.columns).map_or(USUAL, usize::from);
    columns.max(40)
}

/// A terminal that cannot move its cursor.
fn is_dumb(around: &Surroundings) -> bool {
    around.text("TERM").as_deref() == Some("dumb")
}

impl Settings {
    pub(crate) fn decide(flags: &Global, around: &Surroundings) -> Result<Self, Error> {
        let store = match flags
            .url
            .as_deref()
            .map(OsString::from)
            .or_else(|| around.get("ENVELOPE_URL"))
        {
            Some(url) => folder_of(url)?,
            None => around
                .xdg("XDG_DATA_HOME", ".local/share")
                .ok_or(Error::NoHome {
                    variable: "ENVELOPE_URL",
                })?,
        };
        let cache = flags
            .cache_dir
            .clone()
            .or_else(|| around.path("ENVELOPE_CACHE_DIR"));
        let cache = cache.or_else(|| around.xdg("XDG_CACHE_HOME", ".cache"));
        let path: Vec<_> = around
            .get("PATH")
            .map(|path| std::env::split_paths(&path).collect())
            .unwrap_or_default();
        Ok(Self {
            store,
            cache: cache.ok_or(Error::NoHome {
                variable: "ENVELOPE_CACHE_DIR",
            })?,
            uv: around
                .path("ENVELOPE_UV")
                .or_else(|| uv(around.beside.as_deref(), &path)),
            path,
            offline: around.is_true("ENVELOPE_OFFLINE")?,
            trust: flags
                .trust
                .clone()
                .or_else(|| around.path("ENVELOPE_TRUST")),
        })
    }
}

/// A store is a folder for now; a URL is refused instead of becoming a folder called `http:`.
fn folder_of(url: OsString) -> Result<PathBuf, Error> {
    let Some(text) = url.to_str() else {
        return Ok(url.into());
    };
    if let Some(path) = text.strip_prefix("file://") {
        return Ok(path.into());
    }
    if text.contains("://") {
        return Err(Error::RemoteStore {
            url: text.to_owned(),
        });
    }
    Ok(url.into())
}

/// Beside this program, where a Python package puts it, or on the path.
fn uv(beside: Option<&Path>, path: &[PathBuf]) -> Option<PathBuf> {
    let folders = beside.into_iter().chain(path.iter().map(PathBuf::as_path));
    folders
        .map(|folder| folder.join("uv"))
        .find(|program| program.is_file())
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::args::Command;

    fn flags(flags: &[&str]) -> Global {
        Command::try_parse_from([&["envelope", "ls"], flags].concat())
            .unwrap()
            .global
    }

    fn around(variable: fn(&str) -> Option<OsString>) -> Surroundings {
        Surroundings {
            variable,
            home: Some("/home/ann".into()),
            beside: None,
            output_is_terminal: false,
            error_is_terminal: true,
            columns: Some(120),
        }
    }

    fn nothing(_: &str) -> Option<OsString> {
        None
    }

    #[test]
    fn without_settings_everything_is_below_the_home() {
        let settings = Settings::decide(&flags(&[]), &around(nothing)).unwrap();
        assert_eq!(
            settings.store,
            Path::new("/home/ann/.local/share/model-envelope")
        );
        assert_eq!(settings.cache, Path::new("/home/ann/.cache/model-envelope"));
        let homeless = Surroundings {
            home: None,
            ..around(nothing)
        };
        assert!(matches!(
            Settings::decide(&flags(&[]), &homeless),
            Err(Error::NoHome { .. })
        ));
    }

    #[test]
    fn flags_come_before_variables_and_variables_before_defaults() {
        let variables = around(|name| match name {
            "ENVELOPE_URL" => Some("file:///srv/store".into()),
            "XDG_CACHE_HOME" => Some("/var/cache".into()),
            "XDG_DATA_HOME" => Some("relative".into()),
            "ENVELOPE_OFFLINE" => Some("1".into()),
            _ => None,
        });
        let settings = Settings::decide(&flags(&[]), &variables).unwrap();
        assert_eq!(settings.store, Path::new("/srv/store"));
        assert_eq!(settings.cache, Path::new("/var/cache/model-envelope"));
        assert!(settings.offline);
        let settings = Settings::decide(
            &flags(&["--url", "here", "--cache-dir", "there"]),
            &variables,
        )
        .unwrap();
        assert_eq!(
            (settings.store, settings.cache),
            ("here".into(), "there".into())
        );
    }

    #[test]
    fn offline_is_true_or_false_and_nothing_else() {
        let decide = |variables: fn(&str) -> Option<OsString>| {
            Settings::decide(&flags(&[]), &around(variables)).map(|settings| settings.offline)
        };
        assert!(decide(|name| (name == "ENVELOPE_OFFLINE").then(|| "yes".into())).unwrap());
        assert!(!decide(|name| (name == "ENVELOPE_OFFLINE").then(|| "off".into())).unwrap());
        let refused = decide(|name| (name == "ENVELOPE_OFFLINE").then(|| "maybe".into()));
        assert!(matches!(refused, Err(Error::Usage { .. })), "{refused:?}");
    }

    #[test]
    fn a_remote_store_is_refused() {
        let refused = Settings::decide(
            &flags(&["--url", "https://models.example"]),
            &around(nothing),
        );
        assert!(
            matches!(refused, Err(Error::RemoteStore { .. })),
            "{refused:?}"
        );
    }

    #[test]
    fn colors_and_bars_are_for_terminals() {
        let voice = |given: &[&str], around: &Surroundings| Voice::decide(&flags(given), around);
        let plain = voice(&[], &around(nothing));
        assert_eq!(
            (plain.color_output, plain.color_error, plain.bars),
            (false, true, true)
        );
        let variables = around(|name| match name {
            "NO_COLOR" => Some("1".into()),
            "ENVELOPE_PROGRESS" => Some("0".into()),
            _ => None,
        });
        let plain = voice(&[], &variables);
        assert_eq!((plain.color_error, plain.bars), (false, false));
        assert!(voice(&["--color", "always"], &variables).color_output);
        assert!(!voice(&["-q"], &around(nothing)).bars);
    }
}
