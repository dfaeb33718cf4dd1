//! What can go wrong, and what fixes it.

use std::path::PathBuf;

use envelope_format::Digest;

/// Why the registry could not do what it was asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The file is not an envelope, or was damaged. Nothing was stored.
    #[error("`{}` is not a good envelope", path.display())]
    Envelope {
        /// The file.
        path: PathBuf,
        /// The rule that it breaks.
        source: envelope_format::Error,
    },
    /// The file changed while it was being saved. Nothing was stored.
    #[error("`{}` changed while it was being saved", path.display())]
    Changed {
        /// The file.
        path: PathBuf,
    },
    /// A tag that cannot be kept.
    #[error(transparent)]
    Tag(#[from] InvalidTag),
    /// A text that refers to nothing.
    #[error(transparent)]
    Reference(#[from] InvalidReference),
    /// A text that is not a tag query.
    #[error(transparent)]
    TagQuery(#[from] InvalidTagQuery),
    /// No version is what was referred to.
    #[error("there is no version `{reference}`")]
    NotFound {
        /// What was asked for.
        reference: String,
        /// The nearest that there is.
        hint: String,
    },
    /// The beginning of a digest is the beginning of several.
    #[error("`{prefix}` is the beginning of {} digests", matches.len())]
    Ambiguous {
        /// What was asked for.
        prefix: String,
        /// Some of the digests that it may mean.
        matches: Vec<Digest>,
    },
    /// The row of a version is there, its bytes are not.
    #[error("the bytes of {digest} are missing: `{}` is not there", path.display())]
    BytesMissing {
        /// The envelope.
        digest: Digest,
        /// Where its bytes should be.
        path: PathBuf,
    },
    /// The store was written by a newer program.
    #[error("the store has layout {found}; this program knows layouts up to {known}")]
    NewerStore {
        /// Layout of the store.
        found: i64,
        /// The newest layout that this program knows.
        known: i64,
    },
    /// SQLite before 3.51.3 can corrupt a database that two processes write.
    #[error("SQLite {found} is too old, 3.51.3 is needed")]
    OldSqlite {
        /// The version that is linked.
        found: String,
    },
    /// The path of the store is not Unicode.
    #[error("the path of the store, `{}`, is not Unicode", path.display())]
    Path {
        /// The path.
        path: PathBuf,
    },
    /// The database failed.
    #[error("cannot {doing} in the store's database")]
    Database {
        /// What was being done.
        doing: &'static str,
        /// Why it failed.
        source: sqlx::Error,
    },
    /// The place where bytes are kept failed.
    #[error("cannot {doing} in the store")]
    Store {
        /// What was being done.
        doing: &'static str,
        /// Why it failed.
        source: object_store::Error,
    },
    /// The file system refused something.
    #[error("cannot {doing} `{}`", path.display())]
    Io {
        /// What was being done.
        doing: &'static str,
        /// To which file.
        path: PathBuf,
        /// Why it failed.
        source: std::io::Error,
    },
}

/// Why a key and a value are not a tag.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidTag {
    /// The key is empty, too long, or holds another character.
    #[error("`{key}` is not a tag key: use 1 to 63 letters, digits, `.`, `_`, `-`, `/`")]
    Key {
        /// The key, shortened.
        key: String,
    },
    /// `name` in a tag query means the name of the model.
    #[error("`name` is not a tag key: it stands for the name of the model in tag queries")]
    Reserved,
    /// The value is too long.
    #[error("the value of tag `{key}` has {size} bytes, the most is 1024")]
    Value {
        /// The key.
        key: String,
        /// Length of the value in bytes.
        size: usize,
    },
}

/// Why a text is not a reference.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidReference {
    /// Nothing was written.
    #[error("a reference cannot be empty")]
    Empty,
    /// The part after `sha256:` is neither a digest nor the beginning of one.
    #[error(
        "`{text}` is not a digest: write `sha256:` and 64 lower-case hex digits, or the first 8 or more"
    )]
    Digest {
        /// What was written.
        text: String,
    },
    /// The part before the colon, or the whole, is not a name.
    #[error("`{text}` is not a model name: use 1 to 128 letters, digits, `.`, `_`, `-`")]
    Name {
        /// What was written.
        text: String,
    },
    /// The part after the colon is not a version.
    #[error("`{text}` is not a version: write a number from 1 on, or leave it out for the latest")]
    Version {
        /// What was written.
        text: String,
    },
}

/// Why a text is not a tag query.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidTagQuery {
    /// Something else stands where the grammar wants something.
    #[error("character {position} of the tag query: expected {expected}, found {found}")]
    Syntax {
        /// Which character, from 1.
        position: usize,
        /// What may stand there.
        expected: &'static str,
        /// What stands there.
        found: String,
    },
    /// A limit was exceeded.
    #[error("the tag query has {count} {what}, the most is {limit}")]
    TooLong {
        /// What there is too much of.
        what: &'static str,
        /// How many.
        count: usize,
        /// The limit.
        limit: usize,
    },
}

impl Error {
    /// What the user may do about it, if that is known.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::NotFound { hint, .. } => Some(hint.clone()),
            Self::Ambiguous { matches, .. } => {
                let known: Vec<_> = matches.iter().map(|digest| format!("`{digest}`")).collect();
                Some(format!("write more digits: {}", known.join(", ")))
            }
            Self::TagQuery(_) => Some(
                "a tag query is written like `region in (US,UK),stage=prod,!deprecated,name=ltv`"
                    .into(),
            ),
            Self::Reference(_) => Some(
                "refer to an envelope by file, `name`, `name:version`, `sha256:…` or a tag query"
                    .into(),
            ),
            Self::BytesMissing { .. } => Some("import the envelope again from a copy".into()),
            Self::NewerStore { .. } => Some("use the newer program, or another store".into()),
            Self::Io { doing: OPENING, .. } => Some(WRITABLE.into()),
            Self::Database { .. } if self.is_forbidden() => Some(WRITABLE.into()),
            Self::Envelope { .. }
            | Self::Changed { .. }
            | Self::Tag(_)
            | Self::OldSqlite { .. }
            | Self::Path { .. }
            | Self::Database { .. }
            | Self::Store { .. }
            | Self::Io { .. } => None,
        }
    }
}

/// What is being done when a store cannot even be opened.
pub(crate) const OPENING: &str = "open the store in";

const WRITABLE: &str = "set `ENVELOPE_URL` or `--url` to a folder that you may write to";

impl Error {
    /// Whether this user may not write to the store, which can be read.
    #[must_use]
    pub fn is_forbidden(&self) -> bool {
        let Self::Database {
            source: sqlx::Error::Database(error),
            ..
        } = self
        else {
            return false;
        };
        // The lower byte of an SQLite code is the case, the others say more about it.
        let code = error.code().and_then(|code| code.parse::<u32>().ok());
        code.is_some_and(|code| code & 0xff == SQLITE_READONLY)
    }
}

const SQLITE_READONLY: u32 = 8;

/// Names what was being done when the database failed.
pub(crate) fn database(doing: &'static str) -> impl Fn(sqlx::Error) -> Error {
    move |source| Error::Database { doing, source }
}

/// Names what was being done when the byte store failed.
pub(crate) fn store(doing: &'static str) -> impl Fn(object_store::Error) -> Error {
    move |source| Error::Store { doing, source }
}
