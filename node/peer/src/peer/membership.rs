//! The Raft node behind the port through which the membership is changed.

use crate::ports::members::{Members, MembersError};
use crate::raft::{ChangeMembersError, RaftNode};
use atelier_state::NodeId;
use futures_util::future::BoxFuture;

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
}

fn told(error: ChangeMembersError) -> MembersError {
    match error {
        ChangeMembersError::NotLeader { leader } => MembersError::NotLeader { leader },
        ChangeMembersError::LastVoter(_)
        | ChangeMembersError::UnknownNode(_)
        | ChangeMembersError::OtherAddress { .. }
        | ChangeMembersError::Silent { .. }
        | ChangeMembersError::Busy(_) => MembersError::Refused(error.to_string()),
        ChangeMembersError::Unknown(_) | ChangeMembersError::Stopped(_) => {
            MembersError::Unknown(error.to_string())
        }
    }
}
