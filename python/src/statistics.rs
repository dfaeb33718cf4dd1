//! Statistics of columns.

use std::collections::HashMap;

use arrow_array::cast::AsArray as _;
use arrow_array::types::Float64Type;
use arrow_array::{Array, ArrayRef};
use arrow_schema::DataType;
use pyo3::prelude::*;
use serde::Serialize;
use worker::Batch;

/// Distinct values are counted exactly up to here, then no more.
const MAX_DISTINCT: usize = 10_000;

/// How many of the most frequent values are kept.
const TOP: usize = 10;

/// Statistics of one column. Numbers count as values unless they are NaN.
#[derive(Debug, Serialize)]
struct ColumnStatistics {
    name: String,
    #[serde(rename = "type")]
    kind: String,
    count: usize,
    nulls: usize,
    min: Option<f64>,
    max: Option<f64>,
    mean: Option<f64>,
    /// Standard deviation of the values (divided by n).
    std: Option<f64>,
    /// `None` when there are more than can be counted.
    distinct: Option<usize>,
    /// The most frequent texts with their counts.
    top: Vec<(String, usize)>,
}

/// Statistics of every column as JSON.
#[pyfunction]
pub(crate) fn statistics(py: Python<'_>, rows: PyRef<'_, Batch>) -> PyResult<String> {
    let rows = rows.rows().clone();
    let described = py.detach(|| {
        let schema = rows.schema();
        let fields = schema.fields().iter().zip(rows.columns());
        fields
            .map(|(field, column)| describe(field.name(), column))
            .collect::<Vec<_>>()
    });
    Ok(serde_json::to_string(&described).map_err(std::io::Error::from)?)
}

fn describe(name: &str, column: &ArrayRef) -> ColumnStatistics {
    let numbers = numbers(column);
    let moments = numbers.as_deref().map(moments).unwrap_or_default();
    let missing = numbers
        .as_ref()
        .map_or(column.null_count(), |numbers| column.len() - numbers.len());
    let (distinct, top) = frequencies(column);
    ColumnStatistics {
        name: name.to_owned(),
        kind: runtime::signature_type(column.data_type())
            .map_or_else(String::new, |kind| kind.to_string()),
        count: column.len(),
        nulls: missing,
        min: moments.min,
        max: moments.max,
        mean: moments.mean,
        std: moments.std,
        distinct,
        top,
    }
}

/// The values of a numeric column that are there.
fn numbers(column: &ArrayRef) -> Option<Vec<f64>> {
    let numeric = column.data_type().is_numeric() || *column.data_type() == DataType::Boolean;
    let floats = numeric.then(|| arrow_cast::cast(column, &DataType::Float64).ok())??;
    Some(
        floats
            .as_primitive::<Float64Type>()
            .iter()
            .flatten()
            .filter(|value| !value.is_nan())
            .collect(),
    )
}

#[derive(Debug, Default)]
struct Moments {
    min: Option<f64>,
    max: Option<f64>,
    mean: Option<f64>,
    std: Option<f64>,
}

/// Mean and variance by Welford's method, which does not lose precision for large means.
fn moments(values: &[f64]) -> Moments {
    if values.is_empty() {
        return Moments::default();
    }
    let (mut mean, mut squares, mut count) = (0.0, 0.0, 0.0);
    for value in values {
        count += 1.0;
        let delta = value - mean;
        mean += delta / count;
        squares += delta * (value - mean);
    }
    let finite = |value: f64| value.is_finite().then_some(value);
    Moments {
        min: values.iter().copied().reduce(f64::min).and_then(finite),
        max: values.iter().copied().reduce(f64::max).and_then(finite),
        mean: finite(mean),
        std: finite((squares / count).sqrt()),
    }
}

/// How many distinct values there are, and for text the most frequent ones.
fn frequencies(column: &ArrayRef) -> (Option<usize>, Vec<(String, usize)>) {
    let Ok(texts) = arrow_cast::cast(column, &DataType::Utf8) else {
        return (None, vec![]);
    };
    let mut counts: HashMap<&str, usize> = HashMap::new();
    let texts = texts.as_string::<i32>();
    for text in texts.iter().flatten() {
        *counts.entry(text).or_default() += 1;
        if counts.len() > MAX_DISTINCT {
            return (None, vec![]);
        }
    }
    let distinct = counts.len();
    if *column.data_type() != DataType::Utf8 {
        return (Some(distinct), vec![]);
    }
    let mut top: Vec<_> = counts
        .into_iter()
        .map(|(text, count)| (text.to_owned(), count))
        .collect();
    top.sort_by(|one, other| other.1.cmp(&one.1).then_with(|| one.0.cmp(&other.0)));
    top.truncate(TOP);
    (Some(distinct), top)
}
