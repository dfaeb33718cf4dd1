//! The scheduler: takes plans, makes tasks of them, moves those of executors that are lost.

use std::net::SocketAddr;
use std::sync::Arc;

use ballista_core::config::TaskSchedulingPolicy;
use ballista_core::extension::SessionConfigExt as _;
use ballista_core::utils::default_session_builder;
use ballista_scheduler::cluster::BallistaCluster;
use ballista_scheduler::config::SchedulerConfig;
use ballista_scheduler::scheduler_process::{create_scheduler, start_grpc_service_with_listener};
use datafusion::execution::{SessionState, SessionStateBuilder};
use datafusion::prelude::SessionConfig;
use datafusion_proto::protobuf::{LogicalPlanNode, PhysicalPlanNode};
use futures::future::BoxFuture;
use tokio::net::TcpListener;

use super::MOST_MESSAGE_BYTES;
use super::codec::{LogicalCodec, PhysicalCodec};
use super::credentials::{Credentials, Keys};
use super::door::{Door, Inside};
use super::lending::Lender;
use super::listen::{HERE, in_url, only_here};
use super::tunnel::Tunnels;
use crate::Error;
use crate::plan::EnvelopeQueryPlanner;

/// A scheduler that listens and does not answer yet. Its jobs are gone when it ends.
#[derive(Debug)]
pub struct Scheduler {
    /// What listens to this machine only.
    listener: TcpListener,
    /// Where it is reached.
    address: SocketAddr,
    outside: Option<Outside>,
}

/// The way in for other machines, and the ways to them.
#[derive(Debug)]
struct Outside {
    door: Door,
    tunnels: Arc<Tunnels>,
}

/// An executor that was not heard of for so long is lost, and its tasks go to others. They report
/// every [`super::executor::HEARTBEAT_SECONDS`].
const LOST_AFTER_SECONDS: u64 = 20;
/// How often lost executors are looked for.
const LOOK_EVERY_SECONDS: u64 = 5;
/// When the last executor is lost, jobs wait so long for another one.
const WITHOUT_EXECUTORS_SECONDS: u64 = 60;

impl Scheduler {
    /// Listens at `address`; to other machines only with credentials.
    ///
    /// # Errors
    /// [`Error::Exposed`] for an address that other machines reach when there are no credentials;
    /// [`Error::Credentials`]; [`Error::Cluster`] when nobody can listen there.
    pub async fn bind(
        address: SocketAddr,
        credentials: Option<&Credentials>,
    ) -> Result<Self, Error> {
        let wrong = |error: std::io::Error| Error::Cluster {
            address: address.to_string(),
            reason: format!("cannot listen there: {error}"),
        };
        let Some(files) = credentials else {
            let listener = TcpListener::bind(only_here(address)?).await;
            let listener = listener.map_err(wrong)?;
            return Ok(Self {
                address: listener.local_addr().map_err(wrong)?,
                listener,
                outside: None,
            });
        };
        let keys = Keys::read(files)?;
        let door = Door::bind(address, Arc::clone(&keys))
            .await
            .map_err(wrong)?;
        Ok(Self {
            listener: TcpListener::bind((HERE, 0)).await.map_err(wrong)?,
            address: door.address().map_err(wrong)?,
            outside: Some(Outside {
                door,
                tunnels: Tunnels::new(keys).map_err(wrong)?,
            }),
        })
    }

    /// Where it is reached.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Answers drivers and executors, until it is dropped. `lender` is who lends envelopes to executors on
    /// other machines; those on this one see what it sees.
    ///
    /// # Errors
    /// [`Error::Cluster`].
    pub async fn run(self, lender: Option<Arc<dyn Lender>>) -> Result<(), Error> {
        let Self {
            listener,
            address,
            outside,
        } = self;
        let failed = |reason: String| Error::Cluster {
            address: address.to_string(),
            reason: format!("cannot schedule: {reason}"),
        };
        let speaker = listener.local_addr();
        let inside = Inside {
            speaker: speaker.map_err(|error| failed(error.to_string()))?,
            lender,
        };
        let tunnels = outside.as_ref().map(|outside| &outside.tunnels);
        let scheduling = begin(listener, settings(address, tunnels));
        let scheduled = match outside {
            None => scheduling.await,
            Some(Outside { door, .. }) => tokio::select! {
                scheduled = scheduling => scheduled,
                never = door.lead_to(inside) => match never {},
            },
        };
        scheduled.map_err(|error| failed(error.to_string()))
    }
}

/// Boxed: who links this crate would compile the engine's scheduler again.
fn begin(
    listener: TcpListener,
    settings: SchedulerConfig,
) -> BoxFuture<'static, ballista_core::error::Result<()>> {
    Box::pin(schedule(listener, Arc::new(settings)))
}

async fn schedule(
    listener: TcpListener,
    config: Arc<SchedulerConfig>,
) -> ballista_core::error::Result<()> {
    let cluster = BallistaCluster::new_from_config(&config).await?;
    let scheduler = create_scheduler::<LogicalPlanNode, PhysicalPlanNode>(cluster, config).await?;
    start_grpc_service_with_listener(listener, scheduler).await
}

fn settings(address: SocketAddr, tunnels: Option<&Arc<Tunnels>>) -> SchedulerConfig {
    SchedulerConfig {
        override_create_grpc_client_endpoint: tunnels.map(Tunnels::by_address),
        bind_host: address.ip().to_string(),
        external_host: in_url(address.ip()),
        bind_port: address.port(),
        // Only executors that tasks are pushed to can be told to end them.
        scheduling_policy: TaskSchedulingPolicy::PushStaged,
        grpc_server_max_decoding_message_size: MOST_MESSAGE_BYTES,
        grpc_server_max_encoding_message_size: MOST_MESSAGE_BYTES,
        grpc_client_max_message_size: MOST_MESSAGE_BYTES,
        executor_timeout_seconds: LOST_AFTER_SECONDS,
        expire_dead_executor_interval_seconds: LOOK_EVERY_SECONDS,
        no_executors_grace_period_seconds: WITHOUT_EXECUTORS_SECONDS,
        // No page on the web may ask for anything. An origin is never empty.
        cors_allowed_origins: "null://".to_owned(),
        override_config_producer: Some(Arc::new(SessionConfig::new_with_ballista)),
        override_session_builder: Some(Arc::new(session)),
        override_logical_codec: Some(Arc::new(LogicalCodec::default())),
        override_physical_codec: Some(Arc::new(PhysicalCodec::default())),
        ..SchedulerConfig::default()
    }
}

/// A session that can plan our nodes.
fn session(config: SessionConfig) -> datafusion::error::Result<SessionState> {
    let usual = default_session_builder(config)?;
    Ok(SessionStateBuilder::new_from_existing(usual)
        .with_query_planner(Arc::new(EnvelopeQueryPlanner))
        .build())
}
