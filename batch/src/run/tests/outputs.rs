//! What happens when the output exists.

use super::*;

/// A job that is done, and a new function for the next one.
async fn done(format: Format) -> Bench {
    let mut bench = Bench::new(Fake::new(), 1, 1_000);
    bench.job.format = format;
    bench.run().await.unwrap();
    bench.with(Fake::new())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_exists_is_not_touched_unless_asked() {
    for format in FORMATS {
        let bench = done(format).await;
        let error = bench.refused().await;
        assert!(error.to_string().ends_with("/out` exists"), "{error}");
        let error = bench
            .with(Fake::new().with_outputs(&["score"]))
            .refused()
            .await;
        let text = error.to_string();
        assert!(
            text.contains(
                "exists, and with another schema: column `score` of the results is float64"
            ),
            "{text}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn appending_adds_rows() {
    for format in FORMATS {
        let mut bench = done(format).await;
        write_parquet(&bench.path("in/0.parquet"), &table_rows(1_000, 500), 1000);
        bench.job.mode = Mode::Append;
        let summary = bench.run().await.unwrap();
        assert_eq!(summary.version, (format == Format::Delta).then_some(1));
        assert_eq!(bench.predictions().await, doubled(1_500));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn appending_other_columns_is_refused() {
    for format in FORMATS {
        let mut bench = done(format)
            .await
            .with(Fake::new().with_outputs(&["prediction", "more"]));
        bench.job.mode = Mode::Append;
        let error = bench.refused().await;
        let Error::SchemaMismatch {
            column,
            found,
            expected,
            ..
        } = &error
        else {
            panic!("{error}")
        };
        assert_eq!(
            (column.as_str(), found.as_str(), expected.as_str()),
            ("more", "float64", "no such column")
        );
        bench.job.keep = vec![];
        let error = bench.with(Fake::new()).refused().await;
        assert!(
            matches!(&error, Error::SchemaMismatch { column, .. } if column == "id"),
            "{error}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn overwriting_leaves_only_the_new_rows() {
    for format in FORMATS {
        let mut bench = done(format).await;
        write_parquet(&bench.path("in/0.parquet"), &table_rows(0, 300), 1000);
        bench.job.mode = Mode::Overwrite;
        bench.run().await.unwrap();
        assert_eq!(bench.predictions().await, doubled(300));
        assert!(
            !bench.names().iter().any(|name| name.starts_with('.')),
            "{:?}",
            bench.names()
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn overwriting_with_other_columns_replaces_them() {
    for format in FORMATS {
        let mut bench = done(format)
            .await
            .with(Fake::new().with_outputs(&["prediction", "more"]));
        bench.job.mode = Mode::Overwrite;
        bench.run().await.unwrap();
        assert_eq!(bench.predictions().await, doubled(1_000));
        let out = Source::open(&Location::parse(&bench.job.output).unwrap())
            .await
            .unwrap();
        assert_eq!(out.schema.fields().len(), 3);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_can_be_overwritten_by_results_from_itself() {
    for format in FORMATS {
        let mut bench = Bench::new(Fake::new().with_outputs(&["x"]), 1, 300);
        bench.job.format = format;
        bench.run().await.unwrap();
        bench.job.input.clone_from(&bench.job.output);
        bench.job.mode = Mode::Overwrite;
        bench.run().await.unwrap();
        let rows = read(&bench.path("out")).await;
        let sum: f64 = rows
            .iter()
            .flat_map(|rows| rows.column(1).as_primitive::<Float64Type>().values())
            .sum();
        assert_eq!(
            sum,
            (0..300)
                .map(|row| 4.0 * (f64::from(row) + 0.5))
                .sum::<f64>()
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_with_other_files_is_not_a_table() {
    for format in FORMATS {
        let mut bench = Bench::new(Fake::new(), 1, 10);
        bench.job.format = format;
        std::fs::create_dir(bench.path("out")).unwrap();
        std::fs::write(bench.path("out/thesis.txt"), "years of work").unwrap();
        for mode in [Mode::Error, Mode::Append, Mode::Overwrite] {
            bench.job.mode = mode.clone();
            let error = bench.refused().await;
            assert!(matches!(error, Error::NotThatTable { .. }), "{error}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_of_the_other_format_is_refused() {
    for (format, other) in [
        (Format::Delta, Format::Parquet),
        (Format::Parquet, Format::Delta),
    ] {
        let mut bench = done(format).await;
        bench.job.format = other;
        bench.job.mode = Mode::Overwrite;
        let error = bench.refused().await;
        assert!(matches!(error, Error::NotThatTable { .. }), "{error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_empty_folder_can_become_a_table() {
    for format in FORMATS {
        let mut bench = Bench::new(Fake::new(), 1, 10);
        bench.job.format = format;
        std::fs::create_dir(bench.path("out")).unwrap();
        bench.run().await.unwrap();
        assert_eq!(bench.predictions().await, doubled(10));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn files_are_closed_when_they_are_full() {
    let mut bench = Bench::new(Fake::new(), 1, 5_000);
    bench.job.settings.partitions = NonZeroUsize::new(1);
    bench.job.settings.file_rows = NonZeroUsize::new(1_000).unwrap();
    assert_eq!(bench.run().await.unwrap().files, 5);
    assert_eq!(bench.predictions().await, doubled(5_000));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_somebody_else_made_meanwhile_is_not_touched() {
    for format in FORMATS {
        let mut bench = Bench::new(Fake::new(), 1, 100);
        bench.job.format = format;
        let mapped = schema_of(&[
            ("id", DataType::Int64, true),
            ("prediction", DataType::Float64, false),
        ]);
        let early = Target::check(&bench.job, &Stores::default(), &mapped)
            .await
            .unwrap();
        bench.run().await.unwrap();
        let before = bench.names();
        let attempt = Attempt::begin(&early, Uuid::new_v4()).await.unwrap();
        let error = commit(&early, attempt, &[], Facts::new())
            .await
            .unwrap_err();
        assert!(matches!(error, Error::Conflict { .. }), "{error:?}");
        assert_eq!(bench.names(), before);
        assert_eq!(bench.predictions().await, doubled(100));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_somebody_else_made_meanwhile_is_added_to_where_that_is_asked() {
    for format in FORMATS {
        let mut bench = Bench::new(Fake::new(), 1, 100);
        bench.job.format = format;
        bench.job.mode = Mode::Append;
        let done = futures::future::join_all((0..6).map(|_| bench.run())).await;
        assert!(done.iter().all(Result::is_ok), "{format:?}: {done:?}");
        let rows = read(&bench.path("out")).await;
        assert_eq!(rows.iter().map(RecordBatch::num_rows).sum::<usize>(), 600);
    }
}
