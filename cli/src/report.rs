//! How an error is told.

use std::error::Error as _;

use serde::Serialize;

use crate::error::Error;
use crate::terminal::{Look, Terminal, harmless, say};

/// An error as the one JSON document on standard error.
#[derive(Debug, Serialize)]
struct Document<'e> {
    error: Described<'e>,
}

#[derive(Debug, Serialize)]
struct Described<'e> {
    code: &'e str,
    message: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    causes: Vec<String>,
    hint: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    details: Option<&'e str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    broken: Option<Broken<'e>>,
}

/// Which rule of the format an envelope breaks, and where.
#[derive(Debug, Serialize)]
struct Broken<'e> {
    rule: &'e str,
    offset: Option<u64>,
    member: Option<&'e str>,
}

impl<'e> Broken<'e> {
    fn of(error: &'e envelope_format::Error) -> Option<Self> {
        Some(Self {
            rule: error.rule()?,
            offset: error.offset(),
            member: error.member(),
        })
    }
}

/// Tells why a command failed, on standard error.
pub(crate) fn report(terminal: &Terminal, error: &Error) {
    let kind = error.kind();
    if terminal.json() {
        let described = Described {
            code: kind.code,
            message: error.to_string(),
            causes: causes(error),
            hint: error.hint(),
            details: error.details(),
            broken: error.broken_rule().and_then(Broken::of),
        };
        return document(described);
    }
    let head = terminal.paint_error(Look::Bad, &format!("error[{}]", kind.code));
    say(&format!("{head}: {}", indented(&error.to_string())));
    for cause in causes(error) {
        say(&format!("  cause: {}", indented(&cause)));
    }
    let details = error.details();
    if let Some(details) = details.filter(|_| terminal.is_verbose()) {
        for line in details.trim_end().lines() {
            say(&format!("  | {}", harmless(line)));
        }
    }
    let look_closer = details
        .filter(|_| !terminal.is_verbose())
        .map(|_| "`-v` shows what Python said".to_owned());
    if let Some(hint) = error.hint().or(look_closer) {
        say(&format!(
            "  {}: {}",
            terminal.paint_error(Look::Help, "hint"),
            indented(&hint)
        ));
    }
}

/// Tells that the command line is wrong, as a JSON document.
pub(crate) fn report_usage(message: String) {
    document(Described {
        code: "usage",
        message,
        causes: vec![],
        hint: Some("see `--help`".into()),
        details: None,
        broken: None,
    });
}

fn document(error: Described<'_>) {
    say(&serde_json::to_string_pretty(&Document { error }).unwrap_or_default());
}

/// Messages are one line; texts of other programs in them may be more.
fn indented(text: &str) -> String {
    text.trim_end()
        .lines()
        .map(harmless)
        .collect::<Vec<_>>()
        .join("\n         ")
}

fn causes(error: &Error) -> Vec<String> {
    let mut causes = vec![];
    let mut next = error.source();
    while let Some(cause) = next {
        let text = cause.to_string();
        // Some libraries repeat their cause in their own text.
        if causes
            .last()
            .is_none_or(|last: &String| !last.contains(&text))
        {
            causes.push(text);
        }
        next = cause.source();
    }
    causes
}
