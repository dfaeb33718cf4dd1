//! Which files an environment consists of: the interpreter's, and those of its packages.

use std::collections::BTreeMap;
use std::fs::{self, DirEntry, File};
use std::io::{self, Read as _};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use super::CarriedError;
use super::elf::is_elf;
use crate::{Environment, Error};

/// What becomes a file, by the path that it gets.
pub(super) type Files = BTreeMap<String, Origin>;

/// What a carried file is made of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Origin {
    /// The bytes of a file.
    File { path: PathBuf, is_executable: bool },
    /// Compiled code, which must not be compared with its source: that has another time then.
    Compiled(PathBuf),
    /// A link to another carried file, relative.
    Link(PathBuf),
}

/// Folders of the standard library that no service has a use for: tests, windows, other programs.
const UNUSED_FOLDERS: [&str; 9] = [
    "test",
    "tests",
    "idlelib",
    "tkinter",
    "turtledemo",
    "ensurepip",
    "lib2to3",
    "site-packages",
    "dist-packages",
];

/// The same for its modules.
const UNUSED_MODULES: [&str; 5] = ["_tkinter", "_test", "_ctypes_test", "_xxtest", "xxlimited"];

/// Where an installer has put what is about this machine, not about the package.
const ABOUT_INSTALLING: [&str; 2] = ["direct_url.json", "uv_cache.json"];

/// The name of the interpreter's program.
pub(super) fn program(version: &str) -> String {
    format!("python{}", minor(version))
}

fn minor(version: &str) -> String {
    version.splitn(3, '.').take(2).collect::<Vec<_>>().join(".")
}

pub(super) fn of_environment(environment: &Environment) -> Result<Files, Error> {
    let mut walk = Walk {
        cache_tag: &environment.cache_tag,
        files: Files::new(),
    };
    walk.interpreter(environment)?;
    walk.packages(environment)?;
    Ok(walk.files)
}

struct Walk<'a> {
    cache_tag: &'a str,
    files: Files,
}

impl Walk<'_> {
    fn interpreter(&mut self, environment: &Environment) -> Result<(), Error> {
        let program_name = program(&environment.version);
        let python = environment.python.canonicalize();
        let python = python.map_err(|source| reading(&environment.python, source))?;
        self.add_program(format!("python/bin/{program_name}"), python);
        for name in ["python", "python3"] {
            let link = Origin::Link(format!("../../python/bin/{program_name}").into());
            self.files.insert(format!("environment/bin/{name}"), link);
        }
        if let Some(library) = &environment.library {
            let name = library.file_name().unwrap_or_default().to_string_lossy();
            self.add_program(format!("python/lib/{name}"), library.clone());
        }
        for folder in ["lib", "lib64"] {
            let folder = format!("{folder}/{program_name}");
            let path = environment.base.join(&folder);
            // Where `lib64` is a link to `lib`, it would be carried twice.
            if path.is_dir() && !path.parent().is_some_and(Path::is_symlink) {
                self.folder(&path, &format!("python/{folder}"), &is_used)?;
            }
        }
        Ok(())
    }

    fn packages(&mut self, environment: &Environment) -> Result<(), Error> {
        let prefix = environment.python.parent().and_then(Path::parent);
        let prefix = prefix.unwrap_or(&environment.base);
        for entry in entries(prefix)? {
            let name = name_of(&entry);
            let path = entry.path();
            let carried = format!("environment/{name}");
            match name.as_str() {
                "include" => {}
                "bin" => self.programs(&path)?,
                _ if path.is_symlink() => self.link(&path, carried)?,
                _ if path.is_dir() => self.folder(&path, &carried, &is_about_package)?,
                // `pyvenv.cfg`, the marker and so on: about this machine.
                _ => {}
            }
        }
        Ok(())
    }

    /// Scripts name an interpreter of this machine and are not carried; a package's programs are.
    fn programs(&mut self, folder: &Path) -> Result<(), Error> {
        for entry in entries(folder)? {
            let path = entry.path();
            if !path.is_symlink() && begins_like_elf(&path) {
                self.add_program(format!("environment/bin/{}", name_of(&entry)), path);
            }
        }
        Ok(())
    }

    fn folder(
        &mut self,
        folder: &Path,
        carried: &str,
        wanted: &dyn Fn(&str) -> bool,
    ) -> Result<(), Error> {
        for entry in entries(folder)? {
            let name = name_of(&entry);
            if !wanted(&name) {
                continue;
            }
            let (path, carried) = (entry.path(), format!("{carried}/{name}"));
            let kind = entry.file_type().map_err(|source| reading(&path, source))?;
            if kind.is_dir() {
                self.folder(&path, &carried, wanted)?;
            } else if kind.is_symlink() {
                self.link(&path, carried)?;
            } else if name.ends_with(".pyc") && folder.ends_with("__pycache__") {
                self.compiled(path, carried);
            } else if kind.is_file() {
                self.file(path, carried)?;
            }
        }
        Ok(())
    }

    fn file(&mut self, path: PathBuf, carried: String) -> Result<(), Error> {
        let mode = fs::metadata(&path).map_err(|source| reading(&path, source))?;
        let is_executable = mode.permissions().mode() & 0o111 != 0;
        self.files.insert(
            carried,
            Origin::File {
                path,
                is_executable,
            },
        );
        Ok(())
    }

    /// Code that was compiled for this interpreter from the source as it is now; else it is compiled
    /// again when it is needed.
    fn compiled(&mut self, path: PathBuf, carried: String) {
        if is_current(&path, self.cache_tag) {
            self.files.insert(carried, Origin::Compiled(path));
        }
    }

    /// A link stays one when it leads to its own surroundings, and becomes what it leads to otherwise.
    fn link(&mut self, path: &Path, carried: String) -> Result<(), Error> {
        let target = fs::read_link(path).map_err(|source| reading(path, source))?;
        if target.is_relative() && target.components().count() == 1 {
            self.files.insert(carried, Origin::Link(target));
            return Ok(());
        }
        let found = path
            .canonicalize()
            .map_err(|source| reading(path, source))?;
        if found.is_file() {
            return self.file(found, carried);
        }
        Err(Error::Carried(CarriedError::Uncarried {
            path: path.to_owned(),
            reason: "it is a link to a folder elsewhere".into(),
        }))
    }

    fn add_program(&mut self, carried: String, path: PathBuf) {
        let origin = Origin::File {
            path,
            is_executable: true,
        };
        self.files.insert(carried, origin);
    }
}

