//! The current snapshot. It lies on the disk, for the next start and for whoever must be sent it; in memory it would
//! take half as much again as the state does.

use super::codec;
use super::types::{LogId, Snapshot, SnapshotMeta};
use crate::ports::{Store, StoreError, Tree};
use crate::storage::LoadError;
use crate::storage::snapshots::{Snapshots, Stored};
use crate::tasks;
use atelier_state::State;
use bytes::{BufMut, Bytes, BytesMut};
use futures_util::future;
use futures_util::stream::{self, BoxStream, StreamExt};
use std::io;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Chunks of a snapshot that are read, and sent, at a time.
const PART_CHUNKS: u32 = 5;
/// The same in bytes, of a snapshot in memory.
const PART_BYTES: usize = 256 * 1024;

/// Where the current snapshot lies.
#[derive(Clone)]
pub(super) struct Shelf {
    store: Arc<dyn Store>,
    // Held while a snapshot is written or read, by a thread that may block.
    disk: Arc<Mutex<Snapshots>>,
    // Held for a moment.
    current: Arc<Mutex<Current>>,
}

struct Current {
    taken: Option<(SnapshotMeta, Stored)>,
    // Why it could not be read again. The node must not go on.
    damage: Option<String>,
}

/// What openraft hands from one part of a node to another as a snapshot.
pub(super) enum SnapshotData {
    /// On the shelf; read when a peer must be sent it.
    Shelved(Shelf, Stored),
    /// From a peer, and found whole.
    Received(Box<Received>),
}

/// A snapshot from a peer.
pub(super) struct Received {
    meta: SnapshotMeta,
    state: State,
    bytes: Bytes,
}

impl Received {
    /// Decodes what a peer has sent. Blocks.
    ///
    /// # Errors
    /// When it is damaged.
    pub(super) fn decode(bytes: Bytes) -> Result<Received, codec::DecodeError> {
        let (meta, state) = codec::decode_snapshot(&bytes)?;
        Ok(Received { meta, state, bytes })
    }
}

impl Shelf {
    /// Reads the current snapshot and the state that it holds. Blocks.
    ///
    /// # Errors
    /// When it is damaged; nothing is changed then.
    pub(super) fn open(store: &Arc<dyn Store>) -> Result<(Shelf, SnapshotMeta, State), LoadError> {
        let (mut disk, bytes) = Snapshots::load(store.as_ref())?;
        let stored = disk.stored();
        let shelf = |taken| Shelf {
            store: store.clone(),
            disk: Arc::new(Mutex::new(disk)),
            current: Arc::new(Mutex::new(Current { taken, damage: None })),
        };
        let Some(bytes) = bytes else {
            return Ok((shelf(None), SnapshotMeta::default(), State::new()));
        };
        let (meta, state) = codec::decode_snapshot(&bytes).map_err(|error| LoadError::Corrupt {
            place: store.place(Tree::State),
            at: error.what.to_owned(),
            reason: error.reason,
        })?;
        Ok((shelf(Some((meta.clone(), stored))), meta, state))
    }

    /// Returns the current snapshot.
    ///
    /// # Errors
    /// When it could not be read the last time; the node must not go on.
    pub(super) fn current(&self) -> io::Result<Option<Snapshot>> {
        let current = lock(&self.current);
        if let Some(damage) = &current.damage {
            return Err(io::Error::new(io::ErrorKind::InvalidData, damage.clone()));
        }
        Ok(current.taken.clone().map(|(meta, stored)| self.snapshot(meta, stored)))
    }

    /// Makes a snapshot of a state, and makes it the current one unless that is newer.
    ///
    /// # Errors
    /// When it cannot be written; the node must not go on.
    ///
    /// # Cancel safety
    /// Dropping the future does not stop the work.
    pub(super) async fn build(&self, meta: SnapshotMeta, state: State) -> io::Result<Snapshot> {
        let shelf = self.clone();
        blocking(move || {
            let stored = shelf.put(&meta, |disk, store| {
                disk.save_parts(store, |put| codec::encode_snapshot(&meta, &state, put))
            })?;
            Ok(shelf.snapshot(meta, stored))
        })
        .await
    }

