//! What nobody needs is deleted, and nothing else.

use std::time::SystemTime;

use super::*;
use crate::vacuum;

const WEEK: Duration = Duration::from_secs(7 * 24 * 3600);

#[expect(
    clippy::disallowed_methods,
    reason = "files have the time of the clock"
)]
fn before(age: Duration) -> SystemTime {
    SystemTime::now() - age
}

async fn vacuumed(bench: &Bench, age: Duration) -> usize {
    let limit = before(age);
    let dry = vacuum(&Stores::default(), None, &bench.job.output, limit, true)
        .await
        .unwrap();
    let done = vacuum(&Stores::default(), None, &bench.job.output, limit, false)
        .await
        .unwrap();
    assert_eq!(dry, done);
    done.files.len()
}

fn named(bench: &mut Bench) {
    bench.job.identity = Some(Identity::new("nightly", None).unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn files_of_past_versions_go_when_they_are_old_enough() {
    let mut bench = Bench::new(Fake::new(), 1, 1_000);
    bench.job.mode = Mode::Overwrite;
    let first = bench.run().await.unwrap().files;
    bench.run().await.unwrap();
    assert_eq!(vacuumed(&bench, WEEK).await, 0);
    assert_eq!(vacuumed(&bench, Duration::ZERO).await as u64, first);
    assert_eq!(bench.predictions().await, doubled(1_000));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_half_finished_job_has_left_goes_when_it_is_old_enough() {
    for format in FORMATS {
        let fake = Fake::new().with_trouble(3, Trouble::Raises);
        let mut bench = Bench::new(fake, 3, 2_000);
        named(&mut bench);
        bench.job.format = format;
        let before = bench.names();
        bench.run().await.expect_err("the job was done");
        assert_ne!(bench.names(), before);
        assert_eq!(vacuumed(&bench, WEEK).await, 0);
        vacuumed(&bench, Duration::ZERO).await;
        let mut names = bench.names();
        // The folder of the table itself is not ours to remove.
        names.retain(|name| name != "out");
        assert_eq!(names, before, "{format:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn files_of_a_job_that_runs_stay_whatever_their_age() {
    for format in FORMATS {
        let fake = Fake::new().with_trouble(3, Trouble::Hangs);
        let mut bench = Bench::new(fake, 3, 2_000);
        bench.job.settings.file_rows = NonZeroUsize::new(500).unwrap();
        bench.job.format = format;
        let begun = async {
            while !bench.names().iter().any(|name| name.contains("part-")) {
                tokio::task::yield_now().await;
            }
            let told = vacuum(
                &Stores::default(),
                None,
                &bench.job.output,
                before(Duration::ZERO),
                false,
            )
            .await
            .unwrap();
            assert_eq!((told.files.len(), told.jobs_running), (0, 1));
        };
        tokio::select! {
            ended = bench.run() => panic!("the job ended: {ended:?}"),
            () = begun => {}
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn other_files_in_the_folder_of_a_table_stay() {
    let bench = Bench::new(Fake::new(), 1, 100);
    bench.run().await.unwrap();
    std::fs::write(bench.path("out/thesis.txt"), "years of work").unwrap();
    assert_eq!(vacuumed(&bench, Duration::ZERO).await, 0);
    assert!(bench.path("out/thesis.txt").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_log_only_files_of_jobs_that_died_go() {
    let mut bench = Bench::new(Fake::new().with_trouble(3, Trouble::Raises), 3, 2_000);
    named(&mut bench);
    bench.job.settings.partitions = NonZeroUsize::new(1);
    bench.job.settings.file_rows = NonZeroUsize::new(500).unwrap();
    bench.run().await.expect_err("the job was done");
    write_parquet(&bench.path("out/theirs.parquet"), &table_rows(0, 10), 10);
    assert!(vacuumed(&bench, Duration::ZERO).await > 0);
    let out = bench
        .names()
        .into_iter()
        .filter(|name| name.starts_with("out/"));
    assert_eq!(out.collect::<Vec<_>>(), ["out/theirs.parquet"]);
}
