//! Functions in real workers, mapped over tables; the results are read by other programs.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs::File;
use std::num::NonZeroUsize;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use acceptance::{envelope_path, root, start};
use arrow_array::{ArrayRef, Float64Array, Int64Array, RecordBatch, StringArray};
use batch::{Components, Error, Format, Job, MapRows as _, Mode, Model, Summary};
use parquet::arrow::ArrowWriter;
use runtime::Runtime;
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

const ROWS: usize = 100_000;

/// A folder with the table `in` of two files: `id`, `a`, `b`, `colour`, and, to group by, `five` and `tenth`.
fn large() -> TempDir {
    let folder = TempDir::new().unwrap();
    std::fs::create_dir(folder.path().join("in")).unwrap();
    for (file, rows) in [(0, 0..ROWS / 2), (1, ROWS / 2..ROWS)] {
        let floats = |value: fn(usize) -> f64| rows.clone().map(value).collect::<Float64Array>();
        let colours = rows
            .clone()
            .map(|row| Some(["red", "green", "blue"][row % 3]));
        let whole =
            |value: fn(usize) -> Option<i64>| rows.clone().map(value).collect::<Int64Array>();
        let columns: [(&str, ArrayRef); 6] = [
            (
                "id",
                Arc::new(rows.clone().map(|row| row as i64).collect::<Int64Array>()),
            ),
            ("a", Arc::new(floats(|row| row as f64 / 7.0))),
            ("b", Arc::new(floats(|row| (row % 5) as f64))),
            ("colour", Arc::new(colours.collect::<StringArray>())),
            (
                "five",
                Arc::new(whole(|row| Some(row as i64 % 5).filter(|five| *five < 4))),
            ),
            ("tenth", Arc::new(whole(|row| Some(row as i64 / 10)))),
        ];
        write(&folder.path().join(format!("in/{file}.parquet")), columns);
    }
    folder
}

/// A folder with the table `in` of one file.
fn small<const N: usize>(columns: [(&str, ArrayRef); N]) -> TempDir {
    let folder = TempDir::new().unwrap();
    write(&folder.path().join("in"), columns);
    folder
}

fn write<const N: usize>(path: &Path, columns: [(&str, ArrayRef); N]) {
    let rows = RecordBatch::try_from_iter(columns).unwrap();
    let mut writer =
        ArrowWriter::try_new(File::create(path).unwrap(), rows.schema(), None).unwrap();
    writer.write(&rows).unwrap();
    writer.close().unwrap();
}

fn job(folder: &TempDir, keep: &[&str]) -> Job {
    let path = |name| folder.path().join(name).to_string_lossy().into_owned();
    let mut job = Job::new(path("in"), path("out"));
    job.keep = keep.iter().map(|name| (*name).to_owned()).collect();
    job.settings.batch_rows = NonZeroUsize::new(7_000).unwrap();
    job
}

async fn run(job: &Job, runtime: &Runtime) -> Result<Summary, Error> {
    let components = Components {
        models: vec![Model::new(Arc::new(runtime.clone()))],
        id: Uuid::new_v4(),
        progress: Arc::new(|_| ()),
        stores: batch::Stores::default(),
        cancelled: CancellationToken::new(),
    };
    batch::run(job, &components).await
}

