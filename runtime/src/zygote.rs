//! Where workers come from: a process that has done as much as may be done before a fork.
//!
//! The first process runs nobody's code; it stays for as long as the runtime does. From it comes the
//! *zygote*, which loads the functions once, and from that the workers: they share its memory until
//! they write to it. Not all libraries survive that (one whose threads were started before the fork
//! waits for them for ever), so how much the zygote does is found out: once for each envelope, number
//! of threads and machine, and remembered in the cache.

use std::fs;
use std::io;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use arrow_array::RecordBatch;
use envelope_format::Function;
use serde::{Deserialize, Serialize};
use tokio::process::Child as FirstChild;
use tokio::sync::Mutex;
use tokio::time::{Instant, timeout};

use crate::certify::is_called_for_each_row;
use crate::launch::Launch;
use crate::parent::{Child, Forked, Parent, new_keys};
use crate::printed::Printed;
use crate::process::{Call, Process, REAP_DEADLINE, explain, load_request, not_ready, told};
use crate::protocol::{Answer, Keys, Loading, Request};
use crate::wire::Wire;
use crate::{EnvelopeFile, Environment, Error, read_arrow_stream};

/// How long a worker that is tried out may take for a few rows of the sample. One whose threads were
/// lost takes for ever.
const TRIAL_DEADLINE: Duration = Duration::from_secs(30);

/// How long it may take to start: one that unpickles for itself needs more than a fork.
const TRIAL_START: Duration = Duration::from_secs(60);

const DAY: Duration = Duration::from_secs(24 * 3600);

/// Rows of the sample that a worker is tried out with.
const TRIAL_ROWS: usize = 8;

/// How much is done before the fork.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "before_fork", rename_all = "snake_case")]
pub enum Sharing {
    /// The functions are loaded: workers share all of it.
    Loaded {
        /// Modules that their calls import, imported as well.
        #[serde(default)]
        modules: Vec<String>,
    },
    /// Modules are imported: each worker loads the functions itself.
    Imported {
        /// The modules.
        modules: Vec<String>,
    },
    /// Nothing: each worker imports and loads for itself.
    Nothing,
}

impl Sharing {
    /// Shares modules that calls have imported, too; `None` where that is no more.
    fn with(&self, imported: Vec<String>) -> Option<Self> {
        let (Self::Loaded { modules: known } | Self::Imported { modules: known }) = self else {
            return None;
        };
        let mut modules = known.clone();
        modules.extend(imported.into_iter().filter(|name| !known.contains(name)));
        let is_more = modules.len() > known.len();
        is_more.then_some(match self {
            Self::Loaded { .. } => Self::Loaded { modules },
            Self::Imported { .. } | Self::Nothing => Self::Imported { modules },
        })
    }
}

/// What was found out about an envelope on this machine.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Trial {
    /// How much may be done before the fork.
    #[serde(flatten)]
    sharing: Sharing,
    /// From the decision to have a worker until it was ready, in milliseconds.
    ready_ms: f64,
    /// From then until it had answered for some rows of the sample, in milliseconds.
    answer_ms: f64,
    /// Why more is not done before the fork.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
}

