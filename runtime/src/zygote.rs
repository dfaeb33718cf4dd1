//! Where workers come from: a process that has done as much as may be done before a fork.
//!
//! The first process runs nobody's code; it stays for as long as the runtime does. From it comes the
//! *zygote*, which loads the functions once, and from that the workers: they share its memory until
//! they write to it. Not all libraries survive that (one whose threads were started before the fork
//! waits for them for ever), so how much the zygote does is found out: once for each envelope, number
//! of threads and machine, and remembered in the cache.

use std::fs;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::process::Child as FirstChild;
use tokio::sync::Mutex;
use tokio::time::{Instant, timeout};

use crate::certify::is_called_for_each_row;
use crate::launch::Launch;
use crate::parent::{Child, Parent, new_keys};
use crate::printed::Printed;
use crate::process::{Call, Process, REAP_DEADLINE, START_DEADLINE, explain, load_request, told};
use crate::protocol::{self, Answer, Keys, Loading, Request};
use crate::wire::Wire;
use crate::{EnvelopeFile, Error};

/// How long a worker that is tried out may take for a few rows of the sample. One whose threads were
/// lost takes for ever.
const TRIAL_DEADLINE: Duration = Duration::from_secs(30);

/// Rows of the sample that a worker is tried out with.
const TRIAL_ROWS: usize = 8;

/// How much is done before the fork.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "before_fork", rename_all = "snake_case")]
pub enum Sharing {
    /// The functions are loaded: workers share all of it.
    Loaded,
    /// Modules are imported: each worker loads the functions itself.
    Imported {
        /// The modules.
        modules: Vec<String>,
    },
    /// Nothing: each worker imports and loads for itself.
    Nothing,
}

/// What was found out about an envelope on this machine.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Trial {
    /// How much may be done before the fork.
    #[serde(flatten)]
    pub sharing: Sharing,
    /// From the decision to have a worker until it was ready, in milliseconds.
    pub ready_ms: f64,
    /// From then until it had answered for some rows of the sample, in milliseconds.
    pub answer_ms: f64,
    /// Why more is not done before the fork.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// Makes the workers of one envelope.
#[derive(Debug)]
pub(crate) struct Zygote {
    pub(crate) launch: Launch,
    envelope: Arc<EnvelopeFile>,
    standing: Mutex<Option<Standing>>,
}

/// The processes that workers are forked from.
#[derive(Debug)]
struct Standing {
    first: Parent,
    /// There to be reaped; it ends when nobody is left to talk to it.
    _process: FirstChild,
    template: Option<Template>,
    sharing: Sharing,
}

/// The zygote itself.
#[derive(Debug)]
struct Template {
    parent: Parent,
    /// Ends it when dropped.
    child: Child,
    printed: Printed,
}

impl Zygote {
    pub(crate) fn new(launch: Launch, envelope: Arc<EnvelopeFile>) -> Self {
        Self {
            launch,
            envelope,
            standing: Mutex::default(),
        }
    }

    /// A worker that has loaded the functions.
    pub(crate) async fn worker(&self) -> Result<Process, Error> {
        let mut standing = self.standing.lock().await;
        if !standing.as_ref().is_some_and(Standing::is_there) {
            *standing = None;
            *standing = Some(self.stand_up().await?);
        }
        match standing.as_ref() {
            Some(standing) => self.fork(standing).await,
            None => Err(Error::Stopped),
        }
    }

    /// How much the workers share.
    pub(crate) async fn sharing(&self) -> Option<Sharing> {
        let standing = self.standing.lock().await;
        standing.as_ref().map(|standing| standing.sharing.clone())
    }

    async fn stand_up(&self) -> Result<Standing, Error> {
        let known = self.remembered();
        let mut sharing = known
            .as_ref()
            .map_or(Sharing::Loaded, |trial| trial.sharing.clone());
        let mut standing = self.first().await?;
        let mut reason = known.as_ref().and_then(|trial| trial.reason.clone());
        loop {
            if let Err(less) = self.prepare(&mut standing, sharing).await? {
                (sharing, reason) = less;
                continue;
            }
            if known
                .as_ref()
                .is_some_and(|trial| trial.sharing == standing.sharing)
            {
                return Ok(standing);
            }
            match self.try_out(&standing).await? {
                Ok((ready_ms, answer_ms)) => {
                    self.remember(&Trial {
                        sharing: standing.sharing.clone(),
                        ready_ms,
                        answer_ms,
                        reason,
                    });
                    return Ok(standing);
                }
                Err(why) => (sharing, reason) = (Sharing::Nothing, Some(why)),
            }
        }
    }

    /// Starts the first process.
    async fn first(&self) -> Result<Standing, Error> {
        let started = async {
            let (ours, theirs) = std::os::unix::net::UnixStream::pair()?;
            let mut process = self.launch.spawn(theirs.into())?;
            if let Some(pipe) = process.stderr.take() {
                Printed::of(pipe);
            }
            let keys = new_keys()?;
            let mut wire = Wire::new(ours, None, Keys::from_bytes(keys))?;
            wire.introduce(&keys).await?;
            io::Result::Ok(Standing {
                first: Parent::new(wire),
                _process: process,
                template: None,
                sharing: Sharing::Nothing,
            })
        };
        let started = started.await;
        // The reason of a refusal, if it was one.
        self.launch.learn_confinement().await?;
        started.map_err(cannot_start)
    }

