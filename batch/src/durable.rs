//! A local object store that keeps its word: what it has written survives a power cut.
//!
//! `object_store`'s own local store renames files into place without asking the disk to keep
//! either the file or its name. After a power cut a file may be gone, or be there with no bytes in
//! it; both would damage a Delta log that readers already rely on. Here a write goes to a hidden
//! file, the file is synced, it gets its name, and then the folder is synced.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::path::{Path as FilePath, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use futures::stream::BoxStream;
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta,
    ObjectStore, PutMode, PutMultipartOptions, PutOptions, PutPayload, PutResult, RenameOptions,
    RenameTargetMode, Result, UploadPart,
};

/// The local file system; writes are done when they are on the disk.
#[derive(Debug, Clone)]
pub(crate) struct DurableStore {
    inner: Arc<LocalFileSystem>,
}

impl DurableStore {
    /// All of the local file system, from `/` on.
    pub(crate) fn local() -> Self {
        Self {
            inner: Arc::new(LocalFileSystem::new()),
        }
    }

    /// Gives the complete file at `staged` its name.
    async fn publish(
        &self,
        staged: &Path,
        location: &Path,
        target_mode: RenameTargetMode,
    ) -> Result<()> {
        let file = self.inner.path_to_filesystem(staged)?;
        let folder = parent(&self.inner.path_to_filesystem(location)?);
        blocking(move || File::open(file)?.sync_all()).await?;
        let options = RenameOptions {
            target_mode,
            ..RenameOptions::default()
        };
        if let Err(error) = self.inner.rename_opts(staged, location, options).await {
            self.forget(staged).await;
            return Err(error);
        }
        blocking(move || sync_folder(&folder)).await
    }

    async fn forget(&self, staged: &Path) {
        if let Ok(file) = self.inner.path_to_filesystem(staged) {
            // Nobody reads hidden files: one that stays costs space only.
            let _ = blocking(move || std::fs::remove_file(file)).await;
        }
    }
}

/// A hidden name beside `location` that no other write has. It contains the file's own name, so
/// that whoever cleans up after a failed job finds it.
fn staged(location: &Path) -> Path {
    static WRITES: AtomicU64 = AtomicU64::new(0);
    let write = WRITES.fetch_add(1, Ordering::Relaxed);
    let name = location.filename().unwrap_or_default();
    let staged = format!(".{name}.{}-{write}", std::process::id());
    let mut parts: Vec<_> = location.parts().collect();
    parts.pop();
    parts.into_iter().chain([staged.as_str().into()]).collect()
}

impl std::fmt::Display for DurableStore {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "Durable({})", self.inner)
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
        let target_mode = match options.mode {
            PutMode::Overwrite => RenameTargetMode::Overwrite,
            PutMode::Create => RenameTargetMode::Create,
            // The local store knows no versions of a file; let it say so.
            PutMode::Update(_) => return self.inner.put_opts(location, payload, options).await,
        };
        let staged = staged(location);
        let options = PutOptions {
            mode: PutMode::Overwrite,
            ..options
        };
        let result = self.inner.put_opts(&staged, payload, options).await?;
        self.publish(&staged, location, target_mode).await?;
        Ok(result)
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        let staged = staged(location);
        let upload = self.inner.put_multipart_opts(&staged, options).await?;
        Ok(Box::new(DurableUpload {
            store: self.clone(),
            upload,
            staged,
            location: location.clone(),
        }))
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        self.inner.get_opts(location, options).await
    }

    async fn get_ranges(
        &self,
        location: &Path,
        ranges: &[Range<u64>],
    ) -> Result<Vec<bytes::Bytes>> {
        self.inner.get_ranges(location, ranges).await
    }

    fn delete_stream(
        &self,
        locations: BoxStream<'static, Result<Path>>,
    ) -> BoxStream<'static, Result<Path>> {
        self.inner.delete_stream(locations)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.inner.list(prefix)
    }

    fn list_with_offset(
        &self,
        prefix: Option<&Path>,
        offset: &Path,
    ) -> BoxStream<'static, Result<ObjectMeta>> {
        self.inner.list_with_offset(prefix, offset)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.inner.copy_opts(from, to, options).await
    }

    async fn rename_opts(&self, from: &Path, to: &Path, options: RenameOptions) -> Result<()> {
        self.inner.rename_opts(from, to, options).await
    }
}

/// An upload that gets its name when it is complete and on the disk.
#[derive(Debug)]
struct DurableUpload {
    store: DurableStore,
    upload: Box<dyn MultipartUpload>,
    staged: Path,
    location: Path,
}

#[async_trait]
impl MultipartUpload for DurableUpload {
    fn put_part(&mut self, data: PutPayload) -> UploadPart {
        self.upload.put_part(data)
    }

    async fn complete(&mut self) -> Result<PutResult> {
        let result = self.upload.complete().await?;
        self.store
            .publish(&self.staged, &self.location, RenameTargetMode::Overwrite)
            .await?;
        Ok(result)
    }

    async fn abort(&mut self) -> Result<()> {
        self.upload.abort().await
    }
}

/// Makes `folder` and those above it, durably. Gives those that were new, outermost first.
pub(crate) fn create_folders(folder: &FilePath) -> io::Result<Vec<PathBuf>> {
    let mut missing: Vec<PathBuf> = folder
        .ancestors()
        .take_while(|folder| !folder.exists())
        .map(FilePath::to_path_buf)
        .collect();
    missing.reverse();
    for (position, folder) in missing.iter().enumerate() {
        if let Err(error) = std::fs::create_dir(folder).and_then(|()| sync_folder(&parent(folder)))
        {
            for made in missing[..position].iter().rev() {
                // Best effort: the first error is the one to report.
                let _ = std::fs::remove_dir(made);
            }
            return Err(error);
        }
    }
    Ok(missing)
}

/// Asks the disk to keep the names in `folder`.
pub(crate) fn sync_folder(folder: &FilePath) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

/// The folder that holds `path`.
pub(crate) fn parent(path: &FilePath) -> PathBuf {
    path.parent().unwrap_or(path).to_path_buf()
}

async fn blocking(work: impl FnOnce() -> io::Result<()> + Send + 'static) -> Result<()> {
    let done = tokio::task::spawn_blocking(work).await?;
    done.map_err(|source| Error::Generic {
        store: "Durable",
        source: Box::new(source),
    })
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
    async fn an_upload_has_its_name_only_when_it_is_complete() {
        let (folder, path) = folder();
        let (store, file) = (DurableStore::local(), path.join("part.parquet"));
        let mut upload = store.put_multipart(&file).await.unwrap();
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
}
