//! Rows in files: Arrow streams and Parquet.

use std::fs::File;
use std::path::Path;

use arrow_array::{ArrayRef, RecordBatch};
use arrow_ipc::reader::StreamReader;
use arrow_schema::{ArrowError, DataType};
use arrow_select::concat::concat_batches;
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

use crate::error::Error;

/// Reads an Arrow IPC stream, as envelopes keep their samples.
pub(crate) fn from_stream(bytes: &[u8]) -> Result<RecordBatch, String> {
    let read = || {
        let reader = StreamReader::try_new(bytes, None)?;
        gather(&reader.schema(), reader)
    };
    guarded(read)
}

/// Reads a Parquet file. Texts come as plain ones, however the file keeps them.
pub(crate) fn from_parquet(path: &Path) -> Result<RecordBatch, Error> {
    let file = File::open(path).map_err(Error::io("read", path))?;
    let read = || {
        let reader = ParquetRecordBatchReaderBuilder::try_new(file)?.build()?;
        gather(&arrow_array::RecordBatchReader::schema(&reader), reader).and_then(plain)
    };
    guarded(read).map_err(|reason| Error::Input {
        reason: format!("`{}` is not a good Parquet file: {reason}", path.display()),
        hint: None,
    })
}

/// Writes a Parquet file, which appears complete or not at all.
pub(crate) fn to_parquet(path: &Path, rows: &RecordBatch) -> Result<(), Error> {
    to_file(path, |file| {
        let mut writer = ArrowWriter::try_new(file, rows.schema(), None)?;
        writer.write(rows)?;
        writer.close()?;
        Ok(())
    })
}

/// Writes a file, which appears complete or not at all.
pub(crate) fn to_file(
    path: &Path,
    write: impl FnOnce(&mut File) -> Result<(), Box<dyn std::error::Error + Send + Sync>>,
) -> Result<(), Error> {
    let folder = path
        .parent()
        .filter(|folder| !folder.as_os_str().is_empty())
        .unwrap_or(Path::new("."));
    let failed = || Error::io("write", path);
    let mut file = readable_by_all().tempfile_in(folder).map_err(failed())?;
    write(file.as_file_mut())
        .map_err(std::io::Error::other)
        .map_err(failed())?;
    file.persist(path)
        .map(drop)
        .map_err(|error| failed()(error.error))
}

/// Temporary files that are not private: what they become is a result like any other.
pub(crate) fn readable_by_all() -> tempfile::Builder<'static, 'static> {
    let mut builder = tempfile::Builder::new();
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o644));
    builder
}

fn gather(
    schema: &arrow_schema::SchemaRef,
    batches: impl Iterator<Item = Result<RecordBatch, ArrowError>>,
) -> Result<RecordBatch, ArrowError> {
    let batches = batches.collect::<Result<Vec<_>, _>>()?;
    concat_batches(schema, &batches)
}

/// Large, viewed and dictionary-encoded texts and bytes as plain ones. Nothing else is cast.
fn plain(rows: RecordBatch) -> Result<RecordBatch, ArrowError> {
    let names = rows.schema();
    let columns = names.fields().iter().zip(rows.columns());
    let columns = columns.map(|(field, column)| {
        let column = match plain_type(column.data_type()) {
            Some(data_type) => arrow_cast::cast(column, &data_type)?,
            None => ArrayRef::clone(column),
        };
        Ok((field.name(), column, true))
    });
    if rows.num_columns() == 0 {
        return Ok(rows);
    }
    RecordBatch::try_from_iter_with_nullable(columns.collect::<Result<Vec<_>, ArrowError>>()?)
}

fn plain_type(data_type: &DataType) -> Option<DataType> {
    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "only texts and bytes have several layouts"
    )]
    match data_type {
        DataType::LargeUtf8 | DataType::Utf8View => Some(DataType::Utf8),
        DataType::LargeBinary | DataType::BinaryView => Some(DataType::Binary),
        DataType::Dictionary(_, value) => {
            Some(plain_type(value).unwrap_or_else(|| (**value).clone()))
        }
        _ => None,
    }
}

/// Arrow's readers panic on some damaged files instead of refusing them.
fn guarded<E: std::fmt::Display>(
    read: impl FnOnce() -> Result<RecordBatch, E>,
) -> Result<RecordBatch, String> {
    match std::panic::catch_unwind(std::panic::AssertUnwindSafe(read)) {
        Ok(Ok(rows)) => Ok(rows),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err("it is damaged".to_owned()),
    }
}
