//! Statistics of a function's input and output, drawn as text.

mod values;

use envelope_format::Function;
use envelope_format::statistics::{
    BooleanStatistics, ColumnStatistics, Frequent, Histogram, InvalidStatistics, NumberStatistics,
    Statistics, TableStatistics, TextStatistics, Value,
};
use runtime::EnvelopeFile;
use unicode_width::{UnicodeWidthChar as _, UnicodeWidthStr as _};

use self::values::{Scale, grouped};
use crate::error::Error;
use crate::terminal::{Look, Terminal, harmless};

/// How many of the most frequent values are drawn.
const TOP: usize = 5;

/// Longest bar, in characters.
const BAR: usize = 24;

/// Longest value before a bar, in columns.
const LABEL: usize = 24;

/// A value is worth a bar when it is at least such a share of the values.
const NOTABLE: f64 = 0.01;

/// The statistics in the envelope, if it has any: checked against the signature.
pub(crate) fn read(
    envelope: &EnvelopeFile,
    function: &Function,
) -> Result<Option<Statistics>, Error> {
    let Some(member) = &function.statistics else {
        return Ok(None);
    };
    let bytes = envelope.read(member)?;
    let statistics = Statistics::from_bytes(&bytes, &function.signature);
    statistics.map(Some).map_err(|error| Error::Stored {
        part: "statistics",
        function: function.name.clone(),
        reason: reason(&error),
    })
}

fn reason(error: &InvalidStatistics) -> String {
    match std::error::Error::source(error) {
        Some(cause) => format!("{error}: {cause}"),
        None => error.to_string(),
    }
}

/// Lines that fit into the terminal when they are indented by so much.
pub(crate) fn lines(terminal: &Terminal, statistics: &Statistics, indent: usize) -> Vec<String> {
    let width = terminal.voice.width.saturating_sub(indent + 2);
    [("input", &statistics.input), ("output", &statistics.output)]
        .into_iter()
        .flat_map(|(part, table)| {
            let head = format!("statistics of the {part}, {} rows", grouped(table.rows));
            let below = blocks(terminal, table, width);
            [terminal.paint(Look::Faint, &head)]
                .into_iter()
                .chain(below.into_iter().map(|line| format!("  {line}")))
        })
        .collect()
}

/// A block for each column: its name and type on the left, what is known of it on the right.
fn blocks(terminal: &Terminal, table: &TableStatistics, width: usize) -> Vec<String> {
    let titles: Vec<_> = table
        .columns
        .iter()
        .map(|column| {
            (
                fit(&harmless(&column.name), LABEL),
                column.data_type.to_string(),
            )
        })
        .collect();
    let widest = |texts: &mut dyn Iterator<Item = usize>| texts.max().unwrap_or(0);
    let name = widest(&mut titles.iter().map(|(name, _)| name.width()));
    let kind = widest(&mut titles.iter().map(|(_, kind)| kind.width())).min(LABEL);
    let left = name + kind + 4;
    let mut lines = vec![];
    for (column, (title, data_type)) in table.columns.iter().zip(&titles) {
        let room = width.saturating_sub(left);
        let facts = facts(column);
        let facts = facts.iter().flat_map(|fact| wrapped(fact, room));
        for (index, fact) in facts.enumerate() {
            let margin = if index == 0 {
                let name = terminal.paint(Look::Strong, &pad(title, name));
                let kind = terminal.paint(Look::Faint, &pad(&fit(data_type, kind), kind));
                format!("{name}  {kind}  ")
            } else {
                " ".repeat(left)
            };
            lines.push(format!("{margin}{fact}").trim_end().to_owned());
        }
    }
    lines
}

/// A line as several where it is too long: it is broken where there are two spaces, and cut where
/// there are none.
fn wrapped(line: &str, room: usize) -> Vec<String> {
    if line.width() <= room {
        return vec![line.to_owned()];
    }
    let mut lines: Vec<String> = vec![];
    for part in line.split("  ").filter(|part| !part.is_empty()) {
        match lines.last_mut() {
            Some(last) if last.width() + 2 + part.width() <= room => {
                last.push_str("  ");
                last.push_str(part);
            }
            _ => lines.push(fit(part, room)),
        }
    }
    lines
}

/// What is known of a column, a line for each kind of knowledge.
fn facts(column: &ColumnStatistics) -> Vec<String> {
    let present = column.count.saturating_sub(column.nulls);
    let scale = Scale::of(&column.data_type);
    let mut lines = vec![counts(column)];
    if let Some(numbers) = &column.numbers {
        lines.extend(picture(numbers, &scale));
    }
    if let Some(texts) = &column.texts {
        lines.extend(range(texts));
    }
    if let Some(lengths) = &column.lengths {
        let picture = picture(lengths, &Scale::Plain);
        lines.extend(
            picture
                .into_iter()
                .take(1)
                .map(|line| format!("{line}  long")),
        );
    }
    if let Some(seen) = &column.booleans {
        lines.extend(bars(&truths(*seen), present));
    }
    if let Some(frequent) = column.frequent() {
        lines.extend(bars(&most_frequent(frequent, &scale), present));
    }
    lines
}

