//! The ZIP64 records, in the one form that this format allows.
//!
//! Reading compares the bytes found with the bytes that [`Entry::local_header`] and
//! [`Entry::directory_record`] would write, so that nothing can hide in a header: no second
//! opinion on a size, no comment, no time, no unused flag.

use crate::limits::{MAX_NAME_BYTES, PAGE_BYTES};
use crate::{Encoding, Error, MemberName};

const LOCAL_SIGNATURE: u32 = 0x0403_4b50;
const DIRECTORY_SIGNATURE: u32 = 0x0201_4b50;
const END64_SIGNATURE: u32 = 0x0606_4b50;
const LOCATOR_SIGNATURE: u32 = 0x0706_4b50;
const END_SIGNATURE: u32 = 0x0605_4b50;

/// ZIP version 4.5: the first with 64-bit sizes.
const VERSION: u16 = 45;
/// Made on a system with Unix permissions.
const MADE_BY: u16 = (3 << 8) | VERSION;
/// Names are UTF-8.
const FLAGS: u16 = 0x0800;
/// 1980-01-01, the earliest date ZIP can express: an envelope knows no time.
const DATE: u16 = 0x0021;
/// A regular file that everyone may read.
const ATTRIBUTES: u32 = 0o100_644 << 16;
/// "See the 64-bit field."
const IN_ZIP64: u32 = u32::MAX;
const ZIP64_FIELD: u16 = 0x0001;
/// Our own extra field: CRC-32 of the bytes as stored, so that a flipped bit in a deflate stream
/// that happens to inflate to the same content is noticed too; then zeros up to a page.
const STORED_FIELD: u16 = 0x454d;

const LOCAL_FIXED: u64 = 30;
const LOCAL_ZIP64: u64 = 20;
const LOCAL_STORED: u64 = 8;
const DIRECTORY_FIXED: usize = 46;
const DIRECTORY_EXTRA: usize = 36;

/// Longest record of the directory.
pub(crate) const MAX_RECORD_BYTES: u64 =
    (DIRECTORY_FIXED + MAX_NAME_BYTES + DIRECTORY_EXTRA) as u64;

/// The three records at the end: ZIP64 end, its locator, and the end.
pub(crate) const END_BYTES: u64 = 56 + 20 + 22;

/// One entry, as both of its headers describe it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) name: MemberName,
    pub(crate) encoding: Encoding,
    /// CRC-32 of the content.
    pub(crate) crc: u32,
    /// CRC-32 of the bytes as stored.
    pub(crate) stored_crc: u32,
    pub(crate) stored_size: u64,
    pub(crate) size: u64,
    /// Where its local header begins.
    pub(crate) offset: u64,
}

/// Where the directory of the archive is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Directory {
    pub(crate) count: u64,
    pub(crate) size: u64,
    pub(crate) offset: u64,
}

impl Entry {
    /// Where its stored bytes begin.
    pub(crate) fn data_offset(&self) -> u64 {
        let end = self.offset
            + LOCAL_FIXED
            + self.name.as_str().len() as u64
            + LOCAL_ZIP64
            + LOCAL_STORED;
        match self.encoding {
            Encoding::Deflated => end,
            Encoding::Mapped => end.next_multiple_of(PAGE_BYTES),
        }
    }

    /// Where the next entry begins, if that can be expressed.
    pub(crate) fn end(&self) -> Option<u64> {
        self.data_offset().checked_add(self.stored_size)
    }

    fn padding(&self) -> u64 {
        let name = self.name.as_str().len() as u64;
        self.data_offset() - (self.offset + LOCAL_FIXED + name + LOCAL_ZIP64 + LOCAL_STORED)
    }

    fn method(&self) -> u16 {
        match self.encoding {
            Encoding::Mapped => 0,
            Encoding::Deflated => 8,
        }
    }

    pub(crate) fn local_header(&self) -> Vec<u8> {
        let padding = self.padding();
        let mut out = Vec::with_capacity(usize::try_from(LOCAL_FIXED + padding).unwrap_or(0));
        put32(&mut out, LOCAL_SIGNATURE);
        self.put_common(&mut out, LOCAL_ZIP64 + LOCAL_STORED + padding);
        out.extend_from_slice(self.name.as_str().as_bytes());
        put16(&mut out, ZIP64_FIELD);
        put16(&mut out, 16);
        put64(&mut out, self.size);
        put64(&mut out, self.stored_size);
        put16(&mut out, STORED_FIELD);
        put16(&mut out, low16(4 + padding));
        put32(&mut out, self.stored_crc);
        out.resize(out.len() + usize::try_from(padding).unwrap_or(0), 0);
        out
    }

    pub(crate) fn directory_record(&self) -> Vec<u8> {
        let mut out =
            Vec::with_capacity(DIRECTORY_FIXED + self.name.as_str().len() + DIRECTORY_EXTRA);
        put32(&mut out, DIRECTORY_SIGNATURE);
        put16(&mut out, MADE_BY);
        self.put_common(&mut out, DIRECTORY_EXTRA as u64);
        put16(&mut out, 0); // comment
        put16(&mut out, 0); // disk
        put16(&mut out, 0); // internal attributes
        put32(&mut out, ATTRIBUTES);
        put32(&mut out, IN_ZIP64);
        out.extend_from_slice(self.name.as_str().as_bytes());
        put16(&mut out, ZIP64_FIELD);
        put16(&mut out, 24);
        put64(&mut out, self.size);
        put64(&mut out, self.stored_size);
        put64(&mut out, self.offset);
        put16(&mut out, STORED_FIELD);
        put16(&mut out, 4);
        put32(&mut out, self.stored_crc);
        out
    }

