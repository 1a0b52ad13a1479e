//! The directory of a model: what is in it, and what it is called.
//!
//! Owns the account that the peer compares with the disk later on. It must not know what is in the
//! files.

use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use atelier_peer::model_files::{FileStamp, ModelFile, ModelFiles, files_below};

/// Read at a time.
const PIECE_BYTES: usize = 1 << 20;

/// A model's directory as it lies there before it is loaded.
pub(crate) struct Directory {
    path: PathBuf,
    files: Vec<(PathBuf, FileStamp)>,
}

impl Directory {
    /// Lists what is in it.
    ///
    /// # Errors
    /// It cannot be listed, or is no directory of one model.
    pub(crate) fn look(path: &Path) -> Result<Directory> {
        let files = files_below(path).context("cannot read the model directory")?;
        Ok(Directory { path: path.to_owned(), files })
    }

    /// Length of all files.
    pub(crate) fn bytes(&self) -> u64 {
        self.files.iter().map(|(_, stamp)| stamp.bytes).sum()
    }

    /// Begins the account of its content.
    pub(crate) fn begin(self) -> Account {
        let directory = self.path.canonicalize().unwrap_or_else(|_| self.path.clone());
        let done = Vec::with_capacity(self.files.len());
        let (named, files) = (self.path, self.files);
        Account {
            named,
            directory,
            files,
            done,
            open: None,
            all: blake3::Hasher::new(),
            failed: None,
        }
    }
}

/// The account of a directory while its files are loaded.
///
/// The loader reads most bytes, and shows each of them once, file by file in the order of their
/// paths. What it does not show is read here. So nothing is read twice.
pub(crate) struct Account {
    /// As the loader calls it.
    named: PathBuf,
    directory: PathBuf,
    files: Vec<(PathBuf, FileStamp)>,
    /// The first files, in order.
    done: Vec<ModelFile>,
    /// The file behind them, as far as it was shown.
    open: Option<(blake3::Hasher, u64)>,
    all: blake3::Hasher,
    failed: Option<anyhow::Error>,
}

impl Account {
    /// Sees bytes that the loader has read.
    pub(crate) fn see(&mut self, path: &Path, bytes: &[u8]) {
        let Ok(path) = path.strip_prefix(&self.named) else { return };
        let Some(at) = self.files.iter().position(|(known, _)| known == path) else { return };
        // What lies before the last one that was shown has been read: showing it again tells nothing.
        if at < self.done.len() || self.failed.is_some() {
            return;
        }
        if let Err(error) = self.close_up_to(at) {
            self.failed = Some(error);
            return;
        }
        self.feed(bytes);
    }

    /// The model's name, its directory's with a digest of everything in it, and the account of each
    /// file. Peers whose names are equal draw from equal weights.
    ///
    /// # Errors
    /// A file cannot be read, or was written to since it was looked at: then nobody knows which
    /// content was loaded.
    pub(crate) fn finish(mut self) -> Result<(String, ModelFiles)> {
        if let Some(error) = self.failed.take() {
            return Err(error);
        }
        self.close_up_to(self.files.len())?;
        let Account { directory, done: files, all, .. } = self;
        let name = directory.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let name = format!("{name}@{}", &all.finalize().to_hex()[..12]);
        Ok((name, ModelFiles { directory, files }))
    }

    /// Finishes the files before one: what was shown of them, and by reading the others.
    fn close_up_to(&mut self, at: usize) -> Result<()> {
        while self.done.len() < at {
            let (path, stamp) = self.files[self.done.len()].clone();
            let whole = self.directory.join(&path);
            if self.open.is_none() {
                self.read(&whole).with_context(|| format!("cannot read {}", whole.display()))?;
            }
            let (digest, bytes) = self.open.take().unwrap_or_else(|| self.start());
            let now = FileStamp::of(&fs::metadata(&whole)?);
            if (now.bytes, now.modified_ns) != (stamp.bytes, stamp.modified_ns)
                || bytes != stamp.bytes
            {
                bail!(
                    "{} was written to while it was loaded; start again when that is over",
                    whole.display()
                );
            }
            self.done.push(ModelFile { path, stamp, digest: digest.finalize().into() });
        }
        Ok(())
    }

