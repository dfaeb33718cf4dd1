//! Names of members, and how their bytes are kept.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use unicode_normalization::UnicodeNormalization as _;

use crate::Error;
use crate::limits::{MAX_NAME_BYTES, MAX_NAME_PART_BYTES};

/// Name of a member: a relative path that means the same on every system.
///
/// Rule 3: parts are separated by `/`; no part is empty, `.` or `..`, ends in a dot or a space, is
/// the name of a device on Windows, or holds one of `\\:<>"|?*` or a control, bidirectional or
/// zero-width character.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct MemberName(String);

impl MemberName {
    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Two names with the same key would be one file on a system that ignores case.
    pub(crate) fn fold(&self) -> String {
        // Upper case first: there are letters that only share that.
        self.0
            .nfc()
            .collect::<String>()
            .to_uppercase()
            .to_lowercase()
            .nfc()
            .collect()
    }
}

impl FromStr for MemberName {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let refuse = |reason| {
            Err(Error::MemberName {
                name: text.escape_debug().to_string(),
                reason,
            })
        };
        if text.is_empty() || text.len() > MAX_NAME_BYTES {
            return refuse("is empty or longer than 1024 bytes");
        }
        if text.chars().any(is_forbidden) {
            return refuse("holds a character that is not the same on every system");
        }
        for part in text.split('/') {
            match part {
                "" | "." | ".." => return refuse("leaves the envelope"),
                _ if part.len() > MAX_NAME_PART_BYTES => {
                    return refuse("has a part longer than 255 bytes");
                }
                _ if part.ends_with(['.', ' ']) => {
                    return refuse("has a part ending in `.` or space");
                }
                _ if is_reserved(part) => return refuse("has a part that is a device on Windows"),
                _ => {}
            }
        }
        Ok(Self(text.to_owned()))
    }
}

fn is_forbidden(character: char) -> bool {
    let invisible = matches!(character,
        '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
        | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}');
    let on_windows = matches!(character, '\\' | ':' | '<' | '>' | '"' | '|' | '?' | '*');
    character.is_control() || invisible || on_windows
}

/// Windows opens a device for these names, whatever follows their first dot.
fn is_reserved(part: &str) -> bool {
    let stem = part
        .split('.')
        .next()
        .unwrap_or_default()
        .trim_end()
        .to_uppercase();
    let numbered = |device: &str| {
        let number = stem.strip_prefix(device);
        number.is_some_and(|number| number.chars().count() == 1 && "123456789¹²³".contains(number))
    };
    matches!(stem.as_str(), "CON" | "PRN" | "AUX" | "NUL") || numbered("COM") || numbered("LPT")
}

impl fmt::Display for MemberName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl Serialize for MemberName {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for MemberName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(serde::de::Error::custom)
    }
}

/// How the bytes of a member lie in the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Encoding {
    /// Compressed with deflate: text and small binary members.
    Deflated,
    /// As they are, beginning at a multiple of 4096: members that are mapped into memory.
    Mapped,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn refuses(name: &str) {
        assert!(name.parse::<MemberName>().is_err(), "{name:?} was accepted");
    }

    #[test]
    fn names_stay_inside_the_envelope() {
        for name in [
            "",
            ".",
            "..",
            "/etc/passwd",
            "a/../b",
            "./a",
            "a//b",
            "a/",
            "../a",
        ] {
            refuses(name);
        }
    }

    #[test]
    fn names_mean_the_same_on_every_system() {
        for name in [
            "a\\b",
            "C:a",
            "a\0",
            "a\nb",
            "a.",
            "a ",
            "a./b",
            "\u{202e}a",
            "a\u{200b}",
        ] {
            refuses(name);
        }
    }

    #[test]
    fn name_lengths_are_exact() {
        assert!("a".repeat(255).parse::<MemberName>().is_ok());
        refuses(&"a".repeat(256));
        let parts = |count| vec!["a".repeat(127); count].join("/");
        assert!(parts(8).parse::<MemberName>().is_ok());
        refuses(&format!("{}/a", parts(8)));
    }
}
