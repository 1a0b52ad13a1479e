//! Who is in the cluster, and how operators change it.

use super::convert::{self, Opinion};
use super::error::behind_for_clients;
use super::leader::Change;
use super::{CATCH_UP_MAX, Gateway, OPINIONS_MAX};
use crate::ports::RaftStatus;
use atelier_proto::client::v1 as wire;
use atelier_state::limits::FEATURES;
use atelier_state::{
    AllocateNode, Author, Command, Node, NodeId, NoteAct, RemoveNode, Reply, State,
};
use std::collections::BTreeMap;
use std::time::Duration;
use tonic::Status;

/// The feature level from which on the trail tells of members and of the lead.
const ACTS_LEVEL: u32 = 3;

impl Gateway {
    /// Lists the members. Works without a leader: then nobody but this peer counts as alive.
    pub(super) async fn do_list_members(&self) -> Vec<wire::Member> {
        let opinions = self.opinions().await;
        convert::members(&self.raft_status(), &self.view().state, &opinions)
    }

    /// Adds a learner under a new id. A repeat finishes what an interrupted call began.
    pub(super) async fn do_add_member(
        &self,
        address: &str,
        author: Author,
        deadline: Duration,
    ) -> Result<wire::Member, Status> {
        let address = convert::address(address)?;
        let status = self.raft_status();
        if let Some((node, _)) = status.addresses.iter().find(|(_, known)| **known == address) {
            // A newcomer that was let in and has not come yet asks again.
            let came = self.view().state.node(*node).is_none_or(Node::is_registered);
            if status.learners.contains(node) && !came {
                return self.member_once(*node, |_| true).await;
            }
            let text = format!("node {node} listens at {address}; remove it first, or use another");
            return Err(Status::failed_precondition(text));
        }
        let node = match announced(&self.view().state, &status, &address) {
            Some(node) => node,
            None => self.allocate(address.clone(), deadline).await?,
        };
        let act = format!("add node {node} at {address}");
        self.leader.change(&Change::AddLearner(node, address), deadline).await?;
        self.note(act, author, deadline).await;
        tracing::info!(node = node.0, "learner added");
        self.member_once(node, |status| status.learners.contains(&node)).await
    }

    async fn allocate(&self, address: String, deadline: Duration) -> Result<NodeId, Status> {
        let what = format!("the id for {address}");
        let command = Command::AllocateNode(AllocateNode { address });
        let (_, reply) = self.propose(command, deadline, &what).await?;
        match reply {
            Reply::NodeAllocated { node } => Ok(node),
            other => Err(Status::internal(format!("expected an allocated node, got {other:?}"))),
        }
    }

    /// Makes a learner a voter.
    pub(super) async fn do_promote_member(
        &self,
        node: u64,
        author: Author,
        deadline: Duration,
    ) -> Result<wire::Member, Status> {
        let node = convert::node(node)?;
        let is_repeat = self.raft_status().voters.contains(&node);
        let promoted = self.leader.change(&Change::Promote(node), deadline).await;
        promoted.map_err(behind_for_clients)?;
        if !is_repeat {
            self.note(format!("give node {node} a vote"), author, deadline).await;
        }
        tracing::info!(node = node.0, "learner promoted");
        self.member_once(node, |status| status.voters.contains(&node)).await
    }

    /// Takes a member out of the cluster and of the roster.
    pub(super) async fn do_remove_member(
        &self,
        node: u64,
        author: Author,
        deadline: Duration,
    ) -> Result<(), Status> {
        let node = convert::node(node)?;
        let status = self.raft_status();
        let is_member = status.voters.contains(&node) || status.learners.contains(&node);
        if !is_member && self.view().state.node(node).is_none() {
            return Err(Status::not_found(format!("no member {node}; `member list` names them")));
        }
        self.leader.change(&Change::Remove(node), deadline).await?;
        self.forget_node(node, author, deadline).await?;
        tracing::info!(node = node.0, "member removed");
        Ok(())
    }

    /// Drops a node from the roster, and gives back what it held.
    pub(super) async fn forget_node(
        &self,
        node: NodeId,
        author: Author,
        deadline: Duration,
    ) -> Result<(), Status> {
        // Before feature level 2 an author would be refused, and the removal with it.
        let knows_authors = self.view().state.features() >= 2;
        let author = if knows_authors { author } else { Author::default() };
        let command = Command::RemoveNode(RemoveNode { node, author });
        match self.propose(command, deadline, &format!("removing node {node}")).await {
            // It was never registered, or a repeat finds it gone.
            Err(status) if status.code() == tonic::Code::NotFound => Ok(()),
            other => other.map(drop),
        }
    }

    /// Notes in the trail what Raft has done. An act whose note fails is done all the same: the log
    /// of this peer has it then.
    pub(super) async fn note(&self, act: String, author: Author, deadline: Duration) {
        if self.view().state.features() < ACTS_LEVEL {
            return;
        }
        let note = Command::NoteAct(NoteAct { act: act.clone(), author });
        if let Err(status) = self.propose(note, deadline, "the trail's record").await {
            tracing::warn!(act, reason = status.message(), "the trail lacks an act");
        }
    }

    pub(super) fn raft_status(&self) -> RaftStatus {
        self.log.status().borrow().clone()
    }

    /// The leader's opinions; without a leader only that this peer lives.
    pub(super) async fn opinions(&self) -> BTreeMap<NodeId, Opinion> {
        let own = || {
            BTreeMap::from([(
                self.raft_status().node,
                Opinion { alive: true, matched: 0, features: FEATURES },
            )])
        };
        self.leader.opinions(OPINIONS_MAX).await.unwrap_or_else(|_| own())
    }

    /// A member as soon as this peer's status shows the change, or after a while as it is.
    pub(super) async fn member_once(
        &self,
        node: NodeId,
        shown: impl Fn(&RaftStatus) -> bool,
    ) -> Result<wire::Member, Status> {
        let mut status = self.log.status();
        tokio::select! {
            _ = status.wait_for(|status| shown(status)) => {}
            () = self.clock.sleep(CATCH_UP_MAX) => {}
        }
        let opinions = self.opinions().await;
        Ok(convert::member(node, &self.raft_status(), &self.view().state, &opinions))
    }
}

/// A node that was allocated for an address, and has neither started nor become a member.
fn announced(state: &State, status: &RaftStatus, address: &str) -> Option<NodeId> {
    let waits = |node: &NodeId| !status.voters.contains(node) && !status.learners.contains(node);
    let mut nodes = state.nodes().filter(|(_, node)| node.address == address);
    nodes.find(|(id, node)| !node.is_registered() && waits(id)).map(|(id, _)| id)
}
