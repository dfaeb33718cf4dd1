//! Failed jobs: what they say, and that they leave nothing behind.

use super::*;

async fn fails_and_leaves_nothing(mut bench: Bench, format: Format) -> Error {
    bench.job.format = format;
    let before = bench.names();
    let error = bench.run().await.expect_err("the job was done");
    assert_eq!(bench.names(), before);
    error
}

#[tokio::test(flavor = "multi_thread")]
async fn a_function_that_raises_half_way_leaves_nothing() {
    for format in FORMATS {
        let fake = Fake::new().with_trouble(10, Trouble::Raises);
        let mut bench = Bench::new(fake, 3, 4_000);
        bench.job.settings.file_rows = NonZeroUsize::new(500).unwrap();
        let error = fails_and_leaves_nothing(bench, format).await;
        let Error::Function {
            source: runtime::Error::Function { exception, .. },
            table,
            ..
        } = &error
        else {
            panic!("{error:?}");
        };
        assert!(table.ends_with("/in"), "{table}");
        assert_eq!(exception.traceback, "line 1, in double");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_panic_is_an_error_and_leaves_nothing() {
    let bench = Bench::new(Fake::new().with_trouble(3, Trouble::Panics), 3, 2_000);
    let error = fails_and_leaves_nothing(bench, Format::Delta).await;
    assert_eq!(error.to_string(), "a part of the job panicked: told to");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_function_that_loses_rows_is_found_out() {
    let bench = Bench::new(Fake::new().with_trouble(3, Trouble::LosesRows), 1, 2_000);
    let error = fails_and_leaves_nothing(bench, Format::Delta).await;
    let Error::Function { source, .. } = &error else {
        panic!("{error:?}")
    };
    assert_eq!(
        source.to_string(),
        "`double` gave a wrong output: 499 rows for 500"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancelled_job_leaves_nothing() {
    for format in FORMATS {
        let mut bench = Bench::new(Fake::new().with_trouble(5, Trouble::Hangs), 3, 2_000);
        bench.job.settings.file_rows = NonZeroUsize::new(500).unwrap();
        let cancelled = bench.components.cancelled.clone();
        let fake = Arc::clone(&bench.fake);
        tokio::spawn(async move {
            while fake.calls() < 6 {
                tokio::task::yield_now().await;
            }
            cancelled.cancel();
        });
        let error = fails_and_leaves_nothing(bench, format).await;
        assert!(matches!(error, Error::Cancelled), "{error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_whose_future_is_dropped_leaves_nothing() {
    let bench = Bench::new(Fake::new().with_trouble(0, Trouble::Hangs), 3, 2_000);
    let before = bench.names();
    let begun = async {
        while bench.fake.calls() < 3 {
            tokio::task::yield_now().await;
        }
    };
    tokio::select! {
        ended = bench.run() => panic!("the job ended: {ended:?}"),
        () = begun => {}
    }
    assert_eq!(bench.names(), before);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_job_does_not_touch_the_table_it_would_have_changed() {
    for format in FORMATS {
        for mode in [Mode::Append, Mode::Overwrite] {
            let mut bench = Bench::new(Fake::new().with_trouble(6, Trouble::Raises), 1, 1_000);
            bench.job.format = format;
            bench.run().await.unwrap();
            write_parquet(&bench.path("in/0.parquet"), &table_rows(5_000, 4_000), 1000);
            let before = bench.names();
            bench.job.mode = mode.clone();
            bench.run().await.expect_err("the job was done");
            assert_eq!(bench.names(), before, "{format:?} {mode:?}");
            assert_eq!(bench.predictions().await, doubled(1_000));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_value_is_found_before_any_work_and_names_the_file() {
    let bench = Bench::new(Fake::new(), 1, 10);
    let rows = batch(&[
        ("id", Arc::new(Int64Array::from(vec![10, 11]))),
        ("unused", Arc::new(StringArray::from(vec!["", ""]))),
        ("x", Arc::new(Float64Array::from(vec![Some(1.0), None]))),
    ]);
    write_parquet(&bench.path("in/holes.parquet"), &rows, 10);
    let error = bench.refused().await;
    let Error::MissingValue {
        column,
        file: Some(file),
        ..
    } = &error
    else {
        panic!("{error}")
    };
    assert_eq!(
        (column.as_str(), file),
        ("x", &bench.path("in/holes.parquet"))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_is_not_there_is_named() {
    let mut bench = Bench::new(Fake::new(), 0, 0);
    let text = bench.refused().await.to_string();
    assert!(
        text.ends_with("/in`: the folder holds neither `_delta_log` nor a file `*.parquet`, `*.csv`, `*.jsonl` or `*.arrow`"),
        "{text}"
    );
    bench.job.input = bench.path("nowhere").to_string_lossy().into_owned();
    let text = bench.refused().await.to_string();
    assert!(
        text.ends_with("/nowhere`: no such file or folder"),
        "{text}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_is_not_parquet_is_named() {
    let bench = Bench::new(Fake::new(), 1, 10);
    std::fs::write(bench.path("in/1.parquet"), "not parquet").unwrap();
    let error = bench.refused().await;
    assert!(error.to_string().ends_with("/in/1.parquet`"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn files_that_disagree_are_named() {
    let bench = Bench::new(Fake::new(), 1, 10);
    write_parquet(
        &bench.path("in/1.parquet"),
        &table_rows(10, 1).project(&[0, 1]).unwrap(),
        10,
    );
    let error = bench.refused().await;
    assert!(
        matches!(&error, Error::FilesDiffer { column, .. } if column == "x"),
        "{error}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_function_without_evidence_is_refused() {
    let mut fake = Fake::new();
    fake.manifest.functions[0].certificate.row_wise = false;
    let error = Bench::new(fake, 1, 10).refused().await;
    assert!(matches!(error, Error::NotRowWise { .. }), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_column_cannot_be_kept_under_the_name_of_an_output() {
    let error = Bench::new(Fake::new().with_outputs(&["id"]), 1, 10)
        .refused()
        .await;
    let text = error.to_string();
    assert_eq!(
        text,
        "two columns of the output would be called `id`: one is kept, a function gives the other"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_column_that_is_not_there_is_named_with_the_nearest() {
    let mut bench = Bench::new(Fake::new(), 1, 10);
    bench.job.keep = vec!["ids".into()];
    let error = bench.refused().await;
    assert!(
        error
            .to_string()
            .ends_with("has no column `ids`, did you mean `id`?"),
        "{error}"
    );
    assert_eq!(
        error.hint().as_deref(),
        Some("the columns are `id`, `unused`, `x`")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_is_damaged_inside_fails_the_job_and_leaves_nothing() {
    let bench = Bench::new(Fake::new(), 1, 5_000);
    let path = bench.path("in/0.parquet");
    let mut bytes = std::fs::read(&path).unwrap();
    let middle = bytes.len() / 2;
    bytes[4..middle].fill(0xff);
    std::fs::write(&path, bytes).unwrap();
    let error = fails_and_leaves_nothing(bench, Format::Delta).await;
    assert!(
        matches!(&error, Error::Read { table, .. } if table.ends_with("/in")),
        "{error:?}"
    );
}
