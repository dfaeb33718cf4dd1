//! Whole tiles: calls are filled up to a multiple of so many rows, in the same way everywhere.

use arrow_array::{RecordBatch, UInt64Array};
use arrow_schema::ArrowError;
use arrow_select::take::take_record_batch;

/// Rows that a call needs so that it consists of whole tiles.
#[must_use]
pub fn whole_tiles(rows: usize, tile: Option<u32>) -> usize {
    rows.next_multiple_of(tile_rows(tile))
}

/// Rows of one tile; 1 where none is needed.
#[must_use]
pub fn tile_rows(tile: Option<u32>) -> usize {
    tile.map_or(1, |rows| rows.max(1) as usize)
}

/// Fills the last tile with copies of the last row.
///
/// # Errors
/// Rows of a type that Arrow cannot pick from.
pub fn padded(rows: RecordBatch, tile: Option<u32>) -> Result<RecordBatch, ArrowError> {
    let count = rows.num_rows();
    let wanted = whole_tiles(count, tile);
    if wanted == count {
        return Ok(rows);
    }
    let last = count.saturating_sub(1);
    let indices: UInt64Array = (0..wanted).map(|row| Some(row.min(last) as u64)).collect();
    take_record_batch(&rows, &indices)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow_array::{ArrayRef, Int64Array};

    use super::*;

    #[test]
    fn the_last_row_fills_the_last_tile() {
        let column = |values: Vec<i64>| {
            let column = Arc::new(Int64Array::from(values)) as ArrayRef;
            RecordBatch::try_from_iter([("x", column)]).unwrap()
        };
        let rows = column(vec![1, 2, 3]);
        assert_eq!(padded(rows.clone(), None).unwrap(), rows);
        assert_eq!(
            padded(rows.clone(), Some(2)).unwrap(),
            column(vec![1, 2, 3, 3])
        );
        assert_eq!(padded(rows.slice(0, 2), Some(2)).unwrap(), rows.slice(0, 2));
        assert_eq!(padded(rows.slice(0, 0), Some(8)).unwrap(), rows.slice(0, 0));
    }
}
