//! One column of rows that are being read: takes JSON values, gives an Arrow array.
//!
//! A column takes what its type can hold and nothing else: no text for a number, no `1.0` for an
//! integer, no integer that a float would have to round.

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow_array::builder::{
    ArrayBuilder as _, BinaryBuilder, BooleanBuilder, NullBuilder, PrimitiveBuilder, StringBuilder,
};
use arrow_array::types::{
    ArrowPrimitiveType, ArrowTimestampType, Date32Type, DurationMicrosecondType,
    DurationMillisecondType, DurationNanosecondType, DurationSecondType, Float32Type, Float64Type,
    Int8Type, Int16Type, Int32Type, Int64Type, TimestampMicrosecondType, TimestampMillisecondType,
    TimestampNanosecondType, TimestampSecondType, UInt8Type, UInt16Type, UInt32Type, UInt64Type,
};
use arrow_array::{ArrayRef, ListArray};
use arrow_buffer::{NullBufferBuilder, OffsetBuffer};
use arrow_schema::{Field as ArrowField, TimeUnit as ArrowTimeUnit};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use envelope_format::{DataType, Field, TimeUnit};

use crate::moment::{parse_date, parse_moment};

/// Why a column does not take a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Misfit {
    /// It is of another type.
    Type,
    /// It is of the right type, and too large, too small or too exact for it.
    Range,
    /// It is text that does not say what the type needs.
    Form(&'static str),
    /// It is not one of the column's categories.
    Category,
}

/// Takes values one after the other. After a [`Misfit`] the column is of no further use.
pub(crate) trait Column: Send {
    fn null(&mut self);

    fn boolean(&mut self, _value: bool) -> Result<(), Misfit> {
        Err(Misfit::Type)
    }

    /// `value` came from JSON: it lies between the least `i64` and the greatest `u64`.
    fn integer(&mut self, _value: i128) -> Result<(), Misfit> {
        Err(Misfit::Type)
    }

    /// `value` is finite.
    fn float(&mut self, _value: f64) -> Result<(), Misfit> {
        Err(Misfit::Type)
    }

    fn text(&mut self, _value: &str) -> Result<(), Misfit> {
        Err(Misfit::Type)
    }

    /// Begins a list: where its items go until [`Column::end_list`]. `None` when the column holds no lists.
    fn begin_list(&mut self) -> Option<&mut dyn Column> {
        None
    }

    fn end_list(&mut self) {}

    fn length(&self) -> usize;

    fn finish(&mut self) -> ArrayRef;
}

/// An empty column for the values of `field`.
pub(crate) fn column(field: &Field) -> Box<dyn Column> {
    match &field.categories {
        Some(categories) if field.data_type == DataType::Utf8 => Box::new(Categories {
            known: categories.iter().cloned().collect(),
            values: StringBuilder::new(),
        }),
        _ => column_of(&field.data_type),
    }
}

fn column_of(data_type: &DataType) -> Box<dyn Column> {
    match data_type {
        DataType::Null => Box::new(Nulls(NullBuilder::new())),
        DataType::Bool => Box::new(Booleans(BooleanBuilder::new())),
        DataType::Int8 => integers::<Int8Type>(),
        DataType::Int16 => integers::<Int16Type>(),
        DataType::Int32 => integers::<Int32Type>(),
        DataType::Int64 => integers::<Int64Type>(),
        DataType::UInt8 => integers::<UInt8Type>(),
        DataType::UInt16 => integers::<UInt16Type>(),
        DataType::UInt32 => integers::<UInt32Type>(),
        DataType::UInt64 => integers::<UInt64Type>(),
        DataType::Float32 => Box::new(Floats32(PrimitiveBuilder::new())),
        DataType::Float64 => Box::new(Floats64(PrimitiveBuilder::new())),
        DataType::Utf8 => Box::new(Texts(StringBuilder::new())),
        DataType::Binary => Box::new(Binaries(BinaryBuilder::new())),
        DataType::Date => Box::new(Dates(PrimitiveBuilder::new())),
        DataType::Timestamp(unit, zone) => moments(*unit, zone.as_deref()),
        DataType::Duration(TimeUnit::Second) => integers::<DurationSecondType>(),
        DataType::Duration(TimeUnit::Millisecond) => integers::<DurationMillisecondType>(),
        DataType::Duration(TimeUnit::Microsecond) => integers::<DurationMicrosecondType>(),
        DataType::Duration(TimeUnit::Nanosecond) => integers::<DurationNanosecondType>(),
        DataType::List(item) => Box::new(Lists::of(item)),
    }
}

