//! Comma-separated values. The first line has the names of columns, or, when it has none of them, is a
//! row by position already. An empty field is null where the column may be, and otherwise text.

use ::csv::{ByteRecord, ReaderBuilder};
use envelope_format::DataType;

use super::cell::{Cell, is_float, is_integer};
use super::got::Got;
use super::table::Table;
use super::{Casts, Decoder, Dialect};
use crate::error::Refusal;
use crate::fault::Fault;

/// Faults are told of through the same code that reads JSON.
type Stop = serde_json::Error;

impl Decoder {
    /// Reads a body of `text/csv`.
    pub(crate) fn csv(
        &self,
        body: &[u8],
        dialect: &Dialect,
    ) -> Result<arrow_array::RecordBatch, Refusal> {
        let mut table = Table::new(self, dialect.lenient);
        table.cast(dialect.casts.map(|_| Casts::Fields));
        let mut reader = ReaderBuilder::new()
            .has_headers(false)
            .flexible(true)
            .from_reader(body);
        let (mut record, mut places) = (ByteRecord::new(), None);
        let mut parsed = Ok(());
        while parsed.is_ok() {
            match reader.read_byte_record(&mut record) {
                Ok(false) => break,
                Ok(true) => {}
                Err(error) => return Err(bad(&error.to_string())),
            }
            if places.is_none() {
                let header = header(&mut table, &record);
                let is_header = header.is_some();
                places = Some(header.unwrap_or_else(|| (0..self.fields.len()).map(Some).collect()));
                if is_header {
                    continue;
                }
            }
            parsed = row(&mut table, places.as_deref().unwrap_or_default(), &record);
        }
        self.finish(body, table, parsed)
    }
}

fn bad(reason: &str) -> Refusal {
    Refusal::BadTable {
        what: "CSV",
        reason: reason.to_owned(),
    }
}

/// The column of each place, if the line has names: all that there are, or no others.
fn header(table: &mut Table<'_>, line: &ByteRecord) -> Option<Vec<Option<usize>>> {
    let place = |name: &[u8]| {
        let name = std::str::from_utf8(name).ok()?;
        table.decoder.by_name.get(name).copied()
    };
    let mut places: Vec<_> = line.iter().map(place).collect();
    let known = places.iter().flatten().count();
    if known < places.len() && known < table.decoder.fields.len() {
        return None;
    }
    let unknown = line
        .iter()
        .zip(&places)
        .filter(|(_, place)| place.is_none());
    for (name, _) in unknown.filter(|_| !table.lenient) {
        let name = String::from_utf8_lossy(name);
        table
            .faults
            .push(Fault::new("unknown_column").column(&name));
    }
    table.refuse_twice(&mut places);
    Some(places)
}

fn row(table: &mut Table<'_>, places: &[Option<usize>], line: &ByteRecord) -> Result<(), Stop> {
    table.check_room::<Stop>()?;
    if line.len() != places.len() {
        let fault = Fault::new("wrong_length").row(table.row);
        let fault = fault.expected(format_args!("{} values", places.len()));
        table.fault::<Stop>(fault.got(&line.len().to_string()))?;
    }
    for (place, value) in places.iter().zip(line) {
        if let Some(index) = place {
            cell(table.cell(*index), value)?;
        }
    }
    table.end_row::<Stop>()?;
    table.row += 1;
    Ok(())
}

/// A field is what its column takes it for.
fn cell(cell: Cell<'_>, value: &[u8]) -> Result<(), Stop> {
    let Ok(text) = std::str::from_utf8(value) else {
        return cell.fault("wrong_form", &Got::Text("bytes"), Some("it is not UTF-8"));
    };
    let is_text = matches!(cell.data_type, DataType::Utf8 | DataType::Binary);
    if text.is_empty() && (cell.nullable || !is_text) {
        return cell.take(Got::Null);
    }
    let text = if is_text { text } else { text.trim() };
    let of = cell.data_type;
    let got = if is_integer(of) || is_float(of) || matches!(of, DataType::Duration(_)) {
        number(text)
    } else if *of == DataType::Bool {
        boolean(text).map_or(Got::Text(text), Got::Bool)
    } else if matches!(
        of,
        DataType::List(_) | DataType::FixedList(..) | DataType::Struct(_)
    ) {
        Got::List
    } else {
        Got::Text(text)
    };
    cell.take(got)
}

fn boolean(text: &str) -> Option<bool> {
    match text {
        "true" | "True" | "TRUE" => Some(true),
        "false" | "False" | "FALSE" => Some(false),
        _ => None,
    }
}

fn number(text: &str) -> Got<'_> {
    if let Ok(integer) = text.parse::<i64>() {
        return Got::Integer(integer.into());
    }
    if let Ok(integer) = text.parse::<u64>() {
        return Got::Integer(integer.into());
    }
    match text.parse::<f64>() {
        Ok(float) => Got::Float(float),
        Err(_) => Got::Text(text),
    }
}
