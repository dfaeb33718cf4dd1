//! What a table is when it is read: a fixed list of files and the columns they have.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow_schema::{Field, Fields, Schema, SchemaRef};
use datafusion::scalar::ScalarValue;
use futures::{StreamExt as _, TryStreamExt as _, stream};
use parquet::arrow::arrow_reader::{ArrowReaderMetadata, ArrowReaderOptions};
use parquet::file::metadata::{PageIndexPolicy, ParquetMetaData};
use parquet::file::reader::Length as _;
use runtime::lossless;

use crate::formats::{Encoding, Kind};
use crate::ledger;
use crate::location::{Location, absolute};
use crate::partitions::{Partitions, is_partition};
use crate::schema::{plain_field, type_name};
use crate::{AsOf, Error, snapshot};

/// A table as it is at one moment.
#[derive(Debug, Clone)]
pub(crate) struct Source {
    /// How messages call it: its path.
    pub(crate) name: String,
    /// How plans call the store that its files are in.
    pub(crate) store: String,
    /// Its columns; those that partition it come last.
    pub(crate) schema: SchemaRef,
    /// The same columns as the files are decoded into them; the map changes them, without loss.
    pub(crate) scanned: SchemaRef,
    /// How many of the columns are not in the files but the same for all rows of a file.
    pub(crate) partition_columns: usize,
    /// Its files, in a stable order.
    pub(crate) files: Vec<DataFile>,
    /// How its files are written.
    pub(crate) kind: Kind,
    /// Version of the Delta table.
    pub(crate) version: Option<i64>,
}

/// One file of a table.
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
    /// A lower and an upper bound of the values of columns, where known without reading it.
    pub(crate) ranges: HashMap<String, (ScalarValue, ScalarValue)>,
}

impl DataFile {
    /// A file of which nothing is known but its length.
    pub(crate) fn new(path: PathBuf, bytes: u64) -> Self {
        Self {
            path,
            bytes,
            rows: None,
            partition_values: vec![],
            columns_with_nulls: HashSet::new(),
            ranges: HashMap::new(),
        }
    }

    /// Gives it its values of the partition columns `fields`.
    fn partition(&mut self, fields: &[Field], values: Vec<ScalarValue>) {
        let lacking = fields
            .iter()
            .zip(&values)
            .filter(|(_, value)| value.is_null());
        let names = lacking.map(|(field, _)| field.name().clone());
        self.columns_with_nulls.extend(names);
        self.partition_values = values;
    }
}

/// How a table is to be read.
#[derive(Debug, Clone)]
pub(crate) struct Reading {
    /// Which snapshot; the latest when absent.
    pub(crate) as_of: Option<AsOf>,
    /// Types of the columns whose type the files do not say.
    pub(crate) types: SchemaRef,
}

impl Source {
    /// Finds the table at `location` as it is now.
    pub(crate) async fn open(location: &Location) -> Result<Self, Error> {
        let reading = Reading {
            as_of: None,
            types: Arc::new(Schema::empty()),
        };
        Self::read(location, &reading).await
    }

    /// Finds the table at `location`: a Delta table, a folder with files, or one file.
    pub(crate) async fn read(location: &Location, reading: &Reading) -> Result<Self, Error> {
        let not_found = |looked_for: &str| Error::TableNotFound {
            table: location.to_string(),
            looked_for: looked_for.to_owned(),
        };
        // Not all servers can be asked whether a folder is a file.
        let is_folder = location.is_folder().await?;
        let is_file = !is_folder && location.is_file().await?;
        if !is_file && !is_folder {
            return Err(not_found("no such file or folder"));
        }
        if location.join("_delta_log").is_folder().await? {
            return snapshot::source(location, reading.as_of).await;
        }
        if reading.as_of.is_some() {
            return Err(Error::NoSnapshots {
                table: location.to_string(),
            });
        }
        let path = location.path();
        if is_file {
            let kind = Kind::of(path).unwrap_or(Kind::PARQUET);
            return of_kind(location, reading, kind, vec![path.to_path_buf()]).await;
        }
        match one_kind(location, data_files(location).await?)? {
            Some((kind, files)) => of_kind(location, reading, kind, files).await,
            None => Err(not_found(
                "the folder holds neither `_delta_log` nor a file `*.parquet`, `*.csv`, `*.jsonl` or `*.arrow`",
            )),
        }
    }

    /// A table that is empty, for tests of what looks at its columns only.
    #[cfg(test)]
    pub(crate) fn without_files(name: &str, schema: SchemaRef) -> Self {
        Self {
            name: name.to_owned(),
            store: "file:///".to_owned(),
            scanned: Arc::clone(&schema),
            schema,
            partition_columns: 0,
            files: vec![],
            kind: Kind::PARQUET,
            version: None,
        }
    }

