//! The folders that rows of the output go to: `date=2026-01-01/region=UK/`.
//!
//! What is written here is what `partitions` reads.

use std::collections::HashMap;
use std::sync::Arc;

use arrow_array::{Array as _, RecordBatch, UInt64Array};
use arrow_cast::display::{ArrayFormatter, FormatOptions};
use arrow_schema::{DataType, Schema, SchemaRef};
use arrow_select::take::take_record_batch;
use datafusion::arrow::row::{RowConverter, SortField};
use datafusion::error::Result as EngineResult;
use datafusion::scalar::ScalarValue;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use crate::Error;
use crate::partitions::MISSING;
use crate::schema::type_name;

/// What folders' names cannot hold, or what some reader takes for something else, is escaped.
const ESCAPED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'_')
    .remove(b'.')
    .remove(b'~')
    .remove(b'+');

/// No file system of ours takes longer names.
const LONGEST_NAME_BYTES: usize = 255;

/// Values of the partition columns as text, in the order of the columns; none where one is missing.
pub(crate) type Values = Vec<Option<String>>;

/// Which of the columns that are written are in the names of folders, and not in files.
#[derive(Debug, Clone)]
pub(crate) struct Layout {
    written: SchemaRef,
    /// Positions of the partition columns, outermost folder first.
    partition: Vec<usize>,
    /// Positions of the others.
    plain: Vec<usize>,
}

impl Layout {
    /// Refuses columns that rows cannot be shared out by.
    pub(crate) fn new(written: &SchemaRef, partition_by: &[String]) -> Result<Self, Error> {
        let mut partition: Vec<usize> = vec![];
        for name in partition_by {
            let refuse = |reason: String| Error::PartitionBy {
                column: name.clone(),
                reason,
            };
            let Some((position, field)) = written.column_with_name(name) else {
                return Err(refuse("the output has no such column".into()));
            };
            if partition.contains(&position) {
                return Err(refuse("it is named twice".into()));
            }
            if !holds(field.data_type()) {
                let found = type_name(field.data_type());
                return Err(refuse(format!(
                    "it is {found}; names of folders hold text, whole numbers, booleans and dates"
                )));
            }
            if name.starts_with(['_', '.']) {
                // Not all readers look into folders whose names begin so.
                return Err(refuse("its name begins with `_` or `.`".into()));
            }
            partition.push(position);
        }
        let plain: Vec<usize> = (0..written.fields().len())
            .filter(|position| !partition.contains(position))
            .collect();
        match partition_by.last() {
            Some(column) if plain.is_empty() => Err(Error::PartitionBy {
                column: column.clone(),
                reason: "no column would be left for the files".into(),
            }),
            _ => Ok(Self {
                written: Arc::clone(written),
                partition,
                plain,
            }),
        }
    }

    /// The partition columns, outermost folder first.
    pub(crate) fn columns(&self) -> Vec<String> {
        let name = |&column: &usize| self.written.field(column).name().clone();
        self.partition.iter().map(name).collect()
    }

    /// All columns of the table.
    pub(crate) fn written(&self) -> &SchemaRef {
        &self.written
    }

    /// Types of the partition columns.
    pub(crate) fn types(&self) -> impl Iterator<Item = &DataType> {
        let data_type = |&column: &usize| self.written.field(column).data_type();
        self.partition.iter().map(data_type)
    }

    /// Values of the partition columns, of their types.
    pub(crate) fn scalars(&self, values: &[Option<String>]) -> EngineResult<Vec<ScalarValue>> {
        let scalar = |(data_type, value): (&DataType, &Option<String>)| match value {
            Some(text) => ScalarValue::try_from_string(text.clone(), data_type),
            None => ScalarValue::try_new_null(data_type),
        };
        self.types().zip(values).map(scalar).collect()
    }

    /// Whether there are partition columns.
    pub(crate) fn is_partitioned(&self) -> bool {
        !self.partition.is_empty()
    }

    /// The columns that are in files.
    pub(crate) fn of_files(&self) -> SchemaRef {
        let field = |&column: &usize| Arc::clone(&self.written.fields()[column]);
        Arc::new(Schema::new(
            self.plain.iter().map(field).collect::<Vec<_>>(),
        ))
    }

    /// What the folder's name has for each value.
    pub(crate) fn texts(values: &[ScalarValue]) -> Values {
        let text = |value: &ScalarValue| (!value.is_null()).then(|| value.to_string());
        values.iter().map(text).collect()
    }

