//! The store on sled 0.34.7, made to keep the promises of [`Store`].
//!
//! sled alone does not keep them. What was found, and what is done here:
//!
//! 1. `flush` writes with `sync_file_range`, which neither commits the file's size nor empties the disk's cache: after
//!    a power cut the database was gone. So each batch is followed by our own `fdatasync` on `<dir>/db`.
//! 2. `conf`, the `db` file and the directories are created without a sync. So they are synced once at open.
//! 3. A crash while sled writes its own snapshot at open leaves `snap.*.generating`, and sled then refuses to open.
//!    The final name comes by rename, so such a file is never needed: it is removed before open.
//! 4. A page of more than 128 KiB, a quarter of a segment, goes to a file in `blobs/` that is never synced. A page is
//!    a leaf of up to 19 pairs, so a bound of 64 KiB for each value does not help. So a value is cut into pieces of
//!    4 KiB under keys of their own. Should a blob appear in spite of that, it is synced before the batch returns.
//! 5. The background flusher would sync at moments of its own. It is off.
//! 6. Some damage makes sled panic at open. The panic becomes an error that names the tree.
//! 7. All other damage, be it one flipped bit or a file cut short, makes sled forget what came after it, and open
//!    without a word: votes and acknowledged entries were gone in 91 of 120 trials. So each batch carries a census of
//!    all pairs, and `floor` notes the last durable batch outside of sled. At open the pairs are walked: a database
//!    that is below its floor, or does not come to its census, is refused.
//!
//! Layout, in the default tree of each database: `0 key` holds the number of further pieces, the checksum of key and
//! value, and the first piece; `1 length key number` holds a further piece; `2` holds the census. So the first pieces
//! lie in the order of their keys.

use super::census::Census;
use super::floor::Floor;
use crate::ports::{Batch, Store, StoreError, Tree};
use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

/// Bytes of a piece. Nineteen pairs, the fullest leaf after a merge, stay far below sled's 128 KiB for a page.
const PIECE_BYTES: usize = 4096;
/// Bytes that sled may cache for each tree.
const CACHE_BYTES: u64 = 32 * 1024 * 1024;
const HEAD: u8 = 0;
const PIECE: u8 = 1;
const CENSUS: &[u8] = &[2];
/// Bytes of a head before the first piece.
const HEAD_BYTES: usize = 5;

const _: () = assert!(crate::ports::store::VALUE_BYTES_MAX / PIECE_BYTES < u8::MAX as usize);
const _: () = assert!(crate::ports::store::KEY_BYTES_MAX < u8::MAX as usize);
const _: () = assert!(19 * (PIECE_BYTES + 128) < 128 * 1024);

/// Two sled databases below one directory, `log` and `state`.
pub struct SledStore {
    log: Database,
    state: Database,
}

/// Why a store could not be opened. Nothing was deleted.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The system refused, or another process has it open.
    #[error(
        "{place} cannot be opened: {reason}; see whether another process uses it, and check the disk and its permissions"
    )]
    Io {
        /// Which tree.
        place: String,
        /// What the system said.
        reason: String,
    },
    /// The database is damaged.
    #[error(
        "{place} is corrupted: {reason}; keep a copy of the directory for inspection, then remove the node and let it join again under a new id"
    )]
    Corrupt {
        /// Which tree.
        place: String,
        /// What sled said.
        reason: String,
    },
}

impl SledStore {
    /// Opens the store of a directory, or makes one. Blocks for as long as sled replays its file.
    ///
    /// # Errors
    /// As the variants of [`OpenError`] say; the directory is left as it is.
    pub fn open(directory: &Path) -> Result<SledStore, OpenError> {
        let log = Database::open(directory.join("log"))?;
        let state = Database::open(directory.join("state"))?;
        Ok(SledStore { log, state })
    }

    fn database(&self, tree: Tree) -> &Database {
        match tree {
            Tree::Log => &self.log,
            Tree::State => &self.state,
        }
    }
}

impl Store for SledStore {
    fn read(&self, tree: Tree, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        self.database(tree).read(key)
    }

    fn scan(
        &self,
        tree: Tree,
        from: &[u8],
        below: &[u8],
        limit: usize,
    ) -> Result<Vec<(Bytes, Bytes)>, StoreError> {
        self.database(tree).scan(from, below, limit)
    }

