use std::sync::Mutex;
use std::time::Duration;

use arrow_array::types::Int64Type;
use arrow_array::{Int64Array, cast::AsArray as _};
use async_trait::async_trait;
use futures::future::join_all;
use prometheus_client::metrics::histogram::exponential_buckets;
use runtime::{PythonError, Usage};
use tokio::time::{sleep, timeout};

use super::*;
use crate::sampler::SamplerCounts;

/// Doubles numbers; raises for 13, dies of 66, takes three seconds for 97, never ends for 99. Remembers
/// what it was asked.
#[derive(Debug, Default)]
struct Doubler {
    asked: Mutex<Vec<Vec<i64>>>,
    /// Calls are held until this has permits.
    gate: Option<Semaphore>,
}

impl Doubler {
    fn asked(&self) -> Vec<Vec<i64>> {
        self.asked.lock().unwrap().clone()
    }
}

#[async_trait]
impl Calls for Doubler {
    async fn call(
        &self,
        function: &str,
        rows: RecordBatch,
        deadline: Duration,
    ) -> Result<RecordBatch, Error> {
        let values = numbers(&rows);
        self.asked.lock().unwrap().push(values.clone());
        if let Some(gate) = &self.gate {
            gate.acquire().await.unwrap().forget();
        }
        if values.contains(&13) {
            let exception = PythonError {
                kind: "ValueError".into(),
                message: "13".into(),
                traceback: String::new(),
            };
            return Err(Error::Function {
                function: function.into(),
                exception,
            });
        }
        if values.contains(&66) {
            return Err(Error::Crashed {
                reason: "signal 9".into(),
                stderr: String::new(),
            });
        }
        if values.contains(&97) && deadline > Duration::from_secs(3) {
            sleep(Duration::from_secs(3)).await;
        } else if values.contains(&97) || values.contains(&99) {
            sleep(deadline).await;
            return Err(Error::Deadline { after: deadline });
        }
        Ok(batch(values.iter().map(|value| value * 2)))
    }

    fn most_workers(&self) -> usize {
        2
    }

    fn usage(&self) -> Usage {
        Usage {
            workers: 1,
            busy: 0,
            waiting: 0,
            replaced: 0,
            ..Usage::default()
        }
    }

    async fn shutdown(&self, _grace: Duration) {}
}

fn batch(values: impl IntoIterator<Item = i64>) -> RecordBatch {
    let column = Int64Array::from_iter_values(values);
    RecordBatch::try_from_iter([("x", Arc::new(column) as _)]).unwrap()
}

fn numbers(rows: &RecordBatch) -> Vec<i64> {
    rows.column(0).as_primitive::<Int64Type>().values().to_vec()
}

fn batcher(calls: &Arc<Doubler>, workers: usize, gather: Option<usize>) -> Batcher {
    let gathering = |rows| Gathering::new(rows, usize::MAX, 0, SamplerCounts::default());
    Batcher::start(line(calls, workers, gather.map(gathering)))
}

fn line(calls: &Arc<Doubler>, workers: usize, gather: Option<Gathering>) -> Line {
    let long = Duration::from_secs(3600);
    Line {
        calls: calls.clone(),
        function: "double".into(),
        workers: Arc::new(Semaphore::new(workers)),
        backlog: Arc::new(Backlog::new(workers, 1000, long)),
        pace: Arc::default(),
        grace: Duration::ZERO,
        gather: gather.map(Arc::new),
        rows: Histogram::new(exponential_buckets(1.0, 2.0, 4)),
    }
}

async fn call(batcher: &Batcher, values: &[i64]) -> Result<Vec<i64>, Refusal> {
    let rows = batch(values.iter().copied());
    batcher
        .call(rows, Instant::now() + Duration::from_secs(3600))
        .await
        .output
        .map(|rows| numbers(&rows))
}

/// `what`, begun so many seconds later.
async fn after<F: Future>(seconds: u64, what: F) -> F::Output {
    sleep(Duration::from_secs(seconds)).await;
    what.await
}

