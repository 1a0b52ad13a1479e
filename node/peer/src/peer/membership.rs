//! The Raft node behind the port through which the membership is changed.

use crate::ports::members::{Members, MembersError};
use crate::raft::{ChangeMembersError, RaftNode, TransferError};
use atelier_state::NodeId;
use futures_util::future::BoxFuture;
use std::collections::BTreeSet;

impl Members for RaftNode {
    fn add_learner(
        &self,
        node: NodeId,
        address: String,
    ) -> BoxFuture<'_, Result<(), MembersError>> {
        Box::pin(async move { RaftNode::add_learner(self, node, address).await.map_err(told) })
    }

    fn promote(&self, node: NodeId) -> BoxFuture<'_, Result<(), MembersError>> {
        Box::pin(async move { RaftNode::promote(self, node).await.map_err(told) })
    }

    fn remove(&self, node: NodeId) -> BoxFuture<'_, Result<(), MembersError>> {
        Box::pin(async move { RaftNode::remove(self, node).await.map_err(told) })
    }

    fn demote(&self, node: NodeId) -> BoxFuture<'_, Result<(), MembersError>> {
        Box::pin(async move { RaftNode::demote(self, node).await.map_err(told) })
    }

    fn replace(&self, leaves: NodeId, comes: NodeId) -> BoxFuture<'_, Result<(), MembersError>> {
        Box::pin(async move { RaftNode::replace(self, leaves, comes).await.map_err(told) })
    }

    fn transfer(
        &self,
        to: Option<NodeId>,
        avoided: BTreeSet<NodeId>,
    ) -> BoxFuture<'_, Result<(), MembersError>> {
        Box::pin(async move {
            let transferred = match to {
                Some(to) => self.transfer_leader(to).await,
                None => self.hand_over(&avoided).await.map(|_| ()),
            };
            transferred.map_err(not_transferred)
        })
    }
}

fn told(error: ChangeMembersError) -> MembersError {
    match error {
        ChangeMembersError::NotLeader { leader } => MembersError::NotLeader { leader },
        ChangeMembersError::Behind { .. } => MembersError::Behind(error.to_string()),
        ChangeMembersError::LastVoter(_)
        | ChangeMembersError::UnknownNode(_)
        | ChangeMembersError::OtherAddress { .. }
        | ChangeMembersError::Silent { .. }
        | ChangeMembersError::SameNode { .. }
        | ChangeMembersError::Votes(_)
        | ChangeMembersError::Busy(_) => MembersError::Refused(error.to_string()),
        ChangeMembersError::Unknown(_) | ChangeMembersError::Stopped(_) => {
            MembersError::Unknown(error.to_string())
        }
    }
}

fn not_transferred(error: TransferError) -> MembersError {
    match error {
        TransferError::NotLeader => MembersError::NotLeader { leader: None },
        TransferError::NotVoter(_) | TransferError::NoHeir | TransferError::Behind { .. } => {
            MembersError::Refused(error.to_string())
        }
        TransferError::TimedOut(_) | TransferError::Stopped(_) => {
            MembersError::Unknown(error.to_string())
        }
    }
}
