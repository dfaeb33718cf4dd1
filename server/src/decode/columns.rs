//! Rows that do not have their names with them: lists by position, tables split into names and values,
//! and whole columns.

use std::borrow::Cow;
use std::fmt;

use serde::Deserialize;
use serde::de::{
    DeserializeSeed, Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor,
};
use serde_json::value::RawValue;

use super::document::List;
use super::got::{Got, skip_list};
use super::table::{Table, note};
use crate::fault::Fault;

/// Reads a row that is a list. `places` has for each position its column, or none for what the
/// signature does not know; without it columns are in the order of the signature.
pub(super) fn by_position<'de, A: SeqAccess<'de>>(
    table: &mut Table<'_>,
    places: Option<&[Option<usize>]>,
    mut list: A,
) -> Result<(), A::Error> {
    let known = places.map_or(table.columns.len(), <[_]>::len);
    let mut count = 0;
    while count < known {
        let place = places.map_or(Some(count), |places| places[count]);
        let read = match place {
            Some(index) => list.next_element_seed(table.cell(index))?,
            None => list.next_element::<IgnoredAny>()?.map(drop),
        };
        if read.is_none() {
            break;
        }
        count += 1;
    }
    let mut more = 0;
    while list.next_element::<IgnoredAny>()?.is_some() {
        more += 1;
    }
    if count + more != known {
        let row = table.row;
        let fault = Fault::new("wrong_length").row(row);
        let fault = fault.expected(format_args!("{known} values"));
        return table.fault(fault.got(&Got::Items(count + more).to_string()));
    }
    table.end_row()
}

/// `{"columns": [name, …], "data": [[value, …], …]}`; `index` is passed over.
pub(super) struct Split<'t, 'd>(pub(super) &'t mut Table<'d>);

#[derive(Deserialize)]
struct Parts<'a> {
    #[serde(borrow, default)]
    columns: Option<Vec<Cow<'a, str>>>,
    #[serde(borrow)]
    data: &'a RawValue,
}

impl<'de> DeserializeSeed<'de> for Split<'_, '_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        // The names may come after the values.
        let parts = Parts::deserialize(deserializer)?;
        let table = self.0;
        let places = parts.columns.map(|names| {
            let places = names
                .iter()
                .map(|name| table.decoder.by_name.get(&**name).copied());
            let mut places: Vec<_> = places.collect();
            table.refuse_twice(&mut places);
            places
        });
        let rows = Positions {
            table,
            places: places.as_deref(),
        };
        let mut json = serde_json::Deserializer::from_str(parts.data.get());
        rows.deserialize(&mut json).map_err(D::Error::custom)
    }
}

/// A list of rows by position.
struct Positions<'t, 'd> {
    table: &'t mut Table<'d>,
    places: Option<&'t [Option<usize>]>,
}

impl<'de> DeserializeSeed<'de> for Positions<'_, '_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for Positions<'_, '_> {
    type Value = ();

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a list of rows that are lists")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        let Self { table, places } = self;
        while list
            .next_element_seed(Position { table, places })?
            .is_some()
        {
            table.row += 1;
        }
        Ok(())
    }
}

/// A row by position.
struct Position<'t, 'd> {
    table: &'t mut Table<'d>,
    places: Option<&'t [Option<usize>]>,
}

impl<'de> DeserializeSeed<'de> for Position<'_, '_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        self.table.check_room()?;
        deserializer.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for Position<'_, '_> {
    type Value = ();

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a row that is a list")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, list: A) -> Result<(), A::Error> {
        by_position(self.table, self.places, list)
    }
}

/// `{name: [value, …], …}`, a single value standing for a list of one; or a list of rows.
pub(super) struct Columns<'t, 'd>(pub(super) &'t mut Table<'d>);

impl<'de> DeserializeSeed<'de> for Columns<'_, '_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Columns<'_, '_> {
    type Value = ();

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("columns by name, or a list of rows")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, list: A) -> Result<(), A::Error> {
        List(self.0).visit_seq(list)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut object: A) -> Result<(), A::Error> {
        let table = self.0;
        let mut lengths = vec![None; table.columns.len()];
        while let Some(name) = object.next_key::<Cow<'de, str>>()? {
            match table.decoder.by_name.get(&*name).copied() {
                Some(index) if lengths[index].is_none() => {
                    let values = Values { table, index };
                    lengths[index] = Some(object.next_value_seed(values)?);
                }
                Some(_) => {
                    let fault = Fault::new("duplicate_key").column(&name);
                    table.fault::<A::Error>(fault)?;
                    object.next_value::<IgnoredAny>()?;
                }
                None => drop(object.next_value::<IgnoredAny>()?),
            }
        }
        even(table, &lengths)
    }
}

/// All columns have as many values as the first; those that may be null may be missing.
fn even<E: serde::de::Error>(table: &mut Table<'_>, lengths: &[Option<usize>]) -> Result<(), E> {
    let rows = lengths.iter().flatten().next().copied().unwrap_or(0);
    table.row = rows;
    for (index, field) in table.decoder.fields.iter().enumerate() {
        let fault = match lengths[index] {
            Some(length) if length == rows => continue,
            Some(length) => Fault::new("wrong_length")
                .expected(format_args!("{rows} values"))
                .got(&Got::Items(length).to_string()),
            None if field.nullable => {
                (0..rows).for_each(|_| table.columns[index].null());
                continue;
            }
            None => Fault::new("missing_column").expected(&field.data_type),
        };
        note(&mut table.faults, fault.column(&field.name))?;
    }
    Ok(())
}

/// The values of one column; gives how many there are.
struct Values<'t, 'd> {
    table: &'t mut Table<'d>,
    index: usize,
}

/// Visits a value that stands for a list of one.
macro_rules! single_values {
    ($($visit:ident: $type:ty;)+) => {
        $(fn $visit<E: serde::de::Error>(self, value: $type) -> Result<usize, E> {
            self.table.row = 0;
            self.table.cell(self.index).$visit(value).map(|()| 1)
        })+
    };
}

impl<'de> DeserializeSeed<'de> for Values<'_, '_> {
    type Value = usize;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<usize, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Values<'_, '_> {
    type Value = usize;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a list of values")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<usize, A::Error> {
        let Self { table, index } = self;
        table.row = 0;
        loop {
            if table.check_room::<A::Error>().is_err() {
                skip_list(list)?;
                return Ok(table.row);
            }
            if list.next_element_seed(table.cell(index))?.is_none() {
                return Ok(table.row);
            }
            table.row += 1;
        }
    }

    fn visit_unit<E: serde::de::Error>(self) -> Result<usize, E> {
        self.table.row = 0;
        self.table.cell(self.index).visit_unit().map(|()| 1)
    }

    single_values! {
        visit_bool: bool;
        visit_i64: i64;
        visit_u64: u64;
        visit_f64: f64;
        visit_str: &str;
    }
}
