//! Artifacts in a directory of files, named by digest.
//!
//! Owns the directory. A file is written under a temporary name, flushed, renamed, and then the
//! directory is flushed: after power loss it is there whole or not at all. What is read is hashed
//! again; a file whose bytes have another digest is renamed to `….corrupt`, kept for whoever looks
//! into it, and never served. Blocking calls run on tokio's threads for them.

use crate::ports::shelf::{Shelf, ShelfError};
use crate::tasks;
use atelier_state::job::Digest;
use bytes::Bytes;
use futures_util::future::BoxFuture;
use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

/// A directory of artifacts. It belongs to one process.
#[derive(Clone, Debug)]
pub struct DirectoryShelf {
    directory: Arc<Path>,
    // Two writers of the same digest must not share a temporary file.
    writes: Arc<AtomicU64>,
}

impl DirectoryShelf {
    /// Opens the directory, makes it where it is missing, and drops what unfinished writes left.
    ///
    /// # Errors
    /// When it cannot be made or read.
    pub fn open(directory: impl Into<PathBuf>) -> Result<DirectoryShelf, ShelfError> {
        let directory = directory.into();
        fs::create_dir_all(&directory).map_err(|error| medium("make", &directory, &error))?;
        let shelf = DirectoryShelf { directory: directory.into(), writes: Arc::default() };
        for entry in shelf.entries()? {
            if entry.extension().is_some_and(|extension| extension == UNFINISHED) {
                fs::remove_file(&entry).map_err(|error| medium("drop", &entry, &error))?;
            }
        }
        Ok(shelf)
    }

    fn path(&self, digest: Digest) -> PathBuf {
        self.directory.join(digest.to_string())
    }

    fn entries(&self) -> Result<Vec<PathBuf>, ShelfError> {
        let read = || -> io::Result<Vec<PathBuf>> {
            fs::read_dir(&self.directory)?.map(|entry| Ok(entry?.path())).collect()
        };
        read().map_err(|error| medium("list", &self.directory, &error))
    }

    fn write(&self, digest: Digest, bytes: &[u8]) -> Result<(), ShelfError> {
        let path = self.path(digest);
        // A repeat makes it young again, so that it is not collected between this and Complete. Its
        // bytes are read, since a copy that has rotted is no copy.
        if self.read(digest).is_ok_and(|found| found.is_some()) {
            return touch(&path).map_err(|error| medium("touch", &path, &error));
        }
        let number = self.writes.fetch_add(1, Ordering::Relaxed);
        let unfinished = self.directory.join(format!("{digest}-{number}.{UNFINISHED}"));
        let written = write_flushed(&unfinished, bytes)
            .and_then(|()| fs::rename(&unfinished, &path))
            .and_then(|()| File::open(&self.directory)?.sync_all());
        written.map_err(|error| {
            // Best effort: the next open drops it as well.
            let _ = fs::remove_file(&unfinished);
            medium("write", &path, &error)
        })
    }

    fn read(&self, digest: Digest) -> Result<Option<Bytes>, ShelfError> {
        let path = self.path(digest);
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(medium("read", &path, &error)),
        };
        if *blake3::hash(&bytes).as_bytes() == digest.0 {
            return Ok(Some(bytes.into()));
        }
        let aside = path.with_extension(CORRUPT);
        fs::rename(&path, &aside).map_err(|error| medium("set aside", &path, &error))?;
        tracing::error!(%digest, bytes = bytes.len(), "artifact is corrupt on this disk");
        Err(ShelfError::Corrupt(aside.display().to_string()))
    }

    fn listed(&self) -> Result<Vec<(Digest, Duration)>, ShelfError> {
        let mut all = Vec::new();
        for path in self.entries()? {
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            // Whatever has another name is not ours to judge.
            let Ok(digest) = name.parse() else { continue };
            let modified = match fs::metadata(&path).and_then(|metadata| metadata.modified()) {
                Ok(modified) => modified,
                Err(error) if error.kind() == ErrorKind::NotFound => continue,
                Err(error) => return Err(medium("look at", &path, &error)),
            };
            // A clock that went back makes it look new, which keeps it.
            let age = SystemTime::now().duration_since(modified).unwrap_or_default();
            all.push((digest, age));
        }
        all.sort();
        Ok(all)
    }

    fn drop_file(&self, digest: Digest) -> Result<(), ShelfError> {
        let path = self.path(digest);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(medium("drop", &path, &error)),
            _ => Ok(()),
        }
    }

    /// Runs a blocking call beside the runtime.
    fn beside<T: Send + 'static>(
        &self,
        call: impl FnOnce(&DirectoryShelf) -> Result<T, ShelfError> + Send + 'static,
    ) -> BoxFuture<'_, Result<T, ShelfError>> {
        let shelf = self.clone();
        Box::pin(async move {
            let done = tasks::blocking(move || call(&shelf)).await;
            done.unwrap_or_else(|error| {
                Err(ShelfError::Medium { what: "run".to_owned(), error: error.to_string() })
            })
        })
    }
}

const UNFINISHED: &str = "unfinished";
const CORRUPT: &str = "corrupt";

impl Shelf for DirectoryShelf {
    fn put(&self, digest: Digest, bytes: Bytes) -> BoxFuture<'_, Result<(), ShelfError>> {
        self.beside(move |shelf| shelf.write(digest, &bytes))
    }

    fn get(&self, digest: Digest) -> BoxFuture<'_, Result<Option<Bytes>, ShelfError>> {
        self.beside(move |shelf| shelf.read(digest))
    }

    fn has(&self, digest: Digest) -> BoxFuture<'_, Result<bool, ShelfError>> {
        self.beside(move |shelf| {
            let path = shelf.path(digest);
            path.try_exists().map_err(|error| medium("look at", &path, &error))
        })
    }

    fn list(&self) -> BoxFuture<'_, Result<Vec<(Digest, Duration)>, ShelfError>> {
        self.beside(DirectoryShelf::listed)
    }

    fn remove(&self, digest: Digest) -> BoxFuture<'_, Result<(), ShelfError>> {
        self.beside(move |shelf| shelf.drop_file(digest))
    }
}

fn write_flushed(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

fn touch(path: &Path) -> io::Result<()> {
    OpenOptions::new().write(true).open(path)?.set_modified(SystemTime::now())
}

fn medium(verb: &str, path: &Path, error: &io::Error) -> ShelfError {
    ShelfError::Medium {
        what: format!("cannot {verb} {}", path.display()),
        error: error.to_string(),
    }
}
