//! gRPC over real sockets, by a client that knows frames and messages alone.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::time::Duration;

use bytes::{Buf as _, Bytes};
use hyper::{HeaderMap, Request};
use messages::model_infer_request::{InferInputTensor, InferRequestedOutputTensor};
use messages::{
    InferTensorContents, ModelInferRequest, ModelInferResponse, ModelMetadataRequest,
    ModelMetadataResponse, ModelReadyRequest, ModelReadyResponse, RepositoryIndexRequest,
    RepositoryIndexResponse, ServerLiveRequest, ServerLiveResponse, ServerMetadataRequest,
    ServerMetadataResponse, ServerReadyRequest, ServerReadyResponse,
};
use prost::Message;
use server::Settings;
use support::{Honest, Service, becomes, components, digest};
use tokio::net::TcpStream;
use tokio::runtime::{Builder, Runtime};
use tonic::Code;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};
use tonic_types::StatusExt as _;

#[rustfmt::skip]
#[allow(clippy::all, unreachable_pub, dead_code, reason = "generated")]
mod messages {
    include!("../src/protocol/grpc/generated/inference.rs");
}

const INFERENCE: &str = "/inference.GRPCInferenceService/";

/// One connection.
struct Client {
    executor: Runtime,
    requests: h2::client::SendRequest<Bytes>,
}

/// What came of a request.
struct Told {
    headers: HeaderMap,
    body: Bytes,
    status: tonic::Status,
}

impl Client {
    fn of(service: &Service) -> Self {
        let mut builder = Builder::new_multi_thread();
        let executor = builder.worker_threads(1).enable_all().build().unwrap();
        let address = service.address;
        let requests = executor.block_on(async {
            let stream = TcpStream::connect(address).await.unwrap();
            let (requests, connection) = h2::client::handshake(stream).await.unwrap();
            tokio::spawn(connection);
            requests
        });
        Self { executor, requests }
    }

    fn send(&self, path: &str, headers: &[(&str, &str)], body: Bytes) -> Told {
        self.executor.block_on(async {
            let mut requests = self.requests.clone().ready().await.unwrap();
            let mut request = Request::post(format!("http://localhost{path}"))
                .header("content-type", "application/grpc")
                .header("te", "trailers");
            for (name, value) in headers {
                request = request.header(*name, *value);
            }
            let request = request.body(()).unwrap();
            let (answer, mut sending) = requests.send_request(request, false).unwrap();
            // It may be answered already, by what its headers say.
            drop(sending.send_data(body, true));
            told(answer.await.unwrap()).await
        })
    }

    fn ask<M: Message, A: Message + Default>(
        &self,
        path: &str,
        message: &M,
    ) -> Result<A, tonic::Status> {
        let told = self.send(path, &[], framed(message));
        if told.status.code() == Code::Ok {
            Ok(read(told.body))
        } else {
            Err(told.status)
        }
    }

    fn infer(&self, request: &ModelInferRequest) -> Result<ModelInferResponse, tonic::Status> {
        self.ask(&format!("{INFERENCE}ModelInfer"), request)
    }
}

async fn told(answer: hyper::Response<h2::RecvStream>) -> Told {
    assert_eq!(answer.status(), 200);
    let (head, mut coming) = answer.into_parts();
    let mut body = vec![];
    while let Some(data) = coming.data().await {
        let data = data.unwrap();
        coming.flow_control().release_capacity(data.len()).unwrap();
        body.extend_from_slice(&data);
    }
    let trailers = coming.trailers().await.unwrap();
    let status = tonic::Status::from_header_map(trailers.as_ref().unwrap_or(&head.headers));
    Told {
        headers: head.headers,
        body: body.into(),
        status: status.unwrap(),
    }
}

fn framed(message: &impl Message) -> Bytes {
    let message = message.encode_to_vec();
    let length = u32::try_from(message.len()).unwrap();
    [&[0], &length.to_be_bytes()[..], &message].concat().into()
}

fn read<A: Message + Default>(mut body: Bytes) -> A {
    assert_eq!(body.get_u8(), 0);
    assert_eq!(body.get_u32() as usize, body.len());
    A::decode(body).unwrap()
}

fn input(values: &[f64]) -> InferInputTensor {
    InferInputTensor {
        name: "x".into(),
        datatype: "FP64".into(),
        shape: vec![i64::try_from(values.len()).unwrap()],
        contents: Some(InferTensorContents {
            fp64_contents: values.to_vec(),
            ..InferTensorContents::default()
        }),
        ..InferInputTensor::default()
    }
}

