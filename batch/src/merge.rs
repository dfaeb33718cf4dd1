//! Rows that take the place of those with the same key.
//!
//! A file in which a row has a key of the results is written anew without such rows; other files stay as
//! they are.

use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::Arc;

use arrow_array::{Array as _, ArrayRef, BooleanArray, RecordBatch, new_null_array};
use arrow_cast::cast;
use arrow_cast::display::{ArrayFormatter, FormatOptions};
use arrow_schema::{ArrowError, FieldRef, Schema, SchemaRef};
use arrow_select::filter::filter_record_batch;
use datafusion::arrow::row::{RowConverter, SortField};
use datafusion::functions_aggregate::min_max::{MaxAccumulator, MinAccumulator};
use datafusion::logical_expr::Accumulator as _;
use datafusion::scalar::ScalarValue;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{ArrowReaderOptions, ParquetRecordBatchReaderBuilder};
use tokio::sync::mpsc;

use crate::Error;
use crate::attempt::{Attempt, file_name};
use crate::layout::Layout;
use crate::location::{Location, store_path};
use crate::part_file::{Part, PartFile};
use crate::point;
use crate::source::DataFile;
use crate::target::Target;

/// Rows that are looked at together.
const BATCH_ROWS: usize = 1 << 16;

/// Batches that wait for the writer while the next one is read.
const BATCHES_AHEAD: usize = 1;

/// The keys of the results: all of them in memory, encoded, some ten bytes and the key for each row.
pub(crate) struct Keys {
    place: Location,
    layout: Layout,
    columns: Vec<KeyColumn>,
    converter: RowConverter,
    rows: HashSet<Box<[u8]>>,
}

/// One column of the key, and the least and greatest value of the results.
struct KeyColumn {
    field: FieldRef,
    least: MinAccumulator,
    greatest: MaxAccumulator,
    range: Option<(ScalarValue, ScalarValue)>,
}

/// A file of a table, with what all its rows have in the partition columns.
struct OneFile {
    path: PathBuf,
    values: Vec<ScalarValue>,
}

/// What is left of a file of the table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Left {
    /// All: no row has a key of the results.
    All,
    /// Nothing.
    Nothing,
    /// Some rows, in a new file.
    Some(Part),
}

impl Keys {
    /// The keys of the rows in `parts`; none if rows are not merged. Refuses keys that are there twice, or
    /// lack a value.
    pub(crate) async fn of(
        target: &Target,
        attempt: &Attempt,
        parts: &[Part],
    ) -> Result<Option<Arc<Self>>, Error> {
        if target.merge_on.is_empty() {
            return Ok(None);
        }
        let engine = |source| Error::Engine { source };
        let mut keys = Self::none(target).map_err(engine)?;
        let file = |part: &Part| {
            Ok(OneFile {
                path: attempt.folder().join(&part.name),
                values: target.layout.scalars(&part.values).map_err(engine)?,
            })
        };
        let files = parts.iter().map(file).collect::<Result<Vec<_>, Error>>()?;
        let gather = move || {
            for file in &files {
                keys.gather(file)?;
            }
            for column in &mut keys.columns {
                column.settle().map_err(engine)?;
            }
            Ok(Some(Arc::new(keys)))
        };
        blocking(gather).await
    }

    fn none(target: &Target) -> datafusion::error::Result<Self> {
        let written = &target.written;
        let fields = written
            .fields()
            .iter()
            .filter(|field| target.merge_on.contains(field.name()));
        let columns = fields
            .map(|field| {
                Ok(KeyColumn {
                    field: Arc::clone(field),
                    least: MinAccumulator::try_new(field.data_type())?,
                    greatest: MaxAccumulator::try_new(field.data_type())?,
                    range: None,
                })
            })
            .collect::<datafusion::error::Result<Vec<_>>>()?;
        let sorts = columns
            .iter()
            .map(|column| SortField::new(column.field.data_type().clone()));
        Ok(Self {
            place: target.location.clone(),
            layout: target.layout.clone(),
            converter: RowConverter::new(sorts.collect())?,
            columns,
            rows: HashSet::new(),
        })
    }

    fn schema(&self) -> SchemaRef {
        let fields = self.columns.iter().map(|column| Arc::clone(&column.field));
        Arc::new(Schema::new(fields.collect::<Vec<_>>()))
    }

    fn gather(&mut self, file: &OneFile) -> Result<(), Error> {
        for batch in self.read(file, &self.schema())? {
            let batch = batch.map_err(|source| self.unreadable(file, source))?;
            self.add(&batch)?;
        }
        Ok(())
    }

