//! The current snapshot. It lies on the disk, for the next start and for whoever must be sent it; in memory it would
//! take half as much again as the state does.

use super::codec;
use super::types::{LogId, Snapshot, SnapshotMeta};
use crate::ports::{Store, StoreError, Tree};
use crate::storage::LoadError;
use crate::storage::snapshots::Snapshots;
use atelier_state::State;
use bytes::Bytes;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

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
    // With its bytes.
    taken: Option<(SnapshotMeta, u64)>,
    // Why it could not be read again. The node must not go on.
    damage: Option<String>,
}

/// What openraft hands from one part of a node to another as a snapshot.
pub(super) enum SnapshotData {
    /// The one on the shelf, and its bytes; read when a peer must be sent it.
    Shelved(Shelf, u64),
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
        let (disk, bytes) = Snapshots::load(store.as_ref())?;
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
        Ok((shelf(Some((meta.clone(), bytes.len() as u64))), meta, state))
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
        Ok(current.taken.clone().map(|(meta, bytes)| self.snapshot(meta, bytes)))
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
            let bytes = shelf.put(&meta, |disk, store| {
                disk.save_parts(store, |put| codec::encode_snapshot(&meta, &state, put))
            })?;
            Ok(shelf.snapshot(meta, bytes))
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
            let Received { meta, state, bytes } = data.received(&announced)?;
            if meta != announced {
                let reason = format!("snapshot {meta} came where {announced} was announced");
                return Err(io::Error::other(reason));
            }
            shelf.put(&meta, |disk, store| disk.save(store, &bytes))?;
            Ok(state)
        })
        .await
    }

    fn put(
        &self,
        meta: &SnapshotMeta,
        save: impl FnOnce(&mut Snapshots, &dyn Store) -> Result<(), StoreError>,
    ) -> io::Result<u64> {
        let mut disk = lock(&self.disk);
        if self.last_log_id() <= meta.last_log_id {
            save(&mut disk, self.store.as_ref()).map_err(io::Error::other)?;
            lock(&self.current).taken = Some((meta.clone(), disk.bytes()));
        }
        Ok(disk.bytes())
    }

    fn snapshot(&self, meta: SnapshotMeta, bytes: u64) -> Snapshot {
        Snapshot { meta, snapshot: SnapshotData::Shelved(self.clone(), bytes) }
    }

    fn read(&self, meta: &SnapshotMeta) -> io::Result<Bytes> {
        let disk = lock(&self.disk);
        if lock(&self.current).taken.as_ref().map(|(meta, _)| meta) != Some(meta) {
            return Err(io::Error::other("a newer snapshot has taken its place"));
        }
        let read = disk.read(self.store.as_ref()).and_then(|bytes| {
            bytes.ok_or_else(|| LoadError::Corrupt {
                place: self.store.place(Tree::State),
                at: "snapshot".to_owned(),
                reason: "it is missing".to_owned(),
            })
        });
        read.map_err(|error| {
            tracing::error!(%error, "the snapshot could not be read for a peer");
            lock(&self.current).damage = Some(error.to_string());
            io::Error::other(error)
        })
    }

    fn last_log_id(&self) -> Option<LogId> {
        lock(&self.current).taken.as_ref().and_then(|(meta, _)| meta.last_log_id)
    }
}

impl SnapshotData {
    /// Returns how many bytes there are.
    pub(super) fn len(&self) -> u64 {
        match self {
            SnapshotData::Shelved(_, bytes) => *bytes,
            SnapshotData::Received(received) => received.bytes.len() as u64,
        }
    }

    /// Returns the bytes of the snapshot of this description.
    ///
    /// # Errors
    /// When a newer one has taken its place meanwhile, or it is damaged; then the shelf tells whoever asks next.
    pub(super) async fn bytes(self, meta: SnapshotMeta) -> io::Result<Bytes> {
        match self {
            SnapshotData::Shelved(shelf, _) => blocking(move || shelf.read(&meta)).await,
            SnapshotData::Received(received) => Ok(received.bytes),
        }
    }

    fn received(self, announced: &SnapshotMeta) -> io::Result<Received> {
        match self {
            SnapshotData::Shelved(shelf, _) => {
                Received::decode(shelf.read(announced)?).map_err(io::Error::other)
            }
            SnapshotData::Received(received) => Ok(*received),
        }
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|error| Err(io::Error::other(error)))
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
