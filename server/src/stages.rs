//! What a request passes through, wired once from settings and components.

use std::sync::{Arc, Mutex};

use arrow_array::RecordBatch;
use serde_json::Value;
use tokio::sync::Semaphore;

use crate::admit::Admission;
use crate::aliases::Aliases;
use crate::backlog::Backlog;
use crate::batcher::{Batcher, Line, may_gather};
use crate::calls::Calls;
use crate::components::Components;
use crate::decode::Decoder;
use crate::encode::Encoder;
use crate::entrance::Entrance;
use crate::error::Refusal;
use crate::front::Front;
use crate::function::Function;
use crate::health::Health;
use crate::models::Models;
use crate::openapi;
#[cfg(feature = "otlp")]
use crate::otlp::Spans;
use crate::pages::{Pages, Readiness, envelope};
use crate::protocol::grpc;
use crate::protocol::tensors::model;
use crate::route::Routes;
use crate::sampler::Gathering;
use crate::settings::Settings;
use crate::telemetry::{Served, Telemetry};
use crate::tls::Certificates;

/// What stays when another envelope is served.
#[derive(Debug, Clone)]
pub(crate) struct Lasting {
    pub(crate) settings: Settings,
    pub(crate) admission: Arc<Admission>,
    pub(crate) telemetry: Arc<Telemetry>,
    pub(crate) readiness: Arc<Readiness>,
    pub(crate) services: Arc<grpc::Services>,
    pub(crate) certificates: Option<Arc<Certificates>>,
    /// Where spans go, if there is somebody to send them to.
    #[cfg(feature = "otlp")]
    pub(crate) spans: Option<Arc<Spans>>,
}

impl Lasting {
    /// Must be called within a Tokio runtime.
    pub(crate) fn new(settings: Settings) -> Self {
        let (calls, bytes) = (settings.max_calls_in_flight, settings.max_bytes_in_flight);
        let admission = Arc::new(Admission::new(calls, bytes));
        let telemetry = Arc::new(Telemetry::new(admission.clone()));
        let readiness = Arc::new(Readiness::default());
        Self {
            #[cfg(feature = "otlp")]
            spans: Spans::start(settings.collector.as_ref(), telemetry.spans()).map(Arc::new),
            telemetry,
            services: Arc::new(grpc::Services::new(&readiness)),
            readiness,
            certificates: settings.tls.clone().map(Certificates::new).map(Arc::new),
            admission,
            settings,
        }
    }
}

/// The stages of [`answer`](crate::answer::answer).
#[derive(Debug)]
pub(crate) struct Stages {
    pub(crate) settings: Settings,
    pub(crate) aliases: Aliases,
    pub(crate) entrance: Entrance,
    pub(crate) routes: Routes,
    pub(crate) pages: Pages,
    pub(crate) services: Arc<grpc::Services>,
    pub(crate) admission: Arc<Admission>,
    pub(crate) backlog: Arc<Backlog>,
}

impl Stages {
    /// Must be called within a Tokio runtime: the queues of the functions are tasks.
    pub(crate) fn new(lasting: &Lasting, components: &Components) -> Self {
        let Lasting {
            settings,
            admission,
            telemetry,
            readiness,
            services,
            ..
        } = lasting.clone();
        let most_workers = components.calls.most_workers();
        let backlog = Arc::new(Backlog::new(
            most_workers,
            settings.max_rows_in_flight,
            settings.max_wait,
        ));
        let shared = Shared {
            calls: components.calls.clone(),
            workers: Arc::new(Semaphore::new(
                most_workers.clamp(1, Semaphore::MAX_PERMITS),
            )),
            backlog: backlog.clone(),
        };
        let functions = components.manifest.functions.iter();
        let first = functions.clone().next();
        let first = first.map_or("", |function| function.name.as_str());
        let functions = functions
            .map(|described| Arc::new(function(described, &shared, &telemetry, &settings)));
        Self {
            aliases: Aliases::new(&settings, first),
            entrance: Entrance::new(&settings),
            routes: Routes::new(&components.manifest.name, functions.collect()),
            services,
            pages: pages(components, telemetry, readiness, &settings),
            settings,
            admission,
            backlog,
        }
    }

