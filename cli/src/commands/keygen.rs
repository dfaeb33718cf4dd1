//! `envelope keygen`: a pair of keys.

use std::fs::OpenOptions;
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use envelope_format::SecretKey;
use serde_json::json;

use crate::args::Keygen;
use crate::error::Error;
use crate::wiring::Wiring;

pub(crate) fn keygen(wiring: &Wiring, args: &Keygen) -> Result<(), Error> {
    let mut seed = [0; 32];
    getrandom::fill(&mut seed)
        .map_err(|error| Error::io("make a key for", &args.file)(io::Error::other(error)))?;
    let key = SecretKey::from_seed(seed);
    let public = args.file.with_added_extension("pub");
    create(&args.file, 0o600, &key.to_text())?;
    create(&public, 0o644, &format!("{}\n", key.public()))?;
    let terminal = &wiring.terminal;
    if terminal.json() {
        let (file, key) = (&args.file, key.public());
        return terminal.document(&json!({"key": key, "secret": file, "public": public}));
    }
    terminal.print(&format!("{}\n", key.public()))
}

/// A key that is there is never replaced: nothing could be signed with it any more.
fn create(path: &Path, mode: u32, text: &str) -> Result<(), Error> {
    let file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(path);
    let mut file = match file {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            return Err(Error::Exists {
                path: path.to_owned(),
            });
        }
        file => file.map_err(Error::io("write", path))?,
    };
    file.write_all(text.as_bytes())
        .map_err(Error::io("write", path))
}
