//! Body → rows, by schema: JSON is parsed once, straight into Arrow columns.
//!
//! Nothing is coerced. Faults are collected as long as the text is JSON, so that a caller sees
//! more than the first one. What a document looks like is the protocol's [`Dialect`]; other media are
//! in files of their own.

use std::collections::HashMap;
use std::fmt;

use arrow_array::{RecordBatch, RecordBatchOptions};
use arrow_schema::SchemaRef;
use envelope_format::{DataType, Field, Rows};
use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

use crate::column::{Column, Misfit, Place, column};
use crate::error::Refusal;
use crate::fault::{Fault, Faults};

mod columns;
mod csv;
mod lines;
pub(crate) mod literals;
mod table;

/// How clients of a protocol lay rows out in JSON.
#[derive(Debug)]
pub(crate) struct Dialect {
    /// The keys that rows may be under; exactly one of them is there.
    pub(crate) keys: &'static [(&'static str, Layout)],
    /// Whether clients send more, and less, than the signature says: other keys and columns are
    /// passed over, a row may be a list, a column that may be null may be missing, floats may be `NaN`
    /// and infinite, and `1.0` is an integer.
    pub(crate) lenient: bool,
}

/// How rows lie under a key.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Layout {
    /// `[row, …]`.
    Rows,
    /// `{"columns": [name, …], "data": [[value, …], …]}`.
    Split,
    /// `{name: [value, …], …}`, or rows.
    Columns,
}

/// The dialect of this service.
pub(crate) const NATIVE: Dialect = Dialect {
    keys: &[("data", Layout::Rows)],
    lenient: false,
};

/// What the function takes, prepared for reading.
#[derive(Debug)]
pub(crate) struct Decoder {
    schema: SchemaRef,
    fields: Vec<Field>,
    by_name: HashMap<String, usize>,
    /// A row may be one plain value.
    plain: bool,
    max_rows: usize,
}

impl Decoder {
    pub(crate) fn new(rows: &Rows, max_rows: usize) -> Self {
        let by_name = rows
            .fields
            .iter()
            .enumerate()
            .map(|(index, field)| (field.name.clone(), index))
            .collect();
        Self {
            schema: runtime::arrow_schema(rows),
            fields: rows.fields.clone(),
            by_name,
            plain: rows.shape.is_one_column(),
            max_rows,
        }
    }

    /// Reads an object that has rows under a key, such as `{"data": [row, ...]}`.
    pub(crate) fn document(&self, body: &[u8], dialect: &Dialect) -> Result<RecordBatch, Refusal> {
        if dialect.lenient {
            literals::tolerant(body, |body| self.document_once(body, dialect))
        } else {
            self.document_once(body, dialect)
        }
    }

    fn document_once(&self, body: &[u8], dialect: &Dialect) -> Result<RecordBatch, Refusal> {
        let mut table = Table::new(self, dialect.lenient);
        let mut json = serde_json::Deserializer::from_slice(body);
        let parsed = Document {
            table: &mut table,
            dialect,
        }
        .deserialize(&mut json);
        self.finish(body, table, parsed.and_then(|()| json.end()))
    }

    /// Reads `[row, ...]`.
    pub(crate) fn list(&self, body: &[u8]) -> Result<RecordBatch, Refusal> {
        let mut table = Table::new(self, false);
        let mut json = serde_json::Deserializer::from_slice(body);
        let parsed = List(&mut table).deserialize(&mut json);
        self.finish(body, table, parsed.and_then(|()| json.end()))
    }

    fn finish(
        &self,
        body: &[u8],
        table: Table<'_>,
        parsed: serde_json::Result<()>,
    ) -> Result<RecordBatch, Refusal> {
        match parsed {
            _ if table.too_long => Err(Refusal::TooManyRows {
                limit: self.max_rows,
            }),
            Err(error) if !table.faults.is_full() => Err(bad_json(&error, body)),
            _ if !table.faults.is_empty() => Err(Refusal::BadRows(table.faults)),
            _ => table.finish(),
        }
    }
}

/// Where in the body the JSON ends to be JSON, and what the usual cause is.
pub(crate) fn bad_json(error: &serde_json::Error, body: &[u8]) -> Refusal {
    let (line, column) = (error.line(), error.column());
    let before: usize = body
        .split_inclusive(|byte| *byte == b'\n')
        .take(line.saturating_sub(1))
        .map(<[u8]>::len)
        .sum();
    let offset = (before + column.saturating_sub(1)).min(body.len());
    let text = error.to_string();
    let reason = text
        .rsplit_once(" at line ")
        .map_or(text.as_str(), |(reason, _)| reason)
        .to_owned();
    Refusal::BadJson {
        reason,
        line,
        column,
        offset,
        hint: hint(&body[offset..], body),
    }
}

