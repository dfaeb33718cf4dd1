//! The environment lock: what a PEP 751 file may say before anybody installs from it.
//!
//! A lock decides which code runs. So every file in it has a digest, and every place in it is a
//! package index, a repository at a commit, or a wheel that the envelope carries: nothing on the
//! machine where it happens to be installed.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde::de::IgnoredAny;

use crate::Error;
use crate::limits::{MAX_LOCK_BYTES, MAX_MARKER_BYTES, MAX_PACKAGES};

/// The packages of an environment.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Lock {
    #[serde(rename = "lock-version")]
    version: String,
    /// Interpreters that it is for: `>=3.11`.
    #[serde(rename = "requires-python")]
    pub requires_python: Option<String>,
    /// The packages, in the order of the file.
    #[serde(default)]
    pub packages: Vec<Package>,
}

/// One package, pinned.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Package {
    /// Its name, normalised.
    pub name: String,
    /// Its version; a package from a repository may have none.
    pub version: Option<String>,
    /// Where it is needed.
    pub marker: Option<String>,
    /// The package index it is from.
    pub index: Option<String>,
    /// The files that the index has of it.
    #[serde(default)]
    pub wheels: Vec<PackageFile>,
    /// Its source, in the index.
    pub sdist: Option<PackageFile>,
    /// A file of it that is not in an index.
    pub archive: Option<PackageFile>,
    /// The repository and commit it is from.
    pub vcs: Option<Repository>,
    directory: Option<IgnoredAny>,
}

/// A file of a package.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct PackageFile {
    /// Where it can be downloaded.
    pub url: Option<String>,
    /// Where it is carried, from the folder of the lock on.
    pub path: Option<String>,
    /// Its digests by algorithm.
    #[serde(default)]
    pub hashes: BTreeMap<String, String>,
}

/// A repository at a commit.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Repository {
    /// `git`.
    #[serde(rename = "type")]
    pub kind: String,
    /// Where it can be cloned.
    pub url: Option<String>,
    path: Option<String>,
    /// The commit.
    #[serde(rename = "commit-id")]
    pub commit: String,
}

impl Lock {
    /// Parses and checks the text of a lock.
    ///
    /// # Errors
    /// [`Error::Lock`], by the first of the rules 7 that is broken.
    pub fn parse(bytes: &[u8]) -> Result<Self, Error> {
        let text = |what: String| refuse("7.1", None, what);
        if bytes.len() as u64 > MAX_LOCK_BYTES {
            return Err(text(format!("is longer than {MAX_LOCK_BYTES} bytes")));
        }
        let lock = toml::from_slice::<Self>(bytes)
            .map_err(|error| text(format!("is not a PEP 751 lock: {}", error.message())))?;
        if lock.version != "1.0" {
            let version = lock.version.escape_debug();
            return Err(text(format!("has `lock-version` {version}, not 1.0")));
        }
        if lock.packages.len() > MAX_PACKAGES {
            return Err(text(format!("has more than {MAX_PACKAGES} packages")));
        }
        for package in &lock.packages {
            package.check()?;
        }
        Ok(lock)
    }
}

impl Package {
    fn check(&self) -> Result<(), Error> {
        self.check_name()?;
        self.check_origin()?;
        for file in self.files() {
            self.check_file(file)?;
        }
        if let Some(repository) = &self.vcs {
            self.check_repository(repository)?;
        }
        match &self.index {
            Some(index) => self.check_url(index),
            None => Ok(()),
        }
    }

