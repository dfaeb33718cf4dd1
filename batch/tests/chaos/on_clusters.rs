//! Jobs on a cluster, some at a time, while everything that takes part in them is killed: drivers at
//! points and at some time, executors likewise, workers and the scheduler.
//!
//! `CLUSTER_CHAOS_JOBS` says how many jobs; `make cluster-chaos` runs many.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ExitStatus};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde_json::json;
use tempfile::TempDir;

use crate::cluster::{Cluster, POINTS_OF_EXECUTORS, Pace};
use crate::dice::Dice;
use crate::driver::Errand;
use crate::table::{keys, read_back, vacuum, write_input};

/// Every point that the driver of a job on a cluster can die at, and in which table.
const POINTS: [(&str, &str); 11] = [
    ("claimed", "delta"),
    ("before_commit", "delta"),
    ("log_written", "delta"),
    ("after_commit", "delta"),
    ("before_commit", "parquet"),
    ("renamed", "parquet"),
    ("after_commit", "parquet"),
    ("rewritten", "delta-merge"),
    ("log_written", "delta-merge"),
    ("rewritten", "parquet-merge"),
    ("before_commit", "parquet-merge"),
];

/// Rows are merged into these, so they have rows at first, of one more job each.
const MERGED: [&str; 2] = ["delta-merge", "parquet-merge"];

/// Drivers at the same time.
const AT_A_TIME: usize = 4;
/// A run that takes longer hangs: the scheduler misses an executor after 25 seconds, and moves a task
/// four times at most.
const LONGEST_RUN: Duration = Duration::from_secs(240);
/// Runs that fail because too much was killed under them, and are run again.
const MOST_RUNS: usize = 25;
/// Before the next run of a driver that found no cluster.
const PAUSE: Duration = Duration::from_millis(500);

fn jobs_wanted() -> usize {
    let wanted = std::env::var("CLUSTER_CHAOS_JOBS").ok();
    wanted.map_or(POINTS.len(), |jobs| jobs.parse().unwrap())
}

fn is_long() -> bool {
    jobs_wanted() >= 100
}

/// Executors die often enough that some are always missed, and seldom enough that work gets done.
fn pace() -> Pace {
    Pace {
        executors: 4,
        executor_every: Duration::from_secs(if is_long() { 6 } else { 4 }),
        worker_every: Duration::from_secs(2),
        scheduler_every: is_long().then_some(Duration::from_secs(25)),
    }
}

/// What happens to all drivers.
struct Jobs {
    folder: TempDir,
    url: String,
    next: AtomicUsize,
    tally: Mutex<Tally>,
}

#[derive(Debug, Default)]
struct Tally {
    kills: BTreeMap<String, usize>,
    runs: usize,
    /// Runs that failed because of what was killed under them.
    failed: usize,
    done: usize,
}

impl Jobs {
    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Does jobs until none is left.
    fn work(&self) {
        loop {
            let number = self.next.fetch_add(1, Ordering::SeqCst);
            if number >= jobs_wanted() {
                return;
            }
            self.job(number);
            self.tally.lock().unwrap().done += 1;
        }
    }

    /// One job: its driver dies at a point and at some time, then it runs until it is done.
    fn job(&self, number: usize) {
        let (point, table) = POINTS[number % POINTS.len()];
        let errand = self.errand(number, table);
        let mut dice = Dice(0x9e37_79b9_7f4a_7c15 + number as u64);
        if is_long() {
            self.killed_at_some_time(&errand, dice.millis(1_000));
            self.killed_at_some_time(&errand, dice.millis(500));
        }
        self.dies_at(point, &errand, number);
        self.killed_at_some_time(&errand, dice.millis(500));
        // Once more than it takes: a job that is done says so and changes nothing.
        self.is_done(&errand, number);
        self.is_done(&errand, number);
    }

    fn is_done(&self, errand: &Errand, number: usize) {
        self.until(number, || {
            let ended = ends(errand.start(None), number);
            ended.success().then_some(ended)
        });
    }

    /// Runs the job until its driver dies there, or until it is done: a run before may have been there.
    fn dies_at(&self, point: &str, errand: &Errand, number: usize) {
        let fired = self.path(&format!("fired-{number}"));
        let ended = self.until(number, || {
            let ended = ends(errand.start(Some((point, 1, &fired))), number);
            (fired.exists() || ended.success()).then_some(ended)
        });
        if fired.exists() {
            assert_eq!(ended.signal(), Some(9), "the driver outlived {point}");
            self.count(&format!("driver at {point} ({})", errand.table));
        }
    }

    fn errand(&self, number: usize, table: &str) -> Errand {
        let input = self.path(&format!("in-{number}"));
        write_input(&input, keys(number, table));
        Errand {
            input,
            output: self.path(&format!("out-{table}")),
            table: table.to_owned(),
            job: format!("job-{number}"),
            // Another envelope has another digest, and each has some jobs of each table.
            real: number / POINTS.len() % 2 == number % 2,
            cluster: Some(self.url.clone()),
        }
    }

    fn killed_at_some_time(&self, errand: &Errand, after: Duration) {
        let mut driver = errand.start(None);
        std::thread::sleep(after);
        // One that has ended is not killed any more.
        if driver.try_wait().unwrap().is_none() {
            driver.kill().unwrap();
            driver.wait().unwrap();
            self.count("driver at some time");
        }
        self.tally.lock().unwrap().runs += 1;
    }

