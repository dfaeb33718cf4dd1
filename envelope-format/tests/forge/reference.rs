//! A second reader, slow and separate: it shares no code with the crate, and looks at an envelope
//! from its first byte on, where the crate begins at the end.
//!
//! It does not check the rules 7 and 8: the lock has to be the one of [`super::LOCK`].

use std::collections::BTreeSet;
use std::io::Read as _;

use flate2::read::DeflateDecoder;
use sha2::{Digest as _, Sha256};
use unicode_normalization::UnicodeNormalization as _;

/// Whether the bytes are an envelope.
pub(crate) fn accepts(bytes: &[u8]) -> bool {
    read(bytes).is_some()
}

/// A member as its local header says it.
struct Found {
    name: String,
    is_mapped: bool,
    content: Vec<u8>,
    record: Vec<u8>,
}

fn read(bytes: &[u8]) -> Option<()> {
    let mut rest = bytes;
    let mut found = vec![];
    while rest.starts_with(b"PK\x03\x04") {
        let offset = bytes.len() - rest.len();
        found.push(entry(&mut rest, offset)?);
    }
    let directory: Vec<u8> = found
        .iter()
        .flat_map(|entry| entry.record.clone())
        .collect();
    let offset = bytes.len() - rest.len();
    rest = rest.strip_prefix(directory.as_slice())?;
    (rest == end(found.len() as u64, directory.len() as u64, offset as u64)).then_some(())?;
    check_names(&found)?;
    let manifest = found.pop()?;
    (manifest.name == "manifest.json" && !manifest.is_mapped).then_some(())?;
    let listed = Listed::read(std::str::from_utf8(&manifest.content).ok()?)?;
    (found.len() == listed.members.len()).then_some(())?;
    for (entry, (name, size, digest, encoding)) in found.iter().zip(&listed.members) {
        let same = entry.name == *name
            && entry.content.len() as u64 == *size
            && hex(&entry.content) == *digest
            && entry.is_mapped == (encoding == "mapped");
        same.then_some(())?;
    }
    let first_deflated = found.iter().position(|entry| !entry.is_mapped)?;
    found[first_deflated..]
        .iter()
        .all(|entry| !entry.is_mapped)
        .then_some(())?;
    let names: BTreeSet<_> = found.iter().map(|entry| entry.name.as_str()).collect();
    listed
        .mentioned
        .iter()
        .all(|name| names.contains(name.as_str()))
        .then_some(())?;
    let lock = found.iter().find(|entry| entry.name == listed.lock)?;
    (lock.content == super::LOCK).then_some(())
}

/// Takes a header and its content away.
fn entry(rest: &mut &[u8], offset: usize) -> Option<Found> {
    let head = take(rest, 30)?;
    let name = take(rest, number(&head[26..28]))?;
    let extra = take(rest, number(&head[28..30]))?;
    let (fixed, padding) = extra.split_at_checked(28)?;
    let is_mapped = number(&head[8..10]) == 0;
    let data = offset + 58 + name.len();
    let expected = if is_mapped {
        data.next_multiple_of(4096) - data
    } else {
        0
    };
    let size = number(&fixed[4..12]);
    let stored = take(rest, number(&fixed[12..20]))?;
    let mut common = b"\x2d\0\0\x08".to_vec();
    common.extend([if is_mapped { 0 } else { 8 }, 0, 0, 0, 0x21, 0]);
    let content = if is_mapped {
        stored.to_vec()
    } else {
        inflate(stored, size)?
    };
    (content.len() == size).then_some(())?;
    common.extend(crc(&content).to_le_bytes());
    common.extend([0xff; 8]);
    common.extend(u16::try_from(name.len()).ok()?.to_le_bytes());
    let stored_crc = crc(stored).to_le_bytes();
    let field = u16::try_from(4 + expected).ok()?.to_le_bytes();
    let right = padding.len() == expected
        && padding.iter().all(|byte| *byte == 0)
        && head[..4] == *b"PK\x03\x04"
        && head[4..28] == common
        && fixed[..4] == [1, 0, 16, 0]
        && fixed[20..]
            == [
                [0x4d, 0x45],
                field,
                [stored_crc[0], stored_crc[1]],
                [stored_crc[2], stored_crc[3]],
            ]
            .concat();
    right.then_some(())?;
    let record = [
        b"PK\x01\x02\x2d\x03".as_slice(),
        &common,
        &[36, 0],
        &[0; 6],
        &[0, 0, 0xa4, 0x81],
        &[0xff; 4],
        name,
        &[1, 0, 24, 0],
        &fixed[4..20],
        &(offset as u64).to_le_bytes(),
        &[0x4d, 0x45, 4, 0],
        &stored_crc,
    ];
    Some(Found {
        name: String::from_utf8(name.to_vec()).ok()?,
        is_mapped,
        content,
        record: record.concat(),
    })
}

