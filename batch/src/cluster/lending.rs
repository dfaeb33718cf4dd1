//! How envelopes get to executors that have no store: their scheduler lends those of its own, through its
//! door.
//!
//! ```text
//! executor  ──  64 hex digits of the digest  ──►  scheduler
//!           ◄──  length of the envelope, length of its attestation: 8 bytes each, big-endian  ──
//!           ◄──  the attestation, then the envelope  ──
//! ```
//!
//! A length of 0 says that there is none. Whoever asks checks every byte, so nothing here does.

use std::fmt;
use std::io;
use std::str::FromStr as _;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use envelope_format::Digest;
use envelope_format::limits::MAX_ATTESTATION_BYTES;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

use super::tunnel::Tunnels;

/// Who has envelopes and gives their bytes.
#[async_trait]
pub trait Lender: Send + Sync {
    /// The envelope with this digest, if it is there.
    ///
    /// # Errors
    /// When that cannot be told.
    async fn lend(&self, digest: &Digest) -> io::Result<Option<Lent>>;
}

/// The bytes of an envelope, which nobody has checked yet.
pub struct Lent {
    /// How many there are.
    pub bytes: u64,
    /// Who vouches for it, if somebody does.
    pub attestation: Option<Vec<u8>>,
    /// The bytes.
    pub reader: Box<dyn AsyncRead + Send + Unpin>,
}

impl fmt::Debug for Lent {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Lent")
            .field("bytes", &self.bytes)
            .finish_non_exhaustive()
    }
}

/// Length of a digest in hex.
const ASKED_BYTES: usize = 64;
/// How long somebody who was let in has to say which envelope is meant, and the other side to begin.
const ASKED_WITHIN: Duration = Duration::from_secs(20);

/// Answers one who asks.
pub(super) async fn serve<S>(stream: &mut S, lender: &dyn Lender) -> io::Result<()>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let asked = tokio::time::timeout(ASKED_WITHIN, asked(stream)).await;
    let digest = asked.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))?;
    match lender.lend(&digest).await? {
        None => stream.write_all(&[0; 16]).await?,
        Some(mut lent) => {
            let attestation = lent.attestation.unwrap_or_default();
            stream.write_u64(lent.bytes).await?;
            stream.write_u64(attestation.len() as u64).await?;
            stream.write_all(&attestation).await?;
            tokio::io::copy(&mut lent.reader, stream).await?;
        }
    }
    stream.shutdown().await
}

async fn asked(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<Digest> {
    let mut hex = [0; ASKED_BYTES];
    stream.read_exact(&mut hex).await?;
    let text = format!("sha256:{}", String::from_utf8_lossy(&hex));
    Digest::from_str(&text).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}

/// The envelopes of a scheduler, as an executor gets them.
pub(super) struct OfScheduler {
    pub(super) tunnels: Arc<Tunnels>,
    pub(super) address: String,
}

#[async_trait]
impl Lender for OfScheduler {
    async fn lend(&self, digest: &Digest) -> io::Result<Option<Lent>> {
        let mut stream = self.tunnels.to_lender(&self.address).await?;
        let begun = tokio::time::timeout(ASKED_WITHIN, begun(&mut stream, digest)).await;
        let begun = begun.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))?;
        Ok(begun.map(|(bytes, attestation)| Lent {
            bytes,
            attestation,
            reader: Box::new(stream.take(bytes)),
        }))
    }
}

/// Asks; gives what comes before the bytes of the envelope.
async fn begun<S>(stream: &mut S, digest: &Digest) -> io::Result<Option<(u64, Option<Vec<u8>>)>>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    stream.write_all(digest.hex().as_bytes()).await?;
    stream.flush().await?;
    let (bytes, attested) = (stream.read_u64().await?, stream.read_u64().await?);
    if bytes == 0 {
        return Ok(None);
    }
    if attested > MAX_ATTESTATION_BYTES {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "an attestation that is too long",
        ));
    }
    let mut attestation = vec![];
    stream.take(attested).read_to_end(&mut attestation).await?;
    Ok(Some((bytes, (attested > 0).then_some(attestation))))
}
