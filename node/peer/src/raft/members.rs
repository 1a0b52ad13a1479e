//! Who belongs to the cluster, and who leads it.
//!
//! Every change goes through the log; openraft takes the joint step between two sets of voters by itself. A change
//! that was interrupted is finished by asking for it again.

use super::disk::{self, DiskReport};
use super::node::{Inner, RaftNode, leader_of};
use super::types::TypeConfig;
use crate::ports::RaftStatus;
use atelier_state::NodeId;
use openraft::ChangeMembers;
use openraft::errors::{ClientWriteError, Fatal, InitializeError, RaftError};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// The longest wait for a new leader after the old one was asked to go.
const TRANSFER_MS: u64 = 5_000;
/// Between two questions to a member that has not answered which disk it has.
const ASK_AGAIN_MS: u64 = 200;

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

/// Why the leader stayed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TransferError {
    /// Another node leads, or none does.
    #[error("this node does not lead, so it cannot hand the lead over")]
    NotLeader,
    /// Only voters lead.
    #[error("node {0} is not a voter; promote it first")]
    NotVoter(NodeId),
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
                if let Some(reason) = own.emptied() {
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
        self.change(ChangeMembers::AddNodes(BTreeMap::from([(node.0, address)]))).await
    }

    /// Makes a learner a voter, and the disk that it has now the one that it votes with. Wait until it has caught up:
    /// until then it holds commits up.
    ///
    /// # Errors
    /// As the variants of [`ChangeMembersError`] say.
    ///
    /// # Cancel safety
    /// As [`RaftNode::add_learner`].
    pub async fn promote(&self, node: NodeId) -> Result<(), ChangeMembersError> {
        let members = self.members();
        let voter = ChangeMembers::AddVoterIds(BTreeSet::from([node.0]));
        let known = members.addresses.get(&node);
        if known.is_none() && members.is_leader {
            return Err(ChangeMembersError::UnknownNode(node));
        }
        // Another node than the leader refuses, and names it; a voter is left as it is.
        let asked = members.is_leader && !members.voters.contains(&node);
        let Some(address) = known.filter(|_| asked) else { return self.change(voter).await };
        let Inner { dial, options, disks, .. } = &*self.inner;
        let report = disk::ask(dial.as_ref(), &options.cluster, node.0, address).await;
        let report = report.map_err(|reason| {
            let address = address.clone();
            ChangeMembersError::Silent { node, address, reason }
        })?;
        disks.learn(node.0, report.id);
        let member = BTreeMap::from([(node.0, disk::member(address, report.id))]);
        self.change(ChangeMembers::Batch(vec![ChangeMembers::SetNodes(member), voter])).await
    }

    /// Removes a member for good, be it voter or learner. Its id must not be used again.
    ///
    /// # Errors
    /// As the variants of [`ChangeMembersError`] say.
    ///
    /// # Cancel safety
    /// As [`RaftNode::add_learner`].
    pub async fn remove(&self, node: NodeId) -> Result<(), ChangeMembersError> {
        let members = self.members();
        let ids = BTreeSet::from([node.0]);
        if members.voters.contains(&node) {
            if members.voters.len() == 1 {
                return Err(ChangeMembersError::LastVoter(node));
            }
            return self.change(ChangeMembers::RemoveVoters(ids)).await;
        }
        if !members.learners.contains(&node) && members.is_leader {
            return Err(ChangeMembersError::UnknownNode(node));
        }
        self.change(ChangeMembers::RemoveNodes(ids)).await
    }

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

    fn members(&self) -> RaftStatus {
        self.inner.status.borrow().clone()
    }

    async fn change(&self, change: ChangeMembers<u64, String>) -> Result<(), ChangeMembersError> {
        match self.inner.raft.change_membership(change, false).await {
            Ok(_) => Ok(()),
            Err(error) => Err(change_error(error)),
        }
    }
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
