//! One column of rows that are being read: takes JSON values, gives an Arrow array.
//!
//! A column takes what its type can hold and nothing else: no text for a number, no `1.0` for an
//! integer, no integer that a float would have to round.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::sync::Arc;

use arrow_array::builder::{
    ArrayBuilder as _, BinaryBuilder, BooleanBuilder, NullBuilder, PrimitiveBuilder, StringBuilder,
};
use arrow_array::types::{
    ArrowPrimitiveType, ArrowTimestampType, Date32Type, Decimal128Type, DurationMicrosecondType,
    DurationMillisecondType, DurationNanosecondType, DurationSecondType, Float16Type, Float32Type,
    Float64Type, Int8Type, Int16Type, Int32Type, Int64Type, Time32MillisecondType,
    Time32SecondType, Time64MicrosecondType, Time64NanosecondType, TimestampMicrosecondType,
    TimestampMillisecondType, TimestampNanosecondType, TimestampSecondType, UInt8Type, UInt16Type,
    UInt32Type, UInt64Type,
};
use arrow_array::{ArrayRef, FixedSizeListArray, ListArray, StructArray};
use arrow_buffer::{NullBufferBuilder, OffsetBuffer};
use arrow_schema::{DataType as ArrowType, Field as ArrowField, Fields, TimeUnit as ArrowTimeUnit};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use envelope_format::{DataType, Field, TimeUnit};

use crate::decimal::{NotDecimal, parse_decimal};
use crate::moment::{parse_date, parse_moment, parse_time};

/// Why a column does not take a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Misfit {
    /// It is of another type.
    Type,
    /// It is of the right type, and too large, too small or too exact for it.
    Range,
    /// It is text that does not say what the type needs.
    Form(&'static str),
    /// It is a list with another number of items than the type says.
    Length,
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

    /// `value` is finite, unless the protocol can say that it is not.
    fn float(&mut self, _value: f64) -> Result<(), Misfit> {
        Err(Misfit::Type)
    }

    fn text(&mut self, _value: &str) -> Result<(), Misfit> {
        Err(Misfit::Type)
    }

    /// Takes a null as the value that the column makes of it; `false` where it makes none.
    fn take_null(&mut self) -> bool {
        false
    }

    /// Whether values of other types are changed into its own.
    fn casts(&self) -> bool {
        false
    }

    /// Begins a list: where its items go until [`Column::end_list`].
    /// `None` when the column holds no lists.
    fn begin_list(&mut self) -> Option<&mut dyn Column> {
        None
    }

    /// Ends a list of so many items, good or bad.
    fn end_list(&mut self, _items: usize) -> Result<(), Misfit> {
        Err(Misfit::Type)
    }

    /// Whether it takes objects: each key once, by [`Column::key`], until [`Column::end_object`].
    fn takes_objects(&self) -> bool {
        false
    }

    /// Where the value of a key goes.
    fn key(&mut self, _name: &str) -> Place<'_> {
        Place::Unknown
    }

    /// Ends an object; gives the keys that it lacked.
    fn end_object(&mut self) -> Vec<String> {
        vec![]
    }

    fn length(&self) -> usize;

    fn finish(&mut self) -> ArrayRef;
}

/// What a column knows of the key of an object.
pub(crate) enum Place<'c> {
    /// Its value goes there.
    Column(&'c mut dyn Column),
    /// The object had it before.
    Twice,
    /// There is no such key.
    Unknown,
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

pub(crate) fn column_of(data_type: &DataType) -> Box<dyn Column> {
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
        DataType::Float16 => Box::new(Floats16(PrimitiveBuilder::new())),
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
        DataType::Time(TimeUnit::Second) => times::<Time32SecondType>(1),
        DataType::Time(TimeUnit::Millisecond) => times::<Time32MillisecondType>(1_000),
        DataType::Time(TimeUnit::Microsecond) => times::<Time64MicrosecondType>(1_000_000),
        DataType::Time(TimeUnit::Nanosecond) => times::<Time64NanosecondType>(1_000_000_000),
        DataType::Decimal { precision, scale } => {
            let data_type = runtime::arrow_type(data_type);
            Box::new(Decimals {
                values: PrimitiveBuilder::new().with_data_type(data_type),
                precision: *precision,
                scale: *scale,
            })
        }
        DataType::List(item) => Box::new(Lists::of(item)),
        DataType::FixedList(item, length) => Box::new(FixedLists::of(item, *length)),
        DataType::Struct(fields) => Box::new(Structs::of(fields)),
    }
}

