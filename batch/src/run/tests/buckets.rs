//! Jobs whose output is in a bucket, which is in this process.

use futures::TryStreamExt as _;
use object_store::memory::InMemory;
use object_store::{ObjectStore, ObjectStoreExt as _};

use super::*;
use crate::commit::{Outcome, commit};
use crate::hold::Hold;
use crate::vacuum;

/// A job from a local table to a table in a bucket.
pub(super) fn bench(files: usize) -> (Bench, Arc<InMemory>) {
    let bucket = Arc::new(InMemory::new());
    let mut bench = Bench::new(Fake::new(), files, 1_000);
    bench.components.stores = Stores::with("b", Arc::clone(&bucket) as _);
    bench.job.output = "s3://b/out".into();
    bench.job.mode = Mode::Append;
    (bench, bucket)
}

/// What is in the bucket, without the log.
pub(super) async fn objects(bucket: &InMemory) -> Vec<String> {
    let all = bucket
        .list(None)
        .map_ok(|object| object.location.to_string());
    let mut all: Vec<String> = all.try_collect().await.unwrap();
    all.retain(|name| !name.contains("_delta_log"));
    all
}

pub(super) async fn rows_in(bench: &Bench) -> u64 {
    let location = bench.components.stores.locate(&bench.job.output).unwrap();
    Source::open(&location).await.unwrap().rows().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_writes_to_a_bucket_and_leaves_nothing_else() {
    let (bench, bucket) = bench(2);
    let summary = bench.run().await.unwrap();
    assert_eq!((summary.rows, summary.version), (2_000, Some(0)));
    assert_eq!(objects(&bucket).await.len() as u64, summary.files);
    assert_eq!(bench.run().await.unwrap().version, Some(1));
    assert_eq!(rows_in(&bench).await, 4_000);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_fails_leaves_nothing_in_the_bucket() {
    let (bench, bucket) = bench(2);
    let bench = bench.with(Fake::new().with_trouble(3, Trouble::Raises));
    bench.run().await.unwrap_err();
    assert_eq!(objects(&bucket).await, Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_attempts_at_one_job_one_is_visible_and_the_other_learns_of_it() {
    let (mut bench, bucket) = bench(1);
    bench.run().await.unwrap();
    let identity = Identity::new("nightly", None).unwrap();
    bench.job.identity = Some(identity.clone());
    let Bench {
        job, components, ..
    } = &bench;
    let models = splittable(job, &components.models).unwrap();
    let slow = decide(job, components, models, None).await.unwrap();
    let first = bench.run().await.unwrap();
    assert_eq!(first.version, Some(1));

    let key = identity.key(&[bench.fake.digest()]);
    let hold = Hold::take(
        &slow.target.location,
        Format::Delta,
        key.short(),
        &components.cancelled,
    );
    let hold = hold.await.unwrap();
    let attempt = Attempt::again(&slow.target, &key, hold, Uuid::new_v4()).unwrap();
    let (parts, _) = results(&slow, &attempt).await.unwrap();
    let outcome = commit(&slow.target, attempt, &parts, Facts::new()).await;
    assert!(matches!(outcome, Ok(Outcome::Before(_))), "{outcome:?}");
    assert!(bench.run().await.unwrap().already_done);
    assert_eq!(rows_in(&bench).await, 2_000);
    assert_eq!(objects(&bucket).await.len() as u64, 2 * first.files);
}

#[tokio::test(flavor = "multi_thread")]
async fn vacuum_takes_what_no_version_needs_and_no_job_that_writes() {
    let (mut bench, bucket) = bench(1);
    bench.run().await.unwrap();
    bench.job.mode = Mode::Overwrite;
    let needed = bench.run().await.unwrap().files;
    let alive = "out/part-00000-00000-0123456789abcdef0123456789abcdef.parquet";
    let note = "out/_envelope_jobs/0123456789abcdef0123456789abcdef/job.json";
    for name in [alive, note, "out/notes.txt", "out/_other.parquet"] {
        bucket.put(&name.into(), "x".into()).await.unwrap();
    }
    let stores = &bench.components.stores;
    let hour = Duration::from_secs(3600);
    #[expect(
        clippy::disallowed_methods,
        reason = "objects have the time of the clock"
    )]
    let now = std::time::SystemTime::now();
    let early = vacuum(stores, None, &bench.job.output, now - hour, false)
        .await
        .unwrap();
    assert_eq!((early.files.len(), early.jobs_running), (0, 1));
    let late = vacuum(stores, None, &bench.job.output, now + hour, false)
        .await
        .unwrap();
    assert_eq!(late.jobs_running, 0);
    let left = objects(&bucket).await;
    assert_eq!(left.len() as u64, needed + 2, "{left:?}");
    assert_eq!(rows_in(&bench).await, 1_000);
}
