//! The files of one attempt at a job until they are visible.

use std::path::{Path, PathBuf};

use uuid::Uuid;

use crate::Error;
use crate::durable::{DurableStore, Gate, create_folders, parent};
use crate::target::{Change, Target};

/// The files of one attempt at a job, not visible yet.
///
/// An attempt that is dropped deletes its files, so neither an error nor a cancelled job leaves
/// anything behind. It ends well by [`keep`](Self::keep) where the commit is one step, and by
/// [`submit`](Self::submit) where an answer must be awaited.
#[derive(Debug)]
#[must_use = "an attempt that is dropped deletes its files"]
pub(crate) struct Attempt {
    folder: PathBuf,
    job: String,
    /// Whether the folder is the attempt's own, and not that of the table.
    staged: bool,
    /// Folders that were not there before, outermost first.
    made: Vec<PathBuf>,
    /// Open as long as files may be written.
    gate: Gate,
    kept: bool,
}

impl Attempt {
    /// Makes room for the files of the job `id`, whose results go to `target`.
    pub(crate) fn begin(target: &Target, id: Uuid) -> Result<Self, Error> {
        let job = id.simple().to_string();
        let path = target.location.path();
        let (folder, staged) = match target.change {
            // Files that the log does not name are not in the table.
            Change::Delta(_) => (path.to_path_buf(), false),
            // A hidden folder beside the table, on the same disk, so that it can be moved in.
            Change::Parquet(_) => {
                let name = path.file_name().unwrap_or_default().to_string_lossy();
                (parent(path).join(format!(".{name}.{job}")), true)
            }
        };
        match create_folders(&folder) {
            Ok(made) => Ok(Self {
                folder,
                job,
                staged,
                made,
                gate: Gate::default(),
                kept: false,
            }),
            Err(source) => Err(Error::Write {
                path: folder,
                source: Box::new(source),
            }),
        }
    }

    /// Folder of its files.
    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// What the names of its files contain.
    pub(crate) fn job(&self) -> &str {
        &self.job
    }

    /// Where its files can be written, until it ends.
    pub(crate) fn store(&self) -> DurableStore {
        DurableStore::behind(self.gate.clone())
    }

    /// Makes a folder that goes when the attempt goes.
    pub(crate) fn make(&mut self, folder: &Path) -> std::io::Result<()> {
        self.made.extend(create_folders(folder)?);
        Ok(())
    }

    /// The files are visible now, and somebody else's.
    pub(crate) fn keep(mut self) {
        self.kept = true;
    }

    /// The files are named to the log. Until it answers, readers may see them.
    pub(crate) fn submit(mut self) -> Submitted {
        self.kept = true;
        Submitted(self)
    }

    fn delete(&self) -> std::io::Result<()> {
        if self.staged {
            return std::fs::remove_dir_all(&self.folder);
        }
        for entry in std::fs::read_dir(&self.folder)? {
            let entry = entry?;
            if entry.file_name().to_string_lossy().contains(&self.job) {
                delete_file(&entry.path())?;
            }
        }
        Ok(())
    }
}

/// An upload that is dropped deletes its own file, perhaps at this very moment.
fn delete_file(path: &Path) -> std::io::Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        outcome => outcome,
    }
}

impl Drop for Attempt {
    fn drop(&mut self) {
        if self.kept {
            return;
        }
        // Tasks that were stopped may have left a write behind that is not done yet.
        self.gate.close();
        if let Err(error) = self.delete() {
            let folder = self.folder.display();
            tracing::warn!(%error, job = self.job, "files of a failed job stay in `{folder}`; no reader sees them");
        }
        for folder in self.made.iter().rev() {
            // Only those that are empty go: somebody else may use them by now.
            let _ = std::fs::remove_dir(folder);
        }
    }
}

/// Files that readers may see. Dropping it leaves them: a file too many costs space, a file too few
/// costs a table.
#[derive(Debug)]
pub(crate) struct Submitted(Attempt);

impl Submitted {
    /// What the names of its files contain.
    pub(crate) fn job(&self) -> &str {
        &self.0.job
    }

    /// The log has not taken the files: they are deleted.
    pub(crate) fn withdraw(mut self) {
        self.0.kept = false;
    }
}
