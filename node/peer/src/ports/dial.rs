//! Connections to other peers.

use std::fmt;

pub use atelier_proto::line::{Line, LineError};

/// What a connection is for. Each purpose gets a connection of its own, so that bulk never holds up a heartbeat.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Purpose {
    /// Raft's votes and heartbeats: small, and late is lost.
    Election,
    /// Raft's stream of entries.
    Append,
    /// Raft's snapshots.
    Snapshot,
    /// Calls of the loops: forwarded proposals, signs of life, progress.
    Control,
    /// Bytes of artifacts and model files.
    Artifact,
}

/// Opens connections to peers.
///
/// Guarantees that a line connects by itself on the first call and again after each failure, that no attempt to
/// connect takes longer than a bound, and that a peer which went away without a word is noticed within seconds.
///
/// A line lives on the async runtime that was current when it was made: make it where it is used, and keep it,
/// since each call makes a new one.
pub trait Dial: Send + Sync + 'static {
    /// Makes a line to a peer at `http://host:port`, without waiting for it to connect.
    ///
    /// # Errors
    /// When the address cannot be one. That a peer does not answer is told by the first call instead.
    fn line(&self, address: &str, purpose: Purpose) -> Result<Line, DialError>;
}

/// Why there is no line.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DialError {
    /// Not an address; correct the configuration or the roster.
    #[error("`{address}` is not an address ({reason}); use http://host:port")]
    Address {
        /// What was asked for.
        address: String,
        /// What is wrong with it.
        reason: String,
    },
}

impl fmt::Display for Purpose {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Purpose::Election => "election",
            Purpose::Append => "append",
            Purpose::Snapshot => "snapshot",
            Purpose::Control => "control",
            Purpose::Artifact => "artifact",
        })
    }
}