    fn write(&self, tree: Tree, batch: Batch) -> Result<(), StoreError> {
        batch.check_sizes()?;
        self.database(tree).write(&batch)
    }

    fn bytes_on_disk(&self, tree: Tree) -> Result<u64, StoreError> {
        let database = self.database(tree);
        database.sled.size_on_disk().map_err(|error| database.error(error))
    }

    fn place(&self, tree: Tree) -> String {
        self.database(tree).place()
    }
}

struct Database {
    directory: PathBuf,
    sled: sled::Db,
    file: File,
    // Held over a whole write, so that batches reach the disk one after another. Nothing async waits for it.
    writer: Mutex<Writer>,
}

struct Writer {
    // As of the last batch.
    census: Census,
    floor: Floor,
    // The first failure; later writes return it again.
    failed: Option<StoreError>,
    blobs_synced: BTreeSet<PathBuf>,
}

impl Database {
    fn open(directory: PathBuf) -> Result<Database, OpenError> {
        let place = directory.display().to_string();
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
        let sled = catch_unwind(AssertUnwindSafe(|| config.open()))
            .map_err(|panic| OpenError::Corrupt {
                place: place.clone(),
                reason: format!("sled panicked: {}", panic_text(&*panic)),
            })?
            .map_err(|error| open_error(&place, error))?;
        let file = File::open(directory.join("db")).map_err(io)?;
        file.sync_all().map_err(io)?;
        sync_surroundings(&directory).map_err(io)?;
        let (floor, census) = check_floor(&directory, &sled, &file)?;
        let writer = Writer { census, floor, failed: None, blobs_synced: BTreeSet::new() };
        Ok(Database { directory, sled, file, writer: Mutex::new(writer) })
    }

    fn place(&self) -> String {
        self.directory.display().to_string()
    }

    fn read(&self, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        match self.sled.get(head_key(key)).map_err(|error| self.error(error))? {
            Some(head) => Ok(Some(self.assemble(key, &head)?)),
            None => Ok(None),
        }
    }

