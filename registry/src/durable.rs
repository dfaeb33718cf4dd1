//! Local files that are still there after a power cut.
//!
//! `object_store`'s own local store never calls fsync: what it reports as written can be gone, or
//! empty, after the machine stops. This one wraps it and adds, in this order: write under
//! `staging/`, fsync the file, link or rename it into place, fsync every folder on the way.

use std::fmt;
use std::fs::{self, File};
use std::io;
use std::path::{Path as FilePath, PathBuf};
use std::time::SystemTime;

use async_trait::async_trait;
use futures::stream::BoxStream;
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{
    CopyMode, CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta,
    ObjectStore, ObjectStoreExt as _, PutMode, PutMultipartOptions, PutOptions, PutPayload,
    PutResult, RenameOptions, Result, UploadPart,
};
use uuid::Uuid;

const STAGING: &str = "staging";

/// A folder as an object store: when a write returns, it is on the disk.
#[derive(Debug, Clone)]
pub(crate) struct DurableFiles {
    files: LocalFileSystem,
    root: PathBuf,
}

impl DurableFiles {
    /// Opens the folder `root`; makes it if it is not there.
    pub(crate) fn open(root: &FilePath) -> io::Result<Self> {
        create_folder(&root.join(STAGING))?;
        let files = LocalFileSystem::new_with_prefix(root)?;
        Ok(Self {
            files,
            root: fs::canonicalize(root)?,
        })
    }

    /// Where the file of `location` is.
    pub(crate) fn path(&self, location: &Path) -> Result<PathBuf> {
        self.files.path_to_filesystem(location)
    }

    /// A new name under `staging/`; what is left there is nothing that anyone waits for.
    pub(crate) fn staging(&self) -> Path {
        Path::from_iter([STAGING.to_owned(), Uuid::new_v4().simple().to_string()])
    }

    /// Removes what writers that were killed `before` then left under `staging/`.
    pub(crate) async fn sweep(&self, before: SystemTime) -> Result<()> {
        let staging = self.root.join(STAGING);
        blocking(move || {
            for entry in fs::read_dir(staging)? {
                let entry = entry?;
                // The file may be gone by now: its writer has finished.
                let is_old = entry
                    .metadata()
                    .and_then(|found| found.modified())
                    .is_ok_and(|time| time < before);
                if is_old {
                    _ = fs::remove_file(entry.path());
                }
            }
            Ok(())
        })
        .await
    }

    /// The location of a file under `staging/`.
    pub(crate) fn staged(&self, file: &FilePath) -> Result<Path> {
        let name = file.file_name().and_then(|name| name.to_str());
        let staged = Path::from_iter([STAGING, name.unwrap_or_default()]);
        if self.path(&staged)? == file {
            return Ok(staged);
        }
        Err(Error::NotFound {
            path: file.display().to_string(),
            source: "it is not a staged file of this store".into(),
        })
    }

    /// Moves a staged file to its place; when this returns it is on the disk.
    pub(crate) async fn publish(
        &self,
        staged: &Path,
        location: &Path,
        mode: CopyMode,
    ) -> Result<()> {
        let file = self.path(staged)?;
        blocking(move || File::open(file)?.sync_all()).await?;
        match mode {
            CopyMode::Overwrite => self.files.rename(staged, location).await?,
            CopyMode::Create => {
                let linked = self.files.copy_if_not_exists(staged, location).await;
                self.files.delete(staged).await?;
                linked?;
            }
        }
        self.sync_folders(location).await
    }

    /// All of them up to the root: any may be new.
    async fn sync_folders(&self, location: &Path) -> Result<()> {
        let path = self.path(location)?;
        let root = self.root.clone();
        blocking(move || {
            let folders = path
                .ancestors()
                .skip(1)
                .take_while(|folder| folder.starts_with(&root));
            folders.into_iter().try_for_each(sync_folder)
        })
        .await
    }
}

#[async_trait]
impl ObjectStore for DurableFiles {
    async fn put_opts(
        &self,
        location: &Path,
        payload: PutPayload,
        options: PutOptions,
    ) -> Result<PutResult> {
        let mode = match options.mode {
            PutMode::Create => CopyMode::Create,
            PutMode::Overwrite => CopyMode::Overwrite,
            PutMode::Update(_) => return self.files.put_opts(location, payload, options).await,
        };
        let staged = self.staging();
        let options = PutOptions {
            mode: PutMode::Create,
            ..options
        };
        let result = self.files.put_opts(&staged, payload, options).await?;
        self.publish(&staged, location, mode).await?;
        Ok(result)
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        let staged = self.staging();
        let upload = self.files.put_multipart_opts(&staged, options).await?;
        Ok(Box::new(DurableUpload {
            files: self.clone(),
            upload,
            staged,
            location: location.clone(),
        }))
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        self.files.get_opts(location, options).await
    }

