//! How far apart two outputs for the same rows are.

use arrow_array::cast::AsArray as _;
use arrow_array::types::Float64Type;
use arrow_array::{
    Array as _, ArrayRef, FixedSizeListArray, Float64Array, ListArray, RecordBatch, StructArray,
};
use arrow_cast::cast;
use arrow_cast::display::array_value_to_string;
use arrow_schema::DataType;

/// For each column, the size of its usual numbers.
#[derive(Debug, Clone)]
pub(crate) struct Scale(Vec<Size>);

/// The size of a column's usual numbers. Where larger numbers cancel out, rounding leaves a
/// difference that is small beside these, and not beside the number near zero that came of it.
#[derive(Debug, Clone)]
struct Size {
    usual: f64,
    /// What rounding may leave, as a part of `usual`. It is far below any tolerance: rows of another
    /// kind, with larger numbers, must not hide what happens to small ones.
    rounding: f64,
    /// Of the fields of a struct.
    fields: Vec<Self>,
}

/// What rounding leaves of numbers that cancel out, as a part of their size.
const ROUNDING: f64 = 1e-12;
const ROUNDING_OF_32_BITS: f64 = 1e-6;

/// Columns of one matrix that are smaller than its largest by more than this are what rounding left
/// of it: the smallest of many probabilities.
const SMALLEST_OF_MATRIX: f64 = 1e-3;

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
        let (distance, row) = farthest(expected, given, scale);
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
        Self(rows.columns().iter().map(Size::of).collect())
    }

    /// Of columns that are numbers of one kind: the probabilities of classes, the parts of a vector.
    pub(crate) fn of_matrix(rows: &RecordBatch) -> Self {
        let Self(mut sizes) = Self::of(rows);
        let largest = sizes.iter().map(|size| size.usual).fold(0.0, f64::max);
        for size in &mut sizes {
            size.usual = size.usual.max(largest * SMALLEST_OF_MATRIX);
        }
        Self(sizes)
    }
}

impl Size {
    fn of(column: &ArrayRef) -> Self {
        if let Some(items) = items(column) {
            return Self::of(&items);
        }
        let fields = column.as_struct_opt().map_or(&[][..], StructArray::columns);
        Self {
            usual: usual_size(column),
            rounding: if is_narrow(column) {
                ROUNDING_OF_32_BITS
            } else {
                ROUNDING
            },
            fields: fields.iter().map(Self::of).collect(),
        }
    }
}

/// Whether there are floats in it that were computed with 32 bits or fewer, of whatever type they
/// are now.
#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "of the others, none are floats"
)]
pub(crate) fn is_narrow(column: &ArrayRef) -> bool {
    if let Some(items) = items(column) {
        return is_narrow(&items);
    }
    if let Some(rows) = column.as_struct_opt() {
        return rows.columns().iter().any(is_narrow);
    }
    match column.data_type() {
        DataType::Float16 | DataType::Float32 => true,
        DataType::Float64 => has_32_bits(column.as_primitive()),
        _ => false,
    }
}

/// Whether all numbers are ones of 32 bits, and most of them need so many.
#[expect(clippy::cast_possible_truncation, reason = "that is the question")]
fn has_32_bits(numbers: &Float64Array) -> bool {
    let finite = || numbers.iter().flatten().filter(|value| value.is_finite());
    let narrow = finite().all(|value| f64::from(value as f32).to_bits() == value.to_bits());
    let needed = finite().filter(|value| (*value as f32).to_bits() & 0xff != 0);
    narrow && needed.count() * 2 > finite().count()
}

/// The items of all lists of a column of lists.
fn items(column: &ArrayRef) -> Option<ArrayRef> {
    let lists = column.as_list_opt::<i32>().map(ListArray::values);
    let fixed = || {
        let lists = column.as_fixed_size_list_opt();
        lists.map(FixedSizeListArray::values)
    };
    lists.or_else(fixed).cloned()
}

/// The median size of a column's numbers.
fn usual_size(column: &ArrayRef) -> f64 {
    let Some(numbers) = numbers(column) else {
        return 0.0;
    };
    let sizes = numbers.iter().flatten().map(f64::abs);
    let mut sizes: Vec<f64> = sizes.filter(|size| size.is_finite()).collect();
    if sizes.is_empty() {
        return 0.0;
    }
    let middle = sizes.len() / 2;
    *sizes.select_nth_unstable_by(middle, f64::total_cmp).1
}

fn numbers(column: &ArrayRef) -> Option<Float64Array> {
    if !column.data_type().is_floating() {
        return None;
    }
    let wide = cast(column, &DataType::Float64).ok()?;
    Some(wide.as_primitive::<Float64Type>().clone())
}

/// The largest distance of two columns of one type and length, and its row.
fn farthest(expected: &ArrayRef, given: &ArrayRef, size: &Size) -> (f64, usize) {
    if expected.to_data() == given.to_data() {
        return (0.0, 0);
    }
    if let (Some(one), Some(other)) = (numbers(expected), numbers(given)) {
        return farthest_row(expected, |row| {
            match (value(&one, row), value(&other, row)) {
                (Some(one), Some(other)) => of_floats(one, other, size),
                (one, other) => otherwise(one.is_none() == other.is_none()),
            }
        });
    }
    farthest_row(expected, |row| distance(expected, given, row, size))
}

