//! Values → bytes. The same content gives the same bytes.

use std::collections::BTreeSet;
use std::io::{self, Read as _, Write};

use flate2::bufread::DeflateEncoder;
use flate2::{Compression, Crc};

use crate::archive::{Directory, Entry};
use crate::limits::{MAX_DEFLATED_BYTES, MAX_MEMBERS};
use crate::read::{MANIFEST, check_folders};
use crate::{Digest, Encoding, Error, Manifest, Member, MemberName};

/// An envelope that is being put together.
#[derive(Debug)]
pub struct Draft<'c> {
    manifest: Manifest,
    contents: Vec<Content<'c>>,
}

/// The bytes of a member, and how to keep them.
#[derive(Debug)]
pub enum Content<'c> {
    /// Kept deflated.
    Text(Vec<u8>),
    /// Kept as they are, on a page of their own: for large arrays.
    Buffer(&'c [u8]),
}

impl Content<'_> {
    fn bytes(&self) -> &[u8] {
        match self {
            Self::Text(bytes) => bytes,
            Self::Buffer(bytes) => bytes,
        }
    }

    fn encoding(&self) -> Encoding {
        match self {
            Self::Text(_) => Encoding::Deflated,
            Self::Buffer(_) => Encoding::Mapped,
        }
    }
}

impl<'c> Draft<'c> {
    /// Begins with a manifest; its list of members is filled by [`Draft::add`].
    #[must_use]
    pub fn new(manifest: Manifest) -> Self {
        Self {
            manifest: Manifest {
                members: vec![],
                ..manifest
            },
            contents: vec![],
        }
    }

    /// Adds a member.
    ///
    /// # Errors
    /// When the name is taken or the content is too large to be deflated.
    pub fn add(&mut self, name: MemberName, content: Content<'c>) -> Result<(), Error> {
        let size = content.bytes().len() as u64;
        if matches!(content, Content::Text(_)) && size > MAX_DEFLATED_BYTES {
            return Err(Error::MemberTooLarge {
                name,
                size,
                limit: MAX_DEFLATED_BYTES,
            });
        }
        if self.manifest.members.len() as u64 >= MAX_MEMBERS - 1 {
            return Err(Error::TooManyMembers {
                count: MAX_MEMBERS + 1,
                limit: MAX_MEMBERS,
            });
        }
        let digest = Digest::of(content.bytes());
        self.manifest.members.push(Member {
            name,
            size,
            digest,
            encoding: content.encoding(),
        });
        self.contents.push(content);
        Ok(())
    }

    /// Writes the envelope; gives its digest.
    ///
    /// # Errors
    /// When the manifest breaks a rule of the format, or `out` fails.
    pub fn write(&self, out: &mut impl Write) -> Result<Digest, Error> {
        self.manifest.check()?;
        check_names(&self.manifest.members)?;
        let manifest = self.manifest.to_bytes()?;
        let mut archive = Writer {
            out,
            offset: 0,
            entries: vec![],
        };
        archive.entry(MANIFEST.parse()?, &manifest, Encoding::Deflated)?;
        for (member, content) in self.manifest.members.iter().zip(&self.contents) {
            archive.entry(member.name.clone(), content.bytes(), member.encoding)?;
        }
        archive.finish()?;
        Ok(Digest::of(&manifest))
    }
}

fn check_names(members: &[Member]) -> Result<(), Error> {
    let mut seen = BTreeSet::from([MANIFEST.to_owned()]);
    for member in members {
        if !seen.insert(member.name.fold()) {
            return Err(Error::DuplicateMember {
                name: member.name.clone(),
            });
        }
    }
    check_folders(&seen)
}

struct Writer<'o, W> {
    out: &'o mut W,
    offset: u64,
    entries: Vec<Entry>,
}

impl<W: Write> Writer<'_, W> {
    fn entry(&mut self, name: MemberName, content: &[u8], encoding: Encoding) -> Result<(), Error> {
        let deflated;
        let stored = match encoding {
            Encoding::Mapped => content,
            Encoding::Deflated => {
                deflated = deflate(content)?;
                &deflated
            }
        };
        let entry = Entry {
            name,
            encoding,
            crc: crc(content),
            stored_crc: crc(stored),
            stored_size: stored.len() as u64,
            size: content.len() as u64,
            offset: self.offset,
        };
        self.put(&entry.local_header())?;
        self.put(stored)?;
        self.entries.push(entry);
        Ok(())
    }

    fn finish(mut self) -> Result<(), Error> {
        let offset = self.offset;
        let entries = std::mem::take(&mut self.entries);
        for entry in &entries {
            self.put(&entry.directory_record())?;
        }
        let directory = Directory {
            count: entries.len() as u64,
            size: self.offset - offset,
            offset,
        };
        self.put(&directory.end_records())?;
        self.out.flush().map_err(Error::from)
    }

    fn put(&mut self, bytes: &[u8]) -> Result<(), Error> {
        self.out.write_all(bytes)?;
        self.offset += bytes.len() as u64;
        Ok(())
    }
}

fn deflate(content: &[u8]) -> io::Result<Vec<u8>> {
    let mut stored = Vec::new();
    DeflateEncoder::new(content, Compression::default()).read_to_end(&mut stored)?;
    Ok(stored)
}

pub(crate) fn crc(bytes: &[u8]) -> u32 {
    let mut crc = Crc::new();
    crc.update(bytes);
    crc.sum()
}
