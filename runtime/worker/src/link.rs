//! This process's end of the socket: one sealed message at a time.

use std::io::{self, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

use arrow_buffer::Buffer;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};

use crate::protocol::{
    self, Answer, Body, INLINE_BYTES, KEPT_BYTES, Keys, PREFIX_BYTES, Place, Prefix, Request,
};

/// A small message fits, so that one call of the kernel reads it.
const READ_BYTES: usize = INLINE_BYTES + (16 << 10);

/// A message that comes so soon after an answer is worth waiting for awake.
const SOON: Duration = Duration::from_micros(100);

/// Descriptors that come with a message, at the most.
const MOST_DESCRIPTORS: usize = 4;

/// The socket, the arena and the keys.
#[derive(Debug)]
pub(crate) struct Link {
    socket: OwnedFd,
    /// A process that is only forked from has none.
    arena: Option<OwnedFd>,
    keys: Keys,
    read: Vec<u8>,
    /// Memory of the last body from the arena.
    memory: Option<Buffer>,
    /// How long it took from the last answer to the next message.
    gap: Duration,
}

/// What the host asks.
#[derive(Debug)]
pub(crate) struct Received {
    pub(crate) request: Request,
    pub(crate) body: Buffer,
    /// Whether the body begins with a schema.
    pub(crate) fresh: bool,
    pub(crate) descriptors: Vec<OwnedFd>,
}

impl Link {
    pub(crate) fn new(socket: OwnedFd, arena: Option<OwnedFd>, keys: Keys) -> Self {
        Self {
            socket,
            arena,
            keys,
            read: vec![],
            memory: None,
            gap: Duration::MAX,
        }
    }

    /// The link over which the first process is told its keys.
    pub(crate) fn first(socket: OwnedFd) -> io::Result<Self> {
        let mut keys = [0; Keys::BYTES];
        let mut done = 0;
        while done < keys.len() {
            match rustix::io::read(&socket, &mut keys[done..]) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(read) => done += read,
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(Self::new(socket, None, Keys::from_bytes(keys)))
    }

    /// Numbers of what connects this process with its host.
    pub(crate) fn descriptors(&self) -> Vec<i32> {
        let arena = self.arena.as_ref().map(AsRawFd::as_raw_fd);
        arena.into_iter().chain([self.socket.as_raw_fd()]).collect()
    }

    /// Waits for the next message; `None` when the host is gone.
    pub(crate) fn receive(&mut self) -> io::Result<Option<Received>> {
        let mut descriptors = vec![];
        self.read.clear();
        self.await_message();
        while self.read.len() < PREFIX_BYTES {
            if !self.fill(READ_BYTES, &mut descriptors)? {
                return Ok(None);
            }
        }
        let prefix = self.read[..PREFIX_BYTES].try_into();
        let prefix = Prefix::parse(prefix.unwrap_or(&[0; PREFIX_BYTES]))?;
        let inline = match prefix.place {
            Place::Inline => prefix.body_bytes,
            Place::Arena => 0,
        };
        let header_end = PREFIX_BYTES + prefix.header_bytes;
        while self.read.len() < header_end + inline {
            let missing = header_end + inline - self.read.len();
            if !self.fill(missing, &mut descriptors)? {
                return Ok(None);
            }
        }
        let header = &self.read[PREFIX_BYTES..header_end];
        let key = self.keys.to_worker;
        let body = match (prefix.place, &self.arena) {
            (Place::Inline, _) => prefix.inline(key, header, &self.read[header_end..])?,
            (Place::Arena, Some(arena)) => {
                prefix.read_arena(key, header, arena, self.memory.take())?
            }
            (Place::Arena, None) => return Err(io::ErrorKind::InvalidData.into()),
        };
        let request = serde_json::from_slice(header)?;
        let is_call = matches!(request, Request::Call { .. });
        let is_kept = is_call && prefix.place == Place::Arena && body.len() <= KEPT_BYTES;
        self.memory = is_kept.then(|| body.clone());
        Ok(Some(Received {
            request,
            body,
            fresh: prefix.fresh,
            descriptors,
        }))
    }

    /// Who is called at once after an answer is called again soon, most likely: going to sleep and
    /// being woken would take longer than a call. Others that have work go first.
    fn await_message(&mut self) {
        let began = Instant::now();
        let patience = if self.gap < SOON {
            SOON
        } else {
            Duration::ZERO
        };
        let mut watched = [PollFd::new(&self.socket, PollFlags::IN)];
        let mut is_there = false;
        while !is_there && began.elapsed() < patience {
            is_there = matches!(poll(&mut watched, Some(&Timespec::default())), Ok(1..));
            std::thread::yield_now();
        }
        if !is_there {
            // What it says is said by reading, too.
            let _ = poll(&mut watched, None);
        }
        self.gap = began.elapsed();
    }

    /// Reads some more; `false` at the end of the stream.
    fn fill(&mut self, most: usize, descriptors: &mut Vec<OwnedFd>) -> io::Result<bool> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST_DESCRIPTORS))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let start = self.read.len();
        self.read.resize(start + most, 0);
        let read = loop {
            let mut slices = [IoSliceMut::new(&mut self.read[start..])];
            let flags = RecvFlags::CMSG_CLOEXEC;
            match recvmsg(&self.socket, &mut slices, &mut control, flags) {
                Err(Errno::INTR) => {}
                Err(Errno::CONNRESET) => break 0,
                other => break other?.bytes,
            }
        };
        self.read.truncate(start + read);
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(came) = message {
                descriptors.extend(came);
            }
        }
        Ok(read > 0)
    }

    pub(crate) fn send(&self, answer: &Answer, body: &Body) -> io::Result<()> {
        let message = protocol::message(self.keys.to_host, answer, body, self.arena.as_ref())?;
        let mut rest = message.as_slice();
        while !rest.is_empty() {
            match rustix::io::write(&self.socket, rest) {
                Ok(written) => rest = &rest[written..],
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }
}