fn integers<T: ArrowPrimitiveType>() -> Box<dyn Column>
where
    T::Native: TryFrom<i128>,
{
    Box::new(Integers::<T>(PrimitiveBuilder::new()))
}

fn moments(unit: TimeUnit, zone: Option<&str>) -> Box<dyn Column> {
    match unit {
        TimeUnit::Second => moments_of::<TimestampSecondType>(zone),
        TimeUnit::Millisecond => moments_of::<TimestampMillisecondType>(zone),
        TimeUnit::Microsecond => moments_of::<TimestampMicrosecondType>(zone),
        TimeUnit::Nanosecond => moments_of::<TimestampNanosecondType>(zone),
    }
}

fn moments_of<T: ArrowTimestampType>(zone: Option<&str>) -> Box<dyn Column> {
    let data_type = arrow_schema::DataType::Timestamp(T::UNIT, zone.map(Arc::from));
    let values = PrimitiveBuilder::new().with_data_type(data_type);
    Box::new(Moments::<T> {
        values,
        zoned: zone.is_some(),
    })
}

/// What every column over an Arrow builder does in the same way.
macro_rules! built {
    ($($builder:tt)+) => {
        fn null(&mut self) {
            self.$($builder)+.append_null();
        }

        fn length(&self) -> usize {
            self.$($builder)+.len()
        }

        fn finish(&mut self) -> ArrayRef {
            Arc::new(self.$($builder)+.finish())
        }
    };
}

struct Nulls(NullBuilder);

impl Column for Nulls {
    built!(0);
}

struct Booleans(BooleanBuilder);

impl Column for Booleans {
    built!(0);

    fn boolean(&mut self, value: bool) -> Result<(), Misfit> {
        self.0.append_value(value);
        Ok(())
    }
}

/// Integers of any width, and durations, which are counts.
struct Integers<T: ArrowPrimitiveType>(PrimitiveBuilder<T>);

impl<T: ArrowPrimitiveType> Column for Integers<T>
where
    T::Native: TryFrom<i128>,
{
    built!(0);

    fn integer(&mut self, value: i128) -> Result<(), Misfit> {
        self.0
            .append_value(T::Native::try_from(value).map_err(|_| Misfit::Range)?);
        Ok(())
    }
}

struct Floats64(PrimitiveBuilder<Float64Type>);

impl Column for Floats64 {
    built!(0);

    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        reason = "loss is what is looked for"
    )]
    fn integer(&mut self, value: i128) -> Result<(), Misfit> {
        let float = value as f64;
        if float as i128 != value {
            return Err(Misfit::Range);
        }
        self.float(float)
    }

    fn float(&mut self, value: f64) -> Result<(), Misfit> {
        self.0.append_value(value);
        Ok(())
    }
}

struct Floats32(PrimitiveBuilder<Float32Type>);

impl Column for Floats32 {
    built!(0);

    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        reason = "loss is what is looked for"
    )]
    fn integer(&mut self, value: i128) -> Result<(), Misfit> {
        let float = value as f32;
        if float as i128 != value {
            return Err(Misfit::Range);
        }
        self.0.append_value(float);
        Ok(())
    }

    /// A decimal fraction is rounded, as it is for 64 bits; one that is too large is not made infinite.
    #[expect(clippy::cast_possible_truncation, reason = "checked")]
    fn float(&mut self, value: f64) -> Result<(), Misfit> {
        let float = value as f32;
        if float.is_infinite() {
            return Err(Misfit::Range);
        }
        self.0.append_value(float);
        Ok(())
    }
}

struct Texts(StringBuilder);

impl Column for Texts {
    built!(0);

