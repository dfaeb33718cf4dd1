//! Where a table is.

use std::fmt;
use std::io;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use futures::{StreamExt as _, TryStreamExt as _};
use object_store::path::Path as StorePath;
use object_store::{ObjectMeta, ObjectStore, ObjectStoreExt as _};
use url::Url;

use crate::Error;
use crate::durable::DurableStore;
use crate::opened::Opened;

/// What places in buckets begin with.
pub(crate) const SCHEME: &str = "s3://";

/// A store, and an absolute path in it: the local file system, or a bucket.
#[derive(Debug, Clone)]
pub(crate) struct Location {
    bucket: Option<Bucket>,
    path: PathBuf,
}

/// A bucket. Its keys are paths in it.
#[derive(Debug, Clone)]
pub(crate) struct Bucket {
    name: String,
    store: Arc<dyn ObjectStore>,
}

impl PartialEq for Location {
    fn eq(&self, other: &Self) -> bool {
        self.is_beside(other) && self.path == other.path
    }
}

impl Location {
    /// Understands a path or a `file://` URL.
    pub(crate) fn local(text: &str) -> Result<Self, Error> {
        let refuse = |reason: &str| Error::Location {
            location: text.to_owned(),
            reason: reason.to_owned(),
        };
        if text.is_empty() {
            return Err(refuse("it is empty"));
        }
        let path = match text.split_once("://") {
            None => PathBuf::from(text),
            Some(("file", _)) => Url::parse(text)
                .ok()
                .and_then(|url| url.to_file_path().ok())
                .ok_or_else(|| refuse("it is not a good `file://` URL"))?,
            Some((scheme, _)) => {
                return Err(refuse(&format!(
                    "`{scheme}://` is not supported, only paths, `file://` and `s3://` are"
                )));
            }
        };
        let path = std::path::absolute(path).map_err(|source| refuse(&source.to_string()))?;
        Ok(Self {
            bucket: None,
            path: without_dots(&path),
        })
    }

    /// The place `key` in a bucket.
    pub(crate) fn in_bucket(
        (name, store): (&str, Arc<dyn ObjectStore>),
        key: &str,
    ) -> Result<Self, String> {
        // The engine and the log's library would decode it, and look elsewhere.
        if key.contains(['%', '?', '#']) {
            return Err("a prefix with `%`, `?` or `#` is not supported".into());
        }
        let key = StorePath::parse(key.trim_end_matches('/')).map_err(|error| error.to_string())?;
        Ok(Self {
            bucket: Some(Bucket {
                name: name.to_owned(),
                store,
            }),
            path: Path::new("/").join(key.as_ref()),
        })
    }

    /// Understands a path or a `file://` URL.
    #[cfg(test)]
    pub(crate) fn parse(text: &str) -> Result<Self, Error> {
        crate::Stores::default().locate(text)
    }

    /// The path in its store.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The bucket, if it is in one.
    pub(crate) fn bucket(&self) -> Option<&Bucket> {
        self.bucket.as_ref()
    }

    /// Whether both are in the same store.
    pub(crate) fn is_beside(&self, other: &Self) -> bool {
        let name = |location: &Self| location.bucket().map(|bucket| bucket.name.clone());
        name(self) == name(other)
    }

    /// A place below.
    pub(crate) fn join(&self, below: &str) -> Self {
        Self {
            bucket: self.bucket.clone(),
            path: self.path.join(below),
        }
    }

    /// How messages call a path in the same store.
    pub(crate) fn named(&self, path: &Path) -> PathBuf {
        match &self.bucket {
            None => path.to_path_buf(),
            Some(Bucket { name, .. }) => format!("{SCHEME}{name}{}", path.display()).into(),
        }
    }

    /// Its store. What is written to it is safe when the write is done.
    pub(crate) fn store(&self) -> Arc<dyn ObjectStore> {
        match &self.bucket {
            None => Arc::new(DurableStore::local()),
            Some(bucket) => Arc::clone(&bucket.store),
        }
    }

    /// How plans call its store.
    pub(crate) fn store_name(&self) -> String {
        match &self.bucket {
            None => "file:///".to_owned(),
            Some(Bucket { name, .. }) => format!("{SCHEME}{name}"),
        }
    }

    /// Opens a file of its store. Blocks.
    pub(crate) fn open(&self, path: &Path) -> io::Result<Opened> {
        match &self.bucket {
            None => Ok(Opened::Here(std::fs::File::open(path)?)),
            Some(bucket) => {
                let path = store_path(path).map_err(io::Error::other)?;
                Opened::there(Arc::clone(&bucket.store), path)
            }
        }
    }

