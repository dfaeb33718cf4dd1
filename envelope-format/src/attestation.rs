//! Who vouches for an envelope: signatures over its digest, in a file beside it.
//!
//! The digest covers every byte that is ever unpickled, so a signature over the digest is one over
//! all of them. Time and randomness come in as arguments.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use ed25519_dalek::{Signature, Signer as _, SigningKey, VerifyingKey};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::limits::{MAX_ATTESTATION_BYTES, MAX_SIGNATURES};
use crate::{Digest, Error};

const VERSION: u32 = 1;

/// Begins what is signed, so that no signature made for another purpose means anything here.
const DOMAIN: &str = "model-envelope attestation v1";

/// A statement that the envelope with a digest is good, and the signatures under it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Attestation {
    attestation_version: u32,
    digest: Digest,
    /// Seconds since 1970-01-01 after which it holds no longer.
    expires: Option<u64>,
    signatures: Vec<Signed>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Signed {
    key: PublicKey,
    signature: String,
}

/// The key that signs. It is never printed by accident.
pub struct SecretKey(SigningKey);

/// The key that others know a signer by, written `ed25519:<64 hex digits>`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PublicKey([u8; 32]);

/// The keys whose signatures count.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Trust(BTreeSet<PublicKey>);

/// A text that is not a key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a {kind} key is written `{prefix}` and 64 lower-case hex digits")]
pub struct InvalidKey {
    kind: &'static str,
    prefix: &'static str,
}

const NOT_PUBLIC: InvalidKey = InvalidKey {
    kind: "public",
    prefix: "ed25519:",
};
const NOT_SECRET: InvalidKey = InvalidKey {
    kind: "secret",
    prefix: "ed25519-secret:",
};

impl Attestation {
    /// The statement about an envelope, not signed yet.
    #[must_use]
    pub fn new(digest: Digest, expires: Option<u64>) -> Self {
        Self {
            attestation_version: VERSION,
            digest,
            expires,
            signatures: vec![],
        }
    }

    /// Adds a signature; one by the same key is replaced.
    pub fn sign(&mut self, key: &SecretKey) {
        let signature = key.0.sign(&self.message());
        let key = key.public();
        self.signatures.retain(|signed| signed.key != key);
        self.signatures.push(Signed {
            key,
            signature: hex(&signature.to_bytes()),
        });
    }

    /// The envelope that it is about.
    #[must_use]
    pub fn digest(&self) -> Digest {
        self.digest
    }

    /// Seconds since 1970-01-01 after which it holds no longer.
    #[must_use]
    pub fn expires(&self) -> Option<u64> {
        self.expires
    }

    /// The keys that signed, whether anybody trusts them or not.
    pub fn keys(&self) -> impl Iterator<Item = &PublicKey> {
        self.signatures.iter().map(|signed| &signed.key)
    }

    /// The one spelling: JSON with two spaces of indentation and a final newline.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = serde_json::to_vec_pretty(self).unwrap_or_default();
        bytes.push(b'\n');
        bytes
    }

    /// Parses an attestation; nothing is trusted yet.
    ///
    /// # Errors
    /// [`Error::Attestation`], by rule 9.1.
    pub fn parse(bytes: &[u8]) -> Result<Self, Error> {
        if bytes.len() as u64 > MAX_ATTESTATION_BYTES {
            return refuse(
                "9.1",
                format!("is longer than {MAX_ATTESTATION_BYTES} bytes"),
            );
        }
        let parsed: Self = match serde_json::from_slice(bytes) {
            Ok(parsed) => parsed,
            Err(error) => return refuse("9.1", format!("cannot be read: {error}")),
        };
        if parsed.attestation_version != VERSION || parsed.to_bytes() != bytes {
            return refuse("9.1", "is not of version 1, in its one spelling");
        }
        if parsed.signatures.len() > MAX_SIGNATURES {
            return refuse("9.1", format!("has more than {MAX_SIGNATURES} signatures"));
        }
        Ok(parsed)
    }

    /// Whether somebody in `trust` vouches for the envelope with this digest, `now` (in seconds since
    /// 1970-01-01); gives the keys of those who do.
    ///
    /// # Errors
    /// [`Error::Attestation`], by the first of the rules 9 that is broken.
    pub fn check(&self, digest: Digest, trust: &Trust, now: u64) -> Result<Vec<PublicKey>, Error> {
        if self.digest != digest {
            return refuse("9.2", format!("is about {}, this is {digest}", self.digest));
        }
        let message = self.message();
        for signed in &self.signatures {
            if !signed.holds(&message) {
                return refuse("9.3", format!("has a bad signature by {}", signed.key));
            }
        }
        let trusted: Vec<_> = self
            .keys()
            .filter(|key| trust.0.contains(key))
            .copied()
            .collect();
        if trusted.is_empty() {
            return refuse("9.4", "is not signed by a trusted key");
        }
        match self.expires {
            Some(expires) if now >= expires => {
                refuse("9.5", format!("expired at {expires} (seconds since 1970)"))
            }
            _ => Ok(trusted),
        }
    }

    fn message(&self) -> Vec<u8> {
        let expires = self
            .expires
            .map_or_else(|| "never".to_owned(), |at| at.to_string());
        format!("{DOMAIN}\ndigest {}\nexpires {expires}\n", self.digest).into_bytes()
    }
}

