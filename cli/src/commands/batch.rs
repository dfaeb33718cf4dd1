//! `envelope batch`: a function over a table.

use std::sync::Arc;
use std::time::{Duration, Instant};

use batch::{ClusterAt, Components, Identity, Job, Progress, Stores, Summary};
use serde_json::json;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::args::{Batch, Format};
use crate::error::Error;
use crate::on_demand::OnDemand;
use crate::progress::Waiting;
use crate::terminal::Terminal;
use crate::wiring::Wiring;

/// Maps the function over the table, unless `interrupted` comes first.
pub(crate) async fn batch(
    wiring: &Wiring,
    args: Batch,
    interrupted: impl Future<Output = Error>,
) -> Result<(), Error> {
    let began = Instant::now();
    let found = wiring.find_trusted(&args.envelope.reference).await?;
    let sandbox = args.sandbox.sandbox();
    let job = job(args)?;
    let cancelled = CancellationToken::new();
    let waiting = Arc::new(Waiting::new(&wiring.terminal));
    let steps = Arc::clone(&waiting);
    let rows = OnDemand::new(
        Arc::clone(&found.envelope),
        wiring.environments(found.envelope.manifest()),
        job.settings.workers().get(),
        sandbox,
        Arc::new(move |step: &str| steps.step(step)),
    );
    let stores = wiring.stores();
    let working = work((Arc::new(rows), stores), &job, &waiting, cancelled.clone());
    tokio::pin!(working);
    let done = tokio::select! {
        done = &mut working => done,
        error = interrupted => {
            cancelled.cancel();
            // Files that nobody will see are removed before the program ends.
            _ = working.await;
            Err(error)
        }
    };
    waiting.end();
    told(&wiring.terminal, &job.output, done?, began.elapsed())
}

fn job(args: Batch) -> Result<Job, Error> {
    let cluster = cluster(&args)?;
    let mut job = Job::new(args.input, args.output);
    job.warehouse = args.warehouse;
    job.as_of = args.as_of;
    job.filter = args.filter;
    job.function = args.function;
    job.keep = args.keep;
    job.mode = match args.merge_on {
        none if none.is_empty() => args.mode.into(),
        columns => batch::Mode::MergeOn(columns),
    };
    job.partition_by = args.partition_by;
    job.format = match args.format {
        Format::Delta => batch::Format::Delta,
        Format::Parquet => batch::Format::Parquet,
    };
    if let Some(name) = args.job {
        job.identity = Some(Identity::new(&name, args.logical_date.as_deref())?);
    }
    job.settings.cluster = cluster;
    job.settings.partitions = args.workers;
    job.settings.call_deadline = Duration::from_secs(args.timeout.get());
    Ok(job)
}

/// The cluster that is to do the work, if one is.
fn cluster(args: &Batch) -> Result<Option<ClusterAt>, Error> {
    #[cfg(feature = "cluster")]
    let credentials = args.credentials.files()?;
    Ok(args.cluster.clone().map(|scheduler| ClusterAt {
        scheduler,
        #[cfg(feature = "cluster")]
        credentials,
    }))
}

async fn work(
    (rows, stores): (Arc<OnDemand>, Stores),
    job: &Job,
    waiting: &Arc<Waiting>,
    cancelled: CancellationToken,
) -> Result<Summary, Error> {
    let shown = Arc::clone(waiting);
    let components = Components {
        rows: Arc::<OnDemand>::clone(&rows),
        id: Uuid::new_v4(),
        progress: Arc::new(
            move |Progress {
                      rows_done,
                      rows_total,
                      ..
                  }| shown.rows(rows_done, rows_total),
        ),
        stores,
        cancelled,
    };
    let summary = batch::run(job, &components).await;
    rows.shutdown().await;
    Ok(summary?)
}

/// Tells what was written to the table `output`.
pub(super) fn told(
    terminal: &Terminal,
    output: &str,
    summary: Summary,
    took: Duration,
) -> Result<(), Error> {
    let Summary {
        rows,
        files,
        files_reused,
        version,
        already_done,
    } = summary;
    if terminal.json() {
        return terminal.document(&json!({
            "output": output,
            "rows": rows,
            "files": files,
            "files_reused": files_reused,
            "already_done": already_done,
            "version": version,
            "seconds": took.as_secs_f64(),
        }));
    }
    let version = version
        .map(|version| format!(", version {version}"))
        .unwrap_or_default();
    if already_done {
        terminal.say(&format!(
            "already done: {rows} rows in {files} files of `{output}`{version}"
        ));
        return Ok(());
    }
    let reused = match files_reused {
        0 => String::new(),
        reused => format!(" ({reused} of an earlier run)"),
    };
    let seconds = took.as_secs_f64();
    terminal.say(&format!(
        "{rows} rows in {files} files{reused} of `{output}`{version}, {seconds:.1} s"
    ));
    Ok(())
}
