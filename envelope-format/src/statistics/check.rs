//! Whether statistics agree with themselves and with the signature they are stored beside.
//!
//! Whoever watches live rows compares them with these numbers, so a wrong one is refused instead
//! of watched by.

use super::summary::{ColumnSummary, Kind};
use super::texts::MAX_TEXT_BYTES;
use super::{
    ColumnStatistics, Distinct, Frequent, InvalidStatistics, NumberStatistics, TableStatistics,
    TextStatistics, Value,
};
use crate::{DataType, Field, Rows};

/// How much sums of doubles may differ from themselves, computed in another way.
const ROUNDING: f64 = 1e-9;

pub(super) fn table(
    part: &'static str,
    statistics: &TableStatistics,
    rows: &Rows,
) -> Result<(), InvalidStatistics> {
    let columns = &statistics.columns;
    let known = columns
        .iter()
        .map(|column| (&column.name, &column.data_type));
    let expected = rows
        .fields
        .iter()
        .map(|field| (&field.name, &field.data_type));
    if !known.eq(expected) {
        let found = columns.iter();
        let expected = rows.fields.iter();
        return Err(InvalidStatistics::Columns {
            part,
            found: list(found.map(|column| (&column.name, &column.data_type))),
            expected: list(expected.map(|field| (&field.name, &field.data_type))),
        });
    }
    for (field, statistics) in rows.fields.iter().zip(&statistics.columns) {
        column(field, statistics).map_err(|reason| InvalidStatistics::Column {
            part,
            column: field.name.clone(),
            reason,
        })?;
    }
    match columns.iter().find(|it| it.count != statistics.rows) {
        None => Ok(()),
        Some(column) => Err(InvalidStatistics::Column {
            part,
            column: column.name.clone(),
            reason: format!("it has {} rows of {}", column.count, statistics.rows),
        }),
    }
}

/// `age: int64, name: utf8, …`
fn list<'c>(columns: impl Iterator<Item = (&'c String, &'c DataType)>) -> String {
    const MOST: usize = 8;
    let names: Vec<_> = columns
        .map(|(name, data_type)| format!("`{name}`: {data_type}"))
        .collect();
    let more = if names.len() > MOST { ", …" } else { "" };
    format!("{}{more}", names[..names.len().min(MOST)].join(", "))
}

/// The reason why not.
type Verdict = Result<(), String>;

fn demand(holds: bool, reason: impl FnOnce() -> String) -> Verdict {
    if holds { Ok(()) } else { Err(reason()) }
}

fn column(field: &Field, column: &ColumnStatistics) -> Verdict {
    let (count, nulls) = (column.count, column.nulls);
    let present = count
        .checked_sub(nulls)
        .ok_or_else(|| format!("{nulls} values are missing of {count}"))?;
    demand(nulls == 0 || field.nullable, || {
        format!("{nulls} values are missing, the signature says that none is")
    })?;
    parts(column)?;
    if let Some(seen) = &column.booleans {
        let sum = seen.falses.checked_add(seen.trues);
        demand(sum == Some(present), || {
            format!(
                "{} false and {} true are not {present} values",
                seen.falses, seen.trues
            )
        })?;
    }
    if let Some(found) = &column.numbers {
        numbers(found, present, is_float(&column.data_type))?;
    }
    if let Some(lengths) = &column.lengths {
        numbers(lengths, present, false).map_err(|reason| format!("its lengths: {reason}"))?;
        demand(lengths.negatives == 0 && !is_negative(lengths), || {
            "it has lengths below 0".to_owned()
        })?;
    }
    if let Some(found) = &column.texts {
        texts(found, present)?;
    }
    if let Some(found) = &column.distinct {
        distinct(found, present)?;
    }
    // The sketches themselves: whether they can be read, and are of so many values.
    match ColumnSummary::resume(column) {
        Err(InvalidStatistics::Merge { reason, .. }) => Err(reason),
        _ => Ok(()),
    }
}

