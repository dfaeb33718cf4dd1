//! One envelope takes the place of another while clients ask: no call fails, and each answer is that
//! of the envelope whose digest it carries.

use std::collections::HashSet;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::amount;
use crate::client::{Expected, Question};
use crate::load::Load;
use crate::served::Served;

/// What an envelope gives for a row.
type Gives = fn(f64, f64) -> f64;

/// Envelopes that take the same rows.
const ENVELOPES: [(&str, Gives); 3] = [
    ("cheap", |a, b| a * 2.0 + b),
    ("minus", |a, b| a * 2.0 - b),
    ("times", |a, b| a * b),
];

/// A question that each of the envelopes answers differently.
fn question(digests: &[String], id: u64) -> Question {
    #[expect(clippy::cast_precision_loss, reason = "the numbers are small")]
    let (a, b) = (id as f64 + 5.0, 1.0 + (id % 7) as f64 / 4.0);
    let answers = digests.iter().zip(ENVELOPES).map(|(digest, (_, gives))| {
        (
            digest.clone(),
            format!("{{\"predictions\":[{:?}]}}", gives(a, b)),
        )
    });
    Question {
        id: format!("q{id}"),
        body: format!("{{\"data\":[{{\"a\":{a:?},\"b\":{b:?}}}]}}"),
        expected: Expected::BodyOf(answers.collect()),
        patience: 30,
    }
}

/// A service of whatever envelope is in its file.
struct Follower {
    served: Served,
    digests: Vec<String>,
    file: PathBuf,
    _folder: TempDir,
}

impl Follower {
    fn start() -> Self {
        let folder = TempDir::new().unwrap();
        let file = folder.path().join("served.envelope");
        put(&file, 0);
        let path = file.to_str().unwrap();
        let arguments = ["--workers", "2", "--log", "error", "--envelope", path];
        let digest = |(name, _): &(&str, _)| acceptance::envelope(name).digest().to_string();
        Self {
            served: Served::start(ENVELOPES[0].0, &arguments),
            digests: ENVELOPES.iter().map(digest).collect(),
            file,
            _folder: folder,
        }
    }

    /// How long it takes from the signal until that envelope answers.
    fn turn_to(&self, number: usize) -> Duration {
        put(&self.file, number);
        let begun = Instant::now();
        self.served.hang_up();
        let mut stream = BufReader::new(TcpStream::connect(self.served.address).unwrap());
        while answering(&mut stream) != self.digests[number] {
            assert!(begun.elapsed().as_secs() < 60, "it did not happen");
            std::thread::sleep(Duration::from_millis(1));
        }
        begun.elapsed()
    }

    /// Once no more are begun: the first one answers before the others are there.
    fn settled_workers(&self) -> HashSet<i32> {
        let mut workers = self.workers();
        loop {
            std::thread::sleep(Duration::from_millis(300));
            let before = std::mem::replace(&mut workers, self.workers());
            if workers == before {
                return workers;
            }
        }
    }

    fn workers(&self) -> HashSet<i32> {
        self.served
            .workers()
            .iter()
            .map(|worker| worker.pid)
            .collect()
    }
}

/// All at once, as who replaces a file should.
fn put(file: &Path, number: usize) {
    let next = file.with_extension("next");
    std::fs::copy(acceptance::envelope_path(ENVELOPES[number].0), &next).unwrap();
    std::fs::rename(next, file).unwrap();
}

/// The digest of the envelope that answers now.
fn answering(stream: &mut BufReader<TcpStream>) -> String {
    let request = b"HEAD /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n";
    stream.get_mut().write_all(request).unwrap();
    let mut digest = String::new();
    let mut line = String::new();
    while line != "\r\n" {
        line.clear();
        stream.read_line(&mut line).unwrap();
        if let Some(found) = line.strip_prefix("x-envelope-digest: ") {
            digest = found.trim_end().to_owned();
        }
    }
    digest
}

#[test]
fn no_call_fails_while_envelopes_with_real_workers_change() {
    let swaps = usize::try_from(amount("SWAPS", 50)).unwrap();
    let follower = Follower::start();
    let questions = Load::new(|id| question(&follower.digests, id));
    let (fresh, back) = questions.during(follower.served.address, [4, 1], || {
        let fresh = turn_to_new_ones(&follower, (swaps / 16).max(4));
        (fresh, turn_to_kept_ones(&follower, swaps))
    });
    let counts = questions.tally.counts();
    println!("{counts}");
    println!(
        "{} swaps to new workers: {}",
        fresh.len(),
        quantiles(fresh.clone())
    );
    println!(
        "{} swaps to kept ones: {}",
        back.len(),
        quantiles(back.clone())
    );
    assert_eq!((counts.wrong, counts.broken, counts.failures()), (0, 0, 0));
    assert!(counts.answered > fresh.len() as u64 + back.len() as u64);
}

/// Round and round: only what was served just before is kept, so each of three needs new workers.
fn turn_to_new_ones(follower: &Follower, swaps: usize) -> Vec<Duration> {
    let swap = |number: usize| {
        let before = follower.workers();
        let time = follower.turn_to(number % 3);
        assert!(
            !follower.workers().is_subset(&before),
            "they have no new workers"
        );
        time
    };
    (1..=swaps).map(swap).collect()
}

/// To and fro between what is served and what was before.
fn turn_to_kept_ones(follower: &Follower, swaps: usize) -> Vec<Duration> {
    follower.turn_to(0);
    follower.turn_to(1);
    let before = follower.settled_workers();
    let swap = |number: usize| follower.turn_to(number % 2);
    let times = (0..swaps).map(swap).collect();
    assert!(
        follower.workers().is_subset(&before),
        "they have new workers"
    );
    times
}

fn quantiles(mut times: Vec<Duration>) -> String {
    times.sort_unstable();
    let at = |percent: usize| times[(times.len() * percent / 100).min(times.len() - 1)];
    format!(
        "p50 {:.1?}, p99 {:.1?}, at most {:.1?}",
        at(50),
        at(99),
        at(100)
    )
}
