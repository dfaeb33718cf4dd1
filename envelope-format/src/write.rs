//! Values → bytes. The same content gives the same bytes.

use std::collections::BTreeSet;
use std::io::{self, Read as _, Write};

use flate2::bufread::DeflateEncoder;
use flate2::{Compression, Crc};
use sha2::{Digest as _, Sha256};

use crate::archive::{Directory, Entry};
use crate::limits::{MAX_DEFLATED_BYTES, MAX_MEMBERS};
use crate::read::{MANIFEST, check_folders};
use crate::{Digest, Encoding, Error, Manifest, Member, MemberName, WriteAt, content};

/// An envelope that is being put together in memory.
#[derive(Debug)]
pub struct Draft<'c> {
    manifest: Manifest,
    buffers: Vec<(MemberName, &'c [u8])>,
    texts: Vec<(MemberName, Vec<u8>)>,
}

/// The bytes of a member, and how to keep them.
#[derive(Debug)]
pub enum Content<'c> {
    /// Kept deflated.
    Text(Vec<u8>),
    /// Kept as they are, on a page of their own: for large arrays.
    Buffer(&'c [u8]),
}

impl<'c> Draft<'c> {
    /// Begins with a manifest; its list of members is made when the envelope is written.
    #[must_use]
    pub fn new(manifest: Manifest) -> Self {
        Self {
            manifest,
            buffers: vec![],
            texts: vec![],
        }
    }

    /// Adds a member.
    pub fn add(&mut self, name: MemberName, content: Content<'c>) {
        match content {
            Content::Buffer(bytes) => self.buffers.push((name, bytes)),
            Content::Text(bytes) => self.texts.push((name, bytes)),
        }
    }

    /// Writes the envelope; gives its digest.
    ///
    /// # Errors
    /// When the manifest or a member breaks a rule of the format, or `out` fails.
    pub fn write(&self, out: &mut impl Write) -> Result<Digest, Error> {
        let mut archive = Writer::new(out);
        for (name, bytes) in &self.buffers {
            archive.member(name, bytes, Encoding::Mapped)?;
        }
        archive.finish(&self.manifest, &self.texts)
    }
}

/// An envelope that is being written to a file, its large members first and as they come: they are
/// never in memory as a whole, and are written once however often the rest changes.
#[derive(Debug)]
pub struct Buffers<F> {
    file: F,
    offset: u64,
    entries: Vec<Entry>,
    members: Vec<Member>,
}

/// A mapped member that is being written.
#[derive(Debug)]
pub struct Buffer<'b, F> {
    buffers: &'b mut Buffers<F>,
    entry: Entry,
    written: u64,
    digest: Sha256,
    crc: Crc,
}

impl<F: WriteAt> Buffers<F> {
    /// Begins to write an envelope into an empty file.
    #[must_use]
    pub fn new(file: F) -> Self {
        Self {
            file,
            offset: 0,
            entries: vec![],
            members: vec![],
        }
    }

    /// Begins a mapped member of `size` bytes.
    pub fn begin(&mut self, name: MemberName, size: u64) -> Buffer<'_, F> {
        let entry = Entry {
            name,
            encoding: Encoding::Mapped,
            crc: 0,
            stored_crc: 0,
            stored_size: size,
            size,
            offset: self.offset,
        };
        Buffer {
            buffers: self,
            entry,
            written: 0,
            digest: Sha256::new(),
            crc: Crc::new(),
        }
    }

    /// Writes all other members and the manifest behind the mapped ones, in place of what an earlier
    /// call wrote there; gives the digest.
    ///
    /// # Errors
    /// When the manifest or a member breaks a rule of the format, or the file fails.
    pub fn finish(
        &self,
        manifest: &Manifest,
        texts: &[(MemberName, Vec<u8>)],
    ) -> Result<Digest, Error> {
        self.file.set_length(self.offset)?;
        let mut out = io::BufWriter::with_capacity(
            1 << 20,
            Tail {
                file: &self.file,
                offset: self.offset,
            },
        );
        let archive = Writer {
            out: &mut out,
            offset: self.offset,
            entries: self.entries.clone(),
            members: self.members.clone(),
        };
        archive.finish(manifest, texts)
    }
}

