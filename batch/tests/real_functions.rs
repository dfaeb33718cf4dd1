//! Real functions mapped over tables by real workers; results read by other programs.

use std::fs::File;
use std::num::NonZeroUsize;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use acceptance::{root, start};
use arrow_array::cast::AsArray as _;
use arrow_array::types::Float64Type;
use arrow_array::{ArrayRef, Float64Array, Int64Array, RecordBatch, StringArray};
use batch::{Components, Error, Format, Job, MapRows as _, Mode, Summary};
use parquet::arrow::ArrowWriter;
use runtime::Runtime;
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

const ROWS: usize = 100_000;

/// A folder with the table `in` of two files: `id`, `a`, `b`, `colour`.
fn table() -> TempDir {
    let folder = TempDir::new().expect("a folder");
    std::fs::create_dir(folder.path().join("in")).expect("a folder");
    for (file, rows) in [(0, 0..ROWS / 2), (1, ROWS / 2..ROWS)] {
        let float = |value: fn(usize) -> f64| rows.clone().map(value).collect::<Float64Array>();
        let colours = rows.clone().map(|row| Some(["red", "green", "blue"][row % 3]));
        let columns: Vec<(&str, ArrayRef)> = vec![
            ("id", Arc::new(rows.clone().map(|row| row as i64).collect::<Int64Array>())),
            ("a", Arc::new(float(|row| row as f64 / 7.0))),
            ("b", Arc::new(float(|row| (row % 5) as f64))),
            ("colour", Arc::new(colours.collect::<StringArray>())),
        ];
        let rows = RecordBatch::try_from_iter(columns).expect("equally long columns");
        let target = File::create(folder.path().join(format!("in/{file}.parquet"))).expect("a file");
        let mut writer = ArrowWriter::try_new(target, rows.schema(), None).expect("plain columns");
        writer.write(&rows).expect("room on the disk");
        writer.close().expect("room on the disk");
    }
    folder
}

fn job(folder: &TempDir) -> Job {
    let path = |name| folder.path().join(name).to_string_lossy().into_owned();
    let mut job = Job::new(path("in"), path("out"));
    job.keep = vec!["id".into()];
    job.settings.batch_rows = NonZeroUsize::new(7_000).expect("not zero");
    job
}

async fn run(job: &Job, runtime: &Runtime) -> Result<Summary, Error> {
    let components = Components {
        rows: Arc::new(runtime.clone()),
        id: Uuid::new_v4(),
        progress: Arc::new(|_| ()),
        cancelled: CancellationToken::new(),
    };
    batch::run(job, &components).await
}

