//! `envelope diff`: how two envelopes differ. Runs none of them.

mod changes;
mod text;

use std::collections::{BTreeMap, BTreeSet};

use envelope_format::{Digest, Function, Lock, Manifest, MemberName};
use serde::Serialize;
use serde_json::Value;

use self::changes::{Change, changes};
use crate::args::Diff;
use crate::error::Error;
use crate::wiring::{Found, Wiring};

/// What differs, section by section; a section without differences is empty.
#[derive(Debug, Serialize)]
struct Difference {
    equal: bool,
    a: Side,
    b: Side,
    description: Vec<Change>,
    tags: Vec<Change>,
    /// The pickled functions and the commit they are from.
    code: Vec<Change>,
    modules: Vec<ModuleChange>,
    environment: Vec<Change>,
    packages: Vec<Change>,
    functions: Vec<FunctionChange>,
    /// Members that only one has, or whose bytes differ.
    members: Vec<MemberName>,
}

#[derive(Debug, Serialize)]
struct Side {
    title: String,
    digest: Digest,
}

#[derive(Debug, Serialize)]
struct ModuleChange {
    path: String,
    a: Option<Digest>,
    b: Option<Digest>,
    /// As `diff -u` shows it; `None` for files that are not text.
    #[serde(skip_serializing_if = "Option::is_none")]
    diff: Option<String>,
}

/// What differs of a function; of one that only one envelope has, its name.
#[derive(Debug, Serialize)]
struct FunctionChange {
    name: String,
    only_in: Option<&'static str>,
    doc: Vec<Change>,
    signature: Vec<Change>,
    certificate: Vec<Change>,
    statistics: Vec<Change>,
}

impl FunctionChange {
    fn is_none(&self) -> bool {
        let parts = [
            &self.doc,
            &self.signature,
            &self.certificate,
            &self.statistics,
        ];
        self.only_in.is_none() && parts.into_iter().all(Vec::is_empty)
    }
}

pub(crate) async fn diff(wiring: &Wiring, args: &Diff) -> Result<(), Error> {
    let (a, b) = (wiring.find(&args.a).await?, wiring.find(&args.b).await?);
    let difference = compare(&a, &b)?;
    let terminal = &wiring.terminal;
    if terminal.json() {
        terminal.document(&difference)?;
    } else {
        terminal.print(&text::text(terminal, &difference))?;
    }
    match args.exit_code && !difference.equal {
        true => Err(Error::Different),
        false => Ok(()),
    }
}

fn compare(a: &Found, b: &Found) -> Result<Difference, Error> {
    let (first, second) = (a.envelope.manifest(), b.envelope.manifest());
    Ok(Difference {
        equal: a.envelope.digest() == b.envelope.digest(),
        a: Side::of(a),
        b: Side::of(b),
        description: changes(&first.description, &second.description),
        tags: changes(&first.tags, &second.tags),
        code: code(first, second),
        modules: modules(a, b)?,
        environment: environment(first, second),
        packages: changes(&packages(a)?, &packages(b)?),
        functions: functions(a, b)?,
        members: members(first, second),
    })
}

fn members(a: &Manifest, b: &Manifest) -> Vec<MemberName> {
    let names = a.members.iter().chain(&b.members);
    let names: BTreeSet<_> = names.map(|member| &member.name).collect();
    let differ = names
        .into_iter()
        .filter(|name| digest(a, name) != digest(b, name));
    differ.cloned().collect()
}

impl Side {
    fn of(found: &Found) -> Self {
        Self {
            title: found.title(),
            digest: found.envelope.digest(),
        }
    }
}

fn code(a: &Manifest, b: &Manifest) -> Vec<Change> {
    let of = |manifest: &Manifest| {
        let buffers = manifest.state.buffers.iter();
        serde_json::json!({
            "pickle": digest(manifest, &manifest.state.pickle),
            "buffers": buffers.map(|name| digest(manifest, name)).collect::<Vec<_>>(),
            "git_commit": manifest.source.git_commit,
            "git_dirty": manifest.source.git_dirty,
        })
    };
    changes(&of(a), &of(b))
}

fn digest(manifest: &Manifest, name: &MemberName) -> Option<Digest> {
    let members = &mut manifest.members.iter();
    members
        .find(|member| member.name == *name)
        .map(|member| member.digest)
}