    /// The folder of rows with these values, with `/` at its end; empty if rows are not shared out.
    pub(crate) fn folder(&self, values: &[Option<String>]) -> Result<String, Error> {
        let mut path = String::new();
        for (column, value) in self.columns().iter().zip(values) {
            let folder = folder(column, value.as_deref())?;
            path.push_str(&folder);
            path.push('/');
        }
        Ok(path)
    }

    /// Shares rows out: those of each folder, without the columns that its name has.
    pub(crate) fn share_out(&self, rows: &RecordBatch) -> EngineResult<Vec<(Values, RecordBatch)>> {
        if !self.is_partitioned() {
            return Ok(vec![(vec![], rows.clone())]);
        }
        let of_files = rows.project(&self.plain)?;
        let shares = self.shares(rows)?.into_iter().map(|(values, positions)| {
            let positions = UInt64Array::from(positions);
            Ok((values, take_record_batch(&of_files, &positions)?))
        });
        shares.collect()
    }

    /// Which rows have which values, in the order in which values come.
    fn shares(&self, rows: &RecordBatch) -> EngineResult<Vec<(Values, Vec<u64>)>> {
        let columns = rows.project(&self.partition)?;
        let fields = columns.schema_ref().fields().iter();
        let fields = fields.map(|field| SortField::new(field.data_type().clone()));
        let values = RowConverter::new(fields.collect())?.convert_columns(columns.columns())?;
        let mut found: HashMap<&[u8], usize> = HashMap::new();
        let mut shares: Vec<(Values, Vec<u64>)> = vec![];
        for (position, value) in values.iter().enumerate() {
            let share = match found.get(value.data()) {
                Some(share) => *share,
                None => {
                    shares.push((texts(&columns, position)?, vec![]));
                    found.insert(value.data(), shares.len() - 1);
                    shares.len() - 1
                }
            };
            shares[share].1.push(position as u64);
        }
        Ok(shares)
    }
}

/// Whether text gives back every value of the type.
fn holds(data_type: &DataType) -> bool {
    matches!(
        data_type,
        DataType::Boolean
            | DataType::Int8
            | DataType::Int16
            | DataType::Int32
            | DataType::Int64
            | DataType::Utf8
            | DataType::Date32
    )
}

fn texts(columns: &RecordBatch, row: usize) -> EngineResult<Values> {
    let options = FormatOptions::default();
    let text = |column: &arrow_array::ArrayRef| {
        let formatter = ArrayFormatter::try_new(column, &options)?;
        Ok(column
            .is_valid(row)
            .then(|| formatter.value(row).to_string()))
    };
    columns.columns().iter().map(text).collect()
}

fn folder(column: &str, value: Option<&str>) -> Result<String, Error> {
    let refuse = |reason: String| Error::PartitionBy {
        column: column.to_owned(),
        reason,
    };
    let escaped = |text: &str| utf8_percent_encode(text, ESCAPED).to_string();
    let value = match value {
        None => MISSING.to_owned(),
        // Neither the log of a Delta table nor all readers of folders tell it from a missing one.
        Some("") => return Err(refuse("a row has the empty text in it".into())),
        Some(MISSING) => {
            return Err(refuse(format!(
                "a row has `{MISSING}` in it, which stands for a missing value"
            )));
        }
        Some(text) => escaped(text),
    };
    let name = format!("{}={value}", escaped(column));
    if name.len() > LONGEST_NAME_BYTES {
        return Err(refuse(
            "a row has a text in it that is too long for the name of a folder".into(),
        ));
    }
    Ok(name)
}

#[cfg(test)]
mod tests {
    use std::path::{Path, PathBuf};

    use arrow_array::{ArrayRef, Int64Array, StringArray};
    use arrow_schema::Fields;

    use super::*;
    use crate::fake::schema_of;
    use crate::partitions::Partitions;

    fn columns() -> SchemaRef {
        schema_of(&[
            ("id", DataType::Int64, true),
            ("country", DataType::Utf8, true),
            ("share", DataType::Float64, true),
            ("_day", DataType::Date32, true),
        ])
    }

    fn layout(partition_by: &[&str]) -> Result<Layout, Error> {
        let names: Vec<String> = partition_by.iter().map(|name| (*name).into()).collect();
        Layout::new(&columns(), &names)
    }

