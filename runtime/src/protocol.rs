//! What host and worker say to each other over their socket. Compiled into both.
//!
//! A message is a fixed prefix (magic, length of the header, length of the body; little endian),
//! a JSON header, and a body: an Arrow IPC stream, or a pickle. The host asks, the worker answers
//! each request once, in order; the end of the stream is the end of the worker.

use std::io;

use arrow_array::RecordBatch;
use arrow_ipc::reader::StreamReader;
use arrow_ipc::writer::StreamWriter;
use arrow_schema::ArrowError;
use envelope_format::Rows;
use serde::{Deserialize, Serialize};

/// Length of the prefix in bytes.
pub(crate) const PREFIX_BYTES: usize = 16;

/// First bytes of every message: a stray write to the socket is noticed at once.
const MAGIC: [u8; 4] = *b"MEw1";

/// Largest header, in bytes: a signature of the most columns fits.
const MAX_HEADER_BYTES: usize = 64 << 20;

/// Largest body, in bytes: 16 GiB, more than a worker should ever be sent at once.
const MAX_BODY_BYTES: u64 = 16 << 30;

/// What the host asks.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "ask", rename_all = "snake_case")]
pub(crate) enum Request {
    /// Load the functions. The body holds the pickle of all of them.
    Load {
        /// Folder to import custom modules from.
        modules: Option<String>,
        /// File that the buffers are mapped from.
        file: String,
        /// Offset and length, in the file, of each out-of-band buffer of the pickle.
        buffers: Vec<(u64, u64)>,
        /// The functions.
        functions: Vec<FunctionToLoad>,
    },
    /// Call a function. The body holds the rows.
    Call {
        /// Identifies the call; the answer repeats it.
        id: u64,
        /// Which function.
        function: String,
        /// Call it once for each row instead of once for all.
        each_row: bool,
    },
}

/// One function of [`Request::Load`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct FunctionToLoad {
    pub(crate) name: String,
    pub(crate) input: Rows,
    pub(crate) output: Rows,
}

/// What the worker answers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "answer", rename_all = "snake_case")]
pub(crate) enum Answer {
    /// The functions are loaded.
    Ready {
        /// Version of the interpreter.
        python: String,
    },
    /// They are not. The worker ends.
    NotLoaded {
        /// Why.
        exception: Exception,
    },
    /// The function gave rows: the body.
    Rows {
        /// The call.
        id: u64,
    },
    /// There are no rows.
    Failed {
        /// The call.
        id: u64,
        /// Whose fault it is.
        fault: Fault,
        /// What was raised.
        exception: Exception,
    },
}

/// Whose fault a failed call is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Fault {
    /// The function raised.
    Function,
    /// The rows cannot be turned into what the function takes.
    Input,
    /// What the function gave is not what its signature says.
    Output,
}

/// A Python exception as text.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Exception {
    pub(crate) kind: String,
    pub(crate) message: String,
    pub(crate) traceback: String,
}

/// The prefix and header of a message whose body has `body_bytes` bytes.
pub(crate) fn head(header: &impl Serialize, body_bytes: usize) -> io::Result<Vec<u8>> {
    let header = serde_json::to_vec(header)?;
    let mut out = Vec::with_capacity(PREFIX_BYTES + header.len());
    out.extend_from_slice(&MAGIC);
    out.extend_from_slice(
        &u32::try_from(header.len())
            .map_err(io::Error::other)?
            .to_le_bytes(),
    );
    out.extend_from_slice(&(body_bytes as u64).to_le_bytes());
    out.extend_from_slice(&header);
    Ok(out)
}

/// The lengths of header and body that a prefix announces, in bytes.
pub(crate) fn lengths(prefix: &[u8; PREFIX_BYTES]) -> io::Result<(usize, usize)> {
    let garbled = |what: &str| {
        io::Error::new(
            io::ErrorKind::InvalidData,
            format!("a message with a wrong {what}"),
        )
    };
    if prefix[..4] != MAGIC {
        return Err(garbled("beginning"));
    }
    let [_, _, _, _, a, b, c, d, body @ ..] = *prefix;
    let header = u32::from_le_bytes([a, b, c, d]) as usize;
    let body = u64::from_le_bytes(body);
    if header > MAX_HEADER_BYTES || body > MAX_BODY_BYTES {
        return Err(garbled("length"));
    }
    Ok((header, usize::try_from(body).map_err(io::Error::other)?))
}

/// Writes rows as an Arrow IPC stream.
pub(crate) fn write_rows(rows: &RecordBatch, out: &mut Vec<u8>) -> Result<(), ArrowError> {
    out.reserve(rows.get_array_memory_size() + 1024);
    let mut writer = StreamWriter::try_new(out, rows.schema_ref())?;
    writer.write(rows)?;
    writer.finish()
}

/// Reads an Arrow IPC stream of one batch.
pub(crate) fn read_rows(bytes: &[u8]) -> Result<RecordBatch, ArrowError> {
    let mut reader = StreamReader::try_new(bytes, None)?;
    reader
        .next()
        .unwrap_or_else(|| Err(ArrowError::IpcError("a stream without a batch".into())))
}
