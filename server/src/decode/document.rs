//! The body as a whole: an object with rows under a key, or the list of rows alone.

use std::borrow::Cow;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::columns::{Columns, Split};
use super::got::{Got, plain_values, skip_list, skip_object};
use super::row::Row;
use super::table::Table;
use super::{Dialect, Layout};
use crate::fault::Fault;

/// The whole body.
pub(super) struct Document<'t, 'd> {
    pub(super) table: &'t mut Table<'d>,
    pub(super) dialect: &'t Dialect,
}

impl Document<'_, '_> {
    fn take<E: serde::de::Error>(self, got: Got<'_>) -> Result<(), E> {
        let fault = Fault::new("wrong_type")
            .expected(format_args!("an object with the key {}", self.keys()))
            .got(&got.to_string());
        self.table.fault(fault)
    }

    fn keys(&self) -> String {
        let keys = self.dialect.keys.iter();
        let keys: Vec<_> = keys.map(|(key, _)| format!("`{key}`")).collect();
        keys.join(" or ")
    }
}

impl<'de> DeserializeSeed<'de> for Document<'_, '_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Document<'_, '_> {
    type Value = ();

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("an object with rows")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut object: A) -> Result<(), A::Error> {
        let mut found = false;
        while let Some(key) = object.next_key::<Cow<'de, str>>()? {
            let known = self.dialect.keys.iter().find(|(known, _)| *known == key);
            match known {
                Some((_, layout)) if !found => {
                    found = true;
                    let table = &mut *self.table;
                    table.cast(self.dialect.casts.map(|casts| casts(&key)));
                    match layout {
                        Layout::Rows => object.next_value_seed(List(table))?,
                        Layout::Split => object.next_value_seed(Split(table))?,
                        Layout::Columns => object.next_value_seed(Columns(table))?,
                    }
                    continue;
                }
                Some(_) => {
                    let fault = Fault::new("duplicate_key").got(&key);
                    self.table.fault::<A::Error>(fault)?;
                }
                None if self.dialect.lenient => {}
                None => {
                    let fault = Fault::new("unknown_key").expected(self.keys()).got(&key);
                    self.table.fault::<A::Error>(fault)?;
                }
            }
            object.next_value::<IgnoredAny>()?;
        }
        if found {
            return Ok(());
        }
        let fault = Fault::new("missing_key").expected(self.keys());
        self.table.fault(fault)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, list: A) -> Result<(), A::Error> {
        self.take::<A::Error>(Got::List)?;
        skip_list(list)
    }

    plain_values!();
}

/// The list of rows.
pub(super) struct List<'t, 'd>(pub(super) &'t mut Table<'d>);

impl List<'_, '_> {
    fn take<E: serde::de::Error>(self, got: Got<'_>) -> Result<(), E> {
        self.0.fault(
            Fault::new("wrong_type")
                .expected("a list of rows")
                .got(&got.to_string()),
        )
    }
}

impl<'de> DeserializeSeed<'de> for List<'_, '_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for List<'_, '_> {
    type Value = ();

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a list of rows")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        while list.next_element_seed(Row(self.0))?.is_some() {
            self.0.row += 1;
        }
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, object: A) -> Result<(), A::Error> {
        self.take::<A::Error>(Got::Object)?;
        skip_object(object)
    }

    plain_values!();
}
