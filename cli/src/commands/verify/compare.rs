//! Whether an output is the one that was stored.

use arrow_array::cast::AsArray as _;
use arrow_array::types::{Float32Type, Float64Type};
use arrow_array::{Array as _, ArrayRef, RecordBatch};
use arrow_cast::display::array_value_to_string;

/// How `given` differs from `expected`, or `None`.
///
/// Values are compared bit for bit, floats within the relative `tolerance` if it is not 0. Missing
/// values equal each other, and so do NaNs.
pub(crate) fn difference(
    expected: &RecordBatch,
    given: &RecordBatch,
    tolerance: f64,
) -> Option<String> {
    let (rows, columns) = (expected.num_rows(), expected.num_columns());
    if (rows, columns) != (given.num_rows(), given.num_columns()) {
        return Some(format!(
            "{} rows of {} columns instead of {rows} of {columns}",
            given.num_rows(),
            given.num_columns()
        ));
    }
    let schema = expected.schema();
    let pairs = expected.columns().iter().zip(given.columns());
    pairs
        .zip(schema.fields())
        .find_map(|((expected, given), field)| {
            let name = field.name();
            if expected.data_type() != given.data_type() {
                return Some(format!(
                    "column `{name}` is {} instead of {}",
                    given.data_type(),
                    expected.data_type()
                ));
            }
            let row = first_difference(expected, given, tolerance)?;
            let show = |column| {
                array_value_to_string(column, row).unwrap_or_else(|_| "another value".to_owned())
            };
            Some(format!(
                "column `{name}`, row {row}: {} instead of {}",
                show(given),
                show(expected)
            ))
        })
}

fn first_difference(expected: &ArrayRef, given: &ArrayRef, tolerance: f64) -> Option<usize> {
    (0..expected.len()).find(|row| !same(expected, given, *row, tolerance))
}

/// Whether two columns of one type have the same value in a row.
fn same(expected: &ArrayRef, given: &ArrayRef, row: usize, tolerance: f64) -> bool {
    if expected.is_null(row) || given.is_null(row) {
        return expected.is_null(row) == given.is_null(row);
    }
    if let (Some(one), Some(other)) = (
        expected.as_primitive_opt::<Float64Type>(),
        given.as_primitive_opt::<Float64Type>(),
    ) {
        return same_float(one.value(row), other.value(row), tolerance);
    }
    if let (Some(one), Some(other)) = (
        expected.as_primitive_opt::<Float32Type>(),
        given.as_primitive_opt::<Float32Type>(),
    ) {
        return same_float(one.value(row).into(), other.value(row).into(), tolerance);
    }
    if let (Some(one), Some(other)) = (expected.as_list_opt::<i32>(), given.as_list_opt::<i32>()) {
        let (one, other) = (one.value(row), other.value(row));
        return one.len() == other.len() && first_difference(&one, &other, tolerance).is_none();
    }
    expected.slice(row, 1).to_data() == given.slice(row, 1).to_data()
}

fn same_float(one: f64, other: f64, tolerance: f64) -> bool {
    let near = (one - other).abs() <= tolerance * one.abs().max(other.abs());
    one.to_bits() == other.to_bits()
        || (one.is_nan() && other.is_nan())
        || (tolerance > 0.0 && near)
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
    fn missing_values_types_and_shapes_count() {
        let one = floats(&[Some(1.0)]);
        assert!(difference(&one, &floats(&[None]), 1.0).is_some());
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
