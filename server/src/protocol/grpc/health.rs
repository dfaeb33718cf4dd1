//! Health as gRPC's own clients and Kubernetes ask for it.

use std::sync::Arc;

use futures::StreamExt as _;
use futures::stream::{self, BoxStream};
use tokio::sync::watch;
use tonic::{Request, Response, Status};
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse, health_server};

use super::INFERENCE;
use crate::pages::{Readiness, State};

#[derive(Debug)]
pub(super) struct Health {
    readiness: Arc<Readiness>,
}

impl Health {
    pub(super) fn new(readiness: Arc<Readiness>) -> Self {
        Self { readiness }
    }
}

/// Whether we know a service: the one that there is, which may be unnamed.
fn is_known(request: &Request<HealthCheckRequest>) -> bool {
    let service = request.get_ref().service.as_str();
    service.is_empty() || service == INFERENCE
}

fn told(status: ServingStatus) -> HealthCheckResponse {
    HealthCheckResponse {
        status: status.into(),
    }
}

fn status(state: State) -> ServingStatus {
    match state {
        State::Ready => ServingStatus::Serving,
        State::Starting | State::Draining => ServingStatus::NotServing,
    }
}

#[tonic::async_trait]
impl health_server::Health for Health {
    type WatchStream = BoxStream<'static, Result<HealthCheckResponse, Status>>;

    async fn check(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<HealthCheckResponse>, Status> {
        if !is_known(&request) {
            return Err(Status::not_found("there is no such service"));
        }
        let state = *self.readiness.watch().borrow();
        Ok(Response::new(told(status(state))))
    }

    async fn watch(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let states = if is_known(&request) {
            states(self.readiness.watch()).boxed()
        } else {
            // There will never be one, and the protocol has clients wait for it.
            let unknown = stream::iter([Ok(told(ServingStatus::ServiceUnknown))]);
            unknown.chain(stream::pending()).boxed()
        };
        Ok(Response::new(states))
    }
}

/// The state, and the next ones. Nothing comes after the last: a stream without end would hold up the drain.
fn states(
    states: watch::Receiver<State>,
) -> impl futures::Stream<Item = Result<HealthCheckResponse, Status>> {
    stream::unfold((states, None), async |(mut states, last)| {
        if last == Some(State::Draining) {
            return None;
        }
        let next = states.wait_for(|state| Some(*state) != last).await;
        let next = next.map(|state| *state).ok()?;
        Some((Ok(told(status(next))), (states, Some(next))))
    })
}

#[cfg(test)]
mod tests {
    use super::health_server::Health as _;
    use super::*;

    fn asked(service: &str) -> Request<HealthCheckRequest> {
        Request::new(HealthCheckRequest {
            service: service.into(),
        })
    }

    #[tokio::test]
    async fn health_is_whether_calls_may_be_sent() {
        let readiness = Arc::new(Readiness::default());
        let health = Health::new(readiness.clone());
        for service in ["", INFERENCE] {
            let answer = health.check(asked(service)).await.unwrap().into_inner();
            assert_eq!(answer.status(), ServingStatus::NotServing);
        }
        readiness.ready();
        let answer = health.check(asked("")).await.unwrap().into_inner();
        assert_eq!(answer.status(), ServingStatus::Serving);
        assert!(health.check(asked("other")).await.is_err());
    }

    #[tokio::test]
    async fn who_watches_is_told_of_each_change_until_the_last() {
        let readiness = Arc::new(Readiness::default());
        let health = Health::new(readiness.clone());
        let mut states = health.watch(asked("")).await.unwrap().into_inner();
        let mut next = async || Some(states.next().await?.unwrap().status());
        assert_eq!(next().await, Some(ServingStatus::NotServing));
        readiness.ready();
        assert_eq!(next().await, Some(ServingStatus::Serving));
        readiness.draining();
        assert_eq!(next().await, Some(ServingStatus::NotServing));
        assert_eq!(next().await, None);
    }
}
