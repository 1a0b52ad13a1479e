//! The files of a database as they were before sled opened them.
//!
//! sled mends whatever it takes for a torn end, without a word: it zeroes segments and cuts the file as it opens it.
//! Where that end was damage, what could have been saved would be gone. So the files are copied first. A database
//! that is refused gets its files back as they were; one that was found whole drops the copy.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

const COPY: &str = "untouched";

/// A copy that waits for the verdict.
pub(super) struct Untouched {
    directory: PathBuf,
}

impl Untouched {
    /// Copies the files of a database; the directory may hold none yet. The caller keeps others out of it.
    ///
    /// # Errors
    /// When the system fails, for example because the disk is full. Nothing is left then.
    pub(super) fn copy(directory: &Path) -> io::Result<Untouched> {
        let untouched = Untouched { directory: directory.to_owned() };
        // One that a crash has left: it may be half a copy.
        untouched.forget()?;
        let copied = fs::create_dir_all(untouched.place()).and_then(|()| {
            let copy = |from: PathBuf| fs::copy(&from, untouched.place().join(name_of(&from)));
            files_of(directory)?.into_iter().try_for_each(|from| copy(from).map(drop))
        });
        match copied {
            Ok(()) => Ok(untouched),
            Err(error) => untouched.forget().and(Err(error)),
        }
    }

    /// Puts the files back, and removes those of the same kind that were made since.
    pub(super) fn put_back(self) -> io::Result<()> {
        for made in files_of(&self.directory)? {
            if !self.place().join(name_of(&made)).exists() {
                fs::remove_file(made)?;
            }
        }
        for copy in files_of(&self.place())? {
            fs::rename(&copy, self.directory.join(name_of(&copy)))?;
        }
        self.forget()
    }

    /// Drops the copy.
    pub(super) fn forget(&self) -> io::Result<()> {
        match fs::remove_dir_all(self.place()) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    fn place(&self) -> PathBuf {
        self.directory.join(COPY)
    }
}

/// What sled keeps in a directory and may change at open.
fn files_of(directory: &Path) -> io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        let name = name_of(&path);
        if name == "db" || name == "conf" || name.starts_with("snap.") {
            files.push(path);
        }
    }
    Ok(files)
}

fn name_of(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_changed_since_the_copy_comes_back() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let at = |name: &str| directory.path().join(name);
        fs::write(at("db"), b"as it was").expect("write");
        fs::write(at("floor"), b"not sled's").expect("write");
        let untouched = Untouched::copy(directory.path()).expect("copy");
        fs::write(at("db"), b"mended").expect("write");
        fs::write(at("snap.7"), b"made since").expect("write");
        fs::write(at("floor"), b"raised").expect("write");
        untouched.put_back().expect("put back");
        assert_eq!(fs::read(at("db")).expect("read"), b"as it was");
        assert_eq!(fs::read(at("floor")).expect("read"), b"raised");
        assert!(!at("snap.7").exists() && !at(COPY).exists());
    }
}
