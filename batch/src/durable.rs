//! A local object store that keeps its word: what it has written survives a power cut.
//!
//! `object_store`'s own local store renames files into place without asking the disk to keep
//! either the file or its name. After a power cut a file may be gone, or be there with no bytes in
//! it; both would damage a Delta log that readers already rely on. Here a write goes to a hidden
//! file, the file is synced, it gets its name, and then the folder is synced.

use std::fs::File;
use std::io::{self, Read as _, Seek as _, Write as _};
use std::ops::Range;
use std::os::unix::fs::FileExt as _;
use std::path::{Path as FilePath, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use async_trait::async_trait;
use futures::stream::BoxStream;
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta,
    ObjectStore, PutMode, PutMultipartOptions, PutOptions, PutPayload, PutResult, RenameOptions,
    Result, UploadPart,
};

use crate::point;

/// The local file system, from `/` on; writes are done when they are on the disk.
#[derive(Debug, Clone)]
pub(crate) struct DurableStore {
    reads: Arc<LocalFileSystem>,
    gate: Gate,
}

impl DurableStore {
    /// A store that can always be written.
    pub(crate) fn local() -> Self {
        Self::behind(Gate::default())
    }

    /// A store that can be written until `gate` is closed.
    pub(crate) fn behind(gate: Gate) -> Self {
        Self {
            reads: Arc::new(LocalFileSystem::new()),
            gate,
        }
    }

    fn unnamed(&self, location: &Path) -> Result<Unnamed> {
        Unnamed::beside(self.reads.path_to_filesystem(location)?).map_err(failed)
    }

    /// Does blocking work on another thread. It goes on when nobody waits for it any more, so it
    /// must pass the gate.
    async fn write<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> io::Result<T> + Send + 'static,
    ) -> io::Result<T> {
        let gate = self.gate.clone();
        tokio::task::spawn_blocking(move || gate.pass(work)).await?
    }
}

/// Lets writes through until it is closed.
///
/// Writes outlive the tasks that ask for them. Who deletes what was written must know that
/// nothing comes after.
#[derive(Debug, Clone, Default)]
pub(crate) struct Gate {
    closed: Arc<RwLock<bool>>,
}

impl Gate {
    fn pass<T>(&self, work: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
        let closed = self.closed.read().unwrap_or_else(PoisonError::into_inner);
        if *closed {
            return Err(io::Error::other("the job has ended"));
        }
        work()
    }

    /// Waits for the writes that have begun; no other begins.
    pub(crate) fn close(&self) {
        *self.closed.write().unwrap_or_else(PoisonError::into_inner) = true;
    }
}

/// A file that has a hidden name until it is complete. The hidden name contains the later one, so
/// that whoever cleans up after a job finds it.
#[derive(Debug)]
struct Unnamed {
    hidden: PathBuf,
    target: PathBuf,
}

impl Unnamed {
    fn beside(target: PathBuf) -> io::Result<Self> {
        static WRITES: AtomicU64 = AtomicU64::new(0);
        let write = WRITES.fetch_add(1, Ordering::Relaxed);
        let name = target
            .file_name()
            .ok_or(io::ErrorKind::InvalidFilename)?
            .to_string_lossy();
        let hidden = format!(".{name}.{}-{write}", std::process::id());
        Ok(Self {
            hidden: parent(&target).join(hidden),
            target,
        })
    }

    fn create(&self) -> io::Result<File> {
        let create = || {
            create_folders(&parent(&self.target))?;
            File::create_new(&self.hidden)
        };
        match create() {
            // Somebody else who ends has found the folder empty, and has taken it away.
            Err(error) if error.kind() == io::ErrorKind::NotFound => create(),
            outcome => outcome,
        }
    }

    /// Gives the file its name, durably.
    fn publish(&self, file: &File, mode: &PutMode) -> io::Result<()> {
        file.sync_all()?;
        if *mode == PutMode::Create {
            std::fs::hard_link(&self.hidden, &self.target)?;
            std::fs::remove_file(&self.hidden)?;
        } else {
            std::fs::rename(&self.hidden, &self.target)?;
        }
        sync_folder(&parent(&self.target))
    }

    fn put(&self, payload: &PutPayload, mode: &PutMode) -> io::Result<()> {
        let mut file = self.create()?;
        let written = payload.iter().try_for_each(|bytes| file.write_all(bytes));
        written
            .and_then(|()| self.publish(&file, mode))
            .inspect_err(|_| self.forget())
    }

    fn forget(&self) {
        // Nobody reads hidden files: one that stays costs space only.
        let _ = std::fs::remove_file(&self.hidden);
    }
}

/// Whether a name is one that files have here until they are complete.
pub(crate) fn is_incomplete(name: &str) -> bool {
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let ending = name
        .strip_prefix('.')
        .and_then(|name| name.rsplit_once('.'))
        .and_then(|(_, ending)| ending.split_once('-'));
    ending.is_some_and(|(process, write)| is_number(process) && is_number(write))
}

impl std::fmt::Display for DurableStore {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "Durable({})", self.reads)
    }
}

