//! Folders of Parquet files in a bucket, which is in this process.

use futures::future::join_all;
use object_store::memory::InMemory;

use super::buckets::{bench, objects, rows_in};
use super::*;
use crate::ledger::{Entry, FILES, LEDGER, Ledger};
use crate::vacuum;

fn parquet(files: usize) -> (Bench, Arc<InMemory>) {
    let (mut bench, bucket) = bench(files);
    bench.job.format = Format::Parquet;
    (bench, bucket)
}

/// What readers see that are not ours.
async fn visible(bucket: &InMemory) -> Vec<String> {
    let mut all = objects(bucket).await;
    all.retain(|name| !name.contains("/_"));
    all
}

/// The files of a job that are whole, and an entry that says so; but nothing of it is done.
async fn committed_only(bench: &Bench) -> (Ledger, Entry) {
    let (job, components) = (&bench.job, &bench.components);
    let models = splittable(job, &components.models).unwrap();
    let decided = decide(job, components, models, None).await.unwrap();
    let attempt = decided.begin(None).await.unwrap();
    let (parts, _) = results(&decided, &attempt).await.unwrap();
    let table = &decided.target.location;
    let entry = Entry {
        attempt: attempt.job().to_owned(),
        job: None,
        added: parts.into_iter().map(|part| part.name).collect(),
        removed: visible_names(bench).await,
    };
    let mut ledger = Ledger::read(table).await.unwrap();
    assert!(ledger.add(entry.clone()).await.unwrap());
    drop(attempt.submit());
    (ledger, entry)
}

/// Names of the files of the table, where the job replaces them.
async fn visible_names(bench: &Bench) -> std::collections::BTreeSet<String> {
    if bench.job.mode != Mode::Overwrite {
        return [].into();
    }
    let table = bench.components.stores.locate(&bench.job.output).unwrap();
    let there = Source::open(&table).await.unwrap();
    let name = |path: &Path| {
        path.strip_prefix(table.path())
            .unwrap()
            .to_string_lossy()
            .into_owned()
    };
    there.files.iter().map(|file| name(&file.path)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn all_modes_write_to_a_bucket_and_leave_nothing_but_the_ledger() {
    let (mut bench, bucket) = parquet(2);
    for (mode, rows) in [
        (Mode::Error, 2_000),
        (Mode::Append, 4_000),
        (Mode::Overwrite, 2_000),
        (Mode::MergeOn(vec!["id".into()]), 2_000),
    ] {
        bench.job.mode = mode;
        let summary = bench.run().await.unwrap();
        assert_eq!(summary.rows, 2_000, "{:?}", bench.job.mode);
        assert_eq!(rows_in(&bench).await, rows, "{:?}", bench.job.mode);
        let all = objects(&bucket).await;
        let kept = all.iter().filter(|name| name.contains("/_"));
        assert!(kept.clone().all(|name| name.contains(LEDGER)), "{all:?}");
    }
    bench.job.mode = Mode::Error;
    let error = bench.run().await.unwrap_err();
    assert!(matches!(error, Error::TableExists { .. }), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn partitions_of_the_results_are_replaced_in_a_bucket() {
    let (mut bench, bucket) = parquet(1);
    bench.job.keep = vec!["id".into()];
    bench.job.partition_by = vec!["id".into()];
    bench.job.filter = Some("id < 3".into());
    bench.run().await.unwrap();
    bench.job.filter = Some("id = 1".into());
    bench.job.mode = Mode::OverwritePartitions;
    bench.run().await.unwrap();
    assert_eq!(rows_in(&bench).await, 3);
    assert_eq!(visible(&bucket).await.len(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_that_is_not_done_yet_is_done_by_who_reads_the_table() {
    for mode in [Mode::Append, Mode::Overwrite] {
        let (mut bench, bucket) = parquet(1);
        bench.run().await.unwrap();
        bench.job.mode = mode;
        let before = visible(&bucket).await;
        let (_, entry) = committed_only(&bench).await;
        assert_eq!(visible(&bucket).await, before, "nothing is done");
        let rows = if bench.job.mode == Mode::Append {
            2_000
        } else {
            1_000
        };
        assert_eq!(rows_in(&bench).await, rows);

        bench.job.mode = Mode::Append;
        bench.run().await.unwrap();
        assert_eq!(rows_in(&bench).await, rows + 1_000);
        let now = visible(&bucket).await;
        let is_there = |name: &String| now.contains(&format!("out/{name}"));
        assert!(entry.added.iter().all(is_there), "{now:?}");
        let hidden = objects(&bucket).await;
        assert!(
            !hidden.iter().any(|name| name.contains(FILES)),
            "{hidden:?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_entry_says_can_be_done_by_two_at_once_and_again() {
    let (bench, bucket) = parquet(1);
    bench.run().await.unwrap();
    let (mut first, _) = committed_only(&bench).await;
    let table = bench.components.stores.locate(&bench.job.output).unwrap();
    let mut second = Ledger::read(&table).await.unwrap();
    let mut late = Ledger::read(&table).await.unwrap();
    let (one, other) = tokio::join!(first.complete(), second.complete());
    one.unwrap();
    other.unwrap();
    let done = objects(&bucket).await;
    late.complete().await.unwrap();
    assert_eq!(objects(&bucket).await, done);
    assert_eq!(rows_in(&bench).await, 2_000);
}

#[tokio::test(flavor = "multi_thread")]
async fn writers_of_a_bucket_at_once_all_land() {
    let (bench, _) = parquet(1);
    let done = join_all((0..8).map(|_| bench.run())).await;
    assert!(done.iter().all(Result::is_ok), "{done:?}");
    assert_eq!(rows_in(&bench).await, 8_000);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_with_an_identity_is_done_once_in_a_bucket_and_another_is_refused() {
    let (mut bench, bucket) = parquet(1);
    bench.job.identity = Some(Identity::new("nightly", None).unwrap());
    let first = bench.run().await.unwrap();
    let second = bench.run().await.unwrap();
    assert!(!first.already_done && second.already_done);
    assert_eq!((second.rows, second.files), (first.rows, first.files));
    bench.job.filter = Some("id < 3".into());
    let error = bench.run().await.unwrap_err();
    assert!(matches!(error, Error::OtherJob { .. }), "{error}");
    assert_eq!(visible(&bucket).await.len() as u64, first.files);
}

#[tokio::test(flavor = "multi_thread")]
async fn vacuum_does_what_is_committed_and_takes_past_entries() {
    let (bench, bucket) = parquet(1);
    bench.run().await.unwrap();
    let (_, entry) = committed_only(&bench).await;
    #[expect(
        clippy::disallowed_methods,
        reason = "objects have the time of the clock"
    )]
    let later = std::time::SystemTime::now() + Duration::from_secs(3600);
    let stores = &bench.components.stores;
    let told = vacuum(stores, None, &bench.job.output, later, true)
        .await
        .unwrap();
    let names = |file: &PathBuf| entry.added.iter().any(|name| file.ends_with(name));
    assert!(!told.files.iter().any(names), "{told:?}");
    vacuum(stores, None, &bench.job.output, later, false)
        .await
        .unwrap();
    assert_eq!(rows_in(&bench).await, 2_000);
    let left = objects(&bucket).await;
    let entries = left.iter().filter(|name| name.contains(LEDGER)).count();
    assert_eq!(
        (entries, left.len() - entries),
        (2, visible(&bucket).await.len())
    );
}
