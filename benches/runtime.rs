//! What a call costs beside the function, and what a worker costs beside the first.
//!
//! `runtime_figures CACHE PYTHON UV quick=FILE busy=FILE forest=FILE`: envelopes of functions of float
//! columns: one that is quick, one that keeps the interpreter's lock for some milliseconds, one with
//! much memory. See `bench.py`.
#![allow(clippy::print_stdout, missing_docs, reason = "a program that measures")]
#![allow(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "figures for people"
)]

use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow_array::{ArrayRef, Float64Array, RecordBatch};
use runtime::{Builder, EnvelopeFile, Environments, Error, Runtime, arrow_schema};
use rustix::process::{Pid, Signal, kill_process};

const DEADLINE: Duration = Duration::from_secs(60);

/// Rows of two float columns that have 64 MiB.
const LARGE_ROWS: usize = 4 << 20;

#[tokio::main]
async fn main() -> Result<(), Error> {
    // As a service's calls do: in a task.
    tokio::spawn(measure()).await.expect("no panic")
}

async fn measure() -> Result<(), Error> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [cache, python, uv, files @ ..] = arguments.as_slice() else {
        println!("usage: runtime_figures CACHE PYTHON UV [quick=FILE] [busy=FILE] [forest=FILE]");
        return Ok(());
    };
    let environments = Environments {
        cache: cache.into(),
        interpreters: vec![python.into()],
        uv: Some(uv.into()),
        offline: false,
    };
    for argument in files {
        let Some((name, file)) = argument.split_once('=') else {
            continue;
        };
        let begin = || begin(&environments, file);
        match name {
            "quick" => quick(begin().await?.workers(1..=1)).await?,
            "busy" => busy(begin().await?, begin().await?).await?,
            "forest" => forest(begin().await?).await?,
            other => println!("there is no figure `{other}`"),
        }
    }
    Ok(())
}

async fn begin(environments: &Environments, file: &str) -> Result<Builder, Error> {
    let envelope = Arc::new(EnvelopeFile::open(file)?);
    let environment = environments.realise(&envelope, &|_| {}).await?;
    Ok(Runtime::builder(envelope, environment))
}

/// Rows of what the function takes.
fn rows(runtime: &Runtime, count: usize) -> RecordBatch {
    let function = runtime.envelope().function(None).expect("a function");
    let schema = Arc::new(arrow_schema(&function.signature.input).as_ref().clone());
    let column = |step: usize| -> ArrayRef {
        Arc::new(Float64Array::from_iter_values(
            (0..count).map(|row| (row % 1000) as f64 * 0.001 * (step + 1) as f64),
        ))
    };
    let columns = (0..schema.fields().len()).map(column).collect();
    RecordBatch::try_new(schema, columns).expect("float columns")
}

// === quick

async fn quick(builder: Builder) -> Result<(), Error> {
    let began = Instant::now();
    let runtime = builder.start().await?;
    println!(
        "  start to ready                    {:9.1} ms",
        ms(began.elapsed())
    );
    println!(
        "  before the fork                   {:?}",
        runtime.sharing().await
    );
    small(&runtime).await?;
    large(&runtime).await?;
    replaced(&runtime, 50).await?;
    runtime.shutdown(DEADLINE).await;
    Ok(())
}

/// One row at a time, one call after the other.
async fn small(runtime: &Runtime) -> Result<(), Error> {
    let rows = rows(runtime, 1);
    let (mut totals, mut insides, mut beside) = (vec![], vec![], vec![]);
    for call in 0..22_000 {
        let began = Instant::now();
        let answered = runtime.call_timed(None, rows.clone(), DEADLINE).await?;
        if call >= 2000 {
            let total = began.elapsed();
            totals.push(us(total));
            insides.push(us(answered.inside));
            beside.push(us(total.saturating_sub(answered.inside)));
        }
    }
    report("call of 1 row", &mut totals, "µs");
    report("  in the worker", &mut insides, "µs");
    report("  beside that", &mut beside, "µs");
    Ok(())
}

async fn large(runtime: &Runtime) -> Result<(), Error> {
    let rows = rows(runtime, LARGE_ROWS);
    let given = rows.get_array_memory_size();
    let (mut beside, mut moved) = (vec![], 0);
    for call in 0..25 {
        let began = Instant::now();
        let answered = runtime.call_timed(None, rows.clone(), DEADLINE).await?;
        if call >= 5 {
            beside.push(ms(began.elapsed().saturating_sub(answered.inside)));
            moved = given + answered.rows.get_array_memory_size();
        }
    }
    let label = format!("{} MiB there and back, beside", moved >> 20);
    report(&label, &mut beside, "ms");
    println!(
        "    that is                         {:9.2} GB/s",
        moved as f64 / at(&beside, 0.5) / 1e6
    );
    Ok(())
}

