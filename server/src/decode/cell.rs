//! One value of a column, or of a list or an object in it.

use std::borrow::Cow;
use std::fmt;

use envelope_format::DataType;
use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::got::{Got, plain_values, skip_list, skip_object};
use super::literals;
use super::table::note;
use crate::column::{Column, Misfit, Place};
use crate::fault::{Fault, Faults};

/// Where a value is, as it is told to the caller: `image[0][3]`, `user.age`.
#[derive(Clone, Copy)]
pub(super) enum Path<'p> {
    Column(&'p str),
    Item(&'p Self, usize),
    Key(&'p Self, &'p str),
}

impl fmt::Display for Path<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Column(name) => formatter.write_str(name),
            Self::Item(list, index) => write!(formatter, "{list}[{index}]"),
            Self::Key(object, name) => write!(formatter, "{object}.{name}"),
        }
    }
}

pub(super) fn is_float(data_type: &DataType) -> bool {
    matches!(
        data_type,
        DataType::Float16 | DataType::Float32 | DataType::Float64
    )
}

pub(super) fn is_integer(data_type: &DataType) -> bool {
    matches!(
        data_type,
        DataType::Int8
            | DataType::Int16
            | DataType::Int32
            | DataType::Int64
            | DataType::UInt8
            | DataType::UInt16
            | DataType::UInt32
            | DataType::UInt64
    )
}

/// The integer that `1.0` is: some clients have floats only. Greater floats may be a neighbour's.
#[expect(clippy::cast_possible_truncation, reason = "whole and small enough")]
pub(crate) fn whole(value: f64) -> Option<i128> {
    (value.fract() == 0.0 && value.abs() < 9e15).then_some(value as i128)
}

/// The most items that one `null` may stand for: a short body must not fill the memory.
const MOST_FILLED: u64 = 64;

/// One value of a column, or of a list or an object in it.
pub(super) struct Cell<'a> {
    pub(super) column: &'a mut dyn Column,
    pub(super) data_type: &'a DataType,
    pub(super) path: Path<'a>,
    pub(super) nullable: bool,
    pub(super) row: usize,
    pub(super) lenient: bool,
    pub(super) faults: &'a mut Faults,
}

impl Cell<'_> {
    /// The cell of a value within this one. It may be missing, for the signature has no word against
    /// it, unless it is an array.
    fn within<'c>(
        column: &'c mut dyn Column,
        data_type: &'c DataType,
        path: Path<'c>,
        (row, lenient): (usize, bool),
        faults: &'c mut Faults,
    ) -> Cell<'c> {
        Cell {
            column,
            data_type,
            path,
            nullable: data_type.items() <= MOST_FILLED,
            row,
            lenient,
            faults,
        }
    }

    /// Whether `1.0` is an integer: whoever casts knows that for himself.
    fn takes_whole(&self) -> bool {
        self.lenient && is_integer(self.data_type) && !self.column.casts()
    }

    pub(super) fn take<E: serde::de::Error>(self, got: Got<'_>) -> Result<(), E> {
        let taken = match got {
            Got::Null if self.lenient && self.column.take_null() => Ok(()),
            Got::Null if self.nullable => {
                self.column.null();
                Ok(())
            }
            Got::Null if self.lenient && is_float(self.data_type) => self.column.float(f64::NAN),
            Got::Null => return self.fault("not_nullable", &got, None),
            Got::Text(text) if self.lenient && literals::is_quoted(text) => {
                self.column.float(literals::value(text))
            }
            Got::Bool(value) => self.column.boolean(value),
            Got::Integer(value) => self.column.integer(value),
            Got::Float(value) if self.takes_whole() => match whole(value) {
                Some(integer) => self.column.integer(integer),
                None => self.column.float(value),
            },
            Got::Float(value) => self.column.float(value),
            Got::Text(value) => self.column.text(value),
            Got::List | Got::Items(_) | Got::Object => Err(Misfit::Type),
        };
        match taken {
            Ok(()) => Ok(()),
            Err(misfit) => self.misfit(misfit, &got),
        }
    }

    fn misfit<E: serde::de::Error>(self, misfit: Misfit, got: &Got<'_>) -> Result<(), E> {
        let (code, reason) = match misfit {
            Misfit::Type => ("wrong_type", None),
            Misfit::Range => ("out_of_range", None),
            Misfit::Form(reason) => ("wrong_form", Some(reason)),
            Misfit::Length => ("wrong_length", None),
            Misfit::Category => (
                "unknown_category",
                Some("it is not one of the column's categories"),
            ),
        };
        self.fault(code, got, reason)
    }

    pub(super) fn fault<E: serde::de::Error>(
        self,
        code: &'static str,
        got: &Got<'_>,
        reason: Option<&'static str>,
    ) -> Result<(), E> {
        let fault = Fault::new(code)
            .row(self.row)
            .column(&self.path.to_string())
            .expected(self.data_type)
            .got(&got.to_string());
        note(self.faults, Fault { reason, ..fault })
    }
}

impl<'de> DeserializeSeed<'de> for Cell<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Cell<'_> {
    type Value = ();

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a value")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        let (DataType::List(item) | DataType::FixedList(item, _)) = self.data_type else {
            self.take::<A::Error>(Got::List)?;
            return skip_list(list);
        };
        let mut count = 0;
        if let Some(items) = self.column.begin_list() {
            while list
                .next_element_seed(Cell::within(
                    &mut *items,
                    item,
                    Path::Item(&self.path, count),
                    (self.row, self.lenient),
                    self.faults,
                ))?
                .is_some()
            {
                count += 1;
            }
        }
        match self.column.end_list(count) {
            Ok(()) => Ok(()),
            Err(misfit) => self.misfit(misfit, &Got::Items(count)),
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, mut object: A) -> Result<(), A::Error> {
        let DataType::Struct(fields) = self.data_type else {
            self.take::<A::Error>(Got::Object)?;
            return skip_object(object);
        };
        while let Some(key) = object.next_key::<Cow<'de, str>>()? {
            let path = Path::Key(&self.path, &key);
            let code = match self.column.key(&key) {
                Place::Column(column) => {
                    let named = |(name, _): &&(String, DataType)| *name == *key;
                    let data_type = fields.iter().find(named).map_or(&DataType::Null, |f| &f.1);
                    let place = (self.row, self.lenient);
                    let cell = Cell::within(column, data_type, path, place, self.faults);
                    object.next_value_seed(cell)?;
                    continue;
                }
                Place::Twice => "duplicate_key",
                Place::Unknown => "unknown_key",
            };
            let fault = Fault::new(code).row(self.row).column(&path.to_string());
            note::<A::Error>(self.faults, fault)?;
            object.next_value::<IgnoredAny>()?;
        }
        for name in self.column.end_object() {
            let path = Path::Key(&self.path, &name).to_string();
            let fault = Fault::new("missing_key").row(self.row).column(&path);
            note::<A::Error>(self.faults, fault)?;
        }
        Ok(())
    }

    plain_values!();
}
