//! One row: an object, a list, or a plain value where the function takes one column.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::Decoder;
use super::columns::by_position;
use super::got::{Got, plain_values, skip_list};
use super::table::Table;
use crate::fault::Fault;

/// One row.
pub(super) struct Row<'t, 'd>(pub(super) &'t mut Table<'d>);

impl Row<'_, '_> {
    fn take<E: serde::de::Error>(self, got: Got<'_>) -> Result<(), E> {
        if self.0.decoder.plain {
            return self.0.cell(0).take(got);
        }
        let row = self.0.row;
        self.0.fault(
            Fault::new("wrong_type")
                .row(row)
                .expected("an object with a key for each column")
                .got(&got.to_string()),
        )
    }
}

impl<'de> DeserializeSeed<'de> for Row<'_, '_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        self.0.check_room()?;
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Row<'_, '_> {
    type Value = ();

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a row")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut object: A) -> Result<(), A::Error> {
        if self.0.decoder.plain && self.0.columns[0].takes_objects() {
            // The row is the value: else an object would have two meanings.
            return self.0.cell(0).visit_map(object);
        }
        let table = self.0;
        // Rows mostly have their keys in the order of the schema.
        let mut expected = 0;
        while let Some(key) = object.next_key_seed(Key {
            decoder: table.decoder,
            expected,
        })? {
            match key {
                Ok(index) if table.seen[index] != table.row + 1 => {
                    expected = index + 1;
                    object.next_value_seed(table.cell(index))?;
                }
                Ok(index) => {
                    let name = &table.decoder.fields[index].name;
                    let fault = Fault::new("duplicate_key").row(table.row).column(name);
                    table.fault::<A::Error>(fault)?;
                    object.next_value::<IgnoredAny>()?;
                }
                Err(_) if table.lenient => drop(object.next_value::<IgnoredAny>()?),
                Err(unknown) => {
                    let fault = Fault::new("unknown_column").row(table.row).column(&unknown);
                    table.fault::<A::Error>(fault)?;
                    object.next_value::<IgnoredAny>()?;
                }
            }
        }
        table.end_row()
    }

    fn visit_seq<A: SeqAccess<'de>>(self, list: A) -> Result<(), A::Error> {
        if self.0.decoder.plain {
            return self.0.cell(0).visit_seq(list);
        }
        if self.0.lenient {
            return by_position(self.0, None, list);
        }
        self.take::<A::Error>(Got::List)?;
        skip_list(list)
    }

    plain_values!();
}

/// The name of a column: its index, or the name when there is no such column.
struct Key<'d> {
    decoder: &'d Decoder,
    expected: usize,
}

impl<'de> DeserializeSeed<'de> for Key<'_> {
    type Value = Result<usize, String>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for Key<'_> {
    type Value = Result<usize, String>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("the name of a column")
    }

    fn visit_str<E: serde::de::Error>(self, name: &str) -> Result<Self::Value, E> {
        let Self { decoder, expected } = self;
        if decoder
            .fields
            .get(expected)
            .is_some_and(|field| field.name == name)
        {
            return Ok(Ok(expected));
        }
        Ok(decoder
            .by_name
            .get(name)
            .copied()
            .ok_or_else(|| name.to_owned()))
    }
}
