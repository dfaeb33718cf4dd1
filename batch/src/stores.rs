//! The stores that tables can be in: the local file system, and buckets that speak S3.
//!
//! This is the only place that opens a bucket. Where it is and what lets us in comes from outside (the
//! program hands on its variables `AWS_*`), and is not shown in any message.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use datafusion::error::{DataFusionError, Result as EngineResult};
use datafusion::execution::memory_pool::FairSpillPool;
use datafusion::execution::object_store::{ObjectStoreRegistry, ObjectStoreUrl};
use datafusion::execution::runtime_env::{RuntimeEnv, RuntimeEnvBuilder};
use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey};
use object_store::{BackoffConfig, ClientConfigKey, ObjectStore, RetryConfig};
use url::{Host, Url};

use crate::Error;
use crate::location::{Location, SCHEME};

/// A request that fails for a passing reason is made so many times again, within so much time.
const RETRIES: usize = 8;
const RETRIED_WITHIN: Duration = Duration::from_secs(60);
/// A server that is started anew is there again within some seconds, so waits are about 20 s in all: each is chosen
/// between the first and so many times the last.
const FIRST_WAIT: Duration = Duration::from_millis(250);
const WAIT_GROWS: f64 = 3.0;

/// What is needed to open the stores that tables are in. Copies share what is open.
#[derive(Clone, Default)]
pub struct Stores {
    settings: Arc<Vec<(AmazonS3ConfigKey, String)>>,
    open: Arc<Mutex<HashMap<String, Arc<dyn ObjectStore>>>>,
}

impl Stores {
    /// Stores as variables of the environment describe them: `AWS_ACCESS_KEY_ID`,
    /// `AWS_SECRET_ACCESS_KEY`, `AWS_SESSION_TOKEN`, `AWS_REGION`, `AWS_ENDPOINT_URL` and so on. Others
    /// are left alone.
    pub fn new(variables: impl IntoIterator<Item = (String, String)>) -> Self {
        let setting = |(name, value): (String, String)| {
            let is_ours = name.starts_with("AWS_") && !value.is_empty();
            let key = is_ours.then(|| name.to_ascii_lowercase().parse());
            Some((key?.ok()?, value))
        };
        Self {
            settings: Arc::new(variables.into_iter().filter_map(setting).collect()),
            open: Arc::default(),
        }
    }

    /// Buckets that are in this process.
    #[cfg(test)]
    pub(crate) fn with(name: &str, store: Arc<dyn ObjectStore>) -> Self {
        let stores = Self::default();
        stores.open.lock().unwrap().insert(name.to_owned(), store);
        stores
    }

    /// Understands a path, a `file://` URL, or `s3://BUCKET/PREFIX`.
    pub(crate) fn locate(&self, text: &str) -> Result<Location, Error> {
        match text.strip_prefix(SCHEME) {
            Some(place) => {
                let (name, key) = place.split_once('/').unwrap_or((place, ""));
                let refuse = |reason: String| Error::Location {
                    location: text.to_owned(),
                    reason,
                };
                let bucket = self.bucket(name).map_err(refuse)?;
                Location::in_bucket((name, bucket), key).map_err(refuse)
            }
            None => Location::local(text),
        }
    }

    /// The bucket `name`. It is not asked anything yet.
    fn bucket(&self, name: &str) -> Result<Arc<dyn ObjectStore>, String> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(bucket) = open.get(name) {
            return Ok(Arc::clone(bucket));
        }
        let bucket: Arc<dyn ObjectStore> = Arc::new(
            self.builder(name)?
                .build()
                .map_err(|error| error.to_string())?,
        );
        open.insert(name.to_owned(), Arc::clone(&bucket));
        Ok(bucket)
    }

    fn builder(&self, bucket: &str) -> Result<AmazonS3Builder, String> {
        if bucket.is_empty() {
            return Err("it names no bucket; write `s3://BUCKET/PREFIX`".into());
        }
        let settings = self.settings.iter().cloned();
        let builder = settings.fold(AmazonS3Builder::new(), |builder, (key, value)| {
            builder.with_config(key, value)
        });
        let builder = builder.with_bucket_name(bucket).with_retry(RetryConfig {
            max_retries: RETRIES,
            retry_timeout: RETRIED_WITHIN,
            backoff: BackoffConfig {
                init_backoff: FIRST_WAIT,
                base: WAIT_GROWS,
                ..BackoffConfig::default()
            },
        });
        Ok(match self.endpoint() {
            Some(endpoint) if is_plain_here(endpoint) => builder.with_allow_http(true),
            Some(endpoint) if endpoint.starts_with("http://") && !self.allows_plain() => {
                return Err(format!(
                    "the endpoint `{endpoint}` would get its rows unencrypted; use `https://`, or set \
                     `AWS_ALLOW_HTTP=true`"
                ));
            }
            Some(_) | None => builder,
        })
    }

    fn endpoint(&self) -> Option<&str> {
        let of = |wanted| self.setting(wanted);
        of(AmazonS3ConfigKey::S3Endpoint).or_else(|| of(AmazonS3ConfigKey::Endpoint))
    }

    fn allows_plain(&self) -> bool {
        let allowed = self.setting(AmazonS3ConfigKey::Client(ClientConfigKey::AllowHttp));
        allowed.is_some_and(|value| value.eq_ignore_ascii_case("true") || value == "1")
    }

    fn setting(&self, wanted: AmazonS3ConfigKey) -> Option<&str> {
        let found = self.settings.iter().find(|(key, _)| *key == wanted);
        found.map(|(_, value)| value.as_str())
    }

    /// What a session of the query engine reads and writes in; `files` are those of this machine.
    pub(crate) fn environment(&self, files: Arc<dyn ObjectStore>) -> EngineResult<Arc<RuntimeEnv>> {
        self.environments(files).build_arc()
    }

    /// The same for work that sorts rows: in so many bytes, and in temporary files.
    pub(crate) fn sorting(
        &self,
        files: Arc<dyn ObjectStore>,
        bytes: usize,
    ) -> EngineResult<Arc<RuntimeEnv>> {
        let environments = self.environments(files);
        let shared_out = Arc::new(FairSpillPool::new(bytes));
        environments.with_memory_pool(shared_out).build_arc()
    }

    fn environments(&self, files: Arc<dyn ObjectStore>) -> RuntimeEnvBuilder {
        let registry = Registry {
            stores: self.clone(),
            files,
        };
        RuntimeEnvBuilder::new().with_object_store_registry(Arc::new(registry))
    }
}

