//! What the log of a Delta table says about a file, so that readers can skip it.

use std::sync::Arc;

use arrow_array::cast::AsArray as _;
use arrow_array::types::TimestampMicrosecondType;
use arrow_array::{Array as _, ArrayRef, RecordBatch, TimestampMicrosecondArray};
use arrow_cast::display::{ArrayFormatter, FormatOptions};
use arrow_schema::{DataType, Field, FieldRef, Schema, TimeUnit};
use datafusion::error::Result;
use datafusion::functions_aggregate::min_max::{MaxAccumulator, MinAccumulator};
use datafusion::logical_expr::Accumulator as _;
use datafusion::scalar::ScalarValue;
use serde_json::{Map, Value, json};

/// Columns that Delta tables have statistics for, unless they say otherwise.
const INDEXED_COLUMNS: usize = 32;

/// Longer texts are not worth their place in a log that every reader reads.
const LONGEST_TEXT_BYTES: usize = 256;

/// Minima, maxima and null counts of the rows so far.
#[derive(Debug)]
pub(crate) struct Statistics {
    rows: usize,
    columns: Vec<Column>,
}

#[derive(Debug)]
struct Column {
    position: usize,
    name: String,
    nulls: usize,
    range: Option<(MinAccumulator, MaxAccumulator)>,
}

impl Statistics {
    pub(crate) fn new(schema: &Schema) -> Result<Self> {
        // The log counts within structs, and not at all within lists: neither is worth it here.
        let plain = |(_, field): &(usize, &FieldRef)| !field.data_type().is_nested();
        let indexed = schema
            .fields()
            .iter()
            .enumerate()
            .take(INDEXED_COLUMNS)
            .filter(plain);
        let columns = indexed.map(|(position, field)| Column::new(position, field));
        Ok(Self {
            rows: 0,
            columns: columns.collect::<Result<_>>()?,
        })
    }

    pub(crate) fn add(&mut self, batch: &RecordBatch) -> Result<()> {
        self.rows += batch.num_rows();
        self.columns
            .iter_mut()
            .try_for_each(|column| column.add(batch.column(column.position)))
    }

    /// As the log has it, in JSON.
    pub(crate) fn finish(self) -> Result<String> {
        let (mut minima, mut maxima, mut nulls) = (Map::new(), Map::new(), Map::new());
        for Column {
            name,
            nulls: count,
            range,
            ..
        } in self.columns
        {
            nulls.insert(name.clone(), json!(count));
            if let Some((mut least, mut most)) = range
                // Half a range would be right, too, but not all readers take one.
                && let (Some(least), Some(most)) = (value(&least.evaluate()?, false)?, value(&most.evaluate()?, true)?)
            {
                minima.insert(name.clone(), least);
                maxima.insert(name, most);
            }
        }
        let statistics = json!({ "numRecords": self.rows, "minValues": minima, "maxValues": maxima, "nullCount": nulls });
        Ok(statistics.to_string())
    }
}

impl Column {
    fn new(position: usize, field: &Field) -> Result<Self> {
        let data_type = field.data_type();
        let range = match has_range(data_type) {
            true => Some((
                MinAccumulator::try_new(data_type)?,
                MaxAccumulator::try_new(data_type)?,
            )),
            false => None,
        };
        Ok(Self {
            position,
            name: field.name().clone(),
            nulls: 0,
            range,
        })
    }

    fn add(&mut self, values: &ArrayRef) -> Result<()> {
        self.nulls += values.null_count();
        if let Some((least, most)) = &mut self.range {
            least.update_batch(std::slice::from_ref(values))?;
            most.update_batch(std::slice::from_ref(values))?;
        }
        Ok(())
    }
}

fn has_range(data_type: &DataType) -> bool {
    data_type.is_integer()
        || data_type.is_floating()
        || matches!(
            data_type,
            DataType::Utf8 | DataType::Date32 | DataType::Timestamp(TimeUnit::Microsecond, _)
        )
}