    fn put_common(&self, out: &mut Vec<u8>, extra: u64) {
        put16(out, VERSION);
        put16(out, FLAGS);
        put16(out, self.method());
        put16(out, 0); // time
        put16(out, DATE);
        put32(out, self.crc);
        put32(out, IN_ZIP64);
        put32(out, IN_ZIP64);
        put16(out, low16(self.name.as_str().len() as u64));
        put16(out, low16(extra));
    }

    /// Reads the record at the head of `bytes`; gives the entry and the rest.
    pub(crate) fn parse(bytes: &[u8], index: usize) -> Result<(Self, &[u8]), Error> {
        let wrong = |what| Error::Header { index, what };
        let name_size = usize::from(get16(bytes, 28).ok_or_else(|| wrong("length"))?);
        let name_end = DIRECTORY_FIXED + name_size;
        let end = name_end + DIRECTORY_EXTRA;
        let record = bytes.get(..end).ok_or_else(|| wrong("length"))?;
        let name =
            std::str::from_utf8(&record[DIRECTORY_FIXED..name_end]).map_err(|_| wrong("name"))?;
        let entry = Self {
            name: name.parse()?,
            encoding: match get16(record, 10) {
                Some(0) => Encoding::Mapped,
                Some(8) => Encoding::Deflated,
                _ => return Err(wrong("compression method")),
            },
            crc: get32(record, 16).ok_or_else(|| wrong("crc"))?,
            size: get64(record, name_end + 4).ok_or_else(|| wrong("size"))?,
            stored_size: get64(record, name_end + 12).ok_or_else(|| wrong("size"))?,
            offset: get64(record, name_end + 20).ok_or_else(|| wrong("offset"))?,
            stored_crc: get32(record, name_end + 32).ok_or_else(|| wrong("stored crc"))?,
        };
        // An offset near the end of the number range must not overflow when headers are computed.
        if entry.offset > crate::limits::MAX_ENVELOPE_BYTES {
            return Err(wrong("offset"));
        }
        if entry.directory_record() != record {
            return Err(wrong("field in the directory"));
        }
        Ok((entry, &bytes[end..]))
    }
}

impl Directory {
    /// The three records that end the archive.
    pub(crate) fn end_records(self) -> Vec<u8> {
        let mut out = Vec::new();
        put32(&mut out, END64_SIGNATURE);
        put64(&mut out, 44); // bytes of this record that follow
        put16(&mut out, MADE_BY);
        put16(&mut out, VERSION);
        put32(&mut out, 0); // disk
        put32(&mut out, 0); // disk with the directory
        put64(&mut out, self.count);
        put64(&mut out, self.count);
        put64(&mut out, self.size);
        put64(&mut out, self.offset);
        put32(&mut out, LOCATOR_SIGNATURE);
        put32(&mut out, 0); // disk with the record above
        put64(&mut out, self.offset.saturating_add(self.size));
        put32(&mut out, 1); // disks
        put32(&mut out, END_SIGNATURE);
        put16(&mut out, 0);
        put16(&mut out, 0);
        put16(&mut out, u16::MAX);
        put16(&mut out, u16::MAX);
        put32(&mut out, IN_ZIP64);
        put32(&mut out, IN_ZIP64);
        put16(&mut out, 0); // comment
        out
    }

    /// Reads the end records of an archive of `length` bytes.
    pub(crate) fn parse(end: &[u8], length: u64) -> Result<Self, Error> {
        let wrong = |reason| Error::NotAnEnvelope { reason };
        if get32(end, 76) != Some(END_SIGNATURE) || get32(end, 0) != Some(END64_SIGNATURE) {
            return Err(wrong("the end record of a ZIP64 archive is missing"));
        }
        let field = |at| get64(end, at).ok_or_else(|| wrong("the end record is short"));
        let directory = Self {
            count: field(32)?,
            size: field(40)?,
            offset: field(48)?,
        };
        if directory.end_records() != end {
            return Err(wrong("the end record has a wrong field"));
        }
        let total = directory
            .offset
            .checked_add(directory.size)
            .and_then(|end| end.checked_add(END_BYTES));
        if total != Some(length) {
            return Err(wrong("the directory is not where the end record says"));
        }
        Ok(directory)
    }
}

fn low16(value: u64) -> u16 {
    u16::try_from(value).unwrap_or(u16::MAX)
}

fn put16(out: &mut Vec<u8>, value: u16) {
    out.extend_from_slice(&value.to_le_bytes());
}

fn put32(out: &mut Vec<u8>, value: u32) {
    out.extend_from_slice(&value.to_le_bytes());
}

fn put64(out: &mut Vec<u8>, value: u64) {
    out.extend_from_slice(&value.to_le_bytes());
}

fn get<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..at.checked_add(N)?)?.try_into().ok()
}

pub(crate) fn get16(bytes: &[u8], at: usize) -> Option<u16> {
    get(bytes, at).map(u16::from_le_bytes)
}

pub(crate) fn get32(bytes: &[u8], at: usize) -> Option<u32> {
    get(bytes, at).map(u32::from_le_bytes)
}

fn get64(bytes: &[u8], at: usize) -> Option<u64> {
    get(bytes, at).map(u64::from_le_bytes)
}
