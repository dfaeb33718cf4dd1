//! What a service does with more calls than it can answer: `make overload`.
//!
//! Offers from 10 % to 300 % of the capacity of a real service with real workers, over an open loop,
//! and prints for each step how many calls were answered in time, how long they took, and how
//! quickly the others were refused; then how long it takes until everything is as before.
//! Everything runs on this machine: where there are two cores or more, one is the generator's and the
//! others are the service's. A step in which the generator was late says nothing and is not judged.

#![expect(
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a program that measures: it tells people, and ends when something is wrong"
)]
#![expect(clippy::disallowed_methods, reason = "it has no other settings")]

mod cores;
mod figures;
mod load;

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use cores::Cores;
use figures::{Figures, Quantiles, TITLES};
use load::{Outcome, Target, offer, schedule};
use tokio::runtime::{Builder, Runtime};

/// What is served, and asked.
struct Scenario {
    title: &'static str,
    envelope: &'static str,
    arguments: &'static [&'static str],
    body: &'static str,
    /// Calls in a second; `None`: to be found out.
    capacity: Option<f64>,
}

const SCENARIOS: [Scenario; 3] = [
    Scenario {
        title: "4 workers, 10 ms for each call, nothing gathered (400 calls in a second at most)",
        envelope: "naughty",
        arguments: &["--workers", "4", "--max-batch", "1"],
        body: r#"{"data":[{"action":"sleep","x":0.01}]}"#,
        capacity: Some(400.0),
    },
    Scenario {
        title: "2 workers, 20 ms for each call of a worker, up to 8 calls are gathered (800 in a second at most)",
        envelope: "steady",
        arguments: &["--workers", "2", "--max-batch", "8"],
        body: r#"{"data":[{"x":1.5}]}"#,
        capacity: Some(800.0),
    },
    Scenario {
        title: "2 workers, a scikit-learn pipeline, calls are gathered",
        envelope: "sklearn_pipeline",
        arguments: &["--workers", "2"],
        body: r#"{"data":[{"a":1.5,"b":2.0,"colour":"red"}]}"#,
        capacity: None,
    },
];

/// What each call gives the service.
const DEADLINE: Duration = Duration::from_millis(200);

/// Percent of the capacity.
const STEPS: [u32; 8] = [10, 50, 80, 100, 150, 200, 250, 300];

fn main() {
    let seconds = std::env::var("STEP_SECONDS").map_or(5, |seconds| seconds.parse().unwrap());
    let length = Duration::from_secs(seconds);
    let cores = Cores::shared_out();
    cores.for_generator();
    let executor = Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap();
    for scenario in &SCENARIOS {
        println!(
            "\n{}; deadline {} ms, {seconds} s for each step",
            scenario.title,
            DEADLINE.as_millis()
        );
        cores.for_service();
        let service = Service::start(scenario);
        cores.for_generator();
        let target = Target::new(service.address.parse().unwrap(), scenario.body, DEADLINE);
        let capacity = scenario
            .capacity
            .unwrap_or_else(|| closed_loop(&executor, &target, length));
        println!("capacity {capacity:.0} calls in a second\n{TITLES}");
        let steps: Vec<_> = STEPS
            .iter()
            .map(|percent| {
                let rate = capacity * f64::from(*percent) / 100.0;
                let outcomes = offer(
                    executor.handle(),
                    &target,
                    schedule(rate, length, u64::from(*percent)),
                );
                let figures = Figures::of(&outcomes, length, DEADLINE);
                println!("{percent:>4} % {figures}");
                figures
            })
            .collect();
        judge(&steps);
        recovery(&executor, &target, capacity, &steps[1]);
        println!(
            "memory of the service, without its workers: {} MB",
            service.megabytes()
        );
    }
}

/// A running service; it ends with this.
struct Service {
    process: Child,
    address: String,
}

