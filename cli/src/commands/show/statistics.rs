//! Statistics of a function's sample, as a small table.
//!
//! They are JSON of whoever saved the envelope: keys that are not known are passed over, values
//! that are missing stay empty.

use envelope_format::Function;
use runtime::EnvelopeFile;
use serde_json::Value;

use crate::error::Error;
use crate::table::{Align, Table};
use crate::terminal::{Look, Terminal, harmless};

/// The numbers that are shown, in this order.
const NUMBERS: [&str; 7] = ["count", "nulls", "min", "max", "mean", "std", "distinct"];

/// How many of the most frequent values are shown.
const TOP: usize = 3;

/// The statistics in the envelope, if it has any.
pub(crate) fn read(envelope: &EnvelopeFile, function: &Function) -> Result<Option<Value>, Error> {
    let Some(member) = &function.statistics else {
        return Ok(None);
    };
    let bytes = envelope.read(member)?;
    let statistics = serde_json::from_slice(&bytes).map_err(|error| Error::Stored {
        part: "statistics",
        function: function.name.clone(),
        reason: error.to_string(),
    })?;
    Ok(Some(statistics))
}

pub(crate) fn lines(terminal: &Terminal, statistics: &Value) -> Vec<String> {
    let mut lines = vec![];
    for part in ["input", "output"] {
        let Some(columns) = statistics.get(part).and_then(Value::as_array) else {
            continue;
        };
        let mut table = Table::new(
            [Align::Left]
                .into_iter()
                .chain([Align::Right; 7])
                .chain([Align::Left]),
        );
        table.row(
            ["column"]
                .into_iter()
                .chain(NUMBERS)
                .chain(["most frequent"]),
        );
        for column in columns {
            table.row(cells(column));
        }
        let mut rows = table.lines();
        rows[0] = terminal.paint(Look::Faint, &rows[0]);
        lines.push(format!("statistics of the {part}"));
        lines.extend(rows.into_iter().map(|row| format!("  {row}")));
    }
    lines
}

fn cells(column: &Value) -> Vec<String> {
    let name = column.get("name").map(text).unwrap_or_default();
    let numbers = NUMBERS
        .iter()
        .map(|key| column.get(*key).map(text).unwrap_or_default());
    [name]
        .into_iter()
        .chain(numbers)
        .chain([frequent(column)])
        .collect()
}

/// `UK (40), US (12)`.
fn frequent(column: &Value) -> String {
    let top = column
        .get("top")
        .and_then(Value::as_array)
        .map(Vec::as_slice)
        .unwrap_or_default();
    let shown = top.iter().take(TOP).filter_map(|pair| {
        let (value, count) = (pair.get(0)?, pair.get(1)?);
        Some(format!("{} ({count})", text(value)))
    });
    shown.collect::<Vec<_>>().join(", ")
}

fn text(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => harmless(text),
        Value::Number(number) => match number.as_f64() {
            Some(float) if number.is_f64() => rounded(float),
            _ => number.to_string(),
        },
        Value::Bool(_) | Value::Array(_) | Value::Object(_) => value.to_string(),
    }
}

/// Six significant digits, as short as possible.
fn rounded(number: f64) -> String {
    if number == 0.0 {
        return "0".to_owned();
    }
    let magnitude = number.abs().log10().floor();
    if !(-5.0..15.0).contains(&magnitude) {
        return format!("{number:.4e}");
    }
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "between 0 and 10"
    )]
    let decimals = (5.0 - magnitude).max(0.0) as usize;
    let text = format!("{number:.decimals$}");
    if text.contains('.') {
        text.trim_end_matches('0').trim_end_matches('.').to_owned()
    } else {
        text
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn numbers_have_six_digits() {
        for (number, shown) in [
            (0.0, "0"),
            (41.0, "41"),
            (0.123_456_789, "0.123457"),
            (-1234.5678, "-1234.57"),
            (1_234_567.8, "1234568"),
            (1e-9, "1.0000e-9"),
            (0.1 + 0.2, "0.3"),
        ] {
            assert_eq!(rounded(number), shown);
        }
    }

    #[test]
    fn what_is_missing_or_unknown_does_no_harm() {
        let cells =
            cells(&json!({"name": "age", "count": 3, "min": null, "mean": 1.5, "later": {}}));
        assert_eq!(cells, ["age", "3", "", "", "", "1.5", "", "", ""]);
        let top = json!({"top": [["UK", 2], ["US", 1], "broken"]});
        assert_eq!(frequent(&top), "UK (2), US (1)");
    }
}
