//! Which snapshot of a table is read.

use std::fmt;
use std::str::FromStr;

use chrono::{DateTime, SecondsFormat, Utc};

/// Which snapshot of a table is read, where it is not the latest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum AsOf {
    /// The one with this version.
    Version(u64),
    /// The one that was the latest at this time.
    Time(DateTime<Utc>),
}

/// The text is neither a version nor a time.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{text}` is neither a version (`7`) nor a time with a zone (`2026-01-31T12:00:00Z`, RFC 3339)"
)]
pub struct NotAsOf {
    text: String,
}

impl FromStr for AsOf {
    type Err = NotAsOf;

    fn from_str(text: &str) -> Result<Self, NotAsOf> {
        if let Ok(version) = text.parse() {
            return Ok(Self::Version(version));
        }
        match DateTime::parse_from_rfc3339(text) {
            Ok(time) => Ok(Self::Time(time.with_timezone(&Utc))),
            Err(_) => Err(NotAsOf {
                text: text.to_owned(),
            }),
        }
    }
}

impl fmt::Display for AsOf {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Version(version) => write!(formatter, "version {version}"),
            Self::Time(time) => {
                let time = time.to_rfc3339_opts(SecondsFormat::AutoSi, true);
                formatter.write_str(&time)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digits_are_a_version_and_all_else_a_time_with_its_zone() {
        assert_eq!("7".parse(), Ok(AsOf::Version(7)));
        let time: AsOf = "2026-01-31T12:00:00.5+02:00".parse().unwrap();
        assert_eq!(time.to_string(), "2026-01-31T10:00:00.500Z");
        for text in ["", "-1", "yesterday", "2026-01-31", "2026-01-31T12:00:00"] {
            assert!(text.parse::<AsOf>().is_err(), "{text}");
        }
    }
}