/// How much to do instead, and why.
type Less = (Sharing, String);

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
    printed: Printed,
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
        let mut is_first_try = true;
        loop {
            let (parent, sharing) = self.parent().await?;
            match self.fork(&parent, &sharing).await {
                // It has ended unnoticed since.
                Err(_) if is_first_try && !parent.is_there() => is_first_try = false,
                forked => return forked,
            }
        }
    }

    /// What workers are forked from now; made where there is none.
    async fn parent(&self) -> Result<(Parent, Sharing), Error> {
        let mut standing = self.standing.lock().await;
        let there = match standing.take().filter(Standing::is_there) {
            Some(there) => there,
            None => self.stand_up().await?,
        };
        let standing = standing.insert(there);
        Ok((standing.parent().clone(), standing.sharing.clone()))
    }

    /// Ends everything that workers are forked from, and with it the workers.
    pub(crate) async fn end(&self) {
        if let Some(standing) = self.standing.lock().await.take() {
            standing.first.close();
        }
    }

    /// How much the workers share.
    pub(crate) async fn sharing(&self) -> Option<Sharing> {
        let standing = self.standing.lock().await;
        standing.as_ref().map(|standing| standing.sharing.clone())
    }

    async fn stand_up(&self) -> Result<Standing, Error> {
        let mut standing = self.first().await?;
        if let Some(known) = self.remembered()
            && self.prepare(&mut standing, known.sharing).await?.is_ok()
        {
            return Ok(standing);
        }
        let trial = self.find_out(&mut standing).await?;
        // An envelope that is being proved is another one when it is done.
        if !self.launch.is_observed() {
            self.remember(&trial);
        }
        Ok(standing)
    }

    /// How much may be done before the fork. Leaves `standing` with that much done.
    async fn find_out(&self, standing: &mut Standing) -> Result<Trial, Error> {
        let (mut sharing, mut reason) = (Sharing::Loaded { modules: vec![] }, None);
        let (trial, imported) = loop {
            match self.attempt(standing, sharing).await? {
                Ok(found) => break found,
                Err((less, why)) => (sharing, reason) = (less, Some(why)),
            }
        };
        let trial = Trial { reason, ..trial };
        let more = trial.sharing.with(imported.clone());
        // Who is there for a proof alone does not live long enough for it to pay.
        let Some(more) = more.filter(|_| !self.launch.is_observed()) else {
            return Ok(trial);
        };
        match self.attempt_more(standing, more, &imported).await {
            // Where each call imports something else there is no end to it.
            Ok((better, _)) => Ok(Trial {
                reason: trial.reason,
                ..better
            }),
            Err(_) => {
                let _ = self.prepare(standing, trial.sharing.clone()).await?;
                Ok(trial)
            }
        }
    }

    /// Tries out what `sharing` says. Gives the modules that the calls have imported, too; or what to
    /// try instead, and why.
    async fn attempt(
        &self,
        standing: &mut Standing,
        sharing: Sharing,
    ) -> Result<Result<(Trial, Vec<String>), Less>, Error> {
        if let Err(less) = self.prepare(standing, sharing).await? {
            return Ok(Err(less));
        }
        let tried = self.try_out(standing).await;
        Ok(tried.map_err(|why| (Sharing::Nothing, why)))
    }

    /// Tries out what `sharing` says where only `modules` are missing for it: importing and loading all of
    /// it once more would take as long as the first time.
    async fn attempt_more(
        &self,
        standing: &mut Standing,
        sharing: Sharing,
        modules: &[String],
    ) -> Result<(Trial, Vec<String>), String> {
        let folder = match &sharing {
            Sharing::Imported { .. } => self.launch.modules(&self.envelope),
            Sharing::Loaded { .. } | Sharing::Nothing => None,
        };
        if let Some(template) = &mut standing.template {
            let imported = template.import(folder, modules).await;
            imported.map_err(|error| error.to_string())?;
        }
        standing.sharing = sharing;
        self.try_out(standing).await
    }

    /// Starts the first process.
    async fn first(&self) -> Result<Standing, Error> {
        let (ours, theirs) = UnixStream::pair().map_err(cannot_start)?;
        let mut process = self.launch.spawn(theirs.into()).map_err(cannot_start)?;
        let report = process.stdout.take();
        let printed = process.stderr.take().map(Printed::of).unwrap_or_default();
        // A refusal has its reason there.
        self.launch.learn_confinement(report).await?;
        let keys = new_keys().map_err(cannot_start)?;
        let wire = Wire::new(ours, None, Keys::from_bytes(keys));
        let mut wire = wire.map_err(cannot_start)?;
        wire.introduce(&keys).await.map_err(cannot_start)?;
        Ok(Standing {
            first: Parent::new(wire),
            _process: process,
            printed,
            template: None,
            sharing: Sharing::Nothing,
        })
    }

    /// Does what `sharing` says before the fork; or tells what to do instead, and why.
    async fn prepare(
        &self,
        standing: &mut Standing,
        sharing: Sharing,
    ) -> Result<Result<(), Less>, Error> {
        standing.template = None;
        standing.sharing = Sharing::Nothing;
        match &sharing {
            Sharing::Nothing => {}
            Sharing::Imported { modules } => {
                let mut template = standing.template().await?;
                template
                    .import(self.launch.modules(&self.envelope), modules)
                    .await?;
                standing.template = Some(template);
            }
            Sharing::Loaded { modules } => {
                let mut template = standing.template().await?;
                let loading = template.load(&self.launch, &self.envelope).await?;
                if loading.threads > 0 {
                    let reason =
                        format!("loading the functions starts {} threads", loading.threads);
                    let modules = loading.modules;
                    return Ok(Err((Sharing::Imported { modules }, reason)));
                }
                if !modules.is_empty()
                    && let Err(error) = template.import(None, modules).await
                {
                    let less = Sharing::Loaded { modules: vec![] };
                    return Ok(Err((less, error.to_string())));
                }
                standing.template = Some(template);
            }
        }
        standing.sharing = sharing;
        Ok(Ok(()))
    }

    async fn fork(&self, parent: &Parent, sharing: &Sharing) -> Result<Process, Error> {
        let mut process = Process::new(parent.fork().await.map_err(cannot_start)?);
        if !matches!(sharing, Sharing::Loaded { .. }) {
            process.load(&self.launch, &self.envelope).await?;
        }
        Ok(process)
    }

    /// Has a worker answer for some rows; what came of it, and which modules it imported for that, or
    /// why it did not answer. One that shares nothing has nothing to prove.
    async fn try_out(&self, standing: &Standing) -> Result<(Trial, Vec<String>), String> {
        let mut trial = Trial {
            sharing: standing.sharing.clone(),
            ready_ms: 0.0,
            answer_ms: 0.0,
            reason: None,
        };
        if standing.sharing == Sharing::Nothing {
            return Ok((trial, vec![]));
        }
        let began = Instant::now();
        let started = timeout(TRIAL_START, self.fork(standing.parent(), &standing.sharing)).await;
        let mut process = started
            .map_err(|_| "a worker that shares more does not start".to_owned())?
            .map_err(|error| format!("a worker that shares more does not start: {error}"))?;
        let ready = began.elapsed();
        for function in &self.envelope.manifest().functions {
            let Some(rows) = self.some_rows(function) else {
                continue;
            };
            let call = Call {
                function: &function.name,
                each_row: is_called_for_each_row(function),
                awake: false,
            };
            match timeout(TRIAL_DEADLINE, process.call(call, &rows)).await {
                Ok(Err(Error::Crashed { reason, .. })) => {
                    return Err(format!("a worker that shares more dies: {reason}"));
                }
                Ok(_) => {}
                Err(_) => return Err("a worker that shares more does not answer".into()),
            }
        }
        trial.ready_ms = ready.as_secs_f64() * 1e3;
        trial.answer_ms = began.elapsed().as_secs_f64() * 1e3 - trial.ready_ms;
        let imported = timeout(TRIAL_DEADLINE, process.modules()).await;
        Ok((
            trial,
            imported.map_or_else(|_| vec![], Result::unwrap_or_default),
        ))
    }

    fn some_rows(&self, function: &Function) -> Option<RecordBatch> {
        let sample = self.envelope.read(&function.sample.as_ref()?.input).ok()?;
        let rows = read_arrow_stream(sample, TRIAL_ROWS).ok()?;
        Some(rows.slice(0, rows.num_rows().min(TRIAL_ROWS)))
    }

    // === what is remembered

    /// What the trial came to depends on the envelope, on the interpreter with its libraries, on how
    /// many threads these start, and on what they may do.
    fn record(&self) -> PathBuf {
        let environment = self.launch.environment();
        let name = format!(
            "{}-{}-{}-{}.json",
            &self.envelope.digest().hex()[..32],
            place(environment),
            self.launch.threads(),
            self.launch.asked(),
        );
        environment.cache.join("forks").join(name)
    }

    fn remembered(&self) -> Option<Trial> {
        let record = self.record();
        let trial: Trial = serde_json::from_slice(&fs::read(&record).ok()?).ok()?;
        let age = fs::metadata(&record).ok()?.modified().ok()?.elapsed();
        // It may have been the machine's fault: another day is another trial.
        let is_stale = trial.sharing == Sharing::Nothing && age.is_ok_and(|age| age > DAY);
        (!is_stale).then_some(trial)
    }

    /// Workers end before they answer: what was found out may not hold any more.
    pub(crate) fn doubt(&self) {
        let _ = fs::remove_file(self.record()); // it may not be there
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
    fn parent(&self) -> &Parent {
        let template = self.template.as_ref();
        template.map_or(&self.first, |template| &template.parent)
    }

    /// Another process from the first; where that has ended, what it has printed says why.
    async fn template(&self) -> Result<Template, Error> {
        match self.first.fork().await {
            Ok(forked) => Ok(Template::new(forked)),
            Err(source) if self.first.is_there() => Err(cannot_start(source)),
            Err(source) => {
                self.printed.settle().await;
                Err(Error::Start {
                    reason: format!("its interpreter has ended ({source})"),
                    stderr: self.printed.text(),
                })
            }
        }
    }

    fn is_there(&self) -> bool {
        let template = self.template.as_ref();
        self.first.is_there() && template.is_none_or(|template| template.parent.is_there())
    }
}

