//! Where the parts of a cluster may listen.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};

use crate::Error;

/// Where everything listens that speaks without encryption.
pub(super) const HERE: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// Refuses an address that other machines reach: without credentials, connections are neither
/// encrypted nor authenticated, and whoever reaches a scheduler can run code on its executors.
pub(super) fn only_here(address: SocketAddr) -> Result<SocketAddr, Error> {
    if address.ip().is_loopback() {
        Ok(address)
    } else {
        Err(Error::Exposed {
            address: address.to_string(),
        })
    }
}

/// Refuses a name of another machine.
pub(super) async fn only_on_this_machine(address: &str) -> Result<(), Error> {
    let found = tokio::net::lookup_host(address).await;
    for found in found.map_err(|error| not_found(address, &error))? {
        only_here(found)?;
    }
    Ok(())
}

fn not_found(address: &str, error: &io::Error) -> Error {
    Error::Cluster {
        address: address.to_owned(),
        reason: format!("is not found: {error}"),
    }
}

/// The parts of `HOST:PORT`.
pub(super) fn host_and_port(address: &str) -> Result<(String, u16), Error> {
    let parts = address
        .rsplit_once(':')
        .and_then(|(host, port)| Some((host.to_owned(), port.parse().ok()?)));
    parts.ok_or_else(|| Error::Cluster {
        address: address.to_owned(),
        reason: "is not written as `HOST:PORT`".into(),
    })
}

/// A port at which nobody listens. Somebody else may take it before it is used; what listens then
/// says so.
pub(super) fn free_port() -> io::Result<u16> {
    Ok(TcpListener::bind((HERE, 0))?.local_addr()?.port())
}

/// Whether nobody listens at this port of this machine.
pub(super) fn is_free(port: u16) -> bool {
    TcpListener::bind((HERE, port)).is_ok()
}

/// A host as it stands in a URL.
pub(super) fn in_url(host: IpAddr) -> String {
    match host {
        IpAddr::V4(host) => host.to_string(),
        IpAddr::V6(host) => format!("[{host}]"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_other_machines_are_refused_with_a_hint() {
        for here in ["127.0.0.1:50050", "[::1]:0", "127.3.2.1:1"] {
            assert!(only_here(here.parse().unwrap()).is_ok(), "{here}");
        }
        for everywhere in [
            "0.0.0.0:50050",
            "[::]:50050",
            "192.0.2.7:1",
            "[2001:db8::1]:1",
        ] {
            let error = only_here(everywhere.parse().unwrap()).unwrap_err();
            assert!(matches!(error, Error::Exposed { .. }), "{everywhere}");
            assert!(error.hint().is_some());
        }
    }
}
