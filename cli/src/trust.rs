//! Whose word counts: an envelope that nobody vouches for is not run.

use std::fs;
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::{SystemTime, UNIX_EPOCH};

use envelope_format::limits::MAX_ATTESTATION_BYTES;
use envelope_format::{Attestation, Digest, InvalidKey, PublicKey, Trust};
use runtime::EnvelopeFile;

use crate::error::Error;
use crate::rows::readable_by_all;

/// Checks every byte of an envelope, and that a key in `keys` vouches for it; gives those that do.
///
/// The attestation is beside the envelope, unless it is said to be elsewhere.
pub(crate) fn check(
    envelope: &EnvelopeFile,
    keys: &Path,
    attestation: Option<&Path>,
) -> Result<Vec<PublicKey>, Error> {
    let trust: Trust = read_key(keys)?;
    let path = attestation.map_or_else(|| beside(envelope.path()), Path::to_owned);
    let refused = |source| Error::Untrusted {
        path: envelope.path().to_owned(),
        source,
    };
    let found = read(&path)?.ok_or_else(|| refused(missing()))?;
    let signed = Attestation::parse(&found)
        .and_then(|attestation| attestation.check(envelope.digest(), &trust, now()))
        .map_err(refused)?;
    // The digest is the one of the manifest, which says what all other bytes are.
    envelope.verify()?;
    Ok(signed)
}

/// Where the attestation of an envelope is, if nobody says otherwise.
pub(crate) fn beside(envelope: &Path) -> PathBuf {
    envelope.with_added_extension("attestation")
}

/// The attestation in a file, if there is one.
pub(crate) fn read(path: &Path) -> Result<Option<Vec<u8>>, Error> {
    let file = match envelope_format::open_file(path) {
        Ok(file) => file,
        Err(envelope_format::Error::Io { source }) if source.kind() == io::ErrorKind::NotFound => {
            return Ok(None);
        }
        Err(envelope_format::Error::Io { source }) => return Err(Error::io("read", path)(source)),
        Err(error) => return Err(Error::io("read", path)(io::Error::other(error))),
    };
    let mut bytes = vec![];
    file.take(MAX_ATTESTATION_BYTES + 1)
        .read_to_end(&mut bytes)
        .map_err(Error::io("read", path))?;
    Ok(Some(bytes))
}

/// Puts an attestation in place, whole or not at all.
pub(crate) fn write(path: &Path, attestation: &Attestation) -> Result<(), Error> {
    let folder = path
        .parent()
        .filter(|folder| !folder.as_os_str().is_empty());
    let mut file = readable_by_all()
        .tempfile_in(folder.unwrap_or(Path::new(".")))
        .map_err(Error::io("write", path))?;
    file.write_all(&attestation.to_bytes())
        .and_then(|()| file.as_file().sync_all())
        .map_err(Error::io("write", path))?;
    file.persist(path)
        .map_err(|refused| Error::io("write", path)(refused.error))?;
    Ok(())
}

/// Copies the attestation beside one envelope to beside another, if there is one of that digest and
/// none at the other.
pub(crate) fn take_along(from: &Path, to: &Path, digest: Digest) -> Result<(), Error> {
    let target = beside(to);
    let Some(bytes) = read(&beside(from))? else {
        return Ok(());
    };
    match Attestation::parse(&bytes) {
        Ok(attestation) if attestation.digest() == digest && !target.exists() => {
            write(&target, &attestation)
        }
        _ => Ok(()),
    }
}

/// The keys, or the key, in a file.
pub(crate) fn read_key<K: FromStr<Err = InvalidKey>>(path: &Path) -> Result<K, Error> {
    let text = fs::read_to_string(path).map_err(Error::io("read", path))?;
    text.parse().map_err(|source| Error::Key {
        path: path.to_owned(),
        source,
    })
}

/// Seconds since 1970-01-01.
pub(crate) fn now() -> u64 {
    #[expect(clippy::disallowed_methods, reason = "this is where the time comes in")]
    let now = SystemTime::now();
    now.duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}

fn missing() -> envelope_format::Error {
    envelope_format::Error::Attestation {
        rule: "9.4",
        reason: "is missing".into(),
    }
}
