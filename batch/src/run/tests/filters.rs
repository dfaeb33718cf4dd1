//! Which rows are read.

use super::super::decided::read;
use super::*;

fn some_doubled(ids: impl IntoIterator<Item = i64>) -> BTreeMap<i64, f64> {
    let ids = ids.into_iter();
    ids.map(|id| (id, 2.0 * (id as f64 + 0.5))).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn exactly_the_rows_that_the_filter_selects_come_out() {
    let mut bench = Bench::new(Fake::new(), 3, 10_000);
    bench.job.mode = Mode::Overwrite;
    let cases: [(&str, Vec<i64>); 5] = [
        ("id = 7 OR id >= 29998", vec![7, 29_998, 29_999]),
        ("id % 10000 = 1 AND id > 5", vec![10_001, 20_001]),
        ("unused IN ('row 3', 'row 20003')", vec![3, 20_003]),
        ("x BETWEEN 0.5 AND 2.5", vec![0, 1, 2]),
        ("unused IS NULL", vec![]),
    ];
    for (filter, ids) in cases {
        bench.job.filter = Some(filter.to_owned());
        let summary = bench.run().await.unwrap();
        assert_eq!(summary.rows, ids.len() as u64, "{filter}");
        assert_eq!(bench.predictions().await, some_doubled(ids), "{filter}");
        assert_eq!(bench.seen.lock().unwrap().last().unwrap().rows_total, None);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_filter_reaches_the_scan_and_its_columns_go_no_further() {
    let mut bench = Bench::new(Fake::new(), 1, 10_000);
    bench.job.filter = Some("unused = 'row 3'".to_owned());
    let plan = planned(&bench).await;
    assert!(plan.contains("FilterExec: unused"), "{plan}");
    assert!(plan.contains("predicate=unused"), "{plan}");
    assert!(plan.contains("pruning_predicate="), "{plan}");
    assert!(plan.contains("file_groups={3 groups:"), "{plan}");
    assert!(!plan.contains("RepartitionExec"), "{plan}");
}

#[tokio::test(flavor = "multi_thread")]
async fn files_of_other_partitions_are_not_opened() {
    let mut bench = Bench::on(TempDir::new().unwrap(), Fake::new());
    for day in 1..4 {
        let file = bench.path(&format!("in/day=2026-01-0{day}/0.parquet"));
        write_parquet(&file, &table_rows(day * 10, 10), 10);
    }
    bench.job.filter = Some("day = '2026-01-02' AND id < 25".to_owned());
    let plan = planned(&bench).await;
    assert!(plan.contains("day=2026-01-02"), "{plan}");
    assert!(!plan.contains("day=2026-01-01"), "{plan}");
    bench.run().await.unwrap();
    assert_eq!(bench.predictions().await, some_doubled(20..25));
}

#[tokio::test(flavor = "multi_thread")]
async fn files_are_left_out_by_what_a_delta_log_says_of_them() {
    let mut bench = Bench::on(TempDir::new().unwrap(), Fake::new());
    written_by_python(
        bench.folder.path(),
        "
import datetime, pyarrow as pa, deltalake
for part in range(4):
    ids = list(range(part * 10, part * 10 + 10))
    rows = pa.table({
        'id': ids, 'x': [i + 0.5 for i in ids], 'name': [f'{i:02}' for i in ids],
        'day': [datetime.date(2026, 1, part + 1)] * 10, 'region': ['UK' if part < 2 else None] * 10,
    })
    deltalake.write_deltalake('in', rows, mode='append', partition_by=['region'])",
    );
    let cases: [(&str, usize, Vec<i64>); 6] = [
        ("id >= 15 AND id < 18", 1, vec![15, 16, 17]),
        ("name = '33'", 1, vec![33]),
        ("day > DATE '2026-01-03' AND id = 39", 1, vec![39]),
        ("region = 'UK' AND id IN (1, 39)", 1, vec![1]),
        ("region IS NULL AND id % 10 = 0", 2, vec![20, 30]),
        ("x > 38", 4, vec![38, 39]),
    ];
    bench.job.mode = Mode::Overwrite;
    for (filter, files, ids) in cases {
        bench.job.filter = Some(filter.to_owned());
        let models = splittable(&bench.job, &bench.components.models).unwrap();
        let (source, _) = read(&bench.job, &bench.components, &models, None)
            .await
            .unwrap();
        assert_eq!(source.files.len(), files, "{filter}");
        bench.run().await.unwrap();
        assert_eq!(bench.predictions().await, some_doubled(ids), "{filter}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_that_lack_a_value_can_be_filtered_out() {
    let mut bench = Bench::on(TempDir::new().unwrap(), Fake::new());
    let rows = batch(&[
        ("id", Arc::new(Int64Array::from(vec![0, 1]))),
        ("x", Arc::new(Float64Array::from(vec![Some(0.5), None]))),
    ]);
    write_parquet(&bench.path("in/0.parquet"), &rows, 10);
    assert!(matches!(bench.refused().await, Error::MissingValue { .. }));
    bench.job.filter = Some("x IS NOT NULL".to_owned());
    bench.run().await.unwrap();
    assert_eq!(bench.predictions().await, some_doubled([0]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_filter_is_refused_before_any_work() {
    let mut bench = Bench::new(Fake::new(), 1, 10);
    bench.job.filter = Some("idd = 1".to_owned());
    assert!(matches!(bench.refused().await, Error::NoColumn { .. }));
    bench.job.filter = Some("id = (SELECT 1)".to_owned());
    assert!(matches!(bench.refused().await, Error::Filter { .. }));
}