fn value(numbers: &Float64Array, row: usize) -> Option<f64> {
    numbers.is_valid(row).then(|| numbers.value(row))
}

fn farthest_row(expected: &ArrayRef, distance: impl Fn(usize) -> f64) -> (f64, usize) {
    let mut worst = (0.0, 0);
    for row in 0..expected.len() {
        let distance = distance(row);
        if distance > worst.0 {
            worst = (distance, row);
        }
    }
    worst
}

/// How far apart two columns of one type, which is not one of numbers, are in a row.
fn distance(expected: &ArrayRef, given: &ArrayRef, row: usize, size: &Size) -> f64 {
    if expected.is_null(row) || given.is_null(row) {
        return otherwise(expected.is_null(row) == given.is_null(row));
    }
    let (one, other) = (expected.slice(row, 1), given.slice(row, 1));
    if let (Some(one), Some(other)) = (list(&one), list(&other)) {
        return if one.len() == other.len() {
            farthest(&one, &other, size).0
        } else {
            f64::INFINITY
        };
    }
    if let (Some(one), Some(other)) = (one.as_struct_opt(), other.as_struct_opt()) {
        let pairs = one.columns().iter().zip(other.columns()).zip(&size.fields);
        let distances = pairs.map(|((one, other), size)| farthest(one, other, size).0);
        return distances.fold(0.0, f64::max);
    }
    otherwise(one.to_data() == other.to_data())
}

/// The only list of a column of one row.
fn list(row: &ArrayRef) -> Option<ArrayRef> {
    let fixed = || row.as_fixed_size_list_opt().map(|lists| lists.value(0));
    let list = row.as_list_opt::<i32>().map(|lists| lists.value(0));
    list.or_else(fixed)
}

fn otherwise(equal: bool) -> f64 {
    if equal { 0.0 } else { f64::INFINITY }
}

fn of_floats(one: f64, other: f64, size: &Size) -> f64 {
    if one.to_bits() == other.to_bits() || (one.is_nan() && other.is_nan()) {
        return 0.0;
    }
    if !(one.is_finite() && other.is_finite()) {
        return f64::INFINITY;
    }
    let (apart, own) = ((one - other).abs(), one.abs().max(other.abs()));
    let beside = if apart <= size.usual * size.rounding {
        own.max(size.usual)
    } else {
        own
    };
    // Zeros of different sign are not the same bits.
    (apart / beside).max(f64::MIN_POSITIVE)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow_array::types::Float32Type;
    use arrow_array::types::Int32Type;
    use arrow_array::{Float32Array, StringArray};

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
    fn numbers_of_32_bits_are_known_in_any_type() {
        let numbers = |make: fn(f32) -> f64| {
            let values = (1_u8..50).map(|value| make(f32::from(value) / 7.0));
            Arc::new(Float64Array::from_iter_values(values)) as ArrayRef
        };
        assert!(is_narrow(&numbers(f64::from)));
        assert!(!is_narrow(&numbers(|value| f64::from(value) / 3.0)));
        assert!(!is_narrow(&numbers(|value| f64::from(value.trunc()))));
    }

    #[test]
    fn large_numbers_in_other_rows_hide_nothing() {
        let rows = |small: f64| floats(&[Some(small), Some(1e6), Some(1e6)]);
        assert!(difference(&rows(7.737), &rows(7.799), 1e-6).is_some());
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

    #[test]
    fn floats_within_others_have_a_tolerance_too() {
        let fixed = |value: f32| {
            let items = [Some([Some(1.0), Some(value)])];
            column(FixedSizeListArray::from_iter_primitive::<Float32Type, _, _>(items, 2))
        };
        let nested = |value: f32| {
            let lists = fixed(value).column(0).clone();
            column(StructArray::try_from(vec![("vector", lists)]).unwrap())
        };
        for make in [&fixed as &dyn Fn(f32) -> RecordBatch, &nested] {
            assert_eq!(difference(&make(2.0), &make(2.000_001), 1e-5), None);
            assert!(difference(&make(2.0), &make(2.000_001), 0.0).is_some());
            assert!(difference(&make(2.0), &make(2.1), 1e-5).is_some());
        }
    }

    #[test]
    fn the_smallest_of_many_probabilities_is_compared_with_the_largest() {
        let rows = |small: f32| {
            RecordBatch::try_from_iter([0.9, small].map(|value| {
                let column: ArrayRef = Arc::new(Float32Array::from(vec![value]));
                (if value > 0.5 { "p0" } else { "p1" }, column)
            }))
            .unwrap()
        };
        let (one, other) = (rows(3.55e-9), rows(3.56e-9));
        assert!(apart(&one, &other, &Scale::of(&one)).distance > 1e-3);
        assert!(apart(&one, &other, &Scale::of_matrix(&one)).distance < 1e-5);
    }
}
