//! Memory that is not needed any more: whether it goes back to the machine.
#![expect(
    unsafe_code,
    reason = "no safe interface of the C library's allocator can be set"
)]

/// Free memory that stays with a service, and the least of an allocation that has pages of its own, in
/// bytes.
#[cfg(target_env = "gnu")]
const KEPT: libc::c_int = 128 << 10;

/// More have no use for what threads do there: rows are in large buffers, which have their own pages.
#[cfg(target_env = "gnu")]
const ARENAS: libc::c_int = 4;

/// Free memory that stays with each arena of a job, in bytes: some batches of a usual table.
#[cfg(target_env = "gnu")]
const KEPT_FOR_BATCHES: libc::c_int = 32 << 20;

/// The least of an allocation of a job that has pages of its own, in bytes. Columns of a batch are smaller;
/// what is read of a file at once is larger, and there less often than it would take room.
#[cfg(target_env = "gnu")]
const LARGE: libc::c_int = 4 << 20;

/// Each has what it once needed; which thread gets a batch is chance.
#[cfg(target_env = "gnu")]
const ARENAS_FOR_BATCHES: libc::c_int = 2;

/// Has this process keep little of what it once needed.
///
/// Left to itself the allocator of the GNU C library keeps as much as the largest buffer that was ever
/// freed, in each of eight arenas per core: after a few large calls a service of 16 MB has 74 for as long as it
/// lives. Other libraries' allocators are left alone. To be called before there is a second thread.
pub fn give_back_what_is_not_needed() {
    #[cfg(target_env = "gnu")]
    set(KEPT, KEPT, ARENAS);
}

/// Has this process keep what it will need again soon, which is all that a job over a table needs.
///
/// To get the pages of a batch anew takes longer than to decode it. Left to itself the allocator of the GNU
/// C library gives many of them back, and keeps others in arenas of threads that have no use for them. To be
/// called before there is a second thread.
pub fn keep_what_is_needed_again() {
    #[cfg(target_env = "gnu")]
    set(KEPT_FOR_BATCHES, LARGE, ARENAS_FOR_BATCHES);
}

#[cfg(target_env = "gnu")]
fn set(kept: libc::c_int, large: libc::c_int, arenas: libc::c_int) {
    for (parameter, value) in [
        (libc::M_TRIM_THRESHOLD, kept),
        (libc::M_MMAP_THRESHOLD, large),
        (libc::M_ARENA_MAX, arenas),
    ] {
        // SAFETY: it takes two numbers by value and changes numbers that allocations read; the callers
        // of this module promise that none is made at the same time.
        let _ = unsafe { libc::mallopt(parameter, value) };
    }
}
