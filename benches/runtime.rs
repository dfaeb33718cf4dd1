//! What a call costs beside the function: `runtime ENVELOPE CACHE [PYTHON] [UV]`, the envelope being
//! of a function that takes float columns `a` and `b`.
#![allow(clippy::print_stdout, missing_docs, reason = "a program that measures")]
#![allow(clippy::cast_precision_loss, reason = "figures for people")]

use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow_array::{ArrayRef, Float64Array, RecordBatch};
use runtime::{EnvelopeFile, Environments, Error, Runtime};

const DEADLINE: Duration = Duration::from_secs(60);

#[tokio::main]
async fn main() -> Result<(), Error> {
    // As a service's calls do: in a task.
    tokio::spawn(measure()).await.expect("no panic")
}

async fn measure() -> Result<(), Error> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let mut arguments = arguments.into_iter();
    let (Some(path), Some(cache)) = (arguments.next(), arguments.next()) else {
        println!("usage: runtime ENVELOPE CACHE [PYTHON] [UV]");
        return Ok(());
    };
    let environments = Environments {
        cache: cache.into(),
        interpreters: arguments.next().into_iter().map(Into::into).collect(),
        uv: arguments.next().map(Into::into),
        offline: false,
    };
    let envelope = Arc::new(EnvelopeFile::open(path)?);
    let environment = environments.realise(&envelope, &|_| {}).await?;
    let began = Instant::now();
    let runtime = Runtime::builder(envelope, environment).workers(1..=1);
    let runtime = runtime.start().await?;
    println!(
        "start to ready             {:8.1} ms",
        began.elapsed().as_secs_f64() * 1e3
    );
    println!("sharing                    {:?}", runtime.sharing().await);
    small(&runtime).await?;
    large(&runtime).await?;
    replaced(&runtime).await?;
    runtime.shutdown(DEADLINE).await;
    Ok(())
}

fn rows(count: usize) -> RecordBatch {
    let column = |step: f64| -> ArrayRef {
        Arc::new(
            (0..count)
                .map(|row| Some(row as f64 * step))
                .collect::<Float64Array>(),
        )
    };
    RecordBatch::try_from_iter([("a", column(0.5)), ("b", column(0.25))]).expect("equal lengths")
}

/// One row at a time.
async fn small(runtime: &Runtime) -> Result<(), Error> {
    let rows = rows(1);
    let (mut totals, mut insides) = (vec![], vec![]);
    for call in 0..22_000 {
        let began = Instant::now();
        let answered = runtime.call_timed(None, rows.clone(), DEADLINE).await?;
        if call >= 2000 {
            totals.push(began.elapsed().as_secs_f64() * 1e6);
            insides.push(answered.inside.as_secs_f64() * 1e6);
        }
    }
    let mut beside: Vec<f64> = totals.iter().zip(&insides).map(|(a, b)| a - b).collect();
    report("call of 1 row", &mut totals, "µs");
    report("  inside the worker", &mut insides, "µs");
    report("  beside that", &mut beside, "µs");
    Ok(())
}

/// 64 MB of input.
async fn large(runtime: &Runtime) -> Result<(), Error> {
    let rows = rows(4 << 20);
    let bytes = rows.get_array_memory_size() as f64;
    let mut beside = vec![];
    for call in 0..25 {
        let began = Instant::now();
        let answered = runtime.call_timed(None, rows.clone(), DEADLINE).await?;
        if call >= 5 {
            beside.push((began.elapsed() - answered.inside).as_secs_f64() * 1e3);
        }
    }
    report("64 MiB in, 32 MiB out, beside", &mut beside, "ms");
    println!(
        "  that is                  {:8.2} GB/s",
        bytes * 1.5 / beside[beside.len() / 2] / 1e6
    );
    Ok(())
}

/// From the death of an idle worker to the answer of the next.
async fn replaced(runtime: &Runtime) -> Result<(), Error> {
    let rows = rows(1);
    let mut took = vec![];
    for _ in 0..50 {
        for pid in runtime.idle_processes() {
            let pid = rustix::process::Pid::from_raw(pid).expect("a worker has a number");
            rustix::process::kill_process(pid, rustix::process::Signal::KILL).expect("it is ours");
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
        let began = Instant::now();
        runtime.call(None, rows.clone(), DEADLINE).await?;
        took.push(began.elapsed().as_secs_f64() * 1e3);
    }
    report("all workers killed to answer", &mut took, "ms");
    Ok(())
}

fn report(label: &str, samples: &mut [f64], unit: &str) {
    samples.sort_by(f64::total_cmp);
    let at = |share: f64| samples[((samples.len() - 1) as f64 * share) as usize];
    let (p50, p99) = (at(0.5), at(0.99));
    println!(
        "{label:30} p50 {p50:9.2} {unit}   p99 {p99:9.2} {unit}   min {:9.2} {unit}",
        at(0.0)
    );
}
