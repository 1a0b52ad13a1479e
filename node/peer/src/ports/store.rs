//! The disk below the log and the snapshots: ordered keys, and writes that are durable when they return.

use bytes::Bytes;
use futures_util::future::BoxFuture;
use std::fmt;

/// Bytes of the longest key; longer ones are refused.
pub const KEY_BYTES_MAX: usize = 64;
/// Bytes of the longest value; longer ones are refused. An entry of `ENTRY_BYTES_MAX` fits with its frame.
pub const VALUE_BYTES_MAX: usize = 64 * 1024;

/// One of the ordered maps. Each is a failure domain of its own: a batch never spans two.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Tree {
    /// Raft's entries and its vote.
    Log,
    /// Snapshots of the state.
    State,
}

/// Changes that take effect together. Where a key comes twice, the later change wins.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Batch {
    changes: Vec<(Bytes, Option<Bytes>)>,
}

/// Keeps ordered maps of bytes on a disk.
///
/// Guarantees, for each tree on its own:
/// - **atomic**: after a crash either all changes of a batch are there or none;
/// - **durable**: a batch whose `write` returned, and [`Store::settled`] after it, survives the loss of power;
/// - **ordered**: a batch never survives without those that returned before it;
/// - **honest**: after a write failed, every later write of the tree fails too. A failed sync is never tried again,
///   since the system may have dropped the pages and would report success.
///
/// Calls block the thread; no async task may make them but through a thread of its own. Reads see every batch that
/// returned, and may run beside a write. There is one writer at a time for each tree; two that race are not ordered.
pub trait Store: Send + Sync + 'static {
    /// Reads the value of a key.
    ///
    /// # Errors
    /// As [`Store::write`].
    fn read(&self, tree: Tree, key: &[u8]) -> Result<Option<Bytes>, StoreError>;

    /// Reads up to `limit` pairs in ascending order of keys, from a key on and below another.
    ///
    /// # Errors
    /// As [`Store::write`].
    fn scan(
        &self,
        tree: Tree,
        from: &[u8],
        below: &[u8],
        limit: usize,
    ) -> Result<Vec<(Bytes, Bytes)>, StoreError>;

    /// Writes a batch; it is durable on return.
    ///
    /// # Errors
    /// - [`StoreError::Size`]: nothing was written, and the store works on.
    /// - [`StoreError::Corrupt`]: the tree's own structure is damaged; the node must not go on.
    /// - [`StoreError::Io`]: it is unknown whether the batch survives; the node must not go on.
    fn write(&self, tree: Tree, batch: Batch) -> Result<(), StoreError>;

    /// Waits until what was written is durable, where that takes simulated time; a real store has waited in `write`.
    ///
    /// # Errors
    /// As [`Store::write`].
    fn settled(&self, tree: Tree) -> BoxFuture<'static, Result<(), StoreError>> {
        let _ = tree;
        Box::pin(std::future::ready(Ok(())))
    }

    /// Says how many bytes a tree takes on the disk.
    ///
    /// # Errors
    /// As [`Store::write`].
    fn bytes_on_disk(&self, tree: Tree) -> Result<u64, StoreError>;

    /// Says where a tree is, for people.
    fn place(&self, tree: Tree) -> String;
}

/// Why a store did not do it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// A key or a value is above its bound.
    #[error("{what} of {bytes} bytes is above the bound of {bytes_max}")]
    Size {
        /// `key` or `value`.
        what: &'static str,
        /// What came.
        bytes: usize,
        /// What fits.
        bytes_max: usize,
    },
    /// What was written is not what is read.
    #[error(
        "{place} is corrupted: {reason}; keep a copy of the directory for inspection, then remove the node and let it join again under a new id with `atelier member replace`"
    )]
    Corrupt {
        /// Which tree.
        place: String,
        /// What was found.
        reason: String,
    },
    /// The system failed, now or at an earlier write.
    #[error("{place} failed: {reason}; check the disk, then restart the node")]
    Io {
        /// Which tree.
        place: String,
        /// What the system said.
        reason: String,
    },
}

impl Tree {
    /// All trees.
    pub const ALL: [Tree; 2] = [Tree::Log, Tree::State];
}

impl fmt::Display for Tree {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Tree::Log => "log",
            Tree::State => "state",
        })
    }
}

impl Batch {
    /// Makes an empty batch.
    pub fn new() -> Batch {
        Batch::default()
    }

    /// Sets a key.
    pub fn set(&mut self, key: impl Into<Bytes>, value: impl Into<Bytes>) {
        self.changes.push((key.into(), Some(value.into())));
    }

    /// Removes a key, if it is there.
    pub fn remove(&mut self, key: impl Into<Bytes>) {
        self.changes.push((key.into(), None));
    }

    /// Counts the changes.
    pub fn len(&self) -> usize {
        self.changes.len()
    }

    /// Says whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }

    /// Walks the changes in the order in which they were made; none for a value is a removal.
    pub fn changes(&self) -> impl Iterator<Item = (&Bytes, Option<&Bytes>)> {
        self.changes.iter().map(|(key, value)| (key, value.as_ref()))
    }

    /// Says whether every key and value is within its bound.
    ///
    /// # Errors
    /// [`StoreError::Size`] for the first that is not.
    pub fn check_sizes(&self) -> Result<(), StoreError> {
        for (key, value) in self.changes() {
            check_size("key", key.len(), KEY_BYTES_MAX)?;
            check_size("value", value.map_or(0, Bytes::len), VALUE_BYTES_MAX)?;
        }
        Ok(())
    }
}

fn check_size(what: &'static str, bytes: usize, bytes_max: usize) -> Result<(), StoreError> {
    if bytes > bytes_max {
        return Err(StoreError::Size { what, bytes, bytes_max });
    }
    Ok(())
}