/// Calls that queue while the only worker is busy with `[0]`, and what was asked in the end.
async fn queued(
    gather: Option<usize>,
    calls: &[&[i64]],
) -> (Vec<Result<Vec<i64>, Refusal>>, Vec<Vec<i64>>) {
    let doubler = Arc::new(Doubler {
        gate: Some(Semaphore::new(0)),
        ..Doubler::default()
    });
    let batcher = batcher(&doubler, 1, gather);
    let busy = call(&batcher, &[0]);
    let all = after(
        1,
        join_all(calls.iter().map(|values| call(&batcher, values))),
    );
    let open = async {
        sleep(Duration::from_secs(2)).await;
        doubler.gate.as_ref().unwrap().add_permits(1000);
    };
    let (first, answers, ()) = tokio::join!(busy, all, open);
    assert_eq!(first.unwrap(), [0]);
    (answers, doubler.asked())
}

#[tokio::test(start_paused = true)]
async fn an_idle_worker_is_asked_at_once() {
    let doubler = Arc::new(Doubler::default());
    let batcher = batcher(&doubler, 1, Some(100));
    for value in [1, 2] {
        assert_eq!(call(&batcher, &[value]).await.unwrap(), [value * 2]);
    }
    assert_eq!(doubler.asked(), [[1], [2]]);
}

#[tokio::test(start_paused = true)]
async fn what_queued_while_the_worker_was_busy_goes_together() {
    let (answers, asked) = queued(Some(100), &[&[1], &[2, 3], &[4]]).await;
    let answers: Vec<_> = answers.into_iter().map(Result::unwrap).collect();
    assert_eq!(answers, [vec![2], vec![4, 6], vec![8]]);
    assert_eq!(asked, [vec![0], vec![1, 2, 3, 4]]);
}

#[tokio::test(start_paused = true)]
async fn a_batch_has_no_more_rows_than_is_allowed() {
    let (answers, asked) = queued(Some(3), &[&[1], &[2, 3], &[4], &[5, 6, 7, 8], &[9]]).await;
    assert!(answers.iter().all(Result::is_ok));
    assert_eq!(
        asked,
        [vec![0], vec![1, 2, 3], vec![4], vec![5, 6, 7, 8], vec![9]]
    );
}

#[tokio::test(start_paused = true)]
async fn calls_of_a_function_that_is_not_row_wise_go_alone() {
    let (answers, asked) = queued(None, &[&[1], &[2]]).await;
    assert!(answers.iter().all(Result::is_ok));
    assert_eq!(asked, [[0], [1], [2]]);
}

#[tokio::test(start_paused = true)]
async fn a_bad_call_fails_alone() {
    let calls: Vec<Vec<i64>> = (0..32)
        .map(|index| vec![if index == 20 { 13 } else { 100 + index }])
        .collect();
    let calls: Vec<&[i64]> = calls.iter().map(Vec::as_slice).collect();
    let (answers, asked) = queued(Some(100), &calls).await;
    for (index, answer) in answers.into_iter().enumerate() {
        match answer {
            Ok(output) => assert_eq!(output, [calls[index][0] * 2]),
            Err(refusal) => assert_eq!((index, refusal.code()), (20, "function_failed")),
        }
    }
    // Halving: the whole, then two groups on each of five levels; and the first call.
    assert_eq!(asked.len(), 1 + 1 + 2 * 5);
}

#[tokio::test(start_paused = true)]
async fn a_call_that_kills_its_worker_kills_two_and_not_more() {
    let (answers, asked) = queued(Some(100), &[&[1], &[66], &[2], &[3]]).await;
    let codes: Vec<_> = answers
        .iter()
        .map(|answer| answer.as_ref().map_err(Refusal::code).err())
        .collect();
    assert_eq!(codes, [None, Some("worker_crashed"), None, None]);
    assert_eq!(
        asked.iter().filter(|values| values.contains(&66)).count(),
        2
    );
}