    /// Adds the columns that are in the names of the folders below `location`.
    fn partition(&mut self, location: &Location) -> Result<(), Error> {
        let paths: Vec<PathBuf> = self.files.iter().map(|file| file.path.clone()).collect();
        let partitions = Partitions::read(location.path(), &paths, self.schema.fields())?;
        for (file, values) in self.files.iter_mut().zip(partitions.values) {
            file.partition(&partitions.fields, values);
        }
        let with = |schema: &Schema| {
            let columns = schema.fields().iter().cloned();
            let added = partitions.fields.iter().cloned().map(Arc::new);
            Arc::new(Schema::new(columns.chain(added).collect::<Fields>()))
        };
        (self.schema, self.scanned) = (with(&self.schema), with(&self.scanned));
        self.partition_columns = partitions.fields.len();
        Ok(())
    }

    /// Its rows, where known without reading it.
    pub(crate) fn rows(&self) -> Option<u64> {
        self.files.iter().map(|file| file.rows).sum()
    }

    /// The columns that are in the files.
    pub(crate) fn file_schema(&self) -> SchemaRef {
        let fields = self.scanned.fields();
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

/// Every file `*.parquet` below `folder`, sorted.
pub(crate) fn parquet_files(folder: &Path) -> std::io::Result<Vec<PathBuf>> {
    let mut files = files_below(folder)?;
    files.retain(|file| Kind::of(file) == Some(Kind::PARQUET));
    Ok(files)
}

/// Every file in the folder of a table whose name is that of a known format, sorted.
pub(crate) async fn data_files(location: &Location) -> Result<Vec<PathBuf>, Error> {
    let path = location.path();
    match location.bucket() {
        None => files_below(path).map_err(|source| unreadable(location, path, source)),
        Some(_) => objects_below(location).await,
    }
}

/// Every file below `folder` whose name is that of a known format, sorted. Names that begin with
/// `_` or `.` are skipped, files and folders alike: by convention they are not data, unless `_`
/// begins the name of a partition column.
fn files_below(folder: &Path) -> std::io::Result<Vec<PathBuf>> {
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
            if name.starts_with('.') || name.starts_with('_') && !is_partition(&name) {
                continue;
            }
            if path.is_dir() {
                folders.push(path);
            } else if Kind::of(&path).is_some() {
                files.push(path);
            }
        }
    }
    files.sort();
    Ok(files)
}

/// The same of a place in a bucket.
async fn objects_below(location: &Location) -> Result<Vec<PathBuf>, Error> {
    let is_data = |file: &PathBuf| {
        let below = file.strip_prefix(location.path()).unwrap_or(file);
        let mut names = below.iter().map(|name| name.to_string_lossy().into_owned());
        let is_read = |name: String| {
            !name.starts_with('.') && (!name.starts_with('_') || is_partition(&name))
        };
        names.all(is_read) && Kind::of(file).is_some()
    };
    let objects = ledger::settled(location).await?;
    let listed = objects.iter().map(|object| absolute(&object.location));
    let listed = listed.filter(is_data).collect();
    let mut files = ledger::as_committed(location, &objects, listed).await?;
    files.sort();
    Ok(files)
}

/// The files that are the table, and how they are written. Beside Parquet files, others are notes.
fn one_kind(
    location: &Location,
    mut files: Vec<PathBuf>,
) -> Result<Option<(Kind, Vec<PathBuf>)>, Error> {
    let is_parquet = |file: &PathBuf| Kind::of(file) == Some(Kind::PARQUET);
    if files.iter().any(is_parquet) {
        files.retain(is_parquet);
    }
    let Some(kind) = files.first().and_then(|file| Kind::of(file)) else {
        return Ok(None);
    };
    match files.iter().find(|file| Kind::of(file) != Some(kind)) {
        None => Ok(Some((kind, files))),
        Some(other) => Err(Error::Unsupported {
            table: location.to_string(),
            feature: format!(
                "has files of several formats (`{}`, `{}`)",
                files[0].display(),
                other.display()
            ),
        }),
    }
}

async fn of_kind(
    location: &Location,
    reading: &Reading,
    kind: Kind,
    files: Vec<PathBuf>,
) -> Result<Source, Error> {
    match kind.encoding {
        Encoding::Parquet => parquet(location, files).await,
        Encoding::Arrow | Encoding::Csv | Encoding::JsonLines => {
            plain_files(location, reading, kind, files).await
        }
    }
}

