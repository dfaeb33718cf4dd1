//! This process's end of a socket: sealed messages, large bodies through the arena.

use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::net::UnixStream as StdUnixStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow_buffer::Buffer;
use rustix::buffer::spare_capacity;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use sendfd::SendWithFd as _;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, Interest};
use tokio::net::UnixStream;
use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::task::{block_in_place, yield_now};

use crate::protocol::{
    self, Body, INLINE_BYTES, KEPT_BYTES, Keys, PREFIX_BYTES, Place, Prefix, Request,
};

/// A small message fits, so that one call of the kernel reads it.
const READ_BYTES: usize = INLINE_BYTES + (16 << 10);

/// Bodies up to this, in bytes, are copied at once: handing them to another thread takes longer.
const QUICK_BYTES: usize = 1 << 20;

/// The socket, the arena and the keys.
#[derive(Debug)]
pub(crate) struct Wire {
    socket: UnixStream,
    /// A process that is only forked from has none.
    arena: Option<Arc<OwnedFd>>,
    keys: Keys,
    read: Vec<u8>,
    /// Memory of the last body from the arena, if it is not large.
    memory: Option<Buffer>,
}

/// What came.
#[derive(Debug)]
pub(crate) struct Received<T> {
    pub(crate) header: T,
    pub(crate) body: Buffer,
    /// Whether the body begins with a schema.
    pub(crate) fresh: bool,
}

impl Wire {
    pub(crate) fn new(
        socket: StdUnixStream,
        arena: Option<Arc<OwnedFd>>,
        keys: Keys,
    ) -> io::Result<Self> {
        socket.set_nonblocking(true)?;
        Ok(Self {
            socket: UnixStream::from_std(socket)?,
            arena,
            keys,
            read: Vec::with_capacity(READ_BYTES),
            memory: None,
        })
    }

    /// Tells the first process its keys.
    pub(crate) async fn introduce(&mut self, keys: &[u8; Keys::BYTES]) -> io::Result<()> {
        self.socket.write_all(keys).await
    }

    pub(crate) async fn send(&mut self, request: &Request, body: Body) -> io::Result<()> {
        let key = self.keys.to_worker;
        let arena = self.arena.as_deref();
        let message = aside(body.len(), || protocol::message(key, request, &body, arena))?;
        self.socket.write_all(&message).await
    }

    /// Sends descriptors with a message that has no body.
    pub(crate) async fn send_with(
        &mut self,
        request: &Request,
        descriptors: &[OwnedFd],
    ) -> io::Result<()> {
        let message = protocol::message(self.keys.to_worker, request, &Body::default(), None)?;
        let numbers: Vec<_> = descriptors.iter().map(OwnedFd::as_raw_fd).collect();
        let socket = &self.socket;
        let sent = socket
            .async_io(Interest::WRITABLE, || {
                socket.send_with_fd(&message, &numbers)
            })
            .await?;
        self.socket.write_all(&message[sent..]).await
    }

    /// Waits for a message, at first awake and for as long as `patience`: who goes to sleep is woken
    /// late.
    pub(crate) async fn receive<T: DeserializeOwned>(
        &mut self,
        patience: Duration,
    ) -> io::Result<Received<T>> {
        self.read.clear();
        self.read_soon(patience).await?;
        self.fill(PREFIX_BYTES).await?;
        let prefix = self.read[..PREFIX_BYTES].try_into();
        let prefix = Prefix::parse(prefix.unwrap_or(&[0; PREFIX_BYTES]))?;
        let header_end = PREFIX_BYTES + prefix.header_bytes;
        let end = match prefix.place {
            Place::Inline => header_end + prefix.body_bytes,
            Place::Arena => header_end,
        };
        self.fill(end).await?;
        // Nobody has asked for more than one answer.
        if self.read.len() > end {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let header = &self.read[PREFIX_BYTES..header_end];
        let key = self.keys.to_host;
        let memory = self.memory.take();
        let body = match (prefix.place, &self.arena) {
            (Place::Inline, _) => prefix.inline(key, header, &self.read[header_end..])?,
            (Place::Arena, Some(arena)) => aside(prefix.body_bytes, || {
                prefix.read_arena(key, header, arena, memory)
            })?,
            (Place::Arena, None) => return Err(io::ErrorKind::InvalidData.into()),
        };
        self.memory =
            (prefix.place == Place::Arena && body.len() <= KEPT_BYTES).then(|| body.clone());
        let header = serde_json::from_slice(header)
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
        Ok(Received {
            header,
            body,
            fresh: prefix.fresh,
        })
    }

    /// Others that have work go first.
    async fn read_soon(&mut self, patience: Duration) -> io::Result<()> {
        let began = Instant::now();
        while began.elapsed() < patience {
            match rustix::io::read(&self.socket, spare_capacity(&mut self.read)) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(_) => return Ok(()),
                Err(Errno::AGAIN | Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
            std::thread::yield_now();
            yield_now().await;
        }
        Ok(())
    }

    /// Reads until there are so many bytes of the message.
    async fn fill(&mut self, bytes: usize) -> io::Result<()> {
        self.read.reserve(bytes.saturating_sub(self.read.len()));
        while self.read.len() < bytes {
            if self.socket.read_buf(&mut self.read).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        Ok(())
    }

    /// Whether the other end is open, and has said nothing that nobody asked for.
    pub(crate) fn is_quiet(&self) -> bool {
        let flags = PollFlags::IN | PollFlags::RDHUP | PollFlags::HUP;
        let mut watched = [PollFd::new(&self.socket, flags)];
        matches!(poll(&mut watched, Some(&Timespec::default())), Ok(0))
    }
}

/// Copies so many bytes where it holds nobody up, if that is possible.
fn aside<T>(bytes: usize, copy: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
    let is_multi_threaded = Handle::current().runtime_flavor() == RuntimeFlavor::MultiThread;
    if bytes > QUICK_BYTES && is_multi_threaded {
        return block_in_place(copy);
    }
    copy()
}
