//! The driver of one job: this program once more, told by variables what to do and where to die.

use std::num::{NonZeroU64, NonZeroUsize};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use arrow_array::cast::AsArray as _;
use arrow_array::types::Float64Type;
use arrow_array::{ArrayRef, Float64Array, RecordBatch};
use async_trait::async_trait;
use batch::{Components, Format, Identity, Job, MapRows, Mode, Model};
use envelope_format::{Digest, Manifest};
use runtime::EnvelopeFile;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::death::{Doom, await_death, doom};

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
    /// The cluster that does the work, and not this process.
    pub(crate) cluster: Option<String>,
}

/// The envelope whose workers do real work: doubles `x`, and takes 20 ms for a call.
pub(crate) const REAL: &str = "steady";

impl Errand {
    /// Starts a driver; it dies when it is at a point for so many times, and says so in a file.
    pub(crate) fn start(&self, death: Option<Doom<'_>>) -> Child {
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
        if let Some(cluster) = &self.cluster {
            // That a cluster in which processes are killed was of no use is no news.
            command.env("CHAOS_CLUSTER", cluster).stderr(Stdio::null());
        }
        if let Some(death) = death {
            doom(&mut command, death);
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
            cluster: told("CHAOS_CLUSTER"),
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
        #[cfg(feature = "cluster")]
        if let Some(scheduler) = self.cluster.clone() {
            let credentials = None;
            job.settings.cluster = Some(batch::ClusterAt {
                scheduler,
                credentials,
            });
        }
        job
    }

    /// What runs the function; on a cluster only its name, as executors have their own.
    async fn rows(&self) -> Arc<dyn MapRows> {
        match (self.real, &self.cluster) {
            (false, _) => Arc::new(Slow::new()),
            (true, None) => Arc::new(acceptance::start(REAL, 2..=2).await),
            (true, Some(_)) => Arc::new(Named(acceptance::envelope(REAL))),
        }
    }
}

/// Not a test: what the tests start as a process of its own.
#[test]
#[ignore = "it is a driver, which the tests start"]
fn drives() {
    let Some(errand) = Errand::told() else {
        return;
    };
    await_death();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let components = Components {
            models: vec![Model::new(errand.rows().await)],
            id: Uuid::new_v4(),
            progress: Arc::new(|_| ()),
            stores: batch::Stores::default(),
            cancelled: CancellationToken::new(),
        };
        batch::run(&errand.job(), &components).await.unwrap();
    });
}

/// Doubles `x`, and takes its time.
pub(crate) struct Slow(Manifest);

impl Slow {
    pub(crate) fn new() -> Self {
        Self(Manifest::example())
    }
}

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

/// An envelope that is only named.
struct Named(Arc<EnvelopeFile>);

#[async_trait]
impl MapRows for Named {
    fn digest(&self) -> Digest {
        self.0.digest()
    }

    fn manifest(&self) -> &Manifest {
        self.0.manifest()
    }

    async fn map(
        &self,
        _: &str,
        _: RecordBatch,
        _: Duration,
    ) -> Result<RecordBatch, runtime::Error> {
        unreachable!("the driver of a job on a cluster calls no function")
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