fn environment(a: &Manifest, b: &Manifest) -> Vec<Change> {
    let of = |manifest: &Manifest| {
        let environment = &manifest.environment;
        serde_json::json!({
            "python": environment.python,
            "platform": environment.platform,
            "libc": environment.libc,
        })
    };
    changes(&of(a), &of(b))
}

/// Version, or commit, of each package; with the digest of one that is no index's.
fn packages(found: &Found) -> Result<BTreeMap<String, String>, Error> {
    let bytes = found
        .envelope
        .read(&found.envelope.manifest().environment.lock)?;
    let broken = |source| runtime::Error::Envelope {
        path: found.envelope.path().to_owned(),
        source,
    };
    let lock = Lock::parse(&bytes).map_err(broken)?;
    let pinned = lock.packages.into_iter().map(|package| {
        let version = package.version.unwrap_or_default();
        let commit = package.vcs.map(|repository| repository.commit);
        let file = package
            .archive
            .and_then(|mut file| file.hashes.remove("sha256"));
        let exact = commit.or(file).map(|exact| format!(" ({exact:.12})"));
        let shown = format!("{version}{}", exact.unwrap_or_default());
        (package.name, shown.trim_start().to_owned())
    });
    Ok(pinned.collect())
}

fn modules(a: &Found, b: &Found) -> Result<Vec<ModuleChange>, Error> {
    let (first, second) = (a.envelope.manifest(), b.envelope.manifest());
    let names: BTreeSet<_> = [first, second]
        .into_iter()
        .flat_map(|manifest| &manifest.source.modules)
        .collect();
    let mut changed = vec![];
    for name in names {
        let has = |manifest: &Manifest| {
            let listed = manifest.source.modules.contains(name);
            digest(manifest, name).filter(|_| listed)
        };
        let (old, new) = (has(first), has(second));
        if old != new {
            changed.push(ModuleChange {
                path: name.as_str().trim_start_matches("modules/").to_owned(),
                a: old,
                b: new,
                diff: text_diff(&source(a, name, old)?, &source(b, name, new)?),
            });
        }
    }
    Ok(changed)
}

/// The content of a module; nothing, where there is none.
fn source(found: &Found, name: &MemberName, digest: Option<Digest>) -> Result<Vec<u8>, Error> {
    match digest {
        Some(_) => Ok(found.envelope.read(name)?),
        None => Ok(vec![]),
    }
}

fn text_diff(a: &[u8], b: &[u8]) -> Option<String> {
    let (a, b) = (std::str::from_utf8(a).ok()?, std::str::from_utf8(b).ok()?);
    let diff = similar::TextDiff::from_lines(a, b);
    Some(diff.unified_diff().context_radius(3).to_string())
}

fn functions(a: &Found, b: &Found) -> Result<Vec<FunctionChange>, Error> {
    let (first, second) = (a.envelope.manifest(), b.envelope.manifest());
    let mut changed = vec![];
    for one in &first.functions {
        match second.functions.iter().find(|other| other.name == one.name) {
            Some(other) => changed.push(function(a, one, b, other)?),
            None => changed.push(only(&one.name, "a")),
        }
    }
    let known = |function: &&Function| first.functions.iter().any(|one| one.name == function.name);
    let added = second.functions.iter().filter(|function| !known(function));
    changed.extend(added.map(|function| only(&function.name, "b")));
    changed.retain(|function| !function.is_none());
    Ok(changed)
}

fn only(name: &str, side: &'static str) -> FunctionChange {
    FunctionChange {
        name: name.to_owned(),
        only_in: Some(side),
        doc: vec![],
        signature: vec![],
        certificate: vec![],
        statistics: vec![],
    }
}

fn function(
    a: &Found,
    one: &Function,
    b: &Found,
    other: &Function,
) -> Result<FunctionChange, Error> {
    Ok(FunctionChange {
        name: one.name.clone(),
        only_in: None,
        doc: changes(&one.doc, &other.doc),
        signature: changes(&one.signature, &other.signature),
        certificate: changes(&one.certificate, &other.certificate),
        statistics: changes(&statistics(a, one)?, &statistics(b, other)?),
    })
}

fn statistics(found: &Found, function: &Function) -> Result<Value, Error> {
    let statistics = super::show::statistics::read(&found.envelope, function)?;
    Ok(statistics.map_or(Value::Null, |statistics| serde_json::json!(statistics)))
}
