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
//! 8. sled mends a file that it takes for torn as it opens it. So its files are copied first, and put back when the
//!    database is refused: nothing that could be saved is lost to a restart.
//! 9. sled reuses the space of removed pairs inside of its file, which never shrinks, and its memory follows the file.
//!    So a tree whose file has grown far above what lives in it is written anew: see [`RewriteBounds`]. The new
//!    generation is durable before `CURRENT` names it, and the old one goes after that.

use super::current;
use super::floor::Floor;
use super::generation::{Count, Generation, guarded};
use super::untouched::Untouched;
use crate::ports::{Batch, Store, StoreError, Tree};
use bytes::Bytes;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

const LOCK: &str = "lock";
/// Batches between two looks at the size of a tree's file.
const LOOK_EVERY: u32 = 256;
/// Batches until a tree that could not be written anew is looked at again.
const LOOK_AGAIN: u32 = 16 * LOOK_EVERY;

/// When a tree is written anew: once its file takes more than `bytes_min` and more than `factor` times what lives in it.
///
/// The file is filled by what is written and removed again; at the bound the writer waits for as long as it takes to
/// copy what lives, which is the log's few thousand entries or two snapshots.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RewriteBounds {
    /// Bytes below which a file is left alone; default 256 MiB.
    pub bytes_min: u64,
    /// How many times the living bytes; default 8.
    pub factor: u64,
}

impl Default for RewriteBounds {
    fn default() -> RewriteBounds {
        RewriteBounds { bytes_min: 256 * 1024 * 1024, factor: 8 }
    }
}

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
        "{place} is corrupted: {reason}; keep a copy of the directory for inspection, then remove the node and let it join again under a new id with `atelier member replace`"
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
        SledStore::open_with(directory, RewriteBounds::default())
    }

    /// Opens as [`SledStore::open`] does, with other bounds.
    ///
    /// # Errors
    /// As the variants of [`OpenError`] say; the directory is left as it is.
    pub fn open_with(directory: &Path, bounds: RewriteBounds) -> Result<SledStore, OpenError> {
        let log = Database::open(directory.join("log"), bounds)?;
        let state = Database::open(directory.join("state"), bounds)?;
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
        self.database(tree).reading(|generation| generation.read(key))
    }

    fn scan(
        &self,
        tree: Tree,
        from: &[u8],
        below: &[u8],
        limit: usize,
    ) -> Result<Vec<(Bytes, Bytes)>, StoreError> {
        self.database(tree).reading(|generation| generation.scan(from, below, limit))
    }

    fn write(&self, tree: Tree, batch: Batch) -> Result<(), StoreError> {
        batch.check_sizes()?;
        self.database(tree).write(&batch)
    }

    fn bytes_on_disk(&self, tree: Tree) -> Result<u64, StoreError> {
        self.database(tree).generation().bytes_on_disk()
    }

    fn place(&self, tree: Tree) -> String {
        self.database(tree).directory.display().to_string()
    }
}

struct Database {
    directory: PathBuf,
    bounds: RewriteBounds,
    // Taken for one call by readers, which a switch to another generation does not disturb.
    current: RwLock<Arc<Generation>>,
    // Held over a whole write, so that batches reach the disk one after another. Nothing async waits for it.
    writer: Mutex<Writer>,
    _lock: File,
}

struct Writer {
    // As of the last batch.
    count: Count,
    floor: Floor,
    // The first failure; later writes return it again.
    failed: Option<StoreError>,
    // Batches until the file's size is looked at.
    look_in: u32,
}

impl Database {
    fn open(directory: PathBuf, bounds: RewriteBounds) -> Result<Database, OpenError> {
        let io = |error| io_error(&directory, &error);
        fs::create_dir_all(&directory).map_err(io)?;
        let lock = lock(&directory)?;
        let number = current::read(&directory).map_err(io)?;
        let (generation, floor, count) = open_untouched(&directory, number)?;
        // Only now: had this one been damaged, another one might be of use to whoever inspects it.
        current::remove_others(&directory, number).map_err(io)?;
        let writer = Mutex::new(Writer { count, floor, failed: None, look_in: 0 });
        let current = RwLock::new(Arc::new(generation));
        Ok(Database { directory, bounds, current, writer, _lock: lock })
    }