    fn add(&mut self, keys: &RecordBatch) -> Result<(), Error> {
        let engine = |source| Error::Engine { source };
        for (column, values) in self.columns.iter_mut().zip(keys.columns()) {
            column.add(values)?;
        }
        let rows = self.converter.convert_columns(keys.columns());
        let rows = rows.map_err(|source| engine(source.into()))?;
        for (position, row) in rows.iter().enumerate() {
            if !self.rows.insert(row.data().into()) {
                let key = told(keys, position).map_err(|source| engine(source.into()))?;
                return Err(Error::KeyTwice { key });
            }
        }
        Ok(())
    }

    /// What is left of `file` of the table when the rows with these keys have gone. A new file is the one
    /// with the number `position`.
    pub(crate) async fn left(
        self: &Arc<Self>,
        file: &DataFile,
        attempt: &Attempt,
        (position, statistics): (usize, bool),
    ) -> Result<Left, Error> {
        let one = OneFile {
            path: file.path.clone(),
            values: self.of_types(&file.partition_values)?,
        };
        if self.misses(file, &one) {
            return Ok(Left::All);
        }
        let keys = Arc::clone(self);
        let (one, (all, hit)) = blocking(move || {
            let counts = keys.count(&one)?;
            Ok((one, counts))
        })
        .await?;
        match hit {
            0 => Ok(Left::All),
            hit if hit == all => Ok(Left::Nothing),
            _ => {
                let values = Layout::texts(&file.partition_values);
                let name = file_name(0, position, &format!("{}-merged", attempt.job()));
                let name = format!("{}{name}", self.layout.folder(&values)?);
                let folder = store_path(attempt.folder())?;
                let part = PartFile::begin(
                    (attempt.store(), &folder),
                    (name, values),
                    &self.layout.of_files(),
                    statistics,
                )?;
                self.copy(one, part).await.map(Left::Some)
            }
        }
    }

    /// Values of partition columns with the types that they are written with.
    fn of_types(&self, values: &[ScalarValue]) -> Result<Vec<ScalarValue>, Error> {
        let types = self.layout.types();
        let cast = values
            .iter()
            .zip(types)
            .map(|(value, wanted)| value.cast_to(wanted));
        let cast: Result<_, _> = cast.collect();
        cast.map_err(|source| Error::Engine { source })
    }

    /// Whether what is known of the file rules out that a row has a key of the results.
    fn misses(&self, file: &DataFile, one: &OneFile) -> bool {
        let partitions = self.layout.columns();
        self.columns.iter().any(|column| {
            let name = column.field.name();
            let range = match partitions.iter().position(|partition| partition == name) {
                Some(position) => one.values.get(position).map(|value| (value, value)),
                None => file.ranges.get(name).map(|(least, most)| (least, most)),
            };
            match (&column.range, range) {
                (Some((least, greatest)), Some((from, to))) => {
                    // Values of types that are not the same are not compared.
                    to < least || from > greatest
                }
                // Without rows there are no keys.
                (None, _) => true,
                (Some(_), None) => false,
            }
        })
    }

    /// How many rows the file has, and how many of them have a key of the results.
    fn count(&self, file: &OneFile) -> Result<(usize, usize), Error> {
        let (mut all, mut hit) = (0, 0);
        for batch in self.read(file, &self.schema())? {
            let batch = batch.map_err(|source| self.unreadable(file, source))?;
            all += batch.num_rows();
            let stays = self.stays(&batch);
            let stays = stays.map_err(|source| self.unreadable(file, source))?;
            hit += stays.false_count();
        }
        Ok((all, hit))
    }

    /// Which rows have no key of the results.
    fn stays(&self, keys: &RecordBatch) -> Result<BooleanArray, ArrowError> {
        let rows = self.converter.convert_columns(keys.columns())?;
        let stays = rows.iter().map(|row| Some(!self.rows.contains(row.data())));
        Ok(stays.collect())
    }

    /// Writes the rows that stay to `part`. Reading and writing overlap.
    async fn copy(self: &Arc<Self>, file: OneFile, mut part: PartFile) -> Result<Part, Error> {
        let (send, mut receive) = mpsc::channel(BATCHES_AHEAD);
        let keys = Arc::clone(self);
        let reading = tokio::task::spawn_blocking(move || keys.send(&file, &send));
        while let Some(rows) = receive.recv().await {
            part.write(&rows).await?;
        }
        reading.await.map_err(|error| panicked(&error))??;
        let part = part.finish().await?;
        point::reached(point::REWRITTEN);
        Ok(part)
    }

    fn send(&self, file: &OneFile, to: &mpsc::Sender<RecordBatch>) -> Result<(), Error> {
        let written = self.layout.written();
        for batch in self.read(file, written)? {
            let kept = batch.and_then(|batch| self.kept(&batch));
            let kept = kept.map_err(|source| self.unreadable(file, source))?;
            if kept.num_rows() > 0 && to.blocking_send(kept).is_err() {
                // The writer has failed, and says why.
                return Ok(());
            }
        }
        Ok(())
    }

