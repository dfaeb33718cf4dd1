//! Which runs are the same job.

use chrono::{DateTime, NaiveDate, SecondsFormat, Utc};
use envelope_format::Digest;

use crate::Error;

/// What a scheduler calls a job. Runs with the same name, date and envelopes are one job: however
/// often it is run, its results are in the output once.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Identity {
    name: String,
    date: Option<String>,
}

impl Identity {
    /// The job `name` for `logical_date`: a date (`2026-11-28`) or a moment (RFC 3339). Moments
    /// are the same in whatever zone they are written; a date is not a moment.
    ///
    /// # Errors
    /// [`Error::JobIdentity`] for a name that is empty, has spaces or is longer than 200 bytes, and
    /// for what is not a date.
    pub fn new(name: &str, logical_date: Option<&str>) -> Result<Self, Error> {
        Ok(Self {
            name: checked_name(name)?,
            date: logical_date.map(plain_date).transpose()?,
        })
    }

    /// The name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The logical date, as a date or a moment in UTC.
    #[must_use]
    pub fn logical_date(&self) -> Option<&str> {
        self.date.as_deref()
    }

    /// What the results of the job with these envelopes are known by.
    pub(crate) fn key(&self, envelopes: &[Digest]) -> Key {
        let date = self.date.as_deref().unwrap_or("-");
        let envelopes: Vec<_> = envelopes.iter().map(ToString::to_string).collect();
        Key::new(format!("{} {date} {}", self.name, envelopes.join("+")))
    }
}

fn checked_name(name: &str) -> Result<String, Error> {
    const LONGEST_BYTES: usize = 200;
    let refuse = |reason: &str| {
        Err(Error::JobIdentity {
            given: name.to_owned(),
            what: "the name",
            reason: reason.to_owned(),
        })
    };
    if name.is_empty() {
        return refuse("it is empty");
    }
    if name.len() > LONGEST_BYTES {
        return refuse("it is longer than 200 bytes");
    }
    // A space ends the name in the key.
    if name.contains(|letter: char| letter.is_whitespace() || letter.is_control()) {
        return refuse("it has spaces or control characters");
    }
    Ok(name.to_owned())
}

fn plain_date(text: &str) -> Result<String, Error> {
    if let Ok(date) = text.parse::<NaiveDate>() {
        return Ok(date.to_string());
    }
    match DateTime::parse_from_rfc3339(text) {
        Ok(moment) => Ok(moment
            .with_timezone(&Utc)
            .to_rfc3339_opts(SecondsFormat::AutoSi, true)),
        Err(_) => Err(Error::JobIdentity {
            given: text.to_owned(),
            what: "the logical date",
            reason: "it is neither a date (`2026-11-28`) nor a moment (`2026-11-28T06:00:00Z`)"
                .into(),
        }),
    }
}

/// An identity and envelopes: what makes two runs one job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Key {
    text: String,
    folder: String,
}

impl Key {
    fn new(text: String) -> Self {
        // Half of a digest: no two keys that anybody has share it, and names stay short.
        let folder = Digest::of(text.as_bytes()).hex()[..32].to_owned();
        Self { text, folder }
    }

    /// The name of the transaction in the log of a Delta table.
    pub(crate) fn text(&self) -> &str {
        &self.text
    }

    /// The key in the names of files and folders.
    pub(crate) fn short(&self) -> &str {
        &self.folder
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(name: &str, date: Option<&str>) -> Key {
        Identity::new(name, date).unwrap().key(&[Digest::of(b"e")])
    }

    #[test]
    fn name_date_and_envelope_make_the_key() {
        let keys = [
            key("a", None),
            key("b", None),
            key("a", Some("2026-11-28")),
            key("a", Some("2026-11-28T00:00:00Z")),
            Identity::new("a", None).unwrap().key(&[Digest::of(b"f")]),
            Identity::new("a", None)
                .unwrap()
                .key(&[Digest::of(b"e"), Digest::of(b"f")]),
        ];
        for (position, key) in keys.iter().enumerate() {
            assert!(!keys[..position].contains(key), "{key:?}");
        }
        let expected = format!("a 2026-11-28 {}", Digest::of(b"e"));
        assert_eq!(key("a", Some("2026-11-28")).text(), expected);
    }

    #[test]
    fn a_moment_is_the_same_in_every_zone() {
        assert_eq!(
            key("a", Some("2026-11-28T02:00:00+02:00")),
            key("a", Some("2026-11-28T00:00:00Z"))
        );
    }

    #[test]
    fn names_with_spaces_and_dates_that_are_none_are_refused() {
        for (name, date) in [
            ("", None),
            ("a b", None),
            ("a\n", None),
            ("a", Some("yesterday")),
            ("a", Some("2026-02-30")),
        ] {
            let error = Identity::new(name, date).unwrap_err();
            assert!(matches!(error, Error::JobIdentity { .. }), "{error}");
        }
    }
}
