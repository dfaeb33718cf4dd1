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
    /// Rule 1.4: an envelope on disk is a regular file.
    #[error("an envelope is a regular file, this is {found}")]
    NotRegular {
        /// What it is.
        found: &'static str,
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
    #[error("the manifest is not valid at `{field}`: {reason}")]
    ManifestSyntax {
        /// Path of the field, from the top: `functions[0].name`.
        field: String,
        /// What is wrong, with line and column.
        reason: serde_json::Error,
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
    /// Rule 6.6: custom modules are below `modules/`.
    #[error("the module `{name}` is not below `modules/`")]
    ModulePlace {
        /// The name of its member.
        name: MemberName,
    },
    /// Rules 7: the environment lock is complete, and names nothing that lies outside of the envelope
    /// and package indexes.
    #[error("the environment lock {reason}{}", of_package(.package))]
    Lock {
        /// Which of the rules 7.
        rule: &'static str,
        /// The package that is locked wrongly, escaped, if it is about one.
        package: Option<String>,
        /// What is wrong.
        reason: String,
    },
    /// Rules 8: a carried wheel holds plain files, all of them listed truly in its `RECORD`.
    #[error("the wheel `{wheel}` {reason}")]
    Wheel {
        /// Which of the rules 8.
        rule: &'static str,
        /// Name of its member.
        wheel: String,
        /// What is wrong.
        reason: String,
    },
    /// Rules 9: an attestation is by somebody who is trusted, about this envelope, now.
    #[error("the attestation {reason}")]
    Attestation {
        /// Which of the rules 9.
        rule: &'static str,
        /// What is wrong.
        reason: String,
    },
    /// A broken rule, and where in the file.
    #[error("{broken} (at byte {offset})")]
    Located {
        /// The rule.
        broken: Box<Self>,
        /// First byte of what breaks it: of a header, or of the content of a member.
        offset: u64,
        /// The member that it is about.
        member: Option<String>,
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

fn of_package(package: &Option<String>) -> String {
    package
        .as_ref()
        .map(|package| format!(" (package `{package}`)"))
        .unwrap_or_default()
}

impl Error {
    /// A stable name for the case. The text of an error may change, its code does not.
    #[must_use]
    pub fn code(&self) -> &'static str {
        self.named().0
    }

    /// The rule of `SPEC.md` that is broken; `None` where the envelope is not at fault.
    #[must_use]
    pub fn rule(&self) -> Option<&'static str> {
        self.named().1
    }

    fn named(&self) -> (&'static str, Option<&'static str>) {
        match self {
            Self::NotAnEnvelope { .. } => ("not_an_envelope", Some("1.1")),
            Self::TooLarge { .. } => ("envelope_too_large", Some("1.2")),
            Self::TooManyMembers { .. } => ("too_many_members", Some("1.3")),
            Self::NotRegular { .. } => ("not_regular_file", Some("1.4")),
            Self::Header { .. } => ("bad_header", Some("2.1")),
            Self::Layout { .. } => ("bad_layout", Some("2.2")),
            Self::Damaged { .. } => ("damaged_member", Some("2.3")),
            Self::MemberName { .. } => ("bad_member_name", Some("3.1")),
            Self::DuplicateMember { .. } => ("duplicate_member", Some("3.2")),
            Self::MemberIsFolder { .. } => ("member_is_folder", Some("3.3")),
            Self::MemberList { .. } => ("member_list_differs", Some("4.1")),
            Self::DigestMismatch { .. } => ("digest_mismatch", Some("4.2")),
            Self::Inflate { .. } => ("bad_deflate", Some("4.3")),
            Self::MemberTooLarge { .. } => ("member_too_large", Some("4.4")),
            Self::ManifestTooLarge { .. } => ("manifest_too_large", Some("5.1")),
            Self::FormatVersion { .. } => ("unknown_format_version", Some("5.2")),
            Self::ManifestSyntax { .. } => ("bad_manifest", Some("5.3")),
            Self::ManifestNotCanonical => ("manifest_not_canonical", Some("5.4")),
            Self::ModelName { .. } => ("bad_model_name", Some("6.1")),
            Self::Signature { .. } => ("bad_signature", Some("6.2")),
            Self::NoFunctions => ("no_functions", Some("6.3")),
            Self::FunctionName { .. } => ("bad_function_name", Some("6.4")),
            Self::MemberMissing { .. } => ("member_missing", Some("6.5")),
            Self::ModulePlace { .. } => ("bad_module_place", Some("6.6")),
            Self::Lock { rule, .. } => ("bad_lock", Some(rule)),
            Self::Wheel { rule, .. } => ("bad_wheel", Some(rule)),
            Self::Attestation { rule, .. } => ("bad_attestation", Some(rule)),
            Self::Located { broken, .. } => broken.named(),
            Self::NoSuchFunction { .. } => ("no_such_function", None),
            Self::Io { .. } => ("io", None),
        }
    }

    /// First byte in the file of what breaks the rule.
    #[must_use]
    pub fn offset(&self) -> Option<u64> {
        if let Self::Located { offset, .. } = self {
            return Some(*offset);
        }
        None
    }

    /// The member that breaks the rule.
    #[must_use]
    pub fn member(&self) -> Option<&str> {
        if let Self::Located { member, .. } = self {
            return member.as_deref();
        }
        None
    }

    /// The variant of the rule itself, without where it is broken.
    #[must_use]
    pub fn broken(&self) -> &Self {
        if let Self::Located { broken, .. } = self {
            return broken;
        }
        self
    }

    /// Says where, unless that is known better already. What the source of bytes says is left alone.
    pub(crate) fn at(self, offset: u64, member: Option<&str>) -> Self {
        if self.rule().is_none() || matches!(self, Self::Located { .. }) {
            return self;
        }
        Self::Located {
            broken: Box::new(self),
            offset,
            member: member.map(str::to_owned),
        }
    }
}
