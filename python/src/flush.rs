//! Brings what is written to the disk while more is written and the functions are proved.

use std::fs::File;
use std::io;
use std::sync::mpsc::{self, Sender};
use std::thread::{Builder, JoinHandle};

/// Flushed at a time, in bytes: seldom enough that the disk's journal does not notice.
const STEP_BYTES: u64 = 256 << 20;

/// Flushes a file in a thread of its own. Nothing is safe on the disk before [`Flush::end`].
#[derive(Debug)]
pub(crate) struct Flush {
    /// Each message asks for a flush.
    asked: Sender<()>,
    thread: JoinHandle<io::Result<()>>,
    unflushed: u64,
}

impl Flush {
    /// Begins for `file`.
    pub(crate) fn begin(file: File) -> io::Result<Self> {
        let (asked, requests) = mpsc::channel();
        let flush = move || requests.iter().try_for_each(|()| file.sync_data());
        let thread = Builder::new().name("flush".into()).spawn(flush)?;
        Ok(Self {
            asked,
            thread,
            unflushed: 0,
        })
    }

    /// So many more bytes are in the file.
    pub(crate) fn written(&mut self, bytes: u64) {
        self.unflushed += bytes;
        if self.unflushed >= STEP_BYTES {
            self.now();
        }
    }

    /// Asks for what is in the file so far.
    pub(crate) fn now(&mut self) {
        if self.unflushed > 0 {
            self.unflushed = 0;
            // It fails where an earlier flush has failed, which `end` tells.
            let _ = self.asked.send(());
        }
    }

    /// Waits for the flushes that were asked for. An error that the kernel has told to one of them
    /// it tells to nobody else.
    pub(crate) fn end(self) -> io::Result<()> {
        drop(self.asked);
        match self.thread.join() {
            Ok(flushed) => flushed,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    }
}
