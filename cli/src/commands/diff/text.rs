//! Differences as text for people.

use serde_json::Value;

use super::changes::Change;
use super::{Difference, FunctionChange, ModuleChange};
use crate::terminal::{Look, Terminal, harmless};

/// How much of a value is shown.
const VALUE_CHARACTERS: usize = 80;

/// How many statistics of a function are shown: most differ whenever the sample does.
const MOST_STATISTICS: usize = 20;

pub(super) fn text(terminal: &Terminal, difference: &Difference) -> String {
    let Difference { a, b, .. } = difference;
    let mut page = Page {
        terminal,
        lines: vec![],
    };
    page.line(Look::Bad, &format!("--- {}  {}", a.title, a.digest));
    page.line(Look::Good, &format!("+++ {}  {}", b.title, b.digest));
    if difference.equal {
        page.line(Look::Strong, "they are the same");
    }
    page.section("description", &difference.description);
    page.section("tags", &difference.tags);
    page.section("code", &difference.code);
    for module in &difference.modules {
        page.module(module);
    }
    page.section("environment", &difference.environment);
    page.section("packages", &difference.packages);
    for function in &difference.functions {
        page.function(function);
    }
    if page.lines.len() == 2 {
        let members: Vec<_> = difference.members.iter().map(ToString::to_string).collect();
        page.line(
            Look::Faint,
            &format!("they differ in evidence alone: {}", members.join(", ")),
        );
    }
    page.lines.join("\n") + "\n"
}

struct Page<'t> {
    terminal: &'t Terminal,
    lines: Vec<String>,
}

impl Page<'_> {
    fn line(&mut self, look: Look, text: &str) {
        self.lines.push(self.terminal.paint(look, &harmless(text)));
    }

    fn section(&mut self, title: &str, changes: &[Change]) {
        if !changes.is_empty() {
            self.line(Look::Strong, title);
        }
        for Change { path, a, b } in changes {
            let label = if path.is_empty() {
                String::new()
            } else {
                format!("{path}: ")
            };
            for (sign, look, value) in [('-', Look::Bad, a), ('+', Look::Good, b)] {
                if let Some(value) = value {
                    self.line(look, &format!("  {sign} {label}{}", shown(value)));
                }
            }
        }
    }

    fn module(&mut self, module: &ModuleChange) {
        let what = match (&module.a, &module.b) {
            (None, _) => "added",
            (_, None) => "removed",
            _ => "changed",
        };
        self.line(Look::Strong, &format!("module {} {what}", module.path));
        let Some(diff) = &module.diff else {
            return self.line(Look::Faint, "  it is not text");
        };
        for line in diff.lines() {
            let look = match line.chars().next() {
                Some('-') => Look::Bad,
                Some('+') => Look::Good,
                _ => Look::Faint,
            };
            self.line(look, &format!("  {}", line.replace('\t', "    ")));
        }
    }

    fn function(&mut self, function: &FunctionChange) {
        let name = &function.name;
        match function.only_in {
            Some("a") => self.line(Look::Bad, &format!("- function `{name}`")),
            Some(_) => self.line(Look::Good, &format!("+ function `{name}`")),
            None => {}
        }
        self.section(&format!("doc of `{name}`"), &function.doc);
        self.section(&format!("signature of `{name}`"), &function.signature);
        self.section(&format!("certificate of `{name}`"), &function.certificate);
        let most = function.statistics.len().min(MOST_STATISTICS);
        let (shown, more) = function.statistics.split_at(most);
        self.section(&format!("statistics of `{name}`"), shown);
        if !more.is_empty() {
            let count = more.len();
            self.line(
                Look::Faint,
                &format!("  and {count} more, which `--json` shows"),
            );
        }
    }
}

fn shown(value: &Value) -> String {
    let text = value
        .as_str()
        .map_or_else(|| value.to_string(), ToOwned::to_owned);
    match text.char_indices().nth(VALUE_CHARACTERS) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}
