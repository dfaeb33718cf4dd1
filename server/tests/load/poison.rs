//! Calls that fail by their own fault, gathered with others whose fault it is not.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use fastrand::Rng;
use futures::future::{join, join_all};
use tokio::runtime::Runtime;

use crate::amount;
use crate::client::{Expected, Load, Question, ask_alone, over_http1, over_http2};
use crate::served::Served;
use crate::tally::{Counts, Tally};

/// Rows that fail, and how. Those of a wrong type reach no worker.
const POISON: [(&str, &str, &str); 3] = [
    ("raise", "1.5", "500 function_failed"),
    ("none", "\"text\"", "422 wrong_type"),
    ("segfault", "1.5", "503 worker_crashed"),
];

const ARGUMENTS: [&str; 4] = ["--workers", "3", "--log", "error,worker=debug"];

/// Questions to a function that doubles `x`.
struct Doubles {
    wanted: u64,
    /// One question of so many is poison; 0: none are.
    poison: u64,
    is_over: AtomicBool,
    asked: AtomicU64,
    tally: Tally,
}

impl Doubles {
    fn new(wanted: u64, poison: u64) -> Self {
        Self {
            wanted,
            poison,
            is_over: AtomicBool::new(false),
            asked: AtomicU64::new(0),
            tally: Tally::default(),
        }
    }

    fn is_enough(&self) -> bool {
        self.is_over.load(Ordering::Relaxed) || self.tally.answered() >= self.wanted
    }

    fn question(&self, id: u64) -> Question {
        if self.poison > 0 && id % self.poison == 0 {
            let (action, x, case) = POISON[(id / self.poison % 3) as usize];
            return question(id, action, x, Expected::Case(case));
        }
        #[expect(clippy::cast_precision_loss, reason = "the numbers are small")]
        let x = id as f64;
        let answer = format!("{{\"predictions\":[{:?}]}}", x * 2.0);
        question(id, "none", &format!("{x:?}"), Expected::Body(answer))
    }
}

impl Load for Doubles {
    fn next(&self) -> Option<Question> {
        let id = self.asked.fetch_add(1, Ordering::Relaxed);
        (!self.is_enough()).then(|| self.question(id))
    }

    fn tally(&self) -> &Tally {
        &self.tally
    }

    fn fickle(&self) -> u16 {
        0
    }
}

fn question(id: u64, action: &str, x: &str, expected: Expected) -> Question {
    Question {
        id: format!("q{id}"),
        body: format!("{{\"data\":[{{\"action\":\"{action}\",\"x\":{x}}}]}}"),
        expected,
        patience: 6,
    }
}

async fn ask(served: &Served, doubles: &Doubles) {
    let mut random = Rng::with_seed(5);
    let first = (0..8).map(|_| over_http1(served.address, doubles, random.fork()));
    let first: Vec<_> = first.collect();
    let second = (0..8).map(|_| over_http2(served.address, doubles, random.fork()));
    join(join_all(first), join_all(second.collect::<Vec<_>>())).await;
}

/// None but the poison failed.
#[track_caller]
fn assert_innocent(counts: &Counts) {
    assert_eq!((counts.wrong, counts.broken), (0, 0), "{counts}");
    assert_eq!(counts.failures(), 0, "{counts}");
}

#[test]
fn rows_that_raise_or_kill_or_are_none_fail_alone() {
    let doubles = Doubles::new(amount("POISON_REQUESTS", 20_000), 100);
    let served = Served::start("poisonous", &ARGUMENTS);
    let begun = Instant::now();
    Runtime::new().unwrap().block_on(ask(&served, &doubles));
    let counts = doubles.tally.counts();
    let [raised, killed] = ["others: raise", "others: segfault"].map(|text| served.logged(text));
    println!(
        "{counts}, in {:.1} s; {raised} that raise and {killed} that kill were among others",
        begun.elapsed().as_secs_f64()
    );
    assert_innocent(&counts);
    assert_eq!(counts.guilty.len(), POISON.len());
    assert!(raised > 0 && killed > 0);
}

/// What hangs has a second. Those gathered with it are asked again when half of their time is over.
#[test]
fn rows_that_hang_fail_alone() {
    let rounds = amount("POISON_HANGS", 4);
    let doubles = Doubles::new(u64::MAX, 0);
    let hanging = Doubles::new(u64::MAX, 0);
    let served = Served::start("poisonous", &ARGUMENTS);
    let hang = async {
        for round in 0..rounds {
            let mut question = question(round, "hang", "1.5", Expected::Case("504 deadline"));
            question.patience = 1;
            ask_alone(served.address, &question, &hanging.tally).await;
            tokio::time::sleep(Duration::from_secs(2)).await;
        }
        doubles.is_over.store(true, Ordering::Relaxed);
    };
    Runtime::new()
        .unwrap()
        .block_on(join(hang, ask(&served, &doubles)));
    let (counts, hung) = (doubles.tally.counts(), served.logged("others: hang"));
    println!(
        "{}; {counts}; {hung} were among others",
        hanging.tally.counts()
    );
    assert_innocent(&counts);
    assert_eq!(hanging.tally.counts().guilty["504 deadline"], rounds);
    assert!(hung > 0);
}
