//! Whatever a function does to its process, it costs the calls on that worker, and nothing survives.

use std::fs;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use acceptance::{ends, is_alive};
use arrow_array::cast::AsArray as _;
use arrow_array::types::Float64Type;
use arrow_array::{ArrayRef, Float64Array, RecordBatch, StringArray};
use runtime::{Error, Runtime};
use rustix::process::{Pid, Signal, kill_process};

const LONG: Duration = Duration::from_secs(60);

fn acts(actions: &[&str], x: &[f64]) -> RecordBatch {
    let columns: [(&str, ArrayRef); 2] = [
        ("action", Arc::new(StringArray::from(actions.to_vec()))),
        ("x", Arc::new(Float64Array::from(x.to_vec()))),
    ];
    RecordBatch::try_from_iter(columns).expect("equally long columns")
}

fn act(action: &str, x: f64) -> RecordBatch {
    acts(&[action], &[x])
}

fn first(rows: &RecordBatch) -> f64 {
    rows.column(0).as_primitive::<Float64Type>().value(0)
}

/// What the function gives for `x` when it behaves.
async fn honest(runtime: &Runtime, x: f64) -> f64 {
    let rows = runtime.call(None, act("none", x), LONG).await;
    first(&rows.expect("an honest call is answered"))
}

/// Memory that the processes below this one have, in bytes, shared pages in parts.
fn memory_of_descendants() -> u64 {
    let of = |pid: &String| {
        let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok()?;
        let line = text.lines().find(|line| line.starts_with("Pss:"))?;
        line.split_whitespace().nth(1)?.parse::<u64>().ok()
    };
    descendants().iter().filter_map(of).sum::<u64>() * 1024
}

/// Every process below this one.
fn descendants() -> Vec<String> {
    let own = std::process::id().to_string();
    let listed = fs::read_dir("/proc").expect("a list").flatten();
    let parents: Vec<(String, String)> = listed
        .filter_map(|entry| {
            let stat = fs::read_to_string(entry.path().join("stat")).ok()?;
            let mut rest = stat.rsplit_once(") ")?.1.split(' ');
            let parent = rest.nth(1)?.to_owned();
            Some((entry.file_name().into_string().ok()?, parent))
        })
        .collect();
    let mut found = vec![own];
    let mut next = 0;
    while let Some(parent) = found.get(next).cloned() {
        let children = parents.iter().filter(|(_, of)| *of == parent);
        found.extend(children.map(|(pid, _)| pid.clone()));
        next += 1;
    }
    found.split_off(1)
}

#[tokio::test]
async fn each_way_to_die_costs_one_call_and_is_named() {
    let runtime = acceptance::start("naughty", 1..=1).await;
    for (action, named) in [
        ("segfault", "signal 11"),
        ("abort", "signal 6"),
        ("kill", "signal 9"),
        ("exit", "status 3"),
        ("close", "status 1"),
    ] {
        let error = runtime.call(None, act(action, 0.0), LONG).await;
        let error = error.expect_err("it cannot answer");
        assert!(
            matches!(&error, Error::Crashed { reason, .. } if reason.contains(named)),
            "{action}: {error}"
        );
        assert!((honest(&runtime, 7.0).await - 7.0).abs() < f64::EPSILON);
    }
    assert_eq!(runtime.usage().replaced, 5);
}

#[tokio::test]
async fn a_function_that_kills_what_its_worker_was_forked_from_costs_what_was_under_way() {
    let runtime = acceptance::start("naughty", 1..=1).await;
    let error = runtime.call(None, act("orphan", 0.0), LONG).await;
    assert!(matches!(error, Err(Error::Crashed { .. })), "{error:?}");
    // The spare worker ends with it, and may be lent before that is known.
    let next = runtime.call(None, act("none", 0.0), LONG).await;
    assert!(
        matches!(next, Ok(_) | Err(Error::Crashed { .. })),
        "{next:?}"
    );
    for x in [1.0, 2.0] {
        assert!((honest(&runtime, x).await - x).abs() < f64::EPSILON);
    }
}