fn call(values: &[f64]) -> ModelInferRequest {
    ModelInferRequest {
        model_name: "double".into(),
        inputs: vec![input(values)],
        ..ModelInferRequest::default()
    }
}

fn raw(values: &[f64]) -> Bytes {
    let bytes: Vec<u8> = values
        .iter()
        .flat_map(|value| value.to_le_bytes())
        .collect();
    bytes.into()
}

#[test]
fn values_come_raw_or_in_their_lists_and_are_answered_raw() {
    let service = Service::start(Settings::default());
    let client = Client::of(&service);
    let mut request = call(&[1.0, 2.5]);
    request.id = "7é".into();
    let answer = client.infer(&request).unwrap();
    assert_eq!(answer.id, "7é");
    assert_eq!(answer.model_version, "1");
    assert_eq!(answer.outputs[0].datatype, "FP64");
    assert_eq!(answer.outputs[0].shape, [2]);
    assert_eq!(answer.raw_output_contents, [raw(&[2.0, 5.0])]);
    request.inputs[0].contents = None;
    request.raw_input_contents = vec![raw(&[1.0, 2.5])];
    let again = client.infer(&request).unwrap();
    assert_eq!(again, answer);
    let none = client.infer(&call(&[])).unwrap();
    assert_eq!(none.raw_output_contents, [Bytes::new()]);
}

#[test]
fn an_answer_says_which_envelope_gave_it() {
    let service = Service::start(Settings::default());
    let path = format!("{INFERENCE}ModelInfer");
    let told = Client::of(&service).send(&path, &[("x-request-id", "r1")], framed(&call(&[1.0])));
    assert_eq!(told.headers["x-envelope-digest"], digest(2.0).to_string());
    assert_eq!(told.headers["x-request-id"], "r1");
    assert_eq!(told.headers["content-type"], "application/grpc");
}

#[test]
fn what_is_wrong_has_a_code_and_a_text() {
    let service = Service::start(Settings::default());
    let client = Client::of(&service);
    let good = call(&[1.0, 2.0]);
    let check = |code: Code, text: &str, change: &dyn Fn(&mut ModelInferRequest)| {
        let mut request = good.clone();
        change(&mut request);
        let status = client.infer(&request).unwrap_err();
        assert_eq!(status.code(), code, "{status}");
        assert!(status.message().contains(text), "{status}");
    };
    check(Code::NotFound, "`double`", &|r| {
        r.model_name = "nobody".into()
    });
    check(Code::NotFound, "version `1`", &|r| {
        r.model_version = "9".into()
    });
    let check = |text, change| check(Code::InvalidArgument, text, change);
    check("`x`", &|r| r.inputs.clear());
    check("`y`", &|r| r.inputs[0].name = "y".into());
    check("twice", &|r| r.inputs.push(input(&[1.0])));
    check("FP65", &|r| r.inputs[0].datatype = "FP65".into());
    check("raw", &|r| r.inputs[0].datatype = "FP16".into());
    check("0 values of INT64", &|r| {
        r.inputs[0].datatype = "INT64".into()
    });
    check("2 values", &|r| r.inputs[0].shape = vec![3]);
    check("negative", &|r| r.inputs[0].shape = vec![-1]);
    check("twice", &|r| r.raw_input_contents = vec![raw(&[1.0, 2.0])]);
    check("8 bytes", &|r| {
        r.inputs[0].contents = None;
        r.raw_input_contents = vec![raw(&[1.0])];
    });
    check("`raw_input_contents` of 2", &|r| {
        r.raw_input_contents = vec![raw(&[1.0]), raw(&[1.0])]
    });
    check("`z`", &|r| {
        let output = InferRequestedOutputTensor {
            name: "z".into(),
            ..InferRequestedOutputTensor::default()
        };
        r.outputs = vec![output];
    });
    assert!(client.infer(&good).is_ok());
}

#[test]
fn a_function_that_raises_is_an_internal_error_without_its_traceback() {
    let service = Service::start(Settings::default());
    let status = Client::of(&service).infer(&call(&[-1.0])).unwrap_err();
    assert_eq!(status.code(), Code::Internal);
    assert!(status.message().contains("ValueError: no"), "{status}");
}

