//! Delta tables as input and output.

use deltalake_core::kernel::engine::arrow_conversion::TryIntoKernel as _;
use deltalake_core::kernel::{Action, Add, StructType};
use deltalake_core::operations::create::CreateBuilder;
use serde_json::{Value, json};

use super::*;

/// The actions of one version.
fn log(table: &Path, version: u64) -> Vec<Value> {
    let text =
        std::fs::read_to_string(table.join(format!("_delta_log/{version:020}.json"))).unwrap();
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

fn action(log: &[Value], kind: &str) -> Value {
    log.iter()
        .find_map(|action| action.get(kind))
        .unwrap_or_else(|| panic!("no `{kind}` in {log:?}"))
        .clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_table_and_its_files_are_one_version() {
    let mut bench = Bench::new(Fake::new(), 1, 100);
    bench.job.settings.partitions = NonZeroUsize::new(1);
    bench.run().await.unwrap();
    let log = log(&bench.path("out"), 0);
    let information = action(&log, "commitInfo");
    assert_eq!(
        information["envelopeDigest"],
        bench.fake.digest().to_string()
    );
    assert_eq!(information["queryFunction"], "double");
    assert_eq!(information["jobId"], action(&log, "txn")["appId"]);
    let statistics: Value =
        serde_json::from_str(action(&log, "add")["stats"].as_str().unwrap()).unwrap();
    assert_eq!(
        statistics,
        json!({
            "numRecords": 100,
            "minValues": {"id": 0, "prediction": 1.0},
            "maxValues": {"id": 99, "prediction": 199.0},
            "nullCount": {"id": 0, "prediction": 0},
        })
    );
    assert!(
        !bench
            .path("out/_delta_log/00000000000000000001.json")
            .exists()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_delta_table_is_read_at_its_latest_version() {
    let mut bench = Bench::new(Fake::new().with_outputs(&["x"]), 1, 100);
    bench.run().await.unwrap();
    write_parquet(&bench.path("in/0.parquet"), &table_rows(0, 50), 10);
    bench.job.mode = Mode::Overwrite;
    bench.run().await.unwrap();
    bench.job.input = bench.path("out").to_string_lossy().into_owned();
    bench.job.output = bench.path("again").to_string_lossy().into_owned();
    assert_eq!(bench.run().await.unwrap().rows, 50);
    let information = action(&log(&bench.path("again"), 0), "commitInfo");
    assert_eq!(information["inputVersion"], 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn overwriting_removes_the_old_files_in_the_same_version() {
    let mut bench = Bench::new(Fake::new(), 1, 100);
    bench.job.settings.partitions = NonZeroUsize::new(1);
    bench.run().await.unwrap();
    bench.job.mode = Mode::Overwrite;
    bench.run().await.unwrap();
    let (before, after) = (log(&bench.path("out"), 0), log(&bench.path("out"), 1));
    assert_eq!(
        action(&after, "remove")["path"],
        action(&before, "add")["path"]
    );
    assert_eq!(action(&after, "add")["dataChange"], true);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_version_that_came_during_the_job_does_not_stop_an_append() {
    let mut bench = Bench::new(Fake::new(), 1, 100);
    bench.run().await.unwrap();
    bench.job.mode = Mode::Append;
    write_parquet(&bench.path("in/0.parquet"), &table_rows(100, 100), 10);
    let mapped = schema_of(&[
        ("id", DataType::Int64, true),
        ("prediction", DataType::Float64, false),
    ]);
    let early = Target::check(&bench.job, &Stores::default(), &mapped)
        .await
        .unwrap();
    bench.run().await.unwrap();
    let attempt = Attempt::begin(&early, Uuid::new_v4()).await.unwrap();
    let outcome = commit(&early, attempt, &[], Facts::new()).await.unwrap();
    assert!(matches!(outcome, Outcome::Written(Some(2))), "{outcome:?}");
    assert_eq!(bench.predictions().await, doubled(200));
}

#[tokio::test(flavor = "multi_thread")]
async fn jobs_that_write_one_table_at_the_same_time_all_count() {
    let mut bench = Bench::new(Fake::new(), 1, 100);
    bench.run().await.unwrap();
    bench.job.mode = Mode::Append;
    write_parquet(&bench.path("in/0.parquet"), &table_rows(100, 100), 10);
    let mut other = bench.job.clone();
    other.input = bench.path("more.parquet").to_string_lossy().into_owned();
    write_parquet(&bench.path("more.parquet"), &table_rows(200, 100), 10);
    let components = Components {
        id: Uuid::new_v4(),
        ..bench.components.clone()
    };
    let (one, another) = tokio::join!(bench.run(), run(&other, &components));
    let versions = [
        one.unwrap().version.unwrap(),
        another.unwrap().version.unwrap(),
    ];
    assert_eq!(versions.iter().sum::<i64>(), 3, "{versions:?}");
    assert_eq!(bench.predictions().await, doubled(300));
}

/// A Delta table with the partition column `country`, as other writers make it.
async fn partitioned(bench: &Bench) {
    let table = bench.path("in");
    let schema = schema_of(&[
        ("id", DataType::Int64, true),
        ("country", DataType::Utf8, true),
        ("x", DataType::Float64, true),
    ]);
    let columns: StructType = schema.as_ref().try_into_kernel().unwrap();
    let mut files = vec![];
    for (position, country) in [Some("UK"), Some("a b%"), None].into_iter().enumerate() {
        // Other writers escape odd characters in the name of the folder, and again in the log.
        let folder = match country {
            Some(country) => format!(
                "country={}",
                country.replace('%', "%25").replace(' ', "%20")
            ),
            None => "country=__HIVE_DEFAULT_PARTITION__".into(),
        };
        let path = format!("{folder}/{position}.parquet");
        let rows = table_rows(position * 10, 10).project(&[0, 2]).unwrap();
        write_parquet(&table.join(&path), &rows, 10);
        files.push(Action::Add(Add {
            size: std::fs::metadata(table.join(&path)).unwrap().len() as i64,
            path,
            partition_values: [("country".to_owned(), country.map(str::to_owned))].into(),
            data_change: true,
            ..Add::default()
        }));
    }
    let location = Location::parse(&table.to_string_lossy()).unwrap();
    CreateBuilder::new()
        .with_log_store(snapshot::table(&location).unwrap().log_store())
        .with_columns(columns.into_fields())
        .with_partition_columns(["country"])
        .with_actions(files)
        .await
        .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn partition_columns_have_the_values_that_the_log_gives() {
    let mut bench = Bench::on(TempDir::new().unwrap(), Fake::new());
    partitioned(&bench).await;
    bench.job.keep = vec!["country".into(), "id".into()];
    bench.run().await.unwrap();
    assert_eq!(bench.predictions().await, doubled(30));
    for rows in read(&bench.path("out")).await {
        let ids = rows
            .column_by_name("id")
            .unwrap()
            .as_primitive::<Int64Type>()
            .clone();
        let countries = rows
            .column_by_name("country")
            .unwrap()
            .as_string::<i32>()
            .clone();
        for (id, country) in ids.values().iter().zip(&countries) {
            assert_eq!(
                country,
                [Some("UK"), Some("a b%"), None][(id / 10) as usize]
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_others_have_partitioned_gets_its_rows_where_they_belong() {
    let bench = Bench::on(TempDir::new().unwrap(), Fake::new());
    partitioned(&bench).await;
    let mut bench = bench.with(Fake::new().with_outputs(&["x"]));
    bench.job.output = bench.job.input;
    bench.job.input = format!("{}-more", bench.job.output);
    let countries: StringArray = [Some("UK"), Some("a b%"), None].into_iter().collect();
    let rows = batch(&[
        ("id", Arc::new(Int64Array::from(vec![100, 10, 20]))),
        ("country", Arc::new(countries)),
        ("x", Arc::new(Float64Array::from(vec![0.5, 7.0, 8.0]))),
    ]);
    write_parquet(&bench.folder.path().join("in-more/0.parquet"), &rows, 10);
    bench.job.mode = Mode::Append;
    let error = bench.refused().await;
    assert!(matches!(error, Error::SchemaMismatch { .. }), "{error}");
    bench.job.keep = vec!["country".into(), "id".into()];
    bench.job.mode = Mode::MergeOn(vec!["id".into()]);
    bench.run().await.unwrap();
    let script = r#"
import deltalake, os
rows = sorted(tuple(row.values()) for row in deltalake.DeltaTable('in').to_pyarrow_table().select(['id', 'country', 'x']).to_pylist())
assert len(rows) == 31, rows
assert rows[10] == (10, 'a b%', 14.0) and rows[11] == (11, 'a b%', 11.5), rows
assert rows[20] == (20, None, 16.0) and rows[30] == (100, 'UK', 1.0), rows
os._exit(0)
"#;
    written_by_python(bench.folder.path(), script);
}

/// A Delta table whose log is written by hand.
fn by_hand(bench: &Bench, protocol: &Value, configuration: &Value, deletion_vector: Option<Value>) {
    let table = bench.path("in");
    write_parquet(
        &table.join("0.parquet"),
        &table_rows(0, 10).project(&[0, 2]).unwrap(),
        10,
    );
    let field = |name: &str, kind: &str| json!({"name": name, "type": kind, "nullable": true, "metadata": {}});
    let schema = json!({"type": "struct", "fields": [field("id", "long"), field("x", "double")]});
    let mut add = json!({
        "path": "0.parquet", "partitionValues": {}, "modificationTime": 0, "dataChange": true,
        "size": std::fs::metadata(table.join("0.parquet")).unwrap().len(),
    });
    if let Some(vector) = deletion_vector {
        add["deletionVector"] = vector;
    }
    let actions = [
        json!({"protocol": protocol}),
        json!({"metaData": {
            "id": Uuid::new_v4().to_string(), "format": {"provider": "parquet", "options": {}},
            "schemaString": schema.to_string(), "partitionColumns": [], "configuration": configuration,
        }}),
        json!({"add": add}),
    ];
    let lines = actions.map(|action| action.to_string()).join("\n");
    std::fs::create_dir_all(table.join("_delta_log")).unwrap();
    std::fs::write(table.join("_delta_log/00000000000000000000.json"), lines).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_without_statistics_can_be_read() {
    let bench = Bench::on(TempDir::new().unwrap(), Fake::new());
    by_hand(
        &bench,
        &json!({"minReaderVersion": 1, "minWriterVersion": 2}),
        &json!({}),
        None,
    );
    bench.run().await.unwrap();
    assert_eq!(bench.predictions().await, doubled(10));
}

#[tokio::test(flavor = "multi_thread")]
async fn deletion_vectors_are_refused_by_name() {
    let bench = Bench::on(TempDir::new().unwrap(), Fake::new());
    let features = json!(["deletionVectors"]);
    let protocol = json!({
        "minReaderVersion": 3, "minWriterVersion": 7, "readerFeatures": features, "writerFeatures": features,
    });
    let vector = json!({
        "storageType": "u", "pathOrInlineDv": "ab^-aqEH.-t@S}K{vb[*k^", "offset": 4, "sizeInBytes": 40, "cardinality": 6,
    });
    by_hand(
        &bench,
        &protocol,
        &json!({"delta.enableDeletionVectors": "true"}),
        Some(vector),
    );
    let error = bench.refused().await;
    assert!(
        error
            .to_string()
            .ends_with("has deletion vectors, which is not supported"),
        "{error}"
    );
    assert!(error.hint().is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn column_mapping_is_refused_by_name() {
    let bench = Bench::on(TempDir::new().unwrap(), Fake::new());
    let protocol = json!({"minReaderVersion": 2, "minWriterVersion": 5});
    by_hand(
        &bench,
        &protocol,
        &json!({"delta.columnMapping.mode": "none"}),
        None,
    );
    let error = bench.refused().await;
    assert!(
        error
            .to_string()
            .ends_with("uses `columnMapping`, which is not supported"),
        "{error}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_whose_rules_nothing_here_enforces_is_not_written() {
    let mut bench = Bench::on(TempDir::new().unwrap(), Fake::new());
    by_hand(
        &bench,
        &json!({"minReaderVersion": 1, "minWriterVersion": 4}),
        &json!({}),
        None,
    );
    bench.job.output.clone_from(&bench.job.input);
    bench.job.mode = Mode::Append;
    let error = bench.refused().await;
    assert!(error.to_string().contains("`checkConstraints`"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_is_long_enough_for_a_checkpoint_is_read_and_written() {
    let mut bench = Bench::on(TempDir::new().unwrap(), Fake::new().with_outputs(&["x"]));
    let protocol = json!({"minReaderVersion": 1, "minWriterVersion": 2});
    by_hand(
        &bench,
        &protocol,
        &json!({"delta.checkpointInterval": "2"}),
        None,
    );
    bench.job.mode = Mode::Append;
    bench.job.output.clone_from(&bench.job.input);
    bench.job.input = bench.path("more").to_string_lossy().into_owned();
    for version in 1..6 {
        write_parquet(
            &bench.path("more/0.parquet"),
            &table_rows(version * 10, 10),
            10,
        );
        assert_eq!(bench.run().await.unwrap().version, Some(version as i64));
    }
    assert!(bench.path("in/_delta_log/_last_checkpoint").exists());
    let rows = read(&bench.path("in")).await;
    assert_eq!(rows.iter().map(RecordBatch::num_rows).sum::<usize>(), 60);
}

/// A table whose versions have 1, 2 and 3 rows, written by somebody else.
fn three_versions(bench: &Bench) {
    written_by_python(
        bench.folder.path(),
        "
import time, pyarrow as pa, deltalake
for row in range(3):
    rows = pa.table({'id': [row], 'x': [row + 0.5]})
    deltalake.write_deltalake('in', rows, mode='append')
    time.sleep(0.05)",
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_delta_table_is_read_as_it_was() {
    let mut bench = Bench::on(TempDir::new().unwrap(), Fake::new());
    bench.job.mode = Mode::Overwrite;
    three_versions(&bench);
    for version in 0..3 {
        bench.job.as_of = Some(AsOf::Version(version));
        bench.run().await.unwrap();
        assert_eq!(bench.predictions().await, doubled(version as usize + 1));
        let information = action(&log(&bench.path("out"), version), "commitInfo");
        assert_eq!(information["inputVersion"], version);
    }
    let commit = bench.path("in/_delta_log/00000000000000000001.json");
    let then = commit.metadata().unwrap().modified().unwrap();
    let time = chrono::DateTime::<chrono::Utc>::from(then) + chrono::TimeDelta::milliseconds(20);
    bench.job.as_of = Some(AsOf::Time(time));
    bench.run().await.unwrap();
    assert_eq!(bench.predictions().await, doubled(2));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_that_is_not_there_is_refused() {
    let mut bench = Bench::on(TempDir::new().unwrap(), Fake::new());
    three_versions(&bench);
    for as_of in ["3", "2001-01-01T00:00:00Z"] {
        bench.job.as_of = Some(as_of.parse().unwrap());
        let error = bench.refused().await;
        assert!(matches!(error, Error::NoSnapshot { .. }), "{error}");
        assert_eq!(error.hint().as_deref(), Some("its latest version is 2"));
    }
    std::fs::remove_dir_all(bench.path("in/_delta_log")).unwrap();
    let error = bench.refused().await;
    assert!(matches!(error, Error::NoSnapshots { .. }), "{error}");
}
