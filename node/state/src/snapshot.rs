//! The state as plain data: what a snapshot must hold, and nothing that follows from it.

use crate::audit::{self, Violation};
use crate::job::{Job, JobId};
use crate::reply::LogIndex;
use crate::roster::{Node, NodeId};
use crate::state::State;

/// A state without its indexes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// Index of the last entry that was applied.
    pub applied: LogIndex,
    /// By id, ascending.
    pub jobs: Vec<Job>,
    /// By id, ascending.
    pub nodes: Vec<(NodeId, Node)>,
    /// How many jobs were accepted, ever: the sequence of the newest one.
    pub submit_sequence: u64,
    /// How many jobs were forgotten, ever.
    pub forgotten: u64,
}

/// Why data is not a state. Nothing is repaired: fetch the snapshot anew from another peer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SnapshotError {
    /// Not in ascending order, or twice.
    #[error("snapshot has job {0} out of order or twice")]
    JobOrder(JobId),
    /// Not in ascending order, or twice.
    #[error("snapshot has node {0} out of order or twice")]
    NodeOrder(NodeId),
    /// Breaks an invariant.
    #[error("snapshot breaks an invariant: {0}")]
    Violation(#[from] Violation),
}

impl State {
    /// Copies the state out. Take a clone of the state first where `apply` must not wait: that
    /// costs O(1).
    pub fn to_snapshot(&self) -> Snapshot {
        Snapshot {
            applied: self.applied,
            jobs: self.jobs().map(|(_, job)| job.clone()).collect(),
            nodes: self.nodes().map(|(id, node)| (id, node.clone())).collect(),
            submit_sequence: self.submit_sequence,
            forgotten: self.forgotten,
        }
    }

    /// Rebuilds a state with all its indexes.
    ///
    /// # Errors
    /// When the data breaks an order or an invariant; then it was not made by `to_snapshot`.
    pub fn from_snapshot(snapshot: Snapshot) -> Result<State, SnapshotError> {
        let Snapshot { applied, jobs, nodes, submit_sequence, forgotten } = snapshot;
        let mut state = State { applied, submit_sequence, forgotten, ..State::default() };
        for job in jobs {
            let id = job.id();
            if state.jobs.get_max().is_some_and(|(last, _)| *last >= id) {
                return Err(SnapshotError::JobOrder(id));
            }
            state.insert(job);
        }
        for (id, node) in nodes {
            if state.nodes.get_max().is_some_and(|(last, _)| *last >= id) {
                return Err(SnapshotError::NodeOrder(id));
            }
            state.nodes.insert(id, node);
        }
        audit::check(&state)?;
        Ok(state)
    }
}
