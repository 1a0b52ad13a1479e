//! Bytes on a disk: the durable log, the vote and the snapshots.
//!
//! ```text
//!   raft/ ──► LogWriter ── one thread, group commit ──┐
//!        └──► snapshots: chunks, then one switch ─────┤──► ports::Store ──► SledStore: <dir>/log, <dir>/state
//!             identity: whose directory this is ──────┘        │
//!             frame: format byte + checksum round each value   └──► (the simulation's disk)
//! ```
//!
//! It owns the layout of keys, the checksums and the order of writes. It must not know what an entry means: entries,
//! votes and states are bytes here. What it promises upwards: acknowledged means durable, and bytes that come back
//! are the bytes that went in; otherwise there is an error that says where.

mod census;
mod current;
mod floor;
pub mod frame;
mod generation;
pub mod identity;
pub mod log;
pub mod memory;
pub mod sled_store;
pub mod snapshots;
mod untouched;

pub use identity::{DiskId, Identity, IdentityError};
pub use log::{LogImage, LogWriter};
pub use memory::MemoryStore;
pub use sled_store::{OpenError, RewriteBounds, SledStore};

use crate::ports::StoreError;

/// Why what is stored cannot be used. Nothing is deleted or repaired.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LoadError {
    /// The store itself failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A value is damaged or missing.
    #[error(
        "{place} is corrupted at {at}: {reason}; keep a copy of the directory for inspection, then remove the node and let it join again under a new id with `atelier member replace`"
    )]
    Corrupt {
        /// Which tree.
        place: String,
        /// Which index or chunk.
        at: String,
        /// What was found.
        reason: String,
    },
}
