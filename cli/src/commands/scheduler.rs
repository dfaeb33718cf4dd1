//! `envelope scheduler`: takes jobs for a cluster.

use std::net::SocketAddr;
use std::sync::Arc;

use serde_json::json;

use crate::args::Scheduler;
use crate::error::Error;
use crate::lender::Store;
use crate::terminal::Terminal;
use crate::wiring::Wiring;

/// Schedules until it is asked to end.
pub(crate) async fn scheduler(
    wiring: &Wiring,
    args: &Scheduler,
    interrupted: impl Future<Output = Error>,
) -> Result<(), Error> {
    let credentials = args.credentials.files()?;
    let address = address(&args.listen).await?;
    let scheduler = batch::Scheduler::bind(address, credentials.as_ref()).await?;
    ready(&wiring.terminal, scheduler.address());
    let lender = Arc::new(Store(wiring.clone()));
    tokio::select! {
        ended = scheduler.run(Some(lender)) => Ok(ended?),
        _ = interrupted => Ok(()),
    }
}

/// The address behind `HOST:PORT`; where there are several, the one of the older protocol, which
/// programs that are told a number usually listen to.
async fn address(text: &str) -> Result<SocketAddr, Error> {
    let wrong = |reason: String| Error::Usage {
        reason: format!("`{text}` is not an address: {reason}"),
        hint: "write `HOST:PORT`, as in `127.0.0.1:50050`",
    };
    let found = tokio::net::lookup_host(text).await;
    let found: Vec<_> = found.map_err(|error| wrong(error.to_string()))?.collect();
    let older = found.iter().find(|address| address.is_ipv4());
    let chosen = older.or(found.first());
    chosen.copied().ok_or_else(|| wrong("nobody has it".into()))
}

fn ready(terminal: &Terminal, address: SocketAddr) {
    if terminal.json() {
        // That nobody listens any more is no reason not to schedule.
        _ = terminal.document(&json!({"cluster": format!("df://{address}")}));
        return;
    }
    terminal.say(&format!(
        "takes jobs at df://{address}  (`envelope executor --scheduler {address}` joins; Ctrl-C ends it)"
    ));
}