/// A bound as the log writes it, or nothing if it cannot.
fn value(bound: &ScalarValue, is_maximum: bool) -> Result<Option<Value>> {
    if bound.is_null() {
        return Ok(None);
    }
    let array = bound.to_array()?;
    if let Some(text) = array.as_string_opt::<i32>() {
        let text = text.value(0);
        return Ok((text.len() <= LONGEST_TEXT_BYTES).then(|| Value::from(text)));
    }
    if array.data_type().is_numeric() {
        return number(&array);
    }
    if let Some(moments) = array.as_primitive_opt::<TimestampMicrosecondType>() {
        return Ok(Some(Value::from(moment(moments, is_maximum)?)));
    }
    Ok(Some(Value::from(written(&array)?)))
}

/// NaN sorts last here, so a column with one has no maximum; and JSON has no infinity.
fn number(array: &ArrayRef) -> Result<Option<Value>> {
    Ok(serde_json::from_str(&written(array)?).ok())
}

/// The log has thousandths of a second; a range must not become narrower by that.
fn moment(moments: &TimestampMicrosecondArray, is_maximum: bool) -> Result<String> {
    let rounded = moments.unary::<_, TimestampMicrosecondType>(|moment| {
        let up = if is_maximum { 999 } else { 0 };
        moment.saturating_add(up).div_euclid(1000) * 1000
    });
    let zone = moments.timezone().map(Arc::from);
    written(&(Arc::new(rounded.with_timezone_opt(zone)) as ArrayRef))
}

fn written(array: &ArrayRef) -> Result<String> {
    let format = FormatOptions::new()
        .with_date_format(Some("%Y-%m-%d"))
        .with_timestamp_format(Some("%Y-%m-%d %H:%M:%S%.3f"))
        .with_timestamp_tz_format(Some("%Y-%m-%dT%H:%M:%S%.3fZ"));
    Ok(ArrayFormatter::try_new(array, &format)?
        .value(0)
        .try_to_string()?)
}

#[cfg(test)]
mod tests {
    use arrow_array::{Float64Array, Int64Array, StringArray};

    use super::*;
    use crate::fake::schema_of;

    fn of(name: &str, nullable: bool, column: ArrayRef) -> Value {
        let schema = schema_of(&[(name, column.data_type().clone(), nullable)]);
        let mut statistics = Statistics::new(&schema).unwrap();
        statistics
            .add(&RecordBatch::try_new(schema, vec![column]).unwrap())
            .unwrap();
        serde_json::from_str(&statistics.finish().unwrap()).unwrap()
    }

    #[test]
    fn ranges_and_null_counts_are_those_of_the_rows() {
        assert_eq!(
            of(
                "n",
                true,
                Arc::new(Int64Array::from(vec![Some(3), None, Some(i64::MIN)]))
            ),
            json!({ "numRecords": 3, "minValues": {"n": i64::MIN}, "maxValues": {"n": 3}, "nullCount": {"n": 1} })
        );
        assert_eq!(
            of("t", false, Arc::new(StringArray::from(vec!["b", "a"]))),
            json!({ "numRecords": 2, "minValues": {"t": "a"}, "maxValues": {"t": "b"}, "nullCount": {"t": 0} })
        );
    }

    #[test]
    fn a_column_with_nan_has_no_range() {
        let statistics = of(
            "x",
            false,
            Arc::new(Float64Array::from(vec![1.0, f64::NAN])),
        );
        assert_eq!(statistics["maxValues"], json!({}));
        assert_eq!(statistics["minValues"], json!({}));
    }

    #[test]
    fn moments_are_rounded_outwards() {
        let moments = TimestampMicrosecondArray::from(vec![1_001, 2_001]).with_timezone("UTC");
        let statistics = of("at", false, Arc::new(moments));
        assert_eq!(statistics["minValues"]["at"], "1970-01-01T00:00:00.001Z");
        assert_eq!(statistics["maxValues"]["at"], "1970-01-01T00:00:00.003Z");
    }
}
