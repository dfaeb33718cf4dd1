//! The driver of one job: this program once more, told by variables what to do and where to die.

use std::num::{NonZeroU64, NonZeroUsize};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use arrow_array::cast::AsArray as _;
use arrow_array::types::Float64Type;
use arrow_array::{ArrayRef, Float64Array, RecordBatch};
use async_trait::async_trait;
use batch::{Components, Format, Identity, Job, MapRows, Mode, Model};
use envelope_format::{Digest, Manifest};
use rustix::process::{Pid, Signal, getpid, kill_process};
use tokio_util::sync::CancellationToken;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata, Subscriber};
use uuid::Uuid;

/// One job.
#[derive(Debug, Clone)]
pub(crate) struct Errand {
    pub(crate) input: PathBuf,
    pub(crate) output: PathBuf,
    /// Format and, behind a hyphen, how it is written.
    pub(crate) table: String,
    pub(crate) job: String,
    /// Whether real workers do it, and not a function of this program.
    pub(crate) real: bool,
}

impl Errand {
    /// Starts a driver; it dies when it is at a point for so many times, and says so in a file.
    pub(crate) fn start(&self, death: Option<(&str, usize, &Path)>) -> Child {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command
            .args(["--exact", "driver::drives", "--ignored", "--nocapture"])
            .env("CHAOS_INPUT", &self.input)
            .env("CHAOS_OUTPUT", &self.output)
            .env("CHAOS_TABLE", &self.table)
            .env("CHAOS_JOB", &self.job)
            .env("CHAOS_REAL", if self.real { "1" } else { "0" })
            .env("RUST_BACKTRACE", "0")
            .stdout(Stdio::null());
        if let Some((point, times, fired)) = death {
            command
                .env("CHAOS_POINT", point)
                .env("CHAOS_TIMES", times.to_string())
                .env("CHAOS_FIRED", fired);
        }
        command.spawn().unwrap()
    }

    /// Whether a driver has noted what is to be done, so that the function is called now.
    pub(crate) fn has_work(&self) -> bool {
        let jobs = std::fs::read_dir(self.output.join("_envelope_jobs"));
        let mut jobs = jobs.into_iter().flatten().flatten();
        jobs.any(|job| job.path().join("job.json").exists())
    }

    fn told() -> Option<Self> {
        let told = |name: &str| std::env::var(name).ok();
        Some(Self {
            input: told("CHAOS_INPUT")?.into(),
            output: told("CHAOS_OUTPUT")?.into(),
            table: told("CHAOS_TABLE")?,
            job: told("CHAOS_JOB")?,
            real: told("CHAOS_REAL")? == "1",
        })
    }

    fn job(&self) -> Job {
        let mut job = Job::new(self.input.to_string_lossy(), self.output.to_string_lossy());
        job.keep = vec!["id".into()];
        job.mode = if self.table.ends_with("merge") {
            Mode::MergeOn(vec!["id".into()])
        } else {
            Mode::Append
        };
        job.format = if self.table.starts_with("parquet") {
            Format::Parquet
        } else {
            Format::Delta
        };
        job.identity = Some(Identity::new(&self.job, None).unwrap());
        job.settings.batch_rows = NonZeroUsize::new(200).unwrap();
        job.settings.partitions = NonZeroUsize::new(2);
        job.settings.split_bytes = NonZeroU64::new(10_000).unwrap();
        job
    }
}

/// Not a test: what the tests start as a process of its own.
#[test]
#[ignore = "it is a driver, which the tests start"]
fn drives() {
    let Some(errand) = Errand::told() else {
        return;
    };
    if let Some(death) = Death::told() {
        tracing::subscriber::set_global_default(death).unwrap();
    }
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let rows: Arc<dyn MapRows> = if errand.real {
            Arc::new(acceptance::start("cheap", 2..=2).await)
        } else {
            Arc::new(Slow(Manifest::example()))
        };
        let components = Components {
            models: vec![Model::new(rows)],
            id: Uuid::new_v4(),
            progress: Arc::new(|_| ()),
            stores: batch::Stores::default(),
            cancelled: CancellationToken::new(),
        };
        batch::run(&errand.job(), &components).await.unwrap();
    });
}

/// Doubles `x`, and takes its time.
struct Slow(Manifest);

#[async_trait]
impl MapRows for Slow {
    fn digest(&self) -> Digest {
        Digest::of(b"slow")
    }

    fn manifest(&self) -> &Manifest {
        &self.0
    }

    async fn map(
        &self,
        _: &str,
        rows: RecordBatch,
        _: Duration,
    ) -> Result<RecordBatch, runtime::Error> {
        tokio::time::sleep(Duration::from_millis(2)).await;
        let doubled = rows
            .column(0)
            .as_primitive::<Float64Type>()
            .unary::<_, Float64Type>(|x| x * 2.0);
        let doubled: ArrayRef = Arc::new(Float64Array::from(doubled));
        let schema = runtime::arrow_schema(&self.0.functions[0].signature.output);
        Ok(RecordBatch::try_new(schema, vec![doubled]).unwrap())
    }

    async fn call(
        &self,
        function: &str,
        rows: RecordBatch,
        deadline: Duration,
    ) -> Result<RecordBatch, runtime::Error> {
        self.map(function, rows, deadline).await
    }
}

/// Hears of the points that the job is at, and ends the process at one of them.
struct Death {
    point: String,
    times: usize,
    seen: AtomicUsize,
    fired: PathBuf,
}

impl Death {
    fn told() -> Option<Self> {
        Some(Self {
            point: std::env::var("CHAOS_POINT").ok()?,
            times: std::env::var("CHAOS_TIMES").ok()?.parse().ok()?,
            seen: AtomicUsize::new(0),
            fired: std::env::var_os("CHAOS_FIRED")?.into(),
        })
    }
}

impl Subscriber for Death {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target() == "batch::point"
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        let mut point = Point(String::new());
        event.record(&mut point);
        if point.0 == self.point && self.seen.fetch_add(1, Ordering::SeqCst) + 1 == self.times {
            std::fs::write(&self.fired, &self.point).unwrap();
            kill_process(getpid(), Signal::KILL).unwrap();
        }
    }

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

struct Point(String);

impl Visit for Point {
    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == "point" {
            value.clone_into(&mut self.0);
        }
    }

    fn record_debug(&mut self, _: &Field, _: &dyn std::fmt::Debug) {}
}

/// Kills the processes that `driver` has started, and those that they have started. Gives how many.
pub(crate) fn kill_descendants(driver: u32) -> usize {
    let mut killed = 0;
    let mut parents = vec![driver];
    let all = processes();
    while let Some(parent) = parents.pop() {
        for (pid, _) in all.iter().filter(|(_, of)| *of == parent) {
            parents.push(*pid);
            let pid = i32::try_from(*pid).ok().and_then(Pid::from_raw);
            let done = pid.map(|pid| kill_process(pid, Signal::KILL));
            killed += usize::from(matches!(done, Some(Ok(()))));
        }
    }
    killed
}

/// Every process with its parent.
fn processes() -> Vec<(u32, u32)> {
    let entries = std::fs::read_dir("/proc").unwrap();
    entries
        .filter_map(|entry| {
            let pid: u32 = entry.ok()?.file_name().to_str()?.parse().ok()?;
            let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
            let parent = stat.rsplit_once(')')?.1.split_whitespace().nth(1)?;
            Some((pid, parent.parse().ok()?))
        })
        .collect()
}
