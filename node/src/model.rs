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

    /// The model's name, its directory's with a digest of everything in it, and the account of each
    /// file. Peers whose names are equal draw from equal weights.
    ///
    /// # Errors
    /// A file cannot be read, or was written to since it was looked at: then nobody knows which
    /// content was loaded.
    pub(crate) fn read(self) -> Result<(String, ModelFiles)> {
        let directory = self.path.canonicalize().unwrap_or_else(|_| self.path.clone());
        let mut all = blake3::Hasher::new();
        let mut files = Vec::with_capacity(self.files.len());
        for (path, stamp) in self.files {
            let name = path.to_string_lossy();
            all.update(name.as_bytes()).update(&[0]).update(&stamp.bytes.to_le_bytes());
            let whole = directory.join(&path);
            let read = hash(&whole, &mut all);
            let digest = read.with_context(|| format!("cannot read {}", whole.display()))?;
            let now = FileStamp::of(&fs::metadata(&whole)?);
            if (now.bytes, now.modified_ns) != (stamp.bytes, stamp.modified_ns) {
                bail!(
                    "{} was written to while it was loaded; start again when that is over",
                    whole.display()
                );
            }
            files.push(ModelFile { path, stamp, digest });
        }
        let name = directory.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let name = format!("{name}@{}", &all.finalize().to_hex()[..12]);
        Ok((name, ModelFiles { directory, files }))
    }
}

/// Hashes one file, alone and as a part of all.
fn hash(path: &Path, all: &mut blake3::Hasher) -> io::Result<[u8; 32]> {
    let mut file = fs::File::open(path)?;
    let mut alone = blake3::Hasher::new();
    let mut piece = vec![0; PIECE_BYTES];
    loop {
        let bytes = file.read(&mut piece)?;
        if bytes == 0 {
            return Ok(alone.finalize().into());
        }
        all.update(&piece[..bytes]);
        alone.update(&piece[..bytes]);
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
        let (name, files) = Directory::look(folder.path()).unwrap().read().unwrap();
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
        let (other, _) = Directory::look(folder.path()).unwrap().read().unwrap();
        assert_ne!(other, name);
    }

    #[test]
    fn a_model_that_is_written_to_while_it_is_loaded_is_refused() {
        let folder = model();
        let looked = Directory::look(folder.path()).unwrap();
        assert_eq!(looked.bytes(), 12);
        fs::write(folder.path().join("vae/weights"), b"longer weights").unwrap();
        let error = format!("{:#}", looked.read().expect_err("which one was loaded?"));
        assert!(error.contains("vae/weights was written to"), "{error}");
        fs::remove_dir_all(folder.path().join("vae")).unwrap();
        fs::remove_file(folder.path().join("index")).unwrap();
        let error = Directory::look(&folder.path().join("vae")).map(drop).expect_err("gone");
        assert!(format!("{error:#}").contains("vae"), "{error:#}");
    }
}