/// A table of files that are decoded as they are: all have the same columns.
async fn plain_files(
    location: &Location,
    reading: &Reading,
    kind: Kind,
    paths: Vec<PathBuf>,
) -> Result<Source, Error> {
    let mut columns: Option<Vec<Field>> = None;
    let mut files = vec![];
    for path in paths {
        let (found, bytes) = columns_of(location, reading, kind, &path).await?;
        // A line of JSON need not have all columns.
        let same = kind.encoding == Encoding::JsonLines;
        columns = Some(match columns {
            Some(columns) if same => columns,
            Some(columns) => alike(location, columns, &found, &path)?,
            None => found,
        });
        files.push(DataFile::new(path, bytes));
    }
    let scanned = columns.unwrap_or_default();
    let promised = scanned.iter().map(|field| kind.promised(field, reading));
    let columns: Vec<Field> = promised.collect();
    let mut source = Source {
        name: location.to_string(),
        store: location.store_name(),
        schema: Arc::new(Schema::new(columns)),
        scanned: Arc::new(Schema::new(scanned)),
        partition_columns: 0,
        files,
        kind,
        version: None,
    };
    source.partition(location)?;
    Ok(source)
}

async fn columns_of(
    location: &Location,
    reading: &Reading,
    kind: Kind,
    path: &Path,
) -> Result<(Vec<Field>, u64), Error> {
    let (place, file, types) = (
        location.clone(),
        path.to_path_buf(),
        Arc::clone(&reading.types),
    );
    let read = move || {
        let opened = place.open(&file)?;
        let bytes = opened.len();
        Ok::<_, crate::formats::Failure>((kind.columns(opened, &types)?, bytes))
    };
    // A task of its own, as for Parquet files.
    let (schema, bytes) = match tokio::task::spawn_blocking(read).await {
        Ok(read) => read.map_err(|source| unreadable(location, path, source))?,
        Err(panic) => return Err(unreadable(location, path, panic)),
    };
    let fields = schema.fields().iter();
    let fields = fields.map(|field| field.as_ref().clone().with_nullable(true));
    Ok((fields.collect(), bytes))
}

/// Refuses a file whose columns are not those of the files before, in their order.
fn alike(
    location: &Location,
    columns: Vec<Field>,
    found: &[Field],
    file: &Path,
) -> Result<Vec<Field>, Error> {
    let told = |field: Option<&Field>| {
        field.map_or_else(
            || "not a column".to_owned(),
            |field| format!("`{}`, {}", field.name(), type_name(field.data_type())),
        )
    };
    for position in 0..columns.len().max(found.len()) {
        let (one, other) = (columns.get(position), found.get(position));
        let same = |one: &Field, other: &Field| {
            one.name() == other.name() && one.data_type() == other.data_type()
        };
        if !one.zip(other).is_some_and(|(one, other)| same(one, other)) {
            return Err(Error::FilesDiffer {
                table: location.to_string(),
                column: format!("{}", position + 1),
                file: file.to_path_buf(),
                found: told(other),
                expected: told(one),
            });
        }
    }
    Ok(columns)
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
    let schema = Arc::new(Schema::new(columns.unwrap_or_default()));
    let mut source = Source {
        name: location.to_string(),
        store: location.store_name(),
        scanned: Arc::clone(&schema),
        schema,
        partition_columns: 0,
        files,
        kind: Kind::PARQUET,
        version: None,
    };
    source.partition(location)?;
    Ok(source)
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
    let (place, name) = (location.clone(), path.clone());
    // A task of its own: a hostile schema makes the parser panic, which must not end the program.
    let read = tokio::task::spawn_blocking(move || read_footer(&place, path)).await;
    match read {
        Ok(Ok(footer)) => Ok(footer),
        Ok(Err(source)) => Err(unreadable(location, &name, source)),
        Err(panic) => Err(unreadable(location, &name, panic)),
    }
}

fn read_footer(
    location: &Location,
    path: PathBuf,
) -> Result<(DataFile, SchemaRef), Box<dyn std::error::Error + Send + Sync>> {
    let file = location.open(&path)?;
    let bytes = file.len();
    let options = ArrowReaderOptions::new().with_page_index_policy(PageIndexPolicy::Skip);
    let footer = ArrowReaderMetadata::load(&file, options)?;
    let metadata = footer.metadata();
    let file = DataFile {
        rows: u64::try_from(metadata.file_metadata().num_rows()).ok(),
        columns_with_nulls: columns_with_nulls(metadata),
        ..DataFile::new(path, bytes)
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
        file: Some(location.named(path)),
        source: source.into(),
    }
}
