//! Statistics of Arrow rows.
//!
//! Columns are cut into segments, which are learned side by side, and these into chunks that fit
//! the processor's cache. The cuts do not depend on the number of threads, and segments are merged
//! in their order, so the same rows give the same bytes everywhere. Of a column no more than a
//! chunk is ever copied.

use arrow_array::cast::AsArray as _;
use arrow_array::types::{
    ArrowPrimitiveType, Date32Type, Decimal128Type, Float16Type, Float32Type, Float64Type,
    Int8Type, Int16Type, Int32Type, Int64Type, Time32MillisecondType, Time32SecondType, UInt8Type,
    UInt16Type, UInt32Type, UInt64Type,
};
use arrow_array::{Array, ArrayRef, Int64Array, RecordBatch};
use arrow_schema as arrow;
use envelope_format::statistics::{
    BooleanStatistics, CHUNK_ROWS, Chunk, ColumnStatistics, ColumnSummary, InvalidStatistics,
    TableStatistics,
};
use rayon::prelude::*;

use crate::schema::signature_type;

/// Rows of one segment: enough work for a thread, and few enough summaries to merge.
const SEGMENT_ROWS: usize = CHUNK_ROWS * 32;

/// Statistics of every column.
///
/// # Errors
/// [`InvalidStatistics::Merge`] for a column of a type that signatures do not have.
pub fn statistics(rows: &RecordBatch) -> Result<TableStatistics, InvalidStatistics> {
    let schema = rows.schema();
    let columns: Vec<_> = schema.fields().iter().zip(rows.columns()).collect();
    let columns = columns
        .into_par_iter()
        .map(|(field, column)| describe(field.name(), column))
        .collect::<Result<Vec<_>, _>>()?;
    Ok(TableStatistics {
        rows: rows.num_rows() as u64,
        columns,
    })
}

fn describe(name: &str, column: &ArrayRef) -> Result<ColumnStatistics, InvalidStatistics> {
    let data_type = signature_type(column.data_type()).ok_or_else(|| unknown(name, column))?;
    let new = || ColumnSummary::new(name, data_type.clone());
    let segments: Vec<_> = (0..column.len())
        .step_by(SEGMENT_ROWS)
        .collect::<Vec<_>>()
        .into_par_iter()
        .map(|start| {
            let mut summary = new();
            learn(&mut summary, &part(column, start, SEGMENT_ROWS))?;
            Ok(summary)
        })
        .collect::<Result<_, InvalidStatistics>>()?;
    let mut all = new();
    for segment in segments {
        all.merge(segment)?;
    }
    Ok(all.finish())
}

fn unknown(name: &str, column: &ArrayRef) -> InvalidStatistics {
    InvalidStatistics::Merge {
        column: name.to_owned(),
        reason: format!("{} is not a type of a signature", column.data_type()),
    }
}

/// At most `length` rows from `start` on.
fn part(column: &dyn Array, start: usize, length: usize) -> ArrayRef {
    column.slice(start, length.min(column.len() - start))
}

fn learn(summary: &mut ColumnSummary, column: &ArrayRef) -> Result<(), InvalidStatistics> {
    for start in (0..column.len()).step_by(CHUNK_ROWS) {
        chunk(summary, &part(column, start, CHUNK_ROWS))?;
    }
    Ok(())
}

#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "of other types, values are only counted"
)]
fn chunk(summary: &mut ColumnSummary, column: &ArrayRef) -> Result<(), InvalidStatistics> {
    use arrow::DataType as Type;
    let nulls = column.null_count();
    let mut integers = |values: Vec<i64>| summary.add(nulls, &Chunk::Integers(&values));
    match column.data_type() {
        Type::Int8 => integers(present::<Int8Type, _>(column)),
        Type::Int16 => integers(present::<Int16Type, _>(column)),
        Type::Int32 => integers(present::<Int32Type, _>(column)),
        Type::Date32 => integers(present::<Date32Type, _>(column)),
        Type::Int64 => integers(present::<Int64Type, _>(column)),
        Type::Time32(arrow::TimeUnit::Second) => integers(present::<Time32SecondType, _>(column)),
        Type::Time32(_) => integers(present::<Time32MillisecondType, _>(column)),
        Type::Time64(_) | Type::Timestamp(..) | Type::Duration(_) => {
            integers(present::<Int64Type, _>(&counted(column)?))
        }
        Type::UInt8 => unsigned(summary, nulls, &present::<UInt8Type, _>(column)),
        Type::UInt16 => unsigned(summary, nulls, &present::<UInt16Type, _>(column)),
        Type::UInt32 => unsigned(summary, nulls, &present::<UInt32Type, _>(column)),
        Type::UInt64 => unsigned(summary, nulls, &present::<UInt64Type, _>(column)),
        Type::Float16 => floats(summary, nulls, &present::<Float16Type, _>(column)),
        Type::Float32 => floats(summary, nulls, &present::<Float32Type, _>(column)),
        Type::Float64 => floats(summary, nulls, &present::<Float64Type, _>(column)),
        Type::Decimal128(_, scale) => floats(summary, nulls, &decimals(column, *scale)),
        Type::Boolean => summary.add(nulls, &booleans(column)),
        Type::Utf8 => {
            let texts: Vec<_> = column.as_string::<i32>().iter().flatten().collect();
            summary.add(nulls, &Chunk::Texts(&texts))
        }
        Type::Binary => {
            let bytes: Vec<_> = column.as_binary::<i32>().iter().flatten().collect();
            summary.add(nulls, &Chunk::Bytes(&bytes))
        }
        Type::List(_) => summary.add(nulls, &Chunk::Lengths(&list_lengths(column))),
        Type::Null => {
            summary.add_nulls(column.len());
            Ok(())
        }
        _ => summary.add(nulls, &Chunk::Counted(column.len() - nulls)),
    }
}

