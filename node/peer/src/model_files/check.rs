//! Whether a model's files are still what was loaded.
//!
//! Stamps are compared first, and only what has another stamp is read: a file whose length, inode
//! and times of writing and of change are the same was not written to. Reading everything at each
//! look would cost a large model a minute of the disk that the log waits for, and would find one
//! thing more, a disk that rots; that shows when the model is loaded, by its digest in its name.
//!
//! Owns the thread that reads, and what it found. It must not hold up whoever asks: the answer comes
//! at once, and what it does not know yet, a later one does.

use super::{FILES_MAX, FileStamp, ModelFile, ModelFiles, files_below};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::watch;

/// Read at a time; then the thread looks whether it is still wanted.
const PIECE_BYTES: usize = 1 << 20;
/// How far the thread steps back: neither the log nor an engine shall wait for it.
const NICENESS: i32 = 15;

/// What a look at the files found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Look {
    /// All are as they were loaded.
    Same,
    /// These are not.
    Differs(Vec<(PathBuf, Difference)>),
    /// This one and perhaps others have another stamp, and are being read: `bytes` of `total` so
    /// far.
    Reading { path: PathBuf, bytes: u64, total: u64 },
}

/// What happened to a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Difference {
    Changed,
    Unreadable,
    Missing,
    Added,
}

/// Compares a model's files with what was loaded.
#[derive(Debug, Default)]
pub(crate) struct ModelCheck {
    reader: Arc<Reader>,
}

impl ModelCheck {
    /// Looks at the files, and begins to read those that may have changed. Blocks for as long as it
    /// takes to list a directory.
    ///
    /// # Errors
    /// The directory cannot be listed.
    pub(crate) fn look(&self, loaded: &ModelFiles) -> io::Result<Look> {
        let there: BTreeMap<_, _> = files_below(&loaded.directory)?.into_iter().collect();
        let (mut differing, mut unknown) = (Vec::new(), Vec::new());
        for file in &loaded.files {
            let path = loaded.directory.join(&file.path);
            let difference = match there.get(&file.path) {
                None => Some(Difference::Missing),
                Some(stamp) if *stamp == file.stamp => None,
                Some(stamp) if stamp.bytes != file.stamp.bytes => Some(Difference::Changed),
                Some(stamp) => match self.reader.known(&path, *stamp) {
                    Some(digest) => compare(file, digest),
                    None => {
                        unknown.push((path, *stamp));
                        None
                    }
                },
            };
            differing.extend(difference.map(|difference| (file.path.clone(), difference)));
        }
        let known: BTreeSet<_> = loaded.files.iter().map(|file| &file.path).collect();
        let added = there.into_keys().filter(|path| !known.contains(path));
        differing.extend(added.map(|path| (path, Difference::Added)));
        let reading = self.read(unknown);
        Ok(match reading {
            _ if !differing.is_empty() => Look::Differs(differing),
            Some(reading) => reading,
            None => Look::Same,
        })
    }

    /// Returns when nothing is being read.
    pub(crate) async fn idle(&self) {
        // Cannot fail: the sender lives as long as this does.
        let _ = self.reader.busy.subscribe().wait_for(|busy| !busy).await;
    }

    /// Begins to read files, unless others are being read; none where there are none to read.
    fn read(&self, files: Vec<(PathBuf, FileStamp)>) -> Option<Look> {
        let path = files.first()?.0.clone();
        let total = files.iter().map(|(_, stamp)| stamp.bytes).sum();
        if !self.reader.busy.send_replace(true) {
            self.reader.bytes.store(0, Ordering::Relaxed);
            let reader = Arc::clone(&self.reader);
            let thread = std::thread::Builder::new().name("model-files".to_owned());
            if let Err(error) = thread.spawn(move || reader.read_all(files)) {
                tracing::warn!(%error, "the model's files are not read");
                self.reader.busy.send_replace(false);
            }
        }
        Some(Look::Reading { path, bytes: self.reader.bytes.load(Ordering::Relaxed), total })
    }
}

impl Drop for ModelCheck {
    fn drop(&mut self) {
        // Not joined: the thread holds nothing but this, and ends after the piece that it reads.
        self.reader.unwanted.store(true, Ordering::Relaxed);
    }
}

fn compare(loaded: &ModelFile, found: Option<[u8; 32]>) -> Option<Difference> {
    match found {
        None => Some(Difference::Unreadable),
        Some(digest) => (digest != loaded.digest).then_some(Difference::Changed),
    }
}

/// By file and stamp: the digest, or none where it could not be read.
type Digests = BTreeMap<(PathBuf, FileStamp), Option<[u8; 32]>>;

