//! Which shared libraries carried files ask for, found where the loader of this machine finds them.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use super::elf::{Elf, GlibcVersion};
use super::files::{Files, Origin, begins_like_elf};
use super::{CarriedError, MissingLibrary};

/// Libraries that are glibc's own: they fit the loader and the kernel of each machine, and only these.
const OF_GLIBC: [&str; 13] = [
    "ld-linux",
    "ld64.so",
    "libc.so.",
    "libm.so.",
    "libmvec.so.",
    "libdl.so.",
    "librt.so.",
    "libpthread.so.",
    "libutil.so.",
    "libresolv.so.",
    "libanl.so.",
    "libnss_",
    "libthread_db.so.",
];

/// What the files ask for, all together.
#[derive(Debug, Default)]
pub(super) struct Libraries {
    /// By name, and where they are here.
    pub(super) found: BTreeMap<String, PathBuf>,
    pub(super) of_glibc: BTreeSet<String>,
    pub(super) missing: BTreeMap<String, String>,
    pub(super) glibc: GlibcVersion,
}

/// A program or library whose needs are to be met.
struct Asking {
    name: String,
    /// Where it is, which `$ORIGIN` stands for.
    path: PathBuf,
    elf: Elf,
    /// Nothing works without it.
    is_essential: bool,
}

/// Looks for what `files`, and the programs `ours` that workers are started with, ask for.
pub(super) fn gather(files: &Files, ours: &[(&str, &[u8])]) -> Result<Libraries, CarriedError> {
    let mut search = Search::new(files);
    let mut asking: Vec<_> = ours
        .iter()
        .filter_map(|(name, bytes)| Asking::ours(name, bytes))
        .collect();
    asking.extend(files.iter().filter_map(Asking::carried));
    while let Some(one) = asking.pop() {
        asking.extend(search.meet(&one)?);
    }
    Ok(search.libraries)
}

impl Asking {
    fn ours(name: &str, bytes: &[u8]) -> Option<Self> {
        Some(Self {
            name: name.into(),
            path: PathBuf::new(),
            elf: Elf::of(bytes)?,
            is_essential: true,
        })
    }

    fn carried((name, origin): (&String, &Origin)) -> Option<Self> {
        let Origin::File { path, .. } = origin else {
            return None;
        };
        if !begins_like_elf(path) {
            return None;
        }
        let is_essential =
            name.starts_with("python/bin/") || name.starts_with("python/lib/libpython");
        Some(Self {
            elf: Elf::open(path)?,
            name: name.clone(),
            path: path.clone(),
            is_essential,
        })
    }
}

struct Search {
    /// Names of carried files: a package's libraries find each other.
    carried: BTreeSet<String>,
    /// Where carried files are here.
    places: BTreeSet<PathBuf>,
    folders: Vec<PathBuf>,
    libraries: Libraries,
}

impl Search {
    fn new(files: &Files) -> Self {
        let name = |path: &String| path.rsplit('/').next().map(String::from);
        let place = |origin: &Origin| match origin {
            Origin::File { path, .. } => path.parent().map(Path::to_owned),
            Origin::Compiled(_) | Origin::Link(_) => None,
        };
        Self {
            carried: files.keys().filter_map(name).collect(),
            places: files.values().filter_map(place).collect(),
            folders: system_folders(),
            libraries: Libraries::default(),
        }
    }

    /// Meets the needs of one file. Gives the libraries that are new, whose needs are to be met too.
    fn meet(&mut self, one: &Asking) -> Result<Vec<Asking>, CarriedError> {
        let asked = one.elf.asks.iter().copied().max().unwrap_or_default();
        self.libraries.glibc = self.libraries.glibc.max(asked);
        let mut new = vec![];
        for name in &one.elf.needed {
            if OF_GLIBC.iter().any(|own| name.starts_with(own)) {
                if !name.starts_with("ld") {
                    self.libraries.of_glibc.insert(name.clone());
                }
            } else if let Some(path) = self.find(name, one) {
                new.extend(self.add(name, path, one));
            } else if self.carried.contains(name) || self.libraries.found.contains_key(name) {
                // Loaded before it is asked for, as packages with libraries of their own do.
            } else if one.is_essential {
                return Err(CarriedError::MissingLibrary {
                    library: name.clone(),
                    asked_by: one.name.clone(),
                });
            } else {
                let missing = self.libraries.missing.entry(name.clone());
                missing.or_insert_with(|| one.name.clone());
            }
        }
        Ok(new)
    }

