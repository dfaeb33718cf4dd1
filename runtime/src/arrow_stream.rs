//! Streams of Arrow's interprocess format that anybody may have written.

use std::panic::{AssertUnwindSafe, catch_unwind};

use arrow_array::RecordBatch;
use arrow_buffer::Buffer;
use arrow_ipc::reader::StreamDecoder;
use arrow_ipc::root_as_message;
use arrow_schema::ArrowError;
use arrow_select::concat::concat_batches;

/// Reads all rows of a stream, or those up to the batch that makes them more than `most_rows`.
///
/// Takes no more memory than the stream has, whatever lengths it claims, and does not panic. A stream
/// that has no end mark is whole; one that ends within a message is not, and buffers that are compressed
/// are not read.
///
/// # Errors
/// [`ArrowError`] when it is not a stream, ends too soon, or has no schema.
pub fn read_arrow_stream(
    stream: impl Into<Buffer>,
    most_rows: usize,
) -> Result<RecordBatch, ArrowError> {
    let stream = stream.into();
    refuse_compressed(&stream)?;
    // The decoder refuses most of what is damaged, and panics at the rest.
    let read = catch_unwind(AssertUnwindSafe(|| read(stream, most_rows)));
    read.unwrap_or_else(|_| Err(ArrowError::IpcError("it is damaged".into())))
}

/// Buffers that are compressed say how long they are otherwise, and the decoder believes them. Whether
/// it knows how depends on what else is in the program.
fn refuse_compressed(stream: &[u8]) -> Result<(), ArrowError> {
    let mut rest = stream;
    while let Some((message, body)) = message(rest) {
        let message =
            root_as_message(message).map_err(|error| ArrowError::ParseError(error.to_string()))?;
        let dictionary = message.header_as_dictionary_batch();
        let batch = message
            .header_as_record_batch()
            .or_else(|| dictionary.and_then(|dictionary| dictionary.data()));
        if batch.is_some_and(|batch| batch.compression().is_some()) {
            let reason = "its buffers are compressed, which is not read: compress the whole body";
            return Err(ArrowError::NotYetImplemented(reason.into()));
        }
        let length = usize::try_from(message.bodyLength()).ok();
        rest = length
            .and_then(|length| body.get(length..))
            .unwrap_or_default();
    }
    Ok(())
}

/// The description of the next message, and what follows it; `None` at the end, and where the stream
/// ends too soon.
fn message(stream: &[u8]) -> Option<(&[u8], &[u8])> {
    let (mut length, mut rest) = stream.split_first_chunk::<4>()?;
    if *length == [0xff; 4] {
        (length, rest) = rest.split_first_chunk::<4>()?;
    }
    let length = usize::try_from(u32::from_le_bytes(*length)).ok()?;
    rest.split_at_checked(length)
        .filter(|(message, _)| !message.is_empty())
}

fn read(mut stream: Buffer, most_rows: usize) -> Result<RecordBatch, ArrowError> {
    // Not the reader of streams: that takes as much memory as a message says that it needs.
    let mut decoder = StreamDecoder::new();
    let (mut batches, mut rows) = (vec![], 0);
    while rows <= most_rows
        && let Some(batch) = decoder.decode(&mut stream)?
    {
        rows += batch.num_rows();
        batches.push(batch);
    }
    if rows <= most_rows {
        decoder.finish()?;
    }
    let schema = decoder.schema();
    let schema = schema.ok_or_else(|| ArrowError::IpcError("it has no schema".into()))?;
    concat_batches(&schema, &batches)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow_array::{ArrayRef, Int64Array, StringArray};
    use arrow_ipc::writer::StreamWriter;

    use super::*;

    fn stream(batches: usize) -> (RecordBatch, Vec<u8>) {
        let columns: [(&str, ArrayRef); 2] = [
            ("a", Arc::new(Int64Array::from(vec![1, 2, 3]))),
            (
                "b",
                Arc::new(StringArray::from(vec![Some("x"), None, Some("zz")])),
            ),
        ];
        let rows = RecordBatch::try_from_iter(columns).expect("equally long");
        let mut written = vec![];
        let mut writer = StreamWriter::try_new(&mut written, &rows.schema()).expect("a schema");
        for _ in 0..batches {
            writer.write(&rows).expect("memory");
        }
        writer.finish().expect("memory");
        (rows, written)
    }

    #[test]
    fn all_batches_are_one() {
        let (rows, written) = stream(3);
        let read = read_arrow_stream(written, usize::MAX).expect("a stream");
        assert_eq!(read.num_rows(), 9);
        assert_eq!(read.slice(3, 3), rows);
    }

    #[test]
    fn a_stream_may_have_no_rows_or_no_end_mark() {
        let (_, empty) = stream(0);
        let read = read_arrow_stream(empty, 9).expect("a stream");
        assert_eq!(read.num_rows(), 0);
        let (rows, mut unmarked) = stream(1);
        unmarked.truncate(unmarked.len() - 8);
        assert_eq!(read_arrow_stream(unmarked, 9).expect("a stream"), rows);
    }

    #[test]
    fn reading_ends_with_the_batch_that_is_too_much() {
        let (_, written) = stream(100);
        let read = read_arrow_stream(written, 10).expect("a stream");
        assert_eq!(read.num_rows(), 12);
    }

    #[test]
    fn a_stream_that_ends_too_soon_is_refused() {
        let (_, written) = stream(2);
        for length in [0, 3, 9, 100, written.len() - 20] {
            let cut = written[..length].to_vec();
            assert!(read_arrow_stream(cut, 100).is_err(), "{length} bytes");
        }
    }

    /// That nothing is read is not asked here: some bytes are values, and some are nobody's.
    #[test]
    fn no_byte_that_is_changed_does_harm() {
        let (_, written) = stream(1);
        for place in 0..written.len() {
            for change in [0x01, 0x41, 0x80, 0xff] {
                let mut changed = written.clone();
                changed[place] ^= change;
                let _ = read_arrow_stream(changed, 100);
            }
        }
    }
}