    #[test]
    fn columns_that_folders_cannot_hold_are_refused_by_name() {
        assert!(layout(&["country", "id"]).is_ok());
        for (partition_by, reason) in [
            (&["nowhere"][..], "no such column"),
            (&["country", "country"], "named twice"),
            (&["share"], "it is float64"),
            (&["_day"], "begins with `_`"),
        ] {
            let error = layout(partition_by).unwrap_err();
            assert!(error.to_string().contains(reason), "{error}");
        }
        let one = schema_of(&[("id", DataType::Int64, true)]);
        assert!(Layout::new(&one, &["id".into()]).is_err());
    }

    #[test]
    fn rows_are_shared_out_in_their_order_without_the_columns_of_folders() {
        let schema = schema_of(&[
            ("id", DataType::Int64, true),
            ("country", DataType::Utf8, true),
        ]);
        let ids: ArrayRef = Arc::new(Int64Array::from(vec![1, 2, 3, 4]));
        let countries: ArrayRef =
            Arc::new(StringArray::from(vec![Some("UK"), None, Some("UK"), None]));
        let rows = RecordBatch::try_new(Arc::clone(&schema), vec![ids, countries]).unwrap();
        let layout = Layout::new(&schema, &["country".into()]).unwrap();
        let shares = layout.share_out(&rows).unwrap();
        let told: Vec<_> = shares
            .iter()
            .map(|(values, rows)| (values[0].as_deref(), rows.num_rows(), rows.num_columns()))
            .collect();
        assert_eq!(told, [(Some("UK"), 2, 1), (None, 2, 1)]);
    }

    #[test]
    fn what_is_read_from_folders_is_what_was_written() {
        let schema = schema_of(&[
            ("p q=%", DataType::Utf8, true),
            ("x", DataType::Int64, true),
        ]);
        let layout = Layout::new(&schema, &["p q=%".into()]).unwrap();
        for text in [
            "UK", "a b", "a/b", "..", "50%", "%2F", "=", "ü€", "\u{0}", "a\\b:c*",
        ] {
            let folder = layout.folder(&[Some(text.into())]).unwrap();
            assert_eq!(folder.matches('/').count(), 1, "{folder}");
            let file: PathBuf = Path::new("/t").join(&folder).join("f");
            let read = Partitions::read(Path::new("/t"), &[file], &Fields::empty()).unwrap();
            assert_eq!(read.fields[0].name(), "p q=%");
            assert_eq!(read.values[0][0].to_string(), text);
        }
        let missing = layout.folder(&[None]).unwrap();
        let file = Path::new("/t").join(missing).join("f");
        let read = Partitions::read(Path::new("/t"), &[file], &Fields::empty()).unwrap();
        assert!(read.values[0][0].is_null());
    }

    #[test]
    fn text_gives_back_every_value() {
        let schema = schema_of(&[
            ("b", DataType::Boolean, true),
            ("i", DataType::Int16, true),
            ("d", DataType::Date32, true),
            ("t", DataType::Utf8, true),
            ("x", DataType::Int64, true),
        ]);
        let names = ["b", "i", "d", "t"].map(str::to_owned);
        let layout = Layout::new(&schema, &names).unwrap();
        let scalars = [
            ScalarValue::Boolean(Some(true)),
            ScalarValue::Int16(Some(-7)),
            ScalarValue::Date32(Some(-1)),
            ScalarValue::Utf8(None),
        ];
        let columns = scalars.iter().map(|scalar| scalar.to_array_of_size(1));
        let columns = columns.chain([ScalarValue::Int64(Some(1)).to_array_of_size(1)]);
        let columns = columns.collect::<EngineResult<_>>().unwrap();
        let rows = RecordBatch::try_new(schema, columns).unwrap();
        let (values, _) = layout.share_out(&rows).unwrap().remove(0);
        assert_eq!(layout.scalars(&values).unwrap(), scalars);
        assert_eq!(Layout::texts(&scalars), values);
    }

    #[test]
    fn values_that_would_come_back_as_something_else_are_refused() {
        let schema = schema_of(&[("p", DataType::Utf8, true), ("x", DataType::Int64, true)]);
        let layout = Layout::new(&schema, &["p".into()]).unwrap();
        for text in ["", MISSING, &"x".repeat(300)] {
            let error = layout.folder(&[Some(text.into())]).unwrap_err();
            assert!(matches!(error, Error::PartitionBy { .. }), "{error}");
        }
    }
}