/// A type has certain parts and no others.
fn parts(column: &ColumnStatistics) -> Verdict {
    let kind = Kind::of(&column.data_type);
    let numbers = matches!(kind, Kind::Numbers(_));
    let wanted = [
        ("numbers", numbers, column.numbers.is_some()),
        (
            "booleans",
            kind == Kind::Booleans,
            column.booleans.is_some(),
        ),
        ("texts", kind == Kind::Texts, column.texts.is_some()),
        (
            "lengths",
            matches!(kind, Kind::Texts | Kind::Bytes | Kind::Lists),
            column.lengths.is_some(),
        ),
        (
            "distinct",
            numbers || matches!(kind, Kind::Texts | Kind::Bytes),
            column.distinct.is_some(),
        ),
    ];
    for (part, wanted, found) in wanted {
        demand(wanted == found, || {
            let has = if found { "has" } else { "lacks" };
            format!("a column of {} {has} `{part}`", column.data_type)
        })?;
    }
    Ok(())
}

fn is_float(data_type: &DataType) -> bool {
    matches!(data_type, DataType::Float32 | DataType::Float64)
}

fn is_negative(numbers: &NumberStatistics) -> bool {
    let least = numbers.min.as_ref().and_then(Value::as_f64);
    least.is_some_and(|least| least < 0.0)
}

fn numbers(found: &NumberStatistics, present: u64, is_float: bool) -> Verdict {
    let finite = found
        .not_finite()
        .and_then(|others| present.checked_sub(others))
        .ok_or_else(|| format!("more numbers are NaN or infinite than the {present} there are"))?;
    demand(is_float || finite == present, || {
        "whole numbers are NaN or infinite".to_owned()
    })?;
    let signs = found.zeros.checked_add(found.negatives);
    demand(signs.is_some_and(|signs| signs <= finite), || {
        format!("more numbers are 0 or less than the {finite} there are")
    })?;
    if finite == 0 {
        return empty(found);
    }
    let (Some(min), Some(max)) = (bound(found.min.as_ref()), bound(found.max.as_ref())) else {
        return Err("it has values, but its min or max is none of its type".to_owned());
    };
    demand(found.min <= found.max && min <= max, || {
        format!("its min {min} is above its max {max}")
    })?;
    moments(found, min, max)?;
    quantiles(found, min, max)?;
    histogram(found, finite)?;
    frequent(&found.frequent, finite)?;
    let inside = |value: &Value| value.as_f64().is_some_and(|it| (min..=max).contains(&it));
    demand(
        found.frequent.values.iter().all(|(it, _)| inside(it)),
        || "a frequent value is not between its min and max".to_owned(),
    )
}

/// Without values nothing is said of them.
fn empty(found: &NumberStatistics) -> Verdict {
    let nothing = found.min.is_none()
        && found.max.is_none()
        && found.mean.is_none()
        && found.variance.is_none()
        && found.std.is_none()
        && found.quantiles.is_none()
        && found.histogram.is_none()
        && found.frequent.values.is_empty();
    demand(nothing, || {
        "it has no values, and yet statistics of them".to_owned()
    })
}

/// JSON has neither NaN nor infinities, but numbers that become infinite when they are read.
fn bound(value: Option<&Value>) -> Option<f64> {
    value?.as_f64().filter(|value| value.is_finite())
}

fn moments(found: &NumberStatistics, min: f64, max: f64) -> Verdict {
    let slack = ROUNDING * min.abs().max(max.abs());
    let mean = found.mean.unwrap_or(min);
    demand((min - slack..=max + slack).contains(&mean), || {
        format!("its mean {mean} is not between {min} and {max}")
    })?;
    let variance = found.variance.unwrap_or(0.0);
    let root = variance.sqrt();
    let std = found.std.unwrap_or(0.0);
    let is_root = variance >= 0.0 && (std - root).abs() <= ROUNDING * root;
    demand(
        is_root && found.std.is_some() == found.variance.is_some(),
        || format!("its variance {variance} is not the square of {std}"),
    )
}