    /// Makes a snapshot that was received the current one, and returns its state.
    ///
    /// # Errors
    /// When it is not the one that was announced, or cannot be written.
    ///
    /// # Cancel safety
    /// Dropping the future does not stop the work.
    pub(super) async fn install(
        &self,
        announced: SnapshotMeta,
        data: SnapshotData,
    ) -> io::Result<State> {
        let shelf = self.clone();
        blocking(move || {
            let Received { meta, state, bytes } = data.received()?;
            if meta != announced {
                let reason = format!("snapshot {meta} came where {announced} was announced");
                return Err(io::Error::other(reason));
            }
            shelf.put(&meta, |disk, store| disk.save_parts(store, |put| put(&bytes)))?;
            Ok(state)
        })
        .await
    }

    fn put(
        &self,
        meta: &SnapshotMeta,
        save: impl FnOnce(&mut Snapshots, &dyn Store) -> Result<(), StoreError>,
    ) -> io::Result<Stored> {
        let (mut disk, store) = (lock(&self.disk), self.store.as_ref());
        if self.last_log_id() <= meta.last_log_id {
            save(&mut disk, store).map_err(io::Error::other)?;
            let stored = disk.stored();
            lock(&self.current).taken = Some((meta.clone(), stored));
            // Only now: until here the shelf itself held the one before.
            disk.remove_others(store).map_err(io::Error::other)?;
        }
        Ok(disk.stored())
    }

    fn snapshot(&self, meta: SnapshotMeta, stored: Stored) -> Snapshot {
        Snapshot { meta, snapshot: SnapshotData::Shelved(self.clone(), stored) }
    }

    /// Reads some of a snapshot's chunks. Blocks.
    fn read(&self, stored: &Stored, chunks: Range<u32>) -> io::Result<Bytes> {
        let mut bytes = BytesMut::new();
        for number in chunks {
            let chunk = stored.chunk(self.store.as_ref(), number).map_err(|error| {
                tracing::error!(%error, "the snapshot could not be read for a peer");
                lock(&self.current).damage = Some(error.to_string());
                io::Error::other(error)
            })?;
            bytes.put(chunk);
        }
        Ok(bytes.freeze())
    }

    fn last_log_id(&self) -> Option<LogId> {
        lock(&self.current).taken.as_ref().and_then(|(meta, _)| meta.last_log_id)
    }
}

impl SnapshotData {
    /// Returns how many bytes there are.
    pub(super) fn len(&self) -> u64 {
        match self {
            SnapshotData::Shelved(_, stored) => stored.bytes(),
            SnapshotData::Received(received) => received.bytes.len() as u64,
        }
    }

    /// Gives the bytes in parts, each read when it is asked for. Where one cannot be read they end too early, and the
    /// shelf tells whoever asks next.
    pub(super) fn parts(self) -> BoxStream<'static, Bytes> {
        match self {
            SnapshotData::Shelved(shelf, stored) => {
                let parts = (0..stored.chunks()).step_by(PART_CHUNKS as usize);
                let parts = stream::iter(parts).then(move |from| {
                    let (shelf, stored) = (shelf.clone(), stored.clone());
                    let chunks = from..stored.chunks().min(from + PART_CHUNKS);
                    blocking(move || shelf.read(&stored, chunks))
                });
                parts
                    .take_while(|part| future::ready(part.is_ok()))
                    .filter_map(|part| future::ready(part.ok()))
                    .boxed()
            }
            SnapshotData::Received(received) => {
                let bytes = received.bytes;
                let parts = (0..bytes.len()).step_by(PART_BYTES);
                let part = move |at| bytes.slice(at..bytes.len().min(at + PART_BYTES));
                stream::iter(parts.map(part)).boxed()
            }
        }
    }

    fn received(self) -> io::Result<Received> {
        match self {
            SnapshotData::Shelved(shelf, stored) => {
                let bytes = shelf.read(&stored, 0..stored.chunks())?;
                Received::decode(bytes).map_err(io::Error::other)
            }
            SnapshotData::Received(received) => Ok(*received),
        }
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    tasks::blocking(work).await.unwrap_or_else(|error| Err(io::Error::other(error)))
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
