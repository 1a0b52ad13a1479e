//! The files of a model: what an engine loaded, and what lies there now.
//!
//! Owns the account of a model's directory and the comparison with it ([`check`]). It must not know
//! what is in the files.

pub(crate) mod check;

use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Files of a model's directory. Filled by whoever names the directory; with more it is refused: a
/// model has some dozens, so that is another directory.
pub const FILES_MAX: usize = 4096;

/// The directory of a model as it was loaded.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ModelFiles {
    /// Where it lies.
    pub directory: PathBuf,
    /// Everything in it.
    pub files: Vec<ModelFile>,
}

/// One file of a model as it was loaded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModelFile {
    /// Within the directory.
    pub path: PathBuf,
    /// How the file system described it.
    pub stamp: FileStamp,
    /// BLAKE3 of its content.
    pub digest: [u8; 32],
}

/// What the file system tells of a file without reading it. Whoever writes to a file changes its
/// stamp; a changed stamp alone says nothing of the content.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct FileStamp {
    /// Length.
    pub bytes: u64,
    /// Which file it is.
    pub inode: u64,
    /// When its content was written last, in nanoseconds since 1970.
    pub modified_ns: u64,
    /// The same of anything about it; unlike the other one it cannot be set back.
    pub changed_ns: u64,
}

impl FileStamp {
    /// Reads the stamp off what the file system tells.
    #[must_use]
    pub fn of(metadata: &Metadata) -> FileStamp {
        let ns = |seconds: i64, ns: i64| {
            let whole = u64::try_from(seconds).unwrap_or(0).saturating_mul(1_000_000_000);
            whole.saturating_add(u64::try_from(ns).unwrap_or(0))
        };
        FileStamp {
            bytes: metadata.len(),
            inode: metadata.ino(),
            modified_ns: ns(metadata.mtime(), metadata.mtime_nsec()),
            changed_ns: ns(metadata.ctime(), metadata.ctime_nsec()),
        }
    }
}

/// Every file below a directory with its stamp, in the order of their paths. Blocks.
///
/// # Errors
/// A folder or file that cannot be looked at, by name; and more files than [`FILES_MAX`].
pub fn files_below(directory: &Path) -> io::Result<Vec<(PathBuf, FileStamp)>> {
    let mut found = Vec::new();
    let mut open = vec![directory.to_owned()];
    while let Some(folder) = open.pop() {
        for entry in fs::read_dir(&folder).map_err(|error| named(&folder, &error))? {
            let path = entry?.path();
            let metadata = fs::metadata(&path).map_err(|error| named(&path, &error))?;
            if metadata.is_dir() {
                open.push(path);
            } else {
                let within = path.strip_prefix(directory).expect("it was found below");
                found.push((within.to_owned(), FileStamp::of(&metadata)));
            }
            if found.len() + open.len() > FILES_MAX {
                let text = format!(
                    "{} holds more than {FILES_MAX} files; name the directory of one model",
                    directory.display()
                );
                return Err(io::Error::other(text));
            }
        }
    }
    found.sort();
    Ok(found)
}

fn named(path: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}
