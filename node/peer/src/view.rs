//! A read-only copy of the applied state, published after each batch.
//!
//! Whoever reads takes a copy and holds no lock that `apply` would wait for; a clone of the state costs O(1).

use atelier_state::{LogIndex, NodeId, State};
use std::collections::BTreeSet;

/// The state as it was after an entry.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct View {
    /// The state.
    pub state: State,
    /// The last entry that it contains.
    pub applied: LogIndex,
}

impl View {
    /// Those who should not lead where there is somebody else: witnesses, and members that drain.
    #[must_use]
    pub fn unfit_to_lead(&self) -> BTreeSet<NodeId> {
        let unfit = self.state.nodes().filter(|(_, node)| node.witness || node.draining);
        unfit.map(|(id, _)| id).collect()
    }
}
