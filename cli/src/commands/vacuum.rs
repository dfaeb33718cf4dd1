//! `envelope vacuum`: the files of a table that nobody needs.

use std::time::{Duration, SystemTime};

use serde_json::json;

use crate::args::Vacuum;
use crate::commands::show::size;
use crate::error::Error;
use crate::wiring::Wiring;

/// Deletes the files, or only tells which they are.
pub(crate) async fn vacuum(wiring: &Wiring, args: &Vacuum) -> Result<(), Error> {
    let age = Duration::from_secs(u64::from(args.older_than) * 3600);
    #[expect(clippy::disallowed_methods, reason = "this is where the time comes in")]
    let now = SystemTime::now();
    let limit = now.checked_sub(age).unwrap_or(SystemTime::UNIX_EPOCH);
    let (stores, warehouse) = (wiring.stores(), args.warehouse.as_deref());
    let vacuumed = batch::vacuum(&stores, warehouse, &args.table, limit, args.dry_run).await?;
    let terminal = &wiring.terminal;
    if terminal.json() {
        return terminal.document(&json!({
            "table": args.table,
            "dry_run": args.dry_run,
            "bytes": vacuumed.bytes,
            "files": vacuumed.files,
            "jobs_running": vacuumed.jobs_running,
        }));
    }
    if args.dry_run {
        for file in &vacuumed.files {
            terminal.print(&file.display().to_string())?;
        }
    }
    let (count, bytes) = (vacuumed.files.len(), size(vacuumed.bytes));
    let done = if args.dry_run { "would go" } else { "are gone" };
    let running = match vacuumed.jobs_running {
        0 => String::new(),
        jobs => format!("; those of {jobs} running jobs stay"),
    };
    terminal.say(&format!("{count} files ({bytes}) {done}{running}"));
    Ok(())
}
