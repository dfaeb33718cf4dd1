//! One renaming of a folder of Parquet files.

use std::io;
use std::path::Path;
use std::sync::Arc;

use arrow_array::RecordBatch;
use arrow_schema::SchemaRef;
use rustix::fs::{CWD, RenameFlags, renameat_with};
use rustix::io::Errno;

use crate::Error;
use crate::attempt::Attempt;
use crate::durable::{parent, sync_folder};
use crate::location::{Location, store_path};
use crate::part_file::{Part, PartFile};
use crate::target::{ParquetChange, Target};

pub(super) async fn commit(
    target: &Target,
    change: ParquetChange,
    attempt: Attempt,
    parts: &[Part],
) -> Result<(), Error> {
    let path = target.location.path();
    if parts.is_empty() {
        if change == ParquetChange::Append {
            return Ok(());
        }
        // A folder without a file would not say which columns the table has.
        write_empty(&attempt, &target.written).await?;
    }
    let write = |source: io::Error| Error::Write {
        path: path.to_path_buf(),
        source: Box::new(source),
    };
    sync_folder(attempt.folder()).map_err(write)?;
    match change {
        ParquetChange::Create => create(attempt, &target.location)?,
        ParquetChange::Append => append(attempt, path).map_err(write)?,
        ParquetChange::Replace => replace(attempt, path).map_err(write)?,
    }
    sync_folder(&parent(path)).map_err(write)
}

fn create(attempt: Attempt, location: &Location) -> Result<(), Error> {
    let path = location.path();
    match std::fs::rename(attempt.folder(), path) {
        Ok(()) => {
            attempt.keep();
            Ok(())
        }
        Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => Err(Error::Conflict {
            table: location.to_string(),
            source: None,
        }),
        Err(source) => Err(Error::Write {
            path: path.to_path_buf(),
            source: Box::new(source),
        }),
    }
}

/// A folder in the folder, so that readers see all new files or none.
fn append(attempt: Attempt, path: &Path) -> io::Result<()> {
    std::fs::rename(
        attempt.folder(),
        path.join(format!("part-{}", attempt.job())),
    )?;
    attempt.keep();
    sync_folder(path)
}

/// Two folders change places, in one step where the file system knows how. What is at the
/// attempt's place then is the old table, and goes when the attempt goes.
fn replace(attempt: Attempt, old: &Path) -> io::Result<()> {
    let new = attempt.folder();
    match renameat_with(CWD, new, CWD, old, RenameFlags::EXCHANGE) {
        Ok(()) => {}
        Err(Errno::INVAL | Errno::NOSYS | Errno::NOTSUP) => {
            let aside = parent(new).join(format!(".{}.old", attempt.job()));
            std::fs::rename(old, &aside)?;
            std::fs::rename(new, old)?;
            std::fs::rename(aside, new)?;
        }
        Err(error) => return Err(error.into()),
    }
    drop(attempt);
    Ok(())
}

async fn write_empty(attempt: &Attempt, schema: &SchemaRef) -> Result<(), Error> {
    let name = format!("part-00000-00000-{}.parquet", attempt.job());
    let location = store_path(&attempt.folder().join(&name))?;
    let mut file = PartFile::begin(Arc::new(attempt.store()), location, name, schema, false)?;
    file.write(&RecordBatch::new_empty(Arc::clone(schema)))
        .await?;
    file.finish().await?;
    Ok(())
}
