//! A file of a table that is read here and there, not from its beginning to its end.

use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom};
use std::sync::Arc;

use bytes::{Buf as _, Bytes};
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt as _};
use parquet::errors::Result as ParquetResult;
use parquet::file::reader::{ChunkReader, Length};
use tokio::runtime::Handle;

/// What is fetched from a bucket at once where nobody says how much is needed.
const BLOCK_BYTES: u64 = 1 << 20;

/// A file that is open. Reading blocks.
#[derive(Debug)]
pub(crate) enum Opened {
    /// On this machine.
    Here(File),
    /// In a bucket.
    There(Remote),
}

impl Opened {
    /// Opens an object.
    pub(crate) fn there(store: Arc<dyn ObjectStore>, path: Path) -> io::Result<Self> {
        let runtime = Handle::current();
        let found = runtime.block_on(store.head(&path))?;
        Ok(Self::There(Remote {
            store,
            path,
            runtime,
            length: found.size,
            position: 0,
            block: Bytes::new(),
        }))
    }
}

impl Read for Opened {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Here(file) => file.read(to),
            Self::There(remote) => remote.read(to),
        }
    }
}

impl Seek for Opened {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        match self {
            Self::Here(file) => file.seek(to),
            Self::There(remote) => remote.seek(to),
        }
    }
}

impl Length for Opened {
    fn len(&self) -> u64 {
        match self {
            Self::Here(file) => file.len(),
            Self::There(remote) => remote.length,
        }
    }
}

impl ChunkReader for Opened {
    type T = BufReader<Self>;

    fn get_read(&self, start: u64) -> ParquetResult<Self::T> {
        let mut opened = match self {
            Self::Here(file) => Self::Here(file.try_clone()?),
            Self::There(remote) => Self::There(remote.clone()),
        };
        opened.seek(SeekFrom::Start(start))?;
        Ok(BufReader::new(opened))
    }

    fn get_bytes(&self, start: u64, length: usize) -> ParquetResult<Bytes> {
        match self {
            Self::Here(file) => file.get_bytes(start, length),
            Self::There(remote) => Ok(remote.fetch(start, length as u64)?),
        }
    }
}

/// An object, and a place in it.
#[derive(Debug, Clone)]
pub(crate) struct Remote {
    store: Arc<dyn ObjectStore>,
    path: Path,
    runtime: Handle,
    length: u64,
    position: u64,
    /// What was fetched, from the position on.
    block: Bytes,
}

impl Remote {
    fn fetch(&self, start: u64, length: u64) -> io::Result<Bytes> {
        let range = start..start + length;
        Ok(self
            .runtime
            .block_on(self.store.get_range(&self.path, range))?)
    }
}

impl Read for Remote {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        if self.block.is_empty() {
            let left = self.length.saturating_sub(self.position);
            if left == 0 {
                return Ok(0);
            }
            self.block = self.fetch(self.position, left.min(BLOCK_BYTES))?;
        }
        let count = self.block.len().min(to.len());
        self.block.copy_to_slice(&mut to[..count]);
        self.position += count as u64;
        Ok(count)
    }
}

impl Seek for Remote {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let position = match to {
            SeekFrom::Start(start) => Some(start),
            SeekFrom::End(from) => self.length.checked_add_signed(from),
            SeekFrom::Current(from) => self.position.checked_add_signed(from),
        };
        self.position = position.ok_or(io::ErrorKind::InvalidInput)?;
        self.block = Bytes::new();
        Ok(self.position)
    }
}

#[cfg(test)]
mod tests {
    use object_store::memory::InMemory;

    use super::*;

    #[tokio::test(flavor = "multi_thread")]
    async fn an_object_is_read_from_any_place() {
        let (store, path) = (Arc::new(InMemory::new()), Path::from("f"));
        let bytes: Vec<u8> = (0..3_000_000_u32).map(|at| (at % 251) as u8).collect();
        store.put(&path, bytes.clone().into()).await.unwrap();
        let read = move || {
            let mut opened = Opened::there(store, path).unwrap();
            let mut all = vec![];
            opened.read_to_end(&mut all).unwrap();
            let mut last = [0; 2];
            opened.seek(SeekFrom::End(-2)).unwrap();
            opened.read_exact(&mut last).unwrap();
            let middle = opened.get_bytes(1_000_000, 5).unwrap();
            (all, last, middle)
        };
        let (all, last, middle) = tokio::task::spawn_blocking(read).await.unwrap();
        assert!(all == bytes);
        assert_eq!(
            (&last[..], &middle[..]),
            (&bytes[2_999_998..], &bytes[1_000_000..1_000_005])
        );
    }
}
