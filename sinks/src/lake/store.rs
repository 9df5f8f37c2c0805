//! The lake on a local folder, made to survive a power cut: a file exists under its
//! name only when its bytes are on the disk, and an answer is given only when the
//! name is. The storage crate's own local store does neither; a log entry that is
//! there but empty would make the whole table unreadable.
//!
//! Files are written beside their place under a name that ends in `#` and digits,
//! which listings leave out; [`sweep`] removes those that a crash left behind.

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Write as _};
use std::path::{Path as FilePath, PathBuf};
use std::time::Duration;

use async_trait::async_trait;
use deltalake::logstore::object_store::local::LocalFileSystem;
use deltalake::logstore::object_store::path::Path;
use deltalake::logstore::object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta,
    ObjectStore, PutMode, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
    UploadPart,
};
use futures::stream::BoxStream;

const STORE: &str = "durable folder";

/// A local folder whose files are on the disk before they are seen.
#[derive(Debug)]
pub(crate) struct Durable {
    files: LocalFileSystem,
}

impl Durable {
    /// The whole file system: the table's URL says where in it.
    pub(crate) fn new() -> Self {
        Self {
            files: LocalFileSystem::new(),
        }
    }
}

impl fmt::Display for Durable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(STORE)
    }
}

#[async_trait]
impl ObjectStore for Durable {
    async fn put_opts(
        &self,
        location: &Path,
        payload: PutPayload,
        options: PutOptions,
    ) -> Result<PutResult> {
        let path = self.files.path_to_filesystem(location)?;
        let create = match options.mode {
            PutMode::Create => true,
            PutMode::Overwrite => false,
            PutMode::Update(_) => {
                return Err(Error::NotImplemented {
                    operation: "a put on condition of a version".to_owned(),
                    implementer: STORE.to_owned(),
                });
            }
        };
        blocking(move || write(&path, &payload, create)).await?;
        Ok(PutResult {
            e_tag: None,
            version: None,
        })
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        let path = self.files.path_to_filesystem(location)?;
        let upload = self.files.put_multipart_opts(location, options).await?;
        Ok(Box::new(Upload { upload, path }))
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        self.files.get_opts(location, options).await
    }

    fn delete_stream(
        &self,
        locations: BoxStream<'static, Result<Path>>,
    ) -> BoxStream<'static, Result<Path>> {
        self.files.delete_stream(locations)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.files.list(prefix)
    }

    fn list_with_offset(
        &self,
        prefix: Option<&Path>,
        offset: &Path,
    ) -> BoxStream<'static, Result<ObjectMeta>> {
        self.files.list_with_offset(prefix, offset)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.files.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.files.copy_opts(from, to, options).await
    }
}

/// An upload in parts that is on the disk when it is complete.
#[derive(Debug)]
struct Upload {
    upload: Box<dyn MultipartUpload>,
    path: PathBuf,
}

#[async_trait]
impl MultipartUpload for Upload {
    fn put_part(&mut self, data: PutPayload) -> UploadPart {
        self.upload.put_part(data)
    }

    async fn complete(&mut self) -> Result<PutResult> {
        let result = self.upload.complete().await?;
        let path = self.path.clone();
        // Nothing refers to a data file before its upload is complete, so here the
        // name may come before the bytes.
        blocking(move || {
            File::open(&path)
                .and_then(|file| file.sync_all())
                .and_then(|()| sync_parents(&path))
                .map_err(|error| failure(&path, error))
        })
        .await?;
        Ok(result)
    }

    async fn abort(&mut self) -> Result<()> {
        self.upload.abort().await
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|source| Error::JoinError { source })?
}

/// Puts `payload` at `path`: whole or not at all, and on the disk when it returns.
fn write(path: &FilePath, payload: &PutPayload, create: bool) -> Result<()> {
    let (mut file, staged) = stage(path).map_err(|error| failure(path, error))?;
    let written = payload
        .iter()
        .try_for_each(|part| file.write_all(part))
        .and_then(|()| file.sync_all())
        .and_then(|()| match create {
            // A link fails where a rename would replace: this is the put-if-absent
            // that lets one of two writers win a version of the log.
            true => fs::hard_link(&staged, path),
            false => fs::rename(&staged, path),
        });
    if create || written.is_err() {
        let _ = fs::remove_file(&staged);
    }
    written
        .and_then(|()| sync_parents(path))
        .map_err(|error| failure(path, error))
}