#[tokio::test]
async fn a_shutdown_ends_calls_that_outlast_its_grace() {
    let runtime = acceptance::start("naughty", 1..=1).await;
    let pid = runtime
        .call(None, act("pid", 0.0), LONG)
        .await
        .expect("a pid");
    #[expect(clippy::cast_possible_truncation, reason = "process ids are small")]
    let pid = first(&pid) as i32;
    let endless = tokio::spawn({
        let runtime = runtime.clone();
        async move { runtime.call(None, act("hang", 0.0), LONG).await }
    });
    tokio::time::sleep(Duration::from_millis(200)).await;
    runtime.shutdown(Duration::from_millis(100)).await;
    assert!(ends(pid).await, "it goes on after the shutdown");
    assert!(endless.await.expect("no panic").is_err());
}

#[tokio::test]
async fn a_stopped_worker_misses_its_deadline_and_does_not_come_back() {
    let runtime = acceptance::start("naughty", 1..=1).await;
    let short = Duration::from_millis(300);
    let error = runtime.call(None, act("stop", 0.0), short).await;
    assert!(matches!(error, Err(Error::Deadline { .. })));
    assert!((honest(&runtime, 1.0).await - 1.0).abs() < f64::EPSILON);
}

#[tokio::test]
async fn descriptors_that_a_function_meddles_with_reach_no_other_call() {
    for action in ["reuse", "forge", "steal", "scribble"] {
        let runtime = acceptance::start("naughty", 1..=1).await;
        let short = Duration::from_millis(1000);
        let _ = runtime.call(None, act(action, 0.0), short).await;
        let (mut right, mut failed) = (0, 0);
        for x in 1..200 {
            let x = f64::from(x);
            // Large enough for the arena, now and then.
            let rows = if x % 2.0 == 0.0 { 1 } else { 5000 };
            let rows = acts(&vec!["none"; rows], &vec![x; rows]);
            match runtime.call(None, rows, short).await {
                Ok(rows) => {
                    let values = rows.column(0).as_primitive::<Float64Type>().values();
                    assert!(values.iter().all(|value| *value == x), "{action}");
                    right += 1;
                }
                Err(Error::Crashed { .. } | Error::Deadline { .. }) => failed += 1,
                Err(other) => panic!("{action}: {other}"),
            }
        }
        println!("{action}: {right} right, {failed} failed");
        assert!(right > failed, "{action}: {right} right, {failed} failed");
    }
}

#[tokio::test]
async fn a_flood_of_lines_stops_nobody() {
    let runtime = acceptance::start("naughty", 1..=1).await;
    let rows = runtime.call(None, act("flood", 3.0), LONG).await;
    assert!((first(&rows.expect("answered")) - 3.0).abs() < f64::EPSILON);
    assert_eq!(runtime.usage().replaced, 0);
}

