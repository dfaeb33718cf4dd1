//! What host and worker say to each other over their socket. Compiled into both.
//!
//! A message is a fixed prefix (see [`Prefix`]), a JSON header, and a body: rows, or a pickle. Small
//! bodies follow the header; large ones lie in the worker's arena, a file in memory that both have
//! open. The host asks, the worker answers each request once, in order; the end of the stream is the
//! end of the worker.
//!
//! Code that runs in a worker can get at its descriptors: it may close them, write to them, or have
//! a number of theirs open something else. So every message is sealed with a key that is in the
//! memory of the two ends only: whatever else arrives, late, forged or left over, is not taken for an
//! answer.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use arrow_array::RecordBatch;
use arrow_buffer::Buffer;
use arrow_ipc::reader::StreamDecoder;
use arrow_ipc::writer::{StreamEncoder, StreamWriter};
use arrow_schema::{ArrowError, SchemaRef};
use envelope_format::Rows;
use rustix::buffer::spare_capacity;
use rustix::io::Errno;
use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::Xxh3;

/// Length of the prefix in bytes.
pub(crate) const PREFIX_BYTES: usize = 32;

/// First bytes of every message: a stray write to the socket is noticed at once.
const MAGIC: [u8; 4] = *b"MEw2";

/// Largest header, in bytes: a signature of the most columns fits.
const MAX_HEADER_BYTES: usize = 64 << 20;

/// Largest body, in bytes: 16 GiB, more than a worker should ever be sent at once.
const MAX_BODY_BYTES: u64 = 16 << 30;

/// Bodies up to this, in bytes, follow their header: through a socket small ones are as quick as
/// through memory.
pub(crate) const INLINE_BYTES: usize = 32 << 10;

/// Memory that is kept for the next body, in bytes, in the arena and at both ends: getting it anew
/// takes as long as the copy.
pub(crate) const KEPT_BYTES: usize = 128 << 20;

/// Copied and sealed at a time, in bytes: it stays in the processor's cache in between.
const CHUNK_BYTES: usize = 128 << 10;

/// What the worker core is told instead of how well it is confined, when it runs in the host's process.
pub(crate) const IN_PROCESS: &str = "in-process";

/// What the host asks.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "ask", rename_all = "snake_case")]
pub(crate) enum Request {
    /// Become another process, which serves the socket that comes with this message and writes what
    /// it prints to the pipe that comes too; the third descriptor is its arena.
    Fork {
        /// The keys of that process.
        keys: Keys,
    },
    /// End a process that was forked, and everything it started, unless it ends itself in time.
    End {
        /// The process.
        pid: i32,
        /// How long to wait for it to end by itself, in milliseconds.
        patience_ms: u32,
    },
    /// Import modules, for the processes that will be forked.
    Import {
        /// Folder to import custom modules from.
        folder: Option<String>,
        /// Their names.
        modules: Vec<String>,
    },
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
        /// Note what they open, import and warn of.
        observe: bool,
    },
    /// Tell what was noted.
    Observed,
    /// Tell which modules were imported since the functions were loaded.
    Modules,
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
    Ready(Loading),
    /// The modules are imported, as far as they can be.
    Imported,
    /// There is another process.
    Forked {
        /// Its number.
        pid: i32,
    },
    /// There is none: the operating system has refused.
    NotForked {
        /// Why.
        reason: String,
    },
    /// The process has ended.
    Ended {
        /// How.
        ending: Ending,
    },
    /// They are not. The worker ends.
    NotLoaded {
        /// Why.
        exception: Exception,
    },
    /// What was imported since the functions were loaded.
    Modules {
        /// Their names.
        modules: Vec<String>,
    },
    /// What was noted since the functions were loaded, and while they were.
    Observed {
        /// See `observe.py`.
        seen: serde_json::Value,
    },
    /// The function gave rows: the body.
    Rows {
        /// The call.
        id: u64,
        /// Memory that the worker has got since its first call, in KiB; told now and then.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        grown_kib: Option<u64>,
        /// What the call took here, in nanoseconds.
        inside_ns: u64,
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

/// What loading the functions has done to the process.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Loading {
    /// Version of the interpreter.
    pub(crate) python: String,
    /// Modules that were imported for it.
    pub(crate) modules: Vec<String>,
    /// Threads that were started by what is no import. Who has such threads must not fork.
    pub(crate) threads: usize,
}

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Ending {
    /// With this status.
    Exited(i32),
    /// By this signal.
    Signalled(i32),
    /// It did not end by itself, and was killed.
    Killed,
    /// Nothing is known: it was not ours.
    Unknown,
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

/// The keys of the two directions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Keys {
    pub(crate) to_worker: u64,
    pub(crate) to_host: u64,
}

impl Keys {
    pub(crate) const BYTES: usize = 16;

