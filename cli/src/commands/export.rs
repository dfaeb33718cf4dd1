//! `envelope export`: a file out of the store.

use std::path::Path;

use runtime::EnvelopeFile;
use serde_json::json;
use tempfile::NamedTempFile;

use crate::args::Export;
use crate::error::Error;
use crate::rows::readable_by_all;
use crate::trust;
use crate::wiring::Wiring;

pub(crate) async fn export(wiring: &Wiring, args: &Export) -> Result<(), Error> {
    let found = wiring.find(&args.envelope.reference).await?;
    found.envelope.verify()?;
    copy(&found.envelope, &args.file)?;
    trust::take_along(found.envelope.path(), &args.file, found.envelope.digest())?;
    let digest = found.envelope.digest();
    if wiring.terminal.json() {
        return wiring
            .terminal
            .document(&json!({"digest": digest, "path": args.file}));
    }
    wiring.terminal.say(&format!(
        "`{}` is now in `{}`",
        found.title(),
        args.file.display()
    ));
    Ok(())
}

/// The file appears complete or not at all, and nothing is replaced.
fn copy(envelope: &EnvelopeFile, path: &Path) -> Result<(), Error> {
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    let mut source =
        std::fs::File::open(envelope.path()).map_err(Error::io("read", envelope.path()))?;
    let mut target = readable_by_all()
        .tempfile_in(folder)
        .map_err(Error::io("write", path))?;
    std::io::copy(&mut source, target.as_file_mut()).map_err(Error::io("write", path))?;
    target
        .as_file()
        .sync_all()
        .map_err(Error::io("write", path))?;
    publish(target, path, envelope)
}

fn publish(target: NamedTempFile, path: &Path, envelope: &EnvelopeFile) -> Result<(), Error> {
    match target.persist_noclobber(path) {
        Ok(_) => Ok(()),
        Err(refused) if refused.error.kind() == std::io::ErrorKind::AlreadyExists => {
            // Done before: there is nothing left to do.
            let same =
                EnvelopeFile::open(path).and_then(|there| there.verify().map(|()| there.digest()));
            if same.is_ok_and(|digest| digest == envelope.digest()) {
                return Ok(());
            }
            Err(Error::Exists {
                path: path.to_owned(),
            })
        }
        Err(refused) => Err(Error::io("write", path)(refused.error)),
    }
}