    fn generation(&self) -> Arc<Generation> {
        self.current.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn reading<T>(
        &self,
        read: impl FnOnce(&Generation) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let generation = self.generation();
        guarded(|| read(&generation)).unwrap_or_else(|panic| Err(generation.corrupt(&panic)))
    }

    fn write(&self, batch: &Batch) -> Result<(), StoreError> {
        let mut writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(failed) = &writer.failed {
            return Err(failed.clone());
        }
        let generation = self.generation();
        let written = guarded(|| self.write_durably(batch, &mut writer, &generation));
        let result = written.unwrap_or_else(|panic| Err(generation.corrupt(&panic)));
        if let Err(error) = &result {
            writer.failed = Some(error.clone());
        }
        result
    }

    fn write_durably(
        &self,
        batch: &Batch,
        writer: &mut Writer,
        generation: &Arc<Generation>,
    ) -> Result<(), StoreError> {
        if batch.is_empty() {
            return Ok(());
        }
        writer.count = generation.write(batch, writer.count)?;
        writer.floor.raise(writer.count.census.sequence).map_err(|error| self.io(&error))?;
        writer.look_in = match writer.look_in.checked_sub(1) {
            Some(left) => left,
            None if self.is_due(writer, generation)? => self.rewrite(writer, generation)?,
            None => LOOK_EVERY,
        };
        Ok(())
    }

    fn is_due(&self, writer: &Writer, generation: &Generation) -> Result<bool, StoreError> {
        let bytes = generation.bytes_on_disk()?;
        let living = writer.count.bytes.saturating_mul(self.bounds.factor);
        Ok(bytes > self.bounds.bytes_min && bytes > living)
    }

    /// Writes what lives into a new generation and makes it the current one. Gives the batches until the next look.
    ///
    /// Where the copy fails the old generation goes on: it is whole, and a full disk is told of by the next batch that
    /// does not fit. Once `CURRENT` may have changed, a failure is one of the tree.
    fn rewrite(&self, writer: &mut Writer, old: &Arc<Generation>) -> Result<u32, StoreError> {
        let number = old.number + 1;
        let next = match self.copy(old, number, writer.count) {
            Ok(next) => next,
            Err(error @ StoreError::Corrupt { .. }) => return Err(error),
            Err(error) => {
                tracing::warn!(%error, "a database that has grown could not be written anew");
                // Half a copy must not take the space that the old one may need.
                if let Err(error) = fs::remove_dir_all(current::place(&self.directory, number)) {
                    tracing::warn!(%error, "half a copy is left until the next start");
                }
                return Ok(LOOK_AGAIN);
            }
        };
        current::switch(&self.directory, number).map_err(|error| self.io(&error))?;
        writer.floor.raise_now(writer.count.census.sequence).map_err(|error| self.io(&error))?;
        let (before, after) = (old.bytes_on_disk()?, next.bytes_on_disk()?);
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(next);
        // Readers that hold the old one read on: a file that is open outlives its name.
        if let Err(error) = current::remove_others(&self.directory, number) {
            tracing::warn!(%error, "an old generation is left until the next start");
        }
        let tree = self.directory.display();
        tracing::info!(%tree, generation = number, before, after, "a database was written anew");
        Ok(LOOK_EVERY)
    }

    fn copy(&self, old: &Generation, number: u64, count: Count) -> Result<Generation, StoreError> {
        let place = current::place(&self.directory, number);
        // A copy that failed before, in this life.
        if place.exists() {
            fs::remove_dir_all(&place).map_err(|error| self.io(&error))?;
        }
        let next = Generation::open(&self.directory, place, number).map_err(|error| {
            let place = self.directory.display().to_string();
            StoreError::Io { place, reason: format!("generation {number}: {error}") }
        })?;
        old.copy_to(&next, count)?;
        Ok(next)
    }

    fn io(&self, error: &io::Error) -> StoreError {
        StoreError::Io { place: self.directory.display().to_string(), reason: error.to_string() }
    }
}

/// Keeps other processes out of a tree's directory for as long as the file is open.
fn lock(directory: &Path) -> Result<File, OpenError> {
    let io = |error: io::Error| io_error(directory, &error);
    let file = File::create(directory.join(LOCK)).map_err(io)?;
    file.try_lock().map_err(|error| io(io::Error::other(format!("it is locked: {error}"))))?;
    Ok(file)
}

/// Opens a generation and checks it. One that is damaged is left as it was found, whatever sled did to it.
fn open_untouched(directory: &Path, number: u64) -> Result<(Generation, Floor, Count), OpenError> {
    let place = current::place(directory, number);
    let untouched = match Untouched::copy(&place) {
        Ok(untouched) => Some(untouched),
        Err(error) => {
            let tree = directory.display();
            tracing::warn!(%tree, %error, "no copy of a database could be made before it is opened");
            None
        }
    };
    let opened = guarded(|| {
        let generation = Generation::open(directory, place, number)?;
        let (floor, count) = check_floor(directory, &generation)?;
        Ok((generation, floor, count))
    });
    let opened = opened.unwrap_or_else(|reason| {
        Err(OpenError::Corrupt { place: directory.display().to_string(), reason })
    });
    let Some(untouched) = untouched else { return opened };
    let settled = match opened {
        Err(OpenError::Corrupt { .. }) => untouched.put_back(),
        _ => untouched.forget(),
    };
    if let Err(error) = settled {
        tracing::warn!(%error, "the copy of a database from before it was opened is left");
    }
    opened
}

/// Compares what the database holds with what it held when it was last heard of.
fn check_floor(directory: &Path, generation: &Generation) -> Result<(Floor, Count), OpenError> {
    let place = directory.display().to_string();
    let lost = |reason: String| OpenError::Corrupt { place: place.clone(), reason };
    let stored = generation.stored_census()?;
    let expected = stored.unwrap_or_default();
    let count = generation.count(expected.sequence)?;
    if count.census != expected {
        let (found, expected) = (count.census.pairs, expected.pairs);
        return Err(lost(format!("its {found} values are not the {expected} that were written")));
    }
    let floor = Floor::open(directory).map_err(|error| io_error(directory, &error))?;
    match (floor, expected.sequence) {
        (Some((floor, noted)), sequence) if sequence >= noted && stored.is_some() => {
            Ok((floor, count))
        }
        (Some((_, noted)), sequence) => Err(lost(format!(
            "it holds {sequence} batches where {noted} were acknowledged: its end is lost"
        ))),
        (None, 0) => {
            // New, or a crash came before the floor was made.
            generation.begin()?;
            let floor = Floor::create(directory, 0).map_err(|error| io_error(directory, &error))?;
            Ok((floor, count))
        }
        (None, sequence) => {
            Err(lost(format!("it holds {sequence} batches, and the file `floor` is missing")))
        }
    }
}

fn io_error(place: &Path, error: &io::Error) -> OpenError {
    let (place, reason) = (place.display().to_string(), error.to_string());
    match error.kind() {
        io::ErrorKind::InvalidData => OpenError::Corrupt { place, reason },
        _ => OpenError::Io { place, reason },
    }
}

impl From<StoreError> for OpenError {
    fn from(error: StoreError) -> OpenError {
        match error {
            StoreError::Io { place, reason } => OpenError::Io { place, reason },
            StoreError::Corrupt { place, reason } => OpenError::Corrupt { place, reason },
            size @ StoreError::Size { .. } => {
                OpenError::Corrupt { place: "the store".to_owned(), reason: size.to_string() }
            }
        }
    }
}
