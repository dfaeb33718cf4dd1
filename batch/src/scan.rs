//! Plans the reading of a [`Source`]: only the columns asked for, shared out by bytes.

use std::path::Path;
use std::sync::Arc;

use arrow_schema::{Schema, SchemaRef};
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

use crate::Error;
use crate::formats::Encoding;
use crate::location::store_path;
use crate::source::{DataFile, Source};
use crate::stores::store_url;

/// The files of one snapshot as a table of the query engine.
#[derive(Debug)]
pub(crate) struct SnapshotTable {
    pub(crate) source: Arc<Source>,
}

impl SnapshotTable {
    pub(crate) fn new(source: Arc<Source>) -> Self {
        Self { source }
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
            .with_table_partition_cols(
                self.source
                    .partition_fields()
                    .iter()
                    .cloned()
                    .collect::<Vec<_>>(),
            )
            .build();
        let reader = reader(self.source.kind.encoding, schema, session);
        let files = self
            .source
            .files
            .iter()
            .map(partitioned_file)
            .collect::<Result<Vec<_>, _>>();
        let files = FileGroup::new(files.map_err(Error::into_engine)?);
        let groups = match self.source.kind.is_splittable() {
            // One group: the optimizer cuts it into as many ranges of equal length as there are
            // partitions, across the borders of files.
            true => vec![files],
            false => files.split_files(session.config().target_partitions()),
        };
        let scan = FileScanConfigBuilder::new(store_url(&self.source.store)?, reader)
            .with_file_groups(groups)
            .with_file_compression_type(self.source.kind.compression)
            .with_projection_indices(projection.cloned())?
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