    fn text(&mut self, value: &str) -> Result<(), Misfit> {
        self.0.append_value(value);
        Ok(())
    }
}

struct Categories {
    known: BTreeSet<String>,
    values: StringBuilder,
}

impl Column for Categories {
    built!(values);

    fn text(&mut self, value: &str) -> Result<(), Misfit> {
        if !self.known.contains(value) {
            return Err(Misfit::Category);
        }
        self.values.append_value(value);
        Ok(())
    }
}

struct Binaries(BinaryBuilder);

impl Column for Binaries {
    built!(0);

    fn text(&mut self, value: &str) -> Result<(), Misfit> {
        let bytes = BASE64_STANDARD
            .decode(value)
            .map_err(|_| Misfit::Form("it is not base64 with padding"))?;
        self.0.append_value(bytes);
        Ok(())
    }
}

struct Dates(PrimitiveBuilder<Date32Type>);

impl Column for Dates {
    built!(0);

    fn text(&mut self, value: &str) -> Result<(), Misfit> {
        let days = parse_date(value).ok_or(Misfit::Form("it is not a date like `2026-01-31`"))?;
        self.0.append_value(days);
        Ok(())
    }
}

struct Moments<T: ArrowTimestampType> {
    values: PrimitiveBuilder<T>,
    zoned: bool,
}

impl<T: ArrowTimestampType> Column for Moments<T> {
    built!(values);

    fn text(&mut self, value: &str) -> Result<(), Misfit> {
        let moment = parse_moment(value).ok_or(Misfit::Form(
            "it is not a moment like `2026-01-31T12:00:00Z`",
        ))?;
        match (self.zoned, moment.zoned) {
            (true, false) => {
                return Err(Misfit::Form("it has no time zone: append `Z` or `+01:00`"));
            }
            (false, true) => {
                return Err(Misfit::Form("it has a time zone, and the column has none"));
            }
            _ => {}
        }
        let per_second = per_second(&T::UNIT);
        let nanoseconds = i128::from(moment.nanoseconds) * i128::from(per_second);
        if nanoseconds % 1_000_000_000 != 0 {
            return Err(Misfit::Range);
        }
        let count =
            i128::from(moment.seconds) * i128::from(per_second) + nanoseconds / 1_000_000_000;
        self.values
            .append_value(i64::try_from(count).map_err(|_| Misfit::Range)?);
        Ok(())
    }
}

/// How many of a unit make a second.
pub(crate) fn per_second(unit: &ArrowTimeUnit) -> i64 {
    match unit {
        ArrowTimeUnit::Second => 1,
        ArrowTimeUnit::Millisecond => 1_000,
        ArrowTimeUnit::Microsecond => 1_000_000,
        ArrowTimeUnit::Nanosecond => 1_000_000_000,
    }
}

struct Lists {
    items: Box<dyn Column>,
    item_type: arrow_schema::DataType,
    ends: Vec<usize>,
    valid: NullBufferBuilder,
}

impl Lists {
    fn of(item: &DataType) -> Self {
        Self {
            items: column_of(item),
            item_type: runtime::arrow_type(item),
            ends: vec![],
            valid: NullBufferBuilder::new(0),
        }
    }
}

impl Column for Lists {
    fn null(&mut self) {
        self.ends.push(self.items.length());
        self.valid.append_null();
    }

    fn begin_list(&mut self) -> Option<&mut dyn Column> {
        Some(&mut *self.items)
    }

    fn end_list(&mut self) {
        self.ends.push(self.items.length());
        self.valid.append_non_null();
    }

    fn length(&self) -> usize {
        self.ends.len()
    }

    fn finish(&mut self) -> ArrayRef {
        let mut start = 0;
        let lengths: Vec<usize> = self
            .ends
            .drain(..)
            .map(|end| end - std::mem::replace(&mut start, end))
            .collect();
        let item = ArrowField::new_list_field(self.item_type.clone(), true);
        let offsets = OffsetBuffer::from_lengths(lengths);
        Arc::new(ListArray::new(
            Arc::new(item),
            offsets,
            self.items.finish(),
            self.valid.finish(),
        ))
    }
}
