//! How a part of a cluster gets through the doors of others: sockets in a folder that nobody else may
//! open, each of which leads to one address.
//!
//! The clients of Ballista speak without encryption, to whatever endpoint they are given. So they are
//! given a socket of this process, which speaks to the door.

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use ballista_core::extension::EndpointOverrideFn;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, copy_bidirectional};
use tokio::net::{TcpStream, UnixListener, UnixStream};
use tokio_rustls::client::TlsStream;
use tokio_util::sync::CancellationToken;
use tokio_util::sync::DropGuard;
use tonic::transport::Endpoint;

use super::credentials::Keys;
use super::door::{BORROW, SPEAK, WELCOME};
use crate::Error;

/// The ways to other parts of the cluster. They close when it is dropped.
#[derive(Debug)]
pub(super) struct Tunnels {
    keys: Arc<Keys>,
    folder: TempDir,
    /// By address.
    open: Mutex<HashMap<String, PathBuf>>,
    closed: CancellationToken,
    _closes: DropGuard,
}

/// How long the other part has to let us in.
const IN_WITHIN: Duration = Duration::from_secs(10);
/// A call that takes longer is given up, as Ballista's own are.
const CALL_WITHIN: Duration = Duration::from_secs(20);
/// How often a connection is tried, and how long it has to answer.
const ALIVE_EVERY: Duration = Duration::from_secs(30);
const ALIVE_WITHIN: Duration = Duration::from_secs(20);

impl Tunnels {
    pub(super) fn new(keys: Arc<Keys>) -> io::Result<Arc<Self>> {
        let closed = CancellationToken::new();
        Ok(Arc::new(Self {
            keys,
            // The folder is this user's alone.
            folder: tempfile::Builder::new()
                .prefix("envelope-cluster-")
                .tempdir()?,
            open: Mutex::default(),
            _closes: closed.clone().drop_guard(),
            closed,
        }))
    }

    /// Knocks at the door at `address`, to hear now what is wrong.
    pub(super) async fn knock(&self, address: &str) -> io::Result<()> {
        connected(address, &self.keys, SPEAK).await.map(drop)
    }

    /// To who lends envelopes behind the door at `address`.
    pub(super) async fn to_lender(&self, address: &str) -> io::Result<TlsStream<TcpStream>> {
        connected(address, &self.keys, BORROW).await
    }

    /// What leads to `address`, as `HOST:PORT`.
    pub(super) fn endpoint(&self, address: &str) -> io::Result<Endpoint> {
        let socket = self.socket(address)?;
        let endpoint = Endpoint::from_shared(format!("unix:{}", socket.display()));
        Ok(endpoint
            .map_err(io::Error::other)?
            .connect_timeout(IN_WITHIN)
            .timeout(CALL_WITHIN)
            .http2_keep_alive_interval(ALIVE_EVERY)
            .keep_alive_timeout(ALIVE_WITHIN)
            .keep_alive_while_idle(true))
    }

    /// Leads each endpoint through the door of its address.
    pub(super) fn by_address(self: &Arc<Self>) -> EndpointOverrideFn {
        let tunnels = Arc::clone(self);
        Arc::new(move |endpoint: Endpoint| {
            let address = endpoint.uri().authority().map(ToString::to_string);
            let address = address.ok_or("an endpoint without an address")?;
            Ok(tunnels.endpoint(&address)?)
        })
    }

    /// Leads each endpoint to `address`, whatever it says.
    pub(super) fn always_to(self: &Arc<Self>, address: String) -> EndpointOverrideFn {
        let tunnels = Arc::clone(self);
        Arc::new(move |_| Ok(tunnels.endpoint(&address)?))
    }

    /// The socket that leads to `address`, made when it is first asked for.
    pub(super) fn socket(&self, address: &str) -> io::Result<PathBuf> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(socket) = open.get(address) {
            return Ok(socket.clone());
        }
        let socket = self.folder.path().join(open.len().to_string());
        self.lead(&socket, address.to_owned())?;
        open.insert(address.to_owned(), socket.clone());
        Ok(socket)
    }

    fn lead(&self, socket: &Path, address: String) -> io::Result<()> {
        let listener = UnixListener::bind(socket)?;
        let (keys, closed) = (Arc::clone(&self.keys), self.closed.clone());
        tokio::spawn(closed.clone().run_until_cancelled_owned(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (keys, address) = (Arc::clone(&keys), address.clone());
                tokio::spawn(
                    closed
                        .clone()
                        .run_until_cancelled_owned(passed_on(stream, address, keys)),
                );
            }
        }));
        Ok(())
    }
}

async fn passed_on(mut here: UnixStream, address: String, keys: Arc<Keys>) {
    let done = match connected(&address, &keys, SPEAK).await {
        Ok(mut there) => copy_bidirectional(&mut here, &mut there).await.map(drop),
        Err(error) => return tracing::warn!(%address, %error, "not let in"),
    };
    if let Err(error) = done {
        tracing::debug!(%address, %error, "a connection ended");
    }
}

/// Through the door at `address`, for what is wanted there.
async fn connected(address: &str, keys: &Keys, wanted: u8) -> io::Result<TlsStream<TcpStream>> {
    let within = tokio::time::timeout(IN_WITHIN, let_in(address, keys, wanted)).await;
    within.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

async fn let_in(address: &str, keys: &Keys, wanted: u8) -> io::Result<TlsStream<TcpStream>> {
    let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
    let name = keys.expected(host).map_err(io::Error::other)?;
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let mut stream = keys.connector.connect(name, stream).await?;
    stream.write_all(&keys.token).await?;
    stream.write_u8(wanted).await?;
    stream.flush().await?;
    match stream.read_u8().await {
        Ok(WELCOME) => Ok(stream),
        Ok(_) => Err(io::Error::other("it is not a part of a cluster")),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Err(io::Error::new(
            io::ErrorKind::PermissionDenied,
            "it does not know this token",
        )),
        Err(error) => Err(error),
    }
}

/// An error with the address that it is about.
pub(super) fn closed(address: &str, error: &io::Error) -> Error {
    Error::Cluster {
        address: address.to_owned(),
        reason: format!("does not let this program in: {error}"),
    }
}