    /// Runs again what fails, as whoever has a job that must be done.
    fn until(&self, number: usize, run: impl Fn() -> Option<ExitStatus>) -> ExitStatus {
        for _ in 0..MOST_RUNS {
            self.tally.lock().unwrap().runs += 1;
            if let Some(ended) = run() {
                return ended;
            }
            self.tally.lock().unwrap().failed += 1;
            std::thread::sleep(PAUSE);
        }
        panic!("job {number} is not done after {MOST_RUNS} runs");
    }

    fn count(&self, what: &str) {
        let mut tally = self.tally.lock().unwrap();
        *tally.kills.entry(what.to_owned()).or_default() += 1;
    }

    /// Another program looks at each table. Gives the rows of each, and its jobs.
    fn read_back(&self) -> BTreeMap<&'static str, (usize, usize)> {
        let mut tables: BTreeMap<&str, (BTreeSet<usize>, usize)> = BTreeMap::new();
        let of_points = (0..jobs_wanted()).map(|number| (number, POINTS[number % POINTS.len()].1));
        for (number, table) in of_points.chain(first_jobs()) {
            let (rows, jobs) = tables.entry(table).or_default();
            rows.extend(keys(number, table));
            *jobs += 1;
        }
        for table in tables.keys() {
            vacuum(&self.path(&format!("out-{table}")));
        }
        let counted = |(table, (rows, jobs)): (_, (BTreeSet<usize>, usize))| {
            let name = format!("out-{table}");
            read_back(self.folder.path(), &name, rows.len(), jobs);
            (table, (rows.len(), jobs))
        };
        tables.into_iter().map(counted).collect()
    }
}

/// Behind the others, the jobs that fill tables before the others begin.
fn first_jobs() -> impl Iterator<Item = (usize, &'static str)> {
    (jobs_wanted()..).zip(MERGED)
}

fn ends(mut driver: Child, number: usize) -> ExitStatus {
    let until = Instant::now() + LONGEST_RUN;
    loop {
        if let Some(ended) = driver.try_wait().unwrap() {
            return ended;
        }
        if Instant::now() > until {
            driver.kill().unwrap();
            panic!("job {number} hangs");
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn jobs_on_a_cluster_in_which_everything_is_killed_are_in_the_table_once() {
    // It is there before the first executor looks for it.
    let _: &Path = acceptance::envelope(crate::driver::REAL).path();
    let begun = Instant::now();
    let mut cluster = Cluster::start(pace());
    let jobs = Jobs {
        folder: TempDir::new().unwrap(),
        url: cluster.url(),
        next: AtomicUsize::new(0),
        tally: Mutex::default(),
    };
    for (number, table) in first_jobs() {
        jobs.is_done(&jobs.errand(number, table), number);
    }
    std::thread::scope(|scope| {
        let drivers: Vec<_> = (0..AT_A_TIME)
            .map(|_| scope.spawn(|| jobs.work()))
            .collect();
        let mut told = 0;
        while drivers.iter().any(|driver| !driver.is_finished()) {
            cluster.look();
            told = tell(&jobs, &cluster, (told, begun));
            std::thread::sleep(Duration::from_millis(50));
        }
    });
    let mut kills = cluster.kills.clone();
    drop(cluster);
    let tables = jobs.read_back();
    let tally = jobs.tally.into_inner().unwrap();
    kills.extend(tally.kills);
    let killed: usize = kills.values().sum();
    println!(
        "{}",
        json!({"jobs": jobs_wanted(), "runs": tally.runs, "runs_failed": tally.failed, "killed": killed, "kills": kills,
            "rows_and_versions": tables, "seconds": begun.elapsed().as_secs()})
    );
    check_that_all_fired(&kills);
    assert!(!is_long() || killed >= 300, "{killed} were killed");
}

/// Says how far it is, after each ten jobs.
#[expect(clippy::print_stdout, reason = "it takes minutes, and somebody waits")]
fn tell(jobs: &Jobs, cluster: &Cluster, (told, begun): (usize, Instant)) -> usize {
    let tally = jobs.tally.lock().unwrap();
    if tally.done / 10 > told / 10 {
        let killed: usize = tally.kills.values().chain(cluster.kills.values()).sum();
        let seconds = begun.elapsed().as_secs();
        println!(
            "{} of {} jobs, {killed} killed, {seconds} s",
            tally.done,
            jobs_wanted()
        );
    }
    tally.done
}

fn check_that_all_fired(kills: &BTreeMap<String, usize>) {
    let drivers = POINTS.map(|(point, table)| format!("driver at {point} ({table})"));
    let mut wanted: Vec<String> = vec!["driver at some time".into(), "worker".into()];
    wanted.extend(drivers);
    if is_long() {
        let executors = POINTS_OF_EXECUTORS.map(|point| format!("executor at {point}"));
        wanted.extend(executors);
        wanted.extend(["executor at some time".into(), "scheduler".into()]);
    }
    for what in wanted {
        assert!(kills.contains_key(&what), "nobody was killed: {what}");
    }
}
