//! A cluster whose parts are processes of this program, and are killed: each comes again.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::num::NonZeroUsize;
use std::os::unix::process::ExitStatusExt as _;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use batch::{Envelopes, Executor, Lender, MapRows, Scheduler};
use envelope_format::Digest;
use tempfile::TempDir;

use crate::death::{await_death, doom};
use crate::dice::Dice;
use crate::driver::{REAL, Slow};
use crate::processes::{descendants, kill};

/// The points that executors are at.
pub(crate) const POINTS_OF_EXECUTORS: [&str; 3] = ["before_file", "after_file", "after_note"];

/// How the parts of a cluster are killed.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pace {
    pub(crate) executors: usize,
    /// An executor is killed so often. A cluster on which all of them die before the first is missed gets
    /// nothing done.
    pub(crate) executor_every: Duration,
    pub(crate) worker_every: Duration,
    pub(crate) scheduler_every: Option<Duration>,
}

/// The parts of a cluster. They end with it.
pub(crate) struct Cluster {
    address: SocketAddr,
    scheduler: Child,
    executors: Vec<Hired>,
    folder: TempDir,
    hired: usize,
    pace: Pace,
    next: Next,
    dice: Dice,
    /// How many executors died at a point.
    died_at_points: usize,
    /// What was killed, and how often.
    pub(crate) kills: BTreeMap<String, usize>,
}

/// An executor, and where it says at which point it died.
struct Hired {
    process: Child,
    fired: PathBuf,
}

/// When somebody is killed again.
struct Next {
    executor: Instant,
    worker: Instant,
    scheduler: Instant,
}

impl Cluster {
    pub(crate) fn start(pace: Pace) -> Self {
        let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = free.local_addr().unwrap();
        drop(free);
        let now = Instant::now();
        let mut cluster = Self {
            address,
            scheduler: schedule(address),
            executors: vec![],
            folder: TempDir::new().unwrap(),
            hired: 0,
            pace,
            next: Next {
                executor: now + pace.executor_every,
                worker: now + pace.worker_every,
                scheduler: now + pace.scheduler_every.unwrap_or_default(),
            },
            dice: Dice(0x2545_f491_4f6c_dd1d),
            died_at_points: 0,
            kills: BTreeMap::new(),
        };
        for _ in 0..pace.executors {
            cluster.hire(None);
        }
        cluster
    }

    pub(crate) fn url(&self) -> String {
        format!("df://{}", self.address)
    }

    fn hire(&mut self, death: Option<(&str, usize)>) {
        self.hired += 1;
        let fired = self.folder.path().join(format!("fired-{}", self.hired));
        let mut command = part("cluster::executes", self.address);
        if let Some((point, times)) = death {
            doom(&mut command, (point, times, &fired));
        }
        let process = command.spawn().unwrap();
        self.executors.push(Hired { process, fired });
    }

    /// Looks who has ended, lets others come for them, and kills whose time it is.
    pub(crate) fn look(&mut self) {
        self.replace();
        let now = Instant::now();
        if now >= self.next.executor {
            self.next.executor = now + self.about(self.pace.executor_every);
            self.kill_an_executor();
        }
        if now >= self.next.worker {
            self.next.worker = now + self.about(self.pace.worker_every);
            self.kill_a_worker();
        }
        if let Some(every) = self
            .pace
            .scheduler_every
            .filter(|_| now >= self.next.scheduler)
        {
            self.next.scheduler = now + self.about(every);
            self.scheduler.kill().unwrap();
            self.count("scheduler");
        }
    }

    /// Half of it to one and a half of it.
    fn about(&mut self, time: Duration) -> Duration {
        time / 2 + self.dice.millis(usize::try_from(time.as_millis()).unwrap())
    }

    fn replace(&mut self) {
        if let Some(status) = self.scheduler.try_wait().unwrap() {
            assert_eq!(status.signal(), Some(9), "the scheduler has failed");
            self.scheduler = schedule(self.address);
        }
        let ended = |hired: &mut Hired| hired.process.try_wait().unwrap().is_some();
        let gone: Vec<Hired> = self.executors.extract_if(.., ended).collect();
        for hired in gone {
            // Those that say nothing have ended without their scheduler.
            if let Ok(point) = std::fs::read_to_string(&hired.fired) {
                self.count(&format!("executor at {point}"));
                self.died_at_points += 1;
            }
            self.hire(None);
        }
    }

    /// An executor is killed, and one takes its place that dies at a point: at each in turn.
    fn kill_an_executor(&mut self) {
        let chosen = self.dice.below(self.executors.len());
        let mut killed = self.executors.swap_remove(chosen).process;
        killed.kill().unwrap();
        killed.wait().unwrap();
        self.count("executor at some time");
        let times = 1 + self.dice.below(3);
        let point = POINTS_OF_EXECUTORS[self.died_at_points % POINTS_OF_EXECUTORS.len()];
        self.hire(Some((point, times)));
    }

    fn kill_a_worker(&mut self) {
        let executors = self.executors.iter().map(|hired| hired.process.id());
        let workers: Vec<u32> = executors.flat_map(descendants).collect();
        if workers.is_empty() {
            return;
        }
        let chosen = self.dice.below(workers.len());
        if kill(workers[chosen]) {
            self.count("worker");
        }
    }

    fn count(&mut self, what: &str) {
        *self.kills.entry(what.to_owned()).or_default() += 1;
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for process in self.executors.iter_mut().map(|hired| &mut hired.process) {
            _ = process.kill();
            _ = process.wait();
        }
        _ = self.scheduler.kill();
        _ = self.scheduler.wait();
    }
}

fn schedule(address: SocketAddr) -> Child {
    part("cluster::schedules", address).spawn().unwrap()
}

/// This program once more, as a part of the cluster at `address`.
fn part(name: &str, address: SocketAddr) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args(["--exact", name, "--ignored", "--nocapture"])
        .env("CHAOS_SCHEDULER", address.to_string())
        .env("RUST_BACKTRACE", "0")
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    command
}

fn told() -> Option<SocketAddr> {
    let told = std::env::var("CHAOS_SCHEDULER").ok()?;
    Some(told.parse().unwrap())
}

/// Not a test: the scheduler, as a process of its own.
#[test]
#[ignore = "it is a scheduler, which the tests start"]
fn schedules() {
    let Some(address) = told() else { return };
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let scheduler = Scheduler::bind(address, None).await.unwrap();
        scheduler.run(None).await.unwrap();
    });
}

/// Not a test: an executor, as a process of its own.
#[test]
#[ignore = "it is an executor, which the tests start"]
fn executes() {
    let Some(scheduler) = told() else { return };
    await_death();
    let folder = TempDir::new().unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let executor = Executor {
        stores: batch::Stores::default(),
        scheduler: scheduler.to_string(),
        listen: IpAddr::V4(Ipv4Addr::LOCALHOST),
        credentials: None,
        slots: NonZeroUsize::MIN,
        work_folder: folder.path().to_owned(),
        envelopes: Arc::new(OfTheTests),
    };
    let done = runtime.block_on(executor.run(std::future::pending()));
    done.unwrap();
}

struct OfTheTests;

#[async_trait]
impl Envelopes for OfTheTests {
    async fn get(
        &self,
        digest: Digest,
        _: Option<&dyn Lender>,
    ) -> Result<Arc<dyn MapRows>, runtime::Error> {
        let slow = Slow::new();
        if digest == slow.digest() {
            return Ok(Arc::new(slow));
        }
        assert_eq!(digest, acceptance::envelope(REAL).digest());
        Ok(Arc::new(acceptance::start(REAL, 1..=1).await))
    }
}
