//! The files of an attempt in a folder of this machine.

use std::collections::HashSet;
use std::io;
use std::path::{Path, PathBuf};

use super::names::job_of;
use super::staging;
use crate::Error;
use crate::claim::remove;
use crate::durable::{DurableStore, Gate, create_folders, parent};
use crate::part_file::Part;
use crate::target::{Change, Target};

/// A folder in which the files of an attempt are, and perhaps others.
#[derive(Debug)]
pub(super) struct Folder {
    path: PathBuf,
    /// What the job's files have in common, whichever attempt they are of.
    id: String,
    /// Whether the folder is the job's own, and not that of the table.
    staged: bool,
    /// Folders that were not there before, outermost first.
    made: Vec<PathBuf>,
    /// Open as long as files may be written.
    gate: Gate,
}

impl Folder {
    /// Makes the folder for the files of the job `id`.
    pub(super) fn prepare(target: &Target, id: &str) -> Result<Self, Error> {
        let table = &target.location;
        let (path, staged) = match target.change {
            // Files that the log does not name are not in the table.
            Change::Delta(_) => (table.path().to_path_buf(), false),
            Change::Parquet(_) => (staging(table, id), true),
        };
        let made = create_folders(&path).map_err(|source| Error::unwritable(&path, source))?;
        Ok(Self {
            path,
            id: id.to_owned(),
            staged,
            made,
            gate: Gate::default(),
        })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Whether it is the job's own.
    pub(super) fn is_staged(&self) -> bool {
        self.staged
    }

    /// Where files can be written as long as it is open.
    pub(super) fn store(&self) -> DurableStore {
        DurableStore::behind(self.gate.clone())
    }

    /// Makes a folder that goes when the attempt goes.
    pub(super) fn make(&mut self, folder: &Path) -> io::Result<()> {
        self.made.extend(create_folders(folder)?);
        Ok(())
    }

    /// Takes files out of `workshop`, which is deleted.
    pub(super) fn take_in(&self, workshop: &Path, parts: &[Part]) -> Result<(), Error> {
        for part in parts {
            let place = self.path.join(&part.name);
            create_folders(&parent(&place))
                .and_then(|_| std::fs::rename(workshop.join(&part.name), &place))
                .map_err(|source| Error::unwritable(&place, source))?;
        }
        delete_folder(workshop).map_err(|source| Error::unwritable(workshop, source))
    }

    /// Nothing can be written any more. Tasks that were stopped may have left a write behind that is
    /// not done yet.
    pub(super) fn close(&self) {
        self.gate.close();
    }

    /// Deletes what attempts at the job have left.
    pub(super) fn delete(&self) -> io::Result<()> {
        if self.staged {
            return std::fs::remove_dir_all(&self.path);
        }
        self.sweep(&HashSet::new())
    }

    /// The same, but not what is in `named`.
    pub(super) fn sweep(&self, named: &HashSet<String>) -> io::Result<()> {
        sweep(&self.path, &self.id, named)
    }

    /// Deletes folders that were made for the attempt. Only those that are empty go: somebody else may use
    /// them by now.
    pub(super) fn unmake(&self) {
        for folder in self.made.iter().rev() {
            let _ = std::fs::remove_dir(folder);
        }
    }
}

/// Deletes a folder that may be gone already.
pub(super) fn delete_folder(folder: &Path) -> io::Result<()> {
    match std::fs::remove_dir_all(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        outcome => outcome,
    }
}

/// Deletes files of the job `id` in `folder` and the folders of its partitions, but not those that
/// are named (by path below `folder`); and the folders of partitions that have no file.
pub(super) fn sweep(folder: &Path, id: &str, named: &HashSet<String>) -> io::Result<()> {
    let (files, partitions) = left_by(folder, id)?;
    for path in files {
        let below = path.strip_prefix(folder).unwrap_or(&path);
        if !named.contains(below.to_string_lossy().as_ref()) {
            // An upload that is dropped deletes its own file, perhaps at this very moment.
            remove(&path)?;
        }
    }
    // A write that failed, on a full disk say, has left no file, but the folder that it made for it.
    for partition in partitions.iter().rev() {
        // Those that are not empty stay.
        let _ = std::fs::remove_dir(partition);
    }
    Ok(())
}

/// Files of the job `id`, whole or not, in `folder` and the folders of its partitions; and these folders,
/// outer ones first.
fn left_by(folder: &Path, id: &str) -> io::Result<(Vec<PathBuf>, Vec<PathBuf>)> {
    let (mut files, mut partitions) = (vec![], vec![]);
    let mut folders = vec![folder.to_path_buf()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder)? {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            if job_of(&name) == Some(id) {
                files.push(entry.path());
            } else if name.contains('=') && entry.file_type()?.is_dir() {
                folders.push(entry.path());
                partitions.push(entry.path());
            }
        }
    }
    Ok((files, partitions))
}

#[cfg(test)]
mod tests {
    use super::super::names::file_name;
    use super::*;

    #[test]
    fn folders_of_partitions_go_with_the_last_file_or_without_one() {
        let top = tempfile::TempDir::new().unwrap();
        let at = |below: &str| top.path().join(below);
        let id = "0123456789abcdef0123456789abcdef";
        for folder in ["a=1/b=1", "a=1/b=2", "a=2", "a=3/b=1", "data"] {
            std::fs::create_dir_all(at(folder)).unwrap();
        }
        let ours = file_name(0, 0, id);
        for file in [format!("a=1/b=1/{ours}"), "a=2/x".into()] {
            std::fs::write(at(&file), "").unwrap();
        }
        sweep(top.path(), id, &HashSet::new()).unwrap();
        let left = ["a=1", "a=2", "a=2/x", "a=3", "data"].map(|below| at(below).exists());
        assert_eq!(left, [false, true, true, false, true]);
    }
}
