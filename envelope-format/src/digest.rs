//! SHA-256 as the name of bytes.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::{Digest as _, Sha256};

/// SHA-256 of an envelope's manifest or of one member, written `sha256:<64 hex digits>`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Digest(pub(crate) [u8; 32]);

/// Why a text is not a digest.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidDigest {
    /// The text does not begin with `sha256:`.
    #[error("a digest begins with `sha256:`")]
    Algorithm,
    /// The part after `sha256:` is not 64 characters long.
    #[error("a digest has 64 hex digits, this one has {got}")]
    Length {
        /// Number of characters found.
        got: usize,
    },
    /// A character is not one of `0-9a-f`.
    #[error("a digest is written in lower-case hex digits")]
    NotHex,
}

impl Digest {
    /// The digest of `bytes`.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        Self(Sha256::digest(bytes).into())
    }

    pub(crate) fn from_hasher(hasher: Sha256) -> Self {
        Self(hasher.finalize().into())
    }

    /// The digest as it is computed.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The 64 hex digits without the algorithm.
    #[must_use]
    pub fn hex(&self) -> String {
        self.0.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// The first twelve hex digits: enough for people, never for lookups of record.
    #[must_use]
    pub fn short(&self) -> String {
        self.hex()[..12].to_owned()
    }
}

impl From<[u8; 32]> for Digest {
    /// Of bytes that were digested elsewhere, piece by piece.
    fn from(digest: [u8; 32]) -> Self {
        Self(digest)
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "sha256:{}", self.hex())
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, formatter)
    }
}

impl FromStr for Digest {
    type Err = InvalidDigest;

    fn from_str(text: &str) -> Result<Self, InvalidDigest> {
        let hex = text
            .strip_prefix("sha256:")
            .ok_or(InvalidDigest::Algorithm)?;
        if hex.len() != 64 {
            return Err(InvalidDigest::Length { got: hex.len() });
        }
        let mut bytes = [0; 32];
        for (byte, pair) in bytes.iter_mut().zip(hex.as_bytes().chunks_exact(2)) {
            *byte = (nibble(pair[0])? << 4) | nibble(pair[1])?;
        }
        Ok(Self(bytes))
    }
}

fn nibble(digit: u8) -> Result<u8, InvalidDigest> {
    match digit {
        b'0'..=b'9' => Ok(digit - b'0'),
        b'a'..=b'f' => Ok(digit - b'a' + 10),
        _ => Err(InvalidDigest::NotHex),
    }
}

impl Serialize for Digest {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_and_value_are_the_same_thing() {
        let digest = Digest::of(b"envelope");
        assert_eq!(digest.to_string().parse(), Ok(digest));
    }

    #[test]
    fn only_lower_case_sha256_is_a_digest() {
        let hex = Digest::of(b"").hex();
        assert_eq!(hex.parse::<Digest>(), Err(InvalidDigest::Algorithm));
        assert_eq!(
            format!("md5:{hex}").parse::<Digest>(),
            Err(InvalidDigest::Algorithm)
        );
        assert_eq!(
            "sha256:00".parse::<Digest>(),
            Err(InvalidDigest::Length { got: 2 })
        );
        let upper = format!("sha256:{}", hex.to_uppercase());
        assert_eq!(upper.parse::<Digest>(), Err(InvalidDigest::NotHex));
    }
}
