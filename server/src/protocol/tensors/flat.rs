//! The values of a tensor in JSON, flat or nested, straight into a column.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error as _, SeqAccess, Visitor};

use super::Datatype;
use crate::column::Column;
use crate::decode::{literals, whole};

/// Where the values go.
pub(super) struct Values<'c> {
    pub(super) datatype: Datatype,
    pub(super) column: &'c mut dyn Column,
}

impl Values<'_> {
    fn taken<E: serde::de::Error>(
        &self,
        taken: Result<(), crate::column::Misfit>,
        what: impl fmt::Display,
    ) -> Result<(), E> {
        taken.map_err(|_| E::custom(format_args!("{what} is not one of {}", self.datatype)))
    }

    fn is_float(&self) -> bool {
        matches!(
            self.datatype,
            Datatype::Fp16 | Datatype::Fp32 | Datatype::Fp64 | Datatype::Bf16
        )
    }
}

impl<'de> DeserializeSeed<'de> for Values<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Values<'_> {
    type Value = ();

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "values of {}", self.datatype)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        let Self { datatype, column } = self;
        while list
            .next_element_seed(Values {
                datatype,
                column: &mut *column,
            })?
            .is_some()
        {}
        Ok(())
    }

    fn visit_bool<E: serde::de::Error>(self, value: bool) -> Result<(), E> {
        let taken = self.column.boolean(value);
        self.taken(taken, value)
    }

    fn visit_i64<E: serde::de::Error>(self, value: i64) -> Result<(), E> {
        let taken = self.column.integer(value.into());
        self.taken(taken, value)
    }

    fn visit_u64<E: serde::de::Error>(self, value: u64) -> Result<(), E> {
        let taken = self.column.integer(value.into());
        self.taken(taken, value)
    }

    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<(), E> {
        let taken = match whole(value) {
            Some(integer) if !self.is_float() => self.column.integer(integer),
            _ => self.column.float(value),
        };
        self.taken(taken, value)
    }

    fn visit_str<E: serde::de::Error>(self, value: &str) -> Result<(), E> {
        let taken = if literals::is_quoted(value) {
            self.column.float(literals::value(value))
        } else {
            self.column.text(value)
        };
        self.taken(taken, format_args!("{:?}", crate::error::cut(value, 64)))
    }

    fn visit_unit<E: serde::de::Error>(self) -> Result<(), E> {
        self.column.null();
        Ok(())
    }

    fn visit_map<A: serde::de::MapAccess<'de>>(self, _: A) -> Result<(), A::Error> {
        Err(A::Error::custom(format_args!(
            "an object is not one of {}",
            self.datatype
        )))
    }
}