    /// The rows that stay, with the columns of files.
    fn kept(&self, rows: &RecordBatch) -> Result<RecordBatch, ArrowError> {
        let positions = |schema: &Schema| {
            let names = schema.fields().iter();
            let positions = names.map(|field| rows.schema_ref().index_of(field.name()));
            positions.collect::<Result<Vec<_>, _>>()
        };
        let stays = self.stays(&rows.project(&positions(&self.schema())?)?)?;
        let of_files = rows.project(&positions(&self.layout.of_files())?)?;
        filter_record_batch(&of_files, &stays)
    }

    /// Reads columns of a file of the table.
    fn read<'f>(
        &self,
        file: &'f OneFile,
        columns: &SchemaRef,
    ) -> Result<impl Iterator<Item = Result<RecordBatch, ArrowError>> + use<'f>, Error> {
        let opened = self
            .place
            .open(&file.path)
            .map_err(|source| self.unreadable(file, source))?;
        let options = ArrowReaderOptions::new().with_skip_arrow_metadata(true);
        let builder = ParquetRecordBatchReaderBuilder::try_new_with_options(opened, options)
            .map_err(|source| self.unreadable(file, source))?;
        let there = builder.schema().fields().iter().enumerate();
        let wanted = there.filter(|(_, field)| columns.fields().find(field.name()).is_some());
        let wanted: Vec<usize> = wanted.map(|(position, _)| position).collect();
        let mask = ProjectionMask::roots(builder.parquet_schema(), wanted);
        let reader = builder
            .with_projection(mask)
            .with_batch_size(BATCH_ROWS)
            .build()
            .map_err(|source| self.unreadable(file, source))?;
        let (columns, partitions) = (Arc::clone(columns), self.layout.columns());
        Ok(reader.map(move |batch| {
            let partitions = partitions.iter().map(String::as_str).zip(&file.values);
            of_columns(&batch?, &columns, &partitions.collect::<Vec<_>>())
        }))
    }

    fn unreadable(
        &self,
        file: &OneFile,
        source: impl std::error::Error + Send + Sync + 'static,
    ) -> Error {
        Error::Read {
            table: self.place.to_string(),
            file: Some(self.place.named(&file.path)),
            source: Box::new(source),
        }
    }
}

impl KeyColumn {
    fn add(&mut self, values: &ArrayRef) -> Result<(), Error> {
        if values.null_count() > 0 {
            return Err(Error::MergeOn {
                column: self.field.name().clone(),
                reason: "a row of the results has no value in it".into(),
            });
        }
        let values = std::slice::from_ref(values);
        let least = self.least.update_batch(values);
        let both = least.and_then(|()| self.greatest.update_batch(values));
        both.map_err(|source| Error::Engine { source })
    }

    fn settle(&mut self) -> datafusion::error::Result<()> {
        let (least, greatest) = (self.least.evaluate()?, self.greatest.evaluate()?);
        self.range = (!least.is_null()).then_some((least, greatest));
        Ok(())
    }
}

/// The same rows with the columns `wanted`: those of folders with their value, those that are missing
/// without one, the others with the type that is written today.
fn of_columns(
    rows: &RecordBatch,
    wanted: &SchemaRef,
    partitions: &[(&str, &ScalarValue)],
) -> Result<RecordBatch, ArrowError> {
    let column = |field: &FieldRef| {
        if let Some((_, value)) = partitions.iter().find(|(name, _)| name == field.name()) {
            return Ok(value.to_array_of_size(rows.num_rows())?);
        }
        match rows.column_by_name(field.name()) {
            Some(column) if column.data_type() == field.data_type() => Ok(Arc::clone(column)),
            Some(column) => cast(column, field.data_type()),
            None => Ok(new_null_array(field.data_type(), rows.num_rows())),
        }
    };
    let columns: Result<Vec<_>, ArrowError> = wanted.fields().iter().map(column).collect();
    RecordBatch::try_new(Arc::clone(wanted), columns?)
}

/// A key as messages tell it.
fn told(keys: &RecordBatch, row: usize) -> Result<String, ArrowError> {
    let options = FormatOptions::default();
    let one = |(field, column): (&FieldRef, &ArrayRef)| {
        let formatter = ArrayFormatter::try_new(column, &options)?;
        Ok(format!("`{}` = {}", field.name(), formatter.value(row)))
    };
    let fields = keys.schema_ref().fields().iter();
    let told: Result<Vec<_>, ArrowError> = fields.zip(keys.columns()).map(one).collect();
    Ok(told?.join(", "))
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|error| panicked(&error))?
}

fn panicked(error: &tokio::task::JoinError) -> Error {
    Error::Panicked {
        message: error.to_string(),
    }
}
