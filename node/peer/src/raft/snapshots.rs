//! The current snapshot: in memory for whoever must be sent it, and on the disk for the next start.

use super::codec;
use super::types::{LogId, Snapshot, SnapshotMeta};
use crate::ports::{Store, Tree};
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
    // Held while a snapshot is written, by a thread that may block.
    disk: Arc<Mutex<Snapshots>>,
    // Held for a moment.
    current: Arc<Mutex<Option<(SnapshotMeta, Bytes)>>>,
}

impl Shelf {
    /// Reads the current snapshot and the state that it holds. Blocks.
    ///
    /// # Errors
    /// When it is damaged; nothing is changed then.
    pub(super) fn open(store: &Arc<dyn Store>) -> Result<(Shelf, SnapshotMeta, State), LoadError> {
        let (disk, bytes) = Snapshots::load(store.as_ref())?;
        let shelf = |current| Shelf {
            store: store.clone(),
            disk: Arc::new(Mutex::new(disk)),
            current: Arc::new(Mutex::new(current)),
        };
        let Some(bytes) = bytes else {
            return Ok((shelf(None), SnapshotMeta::default(), State::new()));
        };
        let (meta, state) = codec::decode_snapshot(&bytes).map_err(|error| LoadError::Corrupt {
            place: store.place(Tree::State),
            at: error.what.to_owned(),
            reason: error.reason,
        })?;
        Ok((shelf(Some((meta.clone(), bytes))), meta, state))
    }

    /// Returns the current snapshot.
    pub(super) fn current(&self) -> Option<Snapshot> {
        let (meta, snapshot) = lock(&self.current).clone()?;
        Some(Snapshot { meta, snapshot })
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
            let bytes = codec::encode_snapshot(&meta, &state);
            shelf.put(&meta, &bytes)?;
            Ok(Snapshot { meta, snapshot: bytes })
        })
        .await
    }

    /// Makes a snapshot that was received the current one.
    ///
    /// # Errors
    /// When it is damaged, is not the one that was announced, or cannot be written.
    ///
    /// # Cancel safety
    /// Dropping the future does not stop the work.
    pub(super) async fn install(&self, announced: SnapshotMeta, bytes: Bytes) -> io::Result<State> {
        let shelf = self.clone();
        blocking(move || {
            let (meta, state) = codec::decode_snapshot(&bytes).map_err(io::Error::other)?;
            if meta != announced {
                let reason = format!("snapshot {meta} came where {announced} was announced");
                return Err(io::Error::other(reason));
            }
            shelf.put(&meta, &bytes)?;
            Ok(state)
        })
        .await
    }

    fn put(&self, meta: &SnapshotMeta, bytes: &Bytes) -> io::Result<()> {
        let mut disk = lock(&self.disk);
        if self.last_log_id() > meta.last_log_id {
            return Ok(());
        }
        disk.save(self.store.as_ref(), bytes).map_err(io::Error::other)?;
        *lock(&self.current) = Some((meta.clone(), bytes.clone()));
        Ok(())
    }

    fn last_log_id(&self) -> Option<LogId> {
        lock(&self.current).as_ref().and_then(|(meta, _)| meta.last_log_id)
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