    /// In the order of the loader: where the file says, then where the system says.
    fn find(&self, name: &str, one: &Asking) -> Option<PathBuf> {
        let origin = one
            .path
            .parent()
            .unwrap_or(Path::new(""))
            .display()
            .to_string();
        let own = one.elf.run_path.iter().map(|folder| {
            PathBuf::from(
                folder
                    .replace("${ORIGIN}", &origin)
                    .replace("$ORIGIN", &origin),
            )
        });
        let own = own.filter(|folder| folder.is_absolute());
        let paths = own
            .chain(self.folders.iter().cloned())
            .map(|folder| folder.join(name));
        paths
            .filter(|path| begins_like_elf(path))
            .find(|path| Elf::open(path).is_some_and(|elf| elf.machine == one.elf.machine))
    }

    /// Nothing, where the library is one of the carried files, found from one of them: it will be
    /// found in the same way.
    fn add(&mut self, name: &str, path: PathBuf, one: &Asking) -> Option<Asking> {
        let folder = path.canonicalize().ok()?;
        let is_carried = folder
            .parent()
            .is_some_and(|folder| self.places.contains(folder));
        if (is_carried && self.carried.contains(name)) || self.libraries.found.contains_key(name) {
            return None;
        }
        let asking = Asking {
            name: name.into(),
            elf: Elf::open(&path)?,
            path: path.clone(),
            is_essential: one.is_essential,
        };
        self.libraries.found.insert(name.into(), path);
        Some(asking)
    }
}

impl Libraries {
    pub(super) fn missing(&self) -> Vec<MissingLibrary> {
        let missing = self
            .missing
            .iter()
            .map(|(library, asked_by)| MissingLibrary {
                library: library.clone(),
                asked_by: asked_by.clone(),
            });
        missing.collect()
    }
}

/// Where the loader of this machine looks: what its administrator has listed, then what is built in.
pub(super) fn system_folders() -> Vec<PathBuf> {
    let mut folders = listed(Path::new("/etc/ld.so.conf"), 0);
    let multiarch = format!("{}-linux-gnu", std::env::consts::ARCH);
    for folder in ["/lib", "/usr/lib"] {
        folders.push(Path::new(folder).join(&multiarch));
    }
    folders.extend(["/lib64", "/usr/lib64", "/lib", "/usr/lib"].map(PathBuf::from));
    folders
}

/// The folders in a file of `ldconfig`, and in those that it includes.
fn listed(file: &Path, depth: usize) -> Vec<PathBuf> {
    let text = fs::read_to_string(file).unwrap_or_default();
    let mut folders = vec![];
    for line in text.lines() {
        let line = line.split('#').next().unwrap_or_default().trim();
        match line.strip_prefix("include ") {
            Some(pattern) if depth < 4 => {
                let files = included(Path::new(pattern.trim()));
                folders.extend(files.iter().flat_map(|file| listed(file, depth + 1)));
            }
            Some(_) => {}
            None if line.starts_with('/') => folders.push(line.into()),
            None => {}
        }
    }
    folders
}

/// The files that `folder/*.conf` stands for, in the order of their names.
fn included(pattern: &Path) -> Vec<PathBuf> {
    let name = pattern.file_name().unwrap_or_default().to_string_lossy();
    let Some(ending) = name.strip_prefix('*') else {
        return vec![pattern.to_owned()];
    };
    let entries = fs::read_dir(pattern.parent().unwrap_or(pattern))
        .into_iter()
        .flatten();
    let paths = entries.flatten().map(|entry| entry.path());
    let mut files: Vec<_> = paths
        .filter(|path| path.to_string_lossy().ends_with(ending))
        .collect();
    files.sort();
    files
}
