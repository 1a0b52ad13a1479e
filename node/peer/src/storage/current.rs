//! Which generation of a database holds, as a file beside it.
//!
//! ```text
//!   <dir>/CURRENT            names the generation; none for 0
//!   <dir>/{db,conf,blobs,…}  generation 0: every database begins with it
//!   <dir>/generation-N/      a later one
//! ```
//!
//! The file is replaced by rename once the generation that it names is durable, so a crash at any moment leaves the
//! old generation current, whole, or the new one. What is not current is removed once the current one was opened and
//! found whole, and never before.

use std::fs::{self, File};
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};

const FILE: &str = "CURRENT";
const UNFINISHED: &str = "CURRENT.unfinished";
const PREFIX: &str = "generation-";
/// What sled makes in the directory of generation 0.
const SLED_FILES: [&str; 3] = ["db", "conf", "blobs"];

/// Says which generation is current.
///
/// # Errors
/// `InvalidData` when the file is damaged, or is missing though there was one.
pub(super) fn read(directory: &Path) -> io::Result<u64> {
    let bytes = match fs::read(directory.join(FILE)) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == ErrorKind::NotFound => {
            // A crash in the first switch leaves generation 0 beside an unfinished one.
            if directory.join(SLED_FILES[0]).exists() || generations(directory)?.is_empty() {
                return Ok(0);
            }
            return Err(damaged("the file `CURRENT` is missing beside its generations"));
        }
        Err(error) => return Err(error),
    };
    let text = std::str::from_utf8(&bytes).ok();
    let number = text.and_then(|text| text.strip_prefix(PREFIX)?.split_once(' ')?.0.parse().ok());
    let number = number.filter(|number| line(*number).as_bytes() == bytes);
    number.ok_or_else(|| damaged("the file `CURRENT` is damaged"))
}

/// Makes a generation the current one; that is durable on return.
///
/// # Errors
/// When the system fails. Then it is unknown which one the next start finds.
pub(super) fn switch(directory: &Path, number: u64) -> io::Result<()> {
    let unfinished = directory.join(UNFINISHED);
    let mut file = File::create(&unfinished)?;
    file.write_all(line(number).as_bytes())?;
    file.sync_all()?;
    fs::rename(unfinished, directory.join(FILE))?;
    File::open(directory)?.sync_all()
}

/// Says where a generation lies.
pub(super) fn place(directory: &Path, number: u64) -> PathBuf {
    match number {
        0 => directory.to_owned(),
        number => directory.join(format!("{PREFIX}{number}")),
    }
}

/// Removes every generation but one.
///
/// # Errors
/// When the system fails; what is left is removed at the next start.
pub(super) fn remove_others(directory: &Path, keep: u64) -> io::Result<()> {
    for number in generations(directory)?.into_iter().filter(|number| *number != keep) {
        fs::remove_dir_all(place(directory, number))?;
    }
    if keep == 0 {
        return Ok(());
    }
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if name == "blobs" {
            fs::remove_dir_all(&path)?;
        } else if SLED_FILES.contains(&&*name) || name.starts_with("snap.") {
            fs::remove_file(&path)?;
        }
    }
    Ok(())
}

fn generations(directory: &Path) -> io::Result<Vec<u64>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory)? {
        let name = entry?.file_name();
        let number = name.to_str().and_then(|name| name.strip_prefix(PREFIX)?.parse::<u64>().ok());
        found.extend(number);
    }
    Ok(found)
}

fn line(number: u64) -> String {
    let name = format!("{PREFIX}{number}");
    format!("{name} {:08x}\n", crc32c::crc32c(name.as_bytes()))
}

fn damaged(reason: &str) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, reason)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_current_generation_is_the_last_that_was_switched_to() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let at = directory.path();
        assert_eq!(read(at).expect("read"), 0);
        for number in [1, 2, u64::MAX] {
            fs::create_dir_all(place(at, number)).expect("mkdir");
            switch(at, number).expect("switch");
            assert_eq!(read(at).expect("read"), number);
        }
        let before = fs::read(at.join(FILE)).expect("read");
        for bit in 0..before.len() * 8 {
            let mut damaged = before.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            fs::write(at.join(FILE), damaged).expect("write");
            assert!(read(at).is_err(), "bit {bit}");
        }
        fs::write(at.join(FILE), &before[..before.len() - 1]).expect("write");
        assert!(read(at).is_err());
        fs::remove_file(at.join(FILE)).expect("remove");
        assert!(read(at).is_err(), "its generations tell that there was one");
    }
}
