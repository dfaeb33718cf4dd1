//! Where a table is.

use std::fmt;
use std::path::{Component, Path, PathBuf};

use object_store::path::Path as StorePath;
use url::Url;

use crate::Error;

/// An absolute path in the local file system.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Location {
    path: PathBuf,
}

impl Location {
    /// Understands a path or a `file://` URL.
    pub(crate) fn parse(text: &str) -> Result<Self, Error> {
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
                    "`{scheme}://` is not supported, only paths and `file://` are"
                )));
            }
        };
        let path = std::path::absolute(path).map_err(|source| refuse(&source.to_string()))?;
        Ok(Self {
            path: without_dots(&path),
        })
    }

    /// The path.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The place itself, where the path leads through links.
    pub(crate) fn resolved(self) -> Self {
        Self {
            path: self.path.canonicalize().unwrap_or(self.path),
        }
    }

    /// The path as a URL of a folder.
    pub(crate) fn url(&self) -> Result<Url, Error> {
        let refuse = |reason: &str| Error::Location {
            location: self.to_string(),
            reason: reason.to_owned(),
        };
        // The Delta library decodes such a URL twice, and would make another folder.
        if self.path.to_string_lossy().contains('%') {
            return Err(refuse(
                "a Delta table cannot be in a folder with `%` in its name",
            ));
        }
        Url::from_directory_path(&self.path).map_err(|()| refuse("it cannot be written as a URL"))
    }
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
        self.path.display().fmt(formatter)
    }
}

/// A file's path as the object store for `file:///` knows it.
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
        let error = Location::parse("s3://bucket/t").unwrap_err();
        assert_eq!(
            error.to_string(),
            "`s3://bucket/t` is not a place that tables can be in: `s3://` is not supported, only paths and `file://` are"
        );
    }
}
