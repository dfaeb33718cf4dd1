//! `envelope batch`: a function over a table.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use batch::{ClusterAt, Components, Identity, Job, Model, Summary};
use serde_json::json;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::args::{Batch, Format, Models};
use crate::error::Error;
use crate::on_demand::OnDemand;
use crate::progress::Waiting;
use crate::terminal::Terminal;
use crate::wiring::{Found, Wiring};

/// Maps the function over the table, unless `interrupted` comes first.
pub(crate) async fn batch(
    wiring: &Wiring,
    args: Batch,
    interrupted: impl Future<Output = Error>,
) -> Result<(), Error> {
    let began = Instant::now();
    let found = find(wiring, &args.models).await?;
    let names = names(&found, &args.models.names)?;
    let function = args.function.clone();
    let sandbox = args.sandbox.sandbox();
    let job = job(args)?;
    let cancelled = CancellationToken::new();
    let waiting = Arc::new(Waiting::new(&wiring.terminal));
    let rows = found.iter().map(|found| {
        let steps = Arc::clone(&waiting);
        let rows = OnDemand::new(
            Arc::clone(&found.envelope),
            wiring.environments(found.envelope.manifest()),
            job.settings.workers().get(),
            sandbox.clone(),
            Arc::new(move |step: &str| steps.step(step)),
        );
        Arc::new(rows)
    });
    let rows: Vec<Arc<OnDemand>> = rows.collect();
    let models = rows.iter().zip(names).map(|(rows, name)| Model {
        rows: Arc::<OnDemand>::clone(rows),
        function: function.clone(),
        name,
    });
    let shown = Arc::clone(&waiting);
    let components = Components {
        models: models.collect(),
        id: Uuid::new_v4(),
        progress: Arc::new(move |done| shown.rows(done.rows_done, done.rows_total)),
        stores: wiring.stores(),
        cancelled: cancelled.clone(),
    };
    let working = work(&job, &components, &rows);
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
    let took = Took {
        all: began.elapsed(),
        start: rows.iter().filter_map(|rows| rows.start_took()).max(),
    };
    told(&wiring.terminal, &job.output, done?, took)
}

/// The envelopes that are named.
async fn find(wiring: &Wiring, models: &Models) -> Result<Vec<Found>, Error> {
    let mut found = vec![];
    for reference in models.references() {
        found.push(wiring.find_trusted(reference).await?);
    }
    Ok(found)
}

/// What the results of each envelope are called after: as is asked for, else as the envelopes are
/// called, with their versions where that does not tell them apart. The results of one need no name.
fn names(found: &[Found], asked: &[String]) -> Result<Vec<Option<String>>, Error> {
    let all = |names: Vec<String>| Ok(names.into_iter().map(Some).collect());
    if !asked.is_empty() {
        check_names(found.len(), asked)?;
        return all(asked.to_vec());
    }
    if found.len() == 1 {
        return Ok(vec![None]);
    }
    let plain = found
        .iter()
        .map(|found| found.envelope.manifest().name.clone());
    let versions = found.iter().map(|found| found.title().replace(':', "_"));
    for names in [plain.collect::<Vec<_>>(), versions.collect()] {
        let distinct: HashSet<&String> = names.iter().collect();
        if distinct.len() == names.len() {
            return all(names);
        }
    }
    Err(Error::Usage {
        reason: "several of the models have the same name and version".into(),
        hint: "say what the results of each are called after: `--model A --as one --model B --as two`",
    })
}

fn check_names(models: usize, names: &[String]) -> Result<(), Error> {
    let plain = |letter: char| letter.is_alphanumeric() || matches!(letter, '_' | '-' | '.');
    let odd = names
        .iter()
        .find(|name| name.is_empty() || !name.chars().all(plain));
    let reason = match odd {
        Some(name) => {
            format!("`{name}` is no name for results: letters, digits, `_`, `-` and `.` are")
        }
        None if models != names.len() => format!("{} names for {models} models", names.len()),
        None => return Ok(()),
    };
    Err(Error::Usage {
        reason,
        hint: "write one `--as NAME` for each `--model`, or none",
    })
}

fn job(args: Batch) -> Result<Job, Error> {
    let cluster = cluster(&args)?;
    let mut job = Job::new(args.input, args.output);
    job.warehouse = args.warehouse;
    job.as_of = args.as_of;
    job.filter = args.filter;
    job.keep = args.keep;
    job.group_by = args.group_by;
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
    job.settings.max_group_bytes = args.max_group_bytes;
    job.settings.call_deadline = Duration::from_secs(args.timeout.get());
    Ok(job)
}

/// The cluster that is to do the work, if one is.
fn cluster(args: &Batch) -> Result<Option<ClusterAt>, Error> {
    if let Some(address) = args
        .cluster
        .as_ref()
        .filter(|url| !url.starts_with("df://"))
    {
        return Err(Error::Usage {
            reason: format!("`{address}` is not the address of a cluster"),
            hint: "write the address of its scheduler as `df://HOST:PORT`",
        });
    }
    #[cfg(feature = "cluster")]
    let credentials = args.credentials.files()?;
    Ok(args.cluster.clone().map(|scheduler| ClusterAt {
        scheduler,
        #[cfg(feature = "cluster")]
        credentials,
    }))
}

async fn work(
    job: &Job,
    components: &Components,
    rows: &[Arc<OnDemand>],
) -> Result<Summary, Error> {
    let summary = batch::run(job, components).await;
    for rows in rows {
        rows.shutdown().await;
    }
    Ok(summary?)
}

/// How long a job took.
#[derive(Debug, Clone, Copy)]
pub(super) struct Took {
    pub(super) all: Duration,
    /// Until the first workers were ready, while the table was read already; none where none were started here.
    pub(super) start: Option<Duration>,
}

/// Tells what was written to the table `output`.
pub(super) fn told(
    terminal: &Terminal,
    output: &str,
    summary: Summary,
    took: Took,
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
            "seconds": took.all.as_secs_f64(),
            "start_seconds": took.start.map(|start| start.as_secs_f64()),
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
    let seconds = took.all.as_secs_f64();
    terminal.say(&format!(
        "{rows} rows in {files} files{reused} of `{output}`{version}, {seconds:.1} s"
    ));
    Ok(())
}
