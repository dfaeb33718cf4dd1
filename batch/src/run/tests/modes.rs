//! Partitioned output, and rows that take the place of others.

use super::*;

const COUNTRIES: [&str; 3] = ["UK", "a/b=c %", "ü"];

/// Rows with an `x` of their own, in one of three countries; every hundredth in none.
fn country_rows(ids: std::ops::Range<i64>, x: f64) -> RecordBatch {
    let country = |id: i64| (id % 100 != 99).then(|| COUNTRIES[id as usize % 3]);
    batch(&[
        ("id", Arc::new(ids.clone().collect::<Int64Array>())),
        (
            "country",
            Arc::new(ids.clone().map(country).collect::<StringArray>()),
        ),
        ("x", Arc::new(ids.map(|_| x).collect::<Float64Array>())),
    ])
}

/// A job that keeps the country and has folders for it.
fn by_country(format: Format, rows: &RecordBatch) -> Bench {
    let mut bench = Bench::on(TempDir::new().unwrap(), Fake::new());
    bench.job.keep = vec!["id".into(), "country".into()];
    bench.job.partition_by = vec!["country".into()];
    bench.job.format = format;
    bench.give(rows);
    bench
}

impl Bench {
    /// Replaces the input.
    fn give(&self, rows: &RecordBatch) {
        std::fs::remove_dir_all(self.path("in")).unwrap();
        write_parquet(&self.path("in/0.parquet"), rows, 100);
    }

    /// Runs in another mode.
    async fn again(&mut self, mode: Mode) -> Summary {
        self.job.mode = mode;
        self.run().await.unwrap()
    }

    /// Country and prediction by key, as another program reads them.
    fn read_by_python(&self) -> BTreeMap<i64, (Option<String>, f64)> {
        let script = r#"
import json, os
if os.path.isdir('out/_delta_log'):
    import deltalake
    table = deltalake.DeltaTable('out').to_pyarrow_table()
else:
    import pyarrow as pa, pyarrow.dataset
    hive = pyarrow.dataset.HivePartitioning(pa.schema([('country', pa.string())]), segment_encoding='uri')
    table = pyarrow.dataset.dataset('out', format='parquet', partitioning=hive).to_table()
rows = [[row['id'], row['country'], row['prediction']] for row in table.to_pylist()]
with open('read.json', 'w') as file:
    json.dump(rows, file)
# Some versions of the libraries end their threads badly.
os._exit(0)
"#;
        written_by_python(self.folder.path(), script);
        let text = std::fs::read_to_string(self.path("read.json")).unwrap();
        let rows: Vec<(i64, Option<String>, f64)> = serde_json::from_str(&text).unwrap();
        let count = rows.len();
        let rows: BTreeMap<_, _> = rows.into_iter().map(|(id, c, p)| (id, (c, p))).collect();
        assert_eq!(rows.len(), count, "a key is there twice");
        rows
    }
}