fn end(count: u64, size: u64, offset: u64) -> Vec<u8> {
    let [count, size, offset, end] = [count, size, offset, offset + size].map(u64::to_le_bytes);
    [
        b"PK\x06\x06\x2c\0\0\0\0\0\0\0\x2d\x03\x2d\0\0\0\0\0\0\0\0\0".as_slice(),
        &count,
        &count,
        &size,
        &offset,
        b"PK\x06\x07\0\0\0\0",
        &end,
        &[1, 0, 0, 0],
        b"PK\x05\x06\0\0\0\0",
        &[0xff; 12],
        &[0, 0],
    ]
    .concat()
}

fn take<'b>(rest: &mut &'b [u8], size: usize) -> Option<&'b [u8]> {
    let (taken, after) = rest.split_at_checked(size)?;
    *rest = after;
    Some(taken)
}

fn number(bytes: &[u8]) -> usize {
    bytes
        .iter()
        .rev()
        .fold(0, |sum, byte| (sum << 8) | usize::from(*byte))
}

fn inflate(stored: &[u8], size: usize) -> Option<Vec<u8>> {
    (size <= 1 << 30 && stored.len() <= size + size / 8 + 64).then_some(())?;
    let mut decoder = DeflateDecoder::new(stored);
    let mut content = vec![];
    decoder
        .by_ref()
        .take(size as u64 + 1)
        .read_to_end(&mut content)
        .ok()?;
    (decoder.total_in() == stored.len() as u64).then_some(content)
}

/// Bit by bit.
fn crc(bytes: &[u8]) -> u32 {
    let step = |crc: u32, _| {
        if crc & 1 == 1 {
            (crc >> 1) ^ 0xedb8_8320
        } else {
            crc >> 1
        }
    };
    !bytes.iter().fold(u32::MAX, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), step)
    })
}

fn hex(content: &[u8]) -> String {
    let digits: String = Sha256::digest(content)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    format!("sha256:{digits}")
}

fn check_names(found: &[Found]) -> Option<()> {
    let mut seen = BTreeSet::new();
    for entry in found {
        is_name(&entry.name).then_some(())?;
        let folded: String = entry.name.nfd().flat_map(char::to_uppercase).collect();
        seen.insert(folded.nfd().collect::<String>())
            .then_some(())?;
    }
    let is_in = |inner: &String, outer: &String| inner.starts_with(&format!("{outer}/"));
    (!seen
        .iter()
        .any(|inner| seen.iter().any(|outer| is_in(inner, outer))))
    .then_some(())
}

fn is_name(name: &str) -> bool {
    let bad = |c: char| {
        c.is_control()
            || "\\:<>\"|?*\u{ad}\u{61c}\u{180e}\u{feff}".contains(c)
            || matches!(u32::from(c), 0x200b..=0x200f | 0x2028..=0x202e | 0x2060..=0x206f | 0xfff9..=0xfffb | 0xe0000..=0xe007f)
    };
    let devices = ["con", "prn", "aux", "nul", "com", "lpt"];
    let is_device = |part: &str| {
        let stem = part
            .split('.')
            .next()
            .unwrap_or_default()
            .trim_end()
            .to_lowercase();
        let (device, number) = stem.split_at_checked(3).unwrap_or(("", ""));
        let numbered =
            number.chars().count() == 1 && "123456789\u{b9}\u{b2}\u{b3}".contains(number);
        devices[..4].contains(&stem.as_str()) || (devices[4..].contains(&device) && numbered)
    };
    let good = |part: &str| {
        !part.is_empty() && part.len() < 256 && !part.ends_with(['.', ' ']) && !is_device(part)
    };
    name.len() <= 1024 && !name.contains(bad) && name.split('/').all(good)
}

/// What the manifest lists and mentions.
#[derive(Default)]
struct Listed {
    members: Vec<(String, u64, String, String)>,
    mentioned: Vec<String>,
    lock: String,
}

/// Reads the one spelling that a manifest may have, from left to right.
struct Text<'t> {
    rest: &'t str,
    depth: usize,
}

