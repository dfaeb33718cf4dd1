//! The columns of a call while they are being filled, and what is wrong with them.

use arrow_array::{RecordBatch, RecordBatchOptions};
use envelope_format::DataType;

use super::cell::{Cell, Path};
use super::{Casts, Decoder};
use crate::column::{Column, column};
use crate::error::Refusal;
use crate::fault::{Fault, Faults};

/// The columns while they are being filled.
pub(super) struct Table<'d> {
    pub(super) decoder: &'d Decoder,
    pub(super) columns: Vec<Box<dyn Column>>,
    /// For each column the number of the last row that had it, counted from 1.
    pub(super) seen: Vec<usize>,
    pub(super) row: usize,
    pub(super) faults: Faults,
    pub(super) too_long: bool,
    pub(super) lenient: bool,
}

impl<'d> Table<'d> {
    pub(super) fn new(decoder: &'d Decoder, lenient: bool) -> Self {
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

    /// Before the first row: has values of other types changed.
    pub(super) fn cast(&mut self, casts: Option<Casts>) {
        if let Some(casts) = casts {
            let fields = self.decoder.fields.iter();
            self.columns = fields.map(|field| casts.column(field)).collect();
        }
    }

    pub(super) fn finish(mut self) -> Result<RecordBatch, Refusal> {
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
    pub(super) fn fault<E: serde::de::Error>(&mut self, fault: Fault) -> Result<(), E> {
        note(&mut self.faults, fault)
    }

    /// Before a row is read: its columns must not grow past the limit.
    pub(super) fn check_room<E: serde::de::Error>(&mut self) -> Result<(), E> {
        if self.row < self.decoder.max_rows {
            return Ok(());
        }
        self.too_long = true;
        Err(E::custom("too many rows"))
    }

    /// A column that is named twice is a fault, and only its first place is read.
    pub(super) fn refuse_twice(&mut self, places: &mut [Option<usize>]) {
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

    pub(super) fn cell(&mut self, index: usize) -> Cell<'_> {
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
    pub(super) fn end_row<E: serde::de::Error>(&mut self) -> Result<(), E> {
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

pub(super) fn note<E: serde::de::Error>(faults: &mut Faults, fault: Fault) -> Result<(), E> {
    faults.push(fault);
    if faults.is_full() {
        Err(E::custom("too many faults"))
    } else {
        Ok(())
    }
}
