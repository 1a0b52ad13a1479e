//! What operators ask: of the leader about members and the lead, and of this peer about itself.

use super::convert;
use super::error::{behind_for_clients, unavailable};
use super::leader::Change;
use super::{CATCH_UP_MAX, Gateway};
use crate::ports::RaftStatus;
use atelier_proto::client::v1 as wire;
use atelier_state::command::SetNode;
use atelier_state::{Author, Command, LogIndex, NodeId};
use std::time::Duration;
use tonic::{Code, Status};

/// Between two questions whether a newcomer has caught up.
const CATCH_UP_POLL: Duration = Duration::from_millis(200);

impl Gateway {
    /// Takes a voter's vote away.
    pub(super) async fn do_demote_member(
        &self,
        node: u64,
        author: Author,
        deadline: Duration,
    ) -> Result<wire::Member, Status> {
        let node = convert::node(node)?;
        let is_repeat = !self.raft_status().voters.contains(&node);
        self.leader.change(&Change::Demote(node), deadline).await?;
        if !is_repeat {
            self.note(format!("take the vote of node {node}"), author, deadline).await;
        }
        tracing::info!(node = node.0, "voter demoted");
        self.member_once(node, |status| !status.voters.contains(&node)).await
    }

    /// Puts a newcomer into a member's place, as soon as it has caught up.
    pub(super) async fn do_replace_member(
        &self,
        request: wire::ReplaceMemberRequest,
        author: Author,
        deadline: Duration,
    ) -> Result<wire::Member, Status> {
        let leaves = convert::node(request.node)?;
        let comes = match request.comes {
            0 => self.newcomer(&request.address, author.clone(), deadline).await?,
            comes => convert::node(comes)?,
        };
        let is_repeat = self.raft_status().voters.contains(&comes);
        let begun = self.clock.now();
        let change = Change::Replace(leaves, comes);
        loop {
            let left = deadline.saturating_sub(self.clock.now().saturating_sub(begun));
            match self.leader.change(&change, left).await {
                // A newcomer that has only been added needs time.
                Err(status) if status.code() == Code::OutOfRange && left > CATCH_UP_POLL => {
                    self.clock.sleep(CATCH_UP_POLL).await;
                }
                other => break other.map_err(behind_for_clients)?,
            }
        }
        if !is_repeat {
            let act = format!("put node {comes} into the place of node {leaves}");
            self.note(act, author.clone(), deadline).await;
        }
        self.forget_node(leaves, author, deadline).await?;
        tracing::info!(leaves = leaves.0, comes = comes.0, "member replaced");
        self.member_once(comes, |status| status.voters.contains(&comes)).await
    }

    async fn newcomer(
        &self,
        address: &str,
        author: Author,
        deadline: Duration,
    ) -> Result<NodeId, Status> {
        let status = self.raft_status();
        let known = status.addresses.iter().find(|(_, known)| *known == address);
        match known {
            Some((node, _)) => Ok(*node),
            None => Ok(NodeId(self.do_add_member(address, author, deadline).await?.node)),
        }
    }

    /// Notes what operators say about a member.
    pub(super) async fn do_set_member(
        &self,
        request: wire::SetMemberRequest,
        author: Author,
        deadline: Duration,
    ) -> Result<wire::Member, Status> {
        let node = convert::node(request.node)?;
        let status = self.raft_status();
        if !status.voters.contains(&node) && !status.learners.contains(&node) {
            return Err(Status::not_found(format!("no member {node}; `member list` names them")));
        }
        convert::labels(&request.labels_set)?;
        let command = Command::SetNode(SetNode {
            node,
            draining: request.draining,
            labels_set: request.labels_set.into_iter().collect(),
            labels_removed: request.labels_removed,
            author,
        });
        let what = format!("node {node}");
        let (index, _) = self.propose(command, deadline, &what).await?;
        self.show(index, &what).await?;
        tracing::info!(node = node.0, draining = request.draining, "member changed");
        self.member_once(node, |_| true).await
    }

    /// Hands the lead over, and answers who leads then.
    pub(super) async fn do_transfer_leader(
        &self,
        to: u64,
        author: Author,
        deadline: Duration,
    ) -> Result<wire::TransferLeaderReply, Status> {
        let before = self.raft_status().leader;
        let to = (to != 0).then_some(NodeId(to));
        if to.is_none() || to != before {
            let change = Change::Transfer(to, self.view().unfit_to_lead());
            self.leader.change(&change, deadline).await?;
        }
        let leads = |status: &RaftStatus| match to {
            Some(to) => status.leader == Some(to),
            None => status.leader.is_some() && status.leader != before,
        };
        let mut status = self.log.status();
        tokio::select! {
            _ = status.wait_for(leads) => {}
            () = self.clock.sleep(CATCH_UP_MAX) => {}
        }
        let leader = self.raft_status().leader;
        if let Some(leader) = leader.filter(|_| leader != before) {
            self.note(format!("hand the lead to node {leader}"), author, deadline).await;
        }
        let leader = leader.map_or(0, |leader| leader.0);
        Ok(wire::TransferLeaderReply { leader })
    }

    /// Takes a snapshot here.
    pub(super) async fn do_take_snapshot(&self) -> Result<wire::TakeSnapshotReply, Status> {
        let (log_index, bytes) =
            self.upkeep.take_snapshot().await.map_err(|why| unavailable(why, None))?;
        tracing::info!(index = log_index.0, bytes, "snapshot taken on demand");
        Ok(wire::TakeSnapshotReply { log_index: log_index.0, bytes })
    }

    /// Puts a mark into the log.
    pub(super) async fn do_place_mark(
        &self,
        deadline: Duration,
    ) -> Result<wire::PlaceMarkReply, Status> {
        let (index, _) = self.propose(Command::Mark, deadline, "the mark").await?;
        Ok(wire::PlaceMarkReply { log_index: index.0 })
    }

    /// The digest of this peer's state at a mark, once it has come that far.
    pub(super) async fn do_digest_at(
        &self,
        log_index: u64,
        deadline: Duration,
    ) -> Result<wire::DigestAtReply, Status> {
        let index = LogIndex(log_index);
        let mut view = self.log.view();
        let reached = tokio::select! {
            reached = view.wait_for(|view| view.applied >= index) => reached.is_ok(),
            () = self.clock.sleep(deadline) => false,
        };
        let applied = self.view().applied.0;
        if !reached {
            let text = format!("this peer stands at entry {applied}, not yet at {log_index}");
            return Err(unavailable(text, None));
        }
        let Some(state) = self.upkeep.marked(index) else {
            let text = format!("no state of entry {log_index} is kept here; place another mark");
            return Err(Status::not_found(text));
        };
        let digest = super::grpc::beside(move || state.digest()).await?;
        let node = self.raft_status().node.0;
        Ok(wire::DigestAtReply { node, state_digest: digest.to_string() })
    }

    /// The cluster's name, with its lineage after a recovery.
    pub(super) fn cluster(&self) -> String {
        self.leader.cluster.clone()
    }
}
