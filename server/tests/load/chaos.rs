//! Workers are killed and clients go away, at random: whoever is answered gets the answer to what
//! they asked.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use fastrand::Rng;
use futures::future::join;
use futures::future::join_all;
use rustix::process::{Pid, Signal, kill_process};
use tokio::runtime::Runtime;

use crate::amount;
use crate::client::{Expected, Load, Question, over_http1, over_http2};
use crate::served::Served;
use crate::tally::Tally;

/// Workers of the service.
const WORKERS: u64 = 3;

/// Connections of each protocol.
const CONNECTIONS: u64 = 8;

/// Questions to a function that gives `a * 2 + b`, each with another answer.
struct Sums {
    wanted: u64,
    asked: AtomicU64,
    tally: Tally,
}

impl Load for Sums {
    fn next(&self) -> Option<Question> {
        let id = self.asked.fetch_add(1, Ordering::Relaxed);
        (self.tally.answered() < self.wanted).then(|| sum(id))
    }

    fn tally(&self) -> &Tally {
        &self.tally
    }

    fn fickle(&self) -> u16 {
        10
    }
}

/// One to three rows that no other question has.
fn sum(id: u64) -> Question {
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
            kills.parents += u64::from(is_killed(victim.parent));
        } else {
            kills.workers += u64::from(is_killed(victim.pid));
        }
    }
    kills
}

fn is_killed(pid: i32) -> bool {
    Pid::from_raw(pid).is_some_and(|pid| kill_process(pid, Signal::KILL).is_ok())
}

#[test]
fn every_answer_is_that_of_its_question_while_workers_are_killed_and_clients_leave() {
    let sums = Sums {
        wanted: amount("CHAOS_REQUESTS", 200_000),
        asked: AtomicU64::new(0),
        tally: Tally::default(),
    };
    let workers = WORKERS.to_string();
    let served = Served::start("cheap", &["--workers", &workers, "--log", "error"]);
    let is_over = AtomicBool::new(false);
    let begun = Instant::now();
    let kills = std::thread::scope(|scope| {
        let kills = scope.spawn(|| kill(&served, &is_over, Duration::from_millis(30)));
        Runtime::new().unwrap().block_on(ask(&served, &sums));
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
    assert!(
        counts
            .failed
            .keys()
            .all(|case| case == "503 worker_crashed")
    );
    // Gathered calls are asked again apart: a worker that is killed costs one call at most.
    assert!(counts.failures() <= kills.workers + kills.parents * WORKERS);
    assert!(counts.cancelled > 0 && kills.workers > 10 && restarts > 10.0);
}

async fn ask(served: &Served, sums: &Sums) {
    let mut random = Rng::with_seed(3);
    let first = (0..CONNECTIONS).map(|_| over_http1(served.address, sums, random.fork()));
    let first: Vec<_> = first.collect();
    let second = (0..CONNECTIONS).map(|_| over_http2(served.address, sums, random.fork()));
    join(join_all(first), join_all(second.collect::<Vec<_>>())).await;
}
