//! `envelope build`: one executable that serves an envelope.

use std::path::{Path, PathBuf};

use serde_json::json;
use server::Hints;

use crate::args::Build;
use crate::error::Error;
use crate::progress::Waiting;
use crate::wiring::Wiring;

/// The program that built services begin with; it stands beside this one.
const STUB: &str = "envelope-service";

pub(crate) async fn build(wiring: &Wiring, args: &Build) -> Result<(), Error> {
    let stub = stub()?;
    let found = wiring.find_trusted(&args.envelope.reference).await?;
    let manifest = found.envelope.manifest();
    let environments = wiring.environments(manifest);
    // What the executable will need on this machine is made now, when somebody is looking.
    let waiting = Waiting::new(&wiring.terminal);
    environments
        .realise(&found.envelope, &|step| waiting.step(step))
        .await?;
    waiting.end();
    let hints = Hints {
        cache_dir: absolute(&environments.cache)?,
        uv: environments.uv.as_deref().map(absolute).transpose()?,
        interpreters: environments
            .interpreters
            .iter()
            .map(|interpreter| absolute(interpreter))
            .collect::<Result<_, _>>()?,
    };
    server::build(&stub, found.envelope.path(), &hints, &args.output)?;
    let terminal = &wiring.terminal;
    if terminal.json() {
        return terminal.document(&json!({"path": args.output, "digest": found.envelope.digest()}));
    }
    terminal.say(&format!(
        "`{}` serves `{}`",
        args.output.display(),
        found.title()
    ));
    Ok(())
}

fn stub() -> Result<PathBuf, Error> {
    let this = std::env::current_exe().and_then(std::fs::canonicalize);
    let this = this.map_err(Error::io("find", "this program".as_ref()))?;
    let stub = this.with_file_name(STUB);
    if stub.is_file() {
        Ok(stub)
    } else {
        Err(Error::NoStub { path: stub })
    }
}

/// The executable will be run from another folder.
fn absolute(path: &Path) -> Result<PathBuf, Error> {
    std::path::absolute(path).map_err(Error::io("find", path))
}
