//! Workers are killed and clients go away, at random: whoever is answered gets the answer to what
//! they asked.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use fastrand::Rng;
use rustix::process::{Pid, Signal, kill_process};

use crate::amount;
use crate::client::{Expected, Question};
use crate::load::Load;
use crate::served::Served;

/// Workers of the service.
const WORKERS: u64 = 3;

/// Calls that are under way at once, at most: 8 connections with 8 questions, 8 with 16 streams.
const AT_ONCE: u64 = 8 * 8 + 8 * 16;

/// One to three rows that no other question has, for a function that gives `a * 2 + b`.
pub(crate) fn sum(id: u64) -> Question {
    let (mut rows, mut sums) = (vec![], vec![]);
    for row in 0..=id % 3 {
        #[expect(clippy::cast_precision_loss, reason = "the numbers are small")]
        let (a, b) = (id as f64, row as f64 / 4.0 + (id % 17) as f64);
        rows.push(format!("{{\"a\":{a:?},\"b\":{b:?}}}"));
        sums.push(format!("{:?}", a * 2.0 + b));
    }
    Question {
        id: format!("q{id}"),
        body: format!("{{\"data\":[{}]}}", rows.join(",")),
        expected: Expected::Body(format!("{{\"predictions\":[{}]}}", sums.join(","))),
        patience: 30,
    }
}

/// How many processes were killed.
#[derive(Debug, Default)]
struct Kills {
    workers: u64,
    /// Processes that workers are forked from; all of theirs end with them.
    parents: u64,
}

/// Kills a worker every `pause`, and each fiftieth time what it was forked from.
fn kill(served: &Served, is_over: &AtomicBool, pause: Duration) -> Kills {
    let mut random = Rng::with_seed(7);
    let mut kills = Kills::default();
    while !is_over.load(Ordering::Relaxed) {
        std::thread::sleep(pause);
        let workers = served.workers();
        // Those that are there already when there are some more: what a worker is forked from is no
        // worker while all of them are being replaced.
        let Some(victim) = random.choice(&workers).filter(|_| workers.len() > 1) else {
            continue;
        };
        if (kills.workers + kills.parents) % 50 == 49 {
            kills.parents += u64::from(send(victim.parent, Signal::KILL));
        } else {
            kills.workers += u64::from(send(victim.pid, Signal::KILL));
        }
    }
    kills
}

/// Whether the process was still there.
pub(crate) fn send(pid: i32, signal: Signal) -> bool {
    Pid::from_raw(pid).is_some_and(|pid| kill_process(pid, signal).is_ok())
}

#[test]
fn every_answer_is_that_of_its_question_while_workers_are_killed_and_clients_leave() {
    let sums = Load::new(sum)
        .until(amount("CHAOS_REQUESTS", 40_000))
        .fickle(10);
    let workers = WORKERS.to_string();
    let served = Served::start("cheap", &["--workers", &workers, "--log", "error"]);
    let is_over = AtomicBool::new(false);
    let begun = Instant::now();
    let kills = std::thread::scope(|scope| {
        let kills = scope.spawn(|| kill(&served, &is_over, Duration::from_millis(30)));
        sums.offer(served.address, [8, 8]);
        is_over.store(true, Ordering::Relaxed);
        kills.join().unwrap()
    });
    let counts = sums.tally.counts();
    let seconds = begun.elapsed().as_secs_f64();
    let (gathered, restarts) = (
        served.metric("envelope_batch_rows_count"),
        served.metric("envelope_worker_restarts_total"),
    );
    println!("{counts}; {kills:?}, {restarts} workers replaced");
    #[expect(clippy::cast_precision_loss, reason = "figures for people")]
    let answered = counts.answered as f64;
    println!(
        "{:.0} answers in a second for {seconds:.0} s, {:.1} calls gathered into one",
        answered / seconds,
        answered / gathered
    );
    assert_eq!((counts.wrong, counts.broken), (0, 0));
    let failed = |case: &str| counts.failed.get(case).copied().unwrap_or_default();
    let (crashed, unstarted) = (
        failed("503 worker_crashed"),
        failed("503 worker_did_not_start"),
    );
    // Gathered calls are asked again apart: a worker that is killed costs one call at most.
    assert!(crashed <= kills.workers + kills.parents * WORKERS);
    // Killed while a worker was being forked, a parent costs what was gathered for that one.
    assert!(unstarted <= kills.parents * AT_ONCE);
    assert_eq!(counts.failures(), crashed + unstarted);
    assert!(counts.cancelled > 0 && kills.workers > 10 && restarts > 10.0);
}