fn hint(rest: &[u8], body: &[u8]) -> Option<&'static str> {
    let starts = |words: &[&str]| words.iter().any(|word| rest.starts_with(word.as_bytes()));
    if starts(&["NaN", "Infinity", "-Infinity", "Inf", "nan", "inf"])
        || rest.starts_with(b"Infinity")
    {
        Some("JSON has no NaN: send null")
    } else if body.starts_with(b"\xEF\xBB\xBF") {
        Some("send UTF-8 without a byte order mark")
    } else if starts(&["'"]) {
        Some("strings in JSON have double quotes")
    } else {
        None
    }
}

/// The columns while they are being filled.
struct Table<'d> {
    decoder: &'d Decoder,
    columns: Vec<Box<dyn Column>>,
    /// For each column the number of the last row that had it, counted from 1.
    seen: Vec<usize>,
    row: usize,
    faults: Faults,
    too_long: bool,
    lenient: bool,
}

impl<'d> Table<'d> {
    fn new(decoder: &'d Decoder, lenient: bool) -> Self {
        Self {
            decoder,
            lenient,
            columns: decoder.fields.iter().map(column).collect(),
            seen: vec![0; decoder.fields.len()],
            row: 0,
            faults: Faults::default(),
            too_long: false,
        }
    }

    fn finish(mut self) -> Result<RecordBatch, Refusal> {
        let columns = self
            .columns
            .iter_mut()
            .map(|column| column.finish())
            .collect();
        let options = RecordBatchOptions::new().with_row_count(Some(self.row));
        RecordBatch::try_new_with_options(self.decoder.schema.clone(), columns, &options).map_err(
            |error| {
                tracing::error!(%error, "columns without faults do not make rows");
                Refusal::Internal
            },
        )
    }

    /// Notes a fault; fails when there are enough of them.
    fn fault<E: serde::de::Error>(&mut self, fault: Fault) -> Result<(), E> {
        note(&mut self.faults, fault)
    }

    /// Before a row is read: its columns must not grow past the limit.
    fn check_room<E: serde::de::Error>(&mut self) -> Result<(), E> {
        if self.row < self.decoder.max_rows {
            return Ok(());
        }
        self.too_long = true;
        Err(E::custom("too many rows"))
    }

    /// A column that is named twice is a fault, and only its first place is read.
    fn refuse_twice(&mut self, places: &mut [Option<usize>]) {
        let mut named = vec![false; self.columns.len()];
        for place in places {
            let Some(index) = *place else { continue };
            if std::mem::replace(&mut named[index], true) {
                let name = &self.decoder.fields[index].name;
                self.faults.push(Fault::new("duplicate_key").column(name));
                *place = None;
            }
        }
    }

    fn cell(&mut self, index: usize) -> Cell<'_> {
        self.seen[index] = self.row + 1;
        let field = &self.decoder.fields[index];
        Cell {
            nullable: field.nullable || field.data_type == DataType::Null,
            column: &mut *self.columns[index],
            data_type: &field.data_type,
            path: Path::Column(&field.name),
            row: self.row,
            lenient: self.lenient,
            faults: &mut self.faults,
        }
    }

    /// Ends a row that had names, or positions.
    fn end_row<E: serde::de::Error>(&mut self) -> Result<(), E> {
        for (index, field) in self.decoder.fields.iter().enumerate() {
            if self.seen[index] == self.row + 1 {
                continue;
            }
            if self.lenient && field.nullable {
                self.columns[index].null();
            } else {
                let fault = Fault::new("missing_column")
                    .row(self.row)
                    .column(&field.name)
                    .expected(&field.data_type);
                note(&mut self.faults, fault)?;
            }
        }
        Ok(())
    }
}

fn note<E: serde::de::Error>(faults: &mut Faults, fault: Fault) -> Result<(), E> {
    faults.push(fault);
    if faults.is_full() {
        Err(E::custom("too many faults"))
    } else {
        Ok(())
    }
}

/// Reads a value that is not expected where it is to its end.
fn skip_list<'de, A: SeqAccess<'de>>(mut list: A) -> Result<(), A::Error> {
    while list.next_element::<IgnoredAny>()?.is_some() {}
    Ok(())
}

fn skip_object<'de, A: MapAccess<'de>>(mut object: A) -> Result<(), A::Error> {
    while object.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
    Ok(())
}

