//! What a table is when it is read: a fixed list of Parquet files and the columns they have.

use std::collections::HashSet;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow_schema::{Field, Fields, Schema, SchemaRef};
use datafusion::scalar::ScalarValue;
use futures::{StreamExt as _, TryStreamExt as _, stream};
use parquet::arrow::arrow_reader::{ArrowReaderMetadata, ArrowReaderOptions};
use parquet::file::metadata::{PageIndexPolicy, ParquetMetaData};

use crate::location::Location;
use crate::schema::{lossless, plain_field, type_name};
use crate::{Error, snapshot};

/// A table as it is at one moment.
#[derive(Debug, Clone)]
pub(crate) struct Source {
    /// How messages call it: its path.
    pub(crate) name: String,
    /// Its columns; those that partition it come last.
    pub(crate) schema: SchemaRef,
    /// How many of the columns are not in the files but the same for all rows of a file.
    pub(crate) partition_columns: usize,
    /// Its files, in a stable order.
    pub(crate) files: Vec<DataFile>,
    /// Version of the Delta table.
    pub(crate) version: Option<i64>,
}

/// One Parquet file of a table.
#[derive(Debug, Clone)]
pub(crate) struct DataFile {
    /// Where it is.
    pub(crate) path: PathBuf,
    /// Its length.
    pub(crate) bytes: u64,
    /// Its rows, where known without reading it.
    pub(crate) rows: Option<u64>,
    /// Values of the partition columns, in their order.
    pub(crate) partition_values: Vec<ScalarValue>,
    /// Columns that are known to lack values.
    pub(crate) columns_with_nulls: HashSet<String>,
}

impl Source {
    /// Finds the table at `location`: a Delta table at its latest version, a folder with Parquet
    /// files, or one Parquet file.
    pub(crate) async fn open(location: &Location) -> Result<Self, Error> {
        Self::at(location, None).await
    }

    /// The same at a version, if the table has versions.
    pub(crate) async fn at(location: &Location, version: Option<i64>) -> Result<Self, Error> {
        let path = location.path();
        let not_found = |looked_for: &str| Error::TableNotFound {
            table: location.to_string(),
            looked_for: looked_for.to_owned(),
        };
        if path.is_file() {
            return parquet(location, vec![path.to_path_buf()]).await;
        }
        if !path.is_dir() {
            return Err(not_found("no such file or folder"));
        }
        if path.join("_delta_log").is_dir() {
            return snapshot::source(location, version).await;
        }
        match parquet_files(path).map_err(|source| unreadable(location, path, source))? {
            files if files.is_empty() => Err(not_found(
                "the folder holds neither `_delta_log` nor a file `*.parquet`",
            )),
            files => parquet(location, files).await,
        }
    }

    /// Its rows, where known without reading it.
    pub(crate) fn rows(&self) -> Option<u64> {
        self.files.iter().map(|file| file.rows).sum()
    }

    /// The columns that are in the files.
    pub(crate) fn file_schema(&self) -> SchemaRef {
        let fields = self.schema.fields();
        Arc::new(Schema::new(
            fields[..fields.len() - self.partition_columns].to_vec(),
        ))
    }

    /// The columns that are the same for all rows of a file.
    pub(crate) fn partition_fields(&self) -> Fields {
        let fields = self.schema.fields();
        fields[fields.len() - self.partition_columns..]
            .iter()
            .cloned()
            .collect()
    }
}

/// Every file `*.parquet` below `folder`, sorted. Names that begin with `_` or `.` are skipped,
/// files and folders alike: by convention they are not data.
pub(crate) fn parquet_files(folder: &Path) -> std::io::Result<Vec<PathBuf>> {
    let mut files = vec![];
    let mut folders = vec![folder.to_path_buf()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder)? {
            let path = entry?.path();
            let name = path
                .file_name()
                .unwrap_or_default()
                .to_string_lossy()
                .into_owned();
            if name.starts_with(['_', '.']) {
                continue;
            }
            if path.is_dir() {
                folders.push(path);
            } else if name.ends_with(".parquet") {
                files.push(path);
            }
        }
    }
    files.sort();
    Ok(files)
}

/// Footers that are read at the same time.
const FOOTERS_AT_ONCE: usize = 16;

