//! Which files may be opened, by Landlock; with it, TCP, signals and abstract sockets.

use landlock::{
    ABI, Access as _, AccessFs, AccessNet, LandlockStatus, Ruleset, RulesetAttr as _,
    RulesetCreatedAttr as _, RulesetError, RulesetStatus, Scope, path_beneath_rules,
};

use super::{Level, Wanted};

/// The first version that covers truncation.
pub(super) const TRUNCATION: i32 = 3;

/// Newer versions are used where the kernel has them, older ones are made do with.
const NEWEST: ABI = ABI::V10;

/// Gives the kernel's version of Landlock.
pub(super) fn restrict(wanted: &Wanted) -> Result<i32, String> {
    match rules(wanted) {
        Ok(Some(abi)) => Ok(abi),
        Ok(None) => Err("Landlock (Linux 5.13 or later that lists `landlock` in `lsm=`)".into()),
        Err(error) => Err(format!("Landlock ({error})")),
    }
}

fn rules(wanted: &Wanted) -> Result<Option<i32>, RulesetError> {
    // A proof is about files: what it may call, and how, is told by an observer.
    let everything = AccessFs::from_all(if wanted.level < Level::Default {
        ABI::V3
    } else {
        NEWEST
    });
    let mut rules = Ruleset::default().handle_access(everything)?;
    if wanted.level >= Level::Default {
        rules = rules.scope(Scope::from_all(NEWEST))?;
        if !wanted.network {
            rules = rules.handle_access(AccessNet::from_all(NEWEST))?;
        }
    }
    let rules = rules
        .create()?
        .add_rules(path_beneath_rules(
            &wanted.read,
            AccessFs::from_read(NEWEST),
        ))?
        .add_rules(path_beneath_rules(&wanted.write, everything))?;
    let status = rules.restrict_self()?;
    let LandlockStatus::Available { effective_abi, .. } = status.landlock else {
        return Ok(None);
    };
    Ok((status.ruleset != RulesetStatus::NotEnforced).then_some(effective_abi as i32))
}