    pub(crate) fn from_bytes(bytes: [u8; Self::BYTES]) -> Self {
        let (one, other) = bytes.split_at(8);
        let number = |half: &[u8]| half.iter().fold(0, |sum, byte| sum << 8 | u64::from(*byte));
        Self {
            to_worker: number(one),
            to_host: number(other),
        }
    }
}

/// Where a body is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    /// Behind the header.
    Inline,
    /// At the beginning of the arena.
    Arena,
}

/// The beginning of a message: magic, length of the header, length of the body and where it is, seal.
/// Little endian.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Prefix {
    pub(crate) header_bytes: usize,
    pub(crate) body_bytes: usize,
    pub(crate) place: Place,
    /// Whether the body begins with a schema.
    pub(crate) fresh: bool,
    seal: u64,
}

impl Prefix {
    fn to_bytes(self) -> [u8; PREFIX_BYTES] {
        let mut out = [0; PREFIX_BYTES];
        out[..4].copy_from_slice(&MAGIC);
        out[4] = u8::from(self.place == Place::Arena);
        out[5] = u8::from(self.fresh);
        out[8..16].copy_from_slice(&(self.header_bytes as u64).to_le_bytes());
        out[16..24].copy_from_slice(&(self.body_bytes as u64).to_le_bytes());
        out[24..].copy_from_slice(&self.seal.to_le_bytes());
        out
    }

    pub(crate) fn parse(bytes: &[u8; PREFIX_BYTES]) -> io::Result<Self> {
        if bytes[..4] != MAGIC {
            return Err(garbled("beginning"));
        }
        let number = |at: usize| {
            let eight = bytes[at..at + 8].iter().rev();
            eight.fold(0, |sum, byte| sum << 8 | u64::from(*byte))
        };
        let (header, body) = (number(8), number(16));
        if header > MAX_HEADER_BYTES as u64 || body > MAX_BODY_BYTES {
            return Err(garbled("length"));
        }
        let prefix = Self {
            header_bytes: usize::try_from(header).map_err(io::Error::other)?,
            body_bytes: usize::try_from(body).map_err(io::Error::other)?,
            place: if bytes[4] == 0 {
                Place::Inline
            } else {
                Place::Arena
            },
            fresh: bytes[5] != 0,
            seal: number(24),
        };
        // What has no meaning says nothing.
        if prefix.to_bytes() != *bytes {
            return Err(garbled("beginning"));
        }
        Ok(prefix)
    }

    /// A hash of all that comes before the body.
    fn hash(&self, key: u64, header: &[u8]) -> Xxh3 {
        let unsealed = Self { seal: 0, ..*self };
        let mut hash = Xxh3::with_seed(key);
        hash.update(&unsealed.to_bytes());
        hash.update(header);
        hash
    }

    fn check(&self, hash: &Xxh3) -> io::Result<()> {
        if self.seal == hash.digest() {
            return Ok(());
        }
        Err(garbled("seal"))
    }

    /// The body that follows the header; fails when the message is not what the other end has sent.
    pub(crate) fn inline(&self, key: u64, header: &[u8], body: &[u8]) -> io::Result<Buffer> {
        let mut hash = self.hash(key, header);
        hash.update(body);
        self.check(&hash)?;
        Ok(Buffer::from(body))
    }

    /// The body at the beginning of the arena, read into `memory` if nobody else has that; fails when
    /// it is not what the other end has put there.
    pub(crate) fn read_arena(
        &self,
        key: u64,
        header: &[u8],
        arena: impl AsFd,
        memory: Option<Buffer>,
    ) -> io::Result<Buffer> {
        let bytes = self.body_bytes;
        let known = memory.and_then(|buffer| buffer.into_vec::<u8>().ok());
        let fits = |memory: &Vec<u8>| memory.capacity() >= bytes && memory.capacity() / 4 <= bytes;
        let mut hash = self.hash(key, header);
        let memory = match known.filter(fits) {
            Some(mut memory) => {
                memory.resize(bytes, 0);
                let mut offset = 0;
                for chunk in memory.chunks_mut(CHUNK_BYTES) {
                    read_at(&arena, chunk, offset)?;
                    hash.update(chunk);
                    offset += chunk.len() as u64;
                }
                memory
            }
            None => {
                let memory = read_new(&arena, bytes)?;
                hash.update(&memory);
                memory
            }
        };
        self.check(&hash)?;
        if bytes > KEPT_BYTES {
            // Nobody maps it. Where it fails, it is only larger than it has to be.
            let _ = rustix::fs::ftruncate(arena, 0);
        }
        Ok(memory.into())
    }
}

fn garbled(what: &str) -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidData,
        format!("a message with a wrong {what}"),
    )
}

