//! Jobs that call the function once for each group of rows.

use std::collections::HashMap;

use arrow_array::{Date32Array, Int32Array};

use super::*;
use crate::fake::Fake;

type Key = (Option<String>, Option<i32>);

/// Rows of five regions, one of which is missing, by three days, with an `x` whose sum depends on the order.
fn rows_of_groups(first: usize, rows: usize) -> RecordBatch {
    let rows = first..first + rows;
    let region = |row: usize| [None, Some("UK"), Some("US"), Some(""), Some("é/=")][row * 7 % 5];
    let regions: StringArray = rows.clone().map(region).collect();
    let days: Date32Array = rows.clone().map(|row| Some((row % 3) as i32)).collect();
    let x = rows.clone().map(|row| 1.0 / (row as f64 + 1.0) * 1e3);
    batch(&[
        ("region", Arc::new(regions)),
        ("day", Arc::new(days)),
        ("x", Arc::new(x.collect::<Float64Array>())),
        (
            "id",
            Arc::new(rows.map(|row| row as i64).collect::<Int64Array>()),
        ),
    ])
}

fn bench_of(fake: Fake, files: usize, rows: usize) -> Bench {
    let folder = TempDir::new().unwrap();
    for file in 0..files {
        let rows = rows_of_groups(file * rows, rows);
        write_parquet(
            &folder.path().join(format!("in/{file}.parquet")),
            &rows,
            100,
        );
    }
    let mut bench = Bench::on(folder, fake);
    bench.job.keep = vec![];
    bench.job.group_by = vec!["region".into(), "day".into()];
    bench
}

fn keys(rows: &RecordBatch) -> Vec<Key> {
    let (regions, days) = (rows["region"].as_string::<i32>(), &rows["day"]);
    let days = days.as_primitive::<arrow_array::types::Date32Type>();
    let keys = regions.iter().zip(days);
    keys.map(|(region, day)| (region.map(Into::into), day))
        .collect()
}

fn floats(rows: &RecordBatch, name: &str) -> Vec<f64> {
    rows[name].as_primitive::<Float64Type>().values().to_vec()
}

/// What the groups of the first `rows` rows give, in the order of the table, to the last bit.
fn sums(rows: usize) -> HashMap<Key, u64> {
    let rows = rows_of_groups(0, rows);
    let mut sums = HashMap::<Key, f64>::new();
    for (key, x) in keys(&rows).into_iter().zip(floats(&rows, "x")) {
        *sums.entry(key).or_default() += x;
    }
    sums.into_iter()
        .map(|(key, sum)| (key, sum.to_bits()))
        .collect()
}