/// `3 missing, 2 NaN, about 41 distinct`.
fn counts(column: &ColumnStatistics) -> String {
    let mut facts = vec![];
    let mut fact = |count: u64, what: &str| {
        if count > 0 {
            facts.push(format!("{} {what}", grouped(count)));
        }
    };
    fact(column.nulls, "missing");
    if let Some(numbers) = &column.numbers {
        fact(numbers.nans, "NaN");
        fact(numbers.negative_infinities, "-∞");
        fact(numbers.positive_infinities, "∞");
        fact(numbers.zeros, "zero");
    }
    if let Some(texts) = &column.texts {
        fact(texts.long, "longer than 256 bytes");
    }
    if let Some(distinct) = &column.distinct {
        let about = if distinct.relative_error > 0.0 {
            "about "
        } else {
            ""
        };
        facts.push(format!("{about}{} distinct", grouped(distinct.estimate)));
    }
    if facts.is_empty() {
        facts.push("none missing".to_owned());
    }
    facts.join(", ")
}

/// The histogram between min and max, then mean and quantiles.
fn picture(numbers: &NumberStatistics, scale: &Scale) -> Vec<String> {
    let (Some(min), Some(max)) = (&numbers.min, &numbers.max) else {
        return vec![];
    };
    let drawn = numbers
        .histogram
        .as_ref()
        .map(sparkline)
        .unwrap_or_default();
    let mut lines = vec![format!("{} {drawn} {}", scale.value(min), scale.value(max))];
    let mut words = vec![];
    if let (Some(mean), Some(std)) = (numbers.mean, numbers.std) {
        words.push(format!(
            "mean {} ± {}",
            scale.mean(mean),
            scale.difference(std)
        ));
    }
    if let Some(quantiles) = &numbers.quantiles {
        let drawn = [0.05, 0.25, 0.5, 0.75, 0.95];
        let some = quantiles
            .values
            .iter()
            .filter(|(share, _)| drawn.contains(share));
        words.extend(
            some.map(|(share, value)| format!("{:.0}% {}", share * 100.0, scale.value(value))),
        );
    }
    lines.push(words.join("  "));
    lines
}

/// One character for each bin, as high as its count is beside the largest.
fn sparkline(histogram: &Histogram) -> String {
    const HEIGHTS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
    let most = histogram.counts.iter().copied().max().unwrap_or(0).max(1);
    let height = |count: u64| {
        // Rounded up: what is there is to be seen.
        let eighths = (u128::from(count) * 8).div_ceil(u128::from(most));
        match usize::try_from(eighths) {
            Ok(0) | Err(_) => ' ',
            Ok(eighths) => HEIGHTS[eighths.min(8) - 1],
        }
    };
    histogram.counts.iter().copied().map(height).collect()
}

fn range(texts: &TextStatistics) -> Option<String> {
    let quoted = |text: &String, is_cut| {
        let more = if is_cut { "…" } else { "" };
        format!("“{}{more}”", fit(&harmless(text), LABEL))
    };
    let first = quoted(texts.min.as_ref()?, texts.min_is_cut);
    let last = quoted(texts.max.as_ref()?, texts.max_is_cut);
    Some(format!("{first} to {last}"))
}

fn truths(seen: BooleanStatistics) -> Vec<(String, u64)> {
    vec![
        ("true".to_owned(), seen.trues),
        ("false".to_owned(), seen.falses),
    ]
}

fn most_frequent(frequent: &Frequent, scale: &Scale) -> Vec<(String, u64)> {
    let shown = |value: &Value| match value {
        Value::Text(text) => format!("“{}”", fit(&harmless(text), LABEL - 2)),
        Value::Integer(_) | Value::Unsigned(_) | Value::Float(_) => scale.value(value),
    };
    let top = frequent.values.iter().take(TOP);
    top.filter(|(_, count)| *count > 1)
        .map(|(value, count)| (shown(value), *count))
        .collect()
}

/// `UK ████████ 40.0% 400`, under one another.
#[expect(clippy::cast_precision_loss, reason = "drawn with 24 characters")]
fn bars(values: &[(String, u64)], present: u64) -> Vec<String> {
    let share = |count: u64| count as f64 / present.max(1) as f64;
    let notable: Vec<_> = values
        .iter()
        .filter(|(_, count)| share(*count) >= NOTABLE)
        .collect();
    let widest = notable.iter().map(|(value, _)| value.width()).max();
    let label = widest.unwrap_or(0);
    let line = |(value, count): &&(String, u64)| {
        let share = share(*count);
        let count = grouped(*count);
        format!(
            "{}  {}  {:>5.1}%  {count}",
            pad(value, label),
            bar(share),
            share * 100.0
        )
    };
    notable.iter().map(line).collect()
}

/// A bar of eighths of characters.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_precision_loss,
    reason = "a share of 24 characters"
)]
fn bar(share: f64) -> String {
    const PARTS: [&str; 8] = ["", "▏", "▎", "▍", "▌", "▋", "▊", "▉"];
    let eighths = (share.clamp(0.0, 1.0) * (BAR * 8) as f64).round() as usize;
    let drawn = format!("{}{}", "█".repeat(eighths / 8), PARTS[eighths % 8]);
    pad(&drawn, BAR)
}

fn pad(text: &str, width: usize) -> String {
    format!("{text}{}", " ".repeat(width.saturating_sub(text.width())))
}

/// The beginning that is no wider.
fn fit(text: &str, width: usize) -> String {
    if text.width() <= width {
        return text.to_owned();
    }
    let mut used = 1; // the ellipsis
    let fits = |character: &char| {
        used += character.width().unwrap_or(0);
        used <= width
    };
    let beginning: String = text.chars().take_while(fits).collect();
    format!("{}…", beginning.trim_end())
}

#[cfg(test)]
mod tests;
