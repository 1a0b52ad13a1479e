//! Who belongs to the cluster, and who leads it.
//!
//! Every change goes through the log; openraft takes the joint step between two sets of voters by itself. A change
//! that was interrupted is finished by asking for it again.

use super::disk::{self, DiskReport};
use super::handover::TransferError;
use super::node::{Inner, RaftNode, leader_of};
use super::types::TypeConfig;
use crate::ports::RaftStatus;
use atelier_state::NodeId;
use atelier_state::mutants::{self, Mutant};
use openraft::ChangeMembers;
use openraft::async_runtime::watch::WatchReceiver;
use openraft::errors::{ClientWriteError, Fatal, InitializeError, RaftError};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// Between two questions to a member that has not answered which disk it has.
const ASK_AGAIN_MS: u64 = 200;
/// How often a change is tried while another one is under way; then the caller is told.
const BUSY_ATTEMPTS: u32 = 20;
/// Between two of these attempts.
const BUSY_PAUSE: Duration = Duration::from_millis(50);
/// Entries that a learner may be behind to be given a vote. With more, commits would wait for it.
const PROMOTE_ENTRIES_BEHIND_MAX: u64 = 1_000;

/// Why a cluster was not initialised.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InitializeClusterError {
    /// This node is not among the members; initialise on one that is.
    #[error("node {0} is not among the members that it should initialise")]
    NotMember(NodeId),
    /// The cluster was formed before, and this node has forgotten it. The text says what to do.
    #[error("{0}")]
    Emptied(String),
    /// This node takes no part any more.
    #[error("the node stopped taking part: {0}")]
    Stopped(String),
}

/// Why the members stayed as they were.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChangeMembersError {
    /// Another node leads, or none does; ask the one that does.
    #[error("this node does not lead, so it cannot change the members")]
    NotLeader {
        /// Who leads and where it listens, as far as this node knows.
        leader: Option<(NodeId, String)>,
    },
    /// Without it nobody could decide anything.
    #[error("node {0} is the last voter; promote another one first")]
    LastVoter(NodeId),
    /// No such member.
    #[error("node {0} is not a member; add it as a learner first")]
    UnknownNode(NodeId),
    /// The member listens elsewhere. Two processes under one id would split the cluster.
    #[error("node {node} is a member at {found}, not at {asked}; remove it and add a new node id")]
    OtherAddress {
        /// The member.
        node: NodeId,
        /// Where it listens.
        found: String,
        /// Where it was said to listen.
        asked: String,
    },
    /// The node does not answer, so nobody says which disk it would vote with.
    #[error("node {node} at {address} does not answer ({reason}); start it and let it catch up")]
    Silent {
        /// Who should vote.
        node: NodeId,
        /// Where it should listen.
        address: String,
        /// What was heard instead.
        reason: String,
    },
    /// The learner has not come far enough; wait until it has.
    #[error("node {node} is {entries} entries behind; promote it when it has caught up")]
    Behind {
        /// The learner.
        node: NodeId,
        /// How far it is behind.
        entries: u64,
    },
    /// The node that should leave stays in, or the one that should come is not there.
    #[error("node {leaves} cannot be replaced by itself; add the new peer first")]
    SameNode {
        /// Both.
        leaves: NodeId,
    },
    /// The node that should come into the place of another has one of its own.
    #[error(
        "node {0} votes already, and to put it into the place of another voter would make the cluster smaller; add a new peer, or remove the one that should leave"
    )]
    Votes(NodeId),
    /// Another change is under way, or the leader is too new; try again shortly.
    #[error("the members cannot be changed right now: {0}; try again")]
    Busy(String),
    /// The outcome is unknown: look at the members, and ask again where they are not as they should be.
    #[error("the outcome is unknown: {0}; look at the members and ask again")]
    Unknown(String),
    /// This node takes no part any more.
    #[error("the node stopped taking part: {0}")]
    Stopped(String),
}

