//! The executor: carries tasks out, with the functions of any envelope that it can get.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use ballista_core::RuntimeProducer;
use ballista_core::config::TaskSchedulingPolicy;
use ballista_core::extension::SessionConfigExt as _;
use ballista_executor::executor_process::{ExecutorProcessConfig, start_executor_process};
use datafusion::prelude::SessionConfig;
use futures::FutureExt as _;
use futures::future::BoxFuture;
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;

use super::MOST_MESSAGE_BYTES;
use super::codec::{LogicalCodec, PhysicalCodec};
use super::credentials::{Credentials, Keys};
use super::engine::Engine;
use super::envelopes::{Envelopes, Ready};
use super::lending::{Lender, OfScheduler};
use super::listen::{HERE, host_and_port, in_url, only_here, only_on_this_machine};
use super::reach::{Reach, lead};
use super::tunnel::Tunnels;
use crate::durable::DurableStore;
use crate::plan::Callables;
use crate::{Error, Settings, Stores};

/// An executor of a cluster.
pub struct Executor {
    /// The scheduler, as `HOST:PORT`.
    pub scheduler: String,
    /// The address of this machine at which others reach the executor.
    pub listen: IpAddr,
    /// What lets it in, and others in to it. Without, all are on this machine.
    pub credentials: Option<Credentials>,
    /// Tasks at the same time, and workers of each envelope.
    pub slots: NonZeroUsize,
    /// Folder for what tasks give back until the driver has it. Its own, and empty.
    pub work_folder: PathBuf,
    /// Where envelopes come from.
    pub envelopes: Arc<dyn Envelopes>,
    /// Opens the stores that tables are in.
    pub stores: Stores,
}

impl fmt::Debug for Executor {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Executor")
            .field("scheduler", &self.scheduler)
            .field("listen", &self.listen)
            .field("slots", &self.slots)
            .finish_non_exhaustive()
    }
}

/// How often an executor says that it is there.
pub(super) const HEARTBEAT_SECONDS: u64 = 3;
/// How long an executor waits for its scheduler to be there.
const CONNECT_WITHIN: Duration = Duration::from_secs(20);
/// How often it looks.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// Between the goodbye, on which the scheduler gives an executor's tasks to others, and their end.
const GOODBYE: Duration = Duration::from_secs(1);
/// How long an executor that is asked to end may take to end its tasks.
const ENDING: Duration = Duration::from_secs(10);

impl Executor {
    /// Carries tasks out until the process is asked to end (SIGINT, SIGTERM) or the scheduler is
    /// gone; `stopping` resolves on the same request. Tasks that are under way then are given to
    /// other executors.
    ///
    /// # Errors
    /// [`Error::Exposed`] for an address that other machines reach when there are no credentials;
    /// [`Error::Credentials`]; [`Error::Cluster`] when the scheduler is not there.
    pub async fn run(self, stopping: impl Future<Output = ()>) -> Result<(), Error> {
        let wrong = |reason: String| Error::Cluster {
            address: self.scheduler.clone(),
            reason,
        };
        let stopped = CancellationToken::new();
        let mut reach = self.reach().await?;
        let doors = reach.doors();
        let settings = self.settings(stopped.clone(), &reach)?;
        let stopping = stopping.shared();
        tokio::select! {
            there = is_there(&self.scheduler) => there.map_err(wrong)?,
            () = stopping.clone() => return Ok(()),
        }
        let mut executing = begin(settings);
        let executed = async {
            let done = tokio::select! {
                done = &mut executing => done,
                () = said_goodbye(stopping.clone()) => {
                    stopped.cancel();
                    // A scheduler that does not answer keeps nobody here.
                    let ended = tokio::time::timeout(ENDING, executing).await;
                    ended.unwrap_or(Ok(()))
                }
            };
            done.map_err(|error| error.to_string())?;
            // It ends on the same request, perhaps before we have heard of it, or without its scheduler.
            let asked = tokio::time::timeout(GOODBYE, stopping).await;
            asked.map_err(|_| "is not heard of any more".to_owned())
        };
        let done = tokio::select! {
            done = executed => done,
            closed = lead(doors) => closed.map(|never| match never {}).map_err(|error| error.to_string()),
        };
        done.map_err(wrong)
    }

