//! How the membership of the Raft cluster is changed.
//!
//! Owns the port that `PeerService` calls and the Raft node implements. Works on the leader only.

use atelier_state::roster::NodeId;
use futures_util::future::BoxFuture;
use std::collections::BTreeSet;

/// Changes who replicates and who votes.
pub trait Members: Send + Sync + 'static {
    /// Lets a node replicate the log without a vote.
    ///
    /// # Errors
    /// As [`MembersError`] tells.
    fn add_learner(&self, node: NodeId, address: String)
    -> BoxFuture<'_, Result<(), MembersError>>;

    /// Gives a learner that has caught up a vote.
    ///
    /// # Errors
    /// As [`MembersError`] tells.
    fn promote(&self, node: NodeId) -> BoxFuture<'_, Result<(), MembersError>>;

    /// Takes a node out of the membership.
    ///
    /// # Errors
    /// As [`MembersError`] tells.
    fn remove(&self, node: NodeId) -> BoxFuture<'_, Result<(), MembersError>>;

    /// Takes a voter's vote away and lets it go on as a learner.
    ///
    /// # Errors
    /// As [`MembersError`] tells.
    fn demote(&self, node: NodeId) -> BoxFuture<'_, Result<(), MembersError>>;

    /// Puts a learner that has caught up into a voter's place, by one change.
    ///
    /// # Errors
    /// As [`MembersError`] tells.
    fn replace(&self, leaves: NodeId, comes: NodeId) -> BoxFuture<'_, Result<(), MembersError>>;

    /// Hands the lead to a voter, or to whoever has come furthest beside those who are avoided, and waits until it
    /// leads.
    ///
    /// # Errors
    /// As [`MembersError`] tells.
    fn transfer(
        &self,
        to: Option<NodeId>,
        avoided: BTreeSet<NodeId>,
    ) -> BoxFuture<'_, Result<(), MembersError>>;
}

/// Why the membership was not changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MembersError {
    /// Another node leads; ask it.
    #[error("this node does not lead")]
    NotLeader {
        /// Who leads, where known, and where it listens.
        leader: Option<(NodeId, String)>,
    },
    /// The change cannot be made now; the text says what was expected and what is.
    #[error("{0}")]
    Refused(String),
    /// The newcomer has not come far enough; ask again when it has.
    #[error("{0}")]
    Behind(String),
    /// The change may or may not take place; look at the membership before a repeat.
    #[error("outcome unknown: {0}")]
    Unknown(String),
}