impl RaftNode {
    /// Forms a cluster of these voters. Once, on one node; where there is a cluster already, it does nothing.
    ///
    /// It waits until each of them has answered, so that the membership names the disk of each, and so that a node
    /// whose disk was emptied does not form a second cluster.
    ///
    /// # Errors
    /// As the variants of [`InitializeClusterError`] say.
    ///
    /// # Cancel safety
    /// Dropping the future leaves it open whether the cluster is formed; ask again.
    pub async fn initialize(
        &self,
        members: BTreeMap<NodeId, String>,
    ) -> Result<(), InitializeClusterError> {
        let stopped = |fatal: Fatal<_>| InitializeClusterError::Stopped(fatal.to_string());
        if self.inner.raft.is_initialized().await.map_err(stopped)? {
            return Ok(());
        }
        let members = self.with_disks(members).await?;
        match self.inner.raft.initialize(members).await {
            // Another one was quicker.
            Ok(()) | Err(RaftError::APIError(InitializeError::NotAllowed(_))) => Ok(()),
            Err(RaftError::APIError(InitializeError::NotInMembers(_))) => {
                Err(InitializeClusterError::NotMember(self.inner.options.node))
            }
            Err(RaftError::Fatal(fatal)) => Err(stopped(fatal)),
        }
    }

    /// Asks every member for its disk until all have answered.
    async fn with_disks(
        &self,
        members: BTreeMap<NodeId, String>,
    ) -> Result<BTreeMap<u64, String>, InitializeClusterError> {
        let Inner { dial, disk: own, options, .. } = &*self.inner;
        let mut found = BTreeMap::new();
        let mut silent = BTreeSet::new();
        for (node, address) in members {
            let mut report = Ok(DiskReport { id: Some(own.id), blank: true });
            if node != options.node {
                report = disk::ask(dial.as_ref(), &options.cluster, node.0, &address).await;
            }
            while let Err(reason) = report {
                if silent.insert(node) {
                    let (node, at) = (node.0, &address);
                    tracing::info!(node, at, reason, "waits for a member to form the cluster");
                }
                if let Some(reason) = own.unfit() {
                    return Err(InitializeClusterError::Emptied(reason.clone()));
                }
                tokio::time::sleep(Duration::from_millis(ASK_AGAIN_MS)).await;
                report = disk::ask(dial.as_ref(), &options.cluster, node.0, &address).await;
            }
            match report {
                Ok(report) if report.blank => {
                    found.insert(node.0, disk::member(&address, report.id));
                }
                _ => {
                    let reason = own.was_emptied(&format!("node {} holds its log", node.0));
                    return Err(InitializeClusterError::Emptied(reason));
                }
            }
        }
        Ok(found)
    }

    /// Adds a node that follows and does not vote. A member is left as it is.
    ///
    /// # Errors
    /// As the variants of [`ChangeMembersError`] say.
    ///
    /// # Cancel safety
    /// Dropping the future leaves it open whether the change is made; ask again.
    pub async fn add_learner(
        &self,
        node: NodeId,
        address: String,
    ) -> Result<(), ChangeMembersError> {
        if let Some(found) = self.members().addresses.remove(&node) {
            if found == address {
                return Ok(());
            }
            return Err(ChangeMembersError::OtherAddress { node, found, asked: address });
        }
        // It may not run yet, so it is asked for its disk when it is promoted.
        self.change(ChangeMembers::AddNodes(BTreeMap::from([(node.0, address)])), false).await
    }

    /// Makes a learner a voter, if it has caught up: one that lags would hold commits up. The disk that it has now
    /// becomes the one that it votes with.
    ///
    /// # Errors
    /// As the variants of [`ChangeMembersError`] say.
    ///
    /// # Cancel safety
    /// As [`RaftNode::add_learner`].
    pub async fn promote(&self, node: NodeId) -> Result<(), ChangeMembersError> {
        let members = self.members();
        if members.is_leader && members.voters.contains(&node) {
            return Ok(());
        }
        check_caught_up(&members, node)?;
        let mut change = self.member_with_disk(&members, node).await?;
        change.push(ChangeMembers::AddVoterIds(BTreeSet::from([node.0])));
        self.change(ChangeMembers::Batch(change), false).await
    }

