//! How far a database had come when it was last heard of, in a file beside it.
//!
//! A checksum cannot tell that the end is missing: sled takes a damaged or cut file for one that ends there, opens it,
//! and a vote or an acknowledged entry is gone without a word. So each batch carries a number, and the number of the
//! last durable one is noted here. A database that holds less than its floor has lost something.
//!
//! The note is written after the batch is durable, so it never claims too much. It is synced now and then only: after
//! a power cut it may be some batches old, and then it notices a little less; it never raises a false alarm. Two
//! slots take turns, so that a torn write leaves the other.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

const FILE: &str = "floor";
const UNFINISHED: &str = "floor.unfinished";
const SLOT_BYTES: u64 = 4096;
const SLOTS: u64 = 2;
/// Notes between two syncs of the file. The kernel writes it by itself within some thirty seconds too.
const UNSYNCED_MAX: u64 = 64;

/// The file, open for notes.
pub(super) struct Floor {
    file: File,
    unsynced: u64,
}

impl Floor {
    /// Opens the file of a directory and reads its note; none where there is no file.
    ///
    /// # Errors
    /// When it cannot be read, or holds no note that is whole.
    pub(super) fn open(directory: &Path) -> io::Result<Option<(Floor, u64)>> {
        let file = match OpenOptions::new().read(true).write(true).open(directory.join(FILE)) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let slots = (0..SLOTS).filter_map(|slot| read(&file, slot));
        let note = slots.max().ok_or_else(|| {
            io::Error::new(
                io::ErrorKind::InvalidData,
                "the file `floor` holds no note that is whole",
            )
        })?;
        Ok(Some((Floor { file, unsynced: 0 }, note)))
    }

    /// Makes the file with a first note; both are durable on return. A crash leaves the file whole, or none.
    ///
    /// # Errors
    /// When the system fails.
    pub(super) fn create(directory: &Path, note: u64) -> io::Result<Floor> {
        let (path, unfinished) = (directory.join(FILE), directory.join(UNFINISHED));
        let mut options = OpenOptions::new();
        let file = options.read(true).write(true).create(true).truncate(true).open(&unfinished)?;
        file.write_all_at(&[0; (SLOTS * SLOT_BYTES) as usize], 0)?;
        let mut floor = Floor { file, unsynced: 0 };
        floor.raise(note)?;
        floor.file.sync_all()?;
        fs::rename(unfinished, path)?;
        File::open(directory)?.sync_all()?;
        Ok(floor)
    }

    /// Notes that a batch is durable, and makes the note durable too.
    ///
    /// # Errors
    /// As [`Floor::raise`].
    pub(super) fn raise_now(&mut self, note: u64) -> io::Result<()> {
        self.raise(note)?;
        self.unsynced = 0;
        self.file.sync_data()
    }

    /// Notes that a batch is durable.
    ///
    /// # Errors
    /// When the system fails; the node must not go on.
    pub(super) fn raise(&mut self, note: u64) -> io::Result<()> {
        let number = note.to_be_bytes();
        let slot = [&number[..], &crc32c::crc32c(&number).to_be_bytes()].concat();
        self.file.write_all_at(&slot, (note % SLOTS) * SLOT_BYTES)?;
        self.unsynced += 1;
        if self.unsynced >= UNSYNCED_MAX {
            self.file.sync_data()?;
            self.unsynced = 0;
        }
        Ok(())
    }
}

impl Drop for Floor {
    fn drop(&mut self) {
        if let Err(error) = self.file.sync_data() {
            tracing::warn!(%error, "the floor was not synced");
        }
    }
}

fn read(file: &File, slot: u64) -> Option<u64> {
    let mut bytes = [0; 12];
    file.read_exact_at(&mut bytes, slot * SLOT_BYTES).ok()?;
    let (number, sum) = bytes.split_at(8);
    let whole = crc32c::crc32c(number).to_be_bytes() == sum;
    whole.then(|| u64::from_be_bytes(number.try_into().expect("eight bytes")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_highest_note_that_is_whole_is_read() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        assert!(Floor::open(directory.path()).expect("open").is_none());
        let mut floor = Floor::create(directory.path(), 0).expect("create");
        for note in 1..=200 {
            floor.raise(note).expect("raise");
            let read = Floor::open(directory.path()).expect("open").map(|(_, note)| note);
            assert_eq!(read, Some(note));
        }
        // A write that was torn leaves the one before.
        floor.file.write_all_at(&[9; 5], 0).expect("write");
        assert_eq!(Floor::open(directory.path()).expect("open").map(|(_, note)| note), Some(199));
        floor.file.write_all_at(&[9; 5], SLOT_BYTES).expect("write");
        assert!(Floor::open(directory.path()).is_err());
    }

    #[test]
    fn an_empty_file_is_no_floor() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        File::create(directory.path().join(FILE)).expect("create");
        assert!(Floor::open(directory.path()).is_err());
    }
}
