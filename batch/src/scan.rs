//! Plans the reading of a [`Source`]: only the columns asked for, shared out by bytes.

use std::path::Path;
use std::sync::Arc;

use arrow_schema::{DataType, Field, FieldRef, Schema, SchemaRef};
use async_trait::async_trait;
use datafusion::catalog::{Session, TableProvider};
use datafusion::config::{CsvOptions, TableParquetOptions};
use datafusion::datasource::TableType;
use datafusion::datasource::listing::PartitionedFile;
use datafusion::datasource::physical_plan::{
    ArrowSource, CsvSource, FileGroup, FileScanConfigBuilder, FileSource, JsonSource, ParquetSource,
};
use datafusion::datasource::source::DataSourceExec;
use datafusion::datasource::table_schema::TableSchema;
use datafusion::error::Result;
use datafusion::logical_expr::{Expr, TableProviderFilterPushDown};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::empty::EmptyExec;
use datafusion::scalar::ScalarValue;

use crate::Error;
use crate::formats::Encoding;
use crate::location::store_path;
use crate::schema::other_than;
use crate::source::{DataFile, Source};
use crate::stores::store_url;

/// The files of one snapshot as a table of the query engine.
#[derive(Debug)]
pub(crate) struct SnapshotTable {
    pub(crate) source: Arc<Source>,
    /// Whether each file knows where in the table it begins.
    pub(crate) placed: bool,
}

impl SnapshotTable {
    pub(crate) fn new(source: Arc<Source>) -> Self {
        Self {
            source,
            placed: false,
        }
    }

    /// The same, of which each part can tell [where it begins](beginning).
    pub(crate) fn placed(self) -> Self {
        Self {
            placed: true,
            ..self
        }
    }

    /// The columns that are the same for all rows of a file.
    fn partition_columns(&self) -> Vec<FieldRef> {
        let columns = self.source.partition_fields();
        let offset = self.placed.then(|| {
            let name = other_than("offset", self.source.scanned.fields());
            Arc::new(Field::new(name, DataType::UInt64, false))
        });
        columns.iter().cloned().chain(offset).collect()
    }

    fn projected(&self, projection: Option<&Vec<usize>>) -> Result<SchemaRef> {
        Ok(match projection {
            None => Arc::clone(&self.source.scanned),
            Some(columns) => Arc::new(Schema::project(&self.source.scanned, columns)?),
        })
    }
}

#[async_trait]
impl TableProvider for SnapshotTable {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.source.scanned)
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    /// Files and parts of files are left out where their statistics allow, single rows are not.
    fn supports_filters_pushdown(
        &self,
        filters: &[&Expr],
    ) -> Result<Vec<TableProviderFilterPushDown>> {
        Ok(vec![TableProviderFilterPushDown::Inexact; filters.len()])
    }

    async fn scan(
        &self,
        session: &dyn Session,
        projection: Option<&Vec<usize>>,
        _filters: &[Expr],
        _limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        if self.source.files.is_empty() {
            return Ok(Arc::new(EmptyExec::new(self.projected(projection)?)));
        }
        let schema = TableSchema::builder(self.source.file_schema())
            .with_table_partition_cols(self.partition_columns())
            .build();
        let reader = reader(self.source.kind.encoding, schema, session);
        let files = self
            .source
            .files
            .iter()
            .map(partitioned_file)
            .collect::<Result<Vec<_>, _>>();
        let mut files = files.map_err(Error::into_engine)?;
        if self.placed {
            place(&mut files);
        }
        let files = FileGroup::new(files);
        // Without the place of its file, which no row has.
        let all = || (0..self.source.scanned.fields().len()).collect();
        let projection = projection.cloned().unwrap_or_else(all);
        let groups = match self.source.kind.is_splittable() {
            // One group: the optimizer cuts it into as many ranges of equal length as there are
            // partitions, across the borders of files.
            true => vec![files],
            false => files.split_files(session.config().target_partitions()),
        };
        let scan = FileScanConfigBuilder::new(store_url(&self.source.store)?, reader)
            .with_file_groups(groups)
            .with_file_compression_type(self.source.kind.compression)
            .with_projection_indices(Some(projection))?
            .build();
        Ok(DataSourceExec::from_data_source(scan))
    }
}

/// What decodes files. All are the engine's own, which clusters know how to share out.
fn reader(encoding: Encoding, schema: TableSchema, session: &dyn Session) -> Arc<dyn FileSource> {
    match encoding {
        Encoding::Parquet => {
            let options = TableParquetOptions {
                global: session.config_options().execution.parquet.clone(),
                ..TableParquetOptions::default()
            };
            Arc::new(ParquetSource::new(schema).with_table_parquet_options(options))
        }
        Encoding::Csv => {
            let options = CsvOptions {
                has_header: Some(true),
                newlines_in_values: Some(true),
                ..CsvOptions::default()
            };
            Arc::new(CsvSource::new(schema).with_csv_options(options))
        }
        Encoding::JsonLines => Arc::new(JsonSource::new(schema)),
        Encoding::Arrow => Arc::new(ArrowSource::new_file_source(schema)),
    }
}

fn partitioned_file(file: &DataFile) -> Result<PartitionedFile, Error> {
    let location = store_path(Path::new(&file.path))?;
    let mut planned = PartitionedFile::new(String::new(), file.bytes);
    planned.object_meta.location = location;
    Ok(planned.with_partition_values(file.partition_values.clone()))
}

/// Says of each file where it begins if all files follow each other in the order of their names.
fn place(files: &mut [PartitionedFile]) {
    // As the engine sorts them where it cannot cut them.
    files.sort_by(|one, other| one.path().cmp(other.path()));
    let mut offset = 0;
    for file in files {
        let place = ScalarValue::UInt64(Some(offset));
        file.partition_values.push(place);
        offset += file.object_meta.size;
    }
}

/// Where in its [placed](SnapshotTable::placed) table a part begins, in bytes. Tells it also of one that was cut
/// out of a plan and has no number there any more.
pub(crate) fn beginning(part: &FileGroup) -> Option<u64> {
    let first = part.files().first()?;
    let Some(ScalarValue::UInt64(Some(offset))) = first.partition_values.last() else {
        return None;
    };
    let start = first.range.as_ref().map_or(0, |range| range.start);
    Some(offset + u64::try_from(start).ok()?)
}
