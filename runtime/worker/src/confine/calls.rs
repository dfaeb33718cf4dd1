//! Which system calls fail, by seccomp: those that a model has no use for and exploits have.
//!
//! They fail as they do on a machine that lacks them, because libraries try them and do without.

use std::collections::BTreeMap;

use seccompiler::SeccompCmpArgLen::Dword;
use seccompiler::SeccompCmpOp::{Eq, MaskedEq, Ne};
use seccompiler::{SeccompAction, SeccompCondition, SeccompFilter, SeccompRule, apply_filter};

/// Not permitted.
const DENIED: [i64; 46] = [
    // Other processes.
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_process_madvise,
    libc::SYS_pidfd_getfd,
    libc::SYS_kcmp,
    // Another view of the file system, or a way around this one.
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_pivot_root,
    libc::SYS_chroot,
    libc::SYS_fsopen,
    libc::SYS_fsconfig,
    libc::SYS_fsmount,
    libc::SYS_fspick,
    libc::SYS_move_mount,
    libc::SYS_open_tree,
    libc::SYS_mount_setattr,
    libc::SYS_open_by_handle_at,
    libc::SYS_fanotify_init,
    libc::SYS_unshare,
    libc::SYS_setns,
    // Large, young or seldom tried parts of the kernel.
    libc::SYS_bpf,
    libc::SYS_perf_event_open,
    libc::SYS_userfaultfd,
    libc::SYS_keyctl,
    libc::SYS_add_key,
    libc::SYS_request_key,
    libc::SYS_lookup_dcookie,
    // The machine itself.
    libc::SYS_kexec_load,
    libc::SYS_kexec_file_load,
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
    libc::SYS_reboot,
    libc::SYS_swapon,
    libc::SYS_swapoff,
    libc::SYS_quotactl,
    libc::SYS_quotactl_fd,
    libc::SYS_acct,
    libc::SYS_syslog,
    libc::SYS_vhangup,
    libc::SYS_sethostname,
    libc::SYS_setdomainname,
    libc::SYS_settimeofday,
    libc::SYS_clock_settime,
    libc::SYS_nfsservctl,
];

/// Those that only this processor has.
#[cfg(target_arch = "x86_64")]
const DENIED_HERE: [i64; 4] = [
    libc::SYS_iopl,
    libc::SYS_ioperm,
    libc::SYS_modify_ldt,
    libc::SYS_uselib,
];
#[cfg(not(target_arch = "x86_64"))]
const DENIED_HERE: [i64; 0] = [];

/// Not there: the C library and event loops then do it the older way. What `clone3` is told cannot be
/// seen by a filter, what `clone` is told can; what an `io_uring` does is seen by none.
const ABSENT: [i64; 4] = [
    libc::SYS_clone3,
    libc::SYS_io_uring_setup,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
];

/// Each is a namespace that `clone` would make.
const NEW_NAMESPACES: [i32; 8] = [
    libc::CLONE_NEWNS,
    libc::CLONE_NEWCGROUP,
    libc::CLONE_NEWUTS,
    libc::CLONE_NEWIPC,
    libc::CLONE_NEWUSER,
    libc::CLONE_NEWPID,
    libc::CLONE_NEWNET,
    0x80, // CLONE_NEWTIME
];

/// Requests that type into the terminal of whoever started us.
const TYPING: [u64; 2] = [0x5412, 0x541C]; // TIOCSTI, TIOCLINUX

/// What `personality` is asked for to learn what it is.
const QUERY: u64 = 0xffff_ffff;

/// The second table of system calls of an `x86_64`: the same calls, and numbers of its own for some.
#[cfg(target_arch = "x86_64")]
const X32: i64 = 0x4000_0000;
#[cfg(target_arch = "x86_64")]
const X32_ONLY: [i64; 5] = [X32 + 514, X32 + 521, X32 + 528, X32 + 539, X32 + 540];

type Rules = BTreeMap<i64, Vec<SeccompRule>>;

/// `covers_truncation`: whether another layer sees to it that files are not truncated by name.
pub(super) fn deny(network: bool, covers_truncation: bool) -> Result<String, String> {
    let failed = |error: seccompiler::Error| format!("seccomp ({error})");
    install(
        denied(network, covers_truncation).map_err(|error| failed(error.into()))?,
        libc::EPERM,
    )
    .map_err(failed)?;
    let absent = ABSENT.into_iter().map(|call| (call, vec![])).collect();
    install(absent, libc::ENOSYS).map_err(failed)?;
    Ok("seccomp".into())
}

fn install(rules: Rules, error: i32) -> Result<(), seccompiler::Error> {
    let filter = SeccompFilter::new(
        in_all_tables(rules),
        SeccompAction::Allow,
        SeccompAction::Errno(error.unsigned_abs()),
        std::env::consts::ARCH.try_into()?,
    )?;
    let program: seccompiler::BpfProgram = filter.try_into()?;
    apply_filter(&program)
}

fn denied(network: bool, covers_truncation: bool) -> Result<Rules, seccompiler::BackendError> {
    let always = DENIED.into_iter().chain(DENIED_HERE);
    let mut rules: Rules = always.map(|call| (call, vec![])).collect();
    if !covers_truncation {
        rules.insert(libc::SYS_truncate, vec![]);
    }
    #[cfg(target_arch = "x86_64")]
    rules.extend(X32_ONLY.map(|call| (call, vec![])));
    rules.insert(libc::SYS_socket, vec![socket_outside_of(network)?]);
    let flags = NEW_NAMESPACES.into_iter().map(|flag| {
        let flag = u64::from(flag.unsigned_abs());
        rule(vec![SeccompCondition::new(0, Dword, MaskedEq(flag), flag)?])
    });
    rules.insert(libc::SYS_clone, flags.collect::<Result<_, _>>()?);
    let typing = TYPING.map(|request| rule(vec![SeccompCondition::new(1, Dword, Eq, request)?]));
    rules.insert(
        libc::SYS_ioctl,
        typing.into_iter().collect::<Result<_, _>>()?,
    );
    let personality = vec![
        SeccompCondition::new(0, Dword, Ne, 0)?,
        SeccompCondition::new(0, Dword, Ne, QUERY)?,
    ];
    rules.insert(libc::SYS_personality, vec![rule(personality)?]);
    Ok(rules)
}

/// Sockets are for other processes of this machine; with a network also for that.
fn socket_outside_of(network: bool) -> Result<SeccompRule, seccompiler::BackendError> {
    let families: &[i32] = if network {
        &[
            libc::AF_UNIX,
            libc::AF_INET,
            libc::AF_INET6,
            libc::AF_NETLINK,
        ]
    } else {
        &[libc::AF_UNIX]
    };
    let others = families
        .iter()
        .map(|family| SeccompCondition::new(0, Dword, Ne, u64::from(family.unsigned_abs())));
    rule(others.collect::<Result<_, _>>()?)
}

fn rule(conditions: Vec<SeccompCondition>) -> Result<SeccompRule, seccompiler::BackendError> {
    SeccompRule::new(conditions)
}

#[cfg(target_arch = "x86_64")]
fn in_all_tables(rules: Rules) -> Rules {
    let others = rules.clone().into_iter();
    let others = others.map(|(call, rules)| (call | X32, rules));
    others.chain(rules).collect()
}

#[cfg(not(target_arch = "x86_64"))]
fn in_all_tables(rules: Rules) -> Rules {
    rules
}