    fn scan(
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

    fn assemble(&self, key: &[u8], head: &[u8]) -> Result<Bytes, StoreError> {
        let (pieces, expected, first) =
            split_head(head).ok_or_else(|| self.corrupt("the head of a value is damaged"))?;
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

    fn write(&self, batch: &Batch) -> Result<(), StoreError> {
        let mut writer = self.writer.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Some(failed) = &writer.failed {
            return Err(failed.clone());
        }
        let result = catch_unwind(AssertUnwindSafe(|| self.write_durably(batch, &mut writer)));
        let result = result.unwrap_or_else(|panic| {
            Err(self.corrupt(&format!("sled panicked: {}", panic_text(&*panic))))
        });
        if let Err(error) = &result {
            writer.failed = Some(error.clone());
        }
        result
    }

    fn write_durably(&self, batch: &Batch, writer: &mut Writer) -> Result<(), StoreError> {
        if batch.is_empty() {
            return Ok(());
        }
        let mut census = writer.census;
        census.sequence += 1;
        let mut changes = self.to_sled(batch, &mut census)?;
        changes.insert(CENSUS, census.encode());
        self.sled.apply_batch(changes).map_err(|error| self.error(error))?;
        self.sled.flush().map_err(|error| self.error(error))?;
        let io = |error: io::Error| self.error(sled::Error::Io(error));
        self.file.sync_data().map_err(io)?;
        sync_blobs(&self.directory.join("blobs"), &mut writer.blobs_synced).map_err(io)?;
        writer.census = census;
        writer.floor.raise(census.sequence).map_err(io)
    }

    fn to_sled(&self, batch: &Batch, census: &mut Census) -> Result<sled::Batch, StoreError> {
        // The last change of each key; sled's own batch has no order.
        let last: BTreeMap<&Bytes, Option<&Bytes>> = batch.changes().collect();
        let mut changes = sled::Batch::default();
        for (key, value) in last {
            let before = self.sled.get(head_key(key)).map_err(|error| self.error(error))?;
            let mut pieces_before = 0;
            if let Some(head) = &before {
                let (pieces, checksum, _) = split_head(head)
                    .ok_or_else(|| self.corrupt("the head of a value is damaged"))?;
                census.remove(checksum);
                pieces_before = pieces;
            }
            let pieces = match value {
                Some(value) => {
                    census.add(checksum(key, value));
                    insert_pieces(&mut changes, key, value)
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

    fn error(&self, error: sled::Error) -> StoreError {
        match error {
            sled::Error::Io(error) => {
                StoreError::Io { place: self.place(), reason: error.to_string() }
            }
            other => self.corrupt(&other.to_string()),
        }
    }

    fn corrupt(&self, reason: &str) -> StoreError {
        StoreError::Corrupt { place: self.place(), reason: reason.to_owned() }
    }
}

/// Compares what the database holds with what it held when it was last heard of.
fn check_floor(
    directory: &Path,
    sled: &sled::Db,
    file: &File,
) -> Result<(Floor, Census), OpenError> {
    let place = directory.display().to_string();
    let lost = |reason: String| OpenError::Corrupt { place: place.clone(), reason };
    let io = |error: io::Error| match error.kind() {
        io::ErrorKind::InvalidData => lost(error.to_string()),
        _ => OpenError::Io { place: place.clone(), reason: error.to_string() },
    };
    let sled_error = |error| open_error(&place, error);
    let stored = sled.get(CENSUS).map_err(sled_error)?;
    let stored = stored
        .as_deref()
        .map(|bytes| Census::decode(bytes).ok_or_else(|| lost("the census is damaged".to_owned())));
    let stored = stored.transpose()?;
    let found = take_census(sled, stored.unwrap_or_default().sequence);
    let found = found.map_err(sled_error)?.ok_or_else(|| lost("a head is damaged".to_owned()))?;
    if found != stored.unwrap_or_default() {
        let (pairs, expected) = (found.pairs, stored.unwrap_or_default().pairs);
        return Err(lost(format!("its {pairs} values are not the {expected} that were written")));
    }
    match (Floor::open(directory).map_err(io)?, found.sequence) {
        (Some((floor, noted)), sequence) if sequence >= noted && stored.is_some() => {
            Ok((floor, found))
        }
        (Some((_, noted)), sequence) => Err(lost(format!(
            "it holds {sequence} batches where {noted} were acknowledged: its end is lost"
        ))),
        (None, 0) => {
            // New, or a crash came before the floor was made.
            sled.insert(CENSUS, found.encode()).map_err(sled_error)?;
            sled.flush().map_err(sled_error)?;
            file.sync_all().map_err(io)?;
            Ok((Floor::create(directory, 0).map_err(io)?, found))
        }
        (None, sequence) => {
            Err(lost(format!("it holds {sequence} batches, and the file `floor` is missing")))
        }
    }
}

/// Walks all pairs; none where a head is damaged.
fn take_census(sled: &sled::Db, sequence: u64) -> Result<Option<Census>, sled::Error> {
    let mut census = Census { sequence, ..Census::default() };
    for pair in sled.scan_prefix([HEAD]) {
        let (_, head) = pair?;
        let Some((_, checksum, _)) = split_head(&head) else { return Ok(None) };
        census.add(checksum);
    }
    Ok(Some(census))
}

fn insert_pieces(changes: &mut sled::Batch, key: &[u8], value: &[u8]) -> u8 {
    let (first, rest) = value.split_at(value.len().min(PIECE_BYTES));
    let pieces = rest.len().div_ceil(PIECE_BYTES) as u8;
    let checksum = checksum(key, value).to_be_bytes();
    changes.insert(head_key(key), [&[pieces], &checksum[..], first].concat());
    for (number, piece) in (1..).zip(rest.chunks(PIECE_BYTES)) {
        changes.insert(piece_key(key, number), piece);
    }
    pieces
}

/// Gives the number of further pieces, the checksum and the first piece.
fn split_head(head: &[u8]) -> Option<(u8, u32, &[u8])> {
    let (&[pieces, ref checksum @ ..], first) = head.split_first_chunk::<HEAD_BYTES>()?;
    Some((pieces, u32::from_be_bytes(*checksum), first))
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
        sled::Error::Io(error) => OpenError::Io { place, reason: error.to_string() },
        other => OpenError::Corrupt { place, reason: other.to_string() },
    }
}

fn panic_text(panic: &(dyn std::any::Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("no message")
}
