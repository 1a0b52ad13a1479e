//! One sled database: opened with care, read with checks, written durably.
//!
//! Layout, in its default tree: `0 key` holds the number of further pieces, the checksum of key and value, and the
//! first piece; `1 length key number` holds a further piece; `2` holds the census. So the first pieces lie in the
//! order of their keys.

use super::census::Census;
use super::sled_store::OpenError;
use crate::ports::{Batch, StoreError};
use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

/// Bytes of a piece. Nineteen pairs, the fullest leaf after a merge, stay far below sled's 128 KiB for a page.
const PIECE_BYTES: usize = 4096;
/// Bytes that sled may cache for each tree.
const CACHE_BYTES: u64 = 32 * 1024 * 1024;
/// Bytes that a copy gathers before it hands them to sled.
const COPY_BYTES: usize = 1024 * 1024;
const HEAD: u8 = 0;
const PIECE: u8 = 1;
const CENSUS: &[u8] = &[2];
/// Bytes of a head before the first piece.
const HEAD_BYTES: usize = 5;

const _: () = assert!(crate::ports::store::VALUE_BYTES_MAX / PIECE_BYTES < u8::MAX as usize);
const _: () = assert!(crate::ports::store::KEY_BYTES_MAX < u8::MAX as usize);
const _: () = assert!(19 * (PIECE_BYTES + 128) < 128 * 1024);

/// One database of a tree. A tree has one that is current.
pub(super) struct Generation {
    pub(super) number: u64,
    // For people: the tree, whichever generation it is.
    place: String,
    directory: PathBuf,
    sled: sled::Db,
    file: File,
    blobs_synced: Mutex<BTreeSet<PathBuf>>,
}

/// What the heads of a database come to.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Count {
    pub(super) census: Census,
    /// Bytes of all pairs, as sled is given them.
    pub(super) bytes: u64,
}

impl Generation {
    /// Opens the database of a directory, or makes one. Blocks for as long as sled replays its file.
    ///
    /// # Errors
    /// As the variants of [`OpenError`] say; nothing but sled's own unfinished snapshot is removed.
    ///
    /// # Panics
    /// Where sled does, on some kinds of damage; so the caller calls it inside [`guarded`].
    pub(super) fn open(
        place: &Path,
        directory: PathBuf,
        number: u64,
    ) -> Result<Generation, OpenError> {
        let place = place.display().to_string();
        let io =
            |error: io::Error| OpenError::Io { place: place.clone(), reason: error.to_string() };
        fs::create_dir_all(&directory).map_err(io)?;
        remove_unfinished_snapshots(&directory).map_err(io)?;
        let config = sled::Config::new()
            .path(&directory)
            .mode(sled::Mode::HighThroughput)
            .cache_capacity(CACHE_BYTES)
            .use_compression(false)
            .flush_every_ms(None);
        let sled = config.open().map_err(|error| open_error(&place, error))?;
        let file = File::open(directory.join("db")).map_err(io)?;
        file.sync_all().map_err(io)?;
        sync_surroundings(&directory).map_err(io)?;
        let blobs_synced = Mutex::default();
        Ok(Generation { number, place, directory, sled, file, blobs_synced })
    }

    /// Reads the census that was written last; none in a new database.
    pub(super) fn stored_census(&self) -> Result<Option<Census>, StoreError> {
        let stored = self.sled.get(CENSUS).map_err(|error| self.error(error))?;
        let decode = |bytes: sled::IVec| {
            Census::decode(&bytes).ok_or_else(|| self.corrupt("the census is damaged"))
        };
        stored.map(decode).transpose()
    }

    /// Walks all pairs and counts them.
    pub(super) fn count(&self, sequence: u64) -> Result<Count, StoreError> {
        let mut count = Count { census: Census { sequence, ..Census::default() }, bytes: 0 };
        for pair in self.sled.scan_prefix([HEAD]) {
            let (key, head) = pair.map_err(|error| self.error(error))?;
            count.add(key.len() - 1, &self.split(&head)?);
        }
        Ok(count)
    }

    pub(super) fn read(&self, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        match self.sled.get(head_key(key)).map_err(|error| self.error(error))? {
            Some(head) => Ok(Some(self.assemble(key, &head)?)),
            None => Ok(None),
        }
    }

    pub(super) fn scan(
        &self,
        from: &[u8],
        below: &[u8],
        limit: usize,
    ) -> Result<Vec<(Bytes, Bytes)>, StoreError> {
        let mut found = Vec::new();
        if from >= below {
            return Ok(found);
        }
        for pair in self.sled.range(head_key(from)..head_key(below)).take(limit) {
            let (stored_key, head) = pair.map_err(|error| self.error(error))?;
            let key = stored_key.get(1..).unwrap_or_default();
            found.push((Bytes::copy_from_slice(key), self.assemble(key, &head)?));
        }
        Ok(found)
    }