    /// Does what `sharing` says before the fork; or tells what to do instead, and why.
    async fn prepare(
        &self,
        standing: &mut Standing,
        sharing: Sharing,
    ) -> Result<Result<(), (Sharing, Option<String>)>, Error> {
        standing.template = None;
        match &sharing {
            Sharing::Nothing => {}
            Sharing::Imported { modules } => {
                let mut template = Template::new(&standing.first).await?;
                template
                    .import(self.launch.modules(&self.envelope), modules)
                    .await?;
                standing.template = Some(template);
            }
            Sharing::Loaded => {
                let mut template = Template::new(&standing.first).await?;
                let loading = template.load(&self.launch, &self.envelope).await?;
                if loading.threads > 0 {
                    let reason =
                        format!("loading the functions starts {} threads", loading.threads);
                    let modules = loading.modules;
                    return Ok(Err((Sharing::Imported { modules }, Some(reason))));
                }
                standing.template = Some(template);
            }
        }
        standing.sharing = sharing;
        Ok(Ok(()))
    }

    async fn fork(&self, standing: &Standing) -> Result<Process, Error> {
        let parent = standing
            .template
            .as_ref()
            .map_or(&standing.first, |t| &t.parent);
        let forked = parent.fork().await.map_err(cannot_start)?;
        let mut process = Process::new(forked);
        if standing.sharing != Sharing::Loaded {
            process.load(&self.launch, &self.envelope).await?;
        }
        Ok(process)
    }

    /// Has a worker answer for some rows; how long it took, or why it did not.
    async fn try_out(&self, standing: &Standing) -> Result<Result<(f64, f64), String>, Error> {
        let began = Instant::now();
        let mut process = self.fork(standing).await?;
        let ready = began.elapsed();
        for function in &self.envelope.manifest().functions {
            let Some(sample) = &function.sample else {
                continue;
            };
            let sample = protocol::read_rows(&self.envelope.read(&sample.input)?);
            let Ok(rows) = sample else { continue };
            let call = Call {
                function: &function.name,
                each_row: is_called_for_each_row(function),
                awake: false,
            };
            let rows = rows.slice(0, rows.num_rows().min(TRIAL_ROWS));
            match timeout(TRIAL_DEADLINE, process.call(call, &rows)).await {
                Ok(Err(Error::Crashed { reason, .. })) => {
                    return Ok(Err(format!("a worker that shares more dies: {reason}")));
                }
                Ok(_) => {}
                Err(_) => return Ok(Err("a worker that shares more does not answer".into())),
            }
        }
        let answered = began.elapsed() - ready;
        Ok(Ok((
            ready.as_secs_f64() * 1e3,
            answered.as_secs_f64() * 1e3,
        )))
    }

    // === what is remembered

    /// What the trial came to depends on the envelope, on how many threads libraries start, and on
    /// the interpreter with its libraries.
    fn record(&self) -> PathBuf {
        let environment = self.launch.environment();
        let place = envelope_format::Digest::of(environment.python.as_os_str().as_encoded_bytes());
        let name = format!(
            "{}-{}-{}.json",
            &self.envelope.digest().hex()[..32],
            &place.hex()[..8],
            self.launch.threads(),
        );
        environment.cache.join("forks").join(name)
    }

    fn remembered(&self) -> Option<Trial> {
        serde_json::from_slice(&fs::read(self.record()).ok()?).ok()
    }

    /// Where it cannot be written, it is found out again.
    fn remember(&self, trial: &Trial) {
        let path = self.record();
        let written = path.parent().map(|folder| {
            fs::create_dir_all(folder)?;
            let mut file = tempfile::NamedTempFile::new_in(folder)?;
            serde_json::to_writer_pretty(&mut file, trial)?;
            file.persist(&path).map_err(|error| error.error)
        });
        if let Some(Err(error)) = written {
            tracing::debug!("cannot remember how workers are forked: {error}");
        }
    }
}

impl Standing {
    fn is_there(&self) -> bool {
        let template = self.template.as_ref();
        self.first.is_there() && template.is_none_or(|template| template.parent.is_there())
    }
}

impl Template {
    async fn new(first: &Parent) -> Result<Self, Error> {
        let forked = first.fork().await.map_err(cannot_start)?;
        let printed = Printed::of(forked.stderr);
        Ok(Self {
            parent: Parent::new(forked.wire),
            child: forked.child,
            printed,
        })
    }

    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "all other answers are to other questions"
    )]
    async fn load(&mut self, launch: &Launch, envelope: &EnvelopeFile) -> Result<Loading, Error> {
        let (request, pickle) = load_request(launch, envelope)?;
        match self.ask(request, pickle).await? {
            Answer::Ready(loading) => Ok(loading),
            Answer::NotLoaded { exception } => Err(self.not_started(explain(&exception))),
            _ => Err(self.not_started("it answered out of turn".into())),
        }
    }

    async fn import(&mut self, folder: Option<PathBuf>, modules: &[String]) -> Result<(), Error> {
        let request = Request::Import {
            folder: folder.map(|folder| folder.display().to_string()),
            modules: modules.to_vec(),
        };
        self.ask(request, vec![]).await.map(drop)
    }

    async fn ask(&mut self, request: Request, body: Vec<u8>) -> Result<Answer, Error> {
        match timeout(START_DEADLINE, self.parent.ask(request, body)).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(_)) => {
                let ending = self.child.end(REAP_DEADLINE).await;
                self.printed.settle().await;
                Err(self.not_started(told(ending)))
            }
            Err(_) => Err(self.not_started(format!(
                "it was not ready after {} s",
                START_DEADLINE.as_secs()
            ))),
        }
    }

    fn not_started(&self, reason: String) -> Error {
        Error::Start {
            reason,
            stderr: self.printed.text(),
        }
    }
}

fn cannot_start(source: io::Error) -> Error {
    Error::Io {
        doing: "cannot start a worker process".into(),
        source,
    }
}