#[derive(Debug, Default)]
struct Reader {
    // At FILES_MAX it is emptied, and what is asked for again is read again.
    digests: Mutex<Digests>,
    busy: watch::Sender<bool>,
    /// Read since it became busy.
    bytes: AtomicU64,
    unwanted: AtomicBool,
}

impl Reader {
    fn known(&self, path: &Path, stamp: FileStamp) -> Option<Option<[u8; 32]>> {
        self.lock().get(&(path.to_owned(), stamp)).copied()
    }

    fn read_all(&self, files: Vec<(PathBuf, FileStamp)>) {
        // Of this thread alone, as Linux has it; without it the reading is only less polite.
        let _ = rustix::process::nice(NICENESS);
        for (path, stamp) in files {
            let digest = self.read(&path);
            let now = fs::metadata(&path).map(|metadata| FileStamp::of(&metadata));
            let unwanted = self.unwanted.load(Ordering::Relaxed);
            // What was written to meanwhile is read again at the next look.
            if !unwanted && now.is_ok_and(|now| now == stamp) {
                let mut digests = self.lock();
                if digests.len() >= FILES_MAX {
                    digests.clear();
                }
                digests.insert((path, stamp), digest.ok());
            }
        }
        self.busy.send_replace(false);
    }

    fn read(&self, path: &Path) -> io::Result<[u8; 32]> {
        let mut file = File::open(path)?;
        let mut piece = vec![0; PIECE_BYTES];
        let mut hasher = blake3::Hasher::new();
        while !self.unwanted.load(Ordering::Relaxed) {
            let bytes = file.read(&mut piece)?;
            if bytes == 0 {
                break;
            }
            hasher.update(&piece[..bytes]);
            self.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
        }
        Ok(hasher.finalize().into())
    }

    fn lock(&self) -> MutexGuard<'_, Digests> {
        self.digests.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tempfile::TempDir;

    /// A directory of two files, with the account of it.
    fn model() -> (TempDir, ModelFiles) {
        let folder = tempfile::tempdir().expect("a temporary folder");
        fs::create_dir(folder.path().join("vae")).expect("a folder");
        fs::write(folder.path().join("vae/weights"), b"weights").expect("a file");
        fs::write(folder.path().join("index"), b"index").expect("a file");
        let found = files_below(folder.path()).expect("it is there");
        let files = found.into_iter().map(|(path, stamp)| {
            let content = fs::read(folder.path().join(&path)).expect("a file");
            ModelFile { path, stamp, digest: blake3::hash(&content).into() }
        });
        let files = files.collect();
        let loaded = ModelFiles { directory: folder.path().to_owned(), files };
        (folder, loaded)
    }

    /// Looks until nothing is being read any more.
    async fn found(check: &ModelCheck, loaded: &ModelFiles) -> Look {
        check.look(loaded).expect("a list");
        check.idle().await;
        check.look(loaded).expect("a list")
    }

    fn differs(path: &str, difference: Difference) -> Look {
        Look::Differs(vec![(path.into(), difference)])
    }

    #[tokio::test]
    async fn a_file_is_read_only_where_its_stamp_is_another_one() {
        let (folder, loaded) = model();
        let check = ModelCheck::default();
        assert_eq!(check.look(&loaded).expect("a list"), Look::Same);
        let weights = folder.path().join("vae/weights");
        fs::write(&weights, b"weights").expect("the same again");
        let path = weights.clone();
        let Look::Reading { path: read, total: 7, .. } = check.look(&loaded).expect("a list")
        else {
            panic!("it must be read: its stamp is another one");
        };
        assert_eq!(read, path);
        assert_eq!(found(&check, &loaded).await, Look::Same, "the content is the same");
        assert_eq!(check.reader.bytes.load(Ordering::Relaxed), 7, "read once");
        fs::write(&weights, b"Weights").expect("a byte changes");
        let changed = differs("vae/weights", Difference::Changed);
        assert_eq!(found(&check, &loaded).await, changed);
        assert_eq!(check.look(&loaded).expect("a list"), changed, "known by now");
        fs::write(&weights, b"longer weights").expect("a file");
        assert_eq!(check.look(&loaded).expect("a list"), changed, "its length says so");
    }

    #[tokio::test]
    async fn a_file_that_is_gone_or_new_is_told() {
        let (folder, loaded) = model();
        let check = ModelCheck::default();
        fs::remove_file(folder.path().join("index")).expect("it was there");
        assert_eq!(check.look(&loaded).expect("a list"), differs("index", Difference::Missing));
        fs::write(folder.path().join("index"), b"index").expect("it is back");
        fs::write(folder.path().join("vae/more"), b"more").expect("a file");
        assert_eq!(found(&check, &loaded).await, differs("vae/more", Difference::Added));
        drop(folder);
        assert!(check.look(&loaded).is_err(), "the directory is gone");
    }
}