/// From the decision to call, all workers being dead, to the answer.
async fn replaced(runtime: &Runtime, rounds: usize) -> Result<(), Error> {
    let rows = rows(runtime, 1);
    let mut took = vec![];
    for _ in 0..rounds {
        runtime.idle_processes().into_iter().for_each(kill);
        tokio::time::sleep(Duration::from_millis(50)).await;
        let began = Instant::now();
        runtime.call(None, rows.clone(), DEADLINE).await?;
        took.push(ms(began.elapsed()));
    }
    report("all workers killed to answer", &mut took, "ms");
    Ok(())
}

fn kill(pid: i32) {
    if let Some(pid) = Pid::from_raw(pid) {
        let _ = kill_process(pid, Signal::KILL); // it may have ended
    }
}

// === busy

/// What two workers do in the time of one.
async fn busy(one: Builder, two: Builder) -> Result<(), Error> {
    let one = one.workers(1..=1).spare(false).start().await?;
    let two = two.workers(2..=2).threads(1).spare(false).start().await?;
    let mut ratios = vec![];
    for _ in 0..5 {
        let single = calls_per_second(&one, 1).await?;
        let double = calls_per_second(&two, 2).await?;
        ratios.push(double / single);
    }
    report("2 workers against 1, calls/s", &mut ratios, "×");
    Ok(())
}

async fn calls_per_second(runtime: &Runtime, callers: usize) -> Result<f64, Error> {
    let rows = rows(runtime, 1);
    let began = Instant::now();
    let callers = (0..callers).map(|_| {
        let (runtime, rows) = (runtime.clone(), rows.clone());
        tokio::spawn(async move {
            let mut calls = 0;
            while began.elapsed() < Duration::from_secs(3) {
                runtime.call(None, rows.clone(), DEADLINE).await?;
                calls += 1;
            }
            Ok::<_, Error>(calls)
        })
    });
    let mut calls = 0;
    for caller in callers.collect::<Vec<_>>() {
        calls += caller.await.expect("no panic")?;
    }
    Ok(f64::from(calls) / began.elapsed().as_secs_f64())
}

// === forest

/// What another worker takes: time and memory.
async fn forest(builder: Builder) -> Result<(), Error> {
    let began = Instant::now();
    let runtime = builder
        .workers(1..=3)
        .threads(1)
        .spare(false)
        .start()
        .await?;
    println!(
        "  start to ready                    {:9.1} ms",
        ms(began.elapsed())
    );
    println!(
        "  before the fork                   {:?}",
        runtime.sharing().await
    );
    replaced(&runtime, 10).await?;
    let rows = rows(&runtime, 1);
    for (rounds, label) in [
        (1, "private memory after a call"),
        (332, "  after 1,000 calls of all"),
        (33_000, "  after 100,000 calls of all"),
    ] {
        call_all(&runtime, &rows, rounds).await?;
        memory(label, &runtime);
    }
    Ok(())
}

/// Three calls at once, so that there are three workers.
async fn call_all(runtime: &Runtime, rows: &RecordBatch, rounds: usize) -> Result<(), Error> {
    for _ in 0..rounds {
        let calls = (0..3).map(|_| runtime.call(None, rows.clone(), DEADLINE));
        for answer in futures::future::join_all(calls).await {
            answer?;
        }
    }
    Ok(())
}

/// Of each worker, in MB.
fn memory(label: &str, runtime: &Runtime) {
    let private = runtime.idle_processes().into_iter().filter_map(|pid| {
        let text = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok()?;
        let line = text
            .lines()
            .find(|line| line.starts_with("Private_Dirty:"))?;
        line.split_whitespace().nth(1)?.parse::<f64>().ok()
    });
    let mut private: Vec<f64> = private.map(|kib| kib * 1024.0 / 1e6).collect();
    report(label, &mut private, "MB");
}

fn report(label: &str, samples: &mut [f64], unit: &str) {
    samples.sort_by(f64::total_cmp);
    let [least, p50, p99] = [0.0, 0.5, 0.99].map(|share| at(samples, share));
    println!("  {label:32}  p50 {p50:9.2} {unit}  p99 {p99:9.2} {unit}  least {least:9.2} {unit}");
}

fn at(sorted: &[f64], share: f64) -> f64 {
    sorted[((sorted.len() - 1) as f64 * share) as usize]
}

fn us(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}
