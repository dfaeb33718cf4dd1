//! gRPC: the Open Inference Protocol in messages, and the services that clients of gRPC look for.
//!
//! A request of HTTP/2 speaks gRPC if its content type says so, whatever else the port answers. A call goes
//! the way of [`answer`](fn@crate::answer::answer); only its function is known later, because its name is
//! within the message.

mod exchange;
mod health;
mod infer;
mod services;
mod status;

use bytes::Bytes;
use hyper::body::Body;
use hyper::header::CONTENT_TYPE;
use hyper::http::request::Parts;
use hyper::{Request, Response, Version};

use crate::apart::{apart, written_bytes};
use crate::body;
use crate::delivery::Content;
use crate::error::Refusal;
use crate::media::text;
use crate::protocol::tensors::model;
use crate::stages::Stages;
use crate::telemetry::Timer;
use exchange::Exchange;
use generated::{
    ModelInferRequest, ModelMetadataRequest, ModelMetadataResponse, ModelReadyRequest,
    ModelReadyResponse, RepositoryIndexRequest, RepositoryIndexResponse, ServerLiveRequest,
    ServerLiveResponse, ServerMetadataRequest, ServerMetadataResponse, ServerReadyRequest,
    ServerReadyResponse, model_metadata_response::TensorMetadata,
    repository_index_response::ModelIndex,
};

pub(crate) use services::Services;
pub(crate) use status::refused;

/// The messages of `proto/inference.proto`, kept as they are generated.
#[rustfmt::skip]
#[allow(missing_docs, unreachable_pub, clippy::all, reason = "generated")]
mod generated {
    include!("grpc/generated/inference.rs");
}

/// What reflection tells of them.
const DESCRIPTORS: &[u8] = include_bytes!("grpc/generated/inference.bin");

const INFERENCE: &str = "inference.GRPCInferenceService";

/// Whether a request is one of gRPC.
pub(crate) fn is_spoken<B>(request: &Request<B>) -> bool {
    let subtype = text(request.headers(), &CONTENT_TYPE).strip_prefix("application/grpc");
    request.version() == Version::HTTP_2
        && subtype.is_some_and(|rest| rest.is_empty() || rest.starts_with(['+', ';']))
}

/// Answers one request.
pub(crate) async fn answer<B>(
    stages: &Stages,
    request: Request<B>,
    timer: &mut Timer,
) -> Result<Response<Content>, Refusal>
where
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: std::error::Error + Send + Sync + 'static,
{
    let path = request.uri().path().to_owned();
    let method = path.strip_prefix('/').and_then(|path| path.split_once('/'));
    let (service, method) = method.ok_or(Refusal::NoSuchPath)?;
    if service != INFERENCE {
        return stages.services.answer(service, request).await;
    }
    let (head, body) = request.into_parts();
    if method == "ModelInfer" {
        return infer(stages, &head, body, timer).await;
    }
    let exchange = Exchange::of(&head.headers, &stages.settings)?;
    let body = body::read(&head.headers, body, &stages.settings).await?;
    tell(stages, method, exchange, body)
}

/// A call, out and home: admit → body → message → rows → call → message.
async fn infer<B>(
    stages: &Stages,
    head: &Parts,
    body: B,
    timer: &mut Timer,
) -> Result<Response<Content>, Refusal>
where
    B: Body<Data = Bytes> + Send + 'static,
{
    let exchange = Exchange::of(&head.headers, &stages.settings)?;
    let _permit = stages.admission.admit(&head.extensions)?;
    let patience = exchange::patience(&head.headers, stages.settings.call_deadline)?;
    stages.routes.have_time(patience)?;
    let body = body::read(&head.headers, body, &stages.settings).await?;
    let bytes = body.len();
    let message = apart(bytes, move || exchange.read::<ModelInferRequest>(body)).await??;
    let function = stages.model(&message.model_name, &message.model_version)?;
    timer.is_for(&function);
    function.batcher.has_time(patience)?;
    let (asked, function) = apart(bytes, move || {
        let asked = infer::read(&function, message);
        (asked, function)
    })
    .await?;
    let (rows, wanted) = asked?;
    let output = function.call(rows, patience, timer).await?;
    apart(written_bytes(&output), move || {
        exchange.write(wanted.message(&function, &output)?)
    })
    .await?
}

/// What is told without a call.
fn tell(
    stages: &Stages,
    method: &str,
    exchange: Exchange,
    body: Bytes,
) -> Result<Response<Content>, Refusal> {
    let (readiness, models) = (&stages.pages.readiness, &stages.pages.models);
    let ready = readiness.is_ready();
    match method {
        "ServerLive" => {
            exchange.read::<ServerLiveRequest>(body)?;
            exchange.write(ServerLiveResponse { live: true })
        }
        "ServerReady" => {
            exchange.read::<ServerReadyRequest>(body)?;
            exchange.write(ServerReadyResponse { ready })
        }
        "ServerMetadata" => {
            exchange.read::<ServerMetadataRequest>(body)?;
            exchange.write(ServerMetadataResponse {
                name: models.name.clone(),
                version: env!("CARGO_PKG_VERSION").into(),
                extensions: model::EXTENSIONS.map(String::from).into(),
            })
        }
        "ModelReady" => {
            let asked: ModelReadyRequest = exchange.read(body)?;
            stages.model(&asked.name, &asked.version)?;
            exchange.write(ModelReadyResponse { ready })
        }
        "ModelMetadata" => {
            let asked: ModelMetadataRequest = exchange.read(body)?;
            exchange.write(metadata(stages, &asked)?)
        }
        "RepositoryIndex" => {
            let asked: RepositoryIndexRequest = exchange.read(body)?;
            let is_listed = ready || !asked.ready;
            let listed = models.functions.iter().filter(|_| is_listed);
            exchange.write(index(listed, ready))
        }
        _ => Err(Refusal::NoSuchPath),
    }
}

fn metadata(
    stages: &Stages,
    asked: &ModelMetadataRequest,
) -> Result<ModelMetadataResponse, Refusal> {
    let function = stages.model(&asked.name, &asked.version)?;
    let described = |tensors: Vec<model::Described>| {
        let described = tensors.into_iter().map(|tensor| TensorMetadata {
            name: tensor.name,
            datatype: tensor.datatype.to_string(),
            shape: tensor.shape,
        });
        described.collect()
    };
    Ok(ModelMetadataResponse {
        name: function.name.clone(),
        versions: vec![model::VERSION.into()],
        platform: model::PLATFORM.into(),
        inputs: described(model::inputs(&function.signature)),
        outputs: described(model::outputs(&function.signature)),
    })
}

fn index<'f>(functions: impl Iterator<Item = &'f String>, ready: bool) -> RepositoryIndexResponse {
    let state = if ready { "READY" } else { "UNAVAILABLE" };
    let models = functions.map(|name| ModelIndex {
        name: name.clone(),
        version: model::VERSION.into(),
        state: state.into(),
        reason: String::new(),
    });
    RepositoryIndexResponse {
        models: models.collect(),
    }
}