impl Service {
    fn start(scenario: &Scenario) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let program = folder.path().join("service");
        let hints = server::Hints::from(acceptance::environments());
        let stub = env!("CARGO_BIN_EXE_envelope-service").as_ref();
        let envelope = acceptance::envelope_path(scenario.envelope);
        let surroundings = server::Surroundings::Machine(&hints);
        server::build(stub, &envelope, surroundings, &program).unwrap();
        let mut process = Command::new(program)
            .args(["--port", "0", "--log", "error"])
            .args(scenario.arguments)
            .env_clear()
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(process.stderr.take().unwrap())
            .lines()
            .map_while(Result::ok);
        let address = lines.find_map(|line| {
            line.split_once(" answers at http://")
                .map(|(_, at)| at.to_owned())
        });
        std::thread::spawn(move || lines.for_each(drop));
        Self {
            process,
            address: address.unwrap(),
        }
    }

    fn megabytes(&self) -> u64 {
        let status =
            std::fs::read_to_string(format!("/proc/{}/status", self.process.id())).unwrap();
        let line = status
            .lines()
            .find(|line| line.starts_with("VmRSS:"))
            .unwrap();
        line.split_whitespace()
            .nth(1)
            .unwrap()
            .parse::<u64>()
            .unwrap()
            / 1024
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        _ = self.process.kill();
        _ = self.process.wait();
    }
}

/// Good answers in a second when 128 clients ask, each when it has its answer.
fn closed_loop(executor: &Runtime, target: &Target, length: Duration) -> f64 {
    let clients: Vec<_> = (0..128)
        .map(|_| {
            let target = target.clone();
            executor.spawn(async move {
                let (begun, mut good) = (Instant::now(), 0_u32);
                while begun.elapsed() < length {
                    good += u32::from(target.ask().await == Some(200));
                }
                good
            })
        })
        .collect();
    let good: u32 = executor.block_on(async {
        let mut all = 0;
        for client in clients {
            all += client.await.unwrap();
        }
        all
    });
    f64::from(good) / length.as_secs_f64()
}

/// Tells of each goal whether it is reached.
fn judge(steps: &[Figures]) {
    let steps: Vec<_> = steps.iter().filter(|step| step.is_valid()).collect();
    let Some(last) = steps.last() else {
        println!("the generator was late in every step: nothing can be said");
        return;
    };
    let highest = steps.iter().map(|step| step.goodput).fold(0.0, f64::max);
    let share = last.goodput / highest;
    let slowest = steps.iter().map(|step| step.admitted.p99).max().unwrap();
    let shedding = steps.iter().map(|step| step.shedding.p99).max().unwrap();
    tell(
        "goodput at the highest load, of the highest",
        &format!(
            "{:.0} % at {:.0} calls in a second",
            share * 100.0,
            last.offered
        ),
        "at least 90 %",
        share >= 0.9,
    );
    tell(
        "p99 of admitted calls at most",
        &format!("{slowest:.1?}"),
        "at most the deadline",
        slowest <= DEADLINE,
    );
    tell(
        "p99 of refusals at most",
        &format!("{shedding:.1?}"),
        "below 10 ms",
        shedding.as_millis() < 10,
    );
}

/// After an overload: how long it takes until calls at half the capacity take as long as before.
fn recovery(executor: &Runtime, target: &Target, capacity: f64, calm: &Figures) {
    let length = Duration::from_secs(10);
    offer(
        executor.handle(),
        target,
        schedule(3.0 * capacity, length / 2, 1),
    );
    let outcomes = offer(
        executor.handle(),
        target,
        schedule(capacity / 2.0, length, 2),
    );
    let is_calm = |outcomes: &[&Outcome]| {
        let p99 = Quantiles::of(outcomes.iter().map(|outcome| outcome.latency)).p99;
        p99 <= calm.admitted.p99.mul_f64(1.2)
            && outcomes.iter().all(|outcome| outcome.status == Some(200))
    };
    let second = |number: u64| -> Vec<_> {
        let these = outcomes
            .iter()
            .filter(|outcome| outcome.due.as_secs() == number);
        these.collect()
    };
    let found = (0..length.as_secs()).find(|number| is_calm(&second(*number)));
    let told = found.map_or_else(
        || "not within 10 s".to_owned(),
        |number| format!("within {} s", number + 1),
    );
    tell(
        "calm again after an overload",
        &told,
        "within 10 s",
        found.is_some(),
    );
}

fn tell(what: &str, found: &str, goal: &str, is_met: bool) {
    let met = if is_met { "met" } else { "MISSED" };
    println!("{what}: {found} (goal: {goal}; {met})");
}
