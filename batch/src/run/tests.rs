//! Whole jobs, with a Rust function in place of the workers.

use std::collections::BTreeMap;
use std::fs::File;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::Duration;

use arrow_array::cast::AsArray as _;
use arrow_array::types::{Float64Type, Int64Type};
use arrow_array::{ArrayRef, Float64Array, Int64Array, RecordBatch, StringArray, StringViewArray};
use arrow_schema::DataType;
use datafusion::physical_plan::displayable;
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::file::properties::WriterProperties;
use tempfile::TempDir;

use super::*;
use crate::commit::Facts;
use crate::fake::{Fake, Trouble, schema_of};
use crate::location::Location;
use crate::target::Target;
use crate::{AsOf, Format, Identity, MapRows as _, Mode, snapshot};

mod buckets;
mod deltas;
mod failures;
mod filters;
mod formats;
mod groups;
mod identities;
mod ledgers;
mod models;
mod modes;
mod outputs;
mod parquets;
mod partitions;
mod vacuums;

const FORMATS: [Format; 2] = [Format::Delta, Format::Parquet];

/// A folder with an input table, a function and a job between them.
struct Bench {
    folder: TempDir,
    fake: Arc<Fake>,
    job: Job,
    components: Components,
    seen: Arc<Mutex<Vec<Progress>>>,
}

impl Bench {
    /// Input: `files` Parquet files of `rows` rows with the columns `id`, `x` and `unused`.
    fn new(fake: Fake, files: usize, rows: usize) -> Self {
        let folder = TempDir::new().unwrap();
        for file in 0..files {
            let rows = table_rows(file * rows, rows);
            write_parquet(
                &folder.path().join(format!("in/{file}.parquet")),
                &rows,
                1000,
            );
        }
        Self::on(folder, fake)
    }

    fn on(folder: TempDir, fake: Fake) -> Self {
        std::fs::create_dir_all(folder.path().join("in")).unwrap();
        let path = |name: &str| folder.path().join(name).to_string_lossy().into_owned();
        let mut job = Job::new(path("in"), path("out"));
        job.keep = vec!["id".into()];
        job.settings.batch_rows = NonZeroUsize::new(500).unwrap();
        job.settings.partitions = NonZeroUsize::new(3);
        let (fake, seen) = (Arc::new(fake), Arc::<Mutex<Vec<Progress>>>::default());
        let listener = Arc::clone(&seen);
        let components = Components {
            models: vec![Model::new(Arc::clone(&fake) as _)],
            id: Uuid::new_v4(),
            progress: Arc::new(move |progress| listener.lock().unwrap().push(progress)),
            stores: Stores::default(),
            cancelled: CancellationToken::new(),
        };
        Self {
            folder,
            fake,
            job,
            components,
            seen,
        }
    }

    /// The same with another function.
    fn with(mut self, fake: Fake) -> Self {
        self.fake = Arc::new(fake);
        self.components.models = vec![Model::new(Arc::clone(&self.fake) as _)];
        self
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    async fn run(&self) -> Result<Summary, Error> {
        let components = Components {
            id: Uuid::new_v4(),
            ..self.components.clone()
        };
        run(&self.job, &components).await
    }

    /// What the job refuses to do, without a call of the function or a file.
    async fn refused(&self) -> Error {
        let before = self.names();
        let error = self.run().await.expect_err("the job was done");
        assert_eq!(self.fake.calls(), 0, "the function was called");
        assert_eq!(self.names(), before, "files have changed");
        error
    }

    /// Everything below the folder.
    fn names(&self) -> Vec<String> {
        let mut names = vec![];
        let mut folders = vec![self.folder.path().to_path_buf()];
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                names.push(
                    path.strip_prefix(self.folder.path())
                        .unwrap()
                        .to_string_lossy()
                        .into_owned(),
                );
                if path.is_dir() {
                    folders.push(path);
                }
            }
        }
        names.sort();
        names
    }

    /// The output's predictions by key.
    async fn predictions(&self) -> BTreeMap<i64, f64> {
        let mut predictions = BTreeMap::new();
        let rows = read(&self.path("out")).await;
        for batch in &rows {
            let ids = batch
                .column_by_name("id")
                .unwrap()
                .as_primitive::<Int64Type>();
            let doubled = batch
                .column_by_name("prediction")
                .unwrap()
                .as_primitive::<Float64Type>();
            predictions.extend(
                ids.values()
                    .iter()
                    .copied()
                    .zip(doubled.values().iter().copied()),
            );
        }
        let count: usize = rows.iter().map(RecordBatch::num_rows).sum();
        assert_eq!(count, predictions.len(), "a key is there twice");
        predictions
    }
}