impl fmt::Debug for Stores {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        // What else there is may be secret.
        formatter
            .debug_struct("Stores")
            .field("endpoint", &self.endpoint())
            .finish_non_exhaustive()
    }
}

/// Whether what is sent to the endpoint does not leave this machine.
fn is_plain_here(endpoint: &str) -> bool {
    let url = Url::parse(endpoint).ok();
    let host = url
        .as_ref()
        .filter(|url| url.scheme() == "http")
        .and_then(Url::host);
    match host {
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        Some(Host::Domain(name)) => name == "localhost",
        None => false,
    }
}

/// Opens buckets when a plan asks for them: an executor learns only then which there are.
#[derive(Debug)]
struct Registry {
    stores: Stores,
    files: Arc<dyn ObjectStore>,
}

impl ObjectStoreRegistry for Registry {
    fn register_store(
        &self,
        _url: &Url,
        _store: Arc<dyn ObjectStore>,
    ) -> Option<Arc<dyn ObjectStore>> {
        // Nobody does: all stores are known.
        None
    }

    fn get_store(&self, url: &Url) -> EngineResult<Arc<dyn ObjectStore>> {
        if url.scheme() == "file" {
            return Ok(Arc::clone(&self.files));
        }
        let known = || {
            let name = url.as_str().strip_prefix(SCHEME)?;
            Some(self.stores.bucket(name.trim_end_matches('/')))
        };
        known()
            .unwrap_or_else(|| Err("tables cannot be there".into()))
            .map_err(|reason| DataFusionError::Configuration(format!("`{url}`: {reason}")))
    }
}

/// How plans name the store.
pub(crate) fn store_url(text: &str) -> EngineResult<ObjectStoreUrl> {
    ObjectStoreUrl::parse(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stores(variables: &[(&str, &str)]) -> Stores {
        let owned = |&(name, value): &(&str, &str)| (name.to_owned(), value.to_owned());
        Stores::new(variables.iter().map(owned))
    }

    const KEYS: [(&str, &str); 2] = [
        ("AWS_ACCESS_KEY_ID", "the key"),
        ("AWS_SECRET_ACCESS_KEY", "the secret"),
    ];

    #[test]
    fn rows_leave_this_machine_encrypted_unless_that_is_allowed() {
        let at = |endpoint, more: &[(&'static str, &'static str)]| {
            let variables = [&KEYS[..], &[("AWS_ENDPOINT_URL", endpoint)], more].concat();
            stores(&variables).locate("s3://b/t")
        };
        for here in [
            "http://127.0.0.1:9000",
            "http://localhost:1",
            "http://[::1]:1",
        ] {
            assert!(at(here, &[]).is_ok(), "{here}");
        }
        let error = at("http://10.0.0.1:9000", &[]).unwrap_err().to_string();
        assert!(error.contains("AWS_ALLOW_HTTP"), "{error}");
        assert!(at("http://10.0.0.1:9000", &[("AWS_ALLOW_HTTP", "true")]).is_ok());
        assert!(at("https://10.0.0.1:9000", &[]).is_ok());
    }

    #[test]
    fn secrets_are_not_shown() {
        let stores = stores(&KEYS);
        let shown = format!("{stores:?} {:?}", stores.locate("s3://b/t").unwrap());
        assert!(!shown.contains("the secret"), "{shown}");
    }

    #[test]
    fn a_place_without_a_bucket_is_refused() {
        for place in ["s3://", "s3:///t"] {
            let error = stores(&KEYS).locate(place).unwrap_err();
            assert!(matches!(error, Error::Location { .. }), "{error}");
        }
    }
}
