//! Bytes → values. Opens anything without panicking; refuses all that `SPEC.md` refuses.

use std::collections::BTreeSet;
use std::io::Read as _;

use flate2::Crc;
use flate2::bufread::DeflateDecoder;
use sha2::{Digest as _, Sha256};

use crate::archive::{Directory, END_BYTES, Entry, MAX_RECORD_BYTES};
use crate::limits::{MAX_DEFLATED_BYTES, MAX_ENVELOPE_BYTES, MAX_MANIFEST_BYTES, MAX_MEMBERS};
use crate::write::crc;
use crate::{Digest, Encoding, Error, Manifest, Member, MemberName, ReadAt};

/// The entry that describes the others. It is always the last, so that it can be written again
/// without the large ones, and one read of the file's end gives all that describes it.
pub(crate) const MANIFEST: &str = "manifest.json";

/// How much of a mapped member is read at a time, in bytes.
const CHUNK_BYTES: usize = 1 << 20;

/// An envelope whose structure and manifest have been checked.
///
/// The content of a member is checked when it is read, or all at once by [`Envelope::verify`].
#[derive(Debug)]
pub struct Envelope<S> {
    source: S,
    manifest: Manifest,
    digest: Digest,
    entries: Vec<Entry>,
}

/// Where the content of a mapped member is, in bytes from the beginning of the envelope.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MemberRange {
    /// First byte.
    pub offset: u64,
    /// Number of bytes.
    pub length: u64,
}

impl<S: ReadAt> Envelope<S> {
    /// Opens an envelope: checks its structure and its manifest, in the order of `SPEC.md`.
    ///
    /// # Errors
    /// The first rule that is broken.
    pub fn open(source: S) -> Result<Self, Error> {
        let directory = read_directory(&source)?;
        let mut entries = read_entries(&source, directory)?;
        check_layout(&source, &entries, directory)?;
        let bytes = read_manifest(&source, &mut entries)?;
        let manifest = Manifest::from_bytes(&bytes)?;
        check_members(&manifest.members, &entries)?;
        Ok(Self {
            source,
            manifest,
            digest: Digest::of(&bytes),
            entries,
        })
    }

    /// The description of the envelope.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// The identity of the envelope: SHA-256 of its manifest.
    pub fn digest(&self) -> Digest {
        self.digest
    }

    /// Reads a member and checks its digest.
    ///
    /// # Errors
    /// When there is no such member, or its content is not what the manifest says.
    pub fn read(&self, name: &MemberName) -> Result<Vec<u8>, Error> {
        let (member, entry) = self.find(name)?;
        let content = match entry.encoding {
            Encoding::Deflated => inflate(&self.source, entry)?,
            Encoding::Mapped => read_range(&self.source, entry.data_offset(), entry.stored_size)?,
        };
        compare(member, Digest::of(&content))?;
        Ok(content)
    }

    /// Where a mapped member is, so that it can be mapped instead of read. `None` when it is deflated.
    ///
    /// # Errors
    /// When there is no such member.
    pub fn range(&self, name: &MemberName) -> Result<Option<MemberRange>, Error> {
        let (_, entry) = self.find(name)?;
        let range = MemberRange {
            offset: entry.data_offset(),
            length: entry.stored_size,
        };
        Ok((entry.encoding == Encoding::Mapped).then_some(range))
    }

    /// Reads every member and checks that not a bit of the envelope has changed.
    ///
    /// # Errors
    /// The first member that is not what the manifest says.
    pub fn verify(&self) -> Result<(), Error> {
        self.verify_those(|_| true)
    }

    /// [`Envelope::verify`] for the mapped members only: the others are checked whenever they are
    /// read, these are usually not read but mapped.
    ///
    /// # Errors
    /// The first mapped member that is not what the manifest says.
    pub fn verify_mapped(&self) -> Result<(), Error> {
        self.verify_those(|encoding| encoding == Encoding::Mapped)
    }

    fn verify_those(&self, wanted: impl Fn(Encoding) -> bool) -> Result<(), Error> {
        let members = self.manifest.members.iter().zip(&self.entries);
        for (member, entry) in members.filter(|(member, _)| wanted(member.encoding)) {
            match entry.encoding {
                Encoding::Deflated => compare(member, Digest::of(&inflate(&self.source, entry)?))?,
                Encoding::Mapped => self.verify_in_chunks(member, entry)?,
            }
        }
        Ok(())
    }

