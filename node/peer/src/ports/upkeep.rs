//! What operators ask of one peer's own part in the cluster.
//!
//! Owns the port that the gateway calls and the Raft node implements. Works on every peer, with or without a leader.

use atelier_state::{LogIndex, State};
use futures_util::future::BoxFuture;

/// Looks after this node's log and state.
pub trait Upkeep: Send + Sync + 'static {
    /// Takes a snapshot, and says where it stands and how many bytes it has.
    ///
    /// # Errors
    /// Says why there is none.
    ///
    /// # Cancel safety
    /// Dropping the future does not take the request back.
    fn take_snapshot(&self) -> BoxFuture<'_, Result<(LogIndex, u64), String>>;

    /// Returns the state exactly as it was after a mark's entry; none where this node has not come so far, came past
    /// it by a snapshot, or has seen [`MARKS_KEPT`] marks since.
    fn marked(&self, index: LogIndex) -> Option<State>;
}

/// States that are kept for comparison, one a mark; the oldest makes room. Each shares what has not changed with the
/// present one.
pub const MARKS_KEPT: usize = 4;
