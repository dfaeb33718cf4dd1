//! How people say which envelope they mean.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use envelope_format::Digest;

use crate::{Error, InvalidReference, TagQuery};

/// Which envelope is meant.
///
/// A text is tried in this order; the forms cannot be mistaken for each other:
/// `sha256:…` is a digest; what begins with `/`, `./` or `../`, or ends with `.envelope`, is a file;
/// what holds one of `=`, `!`, `,`, `(` or a space is a tag query; what holds a `/` is a file;
/// the rest is `name` or `name:version`, or, where no model has that name, the beginning of a digest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reference {
    /// A file, which need not be in the registry.
    Path(PathBuf),
    /// The envelope with this digest.
    Digest(Digest),
    /// The one envelope whose digest begins with these 8 to 63 hex digits.
    DigestPrefix(String),
    /// The latest version of a model.
    Latest(String),
    /// One version of a model.
    Numbered {
        /// The model.
        name: String,
        /// The version, from 1.
        version: u64,
    },
    /// The latest version that a tag query matches.
    Query(TagQuery),
}

const ALGORITHM: &str = "sha256:";

/// Fewer digits of a digest are refused: they would soon mean another envelope.
const MIN_DIGITS: usize = 8;

impl FromStr for Reference {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        if text.is_empty() {
            return Err(InvalidReference::Empty.into());
        }
        if let Some(digits) = text.strip_prefix(ALGORITHM) {
            return Ok(digest(text, digits)?);
        }
        let is_query = text.contains(['=', '!', ',', '(']) || text.contains(char::is_whitespace);
        if looks_like_a_file(text) || (!is_query && text.contains('/')) {
            return Ok(Self::Path(text.into()));
        }
        if is_query {
            return Ok(Self::Query(text.parse()?));
        }
        Ok(named(text)?)
    }
}

fn looks_like_a_file(text: &str) -> bool {
    text.ends_with(".envelope")
        || ["/", "./", "../"]
            .iter()
            .any(|start| text.starts_with(start))
}

fn digest(text: &str, digits: &str) -> Result<Reference, InvalidReference> {
    if let Ok(digest) = text.parse() {
        return Ok(Reference::Digest(digest));
    }
    if !is_digits(digits) {
        return Err(InvalidReference::Digest {
            text: text.to_owned(),
        });
    }
    Ok(Reference::DigestPrefix(digits.to_owned()))
}

/// Whether a text may be the beginning of a digest.
pub(crate) fn is_digits(text: &str) -> bool {
    let is_digit = |digit: u8| matches!(digit, b'0'..=b'9' | b'a'..=b'f');
    (MIN_DIGITS..64).contains(&text.len()) && text.bytes().all(is_digit)
}

fn named(text: &str) -> Result<Reference, InvalidReference> {
    let (name, version) = match text.split_once(':') {
        None => (text, None),
        Some((name, version)) => (name, Some(version)),
    };
    if !is_name(name) {
        return Err(InvalidReference::Name {
            text: name.to_owned(),
        });
    }
    let name = name.to_owned();
    match version.map(|version| (version, version.parse::<u64>())) {
        None => Ok(Reference::Latest(name)),
        Some((_, Ok(version @ 1..))) => Ok(Reference::Numbered { name, version }),
        Some((text, _)) => Err(InvalidReference::Version {
            text: text.to_owned(),
        }),
    }
}

/// Rule 6.1 of the envelope format.
fn is_name(text: &str) -> bool {
    let is_part =
        |character: char| character.is_ascii_alphanumeric() || matches!(character, '_' | '-' | '.');
    (1..=128).contains(&text.len()) && !text.starts_with(['.', '-']) && text.chars().all(is_part)
}

impl fmt::Display for Reference {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Path(path) => write!(formatter, "{}", path.display()),
            Self::Digest(digest) => write!(formatter, "{digest}"),
            Self::DigestPrefix(digits) => write!(formatter, "{ALGORITHM}{digits}"),
            Self::Latest(name) => formatter.write_str(name),
            Self::Numbered { name, version } => write!(formatter, "{name}:{version}"),
            Self::Query(query) => write!(formatter, "{query}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn parses(text: &str, expected: &Reference) {
        assert_eq!(text.parse::<Reference>().unwrap(), *expected, "{text}");
        let printed = expected.to_string();
        assert_eq!(printed.parse::<Reference>().unwrap(), *expected, "{text}");
    }

    #[track_caller]
    fn refuses(text: &str, message: &str) {
        let error = text
            .parse::<Reference>()
            .expect_err("the reference was accepted");
        assert!(error.to_string().contains(message), "{text}: {error}");
    }

    #[test]
    fn files_end_in_envelope_or_hold_a_slash() {
        for path in [
            "a.envelope",
            "./a",
            "../a",
            "/a,b",
            "models/a",
            "./region=US.envelope",
            "a b.envelope",
        ] {
            parses(path, &Reference::Path(path.into()));
        }
    }

    #[test]
    fn digests_may_be_shortened_to_eight_digits() {
        let digest = Digest::of(b"");
        parses(&digest.to_string(), &Reference::Digest(digest));
        parses(
            "sha256:e3b0c442",
            &Reference::DigestPrefix("e3b0c442".into()),
        );
        for text in [
            "sha256:",
            "sha256:e3b0c44",
            "sha256:E3B0C442",
            &format!("{digest}0"),
        ] {
            refuses(text, "is not a digest");
        }
    }

    #[test]
    fn names_may_carry_a_version() {
        parses("ltv", &Reference::Latest("ltv".into()));
        parses(
            "ltv:12",
            &Reference::Numbered {
                name: "ltv".into(),
                version: 12,
            },
        );
        refuses("ltv:0", "is not a version");
        refuses("ltv:latest", "`latest` is not a version");
        refuses(".ltv", "is not a model name");
        refuses("größe", "is not a model name");
        refuses("", "cannot be empty");
    }

    #[test]
    fn the_rest_is_a_tag_query() {
        for text in [
            "a=b",
            "team/owner=x",
            "!a",
            "a,b",
            "a in (b,c)",
            "name=ltv",
            "a notin(b,c)",
        ] {
            parses(text, &Reference::Query(text.parse().unwrap()));
        }
        refuses("a = b c", "character 7 of the tag query");
    }
}