    /// In chunks: a mapped member may be larger than memory.
    fn verify_in_chunks(&self, member: &Member, entry: &Entry) -> Result<(), Error> {
        let mut hasher = Sha256::new();
        let mut crc = Crc::new();
        let mut offset = entry.data_offset();
        let end = offset + entry.stored_size;
        let mut chunk = vec![0; CHUNK_BYTES];
        while offset < end {
            let size = usize::try_from(end - offset)
                .unwrap_or(CHUNK_BYTES)
                .min(CHUNK_BYTES);
            self.source.read_at(&mut chunk[..size], offset)?;
            hasher.update(&chunk[..size]);
            crc.update(&chunk[..size]);
            offset += size as u64;
        }
        compare(member, Digest::from_hasher(hasher))?;
        if (crc.sum(), crc.sum()) != (entry.crc, entry.stored_crc) {
            return Err(Error::Damaged {
                name: entry.name.to_string(),
            });
        }
        Ok(())
    }

    fn find(&self, name: &MemberName) -> Result<(&Member, &Entry), Error> {
        let members = self.manifest.members.iter().zip(&self.entries);
        members
            .into_iter()
            .find(|(member, _)| member.name == *name)
            .ok_or_else(|| Error::MemberMissing { name: name.clone() })
    }
}

/// Rules 1.1 to 1.3.
fn read_directory(source: &impl ReadAt) -> Result<Directory, Error> {
    let length = source.length()?;
    if length > MAX_ENVELOPE_BYTES {
        return Err(Error::TooLarge {
            size: length,
            limit: MAX_ENVELOPE_BYTES,
        });
    }
    let end = length.checked_sub(END_BYTES).ok_or(Error::NotAnEnvelope {
        reason: "it is too short",
    })?;
    let directory = Directory::parse(&read_range(source, end, END_BYTES)?, length)?;
    if directory.count > MAX_MEMBERS {
        return Err(Error::TooManyMembers {
            count: directory.count,
            limit: MAX_MEMBERS,
        });
    }
    // Before it is read: in a sparse file a false size costs its author nothing.
    if directory.size > directory.count * MAX_RECORD_BYTES {
        return Err(Error::NotAnEnvelope {
            reason: "the directory is larger than its entries",
        });
    }
    Ok(directory)
}

/// Rules 2.1 and 3.
fn read_entries(source: &impl ReadAt, directory: Directory) -> Result<Vec<Entry>, Error> {
    let bytes = read_range(source, directory.offset, directory.size)?;
    let mut rest = bytes.as_slice();
    let mut entries: Vec<Entry> = vec![];
    let mut seen = BTreeSet::new();
    for index in 0..usize::try_from(directory.count).unwrap_or(0) {
        let (entry, tail) = Entry::parse(rest, index)?;
        if !seen.insert(entry.name.fold()) {
            return Err(Error::DuplicateMember { name: entry.name });
        }
        entries.push(entry);
        rest = tail;
    }
    check_folders(&seen)?;
    match (rest, entries.last()) {
        ([], Some(last)) if last.name.as_str() == MANIFEST => Ok(entries),
        ([], _) => Err(Error::NotAnEnvelope {
            reason: "its last entry is not `manifest.json`",
        }),
        _ => Err(Error::NotAnEnvelope {
            reason: "there are bytes after the directory",
        }),
    }
}

/// Rule 3.3. `names` are folded.
pub(crate) fn check_folders(names: &BTreeSet<String>) -> Result<(), Error> {
    for name in names {
        let folders = name.match_indices('/').map(|(at, _)| &name[..at]);
        if let Some(folder) = folders.into_iter().find(|folder| names.contains(*folder)) {
            return Err(Error::MemberIsFolder {
                name: folder.to_owned(),
            });
        }
    }
    Ok(())
}