fn quantiles(found: &NumberStatistics, min: f64, max: f64) -> Verdict {
    let Some(quantiles) = &found.quantiles else {
        return Err("it has values, but no quantiles".to_owned());
    };
    let ascending = quantiles
        .values
        .is_sorted_by(|one, other| one.0 < other.0 && one.1 <= other.1);
    let inside = |value: &Value| value.as_f64().is_some_and(|it| (min..=max).contains(&it));
    demand(ascending, || "its quantiles do not ascend".to_owned())?;
    demand(
        quantiles
            .values
            .iter()
            .all(|(share, it)| (0.0..=1.0).contains(share) && inside(it)),
        || "a quantile is not between its min and max".to_owned(),
    )?;
    demand((0.0..=1.0).contains(&quantiles.rank_error), || {
        format!("its rank error {} is not a share", quantiles.rank_error)
    })
}

fn histogram(found: &NumberStatistics, finite: u64) -> Verdict {
    let Some(histogram) = &found.histogram else {
        return Err("it has values, but no histogram".to_owned());
    };
    let edges = &histogram.edges;
    demand(edges.len() == histogram.counts.len() + 1, || {
        format!(
            "its histogram has {} counts between {} bounds",
            histogram.counts.len(),
            edges.len()
        )
    })?;
    // A constant has one bin without width.
    let ascending = edges.len() == 2 || edges.is_sorted_by(|one, other| one < other);
    let finite_edges = edges.iter().all(|edge| edge.is_finite());
    demand(ascending && edges.is_sorted() && finite_edges, || {
        "the bounds of its histogram do not ascend".to_owned()
    })?;
    let sum = sum(histogram.counts.iter().copied());
    demand(sum == Some(finite), || {
        format!("its histogram does not count {finite} values")
    })
}

fn sum(mut counts: impl Iterator<Item = u64>) -> Option<u64> {
    counts.try_fold(0_u64, u64::checked_add)
}

fn frequent(found: &Frequent, present: u64) -> Verdict {
    let counts = || found.values.iter().map(|(_, count)| *count);
    demand(counts().all(|count| count > 0), || {
        "a frequent value never occurs".to_owned()
    })?;
    demand(counts().is_sorted_by(|one, other| one >= other), || {
        "its frequent values are not in order".to_owned()
    })?;
    let sum = sum(counts()).filter(|sum| *sum <= present);
    demand(sum.is_some() && found.error <= present, || {
        format!("its frequent values occur more often than the {present} values there are")
    })?;
    demand(
        found.values.len() as u64 <= u64::from(found.counters),
        || format!("it has more than {} frequent values", found.counters),
    )
}

fn texts(found: &TextStatistics, present: u64) -> Verdict {
    let some = present > 0;
    demand(
        found.min.is_some() == some && found.max.is_some() == some,
        || format!("its min and max are not those of {present} texts"),
    )?;
    demand(found.min <= found.max, || {
        "its min is after its max".to_owned()
    })?;
    let short = |text: &Option<String>| text.as_ref().is_none_or(|it| it.len() <= MAX_TEXT_BYTES);
    demand(short(&found.min) && short(&found.max), || {
        format!("its min or max is longer than {MAX_TEXT_BYTES} bytes")
    })?;
    let others = present
        .checked_sub(found.long)
        .ok_or_else(|| format!("{} of {present} texts are long", found.long))?;
    frequent(&found.frequent, others)
}

fn distinct(found: &Distinct, present: u64) -> Verdict {
    demand(found.estimate <= present, || {
        format!("it has {} distinct values of {present}", found.estimate)
    })?;
    demand((0.0..=1.0).contains(&found.relative_error), || {
        format!(
            "the error {} of its distinct values is not a share",
            found.relative_error
        )
    })
}