fn doubled(rows: usize) -> BTreeMap<i64, f64> {
    (0..rows)
        .map(|row| (row as i64, 2.0 * (row as f64 + 0.5)))
        .collect()
}

fn table_rows(first: usize, rows: usize) -> RecordBatch {
    let ids = first..first + rows;
    batch(&[
        (
            "id",
            Arc::new(ids.clone().map(|id| id as i64).collect::<Int64Array>()),
        ),
        (
            "unused",
            Arc::new(
                ids.clone()
                    .map(|id| Some(format!("row {id}")))
                    .collect::<StringArray>(),
            ),
        ),
        (
            "x",
            Arc::new(ids.map(|id| id as f64 + 0.5).collect::<Float64Array>()),
        ),
    ])
}

/// Lets somebody else's program write a table: Python with `folder` as its working folder.
fn written_by_python(folder: &Path, script: &str) {
    let python = acceptance::root().join(".venv/bin/python");
    let status = std::process::Command::new(python)
        .args(["-c", script])
        .current_dir(folder)
        .status();
    assert!(status.unwrap().success(), "{script}");
}

fn batch(columns: &[(&str, ArrayRef)]) -> RecordBatch {
    RecordBatch::try_from_iter_with_nullable(
        columns
            .iter()
            .map(|(name, column)| (*name, Arc::clone(column), true)),
    )
    .unwrap()
}

fn write_parquet(path: &Path, rows: &RecordBatch, group_rows: usize) {
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    let properties = WriterProperties::builder()
        .set_max_row_group_row_count(Some(group_rows))
        .build();
    let mut writer =
        ArrowWriter::try_new(File::create(path).unwrap(), rows.schema(), Some(properties)).unwrap();
    writer.write(rows).unwrap();
    writer.close().unwrap();
}

