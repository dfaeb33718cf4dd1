//! One Parquet file of the output while it is written.

use std::collections::HashSet;
use std::path::{Path as FilePath, PathBuf};
use std::sync::Arc;

use arrow_array::{ArrayRef, RecordBatch};
use arrow_schema::{ArrowError, SchemaRef};
use datafusion::arrow::row::{RowConverter, SortField};
use object_store::ObjectStore;
use object_store::buffered::BufWriter;
use object_store::path::Path;
use parquet::arrow::AsyncArrowWriter;
use parquet::basic::{Compression, ZstdLevel};
use parquet::errors::ParquetError;
use parquet::file::properties::WriterProperties;
use parquet::schema::types::ColumnPath;
use serde::{Deserialize, Serialize};

use crate::Error;
use crate::layout::Values;
use crate::statistics::Statistics;

/// Rows that are encoded together. A quarter of a usual file: the next job on the table, or any
/// other reader, can share even a single file out among some cores.
const ROW_GROUP_ROWS: usize = 1 << 18;

/// First rows of a file that tell whether the values of a column repeat.
const LOOKED_AT_ROWS: usize = 1 << 14;

/// A complete file of the output that is not visible yet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Part {
    /// Its path in the folder of the job's files.
    pub(crate) name: String,
    /// What all its rows have in the partition columns.
    pub(crate) values: Values,
    /// Its rows.
    pub(crate) rows: u64,
    /// Its length.
    pub(crate) bytes: u64,
    /// What the log of a Delta table says about it, in JSON.
    pub(crate) statistics: Option<String>,
}

/// A file that takes rows.
pub(crate) struct PartFile {
    name: String,
    values: Values,
    path: PathBuf,
    rows: usize,
    schema: SchemaRef,
    place: (Arc<dyn ObjectStore>, Path),
    /// There from the first rows on, which decide how the file is encoded.
    writer: Option<AsyncArrowWriter<BufWriter>>,
    statistics: Option<Statistics>,
}

impl PartFile {
    /// Begins the file `name` in `folder`, whose rows have `values` in the partition columns.
    pub(crate) fn begin(
        (store, folder): (Arc<dyn ObjectStore>, &Path),
        (name, values): (String, Values),
        schema: &SchemaRef,
        statistics: bool,
    ) -> Result<Self, Error> {
        let location = format!("{folder}/{name}");
        let location = Path::parse(&location).map_err(|source| Error::Location {
            location,
            reason: source.to_string(),
        })?;
        let statistics = statistics.then(|| Statistics::new(schema)).transpose();
        Ok(Self {
            name,
            values,
            path: FilePath::new("/").join(location.as_ref()),
            rows: 0,
            schema: Arc::clone(schema),
            place: (store, location),
            writer: None,
            statistics: statistics.map_err(|source| Error::Engine { source })?,
        })
    }

    /// What all its rows have in the partition columns.
    pub(crate) fn values(&self) -> &Values {
        &self.values
    }

    /// Rows so far.
    pub(crate) fn rows(&self) -> usize {
        self.rows
    }

    pub(crate) async fn write(&mut self, batch: &RecordBatch) -> Result<(), Error> {
        if let Some(statistics) = &mut self.statistics {
            statistics
                .add(batch)
                .map_err(|source| Error::Engine { source })?;
        }
        self.rows += batch.num_rows();
        let mut writer = self.opened(batch)?;
        let written = writer.write(batch).await;
        self.writer = Some(writer);
        written.map_err(|source| self.failed(source))
    }

    /// Ends the file; it is on the disk when this is done.
    pub(crate) async fn finish(mut self) -> Result<Part, Error> {
        let nothing = RecordBatch::new_empty(Arc::clone(&self.schema));
        let mut writer = self.opened(&nothing)?;
        let finished = writer.finish().await;
        finished.map_err(|source| self.failed(source))?;
        let statistics = self.statistics.map(Statistics::finish).transpose();
        Ok(Part {
            name: self.name,
            values: self.values,
            rows: self.rows as u64,
            bytes: writer.bytes_written() as u64,
            statistics: statistics.map_err(|source| Error::Engine { source })?,
        })
    }

    /// Takes the writer; where there is none yet, one that encodes as suits the first rows.
    fn opened(&mut self, first: &RecordBatch) -> Result<AsyncArrowWriter<BufWriter>, Error> {
        if let Some(writer) = self.writer.take() {
            return Ok(writer);
        }
        let (store, location) = &self.place;
        let file = BufWriter::new(Arc::clone(store), location.clone());
        let properties = properties(first).map_err(ParquetError::from);
        let writer = properties.and_then(|properties| {
            AsyncArrowWriter::try_new(file, Arc::clone(&self.schema), Some(properties))
        });
        writer.map_err(|source| self.failed(source))
    }

    fn failed(&self, source: ParquetError) -> Error {
        Error::Write {
            path: self.path.clone(),
            source: Box::new(source),
        }
    }
}

/// How a file is encoded whose first rows are `first`.
fn properties(first: &RecordBatch) -> Result<WriterProperties, ArrowError> {
    let mut properties = WriterProperties::builder()
        .set_compression(Compression::ZSTD(ZstdLevel::default()))
        .set_max_row_group_row_count(Some(ROW_GROUP_ROWS))
        .set_created_by(concat!("model-envelope ", env!("CARGO_PKG_VERSION")).to_owned());
    for (field, column) in first.schema_ref().fields().iter().zip(first.columns()) {
        if !field.data_type().is_nested() && !repeats(column)? {
            let path = ColumnPath::from(field.name().clone());
            properties = properties.set_column_dictionary_enabled(path, false);
        }
    }
    Ok(properties.build())
}

/// Whether a dictionary of a column's values is worth its time. Where nearly all of the first values
/// are different, it becomes too large before a row group is half full, and most of what encoding takes is
/// lost on it.
fn repeats(column: &ArrayRef) -> Result<bool, ArrowError> {
    let looked_at = column.slice(0, column.len().min(LOOKED_AT_ROWS));
    let converter = RowConverter::new(vec![SortField::new(looked_at.data_type().clone())])?;
    let values = converter.convert_columns(&[ArrayRef::clone(&looked_at)])?;
    let different: HashSet<&[u8]> = values.iter().map(|value| value.data()).collect();
    Ok(different.len() * 16 < looked_at.len() * 15)
}

#[cfg(test)]
mod tests {
    use arrow_array::{Float64Array, Int64Array, StringArray};

    use super::*;

    #[test]
    fn a_column_gets_a_dictionary_when_its_values_repeat() {
        let worth_it = |column: ArrayRef| repeats(&column).unwrap();
        let texts = ["red", "green", "blue"].iter().cycle().take(30_000);
        assert!(worth_it(Arc::new(StringArray::from_iter_values(texts))));
        assert!(worth_it(Arc::new(Int64Array::from_iter_values(
            (0..30_000).map(|row| row % 8_000)
        ))));
        assert!(worth_it(Arc::new(Float64Array::from(vec![None; 100]))));
        let different = (0..30_000).map(|row| f64::from(row) / 7.0);
        assert!(!worth_it(Arc::new(Float64Array::from_iter_values(
            different
        ))));
        assert!(!worth_it(Arc::new(Int64Array::from_iter_values(0..100))));
    }
}
