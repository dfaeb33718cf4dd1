//! What a process may use up, and what being root is worth.

use rustix::io;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustix::thread::{
    CapabilitySet, CapabilitySets, capability_is_in_bounding_set, clear_ambient_capability_set,
    remove_capability_from_bounding_set, set_capabilities, set_no_new_privs,
};

use super::{Level, Wanted, without};

/// Descriptors of a process.
const FILES: u64 = 65_536;

/// Bytes of the largest file, also in memory: below it are the arrays that torch shares.
const FILE_BYTES: u64 = 64 << 30;

/// Processes and threads of the user in a namespace of its own. Outside of one the kernel counts
/// all that the user has on the machine, which says nothing about a worker.
const PROCESSES: u64 = 4096;

/// The last capability that any kernel has is far below.
const CAPABILITIES: u32 = 64;

pub(super) fn set(wanted: &Wanted) -> Result<String, String> {
    set_no_new_privs(true).map_err(|error| without("no_new_privs")(error.into()))?;
    lower(Resource::Core, 0)
        .and_then(|()| lower(Resource::Nofile, FILES))
        .and_then(|()| lower(Resource::Fsize, FILE_BYTES))
        .and_then(|()| {
            wanted
                .memory
                .map_or(Ok(()), |most| lower(Resource::Data, most))
        })
        .and_then(|()| match wanted.level {
            Level::Strong => lower(Resource::Nproc, PROCESSES),
            Level::None | Level::Basic | Level::Default => Ok(()),
        })
        .map_err(|error| without("resource limits")(error.into()))?;
    drop_capabilities().map_err(|error| without("dropped capabilities")(error.into()))?;
    Ok(String::new())
}

fn lower(resource: Resource, most: u64) -> io::Result<()> {
    let found = getrlimit(resource);
    let least = |limit: Option<u64>| Some(limit.map_or(most, |limit| limit.min(most)));
    setrlimit(
        resource,
        Rlimit {
            current: least(found.current),
            maximum: least(found.maximum),
        },
    )
}

/// Root keeps nothing of root but to open files of others, which a server that runs as root must do
/// to read its model; which files those are is another layer's matter.
fn drop_capabilities() -> io::Result<()> {
    let kept = CapabilitySet::DAC_OVERRIDE;
    // Without ambient capabilities there is nothing to clear: Linux before 4.3.
    let _ = clear_ambient_capability_set();
    for bit in 0..CAPABILITIES {
        let one = CapabilitySet::from_bits_retain(1 << bit);
        match capability_is_in_bounding_set(one) {
            Ok(true) if !kept.contains(one) => match remove_capability_from_bounding_set(one) {
                // Who is not root may not, and has none to lose: nothing can be gained any more.
                Err(io::Errno::PERM) | Ok(()) => {}
                Err(error) => return Err(error),
            },
            Ok(_) => {}
            Err(_) => break, // the kernel has no more
        }
    }
    let found = rustix::thread::capabilities(None)?;
    let permitted = found.permitted & kept;
    set_capabilities(
        None,
        CapabilitySets {
            effective: found.effective & kept,
            permitted,
            inheritable: CapabilitySet::empty(),
        },
    )
}
