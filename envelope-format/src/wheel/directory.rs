//! The ZIP records of a wheel. Tools write wheels in several ways, so this is less strict than for
//! an envelope; what two readers could understand differently is refused.

use std::collections::BTreeSet;
use std::ops::Range;

use super::{Refusal, refuse};
use crate::MemberName;
use crate::archive::{get16, get32};
use crate::limits::MAX_WHEEL_FILES;
use crate::read::check_folders;

const LOCAL: u32 = 0x0403_4b50;
const RECORD: u32 = 0x0201_4b50;
const END: u32 = 0x0605_4b50;
const DESCRIPTOR: u32 = 0x0807_4b50;

const END_BYTES: usize = 22;
const RECORD_BYTES: usize = 46;
const LOCAL_BYTES: usize = 30;

/// Sizes follow the content.
const HAS_DESCRIPTOR: u16 = 1 << 3;
const IS_UTF8: u16 = 1 << 11;
/// How hard the compressor tried, which no reader needs.
const EFFORT: u16 = 0b110;

/// The Info-ZIP field with another name for the file.
const UNICODE_PATH: u16 = 0x7075;
const ZIP64: u16 = 0x0001;

/// A file or folder of a wheel.
pub(super) struct Entry {
    pub(super) name: MemberName,
    pub(super) is_folder: bool,
    pub(super) is_deflated: bool,
    pub(super) crc: u32,
    pub(super) size: u32,
    /// Where its bytes are.
    pub(super) stored: Range<usize>,
}

/// What the directory says about a file.
struct Record<'b> {
    name: &'b [u8],
    flags: u16,
    method: u16,
    crc: u32,
    stored_size: u32,
    size: u32,
    mode: u32,
    offset: usize,
    /// Where the record ends.
    end: usize,
}

/// Rules 8.1 and 8.2.
pub(super) fn read(bytes: &[u8]) -> Result<Vec<Entry>, Refusal> {
    let (count, directory) = end_record(bytes)?;
    let mut at = directory;
    let mut expected = 0;
    let mut entries: Vec<Entry> = vec![];
    for _ in 0..count {
        let record = Record::read(bytes, at)?;
        at = record.end;
        record.check()?;
        if record.offset != expected {
            return refuse("8.1", "has files that overlap, or bytes between files");
        }
        let stored = record.stored(bytes)?;
        expected = record.after(bytes, stored.end)?;
        entries.push(record.entry(stored)?);
    }
    if expected != directory || at + END_BYTES != bytes.len() {
        return refuse("8.1", "has bytes that belong to no file");
    }
    check_names(&entries)?;
    Ok(entries)
}

fn end_record(bytes: &[u8]) -> Result<(usize, usize), Refusal> {
    let end = || {
        let at = bytes.len().checked_sub(END_BYTES)?;
        let plain = get32(bytes, at)? == END && get32(bytes, at + 4)? == 0;
        let count = usize::from(get16(bytes, at + 10)?);
        let (size, offset) = (get32(bytes, at + 12)?, get32(bytes, at + 16)?);
        let fits = usize::try_from(offset)
            .ok()?
            .checked_add(size.try_into().ok()?)?
            == at;
        let alone = get16(bytes, at + 8)? == get16(bytes, at + 10)? && get16(bytes, at + 20)? == 0;
        (plain && alone && fits && count < MAX_WHEEL_FILES).then_some((count, offset as usize))
    };
    end().ok_or_else(|| Refusal {
        rule: "8.1",
        reason: "is not one plain ZIP archive".into(),
    })
}

impl<'b> Record<'b> {
    fn read(bytes: &'b [u8], at: usize) -> Result<Self, Refusal> {
        let read = || {
            let field = |offset| get16(bytes, at + offset);
            let name_end = at + RECORD_BYTES + usize::from(field(28)?);
            let end = name_end + usize::from(field(30)?);
            let plain = get32(bytes, at)? == RECORD && field(32)? == 0 && field(34)? == 0;
            let extra = bytes.get(name_end..end)?;
            (plain && is_plain_extra(extra)).then_some(())?;
            Some(Self {
                name: bytes.get(at + RECORD_BYTES..name_end)?,
                flags: field(8)?,
                method: field(10)?,
                crc: get32(bytes, at + 16)?,
                stored_size: get32(bytes, at + 20)?,
                size: get32(bytes, at + 24)?,
                mode: get32(bytes, at + 38)? >> 16,
                offset: get32(bytes, at + 42)? as usize,
                end,
            })
        };
        read().ok_or_else(|| Refusal {
            rule: "8.1",
            reason: "has a directory that cannot be read in one way".into(),
        })
    }

