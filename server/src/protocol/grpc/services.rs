//! The services besides the protocol that clients of gRPC look for: health and reflection.

use std::convert::Infallible;
use std::sync::Arc;

use bytes::Bytes;
use hyper::body::Body;
use hyper::{Request, Response};
use tonic::body::Body as Messages;
use tonic_health::pb::health_server::HealthServer;
use tonic_reflection::server::Builder;
use tower::ServiceExt as _;
use tower::util::BoxCloneSyncService;

use super::DESCRIPTORS;
use super::health::Health;
use crate::delivery::Content;
use crate::error::Refusal;
use crate::pages::Readiness;

type Service = BoxCloneSyncService<Request<Messages>, Response<Messages>, Infallible>;

/// A question to one of them is short.
const QUESTION_BYTES: usize = 16 << 10;

/// The services by their names.
#[derive(Debug)]
pub(crate) struct Services(Vec<(&'static str, Service)>);

impl Services {
    pub(crate) fn new(readiness: &Arc<Readiness>) -> Self {
        let health = HealthServer::new(Health::new(readiness.clone()))
            .max_decoding_message_size(QUESTION_BYTES);
        let mut services = vec![("grpc.health.v1.Health", BoxCloneSyncService::new(health))];
        // Descriptors that are generated are whole.
        if let Ok(reflection) = reflection().build_v1() {
            let reflection = reflection.max_decoding_message_size(QUESTION_BYTES);
            services.push((
                "grpc.reflection.v1.ServerReflection",
                BoxCloneSyncService::new(reflection),
            ));
        }
        if let Ok(reflection) = reflection().build_v1alpha() {
            let reflection = reflection.max_decoding_message_size(QUESTION_BYTES);
            services.push((
                "grpc.reflection.v1alpha.ServerReflection",
                BoxCloneSyncService::new(reflection),
            ));
        }
        Self(services)
    }

    pub(super) async fn answer<B>(
        &self,
        name: &str,
        request: Request<B>,
    ) -> Result<Response<Content>, Refusal>
    where
        B: Body<Data = Bytes> + Send + 'static,
        B::Error: std::error::Error + Send + Sync + 'static,
    {
        let found = self.0.iter().find(|(known, _)| *known == name);
        let (_, service) = found.ok_or(Refusal::NoSuchPath)?;
        let answered = service.clone().oneshot(request.map(Messages::new)).await;
        let Ok(response) = answered;
        Ok(response.map(Content::Messages))
    }
}

fn reflection<'b>() -> Builder<'b> {
    Builder::configure()
        .register_encoded_file_descriptor_set(DESCRIPTORS)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
}