#[test]
fn a_call_that_has_no_time_is_given_up() {
    let service = Service::start(Settings::default());
    let client = Client::of(&service);
    let path = format!("{INFERENCE}ModelInfer");
    let slow = framed(&call(&[-3.0]));
    let told = client.send(&path, &[("grpc-timeout", "50m")], slow.clone());
    assert_eq!(told.status.code(), Code::DeadlineExceeded);
    let told = client.send(&path, &[("grpc-timeout", "20S")], slow.clone());
    assert_eq!(told.status.code(), Code::Ok);
    let told = client.send(&path, &[("grpc-timeout", "soon")], slow);
    assert_eq!(told.status.code(), Code::InvalidArgument);
}

#[test]
fn who_is_refused_for_load_is_told_when_to_come_back() {
    let settings = Settings {
        max_calls_in_flight: 2,
        ..Settings::default()
    };
    let service = Service::start(settings);
    let client = Client::of(&service);
    let path = format!("{INFERENCE}ModelInfer");
    client.executor.block_on(async {
        let mut others = vec![];
        for _ in 0..8 {
            let mut requests = client.requests.clone().ready().await.unwrap();
            let request = Request::post(format!("http://localhost{path}"))
                .header("content-type", "application/grpc")
                .body(())
                .unwrap();
            let (answer, mut sending) = requests.send_request(request, false).unwrap();
            sending.send_data(framed(&call(&[-3.0])), true).unwrap();
            others.push(tokio::spawn(async {
                told(answer.await.unwrap()).await.status
            }));
        }
        let mut refused = 0;
        for other in others {
            let status = other.await.unwrap();
            if status.code() == Code::Unavailable {
                refused += 1;
                let retry = status.get_details_retry_info().unwrap();
                assert!(retry.retry_delay.is_some());
            }
        }
        assert!((1..8).contains(&refused), "{refused}");
    });
}

#[test]
fn faults_of_rows_are_violations_of_fields() {
    let service = Service::start(Settings::default());
    let mut request = call(&[]);
    request.inputs[0] = InferInputTensor {
        datatype: "INT64".into(),
        shape: vec![2],
        contents: Some(InferTensorContents {
            int64_contents: vec![1, i64::MAX],
            ..InferTensorContents::default()
        }),
        ..input(&[])
    };
    let status = Client::of(&service).infer(&request).unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
    let violations = status.get_details_bad_request().unwrap().field_violations;
    assert_eq!(violations[0].field, "x");
    assert!(
        violations[0].description.contains("float64"),
        "{violations:?}"
    );
}

#[test]
fn messages_are_compressed_as_the_client_compresses_them() {
    let service = Service::start(Settings::default());
    let message = call(&[1.0; 1000]).encode_to_vec();
    let mut packer = flate2::write::GzEncoder::new(vec![], flate2::Compression::fast());
    std::io::Write::write_all(&mut packer, &message).unwrap();
    let packed = packer.finish().unwrap();
    let length = u32::try_from(packed.len()).unwrap().to_be_bytes();
    let body: Bytes = [&[1], &length[..], &packed].concat().into();
    let client = Client::of(&service);
    let path = format!("{INFERENCE}ModelInfer");
    let told = client.send(&path, &[("grpc-encoding", "gzip")], body.clone());
    assert_eq!(told.status.code(), Code::Ok);
    assert_eq!(told.headers["grpc-encoding"], "gzip");
    assert!(told.body.len() < 1000);
    let told = client.send(&path, &[("grpc-encoding", "br")], body.clone());
    assert_eq!(told.status.code(), Code::Unimplemented);
    assert_eq!(
        told.headers["grpc-accept-encoding"],
        "identity,gzip,deflate"
    );
    let told = client.send(&path, &[], body);
    assert_eq!(told.status.code(), Code::InvalidArgument);
}

#[test]
fn a_service_tells_of_itself() {
    let service = Service::start(Settings::default());
    let client = Client::of(&service);
    let of = |method: &str| format!("{INFERENCE}{method}");
    let live: ServerLiveResponse = client
        .ask(&of("ServerLive"), &ServerLiveRequest {})
        .unwrap();
    let ready: ServerReadyResponse = client
        .ask(&of("ServerReady"), &ServerReadyRequest {})
        .unwrap();
    assert!(live.live && ready.ready);
    let server: ServerMetadataResponse = client
        .ask(&of("ServerMetadata"), &ServerMetadataRequest {})
        .unwrap();
    assert_eq!(server.extensions, ["binary_tensor_data"]);
    let (name, version) = ("double".to_owned(), String::new());
    let asked = ModelReadyRequest {
        name: name.clone(),
        version: version.clone(),
    };
    let ready: ModelReadyResponse = client.ask(&of("ModelReady"), &asked).unwrap();
    assert!(ready.ready);
    let asked = ModelMetadataRequest { name, version };
    let model: ModelMetadataResponse = client.ask(&of("ModelMetadata"), &asked).unwrap();
    assert_eq!(model.inputs[0].datatype, "FP64");
    assert_eq!(model.inputs[0].shape, [-1]);
    let index: RepositoryIndexResponse = client
        .ask(&of("RepositoryIndex"), &RepositoryIndexRequest::default())
        .unwrap();
    assert_eq!(index.models[0].state, "READY");
    let unknown = client.ask::<_, ServerLiveResponse>(&of("ModelStreamInfer"), &asked);
    assert_eq!(unknown.unwrap_err().code(), Code::Unimplemented);
    let unknown = client.ask::<_, ServerLiveResponse>("/other.Service/Do", &asked);
    assert_eq!(unknown.unwrap_err().code(), Code::Unimplemented);
}

