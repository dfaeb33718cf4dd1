//! Why bytes are not an envelope.

use std::io;

use crate::{Digest, MemberName};

/// Why bytes are not an envelope. One variant for each rule of `SPEC.md`.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Rule 1.1: an envelope ends with the three fixed records of a ZIP64 archive.
    #[error("not an envelope, or a truncated one: {reason}")]
    NotAnEnvelope {
        /// Which record is missing or wrong.
        reason: &'static str,
    },
    /// Rule 1.2: an envelope is not larger than the limit.
    #[error("the envelope has {size} bytes, the most is {limit}")]
    TooLarge {
        /// Its size in bytes.
        size: u64,
        /// The limit in bytes.
        limit: u64,
    },
    /// Rule 1.3: an envelope has not more members than the limit.
    #[error("the envelope has {count} members, the most is {limit}")]
    TooManyMembers {
        /// How many it has.
        count: u64,
        /// The limit.
        limit: u64,
    },
    /// Rule 2.1: every header has the one form that the writer gives it.
    #[error("entry {index} of the archive has a wrong {what}")]
    Header {
        /// Which entry, from 0.
        index: usize,
        /// Which part of its header.
        what: &'static str,
    },
    /// Rule 2.2: entries follow one another without holes or overlaps, up to the directory.
    #[error("entry {index} of the archive should begin at byte {expected}, it begins at {found}")]
    Layout {
        /// Which entry, from 0; the directory counts as the last one.
        index: usize,
        /// Where the one before it ends.
        expected: u64,
        /// Where it begins.
        found: u64,
    },
    /// Rule 2.3: the bytes of an entry are the ones that were written.
    #[error("the bytes of `{name}` were damaged")]
    Damaged {
        /// Which member.
        name: String,
    },
    /// Rule 3.1: member names are relative paths that mean the same on every system.
    #[error("the member name `{name}` {reason}")]
    MemberName {
        /// The name, escaped.
        name: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// Rule 3.2: no two members have the same name, also when case is ignored.
    #[error("two members are called `{name}`")]
    DuplicateMember {
        /// The name.
        name: MemberName,
    },
    /// Rule 3.3: no member's name is a folder of another's.
    #[error("`{name}` is a member and a folder")]
    MemberIsFolder {
        /// The name.
        name: String,
    },
    /// Rule 4.1: the members of the archive are those that the manifest lists, in its order.
    #[error("the archive and its manifest differ at member {index}: {reason}")]
    MemberList {
        /// Position, from 0.
        index: usize,
        /// How they differ.
        reason: &'static str,
    },
    /// Rule 4.2: every member has the digest that the manifest gives.
    #[error("member `{name}` has digest {computed}, the manifest says {expected}")]
    DigestMismatch {
        /// Which member.
        name: MemberName,
        /// What the manifest says.
        expected: Digest,
        /// What was found.
        computed: Digest,
    },
    /// Rule 4.3: a deflated member inflates to exactly the size that the manifest gives.
    #[error("member `{name}` does not inflate to {expected} bytes")]
    Inflate {
        /// Which member.
        name: MemberName,
        /// What the manifest says.
        expected: u64,
    },
    /// Rule 4.4: a deflated member is not larger than the limit.
    #[error("member `{name}` has {size} bytes; more than {limit} are stored mapped")]
    MemberTooLarge {
        /// Which member.
        name: MemberName,
        /// Its size in bytes.
        size: u64,
        /// The limit in bytes.
        limit: u64,
    },
    /// Rule 5.1: the manifest is not larger than the limit.
    #[error("the manifest has {size} bytes, which is too large")]
    ManifestTooLarge {
        /// Its size in bytes.
        size: u64,
    },
    /// Rule 5.2: the version of the format is one that this reader knows.
    #[error("the envelope has format version {found}; this program knows version {known}")]
    FormatVersion {
        /// The version of the envelope.
        found: u32,
        /// The version of this reader.
        known: u32,
    },
    /// Rule 5.3: the manifest is JSON of the described shape.
    #[error("the manifest is not valid")]
    ManifestSyntax {
        /// Where and why.
        source: serde_json::Error,
    },
    /// Rule 5.4: the manifest is spelled as the writer spells it.
    #[error("the manifest is not in canonical form")]
    ManifestNotCanonical,
    /// Rule 6.1: a model name has 1 to 128 letters, digits, `.`, `_` or `-`.
    #[error(
        "`{name}` is not a model name: use 1 to 128 letters, digits, `.`, `_`, `-`, not beginning with `.` or `-`"
    )]
    ModelName {
        /// The name.
        name: String,
    },
    /// Rule 6.2: a signature has distinct, non-empty column names.
    #[error("the signature of `{function}` {reason}")]
    Signature {
        /// Which function.
        function: String,
        /// What is wrong.
        reason: String,
    },
    /// Rule 6.3: there is at least one function.
    #[error("the envelope has no function")]
    NoFunctions,
    /// Rule 6.4: function names are distinct identifiers.
    #[error("`{name}` is not a function name, or there are two of it")]
    FunctionName {
        /// The name.
        name: String,
    },
    /// Rule 6.5: every member that the manifest mentions is listed.
    #[error("the manifest mentions `{name}`, which is not a member")]
    MemberMissing {
        /// The name.
        name: MemberName,
    },
    /// There is no such function in this envelope.
    #[error("there is no function `{name}`; there is {known}")]
    NoSuchFunction {
        /// The name asked for.
        name: String,
        /// The names there are.
        known: String,
    },
    /// The source of the bytes failed.
    #[error("cannot read the envelope")]
    Io {
        /// Why.
        #[from]
        source: io::Error,
    },
}
