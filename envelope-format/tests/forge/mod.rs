//! A slow, separate writer of the archive, which can be told to break each rule.

#[allow(dead_code, reason = "each test file uses its part")]
pub(crate) mod invalid;
#[allow(dead_code, reason = "each test file uses its part")]
pub(crate) mod reference;
#[allow(dead_code, reason = "each test file uses its part")]
pub(crate) mod wheel;

use std::io::Read as _;

use envelope_format::{Digest, Encoding, Manifest};
use flate2::Compression;
use flate2::Crc;
use flate2::bufread::DeflateEncoder;

/// An archive to be written, rule by rule as `SPEC.md` has it, unless something is changed.
#[derive(Clone)]
pub(crate) struct Forge {
    pub(crate) entries: Vec<Entry>,
    /// Put before the first entry.
    pub(crate) before: Vec<u8>,
    /// Put between the last entry and the directory.
    pub(crate) hole: Vec<u8>,
    /// Put after the end record.
    pub(crate) after: Vec<u8>,
    /// What the end record says, if not the truth.
    pub(crate) count: Option<u64>,
    /// Changes the 98 bytes of the end records, after they have been made.
    pub(crate) patch_end: Patch,
}

/// Bytes to put at a position.
pub(crate) type Patch = Vec<(usize, Vec<u8>)>;

#[derive(Clone)]
pub(crate) struct Entry {
    pub(crate) name: Vec<u8>,
    pub(crate) method: u16,
    pub(crate) stored: Vec<u8>,
    pub(crate) size: u64,
    pub(crate) crc: u32,
    /// Changes the local header, after it has been made.
    pub(crate) patch_local: Patch,
    /// Changes the directory's record, after it has been made.
    pub(crate) patch_record: Patch,
    pub(crate) stored_crc: u32,
    /// What both headers say, if not the truth.
    pub(crate) stored_size: Option<u64>,
    /// Where the directory says that it begins, if not the truth.
    pub(crate) offset: Option<u64>,
    /// More extra fields in the directory.
    pub(crate) extra: Vec<u8>,
    /// Not written before its bytes, but only in the directory.
    pub(crate) is_ghost: bool,
}

impl Entry {
    pub(crate) fn deflated(name: &str, content: &[u8]) -> Self {
        let mut stored = Vec::new();
        DeflateEncoder::new(content, Compression::default())
            .read_to_end(&mut stored)
            .unwrap();
        Self::new(name, 8, stored, content)
    }

    pub(crate) fn mapped(name: &str, content: &[u8]) -> Self {
        Self::new(name, 0, content.to_vec(), content)
    }

    fn new(name: &str, method: u16, stored: Vec<u8>, content: &[u8]) -> Self {
        Self {
            name: name.into(),
            method,
            size: content.len() as u64,
            crc: crc(content),
            stored_crc: crc(&stored),
            stored,
            patch_local: vec![],
            patch_record: vec![],
            stored_size: None,
            offset: None,
            extra: vec![],
            is_ghost: false,
        }
    }

    fn common(&self, extra: usize) -> Vec<u8> {
        let mut out = Vec::new();
        out.extend(45u16.to_le_bytes());
        out.extend(0x0800u16.to_le_bytes());
        out.extend(self.method.to_le_bytes());
        out.extend([0, 0, 0x21, 0]);
        out.extend(self.crc.to_le_bytes());
        out.extend([0xff; 8]);
        out.extend(u16::try_from(self.name.len()).unwrap().to_le_bytes());
        out.extend(u16::try_from(extra).unwrap().to_le_bytes());
        out
    }

    fn local(&self, offset: u64) -> Vec<u8> {
        let bare = usize::try_from(offset).unwrap() + 30 + self.name.len() + 28;
        let padding = if self.method == 0 {
            bare.next_multiple_of(4096) - bare
        } else {
            0
        };
        let mut out = b"PK\x03\x04".to_vec();
        out.extend(self.common(28 + padding));
        out.extend(&self.name);
        out.extend([1, 0, 16, 0]);
        out.extend(self.size.to_le_bytes());
        out.extend(self.said_stored_size().to_le_bytes());
        out.extend([0x4d, 0x45]);
        out.extend(u16::try_from(4 + padding).unwrap().to_le_bytes());
        out.extend(self.stored_crc.to_le_bytes());
        out.resize(out.len() + padding, 0);
        patched(out, &self.patch_local)
    }

    fn record(&self, offset: u64) -> Vec<u8> {
        let mut out = b"PK\x01\x02".to_vec();
        out.extend([45, 3]);
        out.extend(self.common(36 + self.extra.len()));
        out.extend([0; 6]);
        out.extend((0o100_644u32 << 16).to_le_bytes());
        out.extend([0xff; 4]);
        out.extend(&self.name);
        out.extend([1, 0, 24, 0]);
        out.extend(self.size.to_le_bytes());
        out.extend(self.said_stored_size().to_le_bytes());
        out.extend(self.offset.unwrap_or(offset).to_le_bytes());
        out.extend([0x4d, 0x45, 4, 0]);
        out.extend(self.stored_crc.to_le_bytes());
        out.extend(&self.extra);
        patched(out, &self.patch_record)
    }