/// What the output has for rows.
fn expected(rows: &[RecordBatch]) -> BTreeMap<i64, (Option<String>, f64)> {
    let mut expected = BTreeMap::new();
    for rows in rows {
        let ids = rows.column(0).as_primitive::<Int64Type>().values().iter();
        let countries = rows.column(1).as_string::<i32>().iter();
        let xs = rows.column(2).as_primitive::<Float64Type>().values().iter();
        for ((id, country), x) in ids.zip(countries).zip(xs) {
            expected.insert(*id, (country.map(str::to_owned), x * 2.0));
        }
    }
    expected
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_are_in_the_folder_of_their_value_and_come_back_with_it() {
    for format in FORMATS {
        let (first, second) = (country_rows(0..1_000, 1.0), country_rows(1_000..1_500, 2.0));
        let mut bench = by_country(format, &first);
        bench.run().await.unwrap();
        assert_eq!(
            bench.read_by_python(),
            expected(std::slice::from_ref(&first)),
            "{format:?}"
        );
        bench.give(&second);
        // The table's own folders, without being told.
        bench.job.partition_by = vec![];
        bench.again(Mode::Append).await;
        assert_eq!(
            bench.read_by_python(),
            expected(&[first, second]),
            "{format:?}"
        );
        let out = Location::parse(&bench.job.output).unwrap();
        assert_eq!(Source::open(&out).await.unwrap().partition_columns, 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn results_of_a_partitioned_job_can_be_the_input_of_the_next() {
    for format in FORMATS {
        let bench = by_country(format, &country_rows(0..300, 1.0));
        // The function takes `x`.
        let mut bench = bench.with(Fake::new().with_outputs(&["x"]));
        bench.run().await.unwrap();
        bench.job.input = bench.job.output;
        bench.job.output = format!("{}-next", bench.job.input);
        bench.job.filter = Some("country = 'a/b=c %' AND id < 30".into());
        assert_eq!(bench.run().await.unwrap().rows, 10);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_without_rows_makes_a_table_that_can_be_added_to() {
    for format in FORMATS {
        let mut bench = by_country(format, &country_rows(0..100, 1.0));
        bench.job.filter = Some("id < 0".into());
        bench.run().await.unwrap();
        bench.job.filter = None;
        bench.again(Mode::Append).await;
        assert_eq!(
            bench.read_by_python(),
            expected(&[country_rows(0..100, 1.0)])
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_in_no_order_of_many_folders_are_each_in_their_own() {
    for format in FORMATS {
        let mut bench = Bench::on(TempDir::new().unwrap(), Fake::new());
        let rows = table_rows(0, 5_000);
        let buckets: Int64Array = (0..5_000).map(|id| id * 7 % 100).collect();
        let ids = Arc::clone(rows.column(0));
        let x = Arc::clone(rows.column(2));
        bench.give(&batch(&[
            ("id", ids),
            ("bucket", Arc::new(buckets)),
            ("x", x),
        ]));
        bench.job.keep = vec!["id".into(), "bucket".into()];
        bench.job.partition_by = vec!["bucket".into()];
        bench.job.format = format;
        bench.run().await.unwrap();
        assert_eq!(bench.predictions().await, doubled(5_000));
        let folders = bench.names();
        let folders = folders
            .iter()
            .filter(|name| name.starts_with("out/bucket=") && name.matches('/').count() == 1);
        assert_eq!(folders.count(), 100);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn exactly_the_partitions_of_the_results_are_replaced() {
    for format in FORMATS {
        let first = country_rows(0..300, 1.0);
        let mut bench = by_country(format, &first);
        bench.run().await.unwrap();
        let second = country_rows(1_000..1_300, 2.0);
        bench.give(&second);
        bench.job.filter = Some("country = 'UK' OR country IS NULL".into());
        let summary = bench.again(Mode::OverwritePartitions).await;
        let is_new = |(_, (country, _)): &(i64, (Option<String>, f64))| {
            country.as_deref().is_none_or(|country| country == "UK")
        };
        let old = expected(&[first]).into_iter().filter(|row| !is_new(row));
        let new = expected(&[second]).into_iter().filter(is_new);
        assert_eq!(
            bench.read_by_python(),
            old.chain(new).collect(),
            "{format:?}"
        );
        assert_eq!(summary.version, (format == Format::Delta).then_some(1));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_take_the_place_of_those_with_their_key_and_others_are_added() {
    for format in FORMATS {
        for partition_by in [vec![], vec!["country".to_owned()]] {
            let first = country_rows(0..900, 1.0);
            let mut bench = by_country(format, &first);
            bench.job.partition_by = partition_by;
            bench.run().await.unwrap();
            let second = country_rows(450..1_200, 2.0);
            bench.give(&second);
            let merge = Mode::MergeOn(vec!["id".into()]);
            let summary = bench.again(merge.clone()).await;
            assert_eq!(summary.rows, 750);
            let both = expected(&[first, second]);
            assert_eq!(bench.predictions_and_ids(), ids_of(&both), "{format:?}");
            // The same again changes nothing that a reader could see.
            bench.again(merge).await;
            assert_eq!(bench.predictions_and_ids(), ids_of(&both), "{format:?}");
        }
    }
}

fn ids_of(rows: &BTreeMap<i64, (Option<String>, f64)>) -> BTreeMap<i64, f64> {
    rows.iter()
        .map(|(id, (_, prediction))| (*id, *prediction))
        .collect()
}

impl Bench {
    fn predictions_and_ids(&self) -> BTreeMap<i64, f64> {
        if self.job.partition_by.is_empty() {
            let handle = tokio::runtime::Handle::current();
            return tokio::task::block_in_place(|| handle.block_on(self.predictions()));
        }
        ids_of(&self.read_by_python())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn files_without_a_row_that_goes_stay_as_they_are() {
    for format in FORMATS {
        let mut bench = by_country(format, &country_rows(0..300, 1.0));
        bench.run().await.unwrap();
        let files = |bench: &Bench| -> Vec<String> {
            let names = bench.names().into_iter();
            names
                .filter(|name| name.starts_with("out/c") && name.ends_with(".parquet"))
                .collect()
        };
        let before = files(&bench);
        bench.give(&country_rows(0..1, 2.0));
        bench.again(Mode::MergeOn(vec!["id".into()])).await;
        let after = files(&bench);
        let stayed = before.iter().filter(|name| after.contains(name)).count();
        // A Delta table keeps the file of the row for its earlier versions.
        let gone = usize::from(format == Format::Parquet);
        assert_eq!(stayed, before.len() - gone, "{before:?} {after:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_is_there_twice_or_lacks_a_value_is_refused_and_nothing_changes() {
    for format in FORMATS {
        let mut bench = by_country(format, &country_rows(0..300, 1.0));
        bench.run().await.unwrap();
        let before = bench.names();
        let twice = country_rows(7..8, 1.0);
        let rows = [country_rows(0..300, 2.0), twice];
        let schema = rows[0].schema();
        bench.give(&arrow_select::concat::concat_batches(&schema, &rows).unwrap());
        bench.job.mode = Mode::MergeOn(vec!["id".into()]);
        let error = bench.run().await.unwrap_err();
        assert!(error.to_string().contains("`id` = 7"), "{error}");
        bench.job.mode = Mode::MergeOn(vec!["country".into()]);
        let error = bench.run().await.unwrap_err();
        assert!(
            matches!(error, Error::MergeOn { .. } | Error::KeyTwice { .. }),
            "{error}"
        );
        assert_eq!(bench.names(), before);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_partitioned_or_merged_is_refused_before_any_work() {
    for format in FORMATS {
        let mut bench = by_country(format, &country_rows(0..100, 1.0));
        bench.job.partition_by = vec!["prediction".into()];
        let error = bench.refused().await;
        assert!(matches!(error, Error::PartitionBy { .. }), "{error}");
        bench.job.partition_by = vec![];
        bench.job.mode = Mode::OverwritePartitions;
        let error = bench.refused().await;
        assert!(matches!(error, Error::NotPartitioned { .. }), "{error}");
        for column in ["prediction", "nowhere"] {
            bench.job.mode = Mode::MergeOn(vec![column.into()]);
            let error = bench.refused().await;
            assert!(matches!(error, Error::MergeOn { .. }), "{error}");
        }
        bench.job.partition_by = vec!["country".into()];
        bench.again(Mode::Error).await;
        let mut bench = bench.with(Fake::new());
        bench.job.partition_by = vec!["id".into()];
        for mode in [Mode::Append, Mode::OverwritePartitions] {
            bench.job.mode = mode;
            let error = bench.refused().await;
            assert!(matches!(error, Error::OtherPartitions { .. }), "{error}");
            assert!(error.hint().is_some());
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_empty_text_is_no_partition() {
    let bench = by_country(
        Format::Delta,
        &batch(&[
            ("id", Arc::new(Int64Array::from(vec![1]))),
            ("country", Arc::new(StringArray::from(vec![""]))),
            ("x", Arc::new(Float64Array::from(vec![1.0]))),
        ]),
    );
    let error = bench.run().await.unwrap_err();
    assert!(matches!(error, Error::PartitionBy { .. }), "{error}");
    assert!(!bench.path("out").exists());
}

/// Jobs of all kinds at once: whatever their order, a key is there once, and every row that was added
/// is there.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn writers_at_once_lose_nothing() {
    for format in FORMATS {
        let bench = by_country(format, &country_rows(0..300, 1.0));
        bench.run().await.unwrap();
        let mut jobs = vec![];
        for writer in 0..6 {
            let input = bench.path(&format!("in-{writer}"));
            let merges = writer % 2 == 0;
            let ids = if merges {
                0..300
            } else {
                1_000 * writer..1_000 * writer + 100
            };
            let rows = country_rows(ids, 10.0 + writer as f64);
            write_parquet(&input.join("0.parquet"), &rows, 100);
            let mut job = bench.job.clone();
            job.input = input.to_string_lossy().into_owned();
            job.mode = match merges {
                true => Mode::MergeOn(vec!["id".into()]),
                false => Mode::Append,
            };
            job.identity = Some(Identity::new(&format!("writer-{writer}"), None).unwrap());
            let components = Components {
                id: Uuid::new_v4(),
                ..bench.components.clone()
            };
            jobs.push(tokio::spawn(async move { run(&job, &components).await }));
        }
        for job in jobs {
            assert!(!job.await.unwrap().unwrap().already_done);
        }
        let rows = bench.read_by_python();
        assert_eq!(rows.len(), 600, "{format:?}");
        let merged: Vec<f64> = rows.range(..300).map(|(_, (_, x))| *x).collect();
        assert!(merged.iter().all(|x| *x == merged[0] && *x >= 20.0));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_half_finished_job_in_any_mode_is_completed_and_then_done() {
    for format in FORMATS {
        for mode in [
            Mode::Append,
            Mode::OverwritePartitions,
            Mode::MergeOn(vec!["id".into()]),
        ] {
            let first = country_rows(0..2_000, 1.0);
            let mut bench = by_country(format, &first);
            bench.run().await.unwrap();
            let second = country_rows(10_000..14_000, 2.0);
            bench.give(&second);
            bench.job.mode = mode.clone();
            bench.job.identity = Some(Identity::new("nightly", None).unwrap());
            bench.job.settings.split_bytes = std::num::NonZeroU64::new(2_000).unwrap();
            bench.job.settings.batch_rows = NonZeroUsize::new(100).unwrap();
            let bench = bench.with(Fake::new().with_trouble(25, Trouble::Raises));
            bench.run().await.expect_err("the job was done");
            let bench = bench.with(Fake::new());
            let summary = bench.run().await.unwrap();
            assert!(summary.files_reused > 0, "{format:?} {mode:?} {summary:?}");
            let again = bench.run().await.unwrap();
            assert!(again.already_done);
            assert_eq!((again.rows, again.files), (summary.rows, summary.files));
            let rows = if mode == Mode::OverwritePartitions {
                expected(&[second])
            } else {
                expected(&[first, second])
            };
            assert_eq!(bench.read_by_python(), rows, "{format:?} {mode:?}");
        }
    }
}
