//! Jobs with an identity: done once, however often they are run.

use std::num::NonZeroU64;

use super::*;
use crate::claim::Claim;
use crate::claim::Record;
use crate::hold::Hold;

/// A job with an identity over one file of 10,000 rows, cut into many splits.
fn named(fake: Fake, format: Format) -> Bench {
    let mut bench = Bench::new(fake, 4, 2_500);
    bench.job.format = format;
    bench.job.identity = Some(Identity::new("nightly", Some("2026-11-28")).unwrap());
    bench.job.settings.split_bytes = NonZeroU64::new(10_000).unwrap();
    bench.job.settings.partitions = NonZeroUsize::new(2);
    bench
}

fn left_over(bench: &Bench) -> Vec<String> {
    let names = bench.names().into_iter();
    names
        .filter(|name| name.starts_with(".out") || name.contains("_envelope_jobs"))
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_finished_job_that_is_run_again_changes_nothing_and_says_so() {
    for format in FORMATS {
        for mode in [Mode::Error, Mode::Append, Mode::Overwrite] {
            let mut bench = named(Fake::new(), format);
            bench.job.mode = mode.clone();
            let first = bench.run().await.unwrap();
            let (names, calls) = (bench.names(), bench.fake.calls());
            assert!(!first.already_done);
            assert_eq!(left_over(&bench), Vec::<String>::new());
            let again = bench.run().await.unwrap();
            assert_eq!(
                again,
                Summary {
                    already_done: true,
                    ..first
                },
                "{format:?} {mode:?}"
            );
            assert_eq!((bench.names(), bench.fake.calls()), (names, calls));
            assert_eq!(bench.predictions().await, doubled(10_000));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_version_of_a_finished_job_is_told_when_others_came_later() {
    let mut bench = named(Fake::new(), Format::Delta);
    bench.job.mode = Mode::Append;
    let first = bench.run().await.unwrap();
    let identity = bench.job.identity.take();
    bench.job.mode = Mode::Overwrite;
    bench.run().await.unwrap();
    bench.job.identity = identity;
    assert_eq!(bench.run().await.unwrap().version, first.version);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_parquet_table_that_is_overwritten_still_knows_its_jobs() {
    let mut bench = named(Fake::new(), Format::Parquet);
    bench.job.mode = Mode::Append;
    for date in ["2026-11-28", "2026-11-29"] {
        bench.job.identity = Some(Identity::new("nightly", Some(date)).unwrap());
        bench.run().await.unwrap();
    }
    bench.job.mode = Mode::Overwrite;
    bench.job.identity = None;
    bench.run().await.unwrap();
    bench.job.mode = Mode::Append;
    for date in ["2026-11-28", "2026-11-29"] {
        bench.job.identity = Some(Identity::new("nightly", Some(date)).unwrap());
        assert!(bench.run().await.unwrap().already_done);
    }
    assert_eq!(bench.predictions().await, doubled(10_000));
}

#[tokio::test(flavor = "multi_thread")]
async fn another_date_and_another_name_are_other_jobs() {
    for format in FORMATS {
        let mut bench = named(Fake::new(), format);
        bench.run().await.unwrap();
        bench.job.mode = Mode::Append;
        for (file, (name, date)) in [("nightly", None), ("weekly", Some("2026-11-28"))]
            .into_iter()
            .enumerate()
        {
            std::fs::remove_dir_all(bench.path("in")).unwrap();
            let rows = table_rows(10_000 + 100 * file, 100);
            write_parquet(&bench.path("in/0.parquet"), &rows, 100);
            bench.job.identity = Some(Identity::new(name, date).unwrap());
            assert!(!bench.run().await.unwrap().already_done);
        }
        assert_eq!(bench.predictions().await, doubled(10_200));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_finished_name_with_another_input_is_refused() {
    let mut bench = named(Fake::new(), Format::Delta);
    bench.run().await.unwrap();
    bench.job.input = bench.path("elsewhere").to_string_lossy().into_owned();
    let error = bench.run().await.unwrap_err();
    assert!(
        matches!(&error, Error::OtherJob { what: "input", .. }),
        "{error}"
    );
    assert!(error.hint().is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_finished_name_with_other_rows_of_the_input_is_refused() {
    let mut bench = named(Fake::new(), Format::Delta);
    bench.job.filter = Some("id < 5000".into());
    assert_eq!(bench.run().await.unwrap().rows, 5_000);
    assert!(bench.run().await.unwrap().already_done);
    for filter in [None, Some("id < 6000".to_owned())] {
        bench.job.filter = filter;
        let error = bench.run().await.unwrap_err();
        assert!(
            matches!(&error, Error::OtherJob { what: "filter", .. }),
            "{error}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_finished_of_other_rows_is_not_used() {
    for format in FORMATS {
        let mut bench = named(Fake::new().with_trouble(12, Trouble::Raises), format);
        bench.job.filter = Some("id >= 0".into());
        bench.run().await.expect_err("the job was done");
        let mut bench = bench.with(Fake::new());
        bench.job.filter = Some("id > 0".into());
        let summary = bench.run().await.unwrap();
        assert_eq!((summary.rows, summary.files_reused), (9_999, 0));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_half_finished_job_with_a_filter_is_completed_with_what_was_finished() {
    let mut bench = named(Fake::new().with_trouble(6, Trouble::Raises), Format::Delta);
    bench.job.filter = Some("id % 2 = 0".into());
    bench.run().await.expect_err("the job was done");
    let summary = bench.with(Fake::new()).run().await.unwrap();
    assert_eq!(summary.rows, 5_000);
    assert!(summary.files_reused > 0, "{summary:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_job_with_an_identity_leaves_nothing() {
    for format in FORMATS {
        let mut bench = named(Fake::new(), format);
        bench.job.keep = vec!["nowhere".into()];
        bench.refused().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_half_finished_job_is_completed_with_what_was_finished() {
    for format in FORMATS {
        for mode in [Mode::Error, Mode::Append, Mode::Overwrite] {
            let fake = Fake::new().with_trouble(12, Trouble::Raises);
            let mut bench = named(fake, format);
            bench.job.mode = mode.clone();
            bench.run().await.expect_err("the job was done");
            assert!(!left_over(&bench).is_empty());
            let bench = bench.with(Fake::new());
            let summary = bench.run().await.unwrap();
            assert!(summary.files_reused > 0, "{format:?} {mode:?}: {summary:?}");
            assert!(bench.fake.calls() < 20, "{} calls", bench.fake.calls());
            assert_eq!(summary.rows, 10_000);
            assert_eq!(bench.predictions().await, doubled(10_000));
            assert_eq!(left_over(&bench), Vec::<String>::new());
            assert!(bench.run().await.unwrap().already_done);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_finished_of_another_input_is_not_used() {
    let bench = named(Fake::new().with_trouble(12, Trouble::Raises), Format::Delta);
    bench.run().await.expect_err("the job was done");
    for file in 0..4 {
        let rows = table_rows(file * 2_500, 2_500);
        write_parquet(&bench.path(&format!("in/{file}.parquet")), &rows, 500);
    }
    let bench = bench.with(Fake::new());
    let summary = bench.run().await.unwrap();
    assert_eq!((summary.rows, summary.files_reused), (10_000, 0));
    assert_eq!(bench.predictions().await, doubled(10_000));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_finished_is_not_used_when_a_file_of_it_is_gone() {
    let bench = named(Fake::new().with_trouble(12, Trouble::Raises), Format::Delta);
    bench.run().await.expect_err("the job was done");
    let gone = bench
        .names()
        .into_iter()
        .find(|name| name.starts_with("out/part-"));
    std::fs::remove_file(bench.path(&gone.unwrap())).unwrap();
    let bench = bench.with(Fake::new());
    assert_eq!(bench.run().await.unwrap().rows, 10_000);
    assert_eq!(bench.predictions().await, doubled(10_000));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_half_finished_job_reads_the_version_that_it_began_with() {
    let mut bench = named(Fake::new().with_outputs(&["x"]), Format::Delta);
    bench.job.identity = None;
    bench.job.settings.file_rows = NonZeroUsize::new(500).unwrap();
    bench.run().await.unwrap();
    bench.job.input = bench.path("out").to_string_lossy().into_owned();
    bench.job.output = bench.path("again").to_string_lossy().into_owned();
    bench.job.identity = Some(Identity::new("nightly", None).unwrap());
    let bench = bench.with(Fake::new().with_trouble(12, Trouble::Raises));
    bench.run().await.expect_err("the job was done");

    let mut more = bench.job.clone();
    more.input = bench.path("in").to_string_lossy().into_owned();
    more.output = bench.path("out").to_string_lossy().into_owned();
    (more.mode, more.identity) = (Mode::Append, None);
    let bench = bench.with(Fake::new().with_outputs(&["x"]));
    run(&more, &bench.components).await.unwrap();

    let bench = bench.with(Fake::new());
    let summary = bench.run().await.unwrap();
    assert_eq!(summary.rows, 10_000);
    assert!(summary.files_reused > 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_drivers_of_one_job_one_does_it_and_the_other_says_so() {
    for format in FORMATS {
        let bench = named(Fake::new(), format);
        let (one, other) = tokio::join!(bench.run(), bench.run());
        let (one, other) = (one.unwrap(), other.unwrap());
        assert!(one.already_done != other.already_done, "{one:?} {other:?}");
        assert_eq!((one.rows, one.version), (other.rows, other.version));
        assert_eq!(bench.fake.calls(), 20);
        assert_eq!(bench.predictions().await, doubled(10_000));
        assert_eq!(left_over(&bench), Vec::<String>::new());
    }
}

/// Without the lock, as on a file system that has none: two attempts have the same work in hand.
#[tokio::test(flavor = "multi_thread")]
async fn of_two_commits_of_one_job_one_counts_whatever_the_mode() {
    let mapped = schema_of(&[
        ("id", DataType::Int64, true),
        ("prediction", DataType::Float64, false),
    ]);
    for format in FORMATS {
        for mode in [Mode::Error, Mode::Append, Mode::Overwrite] {
            let mut bench = named(Fake::new(), format);
            if mode != Mode::Error {
                bench.job.identity = None;
                bench.run().await.unwrap();
                write_parquet(&bench.path("in/0.parquet"), &table_rows(0, 100), 100);
                bench.job.identity = named(Fake::new(), format).job.identity;
            }
            bench.job.mode = mode.clone();
            let early = Target::check(&bench.job, &Stores::default(), &mapped)
                .await
                .unwrap();
            let first = bench.run().await.unwrap();
            let (before, rows) = (bench.names(), count(&bench).await);

            let key = bench
                .job
                .identity
                .clone()
                .unwrap()
                .key(&[bench.fake.digest()]);
            let place = Claim::place(&early.location, format, key.short());
            let mut hold = Hold::Claim(Claim::new(&place).unwrap());
            let record = Record {
                job: key.text().into(),
                input: String::new(),
                as_of: None,
                version: None,
                splits: 1,
            };
            hold.note(&record).await.unwrap();
            let attempt = Attempt::again(&early, &key, hold, Uuid::new_v4()).unwrap();
            let outcome = commit(&early, attempt, &[], Facts::new()).await.unwrap();
            // A folder that takes the place of another one does so again, with the same rows.
            if format == Format::Parquet && mode == Mode::Overwrite {
                continue;
            }
            let Outcome::Before(finished) = outcome else {
                panic!("{format:?} {mode:?}: {outcome:?}")
            };
            assert_eq!(finished.version, first.version, "{format:?} {mode:?}");
            assert_eq!(bench.names(), before, "{format:?} {mode:?}");
            assert_eq!(count(&bench).await, rows);
        }
    }
}

async fn count(bench: &Bench) -> usize {
    let rows = read(&bench.path("out")).await;
    rows.iter().map(RecordBatch::num_rows).sum()
}