    /// Rule 7.2.
    fn check_name(&self) -> Result<(), Error> {
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        if self.name.is_empty() || self.name.len() > 255 || !self.name.chars().all(plain) {
            return Err(self.refuse("7.2", "has a name that is none"));
        }
        let version = self.version.as_deref().unwrap_or_default();
        let known = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '+' | '!' | '-' | '_');
        if version.len() > 255 || !version.chars().all(known) {
            return Err(self.refuse("7.2", "has a version that is none"));
        }
        if self
            .marker
            .as_ref()
            .is_some_and(|marker| marker.len() > MAX_MARKER_BYTES)
        {
            return Err(self.refuse("7.2", "has a marker that is too long"));
        }
        Ok(())
    }

    /// Rule 7.3.
    fn check_origin(&self) -> Result<(), Error> {
        if self.directory.is_some() {
            return Err(self.refuse("7.3", "names a folder, which other machines do not have"));
        }
        let from_index = !self.wheels.is_empty() || self.sdist.is_some();
        let origins = [from_index, self.archive.is_some(), self.vcs.is_some()];
        match origins.iter().filter(|has| **has).count() {
            1 => Ok(()),
            0 => Err(self.refuse("7.3", "names no file")),
            _ => Err(self.refuse("7.3", "names several origins")),
        }
    }

    /// The files of the package, wherever they are from.
    pub fn files(&self) -> impl Iterator<Item = &PackageFile> {
        self.wheels.iter().chain(&self.sdist).chain(&self.archive)
    }

    fn check_file(&self, file: &PackageFile) -> Result<(), Error> {
        self.check_digests(&file.hashes)?;
        match (&file.url, &file.path) {
            (Some(url), None) => self.check_url(url),
            (None, Some(path)) => self.check_path(path),
            _ => Err(self.refuse("7.3", "has a file with not exactly one of `url` and `path`")),
        }
    }

    /// Rule 7.4. More algorithms than the one we need may be there.
    fn check_digests(&self, digests: &BTreeMap<String, String>) -> Result<(), Error> {
        let Some(digest) = digests.get("sha256") else {
            return Err(self.refuse("7.4", "has a file without a `sha256` digest"));
        };
        if digest.len() != 64 || !digest.bytes().all(is_lower_hex) {
            return Err(self.refuse("7.4", "has a `sha256` that is not 64 lower-case hex digits"));
        }
        Ok(())
    }

    /// Rule 7.5. The text of the place is not repeated: it may hold a password.
    fn check_url(&self, url: &str) -> Result<(), Error> {
        let rest = url
            .strip_prefix("https://")
            .or_else(|| url.strip_prefix("http://"));
        let Some(rest) = rest else {
            return Err(self.refuse(
                "7.5",
                "names a place that is neither `https://` nor `http://`",
            ));
        };
        if url
            .chars()
            .any(|c| c.is_control() || c.is_whitespace() || c == '\\')
        {
            return Err(self.refuse("7.5", "names a place with white space or a backslash"));
        }
        let host = rest.split(['/', '?', '#']).next().unwrap_or_default();
        if host.is_empty() || host.contains('@') {
            return Err(self.refuse(
                "7.5",
                "names a place with a user or password, or without a host",
            ));
        }
        Ok(())
    }

    /// Rule 7.6.
    fn check_path(&self, path: &str) -> Result<(), Error> {
        let name = path.strip_prefix("wheels/").unwrap_or_default();
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '+' | '!' | '-' | '_');
        let is_wheel = name
            .strip_suffix(".whl")
            .is_some_and(|stem| !stem.is_empty());
        if !is_wheel || !name.chars().all(plain) {
            return Err(self.refuse("7.6", "names a file that is not `wheels/….whl`"));
        }
        Ok(())
    }

    /// Rule 7.7.
    fn check_repository(&self, repository: &Repository) -> Result<(), Error> {
        let wrong = |what| Err(self.refuse("7.7", what));
        let commit = &repository.commit;
        let (Some(url), None) = (&repository.url, &repository.path) else {
            return wrong("is from a repository without a `url`");
        };
        if repository.kind != "git" {
            return wrong("is from a repository that is not git");
        }
        if !matches!(commit.len(), 40 | 64) || !commit.bytes().all(is_lower_hex) {
            return wrong("is from a repository at no commit");
        }
        self.check_url(url)
    }

    /// Rule 7.6, of a file that has no URL.
    pub(crate) fn not_carried(&self) -> Error {
        self.refuse("7.6", "names a wheel that is not a member with this digest")
    }

    fn refuse(&self, rule: &'static str, reason: &str) -> Error {
        refuse(rule, Some(&self.name), reason.to_owned())
    }
}

fn refuse(rule: &'static str, package: Option<&str>, reason: String) -> Error {
    let shown = |name: &str| {
        name.chars()
            .take(64)
            .collect::<String>()
            .escape_debug()
            .to_string()
    };
    Error::Lock {
        rule,
        package: package.map(shown),
        reason,
    }
}

fn is_lower_hex(byte: u8) -> bool {
    matches!(byte, b'0'..=b'9' | b'a'..=b'f')
}
