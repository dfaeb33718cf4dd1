//! Where the parts of a cluster may listen.

use std::net::{IpAddr, SocketAddr, TcpListener};

use crate::Error;

/// Refuses an address that other machines reach: connections are neither encrypted nor
/// authenticated, and whoever reaches a scheduler can run code on its executors.
pub(super) fn only_here(address: SocketAddr) -> Result<SocketAddr, Error> {
    if address.ip().is_loopback() {
        Ok(address)
    } else {
        Err(Error::Exposed {
            address: address.to_string(),
        })
    }
}

/// A port at which nobody listens. Somebody else may take it before it is used; what listens then
/// says so.
pub(super) fn free_port(host: IpAddr) -> std::io::Result<u16> {
    Ok(TcpListener::bind((host, 0))?.local_addr()?.port())
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
