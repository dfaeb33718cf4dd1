//! Memory that is not needed any more goes back to the machine.
#![expect(
    unsafe_code,
    reason = "no safe interface of the C library's allocator can be set"
)]

/// Free memory that stays with the process, and the least of an allocation that has pages of its own,
/// in bytes.
#[cfg(target_env = "gnu")]
const KEPT: libc::c_int = 128 << 10;

/// More have no use for what threads do here: rows are in large buffers, which have their own pages.
#[cfg(target_env = "gnu")]
const ARENAS: libc::c_int = 4;

/// Has this process keep little of what it once needed.
///
/// Left to itself the allocator of the GNU C library keeps as much as the largest buffer that was ever
/// freed, in each of eight arenas per core: after a few large calls a service of 16 MB has 74 for as long as it
/// lives. Other libraries' allocators are left alone. To be called before there is a second thread.
pub fn give_back_what_is_not_needed() {
    #[cfg(target_env = "gnu")]
    for (parameter, value) in [
        (libc::M_TRIM_THRESHOLD, KEPT),
        (libc::M_MMAP_THRESHOLD, KEPT),
        (libc::M_ARENA_MAX, ARENAS),
    ] {
        // SAFETY: it takes two numbers by value and changes numbers that allocations read; the caller
        // promises that none is made at the same time.
        let _ = unsafe { libc::mallopt(parameter, value) };
    }
}