/// What a Python program prints that is given the folder and the file of an envelope.
fn python(program: &str, folder: &TempDir, envelope: &str) -> String {
    // Without the interpreter's own end, in which threads of the libraries it read with may abort.
    let program = format!("{program}\nimport os, sys\nsys.stdout.flush()\nos._exit(0)");
    let output = Command::new(root().join(".venv/bin/python"))
        .args(["-c", &program])
        .arg(folder.path())
        .arg(envelope_path(envelope))
        .output()
        .expect("`.venv` is there: `make test` makes it");
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_delta_table_of_results_equals_the_function_row_for_row() {
    for name in ["cheap", "sklearn_pipeline"] {
        let folder = large();
        let runtime = start(name, 2..=2).await;
        let summary = run(&job(&folder, &["id"]), &runtime).await.unwrap();
        assert_eq!((summary.rows, summary.version), (ROWS as u64, Some(0)));
        let program = "
import sys, deltalake, numpy, pandas
import model_envelope as me

folder, envelope = sys.argv[1:]
given = pandas.read_parquet(folder + '/in').set_index('id').sort_index()
expected = numpy.asarray(me.get(envelope).load()(given))
table = deltalake.DeltaTable(folder + '/out')
rows = table.to_pandas().set_index('id').sort_index()
assert (rows.index == given.index).all()
assert (rows['prediction'].to_numpy() == expected).all()
[commit] = table.history()
print(commit['queryFunction'], commit['envelopeDigest'])
";
        assert_eq!(
            python(program, &folder, name),
            format!("{name} {}", runtime.digest())
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_parquet_folder_of_results_can_be_read_and_added_to() {
    let folder = large();
    let runtime = start("cheap", 2..=2).await;
    let mut job = job(&folder, &["id"]);
    job.format = Format::Parquet;
    run(&job, &runtime).await.unwrap();
    job.mode = Mode::Append;
    run(&job, &runtime).await.unwrap();
    let program = "
import sys, pandas

rows = pandas.read_parquet(sys.argv[1] + '/out')
print(len(rows), rows['id'].nunique(), list(rows.columns))
";
    assert_eq!(
        python(program, &folder, "cheap"),
        "200000 100000 ['id', 'prediction']"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_exception_keeps_its_traceback_and_leaves_nothing() {
    let folder = small([
        (
            "action",
            Arc::new(StringArray::from(vec!["none", "none", "raise"])),
        ),
        ("x", Arc::new(Float64Array::from(vec![1.0, 2.0, 3.0]))),
    ]);
    let runtime = start("naughty", 1..=1).await;
    let mut job = job(&folder, &[]);
    // The function looks at the first row of a call.
    job.settings.batch_rows = NonZeroUsize::MIN;
    let error = run(&job, &runtime).await.unwrap_err();
    let Error::Function {
        source: runtime::Error::Function { exception, .. },
        ..
    } = &error
    else {
        panic!("{error:?}");
    };
    assert_eq!(exception.to_string(), "ValueError: bad row 3.0");
    assert!(
        exception.traceback.contains("in naughty"),
        "{}",
        exception.traceback
    );
    assert!(!folder.path().join("out").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_dies_fails_the_job_and_leaves_nothing() {
    let folder = small([
        ("action", Arc::new(StringArray::from(vec!["none", "kill"]))),
        ("x", Arc::new(Float64Array::from(vec![1.0, 2.0]))),
    ]);
    let runtime = start("naughty", 1..=1).await;
    let mut job = job(&folder, &[]);
    job.settings.batch_rows = NonZeroUsize::MIN;
    let error = run(&job, &runtime).await.unwrap_err();
    assert!(
        matches!(
            &error,
            Error::Function {
                source: runtime::Error::Crashed { .. },
                ..
            }
        ),
        "{error:?}"
    );
    assert!(error.is_transient());
    assert!(!folder.path().join("out").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_function_that_looks_at_other_rows_is_refused() {
    let folder = large();
    let runtime = start("ranking", 1..=1).await;
    let error = run(&job(&folder, &["id"]), &runtime).await.unwrap_err();
    assert!(matches!(error, Error::NotRowWise { .. }), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_function_that_gives_one_value_is_called_for_each_row() {
    let folder = small([("a", Arc::new(Float64Array::from(vec![1.5, 2.5])))]);
    let runtime = start("reducer", 1..=1).await;
    run(&job(&folder, &["a"]), &runtime).await.unwrap();
    let program = "
import sys, deltalake

rows = deltalake.DeltaTable(sys.argv[1] + '/out').to_pandas()
print(rows.sort_values('a').to_dict('list'))
";
    assert_eq!(
        python(program, &folder, "reducer"),
        "{'a': [1.5, 2.5], 'prediction': [1.5, 2.5]}"
    );
}

/// Adds a function to what a Python program knows: a table, group by group, in the order of the table.
const GROUPWISE: &str = "
import sys, deltalake, pandas
import model_envelope as me

folder, envelope = sys.argv[1:]
function = me.get(envelope).load()
given = pandas.read_parquet(folder + '/in').fillna({'five': -1})
groups = given.groupby(['colour', 'five'], sort=False)
made = deltalake.DeltaTable(folder + '/out').to_pandas().fillna({'five': -1})
";

#[tokio::test(flavor = "multi_thread")]
async fn a_reducer_gives_for_each_group_what_pandas_gives() {
    let folder = large();
    let runtime = start("reducer", 2..=2).await;
    let mut job = job(&folder, &[]);
    job.group_by = vec!["colour".into(), "five".into()];
    let summary = run(&job, &runtime).await.unwrap();
    assert_eq!(summary.rows, 15);
    let program = format!(
        "{GROUPWISE}
expected = groups[['a']].apply(function)
made = made.set_index(['colour', 'five'])['prediction']
assert len(made) == len(expected) == 15
assert made.to_dict() == expected.to_dict()
print('equal')
"
    );
    assert_eq!(python(&program, &folder, "reducer"), "equal");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_function_that_looks_at_other_rows_sees_those_of_its_group() {
    let folder = large();
    let runtime = start("ranking", 2..=2).await;
    let mut job = job(&folder, &["id"]);
    job.group_by = vec!["colour".into(), "five".into()];
    let summary = run(&job, &runtime).await.unwrap();
    assert_eq!(summary.rows, ROWS as u64);
    let program = format!(
        "{GROUPWISE}
expected = groups['a'].rank()
made = made.set_index('id').sort_index()['prediction']
assert (made == expected).all()
print(made.max())
"
    );
    assert_eq!(python(&program, &folder, "ranking"), "6667.0");
}

/// A hundred thousand rows in as many groups as there are: how long a call takes that has little to do.
#[tokio::test(flavor = "multi_thread")]
async fn many_small_groups_are_all_there() {
    let folder = large();
    let runtime = start("reducer", 2..=2).await;
    let mut job = job(&folder, &[]);
    job.group_by = vec!["tenth".into()];
    let begun = std::time::Instant::now();
    let summary = run(&job, &runtime).await.unwrap();
    assert_eq!(summary.rows, ROWS as u64 / 10);
    let rate = summary.rows as f64 / begun.elapsed().as_secs_f64();
    println!("{rate:.0} groups of ten rows a second");
    let program = "
import sys, deltalake, pandas

given = pandas.read_parquet(sys.argv[1] + '/in').groupby('tenth')['a'].apply(lambda a: float(a.sum()))
made = deltalake.DeltaTable(sys.argv[1] + '/out').to_pandas().set_index('tenth')['prediction'].sort_index()
assert (made == given).all()
print(len(made))
";
    assert_eq!(python(program, &folder, "reducer"), "10000");
}

#[tokio::test(flavor = "multi_thread")]
async fn missing_values_come_through_where_the_function_takes_them() {
    let folder = small([
        ("a", Arc::new(Float64Array::from(vec![Some(1.0), None]))),
        ("colour", Arc::new(StringArray::from(vec!["red", "blue"]))),
    ]);
    let runtime = start("nullable", 1..=1).await;
    let mut job = job(&folder, &[]);
    job.format = Format::Parquet;
    run(&job, &runtime).await.unwrap();
    let program = "
import sys, pandas

print(pandas.read_parquet(sys.argv[1] + '/out').to_dict('list'))
";
    assert_eq!(
        python(program, &folder, "nullable"),
        "{'score': [10.0, -10.0], 'label': ['RED', 'BLUE']}"
    );
}

/// What only other writers make: types that no function takes, partitions, statistics.
#[tokio::test(flavor = "multi_thread")]
async fn a_delta_table_that_another_program_wrote_is_read_and_its_types_are_kept() {
    let folder = TempDir::new().unwrap();
    let program = "
import sys, datetime, decimal, deltalake, pyarrow as pa

utc = datetime.timezone.utc
rows = pa.table({
    'a': [1.0, 2.0, 3.0],
    'b': [0.0, 1.0, 2.0],
    'country': ['UK', 'a b%', None],
    'day': pa.array([datetime.date(2026, 11, day) for day in (1, 2, 3)]),
    'flag': [True, False, None],
    'small': pa.array([1, 2, 3], pa.int8()),
    'price': pa.array([decimal.Decimal('1.25'), decimal.Decimal('-2.50'), None], pa.decimal128(10, 2)),
    'at': pa.array([datetime.datetime(2026, 11, 1, 12, 0, 0, 1)] * 3, pa.timestamp('us')),
    'moment': pa.array([datetime.datetime(2026, 11, 1, 12, tzinfo=utc)] * 3, pa.timestamp('us', 'UTC')),
    'bytes': pa.array([b'x', None, b''], pa.binary()),
    'texts': [['x', None], [], None],
    'point': [{'x': 1, 'y': 'a'}, {'x': 2, 'y': None}, None],
})
deltalake.write_deltalake(sys.argv[1] + '/in', rows, partition_by=['country', 'day'])
";
    python(program, &folder, "cheap");
    let keep = "country day flag small price at moment bytes texts point a b";
    let job = job(&folder, &keep.split(' ').collect::<Vec<_>>());
    run(&job, &start("cheap", 1..=1).await).await.unwrap();
    let program = "
import sys, deltalake, pyarrow as pa

def read(name):
    table = pa.table(deltalake.DeltaTable(sys.argv[1] + name).to_pyarrow_table())
    return table.sort_by('a')

given, made = read('/in'), read('/out')
for name in given.column_names:
    assert made[name].to_pylist() == given[name].to_pylist(), name
    assert made[name].type == given[name].type or name == 'country', (name, made[name].type, given[name].type)
print(made['prediction'].to_pylist())
";
    assert_eq!(python(program, &folder, "cheap"), "[2.0, 5.0, 8.0]");
}

/// The envelopes of the tests by name, each with workers of its own.
struct Store;

#[async_trait::async_trait]
impl batch::sql::FindEnvelope for Store {
    async fn find(
        &self,
        reference: &str,
    ) -> Result<Arc<dyn batch::MapRows>, Box<dyn std::error::Error + Send + Sync>> {
        Ok(Arc::new(start(reference, 1..=2).await))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_envelopes_in_one_query_give_what_each_gives_alone() {
    let folder = large();
    let mut query = batch::sql::Query::new(
        "SELECT id, predict('cheap', t) AS cheap, predict('sklearn_pipeline', t) AS sklearn_pipeline
         FROM features t WHERE id >= 1000",
    );
    let path = |name| folder.path().join(name).to_string_lossy().into_owned();
    query.tables.insert("features".into(), path("in"));
    let answer = query.plan(&Store, &batch::Stores::default()).await.unwrap();
    let output = batch::sql::Output::new(path("out"));
    let summary = answer.write(&output, Uuid::new_v4(), &|_| ()).await;
    assert_eq!(summary.unwrap().rows, ROWS as u64 - 1000);
    for name in ["cheap", "sklearn_pipeline"] {
        let program = format!(
            "
import sys, deltalake, numpy, pandas
import model_envelope as me

folder, envelope = sys.argv[1:]
given = pandas.read_parquet(folder + '/in').set_index('id').sort_index().loc[1000:]
expected = numpy.asarray(me.get(envelope).load()(given))
table = deltalake.DeltaTable(folder + '/out')
rows = table.to_pandas().set_index('id').sort_index()
assert (rows.index == given.index).all()
assert (rows['{name}'].to_numpy() == expected).all()
[commit] = table.history()
print(len(commit['envelopeDigests']))
"
        );
        assert_eq!(python(&program, &folder, name), "2");
    }
}