async fn parquet(location: &Location, paths: Vec<PathBuf>) -> Result<Source, Error> {
    let footers: Vec<(DataFile, SchemaRef)> = stream::iter(paths)
        .map(|path| footer(location, path))
        .buffered(FOOTERS_AT_ONCE)
        .try_collect()
        .await?;
    let mut columns: Option<Vec<Field>> = None;
    let mut files = Vec::with_capacity(footers.len());
    for (file, schema) in footers {
        let found: Vec<Field> = schema
            .fields()
            .iter()
            .map(|field| plain_field(field))
            .collect();
        columns = Some(match columns {
            None => found,
            Some(columns) => reconcile(location, columns, &found, &file.path)?,
        });
        files.push(file);
    }
    Ok(Source {
        name: location.to_string(),
        schema: Arc::new(Schema::new(columns.unwrap_or_default())),
        partition_columns: 0,
        files,
        version: None,
    })
}

/// The columns of all files so far and of one more: the wider type where one holds the other.
fn reconcile(
    location: &Location,
    columns: Vec<Field>,
    found: &[Field],
    file: &Path,
) -> Result<Vec<Field>, Error> {
    let differ = |column: &str, found: String, expected: String| Error::FilesDiffer {
        table: location.to_string(),
        column: column.to_owned(),
        file: file.to_path_buf(),
        found,
        expected,
    };
    let absent = || "not a column".to_owned();
    if let Some(extra) = found
        .iter()
        .find(|extra| columns.iter().all(|column| column.name() != extra.name()))
    {
        return Err(differ(extra.name(), type_name(extra.data_type()), absent()));
    }
    let wider = |column: Field| {
        let Some(other) = found.iter().find(|other| other.name() == column.name()) else {
            return Err(differ(
                column.name(),
                absent(),
                type_name(column.data_type()),
            ));
        };
        let nullable = column.is_nullable() || other.is_nullable();
        if lossless(other.data_type(), column.data_type()) {
            Ok(column.with_nullable(nullable))
        } else if lossless(column.data_type(), other.data_type()) {
            Ok(other.clone().with_nullable(nullable))
        } else {
            Err(differ(
                column.name(),
                type_name(other.data_type()),
                type_name(column.data_type()),
            ))
        }
    };
    columns.into_iter().map(wider).collect()
}

/// What the end of a Parquet file says about it.
async fn footer(location: &Location, path: PathBuf) -> Result<(DataFile, SchemaRef), Error> {
    let name = path.clone();
    // A task of its own: a hostile schema makes the parser panic, which must not end the program.
    let read = tokio::task::spawn_blocking(move || read_footer(path)).await;
    match read {
        Ok(Ok(footer)) => Ok(footer),
        Ok(Err(source)) => Err(unreadable(location, &name, source)),
        Err(panic) => Err(unreadable(location, &name, panic)),
    }
}

fn read_footer(
    path: PathBuf,
) -> Result<(DataFile, SchemaRef), Box<dyn std::error::Error + Send + Sync>> {
    let file = File::open(&path)?;
    let bytes = file.metadata()?.len();
    let options = ArrowReaderOptions::new().with_page_index_policy(PageIndexPolicy::Skip);
    let footer = ArrowReaderMetadata::load(&file, options)?;
    let metadata = footer.metadata();
    let file = DataFile {
        path,
        bytes,
        rows: u64::try_from(metadata.file_metadata().num_rows()).ok(),
        partition_values: vec![],
        columns_with_nulls: columns_with_nulls(metadata),
    };
    Ok((file, Arc::clone(footer.schema())))
}

fn columns_with_nulls(metadata: &ParquetMetaData) -> HashSet<String> {
    let chunks = metadata
        .row_groups()
        .iter()
        .flat_map(|group| group.columns());
    let lacking = chunks.filter(|chunk| {
        chunk.column_descr().path().parts().len() == 1
            && chunk
                .statistics()
                .and_then(|statistics| statistics.null_count_opt())
                .is_some_and(|nulls| nulls > 0)
    });
    lacking
        .map(|chunk| chunk.column_descr().name().to_owned())
        .collect()
}

fn unreadable(
    location: &Location,
    path: &Path,
    source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
) -> Error {
    Error::Read {
        table: location.to_string(),
        file: Some(path.to_path_buf()),
        source: source.into(),
    }
}