#[test]
fn health_is_told_and_a_watch_does_not_hold_up_the_end() {
    let mut service = Service::start(Settings::default());
    let client = Client::of(&service);
    let asked = HealthCheckRequest::default();
    let health: HealthCheckResponse = client.ask("/grpc.health.v1.Health/Check", &asked).unwrap();
    assert_eq!(health.status(), ServingStatus::Serving);
    let watch = client.executor.block_on(async {
        let mut requests = client.requests.clone().ready().await.unwrap();
        let request = Request::post("http://localhost/grpc.health.v1.Health/Watch")
            .header("content-type", "application/grpc")
            .body(())
            .unwrap();
        let (answer, mut sending) = requests.send_request(request, false).unwrap();
        sending.send_data(framed(&asked), true).unwrap();
        answer.await.unwrap()
    });
    service.stop();
    let told = client.executor.block_on(told(watch));
    assert_eq!(told.status.code(), Code::Ok);
    let one = framed(&HealthCheckResponse { status: 1 }).len();
    assert_eq!(told.body.len(), 2 * one);
}

#[test]
fn the_same_port_answers_http_beside_it() {
    let service = Service::start(Settings::default());
    let honest = Honest::begin(&service);
    let client = Client::of(&service);
    for value in 0..50 {
        let value = f64::from(value);
        let answer = client.infer(&call(&[value])).unwrap();
        assert_eq!(answer.raw_output_contents, [raw(&[2.0 * value])]);
    }
    honest.end();
}

#[test]
fn calls_are_counted_like_all_others() {
    let service = Service::start(Settings::default());
    let client = Client::of(&service);
    client.infer(&call(&[1.0])).unwrap();
    client.infer(&call(&[-1.0])).unwrap_err();
    let mut bad = call(&[1.0]);
    bad.inputs[0].shape = vec![2];
    client.infer(&bad).unwrap_err();
    for class in ["2xx", "4xx", "5xx"] {
        becomes(|| {
            let metrics = service.get("/metrics").body;
            let mut lines = metrics.lines();
            lines.any(|line| {
                line.starts_with("envelope_requests_total{")
                    && line.contains(&format!("code=\"{class}\""))
                    && line.ends_with(" 1")
            })
        });
    }
}

#[test]
fn another_envelope_takes_over_between_calls() {
    let service = Service::start(Settings::default());
    let client = Client::of(&service);
    let (next, _) = components(3.0);
    let answer = client.infer(&call(&[1.0])).unwrap();
    assert_eq!(answer.raw_output_contents, [raw(&[2.0])]);
    service.executor.block_on(service.swap.to(next)).unwrap();
    let answer = client.infer(&call(&[1.0])).unwrap();
    assert_eq!(answer.raw_output_contents, [raw(&[3.0])]);
}

#[test]
fn a_client_that_takes_no_answer_is_given_up() {
    let settings = Settings {
        write_timeout: Duration::from_millis(300),
        ..Settings::default()
    };
    let service = Service::start(settings);
    let client = Client::of(&service);
    let broken = client.executor.block_on(async {
        let mut requests = client.requests.clone().ready().await.unwrap();
        let request = Request::post(format!("http://localhost{INFERENCE}ModelInfer"))
            .header("content-type", "application/grpc")
            .body(())
            .unwrap();
        let (answer, mut sending) = requests.send_request(request, false).unwrap();
        // Millions of rows come back, and the window is never opened again.
        sending.send_data(framed(&call(&[-7.0])), true).unwrap();
        let mut coming = answer.await.unwrap().into_body();
        while let Some(Ok(_)) = coming.data().await {}
        requests.ready().await.is_err()
    });
    assert!(broken);
    assert!(Client::of(&service).infer(&call(&[1.0])).is_ok());
}
