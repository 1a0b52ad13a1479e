//! Where artifacts lie on one machine.
//!
//! Owns the port and its in-memory implementation; `artifacts` holds the one on a disk. It must not
//! know jobs or peers. The contract, kept by both: bytes are returned only when they have the
//! digest that was asked for, and `put` returns only when the bytes would survive power loss (in
//! memory: at once).

use super::Clock;
use atelier_state::job::Digest;
use bytes::Bytes;
use futures_util::future::{BoxFuture, ready};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Keeps artifacts by digest.
pub trait Shelf: Send + Sync + 'static {
    /// Keeps bytes under their digest; a repeat only makes them young again.
    ///
    /// # Errors
    /// Where the medium fails; nothing is kept then.
    fn put(&self, digest: Digest, bytes: Bytes) -> BoxFuture<'_, Result<(), ShelfError>>;

    /// Returns what lies there, verified.
    ///
    /// # Errors
    /// [`ShelfError::Corrupt`] when bytes lie there that have another digest; they were set aside.
    fn get(&self, digest: Digest) -> BoxFuture<'_, Result<Option<Bytes>, ShelfError>>;

    /// Says whether something lies there, unverified.
    ///
    /// # Errors
    /// Where the medium fails.
    fn has(&self, digest: Digest) -> BoxFuture<'_, Result<bool, ShelfError>>;

    /// Lists everything, with the time since it was last put.
    ///
    /// # Errors
    /// Where the medium fails.
    fn list(&self) -> BoxFuture<'_, Result<Vec<(Digest, Duration)>, ShelfError>>;

    /// Drops an artifact; one that does not lie there is no error.
    ///
    /// # Errors
    /// Where the medium fails.
    fn remove(&self, digest: Digest) -> BoxFuture<'_, Result<(), ShelfError>>;
}

/// Why a shelf failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ShelfError {
    /// The bytes that lie there have another digest. They were set aside and are never served.
    #[error("artifact is corrupt on this disk; it was set aside as {0}")]
    Corrupt(String),
    /// The medium failed.
    #[error("{what}: {error}")]
    Medium {
        /// What was tried.
        what: String,
        /// What the system said.
        error: String,
    },
}

/// A shelf in memory, for tests and for simulated peers. It ages by the clock that it is given.
#[derive(Clone)]
pub struct MemoryShelf {
    clock: Arc<dyn Clock>,
    artifacts: Arc<Mutex<BTreeMap<Digest, (Bytes, Duration)>>>,
}

impl MemoryShelf {
    /// Makes an empty shelf. Clones share what lies there, as processes share a disk.
    pub fn new(clock: Arc<dyn Clock>) -> MemoryShelf {
        MemoryShelf { clock, artifacts: Arc::default() }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Digest, (Bytes, Duration)>> {
        self.artifacts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Shelf for MemoryShelf {
    fn put(&self, digest: Digest, bytes: Bytes) -> BoxFuture<'_, Result<(), ShelfError>> {
        self.lock().insert(digest, (bytes, self.clock.now()));
        Box::pin(ready(Ok(())))
    }

    fn get(&self, digest: Digest) -> BoxFuture<'_, Result<Option<Bytes>, ShelfError>> {
        let found = self.lock().get(&digest).map(|(bytes, _)| bytes.clone());
        Box::pin(ready(Ok(found)))
    }

    fn has(&self, digest: Digest) -> BoxFuture<'_, Result<bool, ShelfError>> {
        Box::pin(ready(Ok(self.lock().contains_key(&digest))))
    }

    fn list(&self) -> BoxFuture<'_, Result<Vec<(Digest, Duration)>, ShelfError>> {
        let now = self.clock.now();
        let artifacts = self.lock();
        let aged = artifacts.iter().map(|(digest, (_, at))| (*digest, now.saturating_sub(*at)));
        let all = aged.collect();
        Box::pin(ready(Ok(all)))
    }

    fn remove(&self, digest: Digest) -> BoxFuture<'_, Result<(), ShelfError>> {
        self.lock().remove(&digest);
        Box::pin(ready(Ok(())))
    }
}
