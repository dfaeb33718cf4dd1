//! What the pages of a Parquet file say that they unpack to, before one of them is unpacked.
//!
//! The reader takes as much memory as the header of a page asks for, up to 2 GiB, and its own headers are
//! private to it: so the headers alone are read here, which are structs of Thrift's compact protocol.

use std::ops::ControlFlow;

use arrow_schema::ArrowError;
use parquet::arrow::ProjectionMask;
use parquet::basic::Type;
use parquet::file::metadata::{ColumnChunkMetaData, ParquetMetaData};

/// The rows that may be read at once, so that they are no more than `most_bytes`.
///
/// # Errors
/// [`ArrowError::MemoryError`] when all the pages are more than `most_bytes`, or a column of lists
/// has more items.
pub(super) fn rows_at_once(
    file: &[u8],
    metadata: &ParquetMetaData,
    taken: &ProjectionMask,
    most_bytes: usize,
) -> Result<usize, ArrowError> {
    let (mut all, mut longest_row) = (0_usize, 1_usize);
    for group in metadata.row_groups() {
        let columns = group.columns().iter().enumerate();
        let mut row = 0_usize;
        for (_, column) in columns.filter(|(leaf, _)| taken.leaf_included(*leaf)) {
            let pages = Pages::of(file, column)?;
            all = all.saturating_add(pages.bytes);
            row = row.saturating_add(pages.longest_value(column));
            if all > most_bytes || pages.least_bytes(column) > most_bytes {
                return Err(too_much(most_bytes));
            }
        }
        longest_row = longest_row.max(row);
    }
    Ok((most_bytes / longest_row).clamp(1, MOST_ROWS_AT_ONCE))
}

/// As many as the reader takes by itself.
const MOST_ROWS_AT_ONCE: usize = 1024;

pub(super) fn too_much(most_bytes: usize) -> ArrowError {
    ArrowError::MemoryError(format!("it unpacks to more than {most_bytes} bytes"))
}

/// What the pages of a column say of themselves.
#[derive(Debug, Default)]
struct Pages {
    bytes: usize,
    largest: usize,
    values: usize,
}

impl Pages {
    fn of(file: &[u8], column: &ColumnChunkMetaData) -> Result<Self, ArrowError> {
        let damaged = || ArrowError::ParquetError("its pages are damaged".into());
        let (start, length) = column.byte_range();
        let start = usize::try_from(start).map_err(|_| damaged())?;
        let length = usize::try_from(length).map_err(|_| damaged())?;
        let rest = file.get(start..).and_then(|rest| rest.get(..length));
        let mut rest = rest.ok_or_else(damaged)?;
        let mut pages = Self::default();
        while !rest.is_empty() {
            let (header, body) = PageHeader::read(rest).ok_or_else(damaged)?;
            rest = body.get(header.compressed..).ok_or_else(damaged)?;
            pages.bytes = pages.bytes.saturating_add(header.uncompressed);
            pages.largest = pages.largest.max(header.uncompressed);
            pages.values = pages.values.saturating_add(header.values);
        }
        Ok(pages)
    }

    /// Values of other types are as short as their type says.
    fn longest_value(&self, column: &ColumnChunkMetaData) -> usize {
        match column.column_type() {
            Type::BYTE_ARRAY | Type::FIXED_LEN_BYTE_ARRAY => self.largest,
            Type::BOOLEAN
            | Type::INT32
            | Type::INT64
            | Type::INT96
            | Type::FLOAT
            | Type::DOUBLE => width(column.column_type()),
        }
    }

    /// Rows are counted elsewhere, but a single row may be a list of all the values that there are.
    fn least_bytes(&self, column: &ColumnChunkMetaData) -> usize {
        if column.column_descr().max_rep_level() == 0 {
            return 0;
        }
        self.values.saturating_mul(width(column.column_type()))
    }
}

