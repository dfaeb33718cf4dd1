//! Maps a query function over a table from a Rust program.
//!
//! `cargo run --release --example embed_batch -- FILE.envelope CACHE UV INPUT OUTPUT`
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a program for the terminal"
)]

use std::error::Error;
use std::path::PathBuf;
use std::sync::Arc;

use batch::{Components, Job, Model};
use runtime::{EnvelopeFile, Environments, Runtime};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [file, cache, uv, input, output] = arguments.as_slice() else {
        return Err("usage: embed_batch FILE.envelope CACHE UV INPUT OUTPUT".into());
    };
    let environments = Environments {
        cache: PathBuf::from(cache),
        uv: Some(PathBuf::from(uv)),
        ..Environments::default()
    };
    let envelope = Arc::new(EnvelopeFile::open(file)?);
    let environment = environments
        .realise(&envelope, &|step| eprintln!("{step}"))
        .await?;
    let runtime = Runtime::builder(envelope, environment).start().await?;

    let components = Components {
        models: vec![Model::new(Arc::new(runtime))],
        id: Uuid::new_v4(),
        progress: Arc::new(|progress| eprintln!("{} rows", progress.rows_done)),
        stores: batch::Stores::default(),
        cancelled: CancellationToken::new(),
    };
    let summary = batch::run(&Job::new(input, output), &components).await?;
    println!("{} rows in {} files", summary.rows, summary.files);
    Ok(())
}
