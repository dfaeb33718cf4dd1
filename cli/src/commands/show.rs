//! `envelope show`: what is in an envelope. Runs none of it.

pub(super) mod statistics;

use std::collections::BTreeMap;

use envelope_format::statistics::Statistics;
use envelope_format::{Certificate, Digest, Equality, Field, Function, Parameter, Proof, Rows};
use serde::Serialize;

use crate::args::Show;
use crate::commands::ls::{moment, tags};
use crate::error::Error;
use crate::table::Table;
use crate::terminal::{Look, Terminal, harmless};
use crate::wiring::{Found, Wiring};

/// What is shown of an envelope.
#[derive(Debug, Serialize)]
struct Shown<'e> {
    name: &'e str,
    version: Option<u64>,
    digest: Digest,
    description: &'e str,
    tags: &'e BTreeMap<String, String>,
    created_at: Option<&'e str>,
    python: &'e str,
    platform: &'e str,
    modules: Vec<&'e str>,
    git_commit: Option<&'e str>,
    size_bytes: u64,
    functions: Vec<ShownFunction<'e>>,
}

#[derive(Debug, Serialize)]
struct ShownFunction<'e> {
    name: &'e str,
    doc: &'e str,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    parameters: &'e [Parameter],
    input: &'e Rows,
    output: &'e Rows,
    certificate: &'e Certificate,
    proof: Proof,
    #[serde(skip_serializing_if = "Option::is_none")]
    statistics: Option<Statistics>,
}

pub(crate) async fn show(wiring: &Wiring, args: &Show) -> Result<(), Error> {
    let found = wiring.find(&args.envelope.reference).await?;
    let shown = describe(&found, args.stats)?;
    let terminal = &wiring.terminal;
    if terminal.json() {
        return terminal.document(&shown);
    }
    let mut lines = head(terminal, &found, &shown);
    for (index, function) in shown.functions.iter().enumerate() {
        lines.push(String::new());
        lines.extend(body(
            terminal,
            function,
            index == 0 && shown.functions.len() > 1,
        ));
    }
    terminal.print(&(lines.join("\n") + "\n"))
}

fn describe(found: &Found, with_statistics: bool) -> Result<Shown<'_>, Error> {
    let envelope = &found.envelope;
    let manifest = envelope.manifest();
    let version = found.version.as_ref();
    let metadata =
        std::fs::metadata(envelope.path()).map_err(Error::io("read", envelope.path()))?;
    let function = |function| {
        let statistics = with_statistics
            .then(|| statistics::read(envelope, function))
            .transpose()?
            .flatten();
        Ok(ShownFunction::of(function, statistics))
    };
    Ok(Shown {
        name: &manifest.name,
        version: version.map(|version| version.version),
        digest: envelope.digest(),
        description: &manifest.description,
        // The registry's tags change, those in the envelope are what it was saved with.
        tags: version.map_or(&manifest.tags, |version| &version.tags),
        created_at: version.map(|version| version.created_at.as_str()),
        python: &manifest.environment.python.version,
        platform: &manifest.environment.platform,
        modules: manifest
            .source
            .modules
            .iter()
            .map(|name| module(name.as_str()))
            .collect(),
        git_commit: manifest.source.git_commit.as_deref(),
        size_bytes: metadata.len(),
        functions: manifest
            .functions
            .iter()
            .map(function)
            .collect::<Result<_, Error>>()?,
    })
}

/// The path under which it is imported.
fn module(member: &str) -> &str {
    member.strip_prefix("modules/").unwrap_or(member)
}

impl<'e> ShownFunction<'e> {
    fn of(function: &'e Function, statistics: Option<Statistics>) -> Self {
        let Function {
            name,
            doc,
            parameters,
            signature,
            certificate,
            proof,
            ..
        } = function;
        Self {
            name,
            doc,
            parameters,
            input: &signature.input,
            output: &signature.output,
            certificate,
            proof: *proof,
            statistics,
        }
    }
}

fn head(terminal: &Terminal, found: &Found, shown: &Shown<'_>) -> Vec<String> {
    let mut facts = Table::default();
    let mut fact = |name: &str, value: String| {
        if !value.is_empty() {
            facts.row([name.to_owned(), value]);
        }
    };
    fact("digest", shown.digest.to_string());
    fact(
        "created",
        shown
            .created_at
            .map(|time| format!("{} UTC", moment(time)))
            .unwrap_or_default(),
    );
    fact("tags", tags(shown.tags));
    let libc = &found.envelope.manifest().environment.libc;
    fact(
        "python",
        format!(
            "{} on {} ({})",
            harmless(shown.python),
            harmless(shown.platform),
            harmless(libc)
        ),
    );
    fact("modules", shown.modules.join(", "));
    let dirty = if found.envelope.manifest().source.git_dirty {
        ", changed since"
    } else {
        ""
    };
    fact(
        "commit",
        shown
            .git_commit
            .map(|commit| format!("{}{dirty}", harmless(commit)))
            .unwrap_or_default(),
    );
    fact("size", size(shown.size_bytes));
    let mut lines = vec![terminal.paint(Look::Strong, &found.title())];
    lines.extend(paragraph(shown.description));
    lines.extend(indent(facts.lines()));
    lines
}

