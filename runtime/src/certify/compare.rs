//! How far apart two outputs for the same rows are.

use arrow_array::cast::AsArray as _;
use arrow_array::types::{Float32Type, Float64Type};
use arrow_array::{Array as _, ArrayRef, RecordBatch};
use arrow_cast::display::array_value_to_string;
use arrow_schema::DataType;

/// For each column, the size of its usual numbers. A number near zero that comes of larger ones
/// cancelling out is compared with these: its own size is only what rounding left.
#[derive(Debug, Clone)]
pub(crate) struct Scale(Vec<f64>);

/// How far apart two outputs are, where they differ most.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Apart {
    /// Relative difference: 0 when all bits are equal, infinite when it is not one of numbers.
    pub(crate) distance: f64,
    /// Column and row.
    pub(crate) place: (usize, usize),
}

/// How `given` differs from `expected`, or `None`.
///
/// Values are compared bit for bit, floats within the relative `tolerance` if it is not 0. Missing
/// values equal each other, and so do NaNs.
#[must_use]
pub fn difference(expected: &RecordBatch, given: &RecordBatch, tolerance: f64) -> Option<String> {
    unlike(expected, given).or_else(|| {
        let apart = apart(expected, given, &Scale::of(expected));
        (apart.distance > tolerance).then(|| told(expected, given, apart.place))
    })
}

/// How the two differ in rows, columns or types.
pub(crate) fn unlike(expected: &RecordBatch, given: &RecordBatch) -> Option<String> {
    let (rows, columns) = (expected.num_rows(), expected.num_columns());
    if (rows, columns) != (given.num_rows(), given.num_columns()) {
        return Some(format!(
            "{} rows of {} columns instead of {rows} of {columns}",
            given.num_rows(),
            given.num_columns()
        ));
    }
    let schema = expected.schema();
    let types = schema.fields().iter().zip(given.columns());
    types
        .filter(|(field, given)| field.data_type() != given.data_type())
        .map(|(field, given)| {
            let (name, wanted) = (field.name(), field.data_type());
            format!(
                "column `{name}` is {} instead of {wanted}",
                given.data_type()
            )
        })
        .next()
}

/// How far apart the values of two outputs are that are not [`unlike`] each other.
pub(crate) fn apart(expected: &RecordBatch, given: &RecordBatch, scale: &Scale) -> Apart {
    let mut worst = Apart {
        distance: 0.0,
        place: (0, 0),
    };
    let pairs = expected.columns().iter().zip(given.columns());
    for (index, ((expected, given), scale)) in pairs.zip(&scale.0).enumerate() {
        let (distance, row) = farthest(expected, given, *scale);
        if distance > worst.distance {
            worst = Apart {
                distance,
                place: (index, row),
            };
        }
    }
    worst
}

/// The values in one place, in words.
pub(crate) fn told(expected: &RecordBatch, given: &RecordBatch, place: (usize, usize)) -> String {
    let (column, row) = place;
    let schema = expected.schema();
    let name = schema.fields().get(column).map_or("", |field| field.name());
    let show = |rows: &RecordBatch| {
        let text = array_value_to_string(rows.column(column), row);
        let text = text.unwrap_or_else(|_| "another value".to_owned());
        let text = if rows.column(column).is_null(row) {
            "nothing".to_owned()
        } else {
            text
        };
        text.chars().take(80).collect::<String>()
    };
    format!(
        "column `{name}`, row {row}: {} instead of {}",
        show(given),
        show(expected)
    )
}

impl Scale {
    pub(crate) fn of(rows: &RecordBatch) -> Self {
        Self(rows.columns().iter().map(usual_size).collect())
    }
}

/// The median size of a column's numbers.
fn usual_size(column: &ArrayRef) -> f64 {
    let mut sizes = numbers(column);
    sizes.retain(|size| size.is_finite());
    if sizes.is_empty() {
        return 0.0;
    }
    let middle = sizes.len() / 2;
    *sizes.select_nth_unstable_by(middle, f64::total_cmp).1
}

fn numbers(column: &ArrayRef) -> Vec<f64> {
    if let Some(values) = column.as_primitive_opt::<Float64Type>() {
        return values.iter().flatten().map(f64::abs).collect();
    }
    if let Some(values) = column.as_primitive_opt::<Float32Type>() {
        return values
            .iter()
            .flatten()
            .map(|value| f64::from(value).abs())
            .collect();
    }
    column
        .as_list_opt::<i32>()
        .map_or_else(Vec::new, |lists| numbers(lists.values()))
}