fn refuse<T>(rule: &'static str, reason: impl Into<String>) -> Result<T, Error> {
    Err(Error::Attestation {
        rule,
        reason: reason.into(),
    })
}

impl Signed {
    /// Strictly: no second signature can be made of a good one, and no weak key signs everything.
    fn holds(&self, message: &[u8]) -> bool {
        let signature = unhex::<64>(&self.signature).map(|bytes| Signature::from_bytes(&bytes));
        let key = VerifyingKey::from_bytes(&self.key.0).ok();
        key.zip(signature)
            .is_some_and(|(key, signature)| key.verify_strict(message, &signature).is_ok())
    }
}

impl SecretKey {
    /// The key of 32 bytes that nobody can guess.
    #[must_use]
    pub fn from_seed(seed: [u8; 32]) -> Self {
        Self(SigningKey::from_bytes(&seed))
    }

    /// The key that others know.
    #[must_use]
    pub fn public(&self) -> PublicKey {
        PublicKey(self.0.verifying_key().to_bytes())
    }

    /// The key as text, to be kept in a file that only its owner can read.
    #[must_use]
    pub fn to_text(&self) -> String {
        format!("{}{}\n", NOT_SECRET.prefix, hex(&self.0.to_bytes()))
    }
}

impl FromStr for SecretKey {
    type Err = InvalidKey;

    fn from_str(text: &str) -> Result<Self, InvalidKey> {
        let digits = text.trim().strip_prefix(NOT_SECRET.prefix);
        digits
            .and_then(unhex)
            .map(Self::from_seed)
            .ok_or(NOT_SECRET)
    }
}

impl fmt::Debug for SecretKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "SecretKey of {}", self.public())
    }
}

impl FromStr for PublicKey {
    type Err = InvalidKey;

    fn from_str(text: &str) -> Result<Self, InvalidKey> {
        let digits = text.strip_prefix(NOT_PUBLIC.prefix);
        digits.and_then(unhex).map(Self).ok_or(NOT_PUBLIC)
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}{}", NOT_PUBLIC.prefix, hex(&self.0))
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, formatter)
    }
}

impl Serialize for PublicKey {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for PublicKey {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(serde::de::Error::custom)
    }
}

/// One public key on each line, after which anything may stand; `#` begins a comment.
impl FromStr for Trust {
    type Err = InvalidKey;

    fn from_str(text: &str) -> Result<Self, InvalidKey> {
        let lines = text.lines().map(str::trim);
        lines
            .filter(|line| !line.is_empty() && !line.starts_with('#'))
            .map(|line| line.split_whitespace().next().unwrap_or_default().parse())
            .collect::<Result<_, _>>()
            .map(Self)
    }
}

impl Trust {
    /// Whether nobody is trusted.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex<const N: usize>(digits: &str) -> Option<[u8; N]> {
    let mut bytes = [0; N];
    if digits.len() != 2 * N
        || !digits
            .bytes()
            .all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f'))
    {
        return None;
    }
    for (byte, pair) in bytes.iter_mut().zip(digits.as_bytes().chunks_exact(2)) {
        let pair = std::str::from_utf8(pair).ok()?;
        *byte = u8::from_str_radix(pair, 16).ok()?;
    }
    Some(bytes)
}
