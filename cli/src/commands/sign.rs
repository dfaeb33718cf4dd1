//! `envelope sign`: a signature beside an envelope.

use std::path::Path;

use envelope_format::{Attestation, Digest, SecretKey};
use serde_json::json;

use crate::args::Sign;
use crate::error::Error;
use crate::trust;
use crate::wiring::Wiring;

const DAY_SECONDS: u64 = 24 * 60 * 60;

pub(crate) async fn sign(wiring: &Wiring, args: &Sign) -> Result<(), Error> {
    let key: SecretKey = trust::read_key(&args.key)?;
    let found = wiring.find(&args.envelope.reference).await?;
    // Nobody should vouch for a damaged file.
    found.envelope.verify()?;
    let path = match &args.output {
        Some(path) => path.clone(),
        None => trust::beside(found.envelope.path()),
    };
    let expires = args
        .days
        .map(|days| trust::now() + u64::from(days) * DAY_SECONDS);
    let mut attestation = statement(&path, found.envelope.digest(), expires)?;
    attestation.sign(&key);
    trust::write(&path, &attestation)?;
    let terminal = &wiring.terminal;
    if terminal.json() {
        let digest = attestation.digest();
        let told = json!({"digest": digest, "key": key.public(), "expires": expires, "path": path});
        return terminal.document(&told);
    }
    let (title, key) = (found.title(), key.public());
    terminal.say(&format!(
        "{key} vouches for {title} in `{}`",
        path.display()
    ));
    Ok(())
}

/// The statement to be signed. One that others have signed is kept, if it says the same.
fn statement(path: &Path, digest: Digest, expires: Option<u64>) -> Result<Attestation, Error> {
    let Some(bytes) = trust::read(path)? else {
        return Ok(Attestation::new(digest, expires));
    };
    match Attestation::parse(&bytes) {
        Ok(there) if there.digest() == digest && there.expires() == expires => Ok(there),
        // What nobody believes any more is renewed.
        Ok(there) if there.digest() == digest && has_expired(&there) => {
            Ok(Attestation::new(digest, expires))
        }
        _ => Err(Error::Exists {
            path: path.to_owned(),
        }),
    }
}

fn has_expired(attestation: &Attestation) -> bool {
    attestation
        .expires()
        .is_some_and(|expires| expires <= trust::now())
}
