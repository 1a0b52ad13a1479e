//! A read-only copy of the applied state, published after each batch.
//!
//! Whoever reads takes a copy and holds no lock that `apply` would wait for; a clone of the state costs O(1).

use atelier_state::{LogIndex, State};

/// The state as it was after an entry.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct View {
    /// The state.
    pub state: State,
    /// The last entry that it contains.
    pub applied: LogIndex,
}
