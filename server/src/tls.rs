//! TLS: which certificate the service shows, and the handshakes that are made with it.

mod files;
mod renewal;

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use envelope_format::Digest;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::pki_types::UnixTime;
use tokio_rustls::{TlsAcceptor, server::TlsStream};

pub(crate) use files::check;
pub use files::{TlsError, TlsFiles};
pub(crate) use renewal::renew;

use crate::patience::Patient;

/// What new connections are made with. Those that are there go on with what they began with.
#[derive(Debug)]
pub(crate) struct Certificates {
    files: TlsFiles,
    /// Replaced as a whole; `None` until the files are read, and then no handshake succeeds.
    current: RwLock<Option<Arc<ServerConfig>>>,
    /// What was in the files when they were read, good or not.
    read: Mutex<Option<Digest>>,
}

/// A stream that nobody else reads.
pub(crate) type Private = TlsStream<Patient<TcpStream>>;

/// The protocol that client and service agreed upon.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Agreed {
    Http1,
    Http2,
}

/// What a client may ask for by ALPN, what is preferred first.
const PROTOCOLS: [&[u8]; 2] = [HTTP_2, b"http/1.1"];

const HTTP_2: &[u8] = b"h2";

impl Certificates {
    pub(crate) fn new(files: TlsFiles) -> Self {
        Self {
            files,
            current: RwLock::default(),
            read: Mutex::default(),
        }
    }

    /// Reads the files, now or again. When they are not what they should be, what was read before stays.
    pub(crate) fn read(&self) -> Result<(), TlsError> {
        *self.last_read() = files::digest(&self.files).ok();
        let config = files::read(&self.files, UnixTime::now())?;
        let mut current = self.current.write().unwrap_or_else(PoisonError::into_inner);
        *current = Some(Arc::new(config));
        Ok(())
    }

    /// Whether there is something else in the files than when they were read. Files that cannot be
    /// read are being replaced.
    pub(crate) fn are_others(&self) -> bool {
        let now = files::digest(&self.files).ok();
        now.is_some() && now != *self.last_read()
    }

    fn last_read(&self) -> MutexGuard<'_, Option<Digest>> {
        self.read.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Agrees with a new client on keys and on a protocol. Whoever calls limits the time.
    pub(crate) async fn shake_hands(
        &self,
        mut stream: Patient<TcpStream>,
    ) -> io::Result<(Private, Agreed)> {
        let config = self.current().ok_or(io::ErrorKind::NotConnected)?;
        if speaks_plainly(stream.inner()).await? {
            return Err(turn_away(&mut stream).await.err().unwrap_or_else(|| {
                io::Error::new(
                    io::ErrorKind::InvalidData,
                    "HTTP was spoken to a port of TLS",
                )
            }));
        }
        let stream = TlsAcceptor::from(config).accept(stream).await?;
        let agreed = match stream.get_ref().1.alpn_protocol() {
            Some(HTTP_2) => Agreed::Http2,
            _ => Agreed::Http1,
        };
        Ok((stream, agreed))
    }

    fn current(&self) -> Option<Arc<ServerConfig>> {
        let current = self.current.read().unwrap_or_else(PoisonError::into_inner);
        current.clone()
    }
}

/// A handshake begins with the byte 22, a request with the letter of a method.
async fn speaks_plainly(stream: &TcpStream) -> io::Result<bool> {
    let mut first = [0];
    stream.peek(&mut first).await?;
    Ok(first[0].is_ascii_alphabetic())
}

/// What who speaks HTTP to this port is told, as far as that is possible.
const PLAIN: &[u8] =
    b"HTTP/1.1 400 Bad Request\r\ncontent-type: text/plain\r\ncontent-length: 46\r\n\
    connection: close\r\n\r\nthis port speaks TLS: ask with https:// please";

async fn turn_away(stream: &mut Patient<TcpStream>) -> io::Result<()> {
    // What lies unread when a connection is closed may take the answer with it.
    _ = stream.read(&mut [0; 4096]).await?;
    stream.write_all(PLAIN).await?;
    stream.shutdown().await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_speaks_plainly_is_told_as_many_bytes_as_it_says() {
        let told = str::from_utf8(PLAIN).unwrap();
        let (head, body) = told.split_once("\r\n\r\n").unwrap();
        assert!(head.contains(&format!("content-length: {}\r\n", body.len())));
    }
}
