//! Puts the crates together: from what was typed to an envelope, and from there to workers.

use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::sync::Arc;

use batch::Stores;
use envelope_format::Manifest;
use registry::{Reference, Registry, Version};
use runtime::{EnvelopeFile, Environments, Runtime, Sandbox};

use crate::error::Error;
use crate::progress::Waiting;
use crate::settings::{Settings, object_storage};
use crate::terminal::Terminal;
use crate::trust;

/// What the commands work with.
#[derive(Debug, Clone)]
pub(crate) struct Wiring {
    pub(crate) settings: Settings,
    pub(crate) terminal: Terminal,
}

/// An envelope, and the version that it is, if it was found in the store.
#[derive(Debug)]
pub(crate) struct Found {
    pub(crate) envelope: Arc<EnvelopeFile>,
    pub(crate) version: Option<Version>,
}

impl Found {
    /// How people call it: `ltv:7`, or the name in a file.
    pub(crate) fn title(&self) -> String {
        match &self.version {
            Some(version) => format!("{}:{}", version.name, version.version),
            None => self.envelope.manifest().name.clone(),
        }
    }
}

impl Wiring {
    pub(crate) async fn registry(&self) -> Result<Registry, Error> {
        Ok(Registry::open(&self.settings.store).await?)
    }

    /// The envelope that is meant. A file is opened as it is; it need not be in the store.
    pub(crate) async fn find(&self, reference: &str) -> Result<Found, Error> {
        let reference: Reference = reference.parse()?;
        if let Reference::Path(path) = reference {
            return Ok(Found {
                envelope: Arc::new(EnvelopeFile::open(path)?),
                version: None,
            });
        }
        let registry = self.registry().await?;
        let version = registry.resolve(&reference).await?;
        let path = registry.envelope_path(&version.digest)?;
        registry.close().await;
        Ok(Found {
            envelope: Arc::new(EnvelopeFile::open(path)?),
            version: Some(version),
        })
    }

    /// The envelope that is meant, to be run: where trust is asked for, somebody vouches for it.
    pub(crate) async fn find_trusted(&self, reference: &str) -> Result<Found, Error> {
        let found = self.find(reference).await?;
        if let Some(keys) = &self.settings.trust {
            trust::check(&found.envelope, keys, None)?;
        }
        Ok(found)
    }

    /// How environments are made real for `manifest`.
    pub(crate) fn environments(&self, manifest: &Manifest) -> Environments {
        Environments {
            cache: self.settings.cache.clone(),
            uv: self.settings.uv.clone(),
            interpreters: self.interpreters(manifest),
            offline: self.settings.offline,
        }
    }

    /// Where tables can be.
    pub(crate) fn stores(&self) -> Stores {
        Stores::new(object_storage())
    }

    /// Workers of an envelope, in its own environment.
    pub(crate) async fn start(
        &self,
        envelope: &Arc<EnvelopeFile>,
        workers: RangeInclusive<usize>,
        sandbox: Sandbox,
        waiting: &Waiting,
    ) -> Result<Runtime, Error> {
        let environments = self.environments(envelope.manifest());
        let environment = environments
            .realise(envelope, &|step| waiting.step(step))
            .await?;
        waiting.step("starting workers");
        let runtime = Runtime::builder(Arc::clone(envelope), environment)
            .workers(workers)
            .sandbox(sandbox)
            .start()
            .await?;
        Ok(runtime)
    }

    /// Interpreters on the path that may be the right one, best first.
    pub(crate) fn interpreters(&self, manifest: &Manifest) -> Vec<PathBuf> {
        let names = [
            format!("python{}", manifest.environment.python.minor()),
            "python3".into(),
            "python".into(),
        ];
        let of_name = |name| {
            self.settings
                .path
                .iter()
                .map(move |folder: &PathBuf| folder.join(name))
        };
        names
            .iter()
            .filter_map(|name| of_name(name).find(|program| program.is_file()))
            .collect()
    }
}
