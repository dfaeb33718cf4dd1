//! Certificates that are renewed while the service runs.

use std::sync::Arc;
use std::time::Duration;

use tokio::signal::unix::Signal;
use tokio::task::spawn_blocking;

use super::{Certificates, TlsError};
use crate::follow::{Chain, every};

/// Reads the files again on `hangup`, and when there is something else in them where they are watched.
/// Never ends by itself.
pub(crate) async fn renew(
    certificates: &Arc<Certificates>,
    mut hangup: Signal,
    watch: Option<Duration>,
) {
    loop {
        let is_asked = tokio::select! {
            _ = hangup.recv() => true,
            () = every(watch) => false,
        };
        let certificates = Arc::clone(certificates);
        let read = move || (is_asked || certificates.are_others()).then(|| certificates.read());
        // A file may be on a disk that has gone to sleep.
        match spawn_blocking(read).await {
            Ok(read) => read.iter().for_each(tell),
            Err(error) => tracing::error!(%error, "the certificate was not read again"),
        }
    }
}

fn tell(read: &Result<(), TlsError>) {
    match read {
        Ok(()) => tracing::info!("the certificate was read again"),
        Err(error) => tracing::error!(
            code = error.code(),
            error = %Chain(error),
            "the certificate cannot be read again; the one before is still shown"
        ),
    }
}
