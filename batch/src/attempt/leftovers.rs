//! What attempts have left behind that ended without a word.

use std::io;
use std::path::Path;

use super::folder::{delete_folder, sweep};
use super::names::job_of;
use super::staging;
use crate::Format;
use crate::claim::{CLAIMS, Claim};
use crate::commit::Finished;
use crate::identity::Key;
use crate::location::Location;
use crate::notes::Notes;

/// Deletes what a process has left that died between its commit and its end. Whoever works on the job
/// now sees to that itself.
pub(crate) async fn tidy(table: &Location, format: Format, key: &Key, finished: &Finished) {
    if table.bucket().is_some() {
        return tidy_bucket(table, key).await;
    }
    if let Err(error) = tidy_folder(table, format, key, finished) {
        tracing::warn!(%error, "leftovers of a finished job stay beside `{table}`");
    }
}

/// Files that another attempt has left are left to `vacuum`: it may be alive.
async fn tidy_bucket(table: &Location, key: &Key) {
    if let Ok(notes) = Notes::find(table, key.short()).await
        && notes.record().is_some()
        && let Err(error) = notes.end().await
    {
        tracing::warn!(%error, "notes of a finished job stay in `{table}`");
    }
}

fn tidy_folder(table: &Location, format: Format, key: &Key, finished: &Finished) -> io::Result<()> {
    let place = Claim::place(table, format, key.short());
    if !place.exists() || (format == Format::Delta && finished.version.is_none()) {
        return Ok(());
    }
    let Some(claim) = Claim::attempt(&place)? else {
        return Ok(());
    };
    match format {
        Format::Delta => sweep(table.path(), key.short(), &finished.files)?,
        Format::Parquet => delete_folder(&staging(table, key.short()))?,
    }
    claim.end();
    Ok(())
}

/// Removes the folder of a partition that has no file, and those above it, up to `top`.
pub(crate) fn remove_empty(folder: &Path, top: &Path) {
    for folder in folder.ancestors().take_while(|folder| *folder != top) {
        if std::fs::remove_dir(folder).is_err() {
            return;
        }
    }
}

/// Whether all that there is at `path` is what attempts at the jobs of `table` have left. Their notes
/// tell that: without them a file is somebody else's.
pub(crate) fn is_left_over(table: &Path, path: &Path) -> io::Result<bool> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    if let Some(id) = job_of(&name) {
        return Ok(table.join(CLAIMS).join(id).is_dir());
    }
    if !name.contains('=') || !path.is_dir() {
        return Ok(name == CLAIMS);
    }
    for entry in std::fs::read_dir(path)? {
        if !is_left_over(table, &entry?.path())? {
            return Ok(false);
        }
    }
    Ok(true)
}