async fn summed(bench: &Bench) -> HashMap<Key, u64> {
    let mut sums = HashMap::new();
    for rows in read(&bench.path("out")).await {
        for (key, sum) in keys(&rows).into_iter().zip(floats(&rows, "prediction")) {
            assert!(
                sums.insert(key, sum.to_bits()).is_none(),
                "a group is there twice"
            );
        }
    }
    sums
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reducer_gives_one_row_for_each_group_with_the_same_bits_however_the_table_is_cut() {
    for partitions in [1, 2, 7] {
        let mut bench = bench_of(Fake::sum(), 3, 1_000);
        bench.job.settings.partitions = NonZeroUsize::new(partitions);
        let summary = bench.run().await.unwrap();
        assert_eq!(summary.rows, 15);
        assert_eq!(summed(&bench).await, sums(3_000), "{partitions} partitions");
        assert_eq!(bench.fake.calls(), 15);
        let last = *bench.seen.lock().unwrap().last().unwrap();
        assert_eq!((last.rows_done, last.rows_total), (3_000, Some(3_000)));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_output_of_a_reducer_is_the_key_and_what_it_gives() {
    let mut bench = bench_of(Fake::sum(), 1, 10);
    bench.job.keep = vec!["day".into()];
    bench.run().await.unwrap();
    let schema = read(&bench.path("out")).await[0].schema();
    let names: Vec<_> = schema
        .fields()
        .iter()
        .map(|field| field.name().as_str())
        .collect();
    assert_eq!(names, ["region", "day", "prediction"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_function_of_all_rows_of_a_group_keeps_columns_and_gets_rows_as_they_are_in_the_table() {
    for workers in [1, 3] {
        let mut bench = bench_of(Fake::running_sums(), 2, 1_000);
        bench.job.keep = vec!["id".into()];
        bench.job.settings.partitions = NonZeroUsize::new(workers);
        let summary = bench.run().await.unwrap();
        assert_eq!(summary.rows, 2_000);
        let mut running = HashMap::<Key, f64>::new();
        let given = rows_of_groups(0, 2_000);
        let expected = keys(&given)
            .into_iter()
            .zip(floats(&given, "x"))
            .map(|(key, x)| {
                let sum = running.entry(key).or_default();
                *sum += x;
                sum.to_bits()
            });
        let expected: Vec<u64> = expected.collect();
        for rows in read(&bench.path("out")).await {
            let ids = rows["id"].as_primitive::<Int64Type>().values().to_vec();
            for (id, sum) in ids.into_iter().zip(floats(&rows, "prediction")) {
                assert_eq!(sum.to_bits(), expected[id as usize], "row {id}");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_wise_function_gives_what_it_gives_without_groups() {
    let mut bench = Bench::new(Fake::new(), 2, 500);
    bench.job.group_by = vec!["unused".into()];
    bench.run().await.unwrap();
    assert_eq!(bench.predictions().await, doubled(1_000));
    assert_eq!(bench.fake.calls(), 1_000);
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_that_are_sorted_in_little_memory_are_the_same() {
    let mut bench = bench_of(Fake::sum(), 4, 50_000);
    bench.job.settings.partitions = NonZeroUsize::new(2);
    bench.job.settings.sort_bytes = NonZeroUsize::new(24 << 20).unwrap();
    bench.run().await.unwrap();
    assert_eq!(summed(&bench).await, sums(200_000));
}

#[tokio::test(flavor = "multi_thread")]
async fn all_rows_may_be_one_group() {
    let mut bench = Bench::on(TempDir::new().unwrap(), Fake::sum());
    let rows = 300_000;
    let x = (0..rows).map(f64::from).collect::<Float64Array>();
    let one = Int32Array::from(vec![7; rows as usize]);
    let rows = batch(&[("one", Arc::new(one)), ("x", Arc::new(x))]);
    write_parquet(&bench.path("in/0.parquet"), &rows, 10_000);
    (bench.job.keep, bench.job.group_by) = (vec![], vec!["one".into()]);
    assert_eq!(bench.run().await.unwrap().rows, 1);
    assert_eq!(*bench.fake.sizes.lock().unwrap(), [300_000]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_filter_leaves_rows_out_before_they_are_grouped() {
    let mut bench = bench_of(Fake::sum(), 1, 1_000);
    bench.job.filter = Some("region = 'UK' AND id >= 500".into());
    assert_eq!(bench.run().await.unwrap().rows, 3);
    let rows: usize = bench.fake.sizes.lock().unwrap().iter().sum();
    assert_eq!(rows, 100);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_without_rows_has_no_groups() {
    let bench = bench_of(Fake::sum(), 1, 0);
    let summary = bench.run().await.unwrap();
    assert_eq!((summary.rows, summary.files, bench.fake.calls()), (0, 0, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_that_fails_is_named() {
    let mut bench = bench_of(Fake::sum().with_trouble(0, Trouble::Raises), 1, 1_000);
    bench.job.filter = Some("region IS NULL AND day = DATE '1970-01-02'".into());
    let error = bench.run().await.unwrap_err();
    let Error::Group { group, .. } = &error else {
        panic!("{error:?}");
    };
    assert_eq!(group, "region=null, day=1970-01-02");
    assert!(!bench.path("out").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_function_that_loses_rows_of_a_group_is_found_out() {
    let bench = bench_of(
        Fake::running_sums().with_trouble(3, Trouble::LosesRows),
        1,
        1_000,
    );
    let error = bench.run().await.unwrap_err();
    assert!(matches!(&error, Error::Group { .. }), "{error}");
    let cause = std::error::Error::source(&error).unwrap().to_string();
    assert!(cause.contains("rows for"), "{cause}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_that_is_too_large_is_refused_by_name() {
    let mut bench = bench_of(Fake::sum(), 1, 10_000);
    bench.job.group_by = vec!["region".into()];
    bench.job.settings.max_group_bytes = NonZeroUsize::new(1_000).unwrap();
    let error = bench.run().await.unwrap_err();
    let Error::GroupTooLarge { group, .. } = &error else {
        panic!("{error:?}");
    };
    assert!(group.starts_with("region="), "{group}");
    assert!(error.hint().unwrap().contains("--max-group-bytes"));
    assert!(!bench.path("out").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn columns_that_make_no_groups_are_refused_before_any_work() {
    for (columns, message) in [
        (
            vec!["regoin"],
            "has no column `regoin`, did you mean `region`?",
        ),
        (
            vec!["x"],
            "rows cannot be grouped by `x`: values of float64 are not",
        ),
        (
            vec!["day", "day"],
            "rows cannot be grouped by `day`: it is named twice",
        ),
    ] {
        let mut bench = bench_of(Fake::sum(), 1, 10);
        bench.job.group_by = columns.into_iter().map(Into::into).collect();
        let error = bench.refused().await;
        assert!(error.to_string().contains(message), "{error}");
        assert!(error.hint().is_some());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_column_with_many_values_is_not_kept_beside_one_row() {
    let mut bench = bench_of(Fake::sum(), 1, 10);
    bench.job.keep = vec!["region".into(), "id".into()];
    let error = bench.refused().await;
    assert!(
        matches!(&error, Error::KeptOfGroup { column, .. } if column == "id"),
        "{error}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn groups_are_for_one_model() {
    let mut bench = bench_of(Fake::sum(), 1, 10);
    let second = Model::new(Arc::new(Fake::called("second")));
    bench.components.models.push(second);
    let error = bench.refused().await;
    assert!(
        matches!(error, Error::GroupsOfSeveral { count: 2 }),
        "{error}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn without_groups_a_function_of_all_rows_is_still_refused() {
    let mut bench = bench_of(Fake::running_sums(), 1, 10);
    bench.job.group_by = vec![];
    assert!(matches!(bench.refused().await, Error::NotRowWise { .. }));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_with_other_groups_is_another_job() {
    let mut bench = bench_of(Fake::sum(), 1, 100);
    bench.job.identity = Some(Identity::new("nightly", None).unwrap());
    assert!(!bench.run().await.unwrap().already_done);
    assert!(bench.run().await.unwrap().already_done);
    bench.job.group_by = vec!["region".into()];
    let error = bench.run().await.unwrap_err();
    let Error::OtherJob { what, before, .. } = &error else {
        panic!("{error:?}");
    };
    assert_eq!(
        (*what, before.as_str()),
        ("columns of groups", "region, day")
    );
}

/// Which rows come to a partition is known only when all of the table was read.
#[tokio::test(flavor = "multi_thread")]
async fn what_an_attempt_has_done_of_the_groups_is_done_again() {
    let mut bench = bench_of(Fake::sum().with_trouble(10, Trouble::Raises), 2, 1_000);
    bench.job.identity = Some(Identity::new("nightly", None).unwrap());
    bench.run().await.unwrap_err();
    let bench = bench.with(Fake::sum());
    let summary = bench.run().await.unwrap();
    assert_eq!((summary.rows, summary.files_reused), (15, 0));
    assert_eq!(bench.fake.calls(), 15);
    assert_eq!(summed(&bench).await, sums(2_000));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plan_moves_and_sorts_rows_and_leaves_the_rest_to_two_nodes() {
    let bench = bench_of(Fake::sum(), 1, 10);
    let plan = planned(&bench).await;
    let lines: Vec<&str> = plan.lines().map(str::trim).collect();
    for (line, start) in lines.iter().zip([
        "EnvelopeSink: ",
        "EnvelopeGroups: function=double, envelope=sha256:",
        "SortExec: expr=[region@1 ASC, day@2 ASC, part@3 ASC, row@4 ASC], preserve_partitioning=[true]",
        "RepartitionExec: partitioning=Hash([region@1, day@2], 3)",
        "EnvelopeNumber: columns=[part, row]",
        "DataSourceExec: ",
    ]) {
        assert!(line.starts_with(start), "{plan}");
    }
    assert_eq!(lines.len(), 6, "{plan}");
}