impl<F: WriteAt + Sync> Buffer<'_, F> {
    /// Writes the next bytes of the member.
    ///
    /// # Errors
    /// When the file fails.
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), Error> {
        let Self {
            buffers,
            entry,
            written,
            digest,
            crc,
        } = self;
        let offset = entry.data_offset() + *written;
        // Hashing takes as long as writing: side by side they cost as much as one.
        std::thread::scope(|scope| {
            scope.spawn(|| digest.update(bytes));
            crc.update(bytes);
            buffers.file.write_at(bytes, offset)
        })?;
        *written += bytes.len() as u64;
        Ok(())
    }

    /// Ends the member.
    ///
    /// # Errors
    /// When it has not the size that was said, or the file fails.
    pub fn finish(self) -> Result<(), Error> {
        let Self {
            buffers,
            mut entry,
            written,
            digest,
            crc,
        } = self;
        if written != entry.size {
            return Err(Error::Io {
                source: io::Error::new(
                    io::ErrorKind::InvalidInput,
                    format!("a member of {} bytes has {written}", entry.size),
                ),
            });
        }
        (entry.crc, entry.stored_crc) = (crc.sum(), crc.sum());
        buffers.file.write_at(&entry.local_header(), entry.offset)?;
        buffers.offset = entry.data_offset() + entry.stored_size;
        buffers.members.push(Member {
            name: entry.name.clone(),
            size: entry.size,
            digest: Digest::from_hasher(digest),
            encoding: Encoding::Mapped,
        });
        buffers.entries.push(entry);
        Ok(())
    }
}

/// The end of a file.
struct Tail<'f, F> {
    file: &'f F,
    offset: u64,
}

impl<F: WriteAt> Write for Tail<'_, F> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write_at(bytes, self.offset)?;
        self.offset += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn check_names(members: &[Member]) -> Result<(), Error> {
    let count = members.len() as u64 + 1;
    if count > MAX_MEMBERS {
        return Err(Error::TooManyMembers {
            count,
            limit: MAX_MEMBERS,
        });
    }
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
    members: Vec<Member>,
}

impl<'o, W: Write> Writer<'o, W> {
    fn new(out: &'o mut W) -> Self {
        Self {
            out,
            offset: 0,
            entries: vec![],
            members: vec![],
        }
    }

    fn member(
        &mut self,
        name: &MemberName,
        content: &[u8],
        encoding: Encoding,
    ) -> Result<(), Error> {
        let size = content.len() as u64;
        if encoding == Encoding::Deflated && size > MAX_DEFLATED_BYTES {
            return Err(Error::MemberTooLarge {
                name: name.clone(),
                size,
                limit: MAX_DEFLATED_BYTES,
            });
        }
        self.members.push(Member {
            name: name.clone(),
            size,
            digest: Digest::of(content),
            encoding,
        });
        self.entry(name.clone(), content, encoding)
    }

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

    /// What comes after the mapped members: the others, the manifest, the directory.
    fn finish(
        mut self,
        manifest: &Manifest,
        texts: &[(MemberName, Vec<u8>)],
    ) -> Result<Digest, Error> {
        for (name, content) in texts {
            self.member(name, content, Encoding::Deflated)?;
        }
        let manifest = Manifest {
            members: std::mem::take(&mut self.members),
            ..manifest.clone()
        };
        manifest.check()?;
        check_names(&manifest.members)?;
        content::check_sizes(&manifest)?;
        for (name, content) in texts {
            content::check(&manifest, name, content)?;
        }
        let manifest = manifest.to_bytes()?;
        self.entry(MANIFEST.parse()?, &manifest, Encoding::Deflated)?;
        self.directory()?;
        Ok(Digest::of(&manifest))
    }

    fn directory(&mut self) -> Result<(), Error> {
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