/// Whether a file or folder of the standard library is of use in a service.
fn is_used(name: &str) -> bool {
    let is_for_linking =
        name.starts_with("config-") || name.ends_with(".a") || name.ends_with(".o");
    let is_unused_module =
        name.contains(".so") && UNUSED_MODULES.iter().any(|module| name.starts_with(module));
    !UNUSED_FOLDERS.contains(&name) && !is_for_linking && !is_unused_module
}

fn is_about_package(name: &str) -> bool {
    !ABOUT_INSTALLING.contains(&name)
}

/// `__pycache__/name.cpython-311.pyc` holds the time and size of `name.py` (PEP 552).
fn is_current(compiled: &Path, cache_tag: &str) -> bool {
    let name = compiled.file_name().unwrap_or_default().to_string_lossy();
    let Some(module) = name.strip_suffix(&format!(".{cache_tag}.pyc")) else {
        return false;
    };
    let source = compiled.parent().and_then(Path::parent);
    let source = source.map(|folder| folder.join(format!("{module}.py")));
    let Some(Ok(source)) = source.map(fs::metadata) else {
        return false;
    };
    let Ok(header) = beginning(compiled, 16) else {
        return false;
    };
    let number = |at: usize| {
        header
            .get(at..at + 4)
            .and_then(|bytes| bytes.first_chunk().copied())
            .map(u32::from_le_bytes)
    };
    // 32 bits of each are kept.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "as CPython does"
    )]
    let expected = [0, source.mtime() as u32, source.size() as u32];
    [4, 8, 12].map(number) == expected.map(Some)
}

/// The code of a compiled file, marked as not to be compared with its source.
pub(super) fn unchecked(mut compiled: Vec<u8>) -> Vec<u8> {
    if let Some(header) = compiled.get_mut(4..16) {
        header.copy_from_slice(&[1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    }
    compiled
}

pub(super) fn begins_like_elf(path: &Path) -> bool {
    beginning(path, 5).is_ok_and(|bytes| is_elf(&bytes))
}

fn beginning(path: &Path, bytes: u64) -> io::Result<Vec<u8>> {
    let mut found = vec![];
    File::open(path)?.take(bytes).read_to_end(&mut found)?;
    Ok(found)
}

fn entries(folder: &Path) -> Result<Vec<DirEntry>, Error> {
    let entries = fs::read_dir(folder).and_then(Iterator::collect::<io::Result<_>>);
    entries.map_err(|source| reading(folder, source))
}

fn name_of(entry: &DirEntry) -> String {
    entry.file_name().to_string_lossy().into_owned()
}

pub(super) fn reading(path: &Path, source: io::Error) -> Error {
    Error::Io {
        doing: format!("cannot read `{}`", path.display()),
        source,
    }
}
