//! Parquet folders as input and output.

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn hidden_names_are_not_data_and_folders_are_searched() {
    let bench = Bench::new(Fake::new(), 1, 10);
    write_parquet(&bench.path("in/more/1.parquet"), &table_rows(10, 10), 10);
    write_parquet(&bench.path("in/_staged/2.parquet"), &table_rows(20, 10), 10);
    write_parquet(&bench.path("in/.3.parquet"), &table_rows(30, 10), 10);
    bench.run().await.unwrap();
    assert_eq!(bench.predictions().await, doubled(20));
}

#[tokio::test(flavor = "multi_thread")]
async fn one_file_is_a_table() {
    let mut bench = Bench::new(Fake::new(), 2, 10);
    bench.job.input = format!("file://{}", bench.path("in/0.parquet").display());
    bench.run().await.unwrap();
    assert_eq!(bench.predictions().await, doubled(10));
}

#[tokio::test(flavor = "multi_thread")]
async fn types_that_delta_lacks_can_be_written_as_parquet() {
    let mut bench = Bench::on(TempDir::new().unwrap(), Fake::new());
    let rows = batch(&[
        (
            "id",
            Arc::new(arrow_array::UInt64Array::from(vec![u64::MAX])),
        ),
        ("x", Arc::new(Float64Array::from(vec![1.0]))),
    ]);
    write_parquet(&bench.path("in/0.parquet"), &rows, 10);
    let error = bench.refused().await;
    assert!(
        matches!(&error, Error::NoDeltaType { column, .. } if column == "id"),
        "{error}"
    );
    bench.job.format = Format::Parquet;
    bench.run().await.unwrap();
    assert_eq!(
        read(&bench.path("out")).await[0].column(0).data_type(),
        &DataType::UInt64
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn paths_with_odd_characters_work() {
    for (format, folder) in [
        (Format::Parquet, "a/b c %20 #1? ü"),
        (Format::Delta, "a/b c #1? ü"),
    ] {
        let mut bench = Bench::new(Fake::new(), 1, 10);
        std::fs::rename(bench.path("in"), bench.path("in % ü #1?")).unwrap();
        bench.job.input = bench.path("in % ü #1?").to_string_lossy().into_owned();
        bench.job.output = bench.path(folder).to_string_lossy().into_owned();
        bench.job.format = format;
        bench.run().await.unwrap();
        let rows = read(&bench.path(folder)).await;
        assert_eq!(rows.iter().map(RecordBatch::num_rows).sum::<usize>(), 10);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_delta_folder_that_would_get_another_name_is_refused() {
    let mut bench = Bench::new(Fake::new(), 1, 10);
    bench.job.output = bench.path("100%20").to_string_lossy().into_owned();
    let error = bench.refused().await;
    assert!(matches!(error, Error::Location { .. }), "{error}");
}
