//! Starts a worker, prints its process id, and hangs in a call: for tests that kill it.
#![expect(clippy::print_stdout, reason = "the test reads it")]

use std::sync::Arc;
use std::time::Duration;

use arrow_array::cast::AsArray as _;
use arrow_array::types::Float64Type;
use arrow_array::{Float64Array, RecordBatch, StringArray};
use runtime::{EnvelopeFile, Runtime};

const LONG: Duration = Duration::from_secs(60);

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let path = std::env::args_os()
        .nth(1)
        .ok_or("usage: hanging_host FILE.envelope")?;
    let envelope = Arc::new(EnvelopeFile::open(path)?);
    let environment = acceptance::environments()
        .realise(&envelope, &|_| ())
        .await?;
    let runtime = Runtime::builder(envelope, environment)
        .workers(1..=1)
        .start()
        .await?;
    let pid = runtime.call(None, act("pid")?, LONG).await?;
    println!("{}", pid.column(0).as_primitive::<Float64Type>().value(0));
    runtime.call(None, act("hang")?, LONG).await?;
    Ok(())
}

fn act(action: &str) -> Result<RecordBatch, arrow_schema::ArrowError> {
    let action = StringArray::from(vec![action]);
    let x = Float64Array::from(vec![0.0]);
    RecordBatch::try_from_iter([("action", Arc::new(action) as _), ("x", Arc::new(x) as _)])
}
