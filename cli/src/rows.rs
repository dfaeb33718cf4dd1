//! Rows in files: Arrow streams and Parquet.

use std::fs::File;
use std::path::Path;

use arrow_array::{ArrayRef, RecordBatch};
use arrow_schema::ArrowError;
use arrow_select::concat::concat_batches;
use envelope_format::Rows;
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

use crate::error::Error;

/// Reads an Arrow IPC stream, as envelopes keep their samples.
pub(crate) fn from_stream(bytes: &[u8]) -> Result<RecordBatch, String> {
    runtime::read_arrow_stream(bytes.to_vec(), usize::MAX).map_err(|error| error.to_string())
}

/// Reads a Parquet file. Columns become what the function takes where that loses nothing.
pub(crate) fn from_parquet(path: &Path, takes: &Rows) -> Result<RecordBatch, Error> {
    let file = File::open(path).map_err(Error::io("read", path))?;
    let read = || {
        let reader = ParquetRecordBatchReaderBuilder::try_new(file)?.build()?;
        let rows = gather(&arrow_array::RecordBatchReader::schema(&reader), reader)?;
        fitted(rows, takes)
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

/// With the columns as the function takes them where that loses nothing, and as they are elsewhere.
fn fitted(rows: RecordBatch, takes: &Rows) -> Result<RecordBatch, ArrowError> {
    let schema = rows.schema();
    let columns = schema.fields().iter().zip(rows.columns());
    let columns = columns.map(|(field, column)| {
        let taken = takes
            .fields
            .iter()
            .find(|taken| taken.name == *field.name());
        let column = match taken.map(|taken| runtime::arrow_type(&taken.data_type)) {
            Some(expected) if runtime::lossless(column.data_type(), &expected) => {
                arrow_cast::cast(column, &expected)?
            }
            _ => ArrayRef::clone(column),
        };
        Ok((field.name(), column, true))
    });
    if rows.num_columns() == 0 {
        return Ok(rows);
    }
    RecordBatch::try_from_iter_with_nullable(columns.collect::<Result<Vec<_>, ArrowError>>()?)
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
