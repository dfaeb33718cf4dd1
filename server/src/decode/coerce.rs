//! Values of other types, changed as `MLflow`'s scoring server changes them: for a service that takes
//! its place, and only where its operator asks for that.
//!
//! A column of a type that `MLflow` has is wrapped in one that changes what comes before it is taken.
//! Where `MLflow` destroys a value without a word, so does the wrapper. Three things it cannot do: give
//! what a column of the envelope cannot hold (a number among texts, no moment where none was missing),
//! know how the values of later rows would change this one, and tell integers of more than 64 bits
//! from floats, which JSON does not; all of these are refused or read for themselves.

mod moments;
mod numbers;
mod python;
mod texts;

use envelope_format::{DataType, Field};

use crate::column::{Column, Misfit, column};

/// Who changes the values: `MLflow` leaves that to others, and they differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Casts {
    /// Pandas, where rows come as a frame: integers wrap around, bytes are base64, dates are guessed.
    Frame,
    /// `NumPy`, where they come as arrays: integers are refused, bytes are text, dates are ISO 8601.
    Array,
    /// Pandas, where it reads comma-separated values: digits are truth values, and that is all.
    Fields,
}

impl Casts {
    /// An empty column for the values of `field`, and for what becomes one of them.
    pub(super) fn column(self, field: &Field) -> Box<dyn Column> {
        use DataType as D;
        let inner = column(field);
        match &field.data_type {
            D::Bool => Box::new(numbers::Booleans::new(inner, self)),
            _ if self == Self::Fields => inner,
            D::Int8 | D::Int16 | D::Int32 | D::UInt8 | D::UInt16 => {
                Box::new(numbers::Integers::of_32_bits(inner, self))
            }
            D::Int64 | D::UInt32 => Box::new(numbers::Integers::of_64_bits(inner, self)),
            D::Float16 | D::Float32 => Box::new(numbers::Floats::of_32_bits(inner, self)),
            D::Float64 => Box::new(numbers::Floats::of_64_bits(inner, self)),
            D::Utf8 if self == Self::Array => Box::new(texts::Texts::of_text(inner)),
            D::Binary if self == Self::Array => Box::new(texts::Texts::of_bytes(inner)),
            D::Binary => Box::new(texts::Base64::new(inner)),
            D::Timestamp(unit, None) => {
                Box::new(moments::Moments::new(*unit, field.nullable, self))
            }
            // `MLflow` has no such types.
            D::Null
            | D::UInt64
            | D::Utf8
            | D::Date
            | D::Timestamp(_, Some(_))
            | D::Time(_)
            | D::Duration(_)
            | D::Decimal { .. }
            | D::List(_)
            | D::FixedList(..)
            | D::Struct(_) => inner,
        }
    }
}

/// What a column that changes values does as the one that takes them.
macro_rules! wrapped {
    () => {
        fn null(&mut self) {
            self.inner.null();
        }

        fn casts(&self) -> bool {
            true
        }

        fn length(&self) -> usize {
            self.inner.length()
        }

        fn finish(&mut self) -> arrow_array::ArrayRef {
            self.inner.finish()
        }
    };
}
use wrapped;

#[cfg(test)]
mod tests;