/// A new file beside `path`, whose name no listing shows.
fn stage(path: &FilePath) -> io::Result<(File, PathBuf)> {
    for number in 1_u32.. {
        let mut name = path.as_os_str().to_owned();
        name.push(format!("#{number}"));
        let staged = PathBuf::from(name);
        match OpenOptions::new()
            .write(true)
            .create_new(true)
            .open(&staged)
        {
            Ok(file) => return Ok((file, staged)),
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
            Err(error) if error.kind() == ErrorKind::NotFound && number == 1 => {
                fs::create_dir_all(path.parent().unwrap_or(path))?;
            }
            Err(error) => return Err(error),
        }
    }
    Err(ErrorKind::AlreadyExists.into())
}

/// Makes the name durable, and the name of the folder that may be new too.
fn sync_parents(path: &FilePath) -> io::Result<()> {
    path.ancestors()
        .skip(1)
        .take(2)
        .try_for_each(|folder| File::open(folder)?.sync_all())
}

fn failure(path: &FilePath, error: io::Error) -> Error {
    let (path, kind) = (path.display().to_string(), error.kind());
    let source = Box::new(error);
    match kind {
        ErrorKind::AlreadyExists => Error::AlreadyExists { path, source },
        ErrorKind::NotFound => Error::NotFound { path, source },
        ErrorKind::PermissionDenied => Error::PermissionDenied { path, source },
        _ => Error::Generic {
            store: STORE,
            source,
        },
    }
}

/// Removes the files under `root` that were being written `age` ago or earlier and
/// never got their name. Answers how many.
pub(crate) fn sweep(root: &FilePath, age: Duration) -> io::Result<usize> {
    let mut removed = 0;
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder)? {
            let entry = entry?;
            let kind = entry.file_type()?;
            if kind.is_dir() {
                folders.push(entry.path());
            } else if kind.is_file() && is_staged(&entry.file_name().to_string_lossy()) {
                // One that vanishes meanwhile got its name.
                removed += usize::from(gone(remove_if_old(&entry, age))?);
            }
        }
    }
    Ok(removed)
}

fn remove_if_old(file: &fs::DirEntry, age: Duration) -> io::Result<bool> {
    let old = file
        .metadata()?
        .modified()?
        .elapsed()
        .is_ok_and(|since| since >= age);
    if old {
        fs::remove_file(file.path())?;
    }
    Ok(old)
}

fn gone(result: io::Result<bool>) -> io::Result<bool> {
    match result {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
        other => other,
    }
}

fn is_staged(name: &str) -> bool {
    name.rsplit_once('#').is_some_and(|(_, digits)| {
        !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit())
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]

    use super::*;

    #[test]
    fn a_second_create_is_refused_and_leaves_the_first() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("date=2026-01-01/one");
        write(&path, &PutPayload::from_static(b"first"), true).unwrap();
        let again = write(&path, &PutPayload::from_static(b"second"), true);
        assert!(matches!(again, Err(Error::AlreadyExists { .. })));
        assert_eq!(fs::read(&path).unwrap(), b"first");
        write(&path, &PutPayload::from_static(b"third"), false).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"third");
        assert_eq!(
            fs::read_dir(path.parent().unwrap()).unwrap().count(),
            1,
            "no staged file stays"
        );
    }

    #[test]
    fn only_old_staged_files_are_swept() {
        let folder = tempfile::tempdir().unwrap();
        let date = folder.path().join("date=2026-01-01");
        fs::create_dir_all(&date).unwrap();
        for name in [
            "part-1.parquet",
            "part-1.parquet#1",
            "note#one",
            "part-2.parquet#27",
        ] {
            fs::write(date.join(name), b"x").unwrap();
        }
        assert_eq!(sweep(folder.path(), Duration::from_hours(1)).unwrap(), 0);
        assert_eq!(sweep(folder.path(), Duration::ZERO).unwrap(), 2);
        assert!(date.join("part-1.parquet").exists() && date.join("note#one").exists());
    }
}