#[async_trait]
impl ObjectStore for DurableStore {
    async fn put_opts(
        &self,
        location: &Path,
        payload: PutPayload,
        options: PutOptions,
    ) -> Result<PutResult> {
        if let PutMode::Update(_) = options.mode {
            // The local store knows no versions of a file; let it say so.
            return self.reads.put_opts(location, payload, options).await;
        }
        let unnamed = self.unnamed(location)?;
        let put = move || {
            unnamed.put(&payload, &options.mode)?;
            if options.mode == PutMode::Create {
                point::reached(point::LOG_WRITTEN);
            }
            Ok(())
        };
        match self.write(put).await {
            Ok(()) => Ok(PutResult {
                e_tag: None,
                version: None,
            }),
            Err(source) if source.kind() == io::ErrorKind::AlreadyExists => {
                Err(Error::AlreadyExists {
                    path: location.to_string(),
                    source: Box::new(source),
                })
            }
            Err(source) => Err(failed(source)),
        }
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        _options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        let unnamed = Arc::new(self.unnamed(location)?);
        let new = Arc::clone(&unnamed);
        let file = self.write(move || new.create()).await.map_err(failed)?;
        Ok(Box::new(DurableUpload {
            store: self.clone(),
            unnamed,
            file: Arc::new(file),
            end: 0,
        }))
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        self.reads.get_opts(location, options).await
    }

    async fn get_ranges(
        &self,
        location: &Path,
        ranges: &[Range<u64>],
    ) -> Result<Vec<bytes::Bytes>> {
        let path = self.reads.path_to_filesystem(location)?;
        let wanted = ranges.to_vec();
        let read = tokio::task::spawn_blocking(move || read_ranges(&path, &wanted)).await;
        match read.map_err(io::Error::from).flatten() {
            Ok(read) => Ok(read),
            // What is wrong has the names there that readers know.
            Err(_) => self.reads.get_ranges(location, ranges).await,
        }
    }

    fn delete_stream(
        &self,
        locations: BoxStream<'static, Result<Path>>,
    ) -> BoxStream<'static, Result<Path>> {
        self.reads.delete_stream(locations)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.reads.list(prefix)
    }

    fn list_with_offset(
        &self,
        prefix: Option<&Path>,
        offset: &Path,
    ) -> BoxStream<'static, Result<ObjectMeta>> {
        self.reads.list_with_offset(prefix, offset)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.reads.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.reads.copy_opts(from, to, options).await
    }

    async fn rename_opts(&self, from: &Path, to: &Path, options: RenameOptions) -> Result<()> {
        self.reads.rename_opts(from, to, options).await
    }
}

