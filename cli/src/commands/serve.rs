//! `envelope serve`: an envelope over HTTP.

use std::net::SocketAddr;
use std::sync::Arc;

use serde_json::json;

use crate::args::Serve;
use crate::error::Error;
use crate::progress::Waiting;
use crate::terminal::Look;
use crate::wiring::{Found, Wiring};

pub(crate) async fn serve(wiring: &Wiring, args: &Serve) -> Result<(), Error> {
    let found = wiring.find_trusted(&args.envelope.reference).await?;
    let waiting = Waiting::new(&wiring.terminal);
    let environments = wiring.environments(found.envelope.manifest());
    let on_ready = |address| {
        waiting.end();
        ready(wiring, &found, address);
    };
    let step = |step: &str| waiting.step(step);
    let envelope = Arc::clone(&found.envelope);
    Ok(server::run(
        Arc::clone(&envelope),
        environments.realise(&envelope, &step),
        args.options.settings(),
        on_ready,
    )
    .await?)
}

/// Tells where the service is, once it can answer.
fn ready(wiring: &Wiring, found: &Found, address: SocketAddr) {
    let url = format!("http://{address}");
    let terminal = &wiring.terminal;
    if terminal.json() {
        // That nobody listens any more is no reason not to serve.
        _ = terminal.document(&json!({"url": url, "digest": found.envelope.digest()}));
        return;
    }
    let title = terminal.paint_error(Look::Strong, &found.title());
    terminal.say(&format!(
        "{title} answers at {url}  (POST {url}/predict; Ctrl-C ends it)"
    ));
}