impl Template {
    fn new(forked: Forked) -> Self {
        Self {
            parent: Parent::new(forked.wire),
            child: forked.child,
            printed: Printed::of(forked.stderr),
        }
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
        match self.parent.ask(request, body).await {
            Ok(answer) => Ok(answer),
            Err(error) if error.kind() == io::ErrorKind::TimedOut => {
                Err(self.not_started(not_ready()))
            }
            Err(_) => {
                let ending = self.child.end(REAP_DEADLINE).await;
                self.printed.settle().await;
                Err(self.not_started(told(ending)))
            }
        }
    }

    fn not_started(&self, reason: String) -> Error {
        Error::Start {
            reason,
            stderr: self.printed.text(),
        }
    }
}

/// Names an interpreter with the libraries that it has now: one that was not made from a lock may have
/// others tomorrow.
fn place(environment: &Environment) -> String {
    let minor: Vec<_> = environment.version.split('.').take(2).collect();
    let libraries = environment
        .python
        .parent()
        .and_then(Path::parent)
        .map(|prefix| {
            let folder = format!("lib/python{}/site-packages", minor.join("."));
            fs::metadata(prefix.join(folder)).and_then(|found| found.modified())
        });
    let text = format!("{} {libraries:?}", environment.python.display());
    envelope_format::Digest::of(text.as_bytes()).hex()[..8].to_owned()
}

fn cannot_start(source: io::Error) -> Error {
    Error::Io {
        doing: "cannot start a worker process".into(),
        source,
    }
}