/// Counts of a unit since 1970, of no zone.
pub(crate) fn counts(unit: TimeUnit) -> Box<dyn Column> {
    match unit {
        TimeUnit::Second => integers::<TimestampSecondType>(),
        TimeUnit::Millisecond => integers::<TimestampMillisecondType>(),
        TimeUnit::Microsecond => integers::<TimestampMicrosecondType>(),
        TimeUnit::Nanosecond => integers::<TimestampNanosecondType>(),
    }
}

fn times<T: ArrowPrimitiveType>(per_second: i64) -> Box<dyn Column>
where
    T::Native: TryFrom<i64>,
{
    Box::new(Times::<T> {
        values: PrimitiveBuilder::new(),
        per_second,
    })
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

struct Floats16(PrimitiveBuilder<Float16Type>);

impl Column for Floats16 {
    built!(0);

    #[expect(clippy::cast_precision_loss, reason = "loss is what is looked for")]
    fn integer(&mut self, value: i128) -> Result<(), Misfit> {
        let half = <Float16Type as ArrowPrimitiveType>::Native::from_f64(value as f64);
        // 65,504 is the greatest, so that the way back cannot overflow.
        if !half.is_finite() || f64::from(half) != value as f64 {
            return Err(Misfit::Range);
        }
        self.0.append_value(half);
        Ok(())
    }

    /// As for 32 bits.
    fn float(&mut self, value: f64) -> Result<(), Misfit> {
        let half = <Float16Type as ArrowPrimitiveType>::Native::from_f64(value);
        if half.is_infinite() && value.is_finite() {
            return Err(Misfit::Range);
        }
        self.0.append_value(half);
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
        if float.is_infinite() && value.is_finite() {
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
        // Python's `encodebytes`, which MLflow's client uses, breaks lines, and ends with a break.
        let value: Cow<'_, str> = if value.contains('\n') {
            value.replace(['\r', '\n'], "").into()
        } else {
            value.into()
        };
        let bytes = BASE64_STANDARD
            .decode(&*value)
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

/// Times of day.
struct Times<T: ArrowPrimitiveType> {
    values: PrimitiveBuilder<T>,
    per_second: i64,
}

impl<T: ArrowPrimitiveType> Column for Times<T>
where
    T::Native: TryFrom<i64>,
{
    built!(values);

    fn text(&mut self, value: &str) -> Result<(), Misfit> {
        let nanoseconds =
            parse_time(value).ok_or(Misfit::Form("it is not a time like `12:30:00`"))?;
        let each = 1_000_000_000 / self.per_second;
        if nanoseconds % each != 0 {
            return Err(Misfit::Range);
        }
        let count = T::Native::try_from(nanoseconds / each).map_err(|_| Misfit::Range)?;
        self.values.append_value(count);
        Ok(())
    }
}

/// Text, because a number of JSON would have been rounded on its way here.
struct Decimals {
    values: PrimitiveBuilder<Decimal128Type>,
    precision: u8,
    scale: u8,
}

impl Column for Decimals {
    built!(values);

    fn integer(&mut self, _value: i128) -> Result<(), Misfit> {
        self.float(0.0)
    }

    fn float(&mut self, _value: f64) -> Result<(), Misfit> {
        Err(Misfit::Form(
            "a decimal is written as text, like `\"12.30\"`",
        ))
    }

    fn text(&mut self, value: &str) -> Result<(), Misfit> {
        let digits =
            parse_decimal(value, self.precision, self.scale).map_err(|error| match error {
                NotDecimal::Form => Misfit::Form("it is not a decimal like `12.30`"),
                NotDecimal::Range => Misfit::Range,
            })?;
        self.values.append_value(digits);
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

    fn end_list(&mut self, _items: usize) -> Result<(), Misfit> {
        self.ends.push(self.items.length());
        self.valid.append_non_null();
        Ok(())
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

/// Lists of one length: the rows of arrays.
struct FixedLists {
    items: Box<dyn Column>,
    item_type: ArrowType,
    items_each: usize,
    rows: usize,
    valid: NullBufferBuilder,
}

impl FixedLists {
    fn of(item: &DataType, length: u32) -> Self {
        Self {
            items: column_of(item),
            item_type: runtime::arrow_type(item),
            // The format allows no length that is longer than an address.
            items_each: usize::try_from(length).unwrap_or(usize::MAX),
            rows: 0,
            valid: NullBufferBuilder::new(0),
        }
    }
}

impl Column for FixedLists {
    fn null(&mut self) {
        for _ in 0..self.items_each {
            self.items.null();
        }
        self.rows += 1;
        self.valid.append_null();
    }

    fn begin_list(&mut self) -> Option<&mut dyn Column> {
        Some(&mut *self.items)
    }

    fn end_list(&mut self, items: usize) -> Result<(), Misfit> {
        if items != self.items_each {
            return Err(Misfit::Length);
        }
        self.rows += 1;
        self.valid.append_non_null();
        Ok(())
    }

    fn length(&self) -> usize {
        self.rows
    }

    fn finish(&mut self) -> ArrayRef {
        let item = ArrowField::new_list_field(self.item_type.clone(), true);
        Arc::new(FixedSizeListArray::new(
            Arc::new(item),
            i32::try_from(self.items_each).unwrap_or(i32::MAX),
            self.items.finish(),
            self.valid.finish(),
        ))
    }
}

/// Objects with known keys.
struct Structs {
    fields: Fields,
    columns: Vec<Box<dyn Column>>,
    /// For each key the number of the last object that had it, counted from 1.
    seen: Vec<usize>,
    rows: usize,
    valid: NullBufferBuilder,
}

impl Structs {
    fn of(fields: &[(String, DataType)]) -> Self {
        let column = |(_, field): &(String, DataType)| column_of(field);
        let field = |(name, field): &(String, DataType)| {
            ArrowField::new(name, runtime::arrow_type(field), true)
        };
        Self {
            fields: fields.iter().map(field).collect(),
            columns: fields.iter().map(column).collect(),
            seen: vec![0; fields.len()],
            rows: 0,
            valid: NullBufferBuilder::new(0),
        }
    }
}

impl Column for Structs {
    fn null(&mut self) {
        for column in &mut self.columns {
            column.null();
        }
        self.rows += 1;
        self.valid.append_null();
    }

    fn takes_objects(&self) -> bool {
        true
    }

    fn key(&mut self, name: &str) -> Place<'_> {
        let Some((index, _)) = self.fields.find(name) else {
            return Place::Unknown;
        };
        if std::mem::replace(&mut self.seen[index], self.rows + 1) == self.rows + 1 {
            return Place::Twice;
        }
        Place::Column(&mut *self.columns[index])
    }

    fn end_object(&mut self) -> Vec<String> {
        self.rows += 1;
        self.valid.append_non_null();
        let lacking = self.fields.iter().zip(&self.seen);
        lacking
            .filter(|(_, seen)| **seen != self.rows)
            .map(|(field, _)| field.name().clone())
            .collect()
    }

    fn length(&self) -> usize {
        self.rows
    }

    fn finish(&mut self) -> ArrayRef {
        let columns = self.columns.iter_mut().map(|column| column.finish());
        Arc::new(StructArray::new(
            self.fields.clone(),
            columns.collect(),
            self.valid.finish(),
        ))
    }
}