/// The largest distance of two columns of one type and length, and its row.
fn farthest(expected: &ArrayRef, given: &ArrayRef, scale: f64) -> (f64, usize) {
    if expected.to_data() == given.to_data() {
        return (0.0, 0);
    }
    let mut worst = (0.0, 0);
    for row in 0..expected.len() {
        let distance = distance(expected, given, row, scale);
        if distance > worst.0 {
            worst = (distance, row);
        }
    }
    worst
}

/// How far apart two columns of one type are in a row.
fn distance(expected: &ArrayRef, given: &ArrayRef, row: usize, scale: f64) -> f64 {
    if expected.is_null(row) || given.is_null(row) {
        return otherwise(expected.is_null(row) == given.is_null(row));
    }
    if *expected.data_type() == DataType::Float64 {
        let value = |column: &ArrayRef| column.as_primitive::<Float64Type>().value(row);
        return of_floats(value(expected), value(given), scale);
    }
    if *expected.data_type() == DataType::Float32 {
        let value = |column: &ArrayRef| column.as_primitive::<Float32Type>().value(row);
        return of_floats(value(expected).into(), value(given).into(), scale);
    }
    if let (Some(one), Some(other)) = (expected.as_list_opt::<i32>(), given.as_list_opt::<i32>()) {
        let (one, other) = (one.value(row), other.value(row));
        return if one.len() == other.len() {
            farthest(&one, &other, scale).0
        } else {
            f64::INFINITY
        };
    }
    otherwise(expected.slice(row, 1).to_data() == given.slice(row, 1).to_data())
}

fn otherwise(equal: bool) -> f64 {
    if equal { 0.0 } else { f64::INFINITY }
}

fn of_floats(one: f64, other: f64, scale: f64) -> f64 {
    if one.to_bits() == other.to_bits() || (one.is_nan() && other.is_nan()) {
        return 0.0;
    }
    if !(one.is_finite() && other.is_finite()) {
        return f64::INFINITY;
    }
    let size = one.abs().max(other.abs()).max(scale);
    // Zeros of different sign are not the same bits.
    ((one - other).abs() / size).max(f64::MIN_POSITIVE)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow_array::types::Int32Type;
    use arrow_array::{Float64Array, ListArray, StringArray};

    use super::*;

    fn column(column: impl arrow_array::Array + 'static) -> RecordBatch {
        RecordBatch::try_from_iter([("y", Arc::new(column) as ArrayRef)]).unwrap()
    }

    fn floats(values: &[Option<f64>]) -> RecordBatch {
        column(Float64Array::from(values.to_vec()))
    }

    #[test]
    fn bits_count_unless_there_is_a_tolerance() {
        let (one, other) = (floats(&[Some(0.3), None]), floats(&[Some(0.1 + 0.2), None]));
        let told = "column `y`, row 0: 0.30000000000000004 instead of 0.3";
        assert_eq!(difference(&one, &other, 0.0).as_deref(), Some(told));
        assert_eq!(difference(&one, &other, 1e-6), None);
        assert!(difference(&floats(&[Some(0.0)]), &floats(&[Some(-0.0)]), 0.0).is_some());
        assert_eq!(
            difference(&floats(&[Some(f64::NAN)]), &floats(&[Some(f64::NAN)]), 0.0),
            None
        );
    }

    #[test]
    fn what_cancels_out_is_compared_with_what_it_came_from() {
        let expected = floats(&[Some(0.0), Some(2.0), Some(3.0)]);
        let given = floats(&[Some(1e-16), Some(2.0), Some(3.0)]);
        assert_eq!(difference(&expected, &given, 1e-12), None);
        let (alone, other) = (floats(&[Some(0.0)]), floats(&[Some(1e-16)]));
        assert!(difference(&alone, &other, 1e-12).is_some());
    }

    #[test]
    fn missing_values_types_and_shapes_count() {
        let one = floats(&[Some(1.0)]);
        assert!(difference(&one, &floats(&[None]), 1.0).is_some());
        assert!(difference(&one, &floats(&[Some(f64::INFINITY)]), 1.0).is_some());
        assert!(difference(&one, &floats(&[Some(1.0), None]), 1.0).is_some());
        let told = difference(&one, &column(StringArray::from(vec!["1.0"])), 1.0);
        assert_eq!(
            told.as_deref(),
            Some("column `y` is Utf8 instead of Float64")
        );
    }

    #[test]
    fn lists_are_compared_item_by_item() {
        let list = |items: &[i32]| {
            let items: Vec<_> = items.iter().copied().map(Some).collect();
            column(ListArray::from_iter_primitive::<Int32Type, _, _>([Some(
                items,
            )]))
        };
        assert_eq!(difference(&list(&[1, 2]), &list(&[1, 2]), 0.0), None);
        assert!(difference(&list(&[1, 2]), &list(&[1, 3]), 0.0).is_some());
        assert!(difference(&list(&[1, 2]), &list(&[1]), 0.0).is_some());
    }
}
