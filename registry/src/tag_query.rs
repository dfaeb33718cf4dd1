//! Tag queries: Kubernetes label selectors over tags, plus `name`.

mod parse;
mod sql;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::str::FromStr;

use crate::InvalidTagQuery;

/// Which versions are meant: requirements that must all hold. The empty query means every version.
///
/// | written | holds for a version |
/// |---|---|
/// | `a=b`, `a==b` | whose tag `a` is `b` |
/// | `a!=b` | whose tag `a` is not `b`, or that has no tag `a` |
/// | `a in (b,c)` | whose tag `a` is `b` or `c` |
/// | `a notin (b,c)` | whose tag `a` is neither, or that has no tag `a` |
/// | `a`, `!a` | that has, or has not, a tag `a` |
///
/// Requirements are joined by `,`. The key `name` stands for the name of the model. Values are
/// letters and digits of any script and `_-./:+@`; anything else is written in double quotes, with
/// `\"` and `\\` inside them.
///
/// ```
/// use std::collections::BTreeMap;
///
/// let query: registry::TagQuery = "region in (US,UK),!deprecated".parse()?;
/// let tags = BTreeMap::from([("region".to_owned(), "US".to_owned())]);
/// assert!(query.matches("ltv", &tags));
/// # Ok::<(), registry::InvalidTagQuery>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TagQuery {
    requirements: Vec<Requirement>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Requirement {
    subject: Subject,
    test: Test,
}

/// What a requirement looks at.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Subject {
    Name,
    Tag(String),
}

/// What it wants to see. `=` and `!=` are sets of one value.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Test {
    In(BTreeSet<String>),
    NotIn(BTreeSet<String>),
    Exists,
    Absent,
}

impl TagQuery {
    /// Whether a version called `name` with these `tags` is meant.
    #[must_use]
    pub fn matches(&self, name: &str, tags: &BTreeMap<String, String>) -> bool {
        self.requirements
            .iter()
            .all(|requirement| requirement.holds(name, tags))
    }

    /// Each requirement as a query of its own.
    pub(crate) fn parts(&self) -> impl Iterator<Item = Self> {
        self.requirements.iter().map(|requirement| Self {
            requirements: vec![requirement.clone()],
        })
    }

    /// Every version called `name`.
    pub(crate) fn named(name: &str) -> Self {
        let test = Test::In(BTreeSet::from([name.to_owned()]));
        Self {
            requirements: vec![Requirement {
                subject: Subject::Name,
                test,
            }],
        }
    }
}

impl Requirement {
    fn holds(&self, name: &str, tags: &BTreeMap<String, String>) -> bool {
        let value = match &self.subject {
            Subject::Name => Some(name),
            Subject::Tag(key) => tags.get(key).map(String::as_str),
        };
        match &self.test {
            Test::In(values) => value.is_some_and(|value| values.contains(value)),
            Test::NotIn(values) => value.is_none_or(|value| !values.contains(value)),
            Test::Exists => value.is_some(),
            Test::Absent => value.is_none(),
        }
    }
}

impl FromStr for TagQuery {
    type Err = InvalidTagQuery;

    fn from_str(text: &str) -> Result<Self, InvalidTagQuery> {
        parse::parse(text)
    }
}

/// The key that means the name of the model.
pub(crate) const NAME: &str = "name";

/// Whether `character` may stand in a tag key.
pub(crate) fn is_key(character: char) -> bool {
    character.is_ascii_alphanumeric() || matches!(character, '_' | '-' | '.' | '/')
}

/// Whether `character` may stand in a value that is not quoted.
fn is_plain(character: char) -> bool {
    character.is_alphanumeric() || matches!(character, '_' | '-' | '.' | '/' | ':' | '+' | '@')
}

impl fmt::Display for TagQuery {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, requirement) in self.requirements.iter().enumerate() {
            let comma = if index == 0 { "" } else { "," };
            write!(formatter, "{comma}{requirement}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Requirement {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let key = match &self.subject {
            Subject::Name => NAME,
            Subject::Tag(key) => key,
        };
        match &self.test {
            Test::In(values) => write_values(formatter, key, values, ["=", "in"]),
            Test::NotIn(values) => write_values(formatter, key, values, ["!=", "notin"]),
            Test::Exists => formatter.write_str(key),
            Test::Absent => write!(formatter, "!{key}"),
        }
    }
}

fn write_values(
    formatter: &mut fmt::Formatter<'_>,
    key: &str,
    values: &BTreeSet<String>,
    [one, several]: [&str; 2],
) -> fmt::Result {
    let written: Vec<_> = values.iter().map(|value| quote(value)).collect();
    match written.as_slice() {
        [value] => write!(formatter, "{key}{one}{value}"),
        _ => write!(formatter, "{key} {several} ({})", written.join(",")),
    }
}

fn quote(value: &str) -> String {
    if !value.is_empty() && value.chars().all(is_plain) {
        return value.to_owned();
    }
    format!("\"{}\"", value.replace('\\', "\\\\").replace('"', "\\\""))
}
