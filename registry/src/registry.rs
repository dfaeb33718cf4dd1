//! The front: one store of envelopes.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use envelope_format::{Digest, Envelope, Manifest};
use sqlx::SqlitePool;

use crate::durable::create_folder;
use crate::envelopes::{Envelopes, VerifiedFile};
use crate::error::database;
use crate::reference::is_digits;
use crate::{Error, Reference, TagQuery, Version, not_found, tags, versions};

/// How many digests an ambiguous reference lists.
const MAX_MATCHES: usize = 5;

/// A store of envelopes in a folder, which any number of processes may use at once.
///
/// ```text
/// registry.sqlite            names, versions, tags
/// envelopes/<hex>.envelope   the bytes, each file named by its digest and never changed
/// staging/                   bytes that are being written
/// ```
#[derive(Debug)]
pub struct Registry {
    root: PathBuf,
    rows: SqlitePool,
    envelopes: Envelopes,
}

impl Registry {
    /// Opens the store in the folder `root`; makes it if it is not there.
    ///
    /// # Errors
    /// [`Error::Io`] when the folder cannot be made, [`Error::Path`] when its path is not Unicode,
    /// [`Error::NewerStore`], [`Error::OldSqlite`], [`Error::Database`].
    pub async fn open(root: &Path) -> Result<Self, Error> {
        if root.to_str().is_none() {
            return Err(Error::Path {
                path: root.to_owned(),
            });
        }
        let failed = |source| Error::Io {
            doing: crate::error::OPENING,
            path: root.to_owned(),
            source,
        };
        create_folder(root).map_err(failed)?;
        let envelopes = Envelopes::open(root).map_err(failed)?;
        Ok(Self {
            root: root.to_owned(),
            rows: crate::database::open(root).await?,
            envelopes,
        })
    }

    /// Saves the envelope in `file` as the next version of its name; its tags begin as the
    /// manifest's. `now` becomes the time of the version.
    ///
    /// The whole envelope is verified before anything is stored. Saving an envelope again gives
    /// the version that it already has. When this returns, both bytes and row are on the disk.
    ///
    /// # Errors
    /// [`Error::Envelope`], [`Error::Tag`], [`Error::Changed`], [`Error::Io`], [`Error::Store`],
    /// [`Error::Database`]; in each case there is no new version.
    pub async fn save(&self, file: &Path, now: SystemTime) -> Result<Version, Error> {
        let verified = VerifiedFile::open(file).await?;
        tags::check_all(&verified.manifest.tags)?;
        self.envelopes.sweep(now).await?;
        self.envelopes.put(&verified).await?;
        self.add_version(&verified.manifest, &verified.digest, now)
            .await
    }

