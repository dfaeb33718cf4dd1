//! The driver's connection to a scheduler: its calls, and its pages.

use std::collections::HashSet;
use std::fmt;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use ballista_core::serde::protobuf::job_status::Status;
use ballista_core::serde::protobuf::scheduler_grpc_client::SchedulerGrpcClient;
use ballista_core::serde::protobuf::{
    CancelJobParams, ExecuteQueryParams, GetJobStatusParams, execute_query_result,
};
use ballista_core::version::insert_version_header;
use http_body_util::BodyExt as _;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use tonic::body::Body;
use tonic::codegen::http::Request;
use tonic::transport::{Channel, Endpoint};
use tower::ServiceExt as _;

use super::MOST_MESSAGE_BYTES;
use super::credentials::{Credentials, Keys};
use super::listen::only_on_this_machine;
use super::tunnel::{Tunnels, closed};
use crate::Error;
use crate::job::ClusterAt;

/// A cluster that can do jobs.
#[derive(Debug, Clone)]
pub(crate) struct Cluster {
    /// `HOST:PORT` of its scheduler.
    address: String,
    channel: Channel,
    /// The ways to its parts, if they are on other machines.
    pub(super) tunnels: Option<Arc<Tunnels>>,
    /// Tasks that it can do at the same time.
    slots: usize,
}

/// Parts of a table for each slot: when an executor is lost, or one part takes longer than the
/// others, there is not much that the rest waits for. Each part is a file of the output, too.
const PARTS_PER_SLOT: usize = 4;

/// How long a scheduler has to take a connection, and to answer.
const CONNECT_WITHIN: Duration = Duration::from_secs(5);
const ANSWER_WITHIN: Duration = Duration::from_secs(20);

/// An executor, as far as it matters here.
#[derive(Debug, Deserialize)]
struct ExecutorSeen {
    id: String,
    specification: Specification,
}

#[derive(Debug, Deserialize)]
struct Specification {
    vcores: usize,
}

impl Cluster {
    /// Looks for the scheduler and for its executors.
    pub(crate) async fn connect(at: &ClusterAt) -> Result<Self, Error> {
        let url = &at.scheduler;
        let address = url.strip_prefix("df://").ok_or_else(|| Error::Cluster {
            address: url.clone(),
            reason: "is not written as `df://HOST:PORT`".into(),
        })?;
        let tunnels = match &at.credentials {
            Some(files) => Some(tunnels(address, files).await?),
            None => None,
        };
        let channel = match &tunnels {
            Some(tunnels) => through(address, tunnels).await?,
            None => connected(address).await?,
        };
        let mut cluster = Self {
            address: address.to_owned(),
            channel,
            tunnels,
            slots: 0,
        };
        let executors = cluster.executors().await?;
        let slots = executors.iter().map(|one| one.specification.vcores);
        cluster.slots = slots.sum();
        match cluster.slots {
            0 => Err(cluster.wrong("has no executors")),
            _ => Ok(cluster),
        }
    }

    async fn executors(&self) -> Result<Vec<ExecutorSeen>, Error> {
        self.page("/api/executors").await
    }

    /// The names of its executors.
    pub(super) async fn executor_ids(&self) -> Result<HashSet<String>, Error> {
        let executors = self.executors().await?;
        Ok(executors.into_iter().map(|one| one.id).collect())
    }

    /// Into how many parts it takes a table, unless it is told.
    pub(crate) fn usual_partitions(&self) -> NonZeroUsize {
        NonZeroUsize::MIN.saturating_add((self.slots * PARTS_PER_SLOT).saturating_sub(1))
    }

    /// Something is the matter with it; `what` begins with a verb.
    pub(super) fn wrong(&self, what: impl fmt::Display) -> Error {
        Error::Cluster {
            address: self.address.clone(),
            reason: what.to_string(),
        }
    }

    /// Hands a plan in; gives the scheduler's name for the job.
    pub(super) async fn submit(&self, query: ExecuteQueryParams) -> Result<String, Error> {
        let mut request = tonic::Request::new(query);
        insert_version_header(request.metadata_mut());
        let answer = self.calls().execute_query(request).await;
        let answer = answer.map_err(|status| self.wrong(refused(&status)))?;
        match answer.into_inner().result {
            Some(execute_query_result::Result::Success(taken)) => Ok(taken.job_id),
            other => Err(self.wrong(format_args!("does not take the job: {other:?}"))),
        }
    }

    /// What became of a job. None when the scheduler does not know it, or not yet.
    pub(super) async fn status(&self, job: &str) -> Result<Option<Status>, Error> {
        let asked = GetJobStatusParams { job_id: job.into() };
        let answer = self.calls().get_job_status(asked).await;
        let answer = answer.map_err(|status| self.wrong(refused(&status)))?;
        Ok(answer.into_inner().status.and_then(|status| status.status))
    }

    /// Ends the tasks of a job.
    pub(super) async fn cancel(&self, job: &str) -> Result<(), Error> {
        let asked = CancelJobParams { job_id: job.into() };
        let answer = self.calls().cancel_job(asked).await;
        answer
            .map(drop)
            .map_err(|status| self.wrong(refused(&status)))
    }

    /// A page of the scheduler's, which is JSON.
    pub(super) async fn page<P: DeserializeOwned>(&self, path: &str) -> Result<P, Error> {
        let request = Request::get(path)
            .body(Body::empty())
            .map_err(|error| self.wrong(error))?;
        let answer = self.channel.clone().oneshot(request).await;
        let answer =
            answer.map_err(|error| self.wrong(format_args!("does not answer: {error}")))?;
        let body = answer.into_body().collect().await;
        let body = body.map_err(|error| self.wrong(format_args!("does not answer: {error}")))?;
        serde_json::from_slice(&body.to_bytes())
            .map_err(|error| self.wrong(format_args!("gives another `{path}`: {error}")))
    }

    fn calls(&self) -> SchedulerGrpcClient<Channel> {
        SchedulerGrpcClient::new(self.channel.clone())
            .max_decoding_message_size(MOST_MESSAGE_BYTES as usize)
            .max_encoding_message_size(MOST_MESSAGE_BYTES as usize)
    }
}

/// The ways to the parts of a cluster, once its scheduler has let us in.
async fn tunnels(address: &str, files: &Credentials) -> Result<Arc<Tunnels>, Error> {
    let tunnels = Tunnels::new(Keys::read(files)?).map_err(|error| closed(address, &error))?;
    let knocked = tunnels.knock(address).await;
    knocked.map_err(|error| closed(address, &error))?;
    Ok(tunnels)
}

async fn through(address: &str, tunnels: &Tunnels) -> Result<Channel, Error> {
    let endpoint = tunnels.endpoint(address);
    let endpoint = endpoint.map_err(|error| closed(address, &error))?;
    let channel = endpoint.connect().await;
    channel.map_err(|error| Error::Cluster {
        address: address.to_owned(),
        reason: format!("does not answer: {error}"),
    })
}

async fn connected(address: &str) -> Result<Channel, Error> {
    let wrong = |reason: String| Error::Cluster {
        address: address.to_owned(),
        reason,
    };
    only_on_this_machine(address).await?;
    let endpoint = Endpoint::from_shared(format!("http://{address}"));
    let endpoint = endpoint.map_err(|error| wrong(format!("is not an address: {error}")))?;
    endpoint
        .connect_timeout(CONNECT_WITHIN)
        .timeout(ANSWER_WITHIN)
        .connect()
        .await
        .map_err(|_| wrong("does not answer".into()))
}

fn refused(status: &tonic::Status) -> String {
    format!("does not answer as it should: {}", status.message())
}