    fn said_stored_size(&self) -> u64 {
        self.stored_size.unwrap_or(self.stored.len() as u64)
    }
}

fn patched(mut bytes: Vec<u8>, patch: &Patch) -> Vec<u8> {
    for (at, value) in patch {
        bytes[*at..at + value.len()].copy_from_slice(value);
    }
    bytes
}

pub(crate) fn crc(bytes: &[u8]) -> u32 {
    let mut crc = Crc::new();
    crc.update(bytes);
    crc.sum()
}

impl Forge {
    /// A good envelope with a deflated and a mapped member.
    pub(crate) fn good() -> Self {
        Self::with(manifest(), members())
    }

    /// An archive with this manifest.
    pub(crate) fn with(manifest: impl AsRef<[u8]>, members: Vec<Entry>) -> Self {
        let mut entries = members;
        entries.push(Entry::deflated("manifest.json", manifest.as_ref()));
        Self {
            entries,
            before: vec![],
            hole: vec![],
            after: vec![],
            count: None,
            patch_end: vec![],
        }
    }

    /// An archive with these members, and a manifest that lists them truly.
    pub(crate) fn of(contents: &[Member<'_>], edit: impl Fn(&mut Manifest)) -> Self {
        let mut manifest = Manifest::example();
        manifest.members = contents.iter().map(Member::listed).collect();
        edit(&mut manifest);
        let text = manifest.to_bytes().unwrap();
        Self::with(text, contents.iter().map(Member::entry).collect())
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        let mut out = self.before.clone();
        let mut records = vec![];
        for entry in &self.entries {
            let offset = out.len() as u64;
            if !entry.is_ghost {
                out.extend(entry.local(offset));
                out.extend(&entry.stored);
            }
            records.extend(entry.record(offset));
        }
        out.extend(&self.hole);
        let offset = out.len() as u64;
        out.extend(&records);
        out.extend(self.end(records.len() as u64, offset));
        out.extend(&self.after);
        out
    }

    fn end(&self, size: u64, offset: u64) -> Vec<u8> {
        let count = self.count.unwrap_or(self.entries.len() as u64);
        let mut out = b"PK\x06\x06".to_vec();
        out.extend(44u64.to_le_bytes());
        out.extend([45, 3, 45, 0]);
        out.extend([0; 8]);
        for value in [count, count, size, offset] {
            out.extend(value.to_le_bytes());
        }
        out.extend(b"PK\x06\x07\0\0\0\0");
        out.extend((offset + size).to_le_bytes());
        out.extend(1u32.to_le_bytes());
        out.extend(b"PK\x05\x06\0\0\0\0");
        out.extend([0xff; 12]);
        out.extend([0, 0]);
        patched(out, &self.patch_end)
    }
}

/// A member with its true content.
#[derive(Clone, Copy)]
pub(crate) struct Member<'c> {
    pub(crate) name: &'c str,
    pub(crate) content: &'c [u8],
    pub(crate) is_mapped: bool,
}

pub(crate) fn mapped<'c>(name: &'c str, content: &'c [u8]) -> Member<'c> {
    Member {
        name,
        content,
        is_mapped: true,
    }
}

pub(crate) fn deflated<'c>(name: &'c str, content: &'c [u8]) -> Member<'c> {
    Member {
        name,
        content,
        is_mapped: false,
    }
}

impl Member<'_> {
    fn entry(&self) -> Entry {
        match self.is_mapped {
            true => Entry::mapped(self.name, self.content),
            false => Entry::deflated(self.name, self.content),
        }
    }

    fn listed(&self) -> envelope_format::Member {
        envelope_format::Member {
            name: self.name.parse().unwrap(),
            size: self.content.len() as u64,
            digest: Digest::of(self.content),
            encoding: match self.is_mapped {
                true => Encoding::Mapped,
                false => Encoding::Deflated,
            },
        }
    }
}

pub(crate) const LOCK: &[u8] = b"lock-version = \"1.0\"\n";
pub(crate) const PICKLE: &[u8] = b"not a pickle, and never unpickled here";

/// The members of [`Forge::good`].
pub(crate) fn members() -> Vec<Entry> {
    good().iter().map(Member::entry).collect()
}

/// What every envelope needs.
pub(crate) fn good() -> Vec<Member<'static>> {
    vec![
        mapped("state/functions.pkl", PICKLE),
        deflated("environment/pylock.toml", LOCK),
    ]
}

/// The manifest of [`Forge::good`], as text.
pub(crate) fn manifest() -> String {
    let mut manifest = Manifest::example();
    manifest.members = good().iter().map(Member::listed).collect();
    String::from_utf8(manifest.to_bytes().unwrap()).unwrap()
}
