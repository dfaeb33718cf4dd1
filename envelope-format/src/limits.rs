//! Every number that a reader refuses to exceed, and why.

/// Largest envelope, in bytes: 1 TiB. Nothing larger is copied around as one file.
pub const MAX_ENVELOPE_BYTES: u64 = 1 << 40;

/// Most members. A forest of 10,000 trees has about 40,000 buffers.
pub const MAX_MEMBERS: u64 = 65_535;

/// Largest `manifest.json`, in bytes: 32 MiB, i.e. some 500 bytes for each of the most members.
pub const MAX_MANIFEST_BYTES: u64 = 32 << 20;

/// Largest deflated member after inflating, in bytes: 1 GiB. Larger ones are stored mapped.
pub const MAX_DEFLATED_BYTES: u64 = 1 << 30;

/// Longest member name, in bytes; what file systems accept as one relative path everywhere.
pub const MAX_NAME_BYTES: usize = 1024;

/// Longest part of a member name, in bytes; what file systems accept as one file name.
pub const MAX_NAME_PART_BYTES: usize = 255;

/// Most columns in the input or output of one function.
pub const MAX_FIELDS: usize = 10_000;

/// Mapped members begin at a multiple of this, in bytes: the page size of the systems we run on.
pub const PAGE_BYTES: u64 = 4096;

/// Largest environment lock, in bytes: 16 MiB. A package with all its wheels takes about 10 KiB.
pub const MAX_LOCK_BYTES: u64 = 16 << 20;

/// Most packages of an environment lock.
pub const MAX_PACKAGES: usize = 10_000;

/// Longest marker of a package, in bytes: long ones nest deeply, and are parsed by recursion.
pub const MAX_MARKER_BYTES: usize = 4096;

/// Largest carried wheel, in bytes: 1 GiB. It is held in memory while it is checked.
pub const MAX_WHEEL_BYTES: u64 = 1 << 30;

/// Most files in a carried wheel. Without the ZIP64 records, which are refused there, ZIP has no more.
pub const MAX_WHEEL_FILES: usize = 65_535;

/// Most bytes that the files of a carried wheel may have together: 8 GiB.
pub const MAX_WHEEL_CONTENT_BYTES: u64 = 8 << 30;

/// Longest attestation, in bytes.
pub const MAX_ATTESTATION_BYTES: u64 = 64 << 10;

/// Most signatures of an attestation.
pub const MAX_SIGNATURES: usize = 100;
