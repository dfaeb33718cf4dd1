//! Results go to standard output; what is said about them to standard error.

use std::io::{self, Write};

use serde::Serialize;
use tracing_subscriber::EnvFilter;

use crate::error::Error;
use crate::settings::{Voice, Volume};

/// Where the program speaks.
#[derive(Debug, Clone)]
pub(crate) struct Terminal {
    pub(crate) voice: Voice,
}

/// How a piece of text looks where there are colors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Look {
    Strong,
    Faint,
    Bad,
    Good,
    Help,
}

impl Look {
    fn code(self) -> &'static str {
        match self {
            Self::Strong => "1",
            Self::Faint => "2",
            Self::Bad => "1;31",
            Self::Good => "32",
            Self::Help => "1;36",
        }
    }
}

impl Terminal {
    pub(crate) fn json(&self) -> bool {
        self.voice.json
    }

    pub(crate) fn is_verbose(&self) -> bool {
        self.voice.volume == Volume::Verbose
    }

    /// Prints the one JSON document of a command.
    pub(crate) fn document(&self, document: &impl Serialize) -> Result<(), Error> {
        let mut text =
            serde_json::to_string_pretty(document).map_err(|error| output_failed(error.into()))?;
        text.push('\n');
        self.print(&text)
    }

    /// Prints the result of a command for people. That nobody reads it to its end is no error.
    pub(crate) fn print(&self, text: &str) -> Result<(), Error> {
        let mut output = io::stdout().lock();
        match output
            .write_all(text.as_bytes())
            .and_then(|()| output.flush())
        {
            Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(output_failed(error)),
            _ => Ok(()),
        }
    }

    /// Says something beside the result.
    pub(crate) fn say(&self, text: &str) {
        if self.voice.volume > Volume::Quiet {
            say(text);
        }
    }

    /// Text of a result, with colors where they are wanted.
    pub(crate) fn paint(&self, look: Look, text: &str) -> String {
        paint(self.voice.color_output, look, text)
    }

    /// Text beside a result, with colors where they are wanted.
    pub(crate) fn paint_error(&self, look: Look, text: &str) -> String {
        paint(self.voice.color_error, look, text)
    }

    /// Log lines go to standard error, from now on. `usual` is the level when none was chosen.
    pub(crate) fn start_log(&self, usual: &str) {
        let filter = match (&self.voice.log, self.voice.volume) {
            (Some(filter), _) => filter,
            (None, Volume::Verbose) => "warn,runtime=debug,registry=debug,server=debug,batch=debug",
            (None, Volume::Normal) => usual,
            (None, Volume::Quiet) => "error",
        };
        let filter = EnvFilter::try_new(filter).unwrap_or_else(|error| {
            self.say(&format!(
                "warning: `ENVELOPE_LOG` is not understood: {error}"
            ));
            EnvFilter::new(usual)
        });
        let log = tracing_subscriber::fmt()
            .with_env_filter(filter)
            .with_writer(io::stderr);
        let log = log.with_ansi(self.voice.color_error);
        if self.voice.log_json {
            log.json().init()
        } else {
            log.init()
        }
    }
}

/// Standard error may be closed; there is nobody to tell then.
pub(crate) fn say(text: &str) {
    _ = writeln!(io::stderr(), "{text}");
}

fn paint(color: bool, look: Look, text: &str) -> String {
    if color {
        format!("\u{1b}[{}m{text}\u{1b}[0m", look.code())
    } else {
        text.to_owned()
    }
}

fn output_failed(source: io::Error) -> Error {
    Error::Io {
        doing: "write",
        path: "standard output".into(),
        source,
    }
}

/// Text of an envelope's author as it may be shown: it cannot move the cursor, change colors or
/// turn the direction of writing.
pub(crate) fn harmless(text: &str) -> String {
    let is_harmful = |character: char| {
        character.is_control()
            || matches!(character, '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{2069}')
    };
    let escape = |character: char| match character {
        harmful if is_harmful(harmful) => harmful.escape_default().to_string(),
        harmless => harmless.to_string(),
    };
    text.chars().map(escape).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_of_others_cannot_command_the_terminal() {
        assert_eq!(harmless("Größe 5"), "Größe 5");
        assert_eq!(
            harmless("a\u{1b}[2Jb\r\n\u{202e}c"),
            "a\\u{1b}[2Jb\\r\\n\\u{202e}c"
        );
    }
}