async fn read(table: &Path) -> Vec<RecordBatch> {
    let source = Source::open(&Location::parse(&table.to_string_lossy()).unwrap())
        .await
        .unwrap();
    let open = |path: &PathBuf| {
        ParquetRecordBatchReaderBuilder::try_new(File::open(path).unwrap()).unwrap()
    };
    source
        .files
        .iter()
        .flat_map(|file| open(&file.path).build().unwrap())
        .map(Result::unwrap)
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn each_row_comes_out_once_with_its_key() {
    let bench = Bench::new(Fake::new(), 3, 10_000);
    let summary = bench.run().await.unwrap();
    assert_eq!(bench.predictions().await, doubled(30_000));
    assert_eq!((summary.rows, summary.version), (30_000, Some(0)));
    let last = *bench.seen.lock().unwrap().last().unwrap();
    assert_eq!(
        last,
        Progress {
            rows_done: 30_000,
            rows_total: Some(30_000),
            files_done: summary.files
        }
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_have_the_rows_asked_for_whatever_the_row_groups() {
    let mut bench = Bench::new(Fake::new(), 1, 5_000);
    bench.job.settings.batch_rows = NonZeroUsize::new(2_500).unwrap();
    bench.job.settings.partitions = NonZeroUsize::new(1);
    bench.run().await.unwrap();
    assert_eq!(*bench.fake.sizes.lock().unwrap(), [2_500, 2_500]);
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_are_padded_to_tiles_and_outputs_cut() {
    let mut bench = Bench::new(Fake::new().with_tile(8), 1, 1_013);
    bench.job.settings.partitions = NonZeroUsize::new(1);
    bench.run().await.unwrap();
    assert_eq!(bench.predictions().await, doubled(1_013));
    assert_eq!(*bench.fake.sizes.lock().unwrap(), [496, 496, 24]);
}

#[tokio::test(flavor = "multi_thread")]
async fn many_batches_fit_through_few_partitions() {
    let mut bench = Bench::new(Fake::new(), 2, 4_000);
    bench.job.settings.batch_rows = NonZeroUsize::new(10).unwrap();
    bench.job.settings.partitions = NonZeroUsize::new(8);
    bench.run().await.unwrap();
    assert_eq!(bench.predictions().await, doubled(8_000));
}

async fn planned(bench: &Bench) -> String {
    let Bench {
        job, components, ..
    } = bench;
    let models = splittable(job, &components.models).unwrap();
    let decided = decide(job, components, models, None).await.unwrap();
    let attempt = Attempt::begin(&decided.target, components.id)
        .await
        .unwrap();
    let planned = plan(&decided, &attempt).await.unwrap();
    displayable(planned.plan.as_ref()).indent(false).to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plan_reads_only_the_columns_needed_and_has_our_two_nodes() {
    let bench = Bench::new(Fake::new(), 1, 10);
    let plan = planned(&bench).await;
    let lines: Vec<&str> = plan.lines().map(str::trim).collect();
    assert_eq!(lines.len(), 3, "{plan}");
    assert!(lines[0].starts_with("EnvelopeSink: folder="), "{plan}");
    assert!(
        lines[1].starts_with("EnvelopeMap: function=double, envelope=sha256:"),
        "{plan}"
    );
    assert!(lines[2].contains("projection=[x, id]"), "{plan}");
}

#[tokio::test(flavor = "multi_thread")]
async fn one_large_file_is_shared_out_among_all_partitions() {
    let bench = Bench::new(Fake::new(), 1, 10_000);
    let plan = planned(&bench).await;
    assert!(plan.contains("file_groups={3 groups:"), "{plan}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_without_rows_gives_a_table_without_rows() {
    for format in FORMATS {
        let mut bench = Bench::new(Fake::new(), 1, 0);
        bench.job.format = format;
        let summary = bench.run().await.unwrap();
        assert_eq!((summary.rows, summary.files), (0, 0));
        let out = Source::open(&Location::parse(&bench.job.output).unwrap())
            .await
            .unwrap();
        let names: Vec<_> = out
            .schema
            .fields()
            .iter()
            .map(|field| field.name().as_str())
            .collect();
        assert_eq!(names, ["id", "prediction"]);
        assert_eq!(out.rows(), Some(0));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn text_and_numbers_become_what_the_function_takes() {
    let mut bench = Bench::on(TempDir::new().unwrap(), Fake::new());
    let rows = batch(&[
        ("id", Arc::new(StringViewArray::from(vec!["a", "b"]))),
        ("x", Arc::new(arrow_array::Int32Array::from(vec![1, 2]))),
    ]);
    write_parquet(&bench.path("in/0.parquet"), &rows, 10);
    bench.job.settings.partitions = NonZeroUsize::new(1);
    bench.run().await.unwrap();
    let rows = read(&bench.path("out")).await;
    assert_eq!(rows[0].column(0).as_string::<i32>().value(1), "b");
    assert_eq!(
        rows[0].column(1).as_primitive::<Float64Type>().values(),
        &[2.0, 4.0]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn files_that_differ_in_width_are_read_as_the_wider_type() {
    let bench = Bench::on(TempDir::new().unwrap(), Fake::new());
    let narrow = batch(&[
        ("id", Arc::new(arrow_array::Int32Array::from(vec![0]))),
        ("x", Arc::new(arrow_array::Float32Array::from(vec![0.5]))),
    ]);
    write_parquet(&bench.path("in/0.parquet"), &narrow, 10);
    write_parquet(
        &bench.path("in/1.parquet"),
        &table_rows(1, 3).project(&[2, 0]).unwrap(),
        10,
    );
    bench.run().await.unwrap();
    assert_eq!(bench.predictions().await, doubled(4));
}