fn unsigned(
    summary: &mut ColumnSummary,
    nulls: usize,
    values: &[u64],
) -> Result<(), InvalidStatistics> {
    summary.add(nulls, &Chunk::Unsigned(values))
}

fn floats(
    summary: &mut ColumnSummary,
    nulls: usize,
    values: &[f64],
) -> Result<(), InvalidStatistics> {
    summary.add(nulls, &Chunk::Floats(values))
}

/// The values that are there.
fn present<T, V>(column: &dyn Array) -> Vec<V>
where
    T: ArrowPrimitiveType,
    V: From<T::Native>,
{
    let values = column.as_primitive::<T>();
    if values.null_count() == 0 {
        return values
            .values()
            .iter()
            .map(|value| V::from(*value))
            .collect();
    }
    values.iter().flatten().map(V::from).collect()
}

/// Times as what they count: the same buffer under another type.
fn counted(column: &ArrayRef) -> Result<Int64Array, InvalidStatistics> {
    let data = column.to_data().into_builder();
    let data = data.data_type(arrow::DataType::Int64).build();
    data.map(Int64Array::from).map_err(|_| unknown("*", column))
}

/// The nearest floating point numbers.
#[expect(clippy::cast_precision_loss, reason = "that is what is asked for")]
fn decimals(column: &dyn Array, scale: i8) -> Vec<f64> {
    let unit = 10f64.powi(scale.into());
    let values = column.as_primitive::<Decimal128Type>();
    values
        .iter()
        .flatten()
        .map(|digits| digits as f64 / unit)
        .collect()
}

fn booleans(column: &ArrayRef) -> Chunk<'static> {
    let values = column.as_boolean();
    let trues = values.true_count() as u64;
    Chunk::Booleans(BooleanStatistics {
        falses: (values.len() - values.null_count()) as u64 - trues,
        trues,
    })
}

fn list_lengths(column: &ArrayRef) -> Vec<i64> {
    let lists = column.as_list::<i32>();
    (0..lists.len())
        .filter(|row| lists.is_valid(*row))
        .map(|row| lists.value_length(row).into())
        .collect()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow_array::{
        Decimal128Array, Float64Array, ListArray, StringArray, TimestampNanosecondArray,
    };
    use envelope_format::statistics::Value;

    use super::*;

    fn rows(columns: Vec<(&str, ArrayRef)>) -> RecordBatch {
        RecordBatch::try_from_iter(columns).unwrap()
    }

    fn only(column: ArrayRef) -> ColumnStatistics {
        let found = statistics(&rows(vec![("x", column)])).unwrap();
        found.columns.into_iter().next().unwrap()
    }

    #[test]
    fn missing_values_are_not_nan() {
        let column = only(Arc::new(Float64Array::from(vec![
            Some(1.0),
            None,
            Some(f64::NAN),
            Some(-0.0),
        ])));
        let numbers = column.numbers.unwrap();
        assert_eq!((column.count, column.nulls, numbers.nans), (4, 1, 1));
        assert_eq!((numbers.zeros, numbers.min), (1, Some(Value::Float(0.0))));
    }

    #[test]
    fn times_keep_every_bit() {
        let moment = 1_700_000_000_000_000_001;
        let column: TimestampNanosecondArray = vec![moment, moment + 1].into();
        let numbers = only(Arc::new(column.with_timezone("UTC"))).numbers.unwrap();
        assert_eq!(numbers.min, Some(Value::Integer(moment)));
        assert_eq!(numbers.max, Some(Value::Integer(moment + 1)));
        assert_eq!(numbers.variance, Some(0.25));
    }

    #[test]
    fn decimals_are_the_numbers_they_are_written_as() {
        let prices = Decimal128Array::from(vec![Some(1250), None, Some(-25)]);
        let prices = prices.with_precision_and_scale(10, 2).unwrap();
        let numbers = only(Arc::new(prices)).numbers.unwrap();
        assert_eq!(numbers.max, Some(Value::Float(12.5)));
        assert_eq!(numbers.min, Some(Value::Float(-0.25)));
    }

    #[test]
    fn lists_have_lengths() {
        let items = vec![Some(vec![Some(1), None]), None, Some(vec![])];
        let lists = ListArray::from_iter_primitive::<Int64Type, _, _>(items);
        let lengths = only(Arc::new(lists)).lengths.unwrap();
        assert_eq!(lengths.max, Some(Value::Integer(2)));
        assert_eq!((lengths.mean, lengths.zeros), (Some(1.0), 1));
    }

    #[test]
    fn the_same_rows_give_the_same_bytes_on_any_number_of_threads() {
        let count = SEGMENT_ROWS + CHUNK_ROWS + 17;
        let mixed = |row: usize| row.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 20;
        #[expect(clippy::cast_precision_loss, reason = "any numbers will do")]
        let numbers = Float64Array::from_iter_values((0..count).map(|row| mixed(row) as f64));
        let texts = StringArray::from_iter_values((0..count).map(|row| mixed(row).to_string()));
        let rows = rows(vec![("x", Arc::new(numbers)), ("t", Arc::new(texts))]);
        let on = |threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build();
            let found = pool.unwrap().install(|| statistics(&rows)).unwrap();
            serde_json::to_string(&found).unwrap()
        };
        let alone = on(1);
        assert!(alone == on(3) && alone == on(2));
    }
}
