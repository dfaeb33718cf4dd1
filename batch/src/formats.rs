//! Formats that the files of a table may have, beside Parquet, and what such files say of their
//! columns.
//!
//! | file | columns | types |
//! |---|---|---|
//! | CSV | its first line | the function's; text for others |
//! | JSON lines | the function's, and those of its first lines | the function's; those of the first lines for others |
//! | Arrow | its schema | its schema |

use std::collections::HashSet;
use std::io::{BufRead as _, BufReader, Read};
use std::path::Path;
use std::sync::Arc;

use arrow_ipc::reader::FileReader;
use arrow_schema::{DataType, Field, Schema, SchemaRef};
use datafusion::arrow::json::reader::{ValueIter, infer_json_schema_from_iterator};
use datafusion::datasource::file_format::file_compression_type::FileCompressionType;

use crate::opened::Opened;
use crate::quotes::Quotes;
use crate::schema::{plain_field, type_name};
use crate::source::Reading;

/// How the rows of a file are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Encoding {
    Parquet,
    Csv,
    JsonLines,
    Arrow,
}

/// How the files of a table are written. All have the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Kind {
    pub(crate) encoding: Encoding,
    pub(crate) compression: FileCompressionType,
}

pub(crate) type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Lines of a JSON file that are looked at to find the columns that the function does not take.
const JSON_LINES: usize = 10_000;

/// What whole numbers of JSON are read as: all of 64 bits, and enough of a fraction to see that
/// there is one. Read as whole numbers, they would lose it.
pub(crate) const JSON_WHOLE: DataType = DataType::Decimal128(38, 18);

impl Kind {
    pub(crate) const PARQUET: Self = Self {
        encoding: Encoding::Parquet,
        compression: FileCompressionType::UNCOMPRESSED,
    };

    /// What the name of a file says.
    pub(crate) fn of(file: &Path) -> Option<Self> {
        let name = file.file_name()?.to_str()?.to_lowercase();
        let (name, compression) = match name.rsplit_once('.')? {
            (rest, "gz") => (rest, FileCompressionType::GZIP),
            (rest, "zst") => (rest, FileCompressionType::ZSTD),
            _ => (name.as_str(), FileCompressionType::UNCOMPRESSED),
        };
        let encoding = match name.rsplit_once('.')?.1 {
            "csv" => Encoding::Csv,
            "jsonl" | "ndjson" => Encoding::JsonLines,
            // These compress within the file, where they do.
            "parquet" if !compression.is_compressed() => Encoding::Parquet,
            "arrow" | "feather" if !compression.is_compressed() => Encoding::Arrow,
            _ => return None,
        };
        Some(Self {
            encoding,
            compression,
        })
    }

    /// Whether several partitions may read one file. A line of CSV may be within a text.
    pub(crate) fn is_splittable(self) -> bool {
        self.encoding != Encoding::Csv && !self.compression.is_compressed()
    }

    /// Whether its values have types before they are read.
    pub(crate) fn is_typed(self) -> bool {
        matches!(self.encoding, Encoding::Parquet | Encoding::Arrow)
    }

    /// What a column that is decoded as `field` is promised to be.
    pub(crate) fn promised(self, field: &Field, reading: &Reading) -> Field {
        let whole = self.encoding == Encoding::JsonLines && *field.data_type() == JSON_WHOLE;
        match reading.types.field_with_name(field.name()) {
            Ok(taken) if whole => field.clone().with_data_type(taken.data_type().clone()),
            Err(_) if whole => field.clone().with_data_type(DataType::Int64),
            Ok(_) | Err(_) => plain_field(field),
        }
    }

    /// The columns of a file as it is decoded, where `types` are those of the function.
    pub(crate) fn columns(self, opened: Opened, types: &Schema) -> Result<SchemaRef, Failure> {
        match self.encoding {
            Encoding::Parquet | Encoding::Arrow => {
                Ok(FileReader::try_new(BufReader::new(opened), None)?.schema())
            }
            Encoding::Csv => csv_columns(self.compression.convert_read(opened)?, types),
            Encoding::JsonLines => json_columns(self.compression.convert_read(opened)?, types),
        }
    }
}

fn csv_columns(file: impl Read, types: &Schema) -> Result<SchemaRef, Failure> {
    let mut reader = csv::ReaderBuilder::new()
        .has_headers(false)
        .from_reader(Quotes::new(file));
    let header = reader.records().next().transpose()?.unwrap_or_default();
    if let Some(line) = reader.into_inner().unclosed()? {
        let reason = format!("line {line}: a text begins with `\"` and does not end");
        return Err(reason.into());
    }
    let mut seen = HashSet::new();
    let column = |name: &str| {
        if !seen.insert(name.to_owned()) {
            return Err(format!("its first line has the column `{name}` twice").into());
        }
        let data_type = match types.field_with_name(name) {
            Ok(field) => field.data_type().clone(),
            Err(_) => DataType::Utf8,
        };
        let unread = matches!(data_type, DataType::Binary | DataType::Duration(_));
        if data_type.is_nested() || unread {
            return Err(no_type("CSV", name, &data_type));
        }
        Ok(Field::new(name, data_type, true))
    };
    let names = header
        .iter()
        .enumerate()
        .map(|(position, name)| match position {
            0 => name.trim_start_matches('\u{feff}'),
            _ => name,
        });
    let columns = names.map(column).collect::<Result<Vec<_>, Failure>>()?;
    Ok(Arc::new(Schema::new(columns)))
}

