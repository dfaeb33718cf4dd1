//! `envelope build`: one executable that serves an envelope.

use std::path::{Path, PathBuf};

use runtime::Environments;
use serde_json::json;
use server::{Built, Hints, Surroundings};

use crate::args::Build;
use crate::commands::show::size;
use crate::error::Error;
use crate::progress::Waiting;
use crate::wiring::{Found, Wiring};

/// The program that built services begin with; it stands beside this one.
const STUB: &str = "envelope-service";

pub(crate) async fn build(wiring: &Wiring, args: &Build) -> Result<(), Error> {
    let stub = stub()?;
    let found = wiring.find_trusted(&args.envelope.reference).await?;
    let manifest = found.envelope.manifest();
    let environments = wiring.environments(manifest);
    // What the executable will need on this machine is made now, when somebody is looking.
    let waiting = Waiting::new(&wiring.terminal);
    let environment = environments
        .realise(&found.envelope, &|step| waiting.step(step))
        .await?;
    let built = if args.bundle {
        waiting.step("packing the environment");
        build_with(&stub, &found, Surroundings::Carried(&environment), args)?
    } else {
        let hints = hints(&environments)?;
        build_with(&stub, &found, Surroundings::Machine(&hints), args)?
    };
    waiting.end();
    tell(wiring, &found, args, &built)
}

fn build_with(
    stub: &Path,
    found: &Found,
    surroundings: Surroundings<'_>,
    args: &Build,
) -> Result<Built, Error> {
    let envelope = found.envelope.path();
    Ok(server::build(stub, envelope, surroundings, &args.output)?)
}

/// What the executable may use of this machine.
fn hints(environments: &Environments) -> Result<Hints, Error> {
    let interpreters = environments.interpreters.iter();
    Ok(Hints {
        cache_dir: absolute(&environments.cache)?,
        uv: environments.uv.as_deref().map(absolute).transpose()?,
        interpreters: interpreters
            .map(|path| absolute(path))
            .collect::<Result<_, _>>()?,
    })
}

fn tell(wiring: &Wiring, found: &Found, args: &Build, built: &Built) -> Result<(), Error> {
    let terminal = &wiring.terminal;
    if terminal.json() {
        return terminal.document(&json!({
            "path": args.output,
            "digest": found.envelope.digest(),
            "bytes": built.bytes,
            "program_bytes": built.program_bytes,
            "envelope_bytes": built.envelope_bytes,
            "environment": built.carried,
        }));
    }
    terminal.say(&format!(
        "`{}` serves `{}`",
        args.output.display(),
        found.title()
    ));
    let Some(carried) = &built.carried else {
        return Ok(());
    };
    terminal.say(&format!(
        "It takes {}, and {} when it is unpacked; it runs on {} with glibc {} or later.",
        size(built.bytes),
        size(carried.unpacked_bytes),
        carried.architecture,
        carried.glibc,
    ));
    for missing in &carried.missing {
        terminal.say(&format!("Not here, so not in it: {missing}"));
    }
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
