//! This process's end of a socket: sealed messages, large bodies through the arena.

use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::net::UnixStream as StdUnixStream;
use std::sync::Arc;

use arrow_buffer::Buffer;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use sendfd::SendWithFd as _;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, Interest};
use tokio::net::UnixStream;
use tokio::task::{block_in_place, spawn_blocking};

use crate::protocol::{self, Body, INLINE_BYTES, Keys, PREFIX_BYTES, Place, Prefix, Request};

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
        })
    }

    /// Tells the first process its keys.
    pub(crate) async fn introduce(&mut self, keys: &[u8; Keys::BYTES]) -> io::Result<()> {
        self.socket.write_all(keys).await
    }

    pub(crate) async fn send(&mut self, request: &Request, body: Body) -> io::Result<()> {
        let place = body.place(self.arena.is_some());
        let message = protocol::message(self.keys.to_worker, request, &body, place)?;
        if let (Place::Arena, Some(arena)) = (place, &self.arena) {
            write(arena, body).await?;
        }
        self.socket.write_all(&message).await
    }

    /// Sends descriptors with a message that has no body.
    pub(crate) async fn send_with(
        &mut self,
        request: &Request,
        descriptors: &[OwnedFd],
    ) -> io::Result<()> {
        let message = protocol::message(
            self.keys.to_worker,
            request,
            &Body::default(),
            Place::Inline,
        )?;
        let numbers: Vec<_> = descriptors.iter().map(OwnedFd::as_raw_fd).collect();
        let socket = &self.socket;
        let sent = socket
            .async_io(Interest::WRITABLE, || {
                socket.send_with_fd(&message, &numbers)
            })
            .await?;
        self.socket.write_all(&message[sent..]).await
    }

    pub(crate) async fn receive<T: DeserializeOwned>(&mut self) -> io::Result<Received<T>> {
        self.read.clear();
        self.fill(PREFIX_BYTES).await?;
        let prefix = self.read[..PREFIX_BYTES].try_into();
        let prefix = Prefix::parse(prefix.unwrap_or(&[0; PREFIX_BYTES]))?;
        let header_end = PREFIX_BYTES + prefix.header_bytes;
        let end = match prefix.place {
            Place::Inline => header_end + prefix.body_bytes,
            Place::Arena => header_end,
        };
        self.fill(end).await?;
        let header = &self.read[PREFIX_BYTES..header_end];
        let body = match (prefix.place, &self.arena) {
            (Place::Inline, _) => Buffer::from(&self.read[header_end..]),
            (Place::Arena, Some(arena)) => read(arena, prefix.body_bytes).await?,
            (Place::Arena, None) => return Err(io::ErrorKind::InvalidData.into()),
        };
        // Nobody has asked for more than one answer.
        if self.read.len() > end {
            return Err(io::ErrorKind::InvalidData.into());
        }
        prefix.check(self.keys.to_host, header, &body)?;
        let header = serde_json::from_slice(header)
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
        Ok(Received {
            header,
            body,
            fresh: prefix.fresh,
        })
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

async fn write(arena: &Arc<OwnedFd>, body: Body) -> io::Result<()> {
    if body.len() <= QUICK_BYTES {
        return body.write(arena);
    }
    let arena = Arc::clone(arena);
    aside(move || body.write(&arena)).await
}

async fn read(arena: &Arc<OwnedFd>, bytes: usize) -> io::Result<Buffer> {
    if bytes <= QUICK_BYTES {
        return protocol::read_arena(arena, bytes, None);
    }
    let arena = Arc::clone(arena);
    aside(move || protocol::read_arena(&arena, bytes, None)).await
}

/// Does work that takes long where it holds nobody up.
async fn aside<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    use tokio::runtime::{Handle, RuntimeFlavor};

    match Handle::current().runtime_flavor() {
        RuntimeFlavor::MultiThread => block_in_place(work),
        _ => spawn_blocking(work).await.map_err(io::Error::other)?,
    }
}
