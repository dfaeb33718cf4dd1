//! This service's own protocol: strict, and with every form of rows.

use arrow_array::RecordBatch;
use arrow_ipc::writer::StreamWriter;
use parquet::arrow::ArrowWriter;

use crate::error::Refusal;
use crate::media::{Media, Said};

const KNOWN: &str = "application/json, application/jsonlines, text/csv, \
     application/vnd.apache.arrow.stream, application/vnd.apache.parquet";

/// What is not said is not guessed.
pub(super) fn media(said: &Said) -> Result<Media, Refusal> {
    match said {
        Said::Known(Media::Tensors) | Said::Nothing | Said::Unknown => {
            Err(Refusal::MediaType { known: KNOWN })
        }
        Said::Known(media) => Ok(*media),
    }
}

/// The only form in which nothing is lost: `NaN` and null stay two things.
pub(super) fn arrow_stream(rows: &RecordBatch) -> Result<Vec<u8>, Refusal> {
    let mut body = vec![];
    let written = StreamWriter::try_new(&mut body, &rows.schema()).and_then(|mut writer| {
        writer.write(rows)?;
        writer.finish()
    });
    written.map_err(|error| unwritable(&error))?;
    Ok(body)
}

pub(super) fn parquet(rows: &RecordBatch) -> Result<Vec<u8>, Refusal> {
    let mut body = vec![];
    let written = ArrowWriter::try_new(&mut body, rows.schema(), None).and_then(|mut writer| {
        writer.write(rows)?;
        writer.close()
    });
    written.map_err(|error| unwritable(&error))?;
    Ok(body)
}

fn unwritable(error: &dyn std::error::Error) -> Refusal {
    Refusal::Unwritable {
        reason: error.to_string(),
    }
}
