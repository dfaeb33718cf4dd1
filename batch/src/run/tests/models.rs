//! Jobs with several models: one pass over the table.

use envelope_format::Field as Column;

use super::*;

/// A job with models of these names: the first doubles `x`, the others `y`, which is ten times that.
fn bench_of(models: Vec<(&str, Fake)>) -> Bench {
    let folder = TempDir::new().unwrap();
    let rows = table_rows(0, 1_000);
    let tenfold = |x: f64| x * 10.0;
    let y = rows["x"]
        .as_primitive::<Float64Type>()
        .unary::<_, Float64Type>(tenfold);
    let columns: Vec<(&str, ArrayRef)> = vec![
        ("id", Arc::clone(&rows["id"])),
        ("x", Arc::clone(&rows["x"])),
        ("y", Arc::new(Float64Array::from(y))),
    ];
    write_parquet(&folder.path().join("in/0.parquet"), &batch(&columns), 100);
    let mut bench = Bench::on(folder, Fake::new());
    let models = models
        .into_iter()
        .enumerate()
        .map(|(position, (name, mut fake))| {
            if position > 0 {
                let input = &mut fake.manifest.functions[0].signature.input;
                input.fields = vec![Column::new("y", envelope_format::DataType::Float64, false)];
            }
            Model {
                name: Some(name.into()),
                ..Model::new(Arc::new(fake))
            }
        });
    bench.components.models = models.collect();
    bench
}

/// Two models, the second of which gives two columns.
fn two() -> Bench {
    let second = Fake::called("second").with_outputs(&["low", "high"]);
    bench_of(vec![("a", Fake::new()), ("b", second)])
}

async fn refused(bench: &Bench) -> Error {
    let error = bench.run().await.expect_err("the job was done");
    assert!(!bench.path("out").exists());
    error
}

#[tokio::test(flavor = "multi_thread")]
async fn results_of_several_models_stand_side_by_side() {
    let bench = two();
    let summary = bench.run().await.unwrap();
    assert_eq!((summary.rows, summary.version), (1_000, Some(0)));
    let mut seen = 0;
    for rows in read(&bench.path("out")).await {
        let schema = rows.schema();
        let names: Vec<&str> = schema
            .fields()
            .iter()
            .map(|field| field.name().as_str())
            .collect();
        assert_eq!(names, ["id", "a_prediction", "b_low", "b_high"]);
        let floats = |name: &str| rows[name].as_primitive::<Float64Type>().values().to_vec();
        for (row, id) in rows["id"]
            .as_primitive::<Int64Type>()
            .values()
            .iter()
            .enumerate()
        {
            let x = *id as f64 + 0.5;
            let given = ["a_prediction", "b_low", "b_high"].map(|name| floats(name)[row]);
            assert_eq!(given, [2.0 * x, 20.0 * x, 20.0 * x]);
            seen += 1;
        }
    }
    assert_eq!(seen, 1_000);
}

#[tokio::test(flavor = "multi_thread")]
async fn each_model_has_a_map_over_one_scan_of_what_all_of_them_take() {
    let bench = two();
    let plan = planned(&bench).await;
    let maps: Vec<&str> = plan
        .lines()
        .filter(|line| line.contains("EnvelopeMap"))
        .collect();
    assert_eq!(maps.len(), 2, "{plan}");
    assert!(
        maps[1].contains("keep=[id, y], given=[a_prediction]"),
        "{plan}"
    );
    assert!(
        maps[0].contains("keep=[id, a_prediction], given=[b_low, b_high]"),
        "{plan}"
    );
    assert_eq!(plan.matches("DataSourceExec").count(), 1, "{plan}");
}

#[tokio::test(flavor = "multi_thread")]
async fn models_in_a_row_do_not_wait_for_each_other_for_ever() {
    let fakes = ["p", "q", "r"].map(|name| (name, Fake::called(name)));
    let mut bench = bench_of(fakes.into());
    bench.job.settings.batch_rows = NonZeroUsize::new(3).unwrap();
    bench.job.settings.partitions = NonZeroUsize::new(4);
    assert_eq!(bench.run().await.unwrap().rows, 1_000);
}

#[tokio::test(flavor = "multi_thread")]
async fn results_with_one_name_are_refused() {
    for (first, second) in [("a", "a"), ("y", "y")] {
        let fakes = vec![(first, Fake::new()), (second, Fake::called("second"))];
        let error = refused(&bench_of(fakes)).await;
        assert!(matches!(error, Error::ColumnTwice { .. }), "{error}");
        assert!(error.hint().unwrap().contains("other names"), "{error}");
    }
    let mut without = two();
    without.components.models.clear();
    assert!(matches!(refused(&without).await, Error::NoModel));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_a_model_fails_on_is_told_whichever_it_is() {
    let fails = Fake::called("second").with_trouble(0, Trouble::Raises);
    let error = refused(&bench_of(vec![("a", Fake::new()), ("b", fails)])).await;
    let Error::Function { row: Some(row), .. } = error.root() else {
        panic!("{error}");
    };
    assert!(row.starts_with("id=") && row.contains("y="), "{row}");
}

#[tokio::test(flavor = "multi_thread")]
async fn all_envelopes_are_the_identity_of_a_job() {
    let mut bench = two();
    bench.job.identity = Some(Identity::new("nightly", None).unwrap());
    let first = bench.run().await.unwrap();
    assert!(!first.already_done && bench.run().await.unwrap().already_done);
    let log = std::fs::read_to_string(bench.path("out/_delta_log/00000000000000000000.json"));
    let log = log.unwrap();
    for model in &bench.components.models {
        assert!(log.contains(&model.rows.digest().to_string()), "{log}");
    }
    assert!(log.contains("envelopeDigests"), "{log}");

    bench.components.models[1].name = Some("c".into());
    let error = bench.run().await.unwrap_err();
    assert!(
        matches!(
            error,
            Error::OtherJob {
                what: "list of models",
                ..
            }
        ),
        "{error}"
    );
    bench.components.models.truncate(1);
    bench.job.mode = Mode::Overwrite;
    assert!(!bench.run().await.unwrap().already_done, "another job");
}