/// A body in pieces that lie where they are.
#[derive(Debug, Default)]
pub(crate) struct Body {
    pieces: Vec<Buffer>,
    fresh: bool,
}

impl Body {
    pub(crate) fn len(&self) -> usize {
        self.pieces.iter().map(Buffer::len).sum()
    }

    fn slices(&self) -> impl Iterator<Item = &[u8]> {
        self.pieces.iter().map(Buffer::as_slice)
    }
}

fn write_at(file: impl AsFd, mut bytes: &[u8], mut offset: u64) -> io::Result<()> {
    while !bytes.is_empty() {
        match rustix::io::pwrite(&file, bytes, offset) {
            Ok(written) => {
                bytes = &bytes[written..];
                offset += written as u64;
            }
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

fn read_at(file: impl AsFd, bytes: &mut [u8], offset: u64) -> io::Result<()> {
    let mut done = 0;
    while done < bytes.len() {
        match rustix::io::pread(&file, &mut bytes[done..], offset + done as u64) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(read) => done += read,
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// Reads into new memory, which is not written to before.
fn read_new(file: impl AsFd, bytes: usize) -> io::Result<Vec<u8>> {
    let mut memory = Vec::with_capacity(bytes);
    while memory.len() < bytes {
        let offset = memory.len() as u64;
        match rustix::io::pread(&file, spare_capacity(&mut memory), offset) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    memory.truncate(bytes);
    Ok(memory)
}

impl From<Vec<u8>> for Body {
    fn from(bytes: Vec<u8>) -> Self {
        Self {
            pieces: vec![Buffer::from(bytes)],
            fresh: false,
        }
    }
}

/// All of a message but a body that belongs in the arena, which is put there.
pub(crate) fn message(
    key: u64,
    header: &impl Serialize,
    body: &Body,
    arena: Option<&OwnedFd>,
) -> io::Result<Vec<u8>> {
    let header = serde_json::to_vec(header)?;
    let arena = arena.filter(|_| body.len() > INLINE_BYTES);
    let mut prefix = Prefix {
        header_bytes: header.len(),
        body_bytes: body.len(),
        place: if arena.is_some() {
            Place::Arena
        } else {
            Place::Inline
        },
        fresh: body.fresh,
        seal: 0,
    };
    let inline = if arena.is_some() { 0 } else { body.len() };
    let mut out = vec![0; PREFIX_BYTES];
    out.reserve_exact(header.len() + inline);
    out.extend_from_slice(&header);
    let mut hash = prefix.hash(key, &header);
    let mut offset = 0;
    for chunk in body.slices().flat_map(|slice| slice.chunks(CHUNK_BYTES)) {
        hash.update(chunk);
        match arena {
            Some(arena) => write_at(arena, chunk, offset)?,
            None => out.extend_from_slice(chunk),
        }
        offset += chunk.len() as u64;
    }
    prefix.seal = hash.digest();
    out[..PREFIX_BYTES].copy_from_slice(&prefix.to_bytes());
    Ok(out)
}

/// Ends a body: the reader does not look at a batch without rows before more has come.
const END: &[u8] = &[0; 8];

/// Rows as bodies: the schema is said once, and again when it changes.
#[derive(Default)]
pub(crate) struct RowsOut(Option<(SchemaRef, StreamEncoder)>);

impl RowsOut {
    /// The rows' buffers, uncopied.
    pub(crate) fn body(&mut self, rows: &RecordBatch) -> Result<Body, ArrowError> {
        let known = self.0.take().filter(|(schema, _)| *schema == rows.schema());
        let fresh = known.is_none();
        let (schema, mut encoder) = match known {
            Some(known) => known,
            None => (rows.schema(), StreamEncoder::try_new(&rows.schema())?),
        };
        let mut pieces = encoder.encode(rows)?;
        pieces.push(Buffer::from(END));
        self.0 = Some((schema, encoder));
        Ok(Body { pieces, fresh })
    }
}

impl std::fmt::Debug for RowsOut {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("RowsOut").finish_non_exhaustive()
    }
}

/// Bodies as rows.
#[derive(Debug, Default)]
pub(crate) struct RowsIn(StreamDecoder);

impl RowsIn {
    /// The rows in a body, whose memory they keep.
    pub(crate) fn rows(&mut self, body: Buffer, fresh: bool) -> Result<RecordBatch, ArrowError> {
        if fresh {
            self.0 = StreamDecoder::new();
        }
        let mut rest = body;
        let rows = self.0.decode(&mut rest)?;
        rows.filter(|_| rest.as_slice() == END)
            .ok_or_else(|| ArrowError::IpcError("a body that is not one batch".into()))
    }
}

/// Writes rows as an Arrow IPC stream.
#[allow(dead_code, reason = "the worker's")]
pub(crate) fn write_rows(rows: &RecordBatch, out: &mut Vec<u8>) -> Result<(), ArrowError> {
    out.reserve(rows.get_array_memory_size() + 1024);
    let mut writer = StreamWriter::try_new(out, rows.schema_ref())?;
    writer.write(rows)?;
    writer.finish()
}

/// Reads an Arrow IPC stream of one batch.
#[allow(dead_code, reason = "the worker's")]
pub(crate) fn read_rows(bytes: &[u8]) -> Result<RecordBatch, ArrowError> {
    let mut stream = Buffer::from(bytes.to_vec());
    let rows = StreamDecoder::new().decode(&mut stream)?;
    rows.ok_or_else(|| ArrowError::IpcError("a stream without a batch".into()))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow_array::{ArrayRef, Float64Array, StringArray};

    use super::*;

    const KEY: u64 = 7;

    fn rows(count: usize) -> RecordBatch {
        let numbers: Float64Array = (0..count)
            .map(|row| row.checked_sub(1).map(|_| 0.5))
            .collect();
        let texts: StringArray = (0..count).map(|row| Some(format!("row {row}"))).collect();
        let columns: [(&str, ArrayRef); 2] = [("a", Arc::new(numbers)), ("b", Arc::new(texts))];
        RecordBatch::try_from_iter_with_nullable(columns.map(|(name, column)| (name, column, true)))
            .expect("equally long columns")
    }

    fn arena() -> OwnedFd {
        rustix::fs::memfd_create("test", rustix::fs::MemfdFlags::CLOEXEC).expect("memory")
    }

    /// What the other end reads of a message.
    fn read(message: &[u8], arena: &OwnedFd) -> io::Result<(Prefix, Buffer)> {
        let prefix = Prefix::parse(message[..PREFIX_BYTES].try_into().expect("as long"))?;
        let (header, body) = message[PREFIX_BYTES..].split_at(prefix.header_bytes);
        let body = match prefix.place {
            Place::Inline => prefix.inline(KEY, header, body)?,
            Place::Arena => prefix.read_arena(KEY, header, arena, None)?,
        };
        Ok((prefix, body))
    }

    #[test]
    fn rows_of_any_number_arrive_as_they_were_sent() {
        let (mut out, mut came, arena) = (RowsOut::default(), RowsIn::default(), arena());
        for count in [0, 1, 0, 70, 5000, 0, 100_000, 3] {
            let rows = rows(count);
            let body = out.body(&rows).expect("rows have a body");
            let message = message(KEY, &count, &body, Some(&arena)).expect("written");
            let (prefix, body) = read(&message, &arena).expect("what was written");
            assert_eq!(prefix.place == Place::Arena, count >= 5000);
            assert_eq!(came.rows(body, prefix.fresh).expect("rows"), rows);
        }
    }

    #[test]
    fn a_changed_message_is_not_read() {
        let (mut out, arena) = (RowsOut::default(), arena());
        let body = out.body(&rows(3)).expect("rows have a body");
        let good = message(KEY, &1, &body, Some(&arena)).expect("written");
        assert!(read(&good, &arena).is_ok());
        for at in 0..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 1;
            let found = std::panic::catch_unwind(|| read(&bad, &arena).is_ok());
            assert!(!matches!(found, Ok(true)), "byte {at}");
        }
    }

    #[test]
    fn what_somebody_else_has_put_into_the_arena_is_not_read() {
        let (mut out, arena) = (RowsOut::default(), arena());
        let body = out.body(&rows(9000)).expect("rows have a body");
        let message = message(KEY, &1, &body, Some(&arena)).expect("written");
        write_at(&arena, b"x", 77).expect("written");
        assert!(read(&message, &arena).is_err());
        let empty = self::arena();
        assert!(read(&message, &empty).is_err());
    }

    #[test]
    fn another_key_seals_another_message() {
        let (mut out, arena) = (RowsOut::default(), arena());
        let body = out.body(&rows(3)).expect("rows have a body");
        let forged = message(KEY + 1, &1, &body, Some(&arena)).expect("written");
        assert!(read(&forged, &arena).is_err());
    }

    #[test]
    fn memory_that_somebody_keeps_is_not_used_again() {
        let arena = arena();
        let body = Body::from(vec![1_u8; 1 << 20]);
        let message = message(KEY, &1, &body, Some(&arena)).expect("written");
        let (prefix, first) = read(&message, &arena).expect("what was written");
        let header = &message[PREFIX_BYTES..];
        let kept = first.clone();
        let second = prefix
            .read_arena(KEY, header, &arena, Some(first))
            .expect("read");
        assert_ne!(kept.as_ptr(), second.as_ptr());
        drop(kept);
        let place = second.as_ptr();
        let third = prefix
            .read_arena(KEY, header, &arena, Some(second))
            .expect("read");
        assert_eq!(place, third.as_ptr());
    }
}
