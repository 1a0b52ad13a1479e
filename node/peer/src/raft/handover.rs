//! What a leader is asked to do beside leading: hand the lead over, and take a snapshot.

use super::node::RaftNode;
use crate::ports::RaftStatus;
use atelier_state::{LogIndex, NodeId};
use openraft::Instant;
use openraft::async_runtime::watch::WatchReceiver;
use std::collections::BTreeSet;
use std::time::Duration;

/// The longest wait for a new leader after the old one was asked to go.
const TRANSFER_MS: u64 = 5_000;
/// The longest wait for a snapshot; one of a million jobs takes seconds.
const SNAPSHOT_MS: u64 = 60_000;

/// Why the leader stayed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TransferError {
    /// Another node leads, or none does.
    #[error("this node does not lead, so it cannot hand the lead over")]
    NotLeader,
    /// Only voters lead.
    #[error("node {0} is not a voter; promote it first")]
    NotVoter(NodeId),
    /// There is no other voter that answers.
    #[error(
        "there is no other voter to hand the lead to; add and promote one, or start those that are down"
    )]
    NoHeir,
    /// The node lags; try again once it has caught up.
    #[error("node {node} is {entries} entries behind; let it catch up first")]
    Behind {
        /// The node.
        node: NodeId,
        /// How far it is behind.
        entries: u64,
    },
    /// Nobody, or somebody else, took over in time. The cluster elects by itself.
    #[error("node {0} did not take over in time; see who leads")]
    TimedOut(NodeId),
    /// This node takes no part any more.
    #[error("the node stopped taking part: {0}")]
    Stopped(String),
}

/// Entries that a node may be behind to be handed the lead: what travels while nobody may propose.
const TRANSFER_ENTRIES_BEHIND_MAX: u64 = 1_000;

/// Why there is no new snapshot.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SnapshotError {
    /// It takes longer than it may; it is made by and by all the same.
    #[error("no snapshot within {SNAPSHOT_MS} ms; it is still being made")]
    Late,
    /// This node takes no part any more.
    #[error("the node stopped taking part: {0}")]
    Stopped(String),
}

impl RaftNode {
    /// Hands the lead over to a voter, and waits until it leads.
    ///
    /// # Errors
    /// As the variants of [`TransferError`] say.
    ///
    /// # Cancel safety
    /// Dropping the future does not take the request back.
    pub async fn transfer_leader(&self, to: NodeId) -> Result<(), TransferError> {
        let status = self.members();
        if !status.is_leader {
            return Err(TransferError::NotLeader);
        }
        if to == status.node {
            return Ok(());
        }
        if !status.voters.contains(&to) {
            return Err(TransferError::NotVoter(to));
        }
        let matched = status.matched.get(&to).map_or(0, |index| index.0);
        let entries = status.last_log.0.saturating_sub(matched);
        if entries > TRANSFER_ENTRIES_BEHIND_MAX {
            return Err(TransferError::Behind { node: to, entries });
        }
        let asked = self.inner.raft.trigger().transfer_leader(to.0).await;
        asked.map_err(|fatal| TransferError::Stopped(fatal.to_string()))?;
        let mut status = self.inner.status.clone();
        let leads = status.wait_for(|status| status.leader == Some(to));
        match tokio::time::timeout(Duration::from_millis(TRANSFER_MS), leads).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(_)) => Err(TransferError::Stopped("it was shut down".to_owned())),
            Err(_) => Err(TransferError::TimedOut(to)),
        }
    }

    /// Hands the lead to the voter that has come furthest, and says who that is. One of `avoided` is asked only where
    /// there is nobody else.
    ///
    /// # Errors
    /// As the variants of [`TransferError`] say.
    ///
    /// # Cancel safety
    /// As [`RaftNode::transfer_leader`].
    pub async fn hand_over(&self, avoided: &BTreeSet<NodeId>) -> Result<NodeId, TransferError> {
        let status = self.members();
        if !status.is_leader {
            return Err(TransferError::NotLeader);
        }
        let avoided = avoided.union(&self.silent()).copied().collect();
        let heir = heir(&status, &avoided).ok_or(TransferError::NoHeir)?;
        self.transfer_leader(heir).await.map(|()| heir)
    }

    /// The members that have not answered a heartbeat of this leader within the longest election timeout.
    fn silent(&self) -> BTreeSet<NodeId> {
        let patience = Duration::from_millis(self.inner.options.election_ms_max);
        let metrics = self.inner.raft.metrics().borrow_watched().clone();
        let acked = metrics.heartbeat.iter().flatten();
        let silent = acked.filter(|(_, at)| at.is_none_or(|at| at.elapsed() > patience));
        silent.map(|(node, _)| NodeId(*node)).collect()
    }

    /// Takes a snapshot of what is applied, waits until it is on the disk, and says where it stands and how many bytes
    /// it has. The log behind it is purged as far as the options allow.
    ///
    /// # Errors
    /// As the variants of [`SnapshotError`] say.
    ///
    /// # Cancel safety
    /// Dropping the future does not take the request back.
    pub async fn take_snapshot(&self) -> Result<(LogIndex, u64), SnapshotError> {
        let applied = self.members().applied;
        self.snapshot().await.map_err(SnapshotError::Stopped)?;
        let reached = async {
            loop {
                let snapshot = self.inner.raft.get_snapshot().await;
                let snapshot =
                    snapshot.map_err(|error| SnapshotError::Stopped(error.to_string()))?;
                let index = |id: Option<super::types::LogId>| id.map_or(0, |id| id.index());
                if let Some(taken) = snapshot.filter(|s| index(s.meta.last_log_id) >= applied.0) {
                    let bytes = taken.snapshot.len();
                    return Ok((LogIndex(index(taken.meta.last_log_id)), bytes));
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let within = tokio::time::timeout(Duration::from_millis(SNAPSHOT_MS), reached).await;
        within.unwrap_or(Err(SnapshotError::Late))
    }

    /// Asks for a snapshot, which is made by and by.
    ///
    /// # Errors
    /// Says why this node takes no part any more.
    ///
    /// # Cancel safety
    /// Dropping the future does not take the request back.
    pub async fn snapshot(&self) -> Result<(), String> {
        self.inner.raft.trigger().snapshot().await.map_err(|fatal| fatal.to_string())
    }
}

/// The voter beside the leader that has come furthest: one of those who are not avoided, if there is any.
fn heir(status: &RaftStatus, avoided: &BTreeSet<NodeId>) -> Option<NodeId> {
    let others = status.matched.iter().filter(|(node, matched)| {
        **node != status.node && status.voters.contains(node) && matched.0 > 0
    });
    others.max_by_key(|(node, matched)| (!avoided.contains(node), **matched)).map(|(node, _)| *node)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_heir_has_come_furthest_and_is_no_witness_where_there_is_another() {
        let matched = [(1, 9), (2, 9), (3, 7), (4, 8)];
        let status = RaftStatus {
            node: NodeId(1),
            voters: [1, 2, 3].map(NodeId).into(),
            learners: [NodeId(4)].into(),
            matched: matched.map(|(node, index)| (NodeId(node), LogIndex(index))).into(),
            ..RaftStatus::default()
        };
        let avoiding = |nodes: &[u64]| heir(&status, &nodes.iter().copied().map(NodeId).collect());
        assert_eq!(avoiding(&[]), Some(NodeId(2)));
        assert_eq!(avoiding(&[2]), Some(NodeId(3)));
        assert_eq!(avoiding(&[2, 3]), Some(NodeId(2)));
        assert_eq!(heir(&RaftStatus { matched: [].into(), ..status }, &BTreeSet::new()), None);
    }
}
