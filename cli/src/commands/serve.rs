//! `envelope serve`: an envelope over HTTP.

use std::sync::Arc;

use async_trait::async_trait;
use serde_json::json;
use server::{Cause, Envelopes, Origin, Wanted};

use crate::args::Serve;
use crate::error::Error;
use crate::progress::Waiting;
use crate::terminal::Look;
use crate::wiring::{Found, Wiring};

/// What the reference means now: a newer version, other tags, another file of the same name.
struct Reference<'w> {
    wiring: &'w Wiring,
    reference: &'w str,
}

#[async_trait]
impl Origin for Reference<'_> {
    async fn envelope(&self) -> Result<Wanted, Cause> {
        let found = self.wiring.find_trusted(self.reference).await?;
        Ok(Wanted {
            environments: self.wiring.environments(found.envelope.manifest()),
            envelope: found.envelope,
        })
    }
}

pub(crate) async fn serve(wiring: &Wiring, args: &Serve) -> Result<(), Error> {
    let found = wiring.find_trusted(&args.envelope.reference).await?;
    let waiting = Waiting::new(&wiring.terminal);
    let environments = wiring.environments(found.envelope.manifest());
    let settings = args.options.settings();
    let on_ready = |address| {
        waiting.end();
        ready(wiring, &found, &settings.url(address));
    };
    let step = |step: &str| waiting.step(step);
    let origin = Reference {
        wiring,
        reference: &args.envelope.reference,
    };
    Ok(server::run(
        Envelopes::followed(Arc::clone(&found.envelope), &origin),
        environments.realise(&found.envelope, &step),
        settings.clone(),
        on_ready,
    )
    .await?)
}

/// Tells where the service is, once it can answer.
fn ready(wiring: &Wiring, found: &Found, url: &str) {
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