#[tokio::test]
async fn daemons_and_many_children_end_with_the_runtime() {
    let before = descendants().len();
    let runtime = acceptance::start("naughty", 1..=1).await;
    let daemon = runtime
        .call(None, act("daemon", 0.0), LONG)
        .await
        .expect("a pid");
    #[expect(clippy::cast_possible_truncation, reason = "process ids are small")]
    let daemon = first(&daemon) as i32;
    assert!(is_alive(daemon), "it was started");
    let many = runtime.call(None, act("many", 0.0), Duration::from_secs(1));
    assert!(matches!(many.await, Err(Error::Deadline { .. })));
    assert!((honest(&runtime, 1.0).await - 1.0).abs() < f64::EPSILON);
    assert!(
        ends(daemon).await,
        "a daemon outlives the worker that started it"
    );
    drop(runtime);
    let deadline = Instant::now() + Duration::from_secs(10);
    while descendants().len() > before && Instant::now() < deadline {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(
        descendants().len() <= before,
        "something outlives its runtime"
    );
}

#[tokio::test]
async fn a_fork_bomb_ends_with_its_call() {
    let before = descendants().len();
    let builder = acceptance::builder("naughty").await.workers(1..=1);
    let runtime = builder.spare(false).start().await.expect("starts");
    let calm = descendants().len();
    let bomb = tokio::spawn({
        let runtime = runtime.clone();
        async move {
            let short = Duration::from_secs(5);
            runtime.call(None, act("bomb", 0.0), short).await
        }
    });
    let mut most = 0;
    while !bomb.is_finished() {
        most = most.max(descendants().len());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(matches!(
        bomb.await.expect("no panic"),
        Err(Error::Deadline { .. })
    ));
    assert!(most > calm + 500, "it has not gone off: {most} processes");
    assert!((honest(&runtime, 1.0).await - 1.0).abs() < f64::EPSILON);
    assert!(
        fall_to(calm).await,
        "{} of its processes are left",
        descendants().len() - calm
    );
    drop(runtime);
    assert!(fall_to(before).await, "something outlives its runtime");
}

/// Whether there are so few processes below this one within twenty seconds.
async fn fall_to(count: usize) -> bool {
    let deadline = Instant::now() + Duration::from_secs(20);
    while descendants().len() > count && Instant::now() < deadline {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    descendants().len() <= count
}

#[tokio::test]
async fn the_end_of_a_worker_is_noticed_whatever_it_has_forked() {
    let runtime = acceptance::start("naughty", 1..=1).await;
    let pid = runtime.call(None, act("pid", 0.0), LONG).await;
    #[expect(clippy::cast_possible_truncation, reason = "process ids are small")]
    let pid = Pid::from_raw(first(&pid.expect("a pid")) as i32).expect("a process id");
    let call = tokio::spawn({
        let runtime = runtime.clone();
        async move { runtime.call(None, act("kept", 0.0), LONG).await }
    });
    tokio::time::sleep(Duration::from_millis(300)).await;
    kill_process(pid, Signal::KILL).expect("it is there");
    let error = call.await.expect("no panic");
    // Long before the deadline, which would be another error.
    assert!(matches!(error, Err(Error::Crashed { .. })), "{error:?}");
}

#[tokio::test]
async fn a_call_that_returns_in_two_processes_is_answered_once() {
    let runtime = acceptance::start("naughty", 1..=1).await;
    for x in [1.0, 2.0, 3.0] {
        let rows = runtime.call(None, act("double", x), LONG).await;
        assert!((first(&rows.expect("answered")) - x).abs() < f64::EPSILON);
        assert!((honest(&runtime, x).await - x).abs() < f64::EPSILON);
    }
    assert_eq!(runtime.usage().replaced, 0);
}

#[tokio::test]
async fn a_shutdown_ends_calls_of_workers_that_share_nothing() {
    let runtime = acceptance::start("alone", 1..=1).await;
    assert_eq!(runtime.sharing().await, Some(runtime::Sharing::Nothing));
    let pid = runtime.idle_processes()[0];
    let endless = tokio::spawn({
        let runtime = runtime.clone();
        let forever = RecordBatch::try_from_iter([(
            "x",
            Arc::new(Float64Array::from(vec![-1.0])) as ArrayRef,
        )]);
        async move { runtime.call(None, forever.expect("a column"), LONG).await }
    });
    tokio::time::sleep(Duration::from_millis(200)).await;
    runtime.shutdown(Duration::from_millis(100)).await;
    assert!(ends(pid).await, "it goes on after the shutdown");
    assert!(endless.await.expect("no panic").is_err());
}

#[tokio::test]
async fn a_leaking_worker_is_recycled_and_no_call_is_lost() {
    let builder = acceptance::builder("naughty").await.workers(1..=1);
    let runtime = builder.recycle_after_growth(100 << 20).start().await;
    let runtime = runtime.expect("starts");
    for call in 0..300_u32 {
        let x = f64::from(call);
        let rows = runtime
            .call(None, act("leak", x), LONG)
            .await
            .expect("answered");
        assert!((first(&rows) - x).abs() < f64::EPSILON);
    }
    let usage = runtime.usage();
    assert!(usage.recycled >= 2 && usage.replaced == 0, "{usage:?}");
}

/// Workers that leak with every call, for `SOAK_SECONDS`: what they have together stays below a bound.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn memory_keeps_its_ceiling() {
    const GROWTH: u64 = 100 << 20;

    let seconds = number("SOAK_SECONDS", 4);
    let builder = acceptance::builder("naughty").await.workers(2..=2);
    let runtime = builder.recycle_after_growth(GROWTH).start().await;
    let runtime = runtime.expect("starts");
    honest(&runtime, 0.0).await;
    let before = memory_of_descendants();
    let began = Instant::now();
    let (mut calls, mut most) = (0_u32, 0);
    while began.elapsed() < Duration::from_secs(seconds) {
        let x = f64::from(calls);
        let action = if calls % 40 == 38 { "leak" } else { "none" };
        let (one, other) = tokio::join!(
            runtime.call(None, act(action, x), LONG),
            runtime.call(None, act("none", x), LONG)
        );
        assert!((first(&one.expect("answered")) - x).abs() < f64::EPSILON);
        assert!((first(&other.expect("answered")) - x).abs() < f64::EPSILON);
        calls += 2;
        if calls % 1000 == 0 {
            most = most.max(memory_of_descendants());
        }
    }
    let usage = runtime.usage();
    println!(
        "{calls} calls in {seconds} s; {} MB at first, {} MB at the most; {} workers recycled",
        before >> 20,
        most >> 20,
        usage.recycled
    );
    assert!(usage.replaced == 0 && usage.recycled > 0, "{usage:?}");
    // Two workers and a spare; what they get between two measurements comes on top.
    assert!(
        most < before + 3 * (GROWTH + (150 << 20)),
        "{} MB",
        most >> 20
    );
}

#[tokio::test]
async fn workers_are_recycled_after_their_calls() {
    let builder = acceptance::builder("naughty").await.workers(1..=1);
    let runtime = builder
        .recycle_after_calls(10)
        .start()
        .await
        .expect("starts");
    for call in 0..100_u32 {
        let x = f64::from(call);
        assert!((honest(&runtime, x).await - x).abs() < f64::EPSILON);
    }
    let recycled = runtime.usage().recycled;
    assert!((8..=11).contains(&recycled), "{recycled}");
}

#[tokio::test]
async fn a_worker_that_always_dies_is_started_ever_more_seldom() {
    let runtime = acceptance::start("naughty", 1..=1).await;
    let began = Instant::now();
    let mut failed = 0;
    while began.elapsed() < Duration::from_secs(3) {
        let left = Duration::from_secs(3).saturating_sub(began.elapsed());
        let error = runtime.call(None, act("abort", 0.0), left).await;
        failed += u32::from(matches!(error, Err(Error::Crashed { .. })));
    }
    assert!((4..20).contains(&failed), "{failed} workers in 3 s");
    assert!(runtime.usage().barren >= 4);
}

#[tokio::test]
async fn only_the_guilty_rows_of_a_batch_fail() {
    let runtime = acceptance::start("halving", 1..=2).await;
    let x: Vec<f64> = (0..1000).map(f64::from).collect();
    let rows = RecordBatch::try_from_iter([("x", Arc::new(Float64Array::from(x)) as ArrayRef)]);
    let rows = rows.expect("one column");
    let mapped = runtime
        .map_each(None, rows.clone(), 10, LONG)
        .await
        .expect("mapped");
    let failed: Vec<usize> = mapped.failed.iter().map(|(row, _)| *row).collect();
    // One raises, one kills the worker.
    assert_eq!(failed, [137, 731]);
    assert!(matches!(mapped.failed[0].1, Error::Function { .. }));
    assert!(matches!(mapped.failed[1].1, Error::Crashed { .. }));
    let values = mapped.rows.column(0).as_primitive::<Float64Type>();
    assert_eq!(values.len(), 998);
    assert!((values.value(137) - 138.0 / 2.0).abs() < f64::EPSILON);
    let few = runtime.map_each(None, rows, 1, LONG).await;
    assert!(few.is_err(), "more rows fail than may");
}

/// Ways in which a function ends its worker.
const WAYS: [&str; 6] = ["segfault", "abort", "kill", "exit", "close", "hang"];

/// One call in so many ends its worker; about as often one is killed from outside.
const CALLS_PER_DEATH: u64 = 800;

/// What came of the calls.
#[derive(Default)]
struct Counted {
    next: AtomicU64,
    right: AtomicU64,
    wrong: AtomicU64,
    /// Honest calls that failed.
    failed: AtomicU64,
    /// Calls that were to end their worker, and did.
    died: AtomicU64,
    took: Mutex<Vec<Duration>>,
}

/// Calls whose answer is known, while some die in every way there is and others are killed from
/// outside. `CHAOS_CALLS` sets how many.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mixed_deaths_under_load_cost_no_answer_its_truth() {
    let calls = number("CHAOS_CALLS", 4000);
    let runtime = acceptance::start("naughty", 2..=2).await;
    let counted = Arc::new(Counted::default());
    let callers: Vec<_> = (0..3)
        .map(|_| tokio::spawn(call_on(runtime.clone(), Arc::clone(&counted), calls)))
        .collect();
    let kills = kill_now_and_then(&runtime, &counted, calls).await;
    for caller in callers {
        caller.await.expect("a caller ends");
    }
    let of = |count: &AtomicU64| count.load(Ordering::Relaxed);
    let (right, wrong) = (of(&counted.right), of(&counted.wrong));
    let (failed, died) = (of(&counted.failed), of(&counted.died));
    let mut took = std::mem::take(&mut *counted.took.lock().expect("no panic"));
    took.sort_unstable();
    let at = |share: usize| took[(took.len() - 1) * share / 1000];
    println!(
        "{right} right, {wrong} wrong, {failed} failed of {calls}; {died} died by themselves, {kills} \
         were killed; an honest call took {:?} (p50), {:?} (p99), {:?} (p99.9)",
        at(500),
        at(990),
        at(999)
    );
    assert_eq!(wrong, 0);
    assert_eq!(died, calls / CALLS_PER_DEATH, "every fault has fired");
    assert!(failed <= kills && kills > 0 && right + failed + died == calls);
}

async fn call_on(runtime: Runtime, counted: Arc<Counted>, calls: u64) {
    loop {
        let id = counted.next.fetch_add(1, Ordering::Relaxed);
        if id >= calls {
            return;
        }
        call_once(&runtime, &counted, id).await;
    }
}

async fn call_once(runtime: &Runtime, counted: &Counted, id: u64) {
    #[expect(clippy::cast_precision_loss, reason = "calls are numbered from 0")]
    let x = id as f64;
    let death = id / CALLS_PER_DEATH;
    let way =
        (id % CALLS_PER_DEATH == CALLS_PER_DEATH - 1).then(|| WAYS[death as usize % WAYS.len()]);
    let hangs = way == Some("hang");
    let deadline = if hangs {
        Duration::from_millis(100)
    } else {
        LONG
    };
    let began = Instant::now();
    let answer = runtime
        .call(None, act(way.unwrap_or("none"), x), deadline)
        .await;
    let count = match (answer, way) {
        (Ok(rows), _) if (first(&rows) - x).abs() > 0.0 => &counted.wrong,
        (Ok(_), _) => &counted.right,
        (Err(Error::Crashed { .. } | Error::Deadline { .. }), Some(_)) => &counted.died,
        (Err(Error::Crashed { .. }), None) => &counted.failed,
        (Err(other), _) => panic!("{other}"),
    };
    count.fetch_add(1, Ordering::Relaxed);
    if way.is_none() {
        counted.took.lock().expect("no panic").push(began.elapsed());
    }
}

/// Kills a worker from outside, busy or not.
async fn kill_now_and_then(runtime: &Runtime, counted: &Counted, calls: u64) -> u64 {
    let mut kills = 0;
    for death in 1..calls / CALLS_PER_DEATH {
        while counted.next.load(Ordering::Relaxed) < death * CALLS_PER_DEATH {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        // The one that is asked may just be dying of something else.
        if let Ok(rows) = runtime.call(None, act("pid", 0.0), LONG).await {
            #[expect(clippy::cast_possible_truncation, reason = "process ids are small")]
            let pid = Pid::from_raw(first(&rows) as i32).expect("a process id");
            kills += u64::from(kill_process(pid, Signal::KILL).is_ok());
        }
    }
    kills
}

/// A number from a variable: the long forms of tests are commands of their own.
fn number(variable: &str, otherwise: u64) -> u64 {
    #[expect(
        clippy::disallowed_methods,
        reason = "make speaks to tests by variables"
    )]
    let text = std::env::var(variable).ok();
    text.and_then(|text| text.parse().ok()).unwrap_or(otherwise)
}
