//! `envelope ls`: which versions there are.

use std::collections::BTreeMap;

use envelope_format::Digest;
use registry::{TagQuery, Version};
use serde::Serialize;

use crate::args::Ls;
use crate::error::Error;
use crate::table::Table;
use crate::terminal::{Look, Terminal, harmless};
use crate::wiring::Wiring;

/// A version in a list.
#[derive(Debug, Serialize)]
struct Listed<'v> {
    name: &'v str,
    version: u64,
    digest: &'v Digest,
    tags: &'v BTreeMap<String, String>,
    created_at: &'v str,
}

pub(crate) async fn ls(wiring: &Wiring, args: &Ls) -> Result<(), Error> {
    let query: TagQuery = args.query.parse().map_err(registry::Error::from)?;
    let registry = wiring.registry().await?;
    let versions = registry.find(&query, args.limit).await?;
    registry.close().await;
    let terminal = &wiring.terminal;
    if terminal.json() {
        let listed = |version| Listed::from(version);
        return terminal.document(&versions.iter().map(listed).collect::<Vec<_>>());
    }
    if versions.is_empty() {
        terminal.say(&nothing(wiring, &query));
        return Ok(());
    }
    terminal.print(&lines(terminal, &versions))
}

impl<'v> From<&'v Version> for Listed<'v> {
    fn from(version: &'v Version) -> Self {
        let Version {
            name,
            version,
            digest,
            tags,
            created_at,
            ..
        } = version;
        Self {
            name,
            version: *version,
            digest,
            tags,
            created_at,
        }
    }
}

fn lines(terminal: &Terminal, versions: &[Version]) -> String {
    let mut table = Table::default();
    table.row(["NAME", "DIGEST", "CREATED", "TAGS"]);
    for version in versions {
        let name = format!("{}:{}", version.name, version.version);
        table.row([
            name,
            version.digest.short(),
            moment(&version.created_at),
            tags(&version.tags),
        ]);
    }
    let mut lines = table.lines();
    lines[0] = terminal.paint(Look::Strong, &lines[0]);
    lines.join("\n") + "\n"
}

fn nothing(wiring: &Wiring, query: &TagQuery) -> String {
    let store = wiring.settings.store.display();
    if *query == TagQuery::default() {
        return format!("there is nothing in `{store}` yet");
    }
    format!(
        "no version in `{store}` matches `{query}`; `envelope ls name=NAME` lists the versions of a model"
    )
}

/// `2026-11-23T06:48:00.123Z` to the second, as people write it.
pub(crate) fn moment(created_at: &str) -> String {
    created_at
        .get(..19)
        .map_or_else(|| created_at.to_owned(), |second| second.replace('T', " "))
}

/// `a=1, b=2`.
pub(crate) fn tags(tags: &BTreeMap<String, String>) -> String {
    let tags: Vec<_> = tags
        .iter()
        .map(|(key, value)| format!("{key}={}", harmless(value)))
        .collect();
    tags.join(", ")
}
