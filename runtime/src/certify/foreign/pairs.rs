//! Pairs of new values that are nearly the same.
//!
//! Whoever remembers answers by something coarser than the row (a rounded number, a date, a text in
//! lower case) has one answer for both. That it is remembered shows when they are asked for in
//! another order. The values are new because a function may have remembered the sample already
//! when it was saved.

use std::sync::Arc;

use arrow_array::cast::AsArray as _;
use arrow_array::types::Int64Type;
use arrow_array::{Array as _, ArrayRef, Float64Array, Int64Array, StringArray};
use arrow_cast::cast;
use arrow_schema::{ArrowError, DataType};
use fastrand::Rng;

use super::{as_counts, finite_bounds, from_counts, is_held, per_second};

type Pairs = Result<Vec<[ArrayRef; 2]>, ArrowError>;

/// Differences of numbers, as parts of their range.
const STEPS: [f64; 6] = [1e-2, 1e-3, 1e-4, 1e-5, 1e-6, 1e-8];

/// Letters of a new text.
const LETTERS: usize = 12;

/// A value and one that is nearly the same, for each way to be nearly the same.
pub(super) fn pairs(column: &ArrayRef, rng: &mut Rng) -> Pairs {
    let data_type = column.data_type();
    if data_type.is_floating() {
        return floats(column, rng);
    }
    if data_type.is_integer() || data_type.is_temporal() {
        return counts(column, rng);
    }
    if *data_type == DataType::Utf8 {
        return Ok(texts(rng));
    }
    Ok(vec![])
}

fn floats(column: &ArrayRef, rng: &mut Rng) -> Pairs {
    let Some((least, most)) = finite_bounds(column)? else {
        return Ok(vec![]);
    };
    let range = (most - least).max(most.abs() * 1e-3).max(f64::MIN_POSITIVE);
    let one = |value: f64| cast(&Float64Array::from(vec![value]), column.data_type());
    let mut made = STEPS
        .into_iter()
        .map(|step| {
            let value = least + range * rng.f64();
            Ok([one(value)?, one(value + range * step)?])
        })
        .collect::<Result<Vec<_>, ArrowError>>()?;
    let value = least + range * rng.f64();
    made.push([one(value)?, one(-value)?]);
    Ok(made)
}

/// Integers, and times in the steps that people round them to.
fn counts(column: &ArrayRef, rng: &mut Rng) -> Pairs {
    let data_type = column.data_type();
    let wide = as_counts(column)?;
    let known = || wide.as_primitive::<Int64Type>().iter().flatten();
    let (Some(least), Some(most)) = (known().min(), known().max()) else {
        return Ok(vec![]);
    };
    // Beyond the sample, where nothing is remembered yet.
    let beyond = most.saturating_add(most.saturating_sub(least).max(16));
    let one = |value: i64| {
        let counts: ArrayRef = Arc::new(Int64Array::from(vec![value]));
        from_counts(&counts, data_type)
    };
    let mut made = vec![];
    for step in steps(data_type) {
        // The middle of whatever it is rounded to is not crossed.
        let value = rng.i64(most..=beyond) / (step * 16) * (step * 16);
        let near = value.saturating_add(step);
        if is_held(data_type, value) && is_held(data_type, near) {
            made.push([one(value)?, one(near)?]);
        }
    }
    Ok(made)
}

#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "of the others, ones are counted"
)]
fn steps(data_type: &DataType) -> Vec<i64> {
    let second = match data_type {
        DataType::Timestamp(unit, _)
        | DataType::Duration(unit)
        | DataType::Time32(unit)
        | DataType::Time64(unit) => per_second(*unit),
        _ => return vec![1],
    };
    let mut steps = vec![1, second, 60 * second, 3_600 * second];
    steps.dedup();
    steps
}

/// Texts that differ in case, in white space, at one end, or in the order of their letters.
fn texts(rng: &mut Rng) -> Vec<[ArrayRef; 2]> {
    let changes: [fn(&str) -> String; 5] = [
        |text| text.to_uppercase(),
        |text| format!("{text} "),
        |text| format!("{text}~"),
        |text| format!("~{text}"),
        |text| text.chars().rev().collect(),
    ];
    let one = |text: &str| Arc::new(StringArray::from(vec![text])) as ArrayRef;
    let changed = changes.map(|change| {
        let text: String = (0..LETTERS).map(|_| rng.lowercase()).collect();
        [one(&text), one(&change(&text))]
    });
    changed.into()
}