    async fn reach(&self) -> Result<Reach, Error> {
        let reach = match &self.credentials {
            Some(files) => Reach::outside(self.listen, Keys::read(files)?).await,
            None => {
                only_here(SocketAddr::new(self.listen, 0))?;
                only_on_this_machine(&self.scheduler).await?;
                Reach::here()
            }
        };
        reach.map_err(|error| Error::Cluster {
            address: self.listen.to_string(),
            reason: format!("gets no executor: {error}"),
        })
    }

    fn settings(
        &self,
        stopped: CancellationToken,
        reach: &Reach,
    ) -> Result<ExecutorProcessConfig, Error> {
        let (scheduler_host, scheduler_port) = host_and_port(&self.scheduler)?;
        let way = |tunnels: &Arc<Tunnels>| tunnels.always_to(self.scheduler.clone());
        Ok(ExecutorProcessConfig {
            bind_host: HERE.to_string(),
            external_host: Some(in_url(reach.host)),
            port: reach.results,
            grpc_port: reach.tasks,
            scheduler_host,
            scheduler_port,
            scheduler_connect_timeout_seconds: CONNECT_WITHIN.as_secs() as u16,
            vcores: self.slots.get(),
            // For sorting; each task gets its share.
            memory_pool_size: Some((Settings::SORT_BYTES.get() * self.slots.get()) as u64),
            // Only executors that tasks are pushed to can be told to end them.
            task_scheduling_policy: TaskSchedulingPolicy::PushStaged,
            work_dir: Some(self.work_folder.to_string_lossy().into_owned()),
            grpc_max_decoding_message_size: MOST_MESSAGE_BYTES,
            grpc_max_encoding_message_size: MOST_MESSAGE_BYTES,
            executor_heartbeat_interval_seconds: HEARTBEAT_SECONDS,
            override_execution_engine: Some(Arc::new(Engine::new(stopped))),
            override_config_producer: Some(self.configuration(reach)),
            override_runtime_producer: Some(durable_files(self.stores.clone())),
            override_logical_codec: Some(Arc::new(LogicalCodec::default())),
            override_physical_codec: Some(Arc::new(PhysicalCodec::default())),
            override_create_grpc_client_endpoint: reach.tunnels.as_ref().map(way),
            ..ExecutorProcessConfig::default()
        })
    }

    /// Sessions in which nodes find the functions.
    fn configuration(&self, reach: &Reach) -> ballista_core::ConfigProducer {
        let lender = reach.tunnels.as_ref().map(|tunnels| -> Arc<dyn Lender> {
            Arc::new(OfScheduler {
                tunnels: Arc::clone(tunnels),
                address: self.scheduler.clone(),
            })
        });
        let ready = Ready::new(Arc::clone(&self.envelopes), lender, self.slots);
        let callables = Arc::new(Callables::new(move |digest| Some(ready.find(digest))));
        Arc::new(move || SessionConfig::new_with_ballista().with_extension(Arc::clone(&callables)))
    }
}

/// Waits until the scheduler takes connections. The engine's executor would not hear meanwhile that it is to end.
async fn is_there(scheduler: &str) -> Result<(), String> {
    let connected = async {
        while let Err(error) = TcpStream::connect(scheduler).await {
            tracing::debug!(%error, scheduler, "the scheduler is not there yet");
            tokio::time::sleep(LOOK_EVERY).await;
        }
    };
    let there = tokio::time::timeout(CONNECT_WITHIN, connected).await;
    there.map_err(|_| format!("was not there for {} s", CONNECT_WITHIN.as_secs()))
}

async fn said_goodbye(stopping: impl Future<Output = ()>) {
    stopping.await;
    tokio::time::sleep(GOODBYE).await;
}

/// Boxed: who links this crate would compile the engine's executor again.
fn begin(settings: ExecutorProcessConfig) -> BoxFuture<'static, ballista_core::error::Result<()>> {
    Box::pin(start_executor_process(Arc::new(settings)))
}

/// What tasks write is on the disk before they say so.
fn durable_files(stores: Stores) -> RuntimeProducer {
    Arc::new(move |_| stores.environment(Arc::new(DurableStore::local())))
}
