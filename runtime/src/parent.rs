//! A process that others are forked from, as the host sees it.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream as StdUnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rustix::fs::{MemfdFlags, memfd_create};
use tokio::net::unix::pipe;
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::time::timeout;

use crate::process::START_DEADLINE;
use crate::protocol::{Answer, Body, Ending, Keys, Request};
use crate::wire::Wire;

/// How long a fork, or ending a process, may take. What takes longer has hung: a library's, before
/// the fork.
const FORK_DEADLINE: Duration = Duration::from_secs(20);

/// Asks a process to fork, and to end what it has forked. Clones ask the same process; it ends when
/// there are none left.
#[derive(Debug, Clone)]
pub(crate) struct Parent {
    commands: mpsc::UnboundedSender<Command>,
    /// It has not answered in time, and is not asked again.
    is_stuck: Arc<AtomicBool>,
    /// It is to end although somebody may still want to ask it.
    closed: Arc<Notify>,
}

#[derive(Debug)]
struct Command {
    request: Request,
    body: Vec<u8>,
    descriptors: Vec<OwnedFd>,
    answer: Option<oneshot::Sender<Answer>>,
}

/// A process that was forked: its number, the way to it, and what it prints.
#[derive(Debug)]
pub(crate) struct Forked {
    pub(crate) child: Child,
    pub(crate) wire: Wire,
    pub(crate) stderr: pipe::Receiver,
}

/// Ends the process, and what it has started, when dropped.
#[derive(Debug)]
pub(crate) struct Child {
    pid: i32,
    parent: Parent,
    ended: bool,
}

impl Parent {
    /// Speaks to the process at the other end of `wire`, from a task of its own: a question that
    /// was begun is finished, whatever becomes of who asked it.
    pub(crate) fn new(mut wire: Wire) -> Self {
        let (commands, mut asked) = mpsc::unbounded_channel::<Command>();
        let closed = Arc::new(Notify::new());
        let close = Arc::clone(&closed);
        tokio::spawn(async move {
            while let Some(mut command) = tokio::select! {
                command = asked.recv() => command,
                () = close.notified() => None,
            } {
                let Ok(answer) = ask(&mut wire, &mut command).await else {
                    return;
                };
                if let Some(Err(answer)) = command.answer.map(|waiting| waiting.send(answer))
                    && end_unwanted(&mut wire, &answer).await.is_err()
                {
                    return;
                }
            }
        });
        Self {
            commands,
            is_stuck: Arc::default(),
            closed,
        }
    }

    /// Ends it, whoever still has a clone.
    pub(crate) fn close(&self) {
        self.closed.notify_one();
    }

    /// Whether the process may still answer.
    pub(crate) fn is_there(&self) -> bool {
        !self.commands.is_closed() && !self.is_stuck.load(Ordering::Relaxed)
    }

    pub(crate) async fn ask(&self, request: Request, body: Vec<u8>) -> io::Result<Answer> {
        self.ask_with(request, body, vec![], START_DEADLINE).await
    }

    async fn ask_with(
        &self,
        request: Request,
        body: Vec<u8>,
        descriptors: Vec<OwnedFd>,
        command_deadline: Duration,
    ) -> io::Result<Answer> {
        let (answer, waiting) = oneshot::channel();
        let command = Command {
            request,
            body,
            descriptors,
            answer: Some(answer),
        };
        let gone = || io::Error::from(io::ErrorKind::BrokenPipe);
        self.commands.send(command).map_err(|_| gone())?;
        match timeout(command_deadline, waiting).await {
            Ok(answer) => answer.map_err(|_| gone()),
            Err(_) => {
                self.is_stuck.store(true, Ordering::Relaxed);
                Err(io::ErrorKind::TimedOut.into())
            }
        }
    }

    /// Another process, which has what this one has.
    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "all other answers are to other questions"
    )]
    pub(crate) async fn fork(&self) -> io::Result<Forked> {
        let (ours, theirs) = StdUnixStream::pair()?;
        let (printed, prints) = io::pipe()?;
        let arena = memfd_create("envelope-arena", MemfdFlags::CLOEXEC)?;
        let keys = new_keys()?;
        let descriptors = vec![theirs.into(), prints.into(), arena.try_clone()?];
        let keys = Keys::from_bytes(keys);
        let request = Request::Fork { keys };
        match self
            .ask_with(request, vec![], descriptors, FORK_DEADLINE)
            .await?
        {
            Answer::Forked { pid } => Ok(Forked {
                child: Child {
                    pid,
                    parent: self.clone(),
                    ended: false,
                },
                wire: Wire::new(ours, Some(Arc::new(arena)), keys)?,
                stderr: pipe::Receiver::from_owned_fd(printed.into())?,
            }),
            Answer::NotForked { reason } => Err(io::Error::other(reason)),
            _ => Err(io::ErrorKind::InvalidData.into()),
        }
    }

    fn end(&self, pid: i32, patience: Duration) -> Request {
        debug_assert!(pid > 0, "0 is this process");
        Request::End {
            pid,
            patience_ms: u32::try_from(patience.as_millis()).unwrap_or(u32::MAX),
        }
    }
}

impl Child {
    pub(crate) fn pid(&self) -> i32 {
        self.pid
    }

    /// Ends the process, unless it does so itself within `patience`, and tells how it did.
    pub(crate) async fn end(&mut self, patience: Duration) -> Ending {
        self.ended = true;
        let request = self.parent.end(self.pid, patience);
        let deadline = patience + FORK_DEADLINE;
        match self
            .parent
            .ask_with(request, vec![], vec![], deadline)
            .await
        {
            Ok(Answer::Ended { ending }) => ending,
            // It has ended with the process that it was forked from.
            _ => Ending::Unknown,
        }
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        if !self.ended {
            let command = Command {
                request: self.parent.end(self.pid, Duration::ZERO),
                body: vec![],
                descriptors: vec![],
                answer: None,
            };
            let _ = self.parent.commands.send(command); // where nobody listens, it has ended
        }
    }
}

async fn ask(wire: &mut Wire, command: &mut Command) -> io::Result<Answer> {
    if command.descriptors.is_empty() {
        let body = std::mem::take(&mut command.body);
        wire.send(&command.request, Body::from(body)).await?;
    } else {
        wire.send_with(&command.request, &command.descriptors)
            .await?;
    }
    Ok(wire.receive(Duration::ZERO).await?.header)
}

/// A process that nobody is waiting for any more.
async fn end_unwanted(wire: &mut Wire, answer: &Answer) -> io::Result<()> {
    let Answer::Forked { pid } = *answer else {
        return Ok(());
    };
    let end = Request::End {
        pid,
        patience_ms: 0,
    };
    wire.send(&end, Body::default()).await?;
    wire.receive::<Answer>(Duration::ZERO).await.map(drop)
}

/// Keys that nobody knows.
pub(crate) fn new_keys() -> io::Result<[u8; Keys::BYTES]> {
    let mut keys = [0; Keys::BYTES];
    getrandom::fill(&mut keys).map_err(io::Error::other)?;
    Ok(keys)
}