    /// The model of a name, and of a version where one is asked for.
    pub(crate) fn model(&self, name: &str, version: &str) -> Result<Arc<Function>, Refusal> {
        if !version.is_empty() {
            model::check_version(version)?;
        }
        self.routes.model(name).cloned()
    }

    /// What metrics tell of the envelope while it is served.
    pub(crate) fn served(&self, components: &Components) -> Served {
        Served {
            name: components.manifest.name.clone(),
            digest: components.digest.to_string(),
            calls: components.calls.clone(),
            backlog: self.backlog.clone(),
        }
    }
}

/// What the functions of an envelope share.
struct Shared {
    calls: Arc<dyn Calls>,
    workers: Arc<Semaphore>,
    backlog: Arc<Backlog>,
}

fn function(
    described: &envelope_format::Function,
    shared: &Shared,
    telemetry: &Telemetry,
    settings: &Settings,
) -> Function {
    let metrics = telemetry.function(&described.name);
    let gather = may_gather(described).then(|| {
        Arc::new(Gathering::new(
            settings.max_batch_rows,
            settings.max_batch_bytes,
            settings.sample_every,
            telemetry.sampler(&described.name),
        ))
    });
    let line = Line {
        calls: shared.calls.clone(),
        function: described.name.as_str().into(),
        workers: shared.workers.clone(),
        backlog: shared.backlog.clone(),
        pace: Arc::new(Mutex::default()),
        grace: settings.worker_grace,
        gather,
        rows: metrics.batch_rows.clone(),
    };
    Function {
        name: described.name.clone(),
        signature: described.signature.clone(),
        gives: runtime::arrow_schema(&described.signature.output),
        decoder: Decoder::new(&described.signature.input, settings.max_rows),
        coercion: settings.coercion,
        batcher: Batcher::start(line),
        encoder: Encoder::new(&described.signature.output),
        records: Encoder::records(&described.signature.output),
        metrics,
    }
}

fn pages(
    components: &Components,
    telemetry: Arc<Telemetry>,
    readiness: Arc<Readiness>,
    settings: &Settings,
) -> Pages {
    let Components {
        manifest,
        digest,
        samples,
        calls,
    } = components;
    let examples = examples(components);
    Pages {
        front: Front::new(manifest, *digest, &examples),
        openapi: openapi::document(manifest, *digest, &parsed(samples, &examples))
            .to_string()
            .into(),
        envelope: envelope(manifest, *digest),
        telemetry,
        readiness,
        health: Health {
            digest: *digest,
            sandbox: settings.sandbox.level,
            calls: calls.clone(),
        },
        models: Models::new(manifest, calls.most_workers(), settings.max_body_bytes),
    }
}

/// How much of a sample is shown.
const EXAMPLE_ROWS: usize = 2;

/// A body for each function: the first rows of its sample, each on a line.
fn examples(components: &Components) -> Vec<String> {
    let body = |function: &envelope_format::Function, sample: &RecordBatch| {
        let rows = sample.slice(0, sample.num_rows().min(EXAMPLE_ROWS));
        let lines = Encoder::new(&function.signature.input).lines(&rows).ok()?;
        let lines = String::from_utf8(lines).ok()?;
        let rows: Vec<_> = lines.lines().map(|line| format!("  {line}")).collect();
        Some(format!("{{\"data\": [\n{}\n]}}", rows.join(",\n")))
    };
    let functions = components
        .manifest
        .functions
        .iter()
        .zip(&components.samples);
    functions
        .map(|(function, sample)| sample.as_ref().and_then(|sample| body(function, sample)))
        .map(|body| body.unwrap_or_else(|| "{\"data\": []}".to_owned()))
        .collect()
}

fn parsed(samples: &[Option<RecordBatch>], examples: &[String]) -> Vec<Option<Value>> {
    let both = samples.iter().zip(examples);
    both.map(|(sample, body)| {
        sample
            .as_ref()
            .and_then(|_| serde_json::from_str(body).ok())
    })
    .collect()
}