    /// Whether it is a file.
    pub(crate) async fn is_file(&self) -> Result<bool, Error> {
        let Some(bucket) = &self.bucket else {
            return Ok(self.path.is_file());
        };
        match bucket.store.head(&store_path(&self.path)?).await {
            Ok(_) => Ok(true),
            Err(object_store::Error::NotFound { .. }) => Ok(false),
            Err(error) => Err(self.unreadable(error)),
        }
    }

    /// Whether it is a folder. One in a bucket is there as long as it holds something.
    pub(crate) async fn is_folder(&self) -> Result<bool, Error> {
        let Some(bucket) = &self.bucket else {
            return Ok(self.path.is_dir());
        };
        let mut found = bucket.store.list(Some(&store_path(&self.path)?));
        let first = found.next().await.transpose();
        Ok(first.map_err(|error| self.unreadable(error))?.is_some())
    }

    /// Whether something is there.
    pub(crate) async fn exists(&self) -> Result<bool, Error> {
        Ok(self.is_folder().await? || self.is_file().await?)
    }

    /// All that is below a place in a bucket.
    pub(crate) async fn objects(&self) -> Result<Vec<ObjectMeta>, Error> {
        let found = self.store();
        let found = found.list(Some(&store_path(&self.path)?));
        let found: Result<Vec<_>, _> = found.try_collect().await;
        found.map_err(|error| self.unreadable(error))
    }

    fn unreadable(&self, source: object_store::Error) -> Error {
        Error::Read {
            table: self.to_string(),
            file: None,
            source: Box::new(source),
        }
    }

    /// The place itself, where the path leads through links.
    pub(crate) fn resolved(self) -> Self {
        match self.bucket {
            Some(_) => self,
            None => Self {
                path: self.path.canonicalize().unwrap_or(self.path),
                bucket: None,
            },
        }
    }

    /// The path as a URL of a folder.
    pub(crate) fn url(&self) -> Result<Url, Error> {
        let refuse = |reason: &str| Error::Location {
            location: self.to_string(),
            reason: reason.to_owned(),
        };
        if self.bucket.is_some() {
            let url = Url::parse(&format!("{self}/"));
            return url.map_err(|_| refuse("it cannot be written as a URL"));
        }
        // The Delta library decodes such a URL twice, and would make another folder.
        if self.path.to_string_lossy().contains('%') {
            return Err(refuse(
                "a Delta table cannot be in a folder with `%` in its name",
            ));
        }
        Url::from_directory_path(&self.path).map_err(|()| refuse("it cannot be written as a URL"))
    }
}

/// The path of an object as paths of tables have it.
pub(crate) fn absolute(path: &StorePath) -> PathBuf {
    Path::new("/").join(path.as_ref())
}

/// The same place without `.` and `..`, which URLs understand differently: there, `link/..` is the
/// folder of the link, not the parent of what it points to.
fn without_dots(path: &Path) -> PathBuf {
    let mut clean = PathBuf::new();
    for component in path.components() {
        if component == Component::ParentDir {
            clean = clean.canonicalize().unwrap_or(clean);
            clean.pop();
        } else {
            clean.push(component);
        }
    }
    clean
}

impl fmt::Display for Location {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.named(&self.path).display().fmt(formatter)
    }
}

/// A file's path as its object store knows it.
pub(crate) fn store_path(path: &Path) -> Result<StorePath, Error> {
    StorePath::from_absolute_path(path).map_err(|source| Error::Location {
        location: path.display().to_string(),
        reason: source.to_string(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_and_file_urls_name_the_same_place() {
        let here = Location::parse("/data/a%20b/t").unwrap();
        assert_eq!(here.path(), Path::new("/data/a%20b/t"));
        assert_eq!(Location::parse("file:///data/a%2520b/t/").unwrap(), here);
        assert_eq!(Location::parse("/data/./a%20b/t/").unwrap(), here);
        assert_eq!(Location::parse("/data/none/../a%20b/t").unwrap(), here);
    }

    #[test]
    fn other_stores_are_refused_by_name() {
        let error = Location::parse("gs://bucket/t").unwrap_err();
        assert_eq!(
            error.to_string(),
            "`gs://bucket/t` is not a place that tables can be in: `gs://` is not supported, only paths, `file://` and `s3://` are"
        );
    }
    #[test]
    fn a_place_in_a_bucket_is_a_path_in_it() {
        let table = Location::parse("s3://bucket/a/t/").unwrap();
        assert_eq!(table.path(), Path::new("/a/t"));
        assert_eq!(table.to_string(), "s3://bucket/a/t");
        assert_eq!(table.url().unwrap().as_str(), "s3://bucket/a/t/");
        assert_eq!(table, Location::parse("s3://bucket/a").unwrap().join("t"));
        assert_ne!(table, Location::parse("/a/t").unwrap());
        assert!(Location::parse("s3://bucket/a//t").is_err());
    }
}
