//! How other machines get in: a listener that lets in who has a certificate of the cluster and knows
//! its token, and passes on to what listens to this machine only, or to who lends envelopes.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use super::credentials::{Keys, TOLD_BYTES};
use super::lending::{self, Lender};

/// A listener for other machines. Its connections end with it.
#[derive(Debug)]
pub(super) struct Door {
    listener: TcpListener,
    keys: Arc<Keys>,
}

/// How long somebody at the door has to show who they are.
const SHOWN_WITHIN: Duration = Duration::from_secs(10);
/// Connections at the same time; a cluster has some for each executor and driver.
const MOST_CONNECTIONS: usize = 4096;
/// After an accept that failed for want of something: until somebody gives some back.
const PAUSE: Duration = Duration::from_millis(100);

/// What the first message of TLS begins with.
const HANDSHAKE: u8 = 22;

/// What those are told who are let in. Others find the connection closed.
pub(super) const WELCOME: u8 = b'+';

/// What those who come say that they want, behind the token.
pub(super) const SPEAK: u8 = b's';
pub(super) const BORROW: u8 = b'b';

/// What a door leads to.
#[derive(Clone)]
pub(super) struct Inside {
    /// Who speaks Ballista.
    pub(super) speaker: SocketAddr,
    /// Who lends envelopes, if somebody does.
    pub(super) lender: Option<Arc<dyn Lender>>,
}

impl Door {
    pub(super) async fn bind(address: SocketAddr, keys: Arc<Keys>) -> io::Result<Self> {
        let listener = TcpListener::bind(address).await?;
        Ok(Self { listener, keys })
    }

    /// Where it is.
    pub(super) fn address(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Leads `inside` who may get in.
    pub(super) async fn lead_to(self, inside: Inside) -> Infallible {
        let mut connections = JoinSet::new();
        loop {
            while connections.try_join_next().is_some() {}
            if connections.len() >= MOST_CONNECTIONS {
                connections.join_next().await;
            }
            match self.listener.accept().await {
                Ok((stream, from)) => {
                    let keys = Arc::clone(&self.keys);
                    connections.spawn(connection(stream, from, keys, inside.clone()));
                }
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a connection");
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    }
}

async fn connection(stream: TcpStream, from: SocketAddr, keys: Arc<Keys>, inside: Inside) {
    let shown = tokio::time::timeout(SHOWN_WITHIN, shown(stream, &keys)).await;
    let shown = shown.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
    let done = match shown {
        Ok(Some((mut outside, wanted))) => pass_on(&mut outside, wanted, &inside).await,
        Ok(None) => return tracing::debug!(%from, "not let in: without encryption"),
        Err(error) => return tracing::warn!(%from, %error, "not let in"),
    };
    if let Err(error) = done {
        tracing::debug!(%from, %error, "a connection ended");
    }
}

/// Looks at certificate and token, and hears what is wanted. None for those who do not even begin with
/// TLS: the scheduler looks in this way whether a port is open.
async fn shown(stream: TcpStream, keys: &Keys) -> io::Result<Option<(Outside, u8)>> {
    stream.set_nodelay(true)?;
    let mut first = [0];
    stream.peek(&mut first).await?;
    if first != [HANDSHAKE] {
        return Ok(None);
    }
    let mut stream = keys.acceptor.accept(stream).await?;
    let mut told = [0; TOLD_BYTES];
    stream.read_exact(&mut told).await?;
    if !keys.is_token(&told) {
        return Err(io::Error::new(
            io::ErrorKind::PermissionDenied,
            "another token",
        ));
    }
    let wanted = stream.read_u8().await?;
    stream.write_u8(WELCOME).await?;
    stream.flush().await?;
    Ok(Some((stream, wanted)))
}

type Outside = tokio_rustls::server::TlsStream<TcpStream>;

async fn pass_on(outside: &mut Outside, wanted: u8, inside: &Inside) -> io::Result<()> {
    match (wanted, &inside.lender) {
        (SPEAK, _) => {
            let mut speaker = TcpStream::connect(inside.speaker).await?;
            speaker.set_nodelay(true)?;
            copy_bidirectional(outside, &mut speaker).await.map(drop)
        }
        (BORROW, Some(lender)) => lending::serve(outside, lender.as_ref()).await,
        _ => Err(io::ErrorKind::Unsupported.into()),
    }
}

#[cfg(test)]
mod tests;
