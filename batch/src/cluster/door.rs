//! How other machines get in: a listener that lets in who has a certificate of the cluster and knows
//! its token, and passes on to what listens to this machine only.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use super::credentials::{Keys, TOLD_BYTES};

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

impl Door {
    pub(super) async fn bind(address: SocketAddr, keys: Arc<Keys>) -> io::Result<Self> {
        let listener = TcpListener::bind(address).await?;
        Ok(Self { listener, keys })
    }

    /// Where it is.
    pub(super) fn address(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Leads to `inside` who may get in.
    pub(super) async fn lead_to(self, inside: SocketAddr) -> Infallible {
        let mut connections = JoinSet::new();
        loop {
            while connections.try_join_next().is_some() {}
            if connections.len() >= MOST_CONNECTIONS {
                connections.join_next().await;
            }
            match self.listener.accept().await {
                Ok((stream, from)) => {
                    let keys = Arc::clone(&self.keys);
                    connections.spawn(connection(stream, from, keys, inside));
                }
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a connection");
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    }
}

async fn connection(stream: TcpStream, from: SocketAddr, keys: Arc<Keys>, inside: SocketAddr) {
    let shown = tokio::time::timeout(SHOWN_WITHIN, shown(stream, &keys)).await;
    let shown = shown.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
    let done = match shown {
        Ok(Some(mut outside)) => pass_on(&mut outside, inside).await,
        Ok(None) => return tracing::debug!(%from, "not let in: without encryption"),
        Err(error) => return tracing::warn!(%from, %error, "not let in"),
    };
    if let Err(error) = done {
        tracing::debug!(%from, %error, "a connection ended");
    }
}

/// Looks at certificate and token. None for those who do not even begin with TLS: the scheduler looks in
/// this way whether a port is open.
async fn shown(
    stream: TcpStream,
    keys: &Keys,
) -> io::Result<Option<tokio_rustls::server::TlsStream<TcpStream>>> {
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
    stream.write_u8(WELCOME).await?;
    stream.flush().await?;
    Ok(Some(stream))
}

async fn pass_on(
    outside: &mut tokio_rustls::server::TlsStream<TcpStream>,
    inside: SocketAddr,
) -> io::Result<()> {
    let mut inside = TcpStream::connect(inside).await?;
    inside.set_nodelay(true)?;
    copy_bidirectional(outside, &mut inside).await.map(drop)
}

#[cfg(test)]
mod tests;
