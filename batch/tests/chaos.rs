//! Jobs whose drivers and workers are killed, at random and at each named point, and run again until
//! they are done: no row is lost, none is doubled, each job is one version, nothing is left.
//!
//! `CHAOS_JOBS` says how many jobs; `make batch-chaos` runs many. The drivers are processes of this
//! program: they, and not the product, know how to die at a point.

#![expect(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a test fails by panicking, and tells what it has done"
)]

#[cfg(feature = "cluster")]
#[path = "chaos/cluster.rs"]
mod cluster;
#[path = "chaos/death.rs"]
mod death;
#[path = "chaos/dice.rs"]
mod dice;
#[path = "chaos/driver.rs"]
mod driver;
#[cfg(feature = "cluster")]
#[path = "chaos/on_clusters.rs"]
mod on_clusters;
#[path = "chaos/processes.rs"]
mod processes;
#[path = "chaos/table.rs"]
mod table;

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ExitStatus};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::dice::Dice;
use crate::driver::Errand;
use crate::table::{ROWS, keys, read_back, vacuum, write_input};

/// Every point that a driver can die at; the second half of the pair says in which table: those of
/// `merge` have the rows of all jobs, and jobs replace one another's.
const POINTS: [(&str, &str); 20] = [
    ("claimed", "delta"),
    ("before_file", "delta"),
    ("after_file", "delta"),
    ("after_note", "delta"),
    ("before_commit", "delta"),
    ("log_written", "delta"),
    ("after_commit", "delta"),
    ("before_file", "parquet"),
    ("after_file", "parquet"),
    ("after_note", "parquet"),
    ("before_commit", "parquet"),
    ("renamed", "parquet"),
    ("after_commit", "parquet"),
    ("log_written", "delta-merge"),
    ("rewritten", "delta-merge"),
    ("after_commit", "delta-merge"),
    ("after_note", "parquet-merge"),
    ("rewritten", "parquet-merge"),
    ("before_commit", "parquet-merge"),
    ("renamed", "parquet-merge"),
];