fn json_columns(file: impl Read, types: &Schema) -> Result<SchemaRef, Failure> {
    let mut file = BufReader::new(file);
    if file.fill_buf()?.is_empty() {
        return Ok(Arc::new(Schema::empty()));
    }
    let mut rows = ValueIter::new(file, Some(JSON_LINES));
    let found = infer_json_schema_from_iterator(&mut rows)
        .map_err(|error| format!("row {}: {error}", rows.record_count()))?;
    let column = |field: &Arc<Field>| {
        let name = field.name();
        let data_type = match types.field_with_name(name) {
            Ok(field) if has_whole(field.data_type()) && field.data_type().is_nested() => {
                return Err(no_type("JSON", name, field.data_type()));
            }
            Ok(field) => field.data_type().clone(),
            Err(_) => without_whole(field.data_type()),
        };
        let data_type = if data_type.is_integer() {
            JSON_WHOLE
        } else {
            data_type
        };
        Ok(Field::new(name, data_type, true))
    };
    let columns = found.fields().iter().map(column);
    Ok(Arc::new(Schema::new(
        columns.collect::<Result<Vec<_>, Failure>>()?,
    )))
}

fn has_whole(data_type: &DataType) -> bool {
    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "JSON has no others that hold others"
    )]
    match data_type {
        DataType::List(item) | DataType::FixedSizeList(item, _) => has_whole(item.data_type()),
        DataType::Struct(fields) => fields.iter().any(|field| has_whole(field.data_type())),
        other => other.is_integer(),
    }
}

/// Whole numbers within lists and structs as floats: that a later one has a fraction would not be
/// seen otherwise.
fn without_whole(data_type: &DataType) -> DataType {
    let inner = |field: &Field| {
        let data_type = match field.data_type() {
            whole if whole.is_integer() => DataType::Float64,
            other => without_whole(other),
        };
        field.clone().with_data_type(data_type)
    };
    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "JSON has no others that hold others"
    )]
    match data_type {
        DataType::List(item) => DataType::List(Arc::new(inner(item))),
        DataType::Struct(fields) => {
            DataType::Struct(fields.iter().map(|field| inner(field)).collect())
        }
        other => other.clone(),
    }
}

fn no_type(format: &str, column: &str, data_type: &DataType) -> Failure {
    let data_type = type_name(data_type);
    format!("the function takes `{column}` as {data_type}, which cannot be read from {format}")
        .into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake::schema_of;

    #[test]
    fn names_say_how_files_are_written() {
        let encoding = |name: &str| Kind::of(Path::new(name)).map(|kind| kind.encoding);
        assert_eq!(encoding("/t/a.parquet"), Some(Encoding::Parquet));
        assert_eq!(encoding("/t/A.CSV"), Some(Encoding::Csv));
        assert_eq!(encoding("/t/a.b.csv.gz"), Some(Encoding::Csv));
        assert_eq!(encoding("/t/a.jsonl.zst"), Some(Encoding::JsonLines));
        assert_eq!(encoding("/t/a.feather"), Some(Encoding::Arrow));
        for name in ["/t/a", "/t/a.gz", "/t/a.parquet.gz", "/t/a.txt", "/t/csv"] {
            assert_eq!(encoding(name), None, "{name}");
        }
    }

    #[test]
    fn columns_of_csv_have_the_functions_types_or_are_text() {
        let types = schema_of(&[("x", DataType::Int8, false)]);
        let columns = csv_columns("\u{feff}id,\"x\",a b\n1,2,3".as_bytes(), &types).unwrap();
        let expected = schema_of(&[
            ("id", DataType::Utf8, true),
            ("x", DataType::Int8, true),
            ("a b", DataType::Utf8, true),
        ]);
        assert_eq!(columns, expected);
        assert!(csv_columns("x,x\n".as_bytes(), &types).is_err());
        let error = csv_columns("x,y\n1,\"a\n2,b\n".as_bytes(), &types).unwrap_err();
        assert!(error.to_string().starts_with("line 2: "), "{error}");
        let list = schema_of(&[("x", DataType::new_list(DataType::Int8, true), true)]);
        assert!(csv_columns("x\n".as_bytes(), &list).is_err());
    }

    #[test]
    fn whole_numbers_of_json_are_read_with_their_fraction() {
        let types = schema_of(&[("x", DataType::Int8, false)]);
        let lines = r#"{"id": 1, "x": 2, "l": [1], "t": "a"}"#;
        let columns = json_columns(lines.as_bytes(), &types).unwrap();
        let of = |name: &str| columns.field_with_name(name).unwrap().data_type().clone();
        assert_eq!(of("id"), JSON_WHOLE);
        assert_eq!(of("x"), JSON_WHOLE);
        assert_eq!(of("l"), DataType::new_list(DataType::Float64, true));
        assert_eq!(of("t"), DataType::Utf8);
    }
}