/// The bytes of a value, or of where it ends.
fn width(of: Type) -> usize {
    match of {
        Type::BOOLEAN | Type::FIXED_LEN_BYTE_ARRAY => 1,
        Type::INT32 | Type::FLOAT | Type::BYTE_ARRAY => 4,
        Type::INT64 | Type::DOUBLE => 8,
        Type::INT96 => 12,
    }
}

/// What is read of the header of a page.
#[derive(Debug, Default, PartialEq, Eq)]
struct PageHeader {
    uncompressed: usize,
    compressed: usize,
    values: usize,
}

impl PageHeader {
    /// The header that `bytes` begin with, and what follows it.
    fn read(bytes: &[u8]) -> Option<(Self, &[u8])> {
        let (mut thrift, mut header) = (Thrift(bytes), Self::default());
        thrift.fields(&mut |thrift, field, kind| {
            match (field, kind) {
                (2, Kind::Integer) => header.uncompressed = thrift.size()?,
                (3, Kind::Integer) => header.compressed = thrift.size()?,
                // Of data, and of data in the second version; both begin with the number of values.
                (5 | 8, Kind::Struct) => thrift.fields(&mut |thrift, field, kind| {
                    match (field, kind) {
                        (1, Kind::Integer) => header.values = thrift.size()?,
                        (1, _) => return None,
                        _ => thrift.skip(kind, MOST_DEPTH)?,
                    }
                    Some(())
                })?,
                // The reader does not look at the kind.
                (2 | 3 | 5 | 8, _) => return None,
                _ => thrift.skip(kind, MOST_DEPTH)?,
            }
            Some(())
        })?;
        Some((header, thrift.0))
    }
}

/// How deep a header may be: the deepest has statistics in a header in a header.
const MOST_DEPTH: usize = 8;

/// What kind of value follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// True or false, which within a struct is said by the kind itself.
    Truth,
    Byte,
    Integer,
    Double,
    Bytes,
    List,
    Map,
    Struct,
}

impl Kind {
    fn of(bits: u8) -> Option<Self> {
        Some(match bits {
            1 | 2 => Self::Truth,
            3 => Self::Byte,
            4..=6 => Self::Integer,
            7 => Self::Double,
            8 => Self::Bytes,
            9 | 10 => Self::List,
            11 => Self::Map,
            12 => Self::Struct,
            _ => return None,
        })
    }
}

/// The rest of something in Thrift's compact protocol. `None`: it ends too soon, or is something else.
struct Thrift<'b>(&'b [u8]);