/// How a run of a job is disturbed.
#[derive(Debug, Clone)]
enum Harm {
    /// The driver kills itself when it is at a point for so many times.
    AtPoint(&'static str, usize),
    /// The driver is killed at some time.
    Driver(Duration),
    /// Processes below the driver are killed, from the moment at which it has work for them.
    Workers,
}

/// What has happened to all jobs.
#[derive(Debug, Default)]
struct Tally {
    /// How often a driver died, and of what.
    fired: BTreeMap<String, usize>,
    runs: usize,
    workers_killed: usize,
}

/// A folder with the inputs and outputs of many jobs.
struct Stage {
    folder: TempDir,
    tally: Tally,
    dice: Dice,
}

impl Stage {
    fn new() -> Self {
        Self {
            folder: TempDir::new().unwrap(),
            tally: Tally::default(),
            dice: Dice(0x9e37_79b9_7f4a_7c15),
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The job with this number, which has a table of input for itself.
    fn errand(&self, number: usize, table: &str, real: bool) -> Errand {
        let input = self.path(&format!("in-{number}"));
        if !input.exists() {
            write_input(&input, keys(number, table));
        }
        Errand {
            input,
            output: self.path(&format!("out-{table}{}", if real { "-real" } else { "" })),
            table: table.to_owned(),
            job: format!("job-{number}"),
            real,
            cluster: None,
        }
    }

    /// Runs a job, disturbed at first, until it says that it is done.
    fn run(&mut self, errand: &Errand, harms: &[Harm]) {
        for harm in harms {
            let fired = self.path("fired");
            let child = match harm {
                Harm::AtPoint(point, times) => errand.start(Some((point, *times, fired.as_path()))),
                Harm::Driver(_) | Harm::Workers => errand.start(None),
            };
            let (ended, killed) = disturb(child, errand, harm);
            self.tally.runs += 1;
            self.tally.workers_killed += killed;
            self.note((harm, &errand.table), ended, &fired);
            _ = std::fs::remove_file(fired);
        }
        // Once more than it takes: a job that is done says so and changes nothing.
        for _ in 0..2 {
            let done = errand.start(None).wait().unwrap();
            self.tally.runs += 1;
            assert!(done.success(), "{errand:?} after {harms:?}: {done}");
        }
    }

    fn note(&mut self, (harm, table): (&Harm, &str), ended: ExitStatus, fired: &Path) {
        let killed = ended.signal() == Some(9);
        let what = match harm {
            Harm::AtPoint(point, _) if fired.exists() => {
                assert!(killed, "the driver outlived {point}: {ended}");
                format!("{point} ({table})")
            }
            Harm::AtPoint(..) => return,
            Harm::Driver(_) if killed => "driver at some time".to_owned(),
            Harm::Driver(_) | Harm::Workers => return,
        };
        *self.tally.fired.entry(what).or_default() += 1;
    }
}

/// Lets a run go on until it ends or is ended. Tells how many processes below it were killed.
fn disturb(mut child: Child, errand: &Errand, harm: &Harm) -> (ExitStatus, usize) {
    let mut killed = 0;
    match harm {
        Harm::AtPoint(..) => {}
        Harm::Driver(after) => {
            std::thread::sleep(*after);
            _ = child.kill();
        }
        Harm::Workers => {
            let until = Instant::now() + Duration::from_secs(20);
            while killed < 3 && Instant::now() < until && child.try_wait().unwrap().is_none() {
                std::thread::sleep(Duration::from_millis(1));
                if errand.has_work() {
                    killed += processes::kill_descendants(child.id());
                }
            }
        }
    }
    (child.wait().unwrap(), killed)
}

fn jobs_wanted() -> usize {
    let wanted = std::env::var("CHAOS_JOBS").ok();
    wanted.map_or(POINTS.len(), |jobs| jobs.parse().unwrap())
}

/// How often a driver of one job is killed at some time, beside once at a point.
fn random_kills() -> usize {
    if jobs_wanted() >= 100 { 3 } else { 1 }
}

#[test]
fn jobs_that_are_killed_and_run_again_are_in_the_table_once() {
    let mut stage = Stage::new();
    let mut tables: BTreeMap<&str, (usize, BTreeSet<usize>)> = BTreeMap::new();
    for number in 0..jobs_wanted() {
        let (point, table) = POINTS[number % POINTS.len()];
        let errand = stage.errand(number, table, false);
        let times = if point.contains("file") || point.contains("note") {
            1 + stage.dice.below(3)
        } else {
            1
        };
        let mut harms = vec![Harm::AtPoint(point, times)];
        for _ in 0..random_kills() {
            harms.push(Harm::Driver(stage.dice.millis(100)));
        }
        stage.run(&errand, &harms);
        let (jobs, rows) = tables.entry(table).or_default();
        *jobs += 1;
        rows.extend(keys(number, table));
    }
    let killed: usize = stage.tally.fired.values().sum();
    println!(
        "{} jobs, {killed} drivers killed: {:?}",
        jobs_wanted(),
        stage.tally
    );
    let fired: BTreeSet<&str> = stage.tally.fired.keys().map(String::as_str).collect();
    for (point, table) in POINTS {
        let what = format!("{point} ({table})");
        assert!(fired.contains(what.as_str()), "no driver died at {what}");
    }
    for (table, (jobs, rows)) in tables {
        let name = format!("out-{table}");
        vacuum(&stage.path(&name));
        read_back(stage.folder.path(), &name, rows.len(), jobs);
    }
    if jobs_wanted() >= 100 {
        assert!(killed >= 300, "{killed} drivers were killed");
    }
}

#[test]
fn jobs_whose_workers_are_killed_are_in_the_table_once() {
    let mut stage = Stage::new();
    let jobs = (jobs_wanted() / 10).max(1);
    for number in 0..jobs {
        let errand = stage.errand(number, "delta", true);
        stage.run(&errand, &[Harm::Workers, Harm::Workers]);
    }
    println!("{:?}", stage.tally);
    assert!(stage.tally.workers_killed > 0, "no worker was killed");
    vacuum(&stage.path("out-delta-real"));
    read_back(stage.folder.path(), "out-delta-real", jobs * ROWS, jobs);
}

#[test]
fn eight_drivers_that_write_one_table_at_once_all_count_once() {
    for table in ["delta", "parquet", "delta-merge", "parquet-merge"] {
        let stage = Stage::new();
        // The table is not there: one of them makes it, the others must see that and add to it.
        let errands = (0..8).map(|job| stage.errand(job, table, false));
        let errands: Vec<Errand> = errands.collect();
        all_at_once(&errands);
        let rows: BTreeSet<usize> = (0..8).flat_map(|job| keys(job, table)).collect();
        let name = format!("out-{table}");
        vacuum(&stage.path(&name));
        read_back(stage.folder.path(), &name, rows.len(), 8);
    }
}

#[test]
fn eight_drivers_of_one_job_at_once_are_one_version() {
    let stage = Stage::new();
    for table in ["delta", "parquet"] {
        all_at_once(&vec![stage.errand(0, table, false); 8]);
        read_back(stage.folder.path(), &format!("out-{table}"), ROWS, 1);
    }
}

fn all_at_once(errands: &[Errand]) {
    let drivers: Vec<Child> = errands.iter().map(|errand| errand.start(None)).collect();
    for mut driver in drivers {
        assert!(driver.wait().unwrap().success());
    }
}
