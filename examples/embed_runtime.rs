//! Calls a query function from a Rust program.
//!
//! `cargo run --release --example embed_runtime -- FILE.envelope CACHE UV`
//!
//! The program links no Python: the function runs in worker processes.
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a program for the terminal"
)]

use std::error::Error;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use arrow_array::{Float64Array, RecordBatch, cast::AsArray, types::Float64Type};
use arrow_schema::{DataType, Field, Schema};
use runtime::{EnvelopeFile, Environments, Runtime};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let [file, cache, uv] = arguments()?;
    let environments = Environments {
        cache,
        uv: Some(uv),
        ..Environments::default()
    };

    let envelope = Arc::new(EnvelopeFile::open(file)?);
    let environment = environments
        .realise(&envelope, &|step| eprintln!("{step}"))
        .await?;
    let runtime = Runtime::builder(envelope, environment)
        .workers(1..=2)
        .start()
        .await?;

    let predictions = runtime.call(None, rows()?, Duration::from_secs(10)).await?;
    for prediction in predictions.column(0).as_primitive::<Float64Type>().values() {
        println!("{prediction}");
    }
    runtime.shutdown(Duration::from_secs(1)).await;
    Ok(())
}

fn arguments() -> Result<[PathBuf; 3], &'static str> {
    let paths: Vec<PathBuf> = std::env::args_os().skip(1).map(PathBuf::from).collect();
    paths
        .try_into()
        .map_err(|_| "usage: embed_runtime FILE.envelope CACHE UV")
}

/// Two rows with the columns `a` and `b`.
fn rows() -> Result<RecordBatch, arrow_schema::ArrowError> {
    let column = |name| Field::new(name, DataType::Float64, false);
    let schema = Schema::new(vec![column("a"), column("b")]);
    let a = Float64Array::from(vec![1.0, 2.0]);
    let b = Float64Array::from(vec![0.5, 0.25]);
    RecordBatch::try_new(Arc::new(schema), vec![Arc::new(a), Arc::new(b)])
}