    /// Writes a batch and what there is after it; both are durable on return. Gives the new count.
    pub(super) fn write(&self, batch: &Batch, before: Count) -> Result<Count, StoreError> {
        let mut count = before;
        count.census.sequence += 1;
        let mut changes = self.to_sled(batch, &mut count)?;
        changes.insert(CENSUS, count.census.encode());
        self.sled.apply_batch(changes).map_err(|error| self.error(error))?;
        self.sync()?;
        Ok(count)
    }

    /// Copies everything into an empty generation, durably, and checks that it came to what there is.
    pub(super) fn copy_to(&self, next: &Generation, count: Count) -> Result<(), StoreError> {
        let (mut changes, mut bytes) = (sled::Batch::default(), 0);
        let mut copied = Count::default();
        for pair in &*self.sled {
            let (key, value) = pair.map_err(|error| self.error(error))?;
            match key.first() {
                Some(&HEAD) => copied.add(key.len() - 1, &self.split(&value)?),
                Some(&PIECE) => {}
                _ => continue,
            }
            bytes += key.len() + value.len();
            changes.insert(key, value);
            if bytes >= COPY_BYTES {
                let full = std::mem::take(&mut changes);
                next.sled.apply_batch(full).map_err(|error| next.error(error))?;
                bytes = 0;
            }
        }
        copied.census.sequence = count.census.sequence;
        if copied.census != count.census {
            let (found, expected) = (copied.census.pairs, count.census.pairs);
            return Err(self.corrupt(&format!("it gave {found} values where {expected} are")));
        }
        changes.insert(CENSUS, count.census.encode());
        next.sled.apply_batch(changes).map_err(|error| next.error(error))?;
        next.sync()
    }

    pub(super) fn bytes_on_disk(&self) -> Result<u64, StoreError> {
        self.sled.size_on_disk().map_err(|error| self.error(error))
    }

    pub(super) fn corrupt(&self, reason: &str) -> StoreError {
        StoreError::Corrupt { place: self.place.clone(), reason: reason.to_owned() }
    }

    /// Makes an empty database durable with its first census.
    pub(super) fn begin(&self) -> Result<(), StoreError> {
        let none = Census::default().encode();
        self.sled.insert(CENSUS, none).map_err(|error| self.error(error))?;
        self.sync()
    }

    fn sync(&self) -> Result<(), StoreError> {
        self.sled.flush().map_err(|error| self.error(error))?;
        let io = |error: io::Error| self.error(sled::Error::Io(error));
        self.file.sync_data().map_err(io)?;
        let mut synced = self.blobs_synced.lock().unwrap_or_else(PoisonError::into_inner);
        sync_blobs(&self.directory.join("blobs"), &mut synced).map_err(io)
    }

    fn assemble(&self, key: &[u8], head: &[u8]) -> Result<Bytes, StoreError> {
        let Head { pieces, checksum: expected, first } = self.split(head)?;
        let mut value = Vec::with_capacity(first.len() + usize::from(pieces) * PIECE_BYTES);
        value.extend_from_slice(first);
        for number in 1..=pieces {
            let piece = self.sled.get(piece_key(key, number)).map_err(|error| self.error(error))?;
            let piece = piece.ok_or_else(|| self.corrupt("a piece of a value is missing"))?;
            value.extend_from_slice(&piece);
        }
        if checksum(key, &value) != expected {
            return Err(self.corrupt("a value is not the one that was written"));
        }
        Ok(value.into())
    }

    fn to_sled(&self, batch: &Batch, count: &mut Count) -> Result<sled::Batch, StoreError> {
        // The last change of each key; sled's own batch has no order.
        let last: BTreeMap<&Bytes, Option<&Bytes>> = batch.changes().collect();
        let mut changes = sled::Batch::default();
        for (key, value) in last {
            let before = self.sled.get(head_key(key)).map_err(|error| self.error(error))?;
            let mut pieces_before = 0;
            if let Some(head) = &before {
                let head = self.split(head)?;
                count.remove(key.len(), &head);
                pieces_before = head.pieces;
            }
            let pieces = match value {
                Some(value) => {
                    let head = Head::of(key, value);
                    count.add(key.len(), &head);
                    insert_pieces(&mut changes, key, value, &head);
                    head.pieces
                }
                None => {
                    if before.is_some() {
                        changes.remove(head_key(key));
                    }
                    0
                }
            };
            for number in pieces + 1..=pieces_before {
                changes.remove(piece_key(key, number));
            }
        }
        Ok(changes)
    }

    fn split<'h>(&self, head: &'h [u8]) -> Result<Head<'h>, StoreError> {
        Head::split(head).ok_or_else(|| self.corrupt("the head of a value is damaged"))
    }

    fn error(&self, error: sled::Error) -> StoreError {
        match error {
            sled::Error::Io(error) if is_of_the_system(&error) => {
                StoreError::Io { place: self.place.clone(), reason: error.to_string() }
            }
            other => self.corrupt(&other.to_string()),
        }
    }
}

