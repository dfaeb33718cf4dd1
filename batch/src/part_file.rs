//! One Parquet file of the output while it is written.

use std::path::{Path as FilePath, PathBuf};
use std::sync::Arc;

use arrow_array::RecordBatch;
use arrow_schema::SchemaRef;
use object_store::ObjectStore;
use object_store::buffered::BufWriter;
use object_store::path::Path;
use parquet::arrow::AsyncArrowWriter;
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::properties::WriterProperties;
use serde::{Deserialize, Serialize};

use crate::Error;
use crate::layout::Values;
use crate::statistics::Statistics;

/// Rows that are encoded together. A quarter of a usual file: the next job on the table, or any
/// other reader, can share even a single file out among some cores.
const ROW_GROUP_ROWS: usize = 1 << 18;

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
    writer: AsyncArrowWriter<BufWriter>,
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
        let path = FilePath::new("/").join(location.as_ref());
        let wrong = |source| Error::Engine { source };
        let statistics = statistics
            .then(|| Statistics::new(schema))
            .transpose()
            .map_err(wrong)?;
        let properties = WriterProperties::builder()
            .set_compression(Compression::ZSTD(ZstdLevel::default()))
            .set_max_row_group_row_count(Some(ROW_GROUP_ROWS))
            .set_created_by(concat!("model-envelope ", env!("CARGO_PKG_VERSION")).to_owned())
            .build();
        let file = BufWriter::new(store, location);
        match AsyncArrowWriter::try_new(file, Arc::clone(schema), Some(properties)) {
            Ok(writer) => Ok(Self {
                name,
                values,
                path,
                rows: 0,
                writer,
                statistics,
            }),
            Err(source) => Err(Error::Write {
                path,
                source: Box::new(source),
            }),
        }
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
        let written = self.writer.write(batch).await;
        written.map_err(|source| Error::Write {
            path: self.path.clone(),
            source: Box::new(source),
        })
    }

    /// Ends the file; it is on the disk when this is done.
    pub(crate) async fn finish(mut self) -> Result<Part, Error> {
        let finished = self.writer.finish().await;
        finished.map_err(|source| Error::Write {
            path: self.path.clone(),
            source: Box::new(source),
        })?;
        let statistics = self.statistics.map(Statistics::finish).transpose();
        Ok(Part {
            name: self.name,
            values: self.values,
            rows: self.rows as u64,
            bytes: self.writer.bytes_written() as u64,
            statistics: statistics.map_err(|source| Error::Engine { source })?,
        })
    }
}
