//! `envelope import`: a file into the store.

use std::time::SystemTime;

use crate::args::Import;
use crate::error::Error;
use crate::trust;
use crate::wiring::Wiring;

pub(crate) async fn import(wiring: &Wiring, args: &Import) -> Result<(), Error> {
    let registry = wiring.registry().await?;
    #[expect(clippy::disallowed_methods, reason = "this is where the time comes in")]
    let now = SystemTime::now();
    let version = registry.save(&args.file, now).await?;
    let stored = registry.envelope_path(&version.digest)?;
    registry.close().await;
    trust::take_along(&args.file, &stored, version.digest)?;
    let terminal = &wiring.terminal;
    if terminal.json() {
        return terminal.document(&version);
    }
    terminal.print(&format!("{}:{}\n", version.name, version.version))
}