    /// Opens the next file in the account.
    fn start(&mut self) -> (blake3::Hasher, u64) {
        let (path, stamp) = &self.files[self.done.len()];
        let name = path.to_string_lossy();
        self.all.update(name.as_bytes()).update(&[0]).update(&stamp.bytes.to_le_bytes());
        (blake3::Hasher::new(), 0)
    }

    /// Hashes a piece of the open file, alone and as a part of all.
    fn feed(&mut self, bytes: &[u8]) {
        let (mut alone, before) = self.open.take().unwrap_or_else(|| self.start());
        self.all.update(bytes);
        alone.update(bytes);
        self.open = Some((alone, before + bytes.len() as u64));
    }

    fn read(&mut self, path: &Path) -> io::Result<()> {
        let mut file = fs::File::open(path)?;
        let mut piece = vec![0; PIECE_BYTES];
        loop {
            let bytes = file.read(&mut piece)?;
            if bytes == 0 {
                return Ok(());
            }
            self.feed(&piece[..bytes]);
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that panics has failed")]
mod tests {
    use super::*;

    fn model() -> tempfile::TempDir {
        let folder = tempfile::Builder::new().prefix("toy").tempdir().expect("a folder");
        fs::create_dir(folder.path().join("vae")).expect("a folder");
        fs::write(folder.path().join("vae/weights"), b"weights").expect("a file");
        fs::write(folder.path().join("index"), b"index").expect("a file");
        folder
    }

    #[test]
    fn a_model_is_named_by_everything_in_it() {
        let folder = model();
        let (name, files) = Directory::look(folder.path()).unwrap().begin().finish().unwrap();
        let mut all = blake3::Hasher::new();
        for (path, content) in [("index", &b"index"[..]), ("vae/weights", b"weights")] {
            all.update(path.as_bytes()).update(&[0]).update(&(content.len() as u64).to_le_bytes());
            all.update(content);
        }
        let directory = folder.path().file_name().unwrap().to_str().unwrap();
        assert_eq!(name, format!("{directory}@{}", &all.finalize().to_hex()[..12]));
        let paths: Vec<_> = files.files.iter().map(|file| file.path.to_str().unwrap()).collect();
        assert_eq!(paths, ["index", "vae/weights"]);
        assert_eq!(files.files[1].digest, *blake3::hash(b"weights").as_bytes());

        fs::write(folder.path().join("vae/weights"), b"Weights").unwrap();
        let (other, _) = Directory::look(folder.path()).unwrap().begin().finish().unwrap();
        assert_ne!(other, name);
    }

    #[test]
    fn what_the_loader_shows_is_not_read_again() {
        let folder = model();
        let path = folder.path().join("vae/weights");
        let (name, files) = Directory::look(folder.path()).unwrap().begin().finish().unwrap();
        let mut account = Directory::look(folder.path()).unwrap().begin();
        account.see(&path, b"wei");
        account.see(&path, b"ghts");
        // A second pass, and what lies elsewhere, change nothing.
        account.see(&folder.path().join("index"), b"index");
        account.see(Path::new("/elsewhere"), b"bytes");
        assert_eq!(account.finish().unwrap(), (name.clone(), files));

        let mut account = Directory::look(folder.path()).unwrap().begin();
        account.see(&path, b"WEIGHTS");
        let (other, files) = account.finish().unwrap();
        assert_ne!(other, name, "the account is of what was loaded");
        assert_eq!(files.files[1].digest, *blake3::hash(b"WEIGHTS").as_bytes());

        let mut account = Directory::look(folder.path()).unwrap().begin();
        account.see(&path, b"half");
        let error = format!("{:#}", account.finish().expect_err("a part of it"));
        assert!(error.contains("vae/weights was written to"), "{error}");
    }

    #[test]
    fn a_model_that_is_written_to_while_it_is_loaded_is_refused() {
        let folder = model();
        let looked = Directory::look(folder.path()).unwrap();
        assert_eq!(looked.bytes(), 12);
        fs::write(folder.path().join("vae/weights"), b"longer weights").unwrap();
        let error = format!("{:#}", looked.begin().finish().expect_err("which one was loaded?"));
        assert!(error.contains("vae/weights was written to"), "{error}");
        fs::remove_dir_all(folder.path().join("vae")).unwrap();
        fs::remove_file(folder.path().join("index")).unwrap();
        let error = Directory::look(&folder.path().join("vae")).map(drop).expect_err("gone");
        assert!(format!("{error:#}").contains("vae"), "{error:#}");
    }
}
