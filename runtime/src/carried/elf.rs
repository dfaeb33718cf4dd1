//! What a program or library asks of the machine, read from its dynamic section.

use std::fmt;
use std::fs::File;
use std::path::Path;
use std::str::FromStr;

use object::elf::{DT_NEEDED, DT_RPATH, DT_RUNPATH, ELFCLASS64, FileHeader64};
use object::read::elf::{FileHeader as _, SectionTable};
use object::read::{ReadCache, ReadRef};
use object::{Endianness, read};
use serde::{Deserialize, Serialize};

type Header = FileHeader64<Endianness>;

/// A version of the C library: `2.34`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct GlibcVersion {
    major: u16,
    minor: u16,
}

/// A text is not a version of glibc.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not a version of glibc")]
pub struct NotAVersion {
    text: String,
}

impl FromStr for GlibcVersion {
    type Err = NotAVersion;

    /// From `2.34`, or `2.2.5`, whose last number tells nobody anything.
    fn from_str(text: &str) -> Result<Self, NotAVersion> {
        let mut numbers = text.split('.').map(str::parse);
        if let (Some(Ok(major)), Some(Ok(minor))) = (numbers.next(), numbers.next()) {
            return Ok(Self { major, minor });
        }
        Err(NotAVersion { text: text.into() })
    }
}

impl TryFrom<String> for GlibcVersion {
    type Error = NotAVersion;

    fn try_from(text: String) -> Result<Self, NotAVersion> {
        text.parse()
    }
}

impl From<GlibcVersion> for String {
    fn from(version: GlibcVersion) -> Self {
        version.to_string()
    }
}

impl fmt::Display for GlibcVersion {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}.{}", self.major, self.minor)
    }
}

/// A program or library.
#[derive(Debug, Default)]
pub(super) struct Elf {
    pub(super) machine: u16,
    /// Names of the libraries that it cannot start without.
    pub(super) needed: Vec<String>,
    /// Folders where they are looked for first; `$ORIGIN` is its own.
    pub(super) run_path: Vec<String>,
    /// Versions of glibc's symbols that it asks for.
    pub(super) asks: Vec<GlibcVersion>,
    /// Versions of glibc's symbols that it has.
    pub(super) has: Vec<GlibcVersion>,
}

impl Elf {
    /// `None` when the file is not one, or damaged.
    pub(super) fn open(path: &Path) -> Option<Self> {
        let cache = ReadCache::new(File::open(path).ok()?);
        Self::read(&cache).ok()
    }

    pub(super) fn of(bytes: &[u8]) -> Option<Self> {
        Self::read(bytes).ok()
    }

    fn read<'data, R: ReadRef<'data>>(data: R) -> read::Result<Self> {
        let header = Header::parse(data)?;
        let endian = header.endian()?;
        let sections = header.sections(endian, data)?;
        let mut elf = Self {
            machine: header.e_machine(endian),
            asks: asked_versions(&sections, endian, data)?,
            has: defined_versions(&sections, endian, data)?,
            ..Self::default()
        };
        let dynamic = sections.dynamic_table(endian, data)?;
        for entry in &dynamic {
            let text = || {
                let bytes = dynamic.string(entry);
                bytes.map(|bytes| String::from_utf8_lossy(bytes).into_owned())
            };
            match entry.tag {
                DT_NEEDED => elf.needed.push(text()?),
                DT_RPATH | DT_RUNPATH => elf.run_path.extend(text()?.split(':').map(String::from)),
                _ => {}
            }
        }
        Ok(elf)
    }
}

/// Whether a file begins like a program or library that [`Elf`] can read.
pub(super) fn is_elf(beginning: &[u8]) -> bool {
    beginning.starts_with(b"\x7fELF") && beginning.get(4) == Some(&ELFCLASS64)
}

fn asked_versions<'data, R: ReadRef<'data>>(
    sections: &SectionTable<'data, Header, R>,
    endian: Endianness,
    data: R,
) -> read::Result<Vec<GlibcVersion>> {
    let Some((files, link)) = sections.gnu_verneed(endian, data)? else {
        return Ok(vec![]);
    };
    let strings = sections.strings(endian, data, link)?;
    gathered(files, |(_, asked)| {
        asked.map(move |version| version?.name(endian, strings))
    })
}

/// Behind a version's own name are those of the versions that it follows.
fn defined_versions<'data, R: ReadRef<'data>>(
    sections: &SectionTable<'data, Header, R>,
    endian: Endianness,
    data: R,
) -> read::Result<Vec<GlibcVersion>> {
    let Some((definitions, link)) = sections.gnu_verdef(endian, data)? else {
        return Ok(vec![]);
    };
    let strings = sections.strings(endian, data, link)?;
    gathered(definitions, |(_, names)| {
        names.take(1).map(move |name| name?.name(endian, strings))
    })
}

/// The versions of glibc among the names that the entries of a section have.
fn gathered<'data, E, N: Iterator<Item = read::Result<&'data [u8]>>>(
    entries: impl Iterator<Item = read::Result<E>>,
    names: impl Fn(E) -> N,
) -> read::Result<Vec<GlibcVersion>> {
    let mut versions = vec![];
    for entry in entries {
        for name in names(entry?) {
            versions.extend(glibc_version(name?));
        }
    }
    Ok(versions)
}

/// Neither `GLIBC_PRIVATE`, which is of no use to others, nor another library's.
fn glibc_version(name: &[u8]) -> Option<GlibcVersion> {
    std::str::from_utf8(name)
        .ok()?
        .strip_prefix("GLIBC_")?
        .parse()
        .ok()
}