    fn check(&self) -> Result<(), Refusal> {
        if self.flags & !(HAS_DESCRIPTOR | IS_UTF8 | EFFORT) != 0 {
            return refuse("8.1", "has an encrypted or patched file");
        }
        let is_stored = self.method == 0 && self.stored_size == self.size;
        if !is_stored && self.method != 8 {
            return refuse("8.1", "has a file of an unknown compression");
        }
        let kind = match self.mode & 0o170_000 {
            0 => 0,
            0o100_000 if !self.is_folder() => 0,
            0o040_000 if self.is_folder() => 0,
            kind => kind,
        };
        if kind != 0 || self.mode & 0o7000 != 0 || (self.is_folder() && self.size != 0) {
            return refuse(
                "8.2",
                format!(
                    "has a link, a device or a set-user file: `{}`",
                    self.shown()
                ),
            );
        }
        Ok(())
    }

    /// The bytes of the file, after a local header that says the same as the directory.
    fn stored(&self, bytes: &[u8]) -> Result<Range<usize>, Refusal> {
        let range = || {
            let at = self.offset;
            let field = |offset| get16(bytes, at + offset);
            let name_end = at + LOCAL_BYTES + usize::from(field(26)?);
            let start = name_end + usize::from(field(28)?);
            let sizes = [
                get32(bytes, at + 14)?,
                get32(bytes, at + 18)?,
                get32(bytes, at + 22)?,
            ];
            let same_sizes = sizes == [self.crc, self.stored_size, self.size]
                || (self.flags & HAS_DESCRIPTOR != 0 && sizes == [0; 3]);
            let same = get32(bytes, at)? == LOCAL
                && (field(6)?, field(8)?) == (self.flags, self.method)
                && bytes.get(at + LOCAL_BYTES..name_end)? == self.name
                && is_plain_extra(bytes.get(name_end..start)?);
            let end = start.checked_add(self.stored_size as usize)?;
            bytes.get(start..end)?;
            (same && same_sizes).then_some(start..end)
        };
        range().ok_or_else(|| Refusal {
            rule: "8.1",
            reason: format!("says two things about `{}`", self.shown()),
        })
    }

    /// Where the next file begins.
    fn after(&self, bytes: &[u8], end: usize) -> Result<usize, Refusal> {
        if self.flags & HAS_DESCRIPTOR == 0 {
            return Ok(end);
        }
        let signed = get32(bytes, end) == Some(DESCRIPTOR);
        let at = end + if signed { 4 } else { 0 };
        let said = [get32(bytes, at), get32(bytes, at + 4), get32(bytes, at + 8)];
        if said != [Some(self.crc), Some(self.stored_size), Some(self.size)] {
            return refuse("8.1", format!("says two things about `{}`", self.shown()));
        }
        Ok(at + 12)
    }

    fn entry(&self, stored: Range<usize>) -> Result<Entry, Refusal> {
        let text = std::str::from_utf8(self.name)
            .ok()
            .filter(|text| text.is_ascii() || self.flags & IS_UTF8 != 0);
        let name = text.and_then(|text| text.strip_suffix('/').unwrap_or(text).parse().ok());
        let Some(name) = name else {
            return refuse("8.2", format!("has a file called `{}`", self.shown()));
        };
        Ok(Entry {
            name,
            is_folder: self.is_folder(),
            is_deflated: self.method == 8,
            crc: self.crc,
            size: self.size,
            stored,
        })
    }

    fn is_folder(&self) -> bool {
        self.name.ends_with(b"/")
    }

    fn shown(&self) -> String {
        let shown = String::from_utf8_lossy(self.name);
        shown
            .chars()
            .take(200)
            .collect::<String>()
            .escape_debug()
            .to_string()
    }
}

/// Whether extra fields neither rename nor resize the file.
fn is_plain_extra(mut extra: &[u8]) -> bool {
    while let (Some(kind), Some(size)) = (get16(extra, 0), get16(extra, 2)) {
        if matches!(kind, UNICODE_PATH | ZIP64) {
            return false;
        }
        let Some(rest) = extra.get(4 + usize::from(size)..) else {
            return false;
        };
        extra = rest;
    }
    extra.is_empty()
}

/// No name twice, also when case is ignored; no file that is a folder of another.
fn check_names(entries: &[Entry]) -> Result<(), Refusal> {
    let mut names = BTreeSet::new();
    let mut files = BTreeSet::new();
    for entry in entries {
        if !names.insert(entry.name.fold()) {
            return refuse("8.2", format!("has `{}` twice", entry.name));
        }
        if !entry.is_folder {
            files.insert(entry.name.fold());
        }
    }
    // A folder's own entry may not lie below a file either.
    let folders = entries.iter().filter(|entry| entry.is_folder);
    files.extend(folders.map(|entry| format!("{}/.", entry.name.fold())));
    match check_folders(&files) {
        Ok(()) => Ok(()),
        Err(error) => refuse("8.2", format!("has a file in a file: {error}")),
    }
}