    /// Asks a learner for its disk, and gives the change by which the membership names it. Another node than the
    /// leader has nothing to ask: its change is refused, and the refusal names the leader.
    async fn member_with_disk(
        &self,
        members: &RaftStatus,
        node: NodeId,
    ) -> Result<Vec<ChangeMembers<u64, String>>, ChangeMembersError> {
        let known = members.addresses.get(&node).filter(|_| members.is_leader);
        let Some(address) = known else { return Ok(Vec::new()) };
        let Inner { dial, options, disks, .. } = &*self.inner;
        let report = disk::ask(dial.as_ref(), &options.cluster, node.0, address).await;
        let report = report.map_err(|reason| {
            let address = address.clone();
            ChangeMembersError::Silent { node, address, reason }
        })?;
        disks.learn(node.0, report.id);
        let member = BTreeMap::from([(node.0, disk::member(address, report.id))]);
        Ok(vec![ChangeMembers::SetNodes(member)])
    }

    /// Takes a voter's vote away; it goes on as a learner. A leader hands the lead over first, and its successor
    /// is to be asked.
    ///
    /// # Errors
    /// As the variants of [`ChangeMembersError`] say.
    ///
    /// # Cancel safety
    /// As [`RaftNode::add_learner`].
    pub async fn demote(&self, node: NodeId) -> Result<(), ChangeMembersError> {
        let members = self.members();
        if members.is_leader && !members.voters.contains(&node) {
            let known = members.learners.contains(&node);
            return if known { Ok(()) } else { Err(ChangeMembersError::UnknownNode(node)) };
        }
        self.let_go(&members, node).await?;
        self.change(ChangeMembers::RemoveVoters(BTreeSet::from([node.0])), true).await
    }

    /// Puts a learner that has caught up into a voter's place by one joint change: at no moment is the cluster
    /// smaller than before or after.
    ///
    /// # Errors
    /// As the variants of [`ChangeMembersError`] say.
    ///
    /// # Cancel safety
    /// As [`RaftNode::add_learner`].
    pub async fn replace(&self, leaves: NodeId, comes: NodeId) -> Result<(), ChangeMembersError> {
        if leaves == comes {
            return Err(ChangeMembersError::SameNode { leaves });
        }
        let members = self.members();
        if members.is_leader && members.voters.contains(&comes) {
            return match (members.voters.contains(&leaves), self.is_changing()) {
                // An earlier call has done it, or is about to.
                (false, _) => Ok(()),
                (true, true) => self.remove(leaves).await,
                (true, false) => Err(ChangeMembersError::Votes(comes)),
            };
        }
        check_caught_up(&members, comes)?;
        if !members.voters.contains(&leaves) && members.is_leader {
            return Err(ChangeMembersError::UnknownNode(leaves));
        }
        self.let_go_unless_alone(&members, leaves).await?;
        let mut swap = self.member_with_disk(&members, comes).await?;
        swap.push(ChangeMembers::AddVoterIds(BTreeSet::from([comes.0])));
        swap.push(ChangeMembers::RemoveVoters(BTreeSet::from([leaves.0])));
        self.change(ChangeMembers::Batch(swap), false).await
    }

    /// Removes a member for good, be it voter or learner. Its id must not be used again.
    ///
    /// # Errors
    /// As the variants of [`ChangeMembersError`] say.
    ///
    /// # Cancel safety
    /// As [`RaftNode::add_learner`].
    pub async fn remove(&self, node: NodeId) -> Result<(), ChangeMembersError> {
        if mutants::is(Mutant::RemovedMemberCounts) {
            return Ok(());
        }
        let members = self.members();
        let ids = BTreeSet::from([node.0]);
        if members.voters.contains(&node) {
            self.let_go(&members, node).await?;
            return self.change(ChangeMembers::RemoveVoters(ids), false).await;
        }
        if !members.learners.contains(&node) && members.is_leader {
            return Err(ChangeMembersError::UnknownNode(node));
        }
        self.change(ChangeMembers::RemoveNodes(ids), false).await
    }

