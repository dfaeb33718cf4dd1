//! Calls that fail by their own fault, gathered with others whose fault it is not.

use std::time::{Duration, Instant};

use tokio::runtime::Runtime;

use crate::amount;
use crate::client::{Expected, Question, ask_alone};
use crate::load::Load;
use crate::served::Served;
use crate::tally::{Counts, Tally};

/// Rows that fail, and how. Those of a wrong type reach no worker.
const POISON: [(&str, &str, &str); 3] = [
    ("raise", "1.5", "500 function_failed"),
    ("none", "\"text\"", "422 wrong_type"),
    ("segfault", "1.5", "503 worker_crashed"),
];

const ARGUMENTS: [&str; 4] = ["--workers", "3", "--log", "error,worker=debug"];

/// A question to a function that doubles `x`.
fn double(id: u64) -> Question {
    #[expect(clippy::cast_precision_loss, reason = "the numbers are small")]
    let x = id as f64;
    let answer = format!("{{\"predictions\":[{:?}]}}", x * 2.0);
    question(id, "none", &format!("{x:?}"), Expected::Body(answer))
}

/// One of a hundred is poison.
fn double_or_poison(id: u64) -> Question {
    if !id.is_multiple_of(100) {
        return double(id);
    }
    let (action, x, case) = POISON[(id / 100 % 3) as usize];
    question(id, action, x, Expected::Case(case))
}

fn question(id: u64, action: &str, x: &str, expected: Expected) -> Question {
    Question {
        id: format!("q{id}"),
        body: format!("{{\"data\":[{{\"action\":\"{action}\",\"x\":{x}}}]}}"),
        expected,
        patience: 6,
    }
}

/// None but the poison failed.
#[track_caller]
fn assert_innocent(counts: &Counts) {
    assert_eq!((counts.wrong, counts.broken), (0, 0), "{counts}");
    assert_eq!(counts.failures(), 0, "{counts}");
}

#[test]
fn rows_that_raise_or_kill_or_are_none_fail_alone() {
    let doubles = Load::new(double_or_poison).until(amount("POISON_REQUESTS", 20_000));
    let served = Served::start("poisonous", &ARGUMENTS);
    let begun = Instant::now();
    doubles.offer(served.address, [8, 8]);
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
    let (doubles, hanging) = (Load::new(double), Tally::default());
    let served = Served::start("poisonous", &ARGUMENTS);
    let hang = async {
        for round in 0..rounds {
            let mut question = question(round, "hang", "1.5", Expected::Case("504 deadline"));
            question.patience = 1;
            ask_alone(served.address, &question, &hanging).await;
            tokio::time::sleep(Duration::from_secs(2)).await;
        }
    };
    doubles.during(served.address, [8, 8], || {
        Runtime::new().unwrap().block_on(hang)
    });
    let (counts, hung) = (doubles.tally.counts(), served.logged("others: hang"));
    println!("{}; {counts}; {hung} were among others", hanging.counts());
    assert_innocent(&counts);
    assert_eq!(hanging.counts().guilty["504 deadline"], rounds);
    assert!(hung > 0);
}