/// The bytes of a file at some places. Memory that is read into is not filled with zeros before, which
/// takes longer than to read.
fn read_ranges(path: &FilePath, ranges: &[Range<u64>]) -> io::Result<Vec<bytes::Bytes>> {
    let mut file = File::open(path)?;
    let read = ranges.iter().map(|range| {
        let length = range.end.saturating_sub(range.start);
        let mut bytes = Vec::with_capacity(usize::try_from(length).map_err(io::Error::other)?);
        file.seek(io::SeekFrom::Start(range.start))?;
        (&file).take(length).read_to_end(&mut bytes)?;
        match bytes.len() as u64 == length {
            true => Ok(bytes.into()),
            false => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    });
    read.collect()
}

/// A file that is written in parts. It has no name, and is deleted, unless it is completed.
#[derive(Debug)]
struct DurableUpload {
    store: DurableStore,
    unnamed: Arc<Unnamed>,
    file: Arc<File>,
    /// Where the next part begins.
    end: u64,
}

#[async_trait]
impl MultipartUpload for DurableUpload {
    fn put_part(&mut self, data: PutPayload) -> UploadPart {
        let (store, file) = (self.store.clone(), Arc::clone(&self.file));
        let mut offset = self.end;
        self.end += data.content_length() as u64;
        Box::pin(async move {
            let write = move || {
                for bytes in &data {
                    file.write_all_at(bytes, offset)?;
                    offset += bytes.len() as u64;
                }
                Ok(())
            };
            store.write(write).await.map_err(failed)
        })
    }

    async fn complete(&mut self) -> Result<PutResult> {
        let (unnamed, file) = (Arc::clone(&self.unnamed), Arc::clone(&self.file));
        self.store
            .write(move || unnamed.publish(&file, &PutMode::Overwrite))
            .await
            .map_err(failed)?;
        Ok(PutResult {
            e_tag: None,
            version: None,
        })
    }

    async fn abort(&mut self) -> Result<()> {
        self.unnamed.forget();
        Ok(())
    }
}

impl Drop for DurableUpload {
    fn drop(&mut self) {
        self.unnamed.forget();
    }
}

/// Makes `folder` and those above it, durably. Gives those that were new, outermost first.
pub(crate) fn create_folders(folder: &FilePath) -> io::Result<Vec<PathBuf>> {
    let missing: Vec<&FilePath> = folder
        .ancestors()
        .take_while(|folder| !folder.exists())
        .collect();
    let mut made: Vec<PathBuf> = vec![];
    for folder in missing.into_iter().rev() {
        match std::fs::create_dir(folder).and_then(|()| sync_folder(&parent(folder))) {
            Ok(()) => made.push(folder.to_path_buf()),
            // Somebody else was quicker, and it is theirs.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && folder.is_dir() => {}
            Err(error) => {
                for folder in made.iter().rev() {
                    // Best effort: the first error is the one to report.
                    let _ = std::fs::remove_dir(folder);
                }
                return Err(error);
            }
        }
    }
    Ok(made)
}

/// Makes a file that is on the disk, whole, when this is done. Refuses one that is there.
pub(crate) fn write_new(path: &FilePath, bytes: &[u8]) -> io::Result<()> {
    let payload = PutPayload::from(bytes.to_vec());
    Unnamed::beside(path.to_path_buf())?.put(&payload, &PutMode::Create)
}

/// Asks the disk to keep the names in `folder`.
pub(crate) fn sync_folder(folder: &FilePath) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

/// The folder that holds `path`.
pub(crate) fn parent(path: &FilePath) -> PathBuf {
    path.parent().unwrap_or(path).to_path_buf()
}

fn failed(source: io::Error) -> Error {
    Error::Generic {
        store: "Durable",
        source: Box::new(source),
    }
}

#[cfg(test)]
mod tests {
    use object_store::ObjectStoreExt as _;
    use tempfile::TempDir;

    use super::*;

    fn folder() -> (TempDir, Path) {
        let folder = TempDir::new().unwrap();
        let path = Path::from_absolute_path(folder.path()).unwrap();
        (folder, path)
    }

    fn names(folder: &TempDir) -> Vec<String> {
        let entries = std::fs::read_dir(folder.path()).unwrap();
        entries
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect()
    }

    #[tokio::test]
    async fn a_file_that_is_there_is_not_created_again() {
        let (folder, path) = folder();
        let (store, file) = (DurableStore::local(), path.join("0.json"));
        let create = || PutOptions {
            mode: PutMode::Create,
            ..PutOptions::default()
        };
        store
            .put_opts(&file, "first".into(), create())
            .await
            .unwrap();
        let error = store
            .put_opts(&file, "second".into(), create())
            .await
            .unwrap_err();
        assert!(matches!(error, Error::AlreadyExists { .. }), "{error}");
        assert_eq!(
            store.get(&file).await.unwrap().bytes().await.unwrap(),
            "first"
        );
        assert_eq!(names(&folder), ["0.json"]);
    }

    #[tokio::test]
    async fn ranges_are_read_as_they_are_in_the_file_or_not_at_all() {
        let (folder, path) = folder();
        std::fs::write(folder.path().join("f"), b"0123456789").unwrap();
        let (store, file) = (DurableStore::local(), path.clone().join("f"));
        let read = store.get_ranges(&file, &[7..10, 0..2, 4..5]).await.unwrap();
        assert_eq!(read, [&b"789"[..], b"01", b"4"]);
        let beyond = store.get_ranges(&file, std::slice::from_ref(&(8..99)));
        assert!(beyond.await.is_err());
        let gone = path.join("gone");
        let missing = store.get_ranges(&gone, std::slice::from_ref(&(0..1)));
        let error = missing.await.unwrap_err();
        assert!(matches!(error, Error::NotFound { .. }), "{error}");
    }

    #[tokio::test]
    async fn an_upload_has_its_name_only_when_it_is_complete() {
        let (folder, path) = folder();
        let (store, file) = (DurableStore::local(), path.join("part.parquet"));
        let mut upload = store.put_multipart(&file).await.unwrap();
        assert!(is_incomplete(&names(&folder)[0]), "{:?}", names(&folder));
        assert!(!is_incomplete("part.parquet") && !is_incomplete(".0.json.crc"));
        upload.put_part("half".into()).await.unwrap();
        assert!(store.head(&file).await.is_err());
        upload.complete().await.unwrap();
        assert_eq!(store.head(&file).await.unwrap().size, 4);
        assert_eq!(names(&folder), ["part.parquet"]);
    }

    #[test]
    fn folders_that_were_new_are_told_outermost_first() {
        let folder = TempDir::new().unwrap();
        let [outer, inner] = [folder.path().join("a"), folder.path().join("a/b")];
        assert_eq!(create_folders(&inner).unwrap(), [outer, inner.clone()]);
        assert_eq!(create_folders(&inner).unwrap(), Vec::<PathBuf>::new());
    }

    #[tokio::test]
    async fn nothing_is_written_after_the_gate_is_closed() {
        let (folder, path) = folder();
        let gate = Gate::default();
        let store = DurableStore::behind(gate.clone());
        let mut upload = store
            .put_multipart(&path.clone().join("part.parquet"))
            .await
            .unwrap();
        gate.close();
        assert!(upload.put_part("half".into()).await.is_err());
        assert!(upload.complete().await.is_err());
        drop(upload);
        assert!(
            store
                .put(&path.join("0.json"), "first".into())
                .await
                .is_err()
        );
        assert_eq!(names(&folder), Vec::<String>::new());
    }
}
