//! Members whose content has rules of its own: the environment lock and the wheels it carries.
//!
//! They decide what is installed, so nobody gets their bytes from this crate before they are checked.

use std::collections::BTreeSet;

use crate::limits::{MAX_LOCK_BYTES, MAX_WHEEL_BYTES};
use crate::{Error, Lock, Manifest, Member, MemberName, check_wheel};

/// Where carried wheels are.
const WHEELS: &str = "environment/wheels/";

/// Rules 7 and 8; gives the paths that a wheel installs.
pub(crate) fn check(
    manifest: &Manifest,
    name: &MemberName,
    content: &[u8],
) -> Result<Vec<String>, Error> {
    if *name == manifest.environment.lock {
        let lock = Lock::parse(content)?;
        check_carried(&lock, manifest)?;
        return Ok(vec![]);
    }
    match name.as_str().strip_prefix(WHEELS) {
        Some(file) => check_wheel(file, content),
        None => Ok(vec![]),
    }
}

/// Whether a member has to be read whole to be checked.
pub(crate) fn has_rules(manifest: &Manifest, name: &MemberName) -> bool {
    *name == manifest.environment.lock || name.as_str().starts_with(WHEELS)
}

/// Before any of them is read: these are held in memory while they are checked.
pub(crate) fn check_sizes(manifest: &Manifest) -> Result<(), Error> {
    for Member { name, size, .. } in &manifest.members {
        if *name == manifest.environment.lock && *size > MAX_LOCK_BYTES {
            return Err(Error::Lock {
                rule: "7.1",
                package: None,
                reason: format!("has {size} bytes, the most is {MAX_LOCK_BYTES}"),
            });
        }
        if name.as_str().starts_with(WHEELS) && *size > MAX_WHEEL_BYTES {
            return Err(Error::Wheel {
                rule: "8.1",
                wheel: name.to_string(),
                reason: format!("has {size} bytes, the most is {MAX_WHEEL_BYTES}"),
            });
        }
    }
    Ok(())
}

/// Rule 8.6: `installed` are the paths of the wheels before this one.
pub(crate) fn add_installed(
    installed: &mut BTreeSet<String>,
    wheel: &MemberName,
    paths: Vec<String>,
) -> Result<(), Error> {
    for path in paths {
        if installed.contains(&path) {
            return Err(Error::Wheel {
                rule: "8.6",
                wheel: wheel.to_string(),
                reason: format!("writes `{path}`, as another wheel does"),
            });
        }
        installed.insert(path);
    }
    Ok(())
}

/// Rule 7.6: the files that the lock has no URL of are members, with the digests that it says.
fn check_carried(lock: &Lock, manifest: &Manifest) -> Result<(), Error> {
    let folder = manifest.environment.lock.as_str().rsplit_once('/');
    for package in &lock.packages {
        for file in package.files() {
            let Some(path) = &file.path else { continue };
            let name =
                folder.map_or_else(|| path.clone(), |(folder, _)| format!("{folder}/{path}"));
            let is_it = |member: &&Member| {
                member.name.as_str() == name
                    && file.hashes.get("sha256") == Some(&member.digest.hex())
            };
            if manifest.members.iter().find(is_it).is_none() {
                return Err(package.not_carried());
            }
        }
    }
    Ok(())
}
