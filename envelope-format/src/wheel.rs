//! A carried wheel: may it be unpacked into an environment?
//!
//! Whoever unpacks a wheel follows its directory. So this looks at every byte of the archive and
//! at every file in it before that, without writing anything: `directory` reads the ZIP records,
//! `record` compares the files with what the wheel itself lists.

mod directory;
mod record;

use std::collections::BTreeMap;
use std::io::Read;

use flate2::Crc;
use flate2::bufread::DeflateDecoder;
use sha2::{Digest as _, Sha256};

use self::directory::Entry;
use crate::limits::MAX_WHEEL_CONTENT_BYTES;
use crate::{Digest, Error};

/// Why a wheel is refused, before the wheel's name is known here.
struct Refusal {
    rule: &'static str,
    reason: String,
}

fn refuse<T>(rule: &'static str, reason: impl Into<String>) -> Result<T, Refusal> {
    Err(Refusal {
        rule,
        reason: reason.into(),
    })
}

/// A file of a wheel, as it is.
struct Content {
    digest: Digest,
    size: u64,
    /// Kept of the few files that say something about the others.
    bytes: Vec<u8>,
}

/// Checks a wheel by the rules 8; gives the paths that it installs, folded by case.
///
/// `name` is its file name.
///
/// # Errors
/// [`Error::Wheel`], by the first of the rules 8 that is broken.
pub fn check_wheel(name: &str, bytes: &[u8]) -> Result<Vec<String>, Error> {
    checked(name, bytes).map_err(|Refusal { rule, reason }| Error::Wheel {
        rule,
        wheel: name.escape_debug().to_string(),
        reason,
    })
}

fn checked(name: &str, bytes: &[u8]) -> Result<Vec<String>, Refusal> {
    let information = record::information_folder(name)?;
    let entries = directory::read(bytes)?;
    let total: u64 = entries.iter().map(|entry| u64::from(entry.size)).sum();
    if total > MAX_WHEEL_CONTENT_BYTES {
        return refuse(
            "8.3",
            format!("inflates to more than {MAX_WHEEL_CONTENT_BYTES} bytes"),
        );
    }
    let mut files = BTreeMap::new();
    for entry in entries.iter().filter(|entry| !entry.is_folder) {
        let is_read = entry.name.as_str().starts_with(&format!("{information}/"));
        files.insert(entry.name.as_str(), content(bytes, entry, is_read)?);
    }
    record::check(&files, &information)?;
    Ok(entries
        .iter()
        .filter(|entry| !entry.is_folder)
        .map(|entry| entry.name.fold())
        .collect())
}

/// Rule 8.3: inflates a file, never further than it says.
fn content(bytes: &[u8], entry: &Entry, is_read: bool) -> Result<Content, Refusal> {
    let stored = &bytes[entry.stored.clone()];
    if !entry.is_deflated {
        return summed(stored, entry, is_read);
    }
    let mut decoder = DeflateDecoder::new(stored);
    let content = summed(decoder.by_ref(), entry, is_read)?;
    if decoder.total_in() != stored.len() as u64 {
        return refuse(
            "8.3",
            format!("has bytes after the end of `{}`", entry.name),
        );
    }
    Ok(content)
}

fn summed(reader: impl Read, entry: &Entry, is_read: bool) -> Result<Content, Refusal> {
    let mut reader = reader.take(u64::from(entry.size) + 1);
    let (mut hasher, mut crc, mut size) = (Sha256::new(), Crc::new(), 0);
    let mut kept = vec![];
    let mut chunk = [0; 16 << 10];
    loop {
        let read = match reader.read(&mut chunk) {
            Ok(0) => break,
            Ok(read) => &chunk[..read],
            Err(_) => return refuse("8.3", format!("cannot be inflated at `{}`", entry.name)),
        };
        hasher.update(read);
        crc.update(read);
        size += read.len() as u64;
        if is_read {
            kept.extend_from_slice(read);
        }
    }
    if size != u64::from(entry.size) || crc.sum() != entry.crc {
        let what = format!("says a wrong size or CRC-32 of `{}`", entry.name);
        return refuse("8.3", what);
    }
    Ok(Content {
        digest: Digest::from_hasher(hasher),
        size,
        bytes: kept,
    })
}