#[tokio::test(start_paused = true)]
async fn a_call_that_never_ends_fails_alone() {
    let doubler = Arc::new(Doubler::default());
    let batcher = batcher(&doubler, 2, Some(100));
    let begun = Instant::now();
    let with = |value| batcher.call(batch([value]), begun + Duration::from_secs(60));
    let answers = join_all([1, 99, 2, 3].map(with)).await;
    let codes = answers
        .iter()
        .map(|answer| answer.output.as_ref().map_err(Refusal::code).err());
    assert_eq!(
        codes.collect::<Vec<_>>(),
        [None, Some("deadline"), None, None]
    );
    assert_eq!(
        doubler.asked(),
        [vec![1, 99, 2, 3], vec![1], vec![99], vec![2], vec![3]]
    );
}

#[tokio::test(start_paused = true)]
async fn each_caller_waits_until_its_own_deadline() {
    let doubler = Arc::new(Doubler::default());
    let batcher = batcher(&doubler, 1, Some(100));
    let begun = Instant::now();
    let with = async |value, seconds| {
        let deadline = begun + Duration::from_secs(seconds);
        batcher.call(batch([value]), deadline).await.output
    };
    let (slow, short, long) =
        tokio::join!(with(99, 5), after(1, with(1, 2)), after(1, with(2, 60)));
    assert_eq!(slow.unwrap_err().code(), "deadline");
    assert_eq!(short.unwrap_err().code(), "deadline");
    assert_eq!(numbers(&long.unwrap()), [4]);
    assert_eq!(
        doubler.asked(),
        [[99], [2]],
        "nobody waits for the second call any more"
    );
}

#[tokio::test(start_paused = true)]
async fn a_worker_may_finish_what_its_caller_has_no_patience_for() {
    let doubler = Arc::new(Doubler::default());
    let line = Line {
        grace: Duration::from_secs(5),
        ..line(&doubler, 1, None)
    };
    let batcher = Batcher::start(line);
    let begun = Instant::now();
    let hasty = batcher.call(batch([97]), begun + Duration::from_secs(1));
    let next = after(1, call(&batcher, &[2]));
    let (hasty, next) = tokio::join!(hasty, next);
    assert_eq!(hasty.output.unwrap_err().code(), "deadline");
    assert_eq!(next.unwrap(), [4]);
    assert_eq!(begun.elapsed().as_secs(), 3);
}

#[tokio::test(start_paused = true)]
async fn a_call_is_told_how_it_went() {
    let doubler = Arc::new(Doubler::default());
    let batcher = batcher(&doubler, 1, Some(100));
    let begun = Instant::now();
    let with = async |values: &[i64]| {
        let rows = batch(values.iter().copied());
        let deadline = begun + Duration::from_secs(60);
        let course = batcher.call(rows, deadline).await.course.unwrap();
        let times = [course.queued, course.begun, course.ended];
        let times = times.map(|time| (time - begun).as_secs());
        (times, course.rows, course.calls)
    };
    let (busy, first, second) = tokio::join!(
        with(&[97]),
        after(1, with(&[1, 2])),
        after(2, with(&[97, 13, 3]))
    );
    assert_eq!(busy, ([0, 0, 3], 1, 1));
    assert_eq!(first, ([1, 3, 3], 2, 1), "asked again without the bad one");
    assert_eq!(second, ([2, 3, 3], 3, 1), "a failure has a course as well");
}

#[tokio::test(start_paused = true)]
async fn a_call_whose_time_has_passed_does_not_reach_a_worker() {
    let doubler = Arc::new(Doubler::default());
    let batcher = batcher(&doubler, 1, Some(100));
    let late = batcher.call(batch([1]), Instant::now());
    assert_eq!(late.await.output.unwrap_err().code(), "deadline");
    assert_eq!(call(&batcher, &[2]).await.unwrap(), [4]);
    assert_eq!(doubler.asked(), [[2]]);
}

