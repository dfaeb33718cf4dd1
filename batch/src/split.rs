//! Finished splits: what one attempt at a job has computed and the next one need not.
//!
//! A split is one partition of the plan: exact ranges of exact files, and all that is done to their
//! rows. When its files are on the disk, a note says so; it has the split's digest as its name, so an
//! attempt that would read something else, or do something else with it, never sees the note.

use std::sync::Arc;

use datafusion::datasource::listing::PartitionedFile;
use datafusion::datasource::physical_plan::FileScanConfig;
use datafusion::datasource::source::DataSourceExec;
use datafusion::error::{DataFusionError, Result as EngineResult};
use datafusion::execution::runtime_env::RuntimeEnv;
use datafusion::physical_plan::{ExecutionPlan, displayable};
use envelope_format::Digest;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt as _, PutMode, PutOptions};
use serde::Serialize;

use crate::part_file::Part;

/// Nodes that give the rows of their one input's partition, and of no other.
const KEEP_PARTITIONS: [&str; 5] = [
    "EnvelopeMap",
    "FilterExec",
    "ProjectionExec",
    "CoalesceBatchesExec",
    "CooperativeExec",
];

/// One partition of a plan, and where its note is.
#[derive(Debug)]
pub(crate) struct Split {
    note: Path,
}

/// What a split's digest is over.
#[derive(Debug, Serialize)]
struct Work {
    /// What is done to the rows, from the last step to the first.
    steps: Vec<String>,
    /// The columns that are read, and which rows.
    read: String,
    files: Vec<Range>,
}

#[derive(Debug, Serialize)]
struct Range {
    file: String,
    bytes: u64,
    /// What tells this content of the file from another one.
    content: String,
    range: Option<(i64, i64)>,
    /// Values of partition columns.
    values: Vec<String>,
}

impl Split {
    /// The partition of `input` whose rows become the files that `sink` describes. None where that
    /// cannot be told from the plan: such a partition is computed each time.
    pub(crate) async fn of(
        (input, partition): (&Arc<dyn ExecutionPlan>, usize),
        sink: String,
        environment: &RuntimeEnv,
        folder: &Path,
    ) -> EngineResult<Option<Self>> {
        let Some((mut steps, scan)) = walk(input) else {
            return Ok(None);
        };
        steps.insert(0, sink);
        let Some(group) = scan.file_groups.get(partition) else {
            return Ok(None);
        };
        let store = environment.object_store(&scan.object_store_url)?;
        let mut files = vec![];
        for file in group.files() {
            files.push(range(file, &store).await?);
        }
        let work = Work {
            steps,
            read: read(scan)?,
            files,
        };
        let text = serde_json::to_vec(&work).map_err(external)?;
        let name = format!("{}.json", &Digest::of(&text).hex()[..32]);
        let note = folder.parts().chain([name.as_str().into()]).collect();
        Ok(Some(Self { note }))
    }

    /// The files of an attempt that has finished this split, if they are all there.
    pub(crate) async fn finished(
        &self,
        store: &dyn ObjectStore,
        files: &Path,
    ) -> EngineResult<Option<Vec<Part>>> {
        let note = match store.get(&self.note).await {
            Ok(found) => found.bytes().await?,
            Err(object_store::Error::NotFound { .. }) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let Ok(parts) = serde_json::from_slice::<Vec<Part>>(&note) else {
            return Ok(None);
        };
        for part in &parts {
            let path = Path::parse(format!("{files}/{}", part.name))?;
            match store.head(&path).await {
                Ok(found) if found.size == part.bytes => {}
                Ok(_) | Err(object_store::Error::NotFound { .. }) => return Ok(None),
                Err(error) => return Err(error.into()),
            }
        }
        Ok(Some(parts))
    }

    /// Notes that the split is finished. Its files are on the disk.
    pub(crate) async fn note(&self, store: &dyn ObjectStore, parts: &[Part]) -> EngineResult<()> {
        let text = serde_json::to_vec(parts).map_err(external)?;
        // One that is there names files that are not there any more, or it would have been used.
        let options = PutOptions {
            mode: PutMode::Overwrite,
            ..PutOptions::default()
        };
        store.put_opts(&self.note, text.into(), options).await?;
        Ok(())
    }
}

/// The steps between the sink and the scan, and the scan.
fn walk(input: &Arc<dyn ExecutionPlan>) -> Option<(Vec<String>, &FileScanConfig)> {
    let mut steps = vec![];
    let mut node = input;
    loop {
        if let Some(scan) = node.downcast_ref::<DataSourceExec>() {
            return Some((steps, scan.data_source().downcast_ref::<FileScanConfig>()?));
        }
        if !KEEP_PARTITIONS.contains(&node.name()) {
            return None;
        }
        steps.push(displayable(node.as_ref()).one_line().to_string());
        let [child] = node.children()[..] else {
            return None;
        };
        node = child;
    }
}

fn read(scan: &FileScanConfig) -> EngineResult<String> {
    let columns = scan.projected_schema()?;
    let rows = scan.file_source.filter().map(|filter| filter.to_string());
    Ok(format!(
        "{} in {:?} {columns:?} where {rows:?} limit {:?}",
        scan.file_source.file_type(),
        scan.object_store_url,
        scan.limit
    ))
}

async fn range(file: &PartitionedFile, store: &dyn ObjectStore) -> EngineResult<Range> {
    let location = &file.object_meta.location;
    let found = store.head(location).await?;
    Ok(Range {
        file: location.to_string(),
        bytes: found.size,
        content: found
            .e_tag
            .unwrap_or_else(|| found.last_modified.to_rfc3339()),
        range: file.range.as_ref().map(|range| (range.start, range.end)),
        values: file
            .partition_values
            .iter()
            .map(|value| format!("{value:?}"))
            .collect(),
    })
}

fn external(error: serde_json::Error) -> DataFusionError {
    DataFusionError::External(Box::new(error))
}