impl Listed {
    fn read(text: &str) -> Option<Self> {
        let mut listed = Self::default();
        let mut text = Text {
            rest: text,
            depth: 0,
        };
        text.open('{')?;
        text.key("format_version")?.exactly("1")?;
        let name = text.next("name")?.string()?;
        let plain = |c: char| c.is_ascii_alphanumeric() || "_-.".contains(c);
        let first_is_good = !name.starts_with(['-', '.']);
        (matches!(name.len(), 1..=128) && first_is_good && name.chars().all(plain)).then_some(())?;
        text.next("description")?.string()?;
        text.next("tags")?.map()?;
        let mut functions = BTreeSet::new();
        text.next("functions")?;
        (text.list(|text| listed.function(text, &mut functions))? > 0).then_some(())?;
        text.next("state")?.open('{')?;
        listed.mention(text.key("pickle")?)?;
        text.next("buffers")?.list(|text| listed.mention(text))?;
        text.close('}')?;
        text.next("environment")?.open('{')?;
        text.key("python")?.open('{')?;
        text.key("implementation")?.string()?;
        text.next("version")?.string()?;
        text.next("cache_tag")?.string()?;
        text.close('}')?;
        text.next("platform")?.string()?;
        text.next("libc")?.string()?;
        listed.mention(text.next("lock")?)?;
        listed.lock = listed.mentioned.last()?.clone();
        text.close('}')?;
        text.next("source")?.open('{')?;
        text.key("git_commit")?
            .or_null(|text| text.string().map(|_| ()))?;
        text.next("git_dirty")?.boolean()?;
        let before = listed.mentioned.len();
        text.next("modules")?.list(|text| listed.mention(text))?;
        let is_module = |name: &String| name.starts_with("modules/");
        listed.mentioned[before..]
            .iter()
            .all(is_module)
            .then_some(())?;
        text.close('}')?;
        text.next("members")?.list(|text| listed.member(text))?;
        text.close('}')?;
        (text.rest == "\n").then_some(listed)
    }

    fn mention(&mut self, text: &mut Text<'_>) -> Option<()> {
        let name = text.string()?;
        is_name(&name).then(|| self.mentioned.push(name))
    }

    fn function(&mut self, text: &mut Text<'_>, names: &mut BTreeSet<String>) -> Option<()> {
        text.open('{')?;
        let name = text.key("name")?.string()?;
        let word = |c: char| c.is_alphanumeric() || c == '_';
        let is_word =
            name.starts_with(|c: char| c.is_alphabetic() || c == '_') && name.chars().all(word);
        (is_word && name.len() <= 256 && names.insert(name)).then_some(())?;
        text.next("doc")?.string()?;
        text.next("signature")?.open('{')?;
        text.key("input")?.rows()?;
        text.next("output")?.rows()?;
        text.close('}')?;
        text.next("sample")?.or_null(|text| {
            text.open('{')?;
            self.mention(text.key("input")?)?;
            self.mention(text.next("output")?)?;
            text.close('}')
        })?;
        text.next("statistics")?
            .or_null(|text| self.mention(text))?;
        text.next("certificate")?.certificate()?;
        text.close('}')
    }

    fn member(&mut self, text: &mut Text<'_>) -> Option<()> {
        text.open('{')?;
        let name = text.key("name")?.string()?;
        let size = text.next("size")?.number(u64::MAX)?;
        let digest = text.next("digest")?.string()?;
        let encoding = text.next("encoding")?.string()?;
        ["mapped", "deflated"]
            .contains(&encoding.as_str())
            .then_some(())?;
        self.members.push((name, size, digest, encoding));
        text.close('}')
    }
}

