//! The tables that jobs read, and what other programs read in those that they write.

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::SystemTime;

use acceptance::root;
use arrow_array::{ArrayRef, Float64Array, Int64Array, RecordBatch, StringArray};
use parquet::arrow::ArrowWriter;
use parquet::file::properties::WriterProperties;

/// Rows of one job's input.
pub(crate) const ROWS: usize = 3_000;

/// The keys of a job's rows: its own, or where rows are merged those of others too.
pub(crate) fn keys(number: usize, table: &str) -> Range<usize> {
    if table.ends_with("merge") {
        // No border of a file is one of another job's.
        let first = number % 5 * (ROWS / 3 + 77) + number / 5 * 3;
        return first..first + ROWS;
    }
    number * ROWS..(number + 1) * ROWS
}

pub(crate) fn write_input(folder: &Path, keys: Range<usize>) {
    std::fs::create_dir_all(folder).unwrap();
    let half = ROWS / 2;
    for file in 0..2 {
        let ids = (keys.start + file * half)..(keys.start + (file + 1) * half);
        let floats = || ids.clone().map(|id| id as f64).collect::<Float64Array>();
        let columns: [(&str, ArrayRef); 5] = [
            (
                "id",
                Arc::new(ids.clone().map(|id| id as i64).collect::<Int64Array>()),
            ),
            ("x", Arc::new(floats())),
            ("a", Arc::new(floats())),
            ("b", Arc::new(floats())),
            (
                "colour",
                Arc::new(ids.clone().map(|_| Some("red")).collect::<StringArray>()),
            ),
        ];
        let rows = RecordBatch::try_from_iter(columns).unwrap();
        let file = std::fs::File::create(folder.join(format!("{file}.parquet"))).unwrap();
        // Small groups, so that there are many splits.
        let properties = WriterProperties::builder()
            .set_max_row_group_row_count(Some(250))
            .build();
        let mut writer = ArrowWriter::try_new(file, rows.schema(), Some(properties)).unwrap();
        writer.write(&rows).unwrap();
        writer.close().unwrap();
    }
}

/// What another program reads in the table `out`: how many rows and how many different ones, how many
/// versions and transactions; and that the files are those that the log names.
pub(crate) fn read_back(folder: &Path, name: &str, rows: usize, jobs: usize) {
    let program = r#"
import collections, json, os, pathlib, sys
import deltalake, pandas

table, rows, jobs = pathlib.Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
def check(ids, reader):
    assert (len(ids), len(set(ids))) == (rows, rows), (reader, len(ids), len(set(ids)), rows)

def check_values(frame):
    """The function doubles `x`, which is the key."""
    given = frame.iloc[:, 1]
    assert given.dtype == 'float64' and (given == frame['id'] * 2).all(), frame

files = {str(path.relative_to(table)) for path in table.rglob('*.parquet') if '_delta_log' not in path.parts}
if (table / '_delta_log').exists():
    delta = deltalake.DeltaTable(str(table))
    frame = delta.to_pandas()
    check(frame['id'].tolist(), 'deltalake')
    check_values(frame)
    assert delta.version() == jobs - 1, (delta.version(), jobs)
    keys = collections.Counter()
    for entry in sorted((table / '_delta_log').glob('*.json')):
        lines = [json.loads(line) for line in entry.read_text().splitlines()]
        keys.update(line['txn']['appId'] for line in lines if 'txn' in line)
    assert len(keys) == jobs and set(keys.values()) == {1}, keys
    named = {uri.removeprefix('file://').removeprefix(str(table) + '/') for uri in delta.file_uris()}
    assert named == files, named ^ files
    odd = [path.name for path in (table / '_delta_log').iterdir() if path.name.startswith('.')]
    assert not odd, odd
else:
    frame = pandas.read_parquet(table)
    check(frame['id'].tolist(), 'pandas')
    check_values(frame)
left = [path.name for path in table.iterdir() if path.name == '_envelope_jobs' or path.name.startswith('.')]
left += [path.name for path in table.parent.iterdir() if path.name.startswith('.')]
assert not left, left
try:
    import polars
    lazy = polars.scan_delta(str(table)) if (table / '_delta_log').exists() else polars.scan_parquet(str(table) + '/')
    check(lazy.collect()['id'].to_list(), 'polars')
except ImportError:
    pass
try:
    import duckdb
    if not (table / '_delta_log').exists():
        check([row[0] for row in duckdb.sql(f"select id from read_parquet('{table}/**/*.parquet')").fetchall()], 'duckdb')
except ImportError:
    pass
sys.stdout.flush()
os._exit(0)
"#;
    let usual = root().join(".venv/bin/python");
    let python = std::env::var_os("CHAOS_PYTHON").map_or(usual, PathBuf::from);
    let ran = Command::new(python)
        .args(["-c", program])
        .arg(folder.join(name))
        .args([rows.to_string(), jobs.to_string()])
        .output()
        .expect("`.venv` is there: `make test` makes it");
    let said = String::from_utf8_lossy(&ran.stderr);
    assert!(ran.status.success(), "{name}: {said}");
}

pub(crate) fn vacuum(table: &Path) {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let table = table.to_string_lossy();
    let stores = batch::Stores::default();
    let vacuumed = batch::vacuum(&stores, None, &table, SystemTime::now(), false);
    let vacuumed = runtime.block_on(vacuumed).unwrap();
    assert_eq!(vacuumed.jobs_running, 0);
}