/// A value of any kind, as it is shown to the caller.
#[derive(Clone, Copy)]
enum Got<'v> {
    Null,
    Bool(bool),
    Integer(i128),
    Float(f64),
    Text(&'v str),
    List,
    Items(usize),
    Object,
}

impl fmt::Display for Got<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Null => formatter.write_str("null"),
            Self::Bool(value) => value.fmt(formatter),
            Self::Integer(value) => value.fmt(formatter),
            Self::Float(value) => write!(formatter, "{value:?}"),
            Self::Text(value) => write!(formatter, "{:?}", crate::error::cut(value, 64)),
            Self::List => formatter.write_str("a list"),
            Self::Items(count) => write!(formatter, "a list of {count}"),
            Self::Object => formatter.write_str("an object"),
        }
    }
}

/// Visits the values that are plain in one way: by making a [`Got`] of them.
macro_rules! plain_values {
    ($($visit:ident: $type:ty => $got:expr;)+) => {
        $(fn $visit<E: serde::de::Error>(self, value: $type) -> Result<(), E> {
            self.take($got(value))
        })+

        fn visit_unit<E: serde::de::Error>(self) -> Result<(), E> {
            self.take(Got::Null)
        }
    };
}

/// The whole body.
struct Document<'t, 'd> {
    table: &'t mut Table<'d>,
    dialect: &'t Dialect,
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
        while let Some(key) = object.next_key::<std::borrow::Cow<'de, str>>()? {
            let known = self.dialect.keys.iter().find(|(known, _)| *known == key);
            match known {
                Some((_, layout)) if !found => {
                    found = true;
                    let table = &mut *self.table;
                    match layout {
                        Layout::Rows => object.next_value_seed(List(table))?,
                        Layout::Split => object.next_value_seed(columns::Split(table))?,
                        Layout::Columns => object.next_value_seed(columns::Columns(table))?,
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

    plain_values! {
        visit_bool: bool => Got::Bool;
        visit_i64: i64 => |value| Got::Integer(i128::from(value));
        visit_u64: u64 => |value| Got::Integer(i128::from(value));
        visit_f64: f64 => Got::Float;
        visit_str: &str => Got::Text;
    }
}

/// The list of rows.
struct List<'t, 'd>(&'t mut Table<'d>);

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

    plain_values! {
        visit_bool: bool => Got::Bool;
        visit_i64: i64 => |value| Got::Integer(i128::from(value));
        visit_u64: u64 => |value| Got::Integer(i128::from(value));
        visit_f64: f64 => Got::Float;
        visit_str: &str => Got::Text;
    }
}

/// One row: an object, or a plain value where the function takes one column.
struct Row<'t, 'd>(&'t mut Table<'d>);

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
            return columns::by_position(self.0, None, list);
        }
        self.take::<A::Error>(Got::List)?;
        skip_list(list)
    }

    plain_values! {
        visit_bool: bool => Got::Bool;
        visit_i64: i64 => |value| Got::Integer(i128::from(value));
        visit_u64: u64 => |value| Got::Integer(i128::from(value));
        visit_f64: f64 => Got::Float;
        visit_str: &str => Got::Text;
    }
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

/// Where a value is, as it is told to the caller: `image[0][3]`, `user.age`.
#[derive(Clone, Copy)]
enum Path<'p> {
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

fn is_float(data_type: &DataType) -> bool {
    matches!(
        data_type,
        DataType::Float16 | DataType::Float32 | DataType::Float64
    )
}

fn is_integer(data_type: &DataType) -> bool {
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
struct Cell<'a> {
    column: &'a mut dyn Column,
    data_type: &'a DataType,
    path: Path<'a>,
    nullable: bool,
    row: usize,
    lenient: bool,
    faults: &'a mut Faults,
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

    fn take<E: serde::de::Error>(self, got: Got<'_>) -> Result<(), E> {
        let taken = match got {
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
            Got::Float(value) if self.lenient && is_integer(self.data_type) => match whole(value) {
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

    fn fault<E: serde::de::Error>(
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
        while let Some(key) = object.next_key::<std::borrow::Cow<'de, str>>()? {
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

    plain_values! {
        visit_bool: bool => Got::Bool;
        visit_i64: i64 => |value| Got::Integer(i128::from(value));
        visit_u64: u64 => |value| Got::Integer(i128::from(value));
        visit_f64: f64 => Got::Float;
        visit_str: &str => Got::Text;
    }
}

#[cfg(test)]
mod tests;
