//! The store as others on a cluster see it: the bytes of its envelopes, by their digests.

use std::io;

use async_trait::async_trait;
use batch::{Lender, Lent};
use envelope_format::Digest;

use crate::error::Error;
use crate::trust;
use crate::wiring::Wiring;

/// Lends the envelopes of the store.
pub(crate) struct Store(pub(crate) Wiring);

#[async_trait]
impl Lender for Store {
    async fn lend(&self, digest: &Digest) -> io::Result<Option<Lent>> {
        // Looking into a store that is not there would make it.
        if !self.0.settings.store.exists() {
            return Ok(None);
        }
        match self.lent(digest).await {
            Ok(lent) => Ok(Some(lent)),
            Err(Error::Registry(registry::Error::NotFound { .. })) => Ok(None),
            Err(error) => Err(io::Error::other(error.to_string())),
        }
    }
}

impl Store {
    async fn lent(&self, digest: &Digest) -> Result<Lent, Error> {
        let found = self.0.find(&digest.to_string()).await?;
        let path = found.envelope.path();
        let attestation = trust::read(&trust::beside(path))?;
        let opened = async {
            let file = tokio::fs::File::open(path).await?;
            let bytes = file.metadata().await?.len();
            Ok((file, bytes))
        };
        let (file, bytes) = opened.await.map_err(Error::io("read", path))?;
        Ok(Lent {
            bytes,
            attestation,
            reader: Box::new(file),
        })
    }
}