/// Rules 2.1 and 2.2: the entries fill the file from its first byte to the directory.
fn check_layout(
    source: &impl ReadAt,
    entries: &[Entry],
    directory: Directory,
) -> Result<(), Error> {
    let mut expected = 0;
    for (index, entry) in entries.iter().enumerate() {
        if entry.offset != expected {
            return Err(Error::Layout {
                index,
                expected,
                found: entry.offset,
            });
        }
        expected = entry.end().ok_or(Error::Header {
            index,
            what: "size",
        })?;
        if expected > directory.offset {
            return Err(Error::Layout {
                index: index + 1,
                expected,
                found: directory.offset,
            });
        }
        let header = entry.local_header();
        if read_range(source, entry.offset, header.len() as u64)? != header {
            return Err(Error::Header {
                index,
                what: "field before its bytes",
            });
        }
    }
    if expected != directory.offset {
        return Err(Error::Layout {
            index: entries.len(),
            expected,
            found: directory.offset,
        });
    }
    Ok(())
}

/// Rule 5.1, before anything is inflated. Takes the manifest's entry away.
fn read_manifest(source: &impl ReadAt, entries: &mut Vec<Entry>) -> Result<Vec<u8>, Error> {
    let Some(entry) = entries.pop() else {
        unreachable!("`read_entries` has seen the last one");
    };
    if entry.encoding != Encoding::Deflated {
        return Err(Error::Header {
            index: entries.len(),
            what: "compression method",
        });
    }
    if entry.size > MAX_MANIFEST_BYTES {
        return Err(Error::ManifestTooLarge { size: entry.size });
    }
    inflate(source, &entry)
}

/// Rules 4.1 and 4.4.
fn check_members(members: &[Member], entries: &[Entry]) -> Result<(), Error> {
    let differ = |index, reason| Err(Error::MemberList { index, reason });
    if members.len() != entries.len() {
        return differ(
            members.len().min(entries.len()),
            "one of them has fewer members",
        );
    }
    let mut is_after_deflated = false;
    for (index, (member, entry)) in members.iter().zip(entries).enumerate() {
        if member.name != entry.name {
            return differ(index, "the names differ");
        }
        if member.size != entry.size || member.encoding != entry.encoding {
            return differ(index, "the sizes or encodings differ");
        }
        if member.encoding == Encoding::Mapped && entry.stored_size != entry.size {
            return differ(index, "a mapped member is not stored as it is");
        }
        if member.encoding == Encoding::Mapped && is_after_deflated {
            return differ(index, "a mapped member comes after a deflated one");
        }
        is_after_deflated = member.encoding == Encoding::Deflated;
        if member.encoding == Encoding::Deflated && member.size > MAX_DEFLATED_BYTES {
            return Err(Error::MemberTooLarge {
                name: member.name.clone(),
                size: member.size,
                limit: MAX_DEFLATED_BYTES,
            });
        }
    }
    Ok(())
}

/// Rules 2.3 and 4.3. Never holds more than the declared size, whatever the stream expands to.
fn inflate(source: &impl ReadAt, entry: &Entry) -> Result<Vec<u8>, Error> {
    let stored = read_range(source, entry.data_offset(), entry.stored_size)?;
    if crc(&stored) != entry.stored_crc {
        return Err(Error::Damaged {
            name: entry.name.to_string(),
        });
    }
    let wrong = || Error::Inflate {
        name: entry.name.clone(),
        expected: entry.size,
    };
    let mut content = Vec::new();
    let mut decoder = DeflateDecoder::new(stored.as_slice());
    decoder
        .by_ref()
        .take(entry.size + 1)
        .read_to_end(&mut content)
        .map_err(|_| wrong())?;
    if content.len() as u64 != entry.size || decoder.total_in() != entry.stored_size {
        return Err(wrong());
    }
    if crc(&content) != entry.crc {
        return Err(Error::Damaged {
            name: entry.name.to_string(),
        });
    }
    Ok(content)
}

/// Callers have checked that the range lies in the source, so the length cannot be a lie.
fn read_range(source: &impl ReadAt, offset: u64, length: u64) -> Result<Vec<u8>, Error> {
    let size = usize::try_from(length).map_err(|_| Error::TooLarge {
        size: length,
        limit: MAX_ENVELOPE_BYTES,
    })?;
    let mut bytes = vec![0; size];
    source.read_at(&mut bytes, offset)?;
    Ok(bytes)
}

fn compare(member: &Member, computed: Digest) -> Result<(), Error> {
    if member.digest == computed {
        return Ok(());
    }
    Err(Error::DigestMismatch {
        name: member.name.clone(),
        expected: member.digest,
        computed,
    })
}