impl Count {
    fn add(&mut self, key_bytes: usize, head: &Head<'_>) {
        self.census.add(head.checksum);
        self.bytes += head.stored_bytes(key_bytes);
    }

    fn remove(&mut self, key_bytes: usize, head: &Head<'_>) {
        self.census.remove(head.checksum);
        self.bytes = self.bytes.saturating_sub(head.stored_bytes(key_bytes));
    }
}

/// The pair under which a value is found.
struct Head<'h> {
    pieces: u8,
    checksum: u32,
    first: &'h [u8],
}

impl<'h> Head<'h> {
    fn of(key: &[u8], value: &'h [u8]) -> Head<'h> {
        let (first, rest) = value.split_at(value.len().min(PIECE_BYTES));
        let pieces = rest.len().div_ceil(PIECE_BYTES) as u8;
        Head { pieces, checksum: checksum(key, value), first }
    }

    fn split(head: &'h [u8]) -> Option<Head<'h>> {
        let (&[pieces, ref checksum @ ..], first) = head.split_first_chunk::<HEAD_BYTES>()?;
        Some(Head { pieces, checksum: u32::from_be_bytes(*checksum), first })
    }

    /// Bytes of all pairs of the value; the last piece is taken for a full one.
    fn stored_bytes(&self, key_bytes: usize) -> u64 {
        let head = 1 + key_bytes + HEAD_BYTES + self.first.len();
        let pieces = usize::from(self.pieces) * (3 + key_bytes + PIECE_BYTES);
        (head + pieces) as u64
    }
}

fn insert_pieces(changes: &mut sled::Batch, key: &[u8], value: &[u8], head: &Head<'_>) {
    let checksum = head.checksum.to_be_bytes();
    changes.insert(head_key(key), [&[head.pieces], &checksum[..], head.first].concat());
    for (number, piece) in (1..).zip(value[head.first.len()..].chunks(PIECE_BYTES)) {
        changes.insert(piece_key(key, number), piece);
    }
}

fn checksum(key: &[u8], value: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(key), value)
}

fn head_key(key: &[u8]) -> Vec<u8> {
    [&[HEAD], key].concat()
}

fn piece_key(key: &[u8], number: u8) -> Vec<u8> {
    [&[PIECE, key.len() as u8], key, &[number]].concat()
}

fn remove_unfinished_snapshots(directory: &Path) -> io::Result<()> {
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if name.starts_with("snap.") && name.ends_with(".generating") {
            tracing::warn!(file = %path.display(), "removed a snapshot that sled had not finished");
            fs::remove_file(&path)?;
        }
    }
    Ok(())
}

/// Syncs what sled creates without a sync, and the directories up to the root.
fn sync_surroundings(directory: &Path) -> io::Result<()> {
    File::open(directory.join("conf"))?.sync_all()?;
    File::open(directory.join("blobs"))?.sync_all()?;
    for ancestor in fs::canonicalize(directory)?.ancestors() {
        match File::open(ancestor) {
            Ok(opened) => opened.sync_all()?,
            // A directory that we may not read existed before us.
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => break,
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn sync_blobs(blobs: &Path, synced: &mut BTreeSet<PathBuf>) -> io::Result<()> {
    let mut new = false;
    for entry in fs::read_dir(blobs)? {
        let path = entry?.path();
        if synced.contains(&path) {
            continue;
        }
        match File::open(&path) {
            Ok(blob) => blob.sync_all()?,
            // sled collects blobs that nothing refers to any more.
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(error),
        }
        tracing::warn!(file = %path.display(), "sled made a blob in spite of small values");
        synced.insert(path);
        new = true;
    }
    if new {
        File::open(blobs)?.sync_all()?;
    }
    Ok(())
}

fn open_error(place: &str, error: sled::Error) -> OpenError {
    let place = place.to_owned();
    match error {
        sled::Error::Io(error) if is_of_the_system(&error) => {
            OpenError::Io { place, reason: error.to_string() }
        }
        other => OpenError::Corrupt { place, reason: other.to_string() },
    }
}

/// Says whether the system refused. Where a file ends too early, sled tells of that as an error of input too, and it
/// is damage.
fn is_of_the_system(error: &io::Error) -> bool {
    error.kind() != io::ErrorKind::UnexpectedEof
}

/// Runs what calls sled, which panics on some kinds of damage. `Err` says with what.
pub(super) fn guarded<T>(work: impl FnOnce() -> T) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(work)).map_err(|panic| {
        let text = panic.downcast_ref::<&str>().copied();
        let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
        format!("sled panicked: {}", text.unwrap_or("no message"))
    })
}
