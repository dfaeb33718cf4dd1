//! The workers stop for a while: the service goes on, and so do its clients when that is over.

use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::chaos::{send, sum};
use crate::client::Question;
use crate::load::Load;
use crate::served::Served;

/// How long the workers are stopped, and how long callers wait.
const STALL: Duration = Duration::from_millis(1500);
const PATIENCE: u32 = 1;

/// Calls that are under way at once: 4 connections with up to 8 questions, 4 with 16 streams.
const MOST: u32 = 4 * 8 + 4 * 16;

fn impatient(id: u64) -> Question {
    Question {
        patience: PATIENCE,
        ..sum(id)
    }
}

/// Good answers within `time`.
fn answers(load: &Load<impl Fn(u64) -> Question + Sync>, time: Duration) -> u64 {
    let before = load.tally.answered();
    std::thread::sleep(time);
    load.tally.answered() - before
}

/// The longest time that health takes to answer meanwhile, and the most calls under way.
fn watch(served: &Served, time: Duration) -> (Duration, f64) {
    let (begun, mut slowest, mut most) = (Instant::now(), Duration::ZERO, 0_f64);
    while begun.elapsed() < time {
        let asked = Instant::now();
        assert!(served.get("/healthz").contains("\"live\":true"));
        slowest = slowest.max(asked.elapsed());
        most = most.max(served.metric("envelope_inflight"));
        std::thread::sleep(Duration::from_millis(20));
    }
    (slowest, most)
}

#[test]
fn health_answers_while_the_workers_stall_and_calls_are_answered_afterwards() {
    let served = Served::start("cheap", &["--workers", "2", "--log", "error"]);
    let load = Load::new(impatient);
    let second = Duration::from_secs(1);
    let (before, stalled, watched, after) = load.during(served.address, [4, 4], || {
        answers(&load, second);
        let before = answers(&load, second);
        let workers = served.workers();
        workers
            .iter()
            .for_each(|worker| _ = send(worker.pid, Signal::STOP));
        let watched = std::thread::scope(|scope| {
            let watching = scope.spawn(|| watch(&served, STALL));
            std::thread::sleep(STALL / 3);
            let stalled = answers(&load, STALL / 3);
            (watching.join().unwrap(), stalled)
        });
        workers
            .iter()
            .for_each(|worker| _ = send(worker.pid, Signal::CONT));
        answers(&load, second);
        (before, watched.1, watched.0, answers(&load, second))
    });
    let counts = load.tally.counts();
    let (slowest, most) = watched;
    println!("{before} answers in a second, {stalled} while stalled, {after} afterwards");
    println!("{counts}; health within {slowest:.1?}; at most {most} calls under way");
    assert_eq!((counts.wrong, counts.broken), (0, 0));
    // Clients tell of answers that came before when they have all that they wait for.
    assert!(stalled <= u64::from(MOST) && after > before / 2);
    let cases = ["503 overloaded", "504 deadline"];
    assert!(
        counts
            .failed
            .keys()
            .all(|case| cases.contains(&case.as_str()))
    );
    assert!(slowest < second && most <= f64::from(MOST));
}