    /// A new file in the store to write an envelope into, for [`Registry::adopt`]. If nothing becomes
    /// of it, delete it; what is forgotten is swept away a day later.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub fn stage(&self) -> Result<PathBuf, Error> {
        self.envelopes.stage_path()
    }

    /// As [`Registry::save`], for a file that [`Registry::stage`] gave and that this process has just
    /// written with `envelope-format`: it is moved instead of copied, and its members, whose digests
    /// were computed a moment ago, are not hashed again.
    ///
    /// # Errors
    /// As [`Registry::save`].
    pub async fn adopt(&self, file: &Path, now: SystemTime) -> Result<Version, Error> {
        let (manifest, digest) = described(file)?;
        tags::check_all(&manifest.tags)?;
        self.envelopes.sweep(now).await?;
        self.envelopes.adopt(file, &digest).await?;
        self.add_version(&manifest, &digest, now).await
    }

    /// The versions that `query` matches, newest first, at most `limit` of them.
    ///
    /// # Errors
    /// [`Error::Database`].
    pub async fn find(&self, query: &TagQuery, limit: usize) -> Result<Vec<Version>, Error> {
        versions::find(&self.rows, query, limit).await
    }

    /// The version that `reference` means: of several, the latest. A file means the version that
    /// has its digest.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::Ambiguous`], [`Error::Database`]; for a file also
    /// [`Error::Io`] and [`Error::Envelope`].
    pub async fn resolve(&self, reference: &Reference) -> Result<Version, Error> {
        let found = match reference {
            Reference::Path(path) => versions::by_digest(&self.rows, &digest(path)?).await?,
            Reference::Digest(digest) => versions::by_digest(&self.rows, digest).await?,
            Reference::DigestPrefix(digits) => self.by_prefix(digits, reference).await?,
            Reference::Latest(name) => match self.find(&TagQuery::named(name), 1).await?.pop() {
                // `ls` shows the beginnings of digests.
                None if is_digits(name) => self.by_prefix(name, reference).await?,
                found => found,
            },
            Reference::Numbered { name, version } => {
                versions::numbered(&self.rows, name, *version).await?
            }
            Reference::Query(query) => self.find(query, 1).await?.pop(),
        };
        match found {
            Some(version) => Ok(version),
            None => Err(not_found::explain(&self.rows, &self.root, reference).await?),
        }
    }

    /// Changes tags of one version, all at once: `Some` sets, `None` removes. Gives the version as
    /// it is then.
    ///
    /// # Errors
    /// [`Error::Tag`], [`Error::NotFound`], [`Error::Database`]; in each case nothing has changed.
    pub async fn set_tags(
        &self,
        digest: &Digest,
        changes: &BTreeMap<String, Option<String>>,
    ) -> Result<Version, Error> {
        for (key, value) in changes {
            tags::check(key, value.as_deref().unwrap_or_default())?;
        }
        let reference = Reference::Digest(*digest);
        let mut transaction = self
            .rows
            .begin_with("BEGIN IMMEDIATE")
            .await
            .map_err(database("begin to write"))?;
        let Some(id) = versions::id(&mut transaction, digest).await? else {
            return Err(not_found::explain(&self.rows, &self.root, &reference).await?);
        };
        for (key, value) in changes {
            match value {
                Some(value) => tags::set(&mut transaction, id, key, value).await?,
                None => tags::remove(&mut transaction, id, key).await?,
            }
        }
        transaction
            .commit()
            .await
            .map_err(database("commit tags"))?;
        self.resolve(&reference).await
    }

    /// The file that holds an envelope. It is never changed; do not write to it.
    ///
    /// # Errors
    /// [`Error::BytesMissing`].
    pub fn envelope_path(&self, digest: &Digest) -> Result<PathBuf, Error> {
        let path = self.envelopes.path(digest)?;
        if path.is_file() {
            Ok(path)
        } else {
            Err(Error::BytesMissing {
                digest: *digest,
                path,
            })
        }
    }

    /// Waits until nothing is under way, and closes the store.
    pub async fn close(self) {
        self.rows.close().await;
    }

    /// The write lock is taken before the number is chosen, so numbers are dense.
    async fn add_version(
        &self,
        manifest: &Manifest,
        digest: &Digest,
        now: SystemTime,
    ) -> Result<Version, Error> {
        let mut transaction = self
            .rows
            .begin_with("BEGIN IMMEDIATE")
            .await
            .map_err(database("begin to write"))?;
        if versions::id(&mut transaction, digest).await?.is_none() {
            versions::insert(&mut transaction, manifest, digest, milliseconds(now)).await?;
        }
        transaction
            .commit()
            .await
            .map_err(database("commit a version"))?;
        self.resolve(&Reference::Digest(*digest)).await
    }

    async fn by_prefix(
        &self,
        digits: &str,
        reference: &Reference,
    ) -> Result<Option<Version>, Error> {
        let mut found = versions::by_prefix(&self.rows, digits, MAX_MATCHES).await?;
        if found.len() > 1 {
            let matches = found.iter().map(|version| version.digest).collect();
            return Err(Error::Ambiguous {
                prefix: reference.to_string(),
                matches,
            });
        }
        Ok(found.pop())
    }
}

fn digest(path: &Path) -> Result<Digest, Error> {
    described(path).map(|(_, digest)| digest)
}

fn described(path: &Path) -> Result<(Manifest, Digest), Error> {
    let file = std::fs::File::open(path).map_err(|source| Error::Io {
        doing: "read",
        path: path.to_owned(),
        source,
    })?;
    let envelope = Envelope::open(file).map_err(|source| Error::Envelope {
        path: path.to_owned(),
        source,
    })?;
    Ok((envelope.manifest().clone(), envelope.digest()))
}

/// The last millisecond that RFC 3339 can write: the end of the year 9999.
const LAST_MS: u128 = 253_402_300_799_999;

/// Milliseconds from 1970-01-01. A clock outside 1970 to 9999 is wrong; its nearest end will do.
fn milliseconds(time: SystemTime) -> i64 {
    let since = time
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or(Duration::ZERO);
    i64::try_from(since.as_millis().min(LAST_MS)).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use envelope_format::{Content, Draft};

    use super::*;

    #[tokio::test]
    async fn bytes_without_a_row_are_not_a_version() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("a.envelope");
        let mut draft = Draft::new(Manifest::example());
        for member in ["environment/pylock.toml", "state/functions.pkl"] {
            draft.add(
                member.parse().unwrap(),
                Content::Text(b"lock-version = \"1.0\"\n".to_vec()),
            );
        }
        draft
            .write(&mut std::fs::File::create(&file).unwrap())
            .unwrap();
        let registry = Registry::open(&folder.path().join("store")).await.unwrap();

        let verified = VerifiedFile::open(&file).await.unwrap();
        registry.envelopes.put(&verified).await.unwrap();
        assert!(registry.envelope_path(&verified.digest).is_ok());
        assert!(
            registry
                .find(&TagQuery::default(), 1)
                .await
                .unwrap()
                .is_empty()
        );

        let saved = registry.save(&file, SystemTime::UNIX_EPOCH).await.unwrap();
        assert_eq!((saved.version, saved.digest), (1, verified.digest));
    }

    #[test]
    fn a_wrong_clock_gives_a_time_that_can_be_written() {
        let late = SystemTime::UNIX_EPOCH + Duration::from_secs(1 << 40);
        assert_eq!(milliseconds(late), 253_402_300_799_999);
        assert_eq!(
            milliseconds(SystemTime::UNIX_EPOCH - Duration::from_secs(1)),
            0
        );
    }
}
