//! The ports that are ours: one for calls, and one for monitors alone if there is to be one.

use std::io;
use std::net::SocketAddr;

use tokio::net::TcpListener;

use crate::error::Error;
use crate::settings::Settings;
use crate::tls;

/// What a port is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Port {
    /// Calls, and everything else that has no port of its own.
    Calls,
    /// Health and metrics.
    Monitors,
}

/// The ports of a service.
#[derive(Debug)]
pub(crate) struct Ports {
    pub(crate) calls: Listener,
    pub(crate) monitors: Option<Listener>,
}

/// A port that is ours.
#[derive(Debug)]
pub(crate) struct Listener {
    pub(crate) socket: TcpListener,
    pub(crate) address: SocketAddr,
}

impl Ports {
    /// Takes the ports. Whether what will be shown there is good is looked at too: it should be known
    /// before minutes are spent on anything else.
    pub(crate) async fn take(settings: &Settings) -> Result<Self, Error> {
        if let Some(files) = &settings.tls {
            tls::check(files)?;
        }
        let calls = Listener::bind(settings.listen).await?;
        let monitors = match settings.listen_for_monitors {
            Some(address) => Some(Listener::bind(address).await?),
            None => None,
        };
        Ok(Self { calls, monitors })
    }
}

impl Listener {
    async fn bind(address: SocketAddr) -> Result<Self, Error> {
        let refused = |source: io::Error| {
            if source.kind() == io::ErrorKind::AddrInUse {
                Error::AddrInUse { address }
            } else {
                Error::Listen { address, source }
            }
        };
        let socket = TcpListener::bind(address).await.map_err(refused)?;
        let address = socket.local_addr().map_err(refused)?;
        Ok(Self { socket, address })
    }
}