#[tokio::test(start_paused = true)]
async fn a_batch_has_no_more_bytes_than_is_allowed() {
    let doubler = Arc::new(Doubler {
        gate: Some(Semaphore::new(0)),
        ..Doubler::default()
    });
    let two = 2 * batch([1]).get_array_memory_size();
    let gathering = Gathering::new(100, two, 0, SamplerCounts::default());
    let batcher = Batcher::start(line(&doubler, 1, Some(gathering)));
    let busy = call(&batcher, &[0]);
    let all = after(
        1,
        join_all([1, 2, 3, 4, 5].map(async |value| call(&batcher, &[value]).await)),
    );
    let open = after(2, async { doubler.gate.as_ref().unwrap().add_permits(100) });
    let (_, answers, ()) = tokio::join!(busy, all, open);
    assert!(answers.iter().all(Result::is_ok));
    assert_eq!(doubler.asked(), [vec![0], vec![1, 2], vec![3, 4], vec![5]]);
}

#[tokio::test(start_paused = true)]
async fn a_batch_is_no_longer_than_its_first_call_has_time_for() {
    let doubler = Arc::new(Doubler {
        gate: Some(Semaphore::new(0)),
        ..Doubler::default()
    });
    let line = line(
        &doubler,
        1,
        Some(Gathering::new(100, usize::MAX, 0, SamplerCounts::default())),
    );
    line.pace().learn(1, Duration::from_secs(1));
    let batcher = Batcher::start(line);
    let with = async |value| {
        let deadline = Instant::now() + Duration::from_secs(31);
        batcher.call(batch([value]), deadline).await.output
    };
    let busy = with(0);
    let all = after(1, join_all((1..=9).map(with)));
    let open = after(15, async {
        doubler.gate.as_ref().unwrap().add_permits(100)
    });
    let (first, others, ()) = tokio::join!(busy, all, open);
    assert!(first.is_ok() && others.iter().all(Result::is_ok));
    let lengths: Vec<_> = doubler.asked().iter().map(Vec::len).collect();
    // The first call has taken 15 s for its row; half of 17 s is time for 4 rows of then 1.9 s.
    assert_eq!(lengths, [1, 4, 5]);
}

#[tokio::test(start_paused = true)]
async fn a_caller_who_goes_away_leaves_the_queue() {
    let doubler = Arc::new(Doubler {
        gate: Some(Semaphore::new(0)),
        ..Doubler::default()
    });
    let batcher = batcher(&doubler, 1, Some(100));
    let impatient = async {
        let gone = timeout(Duration::from_secs(2), after(1, call(&batcher, &[7]))).await;
        assert!(gone.is_err());
        doubler.gate.as_ref().unwrap().add_permits(100);
    };
    let (first, (), last) = tokio::join!(
        call(&batcher, &[0]),
        impatient,
        after(1, call(&batcher, &[8]))
    );
    assert_eq!((first.unwrap(), last.unwrap()), (vec![0], vec![16]));
    assert_eq!(doubler.asked(), [[0], [8]]);
}

#[tokio::test(start_paused = true)]
async fn as_many_calls_run_as_there_are_workers() {
    let doubler = Arc::new(Doubler {
        gate: Some(Semaphore::new(0)),
        ..Doubler::default()
    });
    let batcher = batcher(&doubler, 2, None);
    let watch = async {
        sleep(Duration::from_secs(1)).await;
        assert_eq!(doubler.asked().len(), 2);
        doubler.gate.as_ref().unwrap().add_permits(100);
    };
    let calls = join_all([1, 2, 3].map(async |value| call(&batcher, &[value]).await.unwrap()));
    let (answers, ()) = tokio::join!(calls, watch);
    assert_eq!(answers, [[2], [4], [6]]);
}

#[test]
fn calls_are_gathered_only_where_nobody_can_see_it_in_an_answer() {
    let tested = envelope_format::Manifest::example().functions.remove(0);
    assert!(may_gather(&tested));
    let mut changed = tested.clone();
    changed.certificate.row_wise = false;
    assert!(!may_gather(&changed));
    let mut changed = tested.clone();
    changed.certificate.equality = Equality::Close;
    assert!(!may_gather(&changed));
    let mut changed = tested.clone();
    changed.certificate.tile = Some(8);
    assert!(may_gather(&changed));
    let mut changed = tested;
    changed.signature.output.shape = envelope_format::Shape::Scalar;
    assert!(!may_gather(&changed));
}
