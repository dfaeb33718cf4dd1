//! Columns that are in the names of folders.

use arrow_array::types::Date32Type;

use super::*;

/// Rows of the output's column `name`, as text, by key.
async fn kept(bench: &Bench, name: &str) -> BTreeMap<i64, String> {
    let mut kept = BTreeMap::new();
    for batch in read(&bench.path("out")).await {
        let ids = batch.column_by_name("id").unwrap();
        let column = batch.column_by_name(name).unwrap();
        for (row, id) in ids.as_primitive::<Int64Type>().values().iter().enumerate() {
            let text = arrow_cast::display::array_value_to_string(column, row).unwrap();
            kept.insert(
                *id,
                if column.is_null(row) {
                    "null".into()
                } else {
                    text
                },
            );
        }
    }
    kept
}

#[tokio::test(flavor = "multi_thread")]
async fn what_pyarrow_and_polars_write_can_be_kept() {
    // The one leaves the columns to the folders, the other writes them into the files too.
    let mut bench = Bench::on(TempDir::new().unwrap(), Fake::new());
    bench.job.keep = vec!["id".into(), "day".into(), "place".into(), "year".into()];
    bench.job.mode = Mode::Overwrite;
    let frame = "
import datetime, pyarrow as pa, pyarrow.dataset as ds, polars as pl
day = datetime.date(2026, 1, 1)
table = pa.table({
    'id': [0, 1, 2, 3],
    'x': [0.5, 1.5, 2.5, 3.5],
    'day': [day, day, datetime.date(2026, 1, 2), None],
    'place': ['a/b=c %41', 'ü', None, 'ü'],
    'year': [2026, 2026, 2026, 2026],
})
";
    let writers = [
        "
parts = ds.partitioning(pa.schema([('day', pa.date32()), ('place', pa.string()), ('year', pa.int64())]), flavor='hive')
ds.write_dataset(table, 'in', format='parquet', partitioning=parts)",
        "
pl.from_arrow(table).write_parquet('in', partition_by=['day', 'place', 'year'])",
    ];
    for writer in writers {
        std::fs::remove_dir_all(bench.path("in")).unwrap();
        std::fs::create_dir(bench.path("in")).unwrap();
        written_by_python(bench.folder.path(), &format!("{frame}{writer}"));
        bench.run().await.unwrap();
        assert_eq!(bench.predictions().await, doubled(4));
        let expected = |texts: [&str; 4]| -> BTreeMap<i64, String> {
            (0..).zip(texts.map(str::to_owned)).collect()
        };
        assert_eq!(
            kept(&bench, "day").await,
            expected(["2026-01-01", "2026-01-01", "2026-01-02", "null"])
        );
        assert_eq!(
            kept(&bench, "place").await,
            expected(["a/b=c %41", "ü", "null", "ü"])
        );
        let rows = read(&bench.path("out")).await;
        assert!(rows[0].column(1).as_primitive_opt::<Date32Type>().is_some());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_function_takes_a_partition_column() {
    let bench = Bench::on(TempDir::new().unwrap(), Fake::new());
    for x in 0..3 {
        let ids = Int64Array::from(vec![x]);
        let file = bench.path(&format!("in/x={x}/0.parquet"));
        write_parquet(&file, &batch(&[("id", Arc::new(ids))]), 10);
    }
    bench.run().await.unwrap();
    let expected: BTreeMap<i64, f64> = (0..3).map(|x| (x, 2.0 * x as f64)).collect();
    assert_eq!(bench.predictions().await, expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_value_in_a_folder_name_is_seen_before_any_work() {
    let bench = Bench::on(TempDir::new().unwrap(), Fake::new());
    let ids = batch(&[("id", Arc::new(Int64Array::from(vec![0])))]);
    write_parquet(&bench.path("in/x=1/0.parquet"), &ids, 10);
    let lacking = bench.path("in/x=__HIVE_DEFAULT_PARTITION__/0.parquet");
    write_parquet(&lacking, &ids, 10);
    let error = bench.refused().await;
    assert!(
        matches!(&error, Error::MissingValue { file: Some(file), .. } if *file == lacking),
        "{error}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_partitioned_folder_gets_no_rows_beside_its_folders() {
    let mut bench = Bench::new(Fake::new(), 1, 10);
    bench.job.format = Format::Parquet;
    bench.job.mode = Mode::Append;
    let there = batch(&[("id", Arc::new(Int64Array::from(vec![0])))]);
    write_parquet(&bench.path("out/prediction=1/0.parquet"), &there, 10);
    let error = bench.refused().await;
    // A prediction is not in the name of a folder, as text does not give back every float.
    assert!(matches!(error, Error::PartitionBy { .. }), "{error}");
}