    /// A deletion may come undone by a power cut: everything here is allowed to be left over.
    fn delete_stream(
        &self,
        locations: BoxStream<'static, Result<Path>>,
    ) -> BoxStream<'static, Result<Path>> {
        self.files.delete_stream(locations)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.files.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.files.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.files.copy_opts(from, to, options).await?;
        self.sync_folders(to).await
    }

    async fn rename_opts(&self, from: &Path, to: &Path, options: RenameOptions) -> Result<()> {
        self.files.rename_opts(from, to, options).await?;
        self.sync_folders(to).await?;
        self.sync_folders(from).await
    }
}

impl fmt::Display for DurableFiles {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "DurableFiles({})", self.root.display())
    }
}

#[derive(Debug)]
struct DurableUpload {
    files: DurableFiles,
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
        self.files
            .publish(&self.staged, &self.location, CopyMode::Overwrite)
            .await?;
        Ok(result)
    }

    async fn abort(&mut self) -> Result<()> {
        self.upload.abort().await
    }
}

/// Makes `folder` and those above it, each of them durably.
pub(crate) fn create_folder(folder: &FilePath) -> io::Result<()> {
    let missing: Vec<_> = folder
        .ancestors()
        .take_while(|folder| !folder.exists())
        .collect();
    fs::create_dir_all(folder)?;
    missing
        .iter()
        .filter_map(|folder| folder.parent())
        .try_for_each(sync_folder)
}

fn sync_folder(folder: &FilePath) -> io::Result<()> {
    let here = FilePath::new(".");
    File::open(if folder.as_os_str().is_empty() {
        here
    } else {
        folder
    })?
    .sync_all()
}

async fn blocking(work: impl FnOnce() -> io::Result<()> + Send + 'static) -> Result<()> {
    let done = tokio::task::spawn_blocking(work)
        .await
        .map_err(io::Error::other)
        .flatten();
    done.map_err(|source| Error::Generic {
        store: "durable files",
        source: Box::new(source),
    })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn store() -> (tempfile::TempDir, DurableFiles) {
        let folder = tempfile::tempdir().unwrap();
        let store = DurableFiles::open(&folder.path().join("new/store")).unwrap();
        (folder, store)
    }

    fn staged(store: &DurableFiles) -> usize {
        fs::read_dir(store.root.join(STAGING)).unwrap().count()
    }

    async fn create(
        store: &DurableFiles,
        location: &Path,
        content: &'static [u8],
    ) -> Result<PutResult> {
        let options = PutOptions {
            mode: PutMode::Create,
            ..PutOptions::default()
        };
        store
            .put_opts(location, PutPayload::from_static(content), options)
            .await
    }

    #[tokio::test]
    async fn what_was_created_is_not_overwritten() {
        let (_folder, store) = store();
        let location = Path::from("a/b/c");
        create(&store, &location, b"first").await.unwrap();
        let again = create(&store, &location, b"second").await;
        assert!(
            matches!(again, Err(Error::AlreadyExists { .. })),
            "{again:?}"
        );
        assert_eq!(fs::read(store.path(&location).unwrap()).unwrap(), b"first");
        assert_eq!(staged(&store), 0);
    }

    #[tokio::test]
    async fn an_upload_is_seen_when_it_is_complete() {
        let (_folder, store) = store();
        let location = Path::from("a/b");
        let mut upload = store.put_multipart(&location).await.unwrap();
        upload
            .put_part(PutPayload::from_static(b"one "))
            .await
            .unwrap();
        upload
            .put_part(PutPayload::from_static(b"two"))
            .await
            .unwrap();
        assert!(matches!(
            store.head(&location).await,
            Err(Error::NotFound { .. })
        ));
        upload.complete().await.unwrap();
        assert_eq!(
            store.get(&location).await.unwrap().bytes().await.unwrap(),
            "one two"
        );
        assert_eq!(staged(&store), 0);
    }

    #[tokio::test]
    async fn only_old_leftovers_are_swept() {
        let (_folder, store) = store();
        let path = store.root.join(STAGING).join("left#1");
        fs::write(&path, "over").unwrap();
        let written = fs::metadata(&path).unwrap().modified().unwrap();
        store.sweep(written).await.unwrap();
        assert_eq!(staged(&store), 1);
        store.sweep(written + Duration::from_secs(1)).await.unwrap();
        assert_eq!(staged(&store), 0);
    }
}
