//! What a request passes through, wired once from settings and components.

use std::sync::Arc;

use arrow_array::RecordBatch;
use serde_json::Value;
use tokio::sync::Semaphore;

use crate::admit::Admission;
use crate::batcher::{Batcher, Line, may_gather};
use crate::components::Components;
use crate::decode::Decoder;
use crate::encode::Encoder;
use crate::front::Front;
use crate::function::Function;
use crate::openapi;
use crate::pages::{Pages, Readiness, envelope};
use crate::route::Routes;
use crate::settings::Settings;
use crate::telemetry::Telemetry;

/// The stages of [`answer`](crate::answer::answer).
#[derive(Debug)]
pub(crate) struct Stages {
    pub(crate) settings: Settings,
    pub(crate) routes: Routes,
    pub(crate) pages: Pages,
    pub(crate) admission: Arc<Admission>,
}

impl Stages {
    /// Must be called within a Tokio runtime: the queues of the functions are tasks.
    pub(crate) fn new(settings: Settings, components: &Components) -> Self {
        let Components {
            manifest,
            digest,
            samples,
            calls,
        } = components;
        let admission = Arc::new(Admission::new(settings.max_calls_in_flight));
        let telemetry = Telemetry::new(
            &manifest.name,
            &digest.to_string(),
            calls.clone(),
            admission.clone(),
        );
        let workers = Arc::new(Semaphore::new(
            calls.most_workers().clamp(1, Semaphore::MAX_PERMITS),
        ));
        let functions = manifest.functions.iter().map(|function| {
            let metrics = telemetry.function(&function.name);
            let line = Line {
                calls: calls.clone(),
                function: function.name.as_str().into(),
                workers: workers.clone(),
                gather: may_gather(function).then_some(settings.max_batch_rows),
                rows: metrics.batch_rows.clone(),
            };
            Arc::new(Function {
                name: function.name.clone(),
                decoder: Decoder::new(&function.signature.input, settings.max_rows),
                batcher: Batcher::start(line),
                encoder: Encoder::new(&function.signature.output),
                metrics,
            })
        });
        let routes = Routes(functions.collect());
        let examples = examples(components);
        let pages = Pages {
            front: Front::new(manifest, *digest, &examples),
            openapi: openapi::document(manifest, *digest, &parsed(samples, &examples))
                .to_string()
                .into(),
            envelope: envelope(manifest, *digest),
            telemetry,
            readiness: Arc::new(Readiness::default()),
        };
        Self {
            settings,
            routes,
            pages,
            admission,
        }
    }
}

/// How much of a sample is shown.
const EXAMPLE_ROWS: usize = 2;

/// A body for each function: the first rows of its sample.
fn examples(components: &Components) -> Vec<String> {
    let body = |function: &envelope_format::Function, sample: &RecordBatch| {
        let rows = sample.slice(0, sample.num_rows().min(EXAMPLE_ROWS));
        let mut body = b"{\"data\":".to_vec();
        Encoder::new(&function.signature.input)
            .rows(&rows, &mut body)
            .ok()?;
        body.push(b'}');
        String::from_utf8(body).ok()
    };
    let functions = components
        .manifest
        .functions
        .iter()
        .zip(&components.samples);
    functions
        .map(|(function, sample)| sample.as_ref().and_then(|sample| body(function, sample)))
        .map(|body| body.unwrap_or_else(|| "{\"data\":[]}".to_owned()))
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