    /// Says whether the voters of two configurations count at the moment.
    fn is_changing(&self) -> bool {
        let metrics = self.inner.raft.metrics();
        let membership = metrics.borrow_watched().membership_config.membership().clone();
        membership.get_joint_config().len() > 1
    }

    pub(super) fn members(&self) -> RaftStatus {
        self.inner.status.borrow().clone()
    }

    /// Makes sure that a voter can go: it is not the last one, and it does not lead.
    async fn let_go(&self, members: &RaftStatus, node: NodeId) -> Result<(), ChangeMembersError> {
        if members.voters.len() == 1 {
            return Err(ChangeMembersError::LastVoter(node));
        }
        self.let_go_unless_alone(members, node).await
    }

    /// A leader that goes hands the lead over first: clients would wait for an election otherwise.
    async fn let_go_unless_alone(
        &self,
        members: &RaftStatus,
        node: NodeId,
    ) -> Result<(), ChangeMembersError> {
        if !(members.is_leader && members.node == node) || members.voters.len() == 1 {
            return Ok(());
        }
        match self.hand_over(&BTreeSet::new()).await {
            Ok(heir) => {
                let leader = members.addresses.get(&heir).map(|address| (heir, address.clone()));
                Err(ChangeMembersError::NotLeader { leader })
            }
            Err(TransferError::NotLeader) => Err(ChangeMembersError::NotLeader { leader: None }),
            Err(TransferError::Stopped(reason)) => Err(ChangeMembersError::Stopped(reason)),
            Err(error) => Err(ChangeMembersError::Busy(error.to_string())),
        }
    }

    async fn change(
        &self,
        change: ChangeMembers<u64, String>,
        retain: bool,
    ) -> Result<(), ChangeMembersError> {
        let mut attempts = 1;
        loop {
            let changed = self.inner.raft.change_membership(change.clone(), retain).await;
            match changed.map_err(change_error) {
                Ok(_) => return Ok(()),
                // A new leader learns only with its first entry that the last change is agreed upon.
                Err(ChangeMembersError::Busy(_)) if attempts < BUSY_ATTEMPTS => {
                    attempts += 1;
                    tokio::time::sleep(BUSY_PAUSE).await;
                }
                Err(error) => return Err(error),
            }
        }
    }
}

/// A leader that knows of no entry at a node has not reached it yet. Who does not lead does not know.
fn check_caught_up(members: &RaftStatus, node: NodeId) -> Result<(), ChangeMembersError> {
    if !members.is_leader {
        return Ok(());
    }
    if !members.learners.contains(&node) {
        return Err(ChangeMembersError::UnknownNode(node));
    }
    let matched = members.matched.get(&node).map_or(0, |index| index.0);
    let entries = members.last_log.0.saturating_sub(matched);
    if matched == 0 || entries > PROMOTE_ENTRIES_BEHIND_MAX {
        return Err(ChangeMembersError::Behind { node, entries });
    }
    Ok(())
}

fn change_error(error: RaftError<TypeConfig, ClientWriteError<TypeConfig>>) -> ChangeMembersError {
    match error {
        RaftError::APIError(ClientWriteError::ForwardToLeader(forward)) => {
            ChangeMembersError::NotLeader { leader: leader_of(forward) }
        }
        RaftError::APIError(ClientWriteError::ChangeMembershipError(error)) => {
            ChangeMembersError::Busy(error.to_string())
        }
        RaftError::APIError(other) => ChangeMembersError::Unknown(other.to_string()),
        RaftError::Fatal(fatal) => ChangeMembersError::Stopped(fatal.to_string()),
    }
}
