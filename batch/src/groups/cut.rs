//! Cuts sorted rows where their key changes.

use std::ops::Range;

use arrow_array::{ArrayRef, RecordBatch};
use arrow_schema::SchemaRef;
use arrow_select::concat::concat_batches;
use datafusion::arrow::row::{OwnedRow, Row, RowConverter, Rows, SortField};
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::SendableRecordBatchStream;
use futures::StreamExt as _;

/// Gives the rows of one group after the other.
pub(super) struct Cutter {
    rows: Ahead,
    /// Key of the group that was given last.
    last: Option<OwnedRow>,
    /// Bytes of the largest group.
    most_bytes: usize,
}

/// The rows of a group.
#[derive(Debug)]
pub(super) enum Cut {
    /// All of them.
    Whole(RecordBatch),
    /// Some of them: there are too many.
    TooLarge(RecordBatch),
}

impl Cutter {
    /// For rows that are sorted by the columns `key`, missing values first.
    pub(super) fn new(
        input: SendableRecordBatchStream,
        key: Vec<usize>,
        most_bytes: usize,
    ) -> Result<Self> {
        Ok(Self {
            rows: Ahead::new(input, key)?,
            last: None,
            most_bytes,
        })
    }

    /// The next group; none when there are no rows left.
    pub(super) async fn next(&mut self) -> Result<Option<Cut>> {
        let Some(found) = self.rows.look().await? else {
            return Ok(None);
        };
        let key = following(self.last.take(), found.key().owned())?;
        let (mut parts, mut bytes) = (vec![], 0);
        while let Some(found) = self.rows.look().await? {
            let (part, part_bytes) = found.take_while(key.row());
            if part.num_rows() == 0 {
                break;
            }
            bytes += part_bytes;
            if bytes > self.most_bytes {
                return Ok(Some(Cut::TooLarge(part)));
            }
            parts.push(part);
        }
        self.last = Some(key);
        match parts.as_slice() {
            [only] => Ok(Some(Cut::Whole(only.clone()))),
            parts => {
                let whole = concat_batches(&self.rows.schema, parts)?;
                Ok(Some(Cut::Whole(whole)))
            }
        }
    }
}

/// The key, which must come after the one before: no group is there twice.
fn following(before: Option<OwnedRow>, key: OwnedRow) -> Result<OwnedRow> {
    match before {
        Some(before) if before >= key => Err(DataFusionError::Internal(
            "rows did not come in the order of their groups".into(),
        )),
        Some(_) | None => Ok(key),
    }
}

/// Rows that come in batches, looked at before they are taken.
struct Ahead {
    input: SendableRecordBatchStream,
    schema: SchemaRef,
    /// The columns of the key.
    key: Vec<usize>,
    converter: RowConverter,
    found: Option<Found>,
}

impl Ahead {
    fn new(input: SendableRecordBatchStream, key: Vec<usize>) -> Result<Self> {
        let schema = input.schema();
        let types = key.iter().map(|&column| schema.field(column).data_type());
        let sorted = types.map(|data_type| SortField::new(data_type.clone()));
        Ok(Self {
            converter: RowConverter::new(sorted.collect())?,
            input,
            schema,
            key,
            found: None,
        })
    }

    /// The batch that has the next row.
    async fn look(&mut self) -> Result<Option<&mut Found>> {
        while self.found.as_ref().is_none_or(Found::is_used_up) {
            let Some(batch) = self.input.next().await.transpose()? else {
                return Ok(None);
            };
            let columns = self.key.iter().map(|&column| batch.column(column));
            let columns: Vec<ArrayRef> = columns.cloned().collect();
            self.found = Some(Found {
                keys: self.converter.convert_columns(&columns)?,
                batch,
                next: 0,
            });
        }
        Ok(self.found.as_mut())
    }
}

/// A batch, of which some rows were taken already.
struct Found {
    batch: RecordBatch,
    keys: Rows,
    next: usize,
}

impl Found {
    fn is_used_up(&self) -> bool {
        self.next == self.batch.num_rows()
    }

    /// The key of the next row.
    fn key(&self) -> Row<'_> {
        self.keys.row(self.next)
    }

    /// Takes the next rows as long as they have `key`. Says what they take in memory, too.
    fn take_while(&mut self, key: Row<'_>) -> (RecordBatch, usize) {
        let rows = self.with(key);
        self.next = rows.end;
        let all = self.batch.get_array_memory_size() / self.batch.num_rows().max(1);
        let taken = self.batch.slice(rows.start, rows.len());
        (taken, all.max(1) * rows.len())
    }

    fn with(&self, key: Row<'_>) -> Range<usize> {
        let mut rows = self.next..self.batch.num_rows();
        let other = rows.find(|&row| self.keys.row(row) != key);
        self.next..other.unwrap_or(self.batch.num_rows())
    }
}