impl Thrift<'_> {
    /// Reads a struct; `field` reads what is in each of its fields.
    fn fields(&mut self, field: &mut dyn FnMut(&mut Self, i64, Kind) -> Option<()>) -> Option<()> {
        let mut last = 0_i64;
        loop {
            let begin = self.byte()?;
            if begin == 0 {
                return Some(());
            }
            last = match begin >> 4 {
                0 => self.integer()?,
                more => last + i64::from(more),
            };
            let kind = Kind::of(begin & 0x0f)?;
            field(self, last, kind)?;
        }
    }

    fn skip(&mut self, kind: Kind, depth: usize) -> Option<()> {
        let depth = depth.checked_sub(1)?;
        match kind {
            Kind::Truth => Some(()),
            Kind::Byte => self.byte().map(drop),
            Kind::Integer => self.varint().map(drop),
            Kind::Double => self.pass(8),
            Kind::Bytes => {
                let length = usize::try_from(self.varint()?).ok()?;
                self.pass(length)
            }
            Kind::List => {
                let begin = self.byte()?;
                let items = match begin >> 4 {
                    15 => self.varint()?,
                    few => few.into(),
                };
                self.skip_items(items, &[Kind::of(begin & 0x0f)?], depth)
            }
            Kind::Map => match self.varint()? {
                0 => Some(()),
                pairs => {
                    let kinds = self.byte()?;
                    let kinds = [Kind::of(kinds >> 4)?, Kind::of(kinds & 0x0f)?];
                    self.skip_items(pairs, &kinds, depth)
                }
            },
            Kind::Struct => self.fields(&mut |thrift, _, kind| thrift.skip(kind, depth)),
        }
    }

    /// Each takes a byte at least, so that a false number of them ends with the bytes.
    fn skip_items(&mut self, items: u64, kinds: &[Kind], depth: usize) -> Option<()> {
        let skip = |kind: &Kind, thrift: &mut Self| {
            if *kind == Kind::Truth {
                return thrift.byte().map(drop);
            }
            thrift.skip(*kind, depth)
        };
        let skipped = (0..items).try_for_each(|_| {
            let all = kinds.iter().try_for_each(|kind| skip(kind, self));
            all.map_or(ControlFlow::Break(()), ControlFlow::Continue)
        });
        skipped.is_continue().then_some(())
    }

    fn pass(&mut self, length: usize) -> Option<()> {
        self.0 = self.0.get(length..)?;
        Some(())
    }

    fn byte(&mut self) -> Option<u8> {
        let (byte, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*byte)
    }

    /// Seven bits in each byte, the lowest first; the highest bit says that there are more.
    fn varint(&mut self) -> Option<u64> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Some(value);
            }
        }
        None
    }

    /// The sign is in the lowest bit.
    fn integer(&mut self) -> Option<i64> {
        let bits = self.varint()?;
        Some((bits >> 1).cast_signed() ^ -(bits & 1).cast_signed())
    }

    /// A number of 32 bits that is not negative.
    fn size(&mut self) -> Option<usize> {
        i32::try_from(self.integer()?).ok()?.try_into().ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A field of a struct, `more` after the one before.
    fn field(more: u8, kind: u8, value: &[u8]) -> Vec<u8> {
        [&[more << 4 | kind], value].concat()
    }

    fn header(parts: &[Vec<u8>]) -> Vec<u8> {
        [parts.concat(), vec![0, 0xee]].concat()
    }

    #[test]
    fn the_sizes_of_a_page_are_read_and_all_else_is_passed_over() {
        let statistics = field(4, 12, &header(&[field(1, 8, b"\x03abc")])[..6]);
        let data = [field(1, 5, &[20]), statistics, vec![0]].concat();
        let bytes = header(&[
            field(1, 5, &[0]),
            field(1, 5, &[0xd0, 0x0f]),
            field(1, 5, &[6]),
            field(2, 12, &data),
            field(4, 9, &[0x25, 2, 4]),
            field(1, 11, &[1, 0x85, 1, b'x', 8]),
            field(1, 1, &[]),
            field(1, 9, &[0x21, 1, 2]),
        ]);
        let (read, rest) = PageHeader::read(&bytes).expect("a header");
        let expected = PageHeader {
            uncompressed: 1000,
            compressed: 3,
            values: 10,
        };
        assert_eq!((read, rest), (expected, &[0xee][..]));
    }

    #[test]
    fn what_is_no_header_is_refused() {
        let deep = [vec![0xfc; 100], vec![0; 101]].concat();
        for bytes in [
            vec![],
            vec![0x15],
            header(&[field(2, 5, &[0xff; 10])]),
            // Negative, of another kind, or of more bits.
            header(&[field(2, 5, &[1])]),
            header(&[field(2, 8, &[0])]),
            header(&[field(2, 6, &[0x80, 0x80, 0x80, 0x80, 0x80, 1])]),
            header(&[field(1, 8, &[0xff, 0xff, 3])]),
            header(&[field(1, 9, &[0xf5, 0xff, 0xff, 0xff, 0xff, 0x0f])]),
            header(&[field(1, 13, &[])]),
            deep,
        ] {
            assert_eq!(PageHeader::read(&bytes), None, "{bytes:?}");
        }
    }
}