impl Text<'_> {
    fn exactly(&mut self, text: &str) -> Option<()> {
        self.rest = self.rest.strip_prefix(text)?;
        Some(())
    }

    fn open(&mut self, bracket: char) -> Option<()> {
        self.depth += 1;
        self.exactly(&bracket.to_string())
    }

    fn close(&mut self, bracket: char) -> Option<()> {
        self.depth -= 1;
        self.line()?;
        self.exactly(&bracket.to_string())
    }

    fn line(&mut self) -> Option<()> {
        self.exactly(&format!("\n{}", "  ".repeat(self.depth)))
    }

    /// The first key of an object.
    fn key(&mut self, key: &str) -> Option<&mut Self> {
        self.line()?;
        self.exactly(&format!("\"{key}\": "))?;
        Some(self)
    }

    fn next(&mut self, key: &str) -> Option<&mut Self> {
        self.exactly(",")?;
        self.key(key)
    }

    fn or_null(&mut self, value: impl FnOnce(&mut Self) -> Option<()>) -> Option<()> {
        self.exactly("null").or_else(|| value(self))
    }

    fn boolean(&mut self) -> Option<()> {
        self.exactly("true").or_else(|| self.exactly("false"))
    }

    fn number(&mut self, most: u64) -> Option<u64> {
        let digits = self.rest.len()
            - self
                .rest
                .trim_start_matches(|c: char| c.is_ascii_digit())
                .len();
        let (number, rest) = self.rest.split_at(digits);
        self.rest = rest;
        let value = number.parse().ok().filter(|value| *value <= most)?;
        (u64::to_string(&value) == number).then_some(value)
    }

    fn string(&mut self) -> Option<String> {
        self.exactly("\"")?;
        let mut text = String::new();
        loop {
            let next = self.rest.chars().next()?;
            self.rest = &self.rest[next.len_utf8()..];
            match next {
                '"' => return Some(text),
                '\\' => text.push(self.escaped()?),
                control if control < ' ' => return None,
                other => text.push(other),
            }
        }
    }

    fn escaped(&mut self) -> Option<char> {
        let short = [
            ("\"", '"'),
            ("\\", '\\'),
            ("b", '\u{8}'),
            ("f", '\u{c}'),
            ("n", '\n'),
            ("r", '\r'),
            ("t", '\t'),
        ];
        for (spelling, meaning) in short {
            if self.exactly(spelling).is_some() {
                return Some(meaning);
            }
        }
        let long = (0..32u8).filter(|code| !matches!(code, 8 | 9 | 10 | 12 | 13));
        let mut long = long.map(|code| (format!("u{code:04x}"), char::from(code)));
        long.find_map(|(spelling, meaning)| self.exactly(&spelling).map(|()| meaning))
    }

    /// Gives the number of items.
    fn list(&mut self, mut item: impl FnMut(&mut Self) -> Option<()>) -> Option<usize> {
        if self.exactly("[]").is_some() {
            return Some(0);
        }
        self.open('[')?;
        let mut count = 0;
        while count == 0 || self.exactly(",").is_some() {
            self.line()?;
            item(self)?;
            count += 1;
        }
        self.close(']')?;
        Some(count)
    }

    /// Texts by texts, sorted.
    fn map(&mut self) -> Option<()> {
        if self.exactly("{}").is_some() {
            return Some(());
        }
        self.open('{')?;
        let mut last = None;
        while last.is_none() || self.exactly(",").is_some() {
            self.line()?;
            let key = Some(self.string()?);
            (key > last).then_some(())?;
            last = key;
            self.exactly(": ")?;
            self.string()?;
        }
        self.close('}')
    }

    fn rows(&mut self) -> Option<()> {
        const ONE_COLUMN: [&str; 6] = [
            "pandas.Series",
            "polars.Series",
            "pyarrow.Array",
            "numpy.vector",
            "list",
            "scalar",
        ];
        const OTHERS: [&str; 10] = [
            "pandas.DataFrame",
            "polars.DataFrame",
            "pyarrow.Table",
            "pyarrow.RecordBatch",
            "numpy.matrix",
            "columns",
            "records",
            "tuple",
            "keywords",
            "record",
        ];
        self.open('{')?;
        let shape = self.key("shape")?.string()?;
        let mut names = BTreeSet::new();
        let columns = self.next("fields")?.list(|text| text.field(&mut names))?;
        let fits = (ONE_COLUMN.contains(&shape.as_str()) && columns == 1)
            || OTHERS.contains(&shape.as_str());
        fits.then_some(())?;
        self.close('}')
    }

    fn field(&mut self, names: &mut BTreeSet<String>) -> Option<()> {
        self.open('{')?;
        let name = self.key("name")?.string()?;
        (!name.is_empty() && names.insert(name)).then_some(())?;
        // The types that are tried here.
        let kind = self.next("type")?.string()?;
        ["float64", "int64", "utf8", "bool", "null", "list<float64>"]
            .contains(&kind.as_str())
            .then_some(())?;
        self.next("nullable")?.boolean()?;
        self.close('}')
    }

    fn certificate(&mut self) -> Option<()> {
        self.open('{')?;
        self.key("row_wise")?.boolean()?;
        let equality = self.next("equality")?.string()?;
        ["bitwise", "close", "none"]
            .contains(&equality.as_str())
            .then_some(())?;
        self.next("tile")?
            .or_null(|text| text.number(u32::MAX.into()).map(|_| ()))?;
        self.next("trials")?.number(u32::MAX.into())?;
        self.next("seed")?.number(u64::MAX)?;
        self.close('}')
    }
}