fn body(terminal: &Terminal, function: &ShownFunction<'_>, is_default: bool) -> Vec<String> {
    let mark = if is_default { "  (default)" } else { "" };
    let mut lines = vec![format!(
        "{}{mark}",
        terminal.paint(Look::Strong, &harmless(function.name))
    )];
    if !function.parameters.is_empty() {
        lines.extend(paragraph(&definition(function)));
    }
    lines.extend(paragraph(function.doc));
    lines.extend(columns(terminal, "input", function.input));
    lines.extend(columns(terminal, "output", function.output));
    lines.extend(indent([format!(
        "tested  {}{}",
        certificate(function.certificate),
        place(function.proof)
    )]));
    if let Some(statistics) = &function.statistics {
        lines.extend(indent(statistics::lines(terminal, statistics, INDENT)));
    }
    lines
}

/// As in its source code: `score(frame: pd.DataFrame, limit: int = 10)`.
fn definition(function: &ShownFunction<'_>) -> String {
    let parameters: Vec<_> = function
        .parameters
        .iter()
        .map(ToString::to_string)
        .collect();
    format!("{}({})", function.name, parameters.join(", "))
}

fn columns(terminal: &Terminal, name: &str, rows: &Rows) -> Vec<String> {
    let mut table = Table::default();
    for field in &rows.fields {
        table.row([
            harmless(&field.name),
            field.data_type.to_string(),
            remarks(field),
        ]);
    }
    let head = format!(
        "{name:6}  {}",
        terminal.paint(Look::Faint, &rows.shape.to_string())
    );
    indent(
        [head]
            .into_iter()
            .chain(table.lines().into_iter().map(|line| format!("  {line}"))),
    )
}

/// What else there is to know about a column.
fn remarks(field: &Field) -> String {
    /// Of long lists of categories, the beginning is enough.
    const MOST: usize = 8;
    let mut remarks = vec![];
    if let Some(categories) = &field.categories {
        let some: Vec<_> = categories
            .iter()
            .take(MOST)
            .map(|category| harmless(category))
            .collect();
        let more = if categories.len() > MOST {
            format!(", … {} in all", categories.len())
        } else {
            String::new()
        };
        remarks.push(format!("one of {}{more}", some.join(", ")));
    } else if let Some(dtype) = field
        .dtype
        .as_ref()
        .filter(|dtype| **dtype != field.data_type.to_string())
    {
        remarks.push(harmless(dtype));
    }
    if field.nullable {
        remarks.push("may be missing".to_owned());
    }
    remarks.join("; ")
}

fn certificate(certificate: &Certificate) -> String {
    let trials = certificate.trials;
    let planned = certificate
        .planned
        .map(|planned| format!(" of {planned}"))
        .unwrap_or_default();
    if certificate.reducer {
        return format!(
            "reducer, {trials}{planned} trials: online it answers each request, in a job each row"
        );
    }
    if !certificate.row_wise {
        let reason = certificate
            .reason
            .as_deref()
            .map(harmless)
            .unwrap_or_default();
        return format!("not row-wise: {reason}");
    }
    let rows = match certificate.tile {
        None => "at any number of rows".to_owned(),
        Some(rows) => format!("when calls are filled up to multiples of {rows} rows"),
    };
    let equality = match certificate.equality {
        Equality::Bitwise => "the same bits".to_owned(),
        Equality::Close => format!("equal within {:e}", certificate.tolerance()),
        Equality::None => "no statement about equality".to_owned(),
    };
    format!("row-wise, {trials}{planned} trials: {equality} {rows}")
}

/// A proof in a realised environment is what there should be, and needs no word.
fn place(proof: Proof) -> &'static str {
    match proof {
        Proof::Full => "",
        Proof::Quick => {
            "; quick proof: in the environment it was saved from, not in that of its lock"
        }
    }
}

fn paragraph(text: &str) -> Vec<String> {
    indent(text.trim().lines().map(|line| harmless(line.trim_end())))
}

/// Spaces before what belongs to a heading.
const INDENT: usize = 2;

fn indent(lines: impl IntoIterator<Item = String>) -> Vec<String> {
    lines
        .into_iter()
        .map(|line| format!("{:INDENT$}{line}", "").trim_end().to_owned())
        .collect()
}

pub(super) fn size(bytes: u64) -> String {
    let units = ["KiB", "MiB", "GiB", "TiB"];
    #[expect(clippy::cast_precision_loss, reason = "shown with one decimal")]
    let mut size = bytes as f64;
    let mut shown = format!("{bytes} bytes");
    for unit in units {
        if size < 1024.0 {
            break;
        }
        size /= 1024.0;
        shown = format!("{size:.1} {unit}");
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_short() {
        assert_eq!(size(900), "900 bytes");
        assert_eq!(size(1536), "1.5 KiB");
        assert_eq!(size(3 << 30), "3.0 GiB");
    }

    #[test]
    fn modules_are_shown_as_they_are_imported() {
        assert_eq!(module("modules/ltv/features.py"), "ltv/features.py");
    }
}