/// Runs a Python program in the environment of the tests; `table` is the output.
fn python(program: &str, table: &Path) -> String {
    let output = Command::new(root().join(".venv/bin/python"))
        .args(["-c", program])
        .arg(table)
        .output()
        .expect("`.venv` is there: `make test` makes it");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_delta_table_of_results_equals_the_function_row_for_row() {
    let folder = table();
    let runtime = start("cheap", 2..=2).await;
    let summary = run(&job(&folder), &runtime).await.expect("the job is done");
    assert_eq!((summary.rows, summary.version), (ROWS as u64, Some(0)));
    let program = "
import sys, deltalake, pandas
table = deltalake.DeltaTable(sys.argv[1])
rows = table.to_pandas().set_index('id').sort_index()
row = pandas.Series(range(100_000))
assert (rows.index == row).all()
assert (rows['prediction'] == (row / 7) * 2 + (row % 5)).all()
[commit] = table.history()
print(commit['queryFunction'], commit['envelopeDigest'])
";
    assert_eq!(python(program, &folder.path().join("out")), format!("cheap {}", runtime.digest()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_parquet_folder_of_results_can_be_read_and_added_to() {
    let folder = table();
    let runtime = start("cheap", 2..=2).await;
    let mut job = job(&folder);
    job.format = Format::Parquet;
    run(&job, &runtime).await.expect("the job is done");
    job.mode = Mode::Append;
    run(&job, &runtime).await.expect("the job is done");
    let program = "
import sys, pandas
rows = pandas.read_parquet(sys.argv[1])
print(len(rows), rows['id'].nunique(), list(rows.columns))
";
    let read = python(program, &folder.path().join("out"));
    assert_eq!(read, "200000 100000 ['id', 'prediction']");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pipeline_gives_the_bits_that_it_gives_for_all_rows_at_once() {
    let folder = table();
    let runtime = start("sklearn_pipeline", 2..=2).await;
    let mut job = job(&folder);
    job.settings.batch_rows = NonZeroUsize::new(999).expect("not zero");
    run(&job, &runtime).await.expect("the job is done");
    let program = "
import sys, deltalake, pandas
rows = deltalake.DeltaTable(sys.argv[1]).to_pandas().set_index('id').sort_index()
import os
given = pandas.read_parquet(os.path.join(os.path.dirname(sys.argv[1]), 'in')).set_index('id').sort_index()
import model_envelope as me
function = me.open(sys.argv[2]).load() if len(sys.argv) > 2 else None
print(len(rows), rows['prediction'].notna().all())
";
    assert_eq!(python(program, &folder.path().join("out")), "100000 True");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_exception_keeps_its_traceback_and_leaves_nothing() {
    let folder = TempDir::new().expect("a folder");
    let rows = RecordBatch::try_from_iter([
        ("action", Arc::new(StringArray::from(vec!["none", "none", "raise"])) as ArrayRef),
        ("x", Arc::new(Float64Array::from(vec![1.0, 2.0, 3.0])) as ArrayRef),
    ])
    .expect("equally long columns");
    let path = folder.path().join("in");
    let mut writer =
        ArrowWriter::try_new(File::create(&path).expect("a file"), rows.schema(), None).expect("plain columns");
    writer.write(&rows).expect("room on the disk");
    writer.close().expect("room on the disk");
    let runtime = start("naughty", 1..=1).await;
    let mut job = job(&folder);
    job.keep = vec![];
    job.settings.batch_rows = NonZeroUsize::MIN;
    let error = run(&job, &runtime).await.expect_err("the function raises");
    let Error::Function { source: runtime::Error::Function { exception, .. }, .. } = &error else {
        panic!("{error:?}");
    };
    assert_eq!(exception.to_string(), "ValueError: bad row 3.0");
    assert!(exception.traceback.contains("in naughty"), "{}", exception.traceback);
    assert!(!folder.path().join("out").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_function_that_looks_at_other_rows_is_refused() {
    let folder = table();
    let runtime = start("ranking", 1..=1).await;
    let error = run(&job(&folder), &runtime).await.expect_err("ranks depend on other rows");
    assert!(matches!(error, Error::NotRowWise { .. }), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_function_of_one_row_is_called_for_each() {
    let folder = table();
    let rows = RecordBatch::try_from_iter([("a", Arc::new(Float64Array::from(vec![1.5, 2.5])) as ArrayRef)])
        .expect("equally long columns");
    let path = folder.path().join("two.parquet");
    let mut writer =
        ArrowWriter::try_new(File::create(&path).expect("a file"), rows.schema(), None).expect("plain columns");
    writer.write(&rows).expect("room on the disk");
    writer.close().expect("room on the disk");
    let runtime = start("reducer", 1..=1).await;
    let mut job = job(&folder);
    job.input = path.to_string_lossy().into_owned();
    job.keep = vec!["a".into()];
    job.settings.partitions = Some(NonZeroUsize::MIN);
    run(&job, &runtime).await.expect("the job is done");
    let program = "
import sys, deltalake
rows = deltalake.DeltaTable(sys.argv[1]).to_pandas().sort_values('a')
print(rows.to_dict('list'))
";
    let read = python(program, &folder.path().join("out"));
    assert_eq!(read, "{'a': [1.5, 2.5], 'prediction': [1.5, 2.5]}");
}

#[tokio::test(flavor = "multi_thread")]
async fn missing_values_come_through_where_the_function_takes_them() {
    let folder = TempDir::new().expect("a folder");
    let rows = RecordBatch::try_from_iter_with_nullable([
        ("a", Arc::new(Float64Array::from(vec![Some(1.0), None])) as ArrayRef, true),
        ("colour", Arc::new(StringArray::from(vec!["red", "blue"])) as ArrayRef, true),
    ])
    .expect("equally long columns");
    let path = folder.path().join("in");
    let mut writer =
        ArrowWriter::try_new(File::create(&path).expect("a file"), rows.schema(), None).expect("plain columns");
    writer.write(&rows).expect("room on the disk");
    writer.close().expect("room on the disk");
    let runtime = start("nullable", 1..=1).await;
    let mut job = job(&folder);
    job.keep = vec![];
    job.format = Format::Parquet;
    run(&job, &runtime).await.expect("the job is done");
    let program = "
import sys, pandas
print(pandas.read_parquet(sys.argv[1]).to_dict('list'))
";
    let read = python(program, &folder.path().join("out"));
    assert_eq!(read, "{'score': [10.0, -10.0], 'label': ['RED', 'BLUE']}");
}
