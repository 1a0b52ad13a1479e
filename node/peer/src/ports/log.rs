//! The replicated log, as the loops see it.

use crate::view::View;
use atelier_state::{Command, LogIndex, NodeId, Reply};
use futures_util::future::BoxFuture;
use std::collections::{BTreeMap, BTreeSet};
use tokio::sync::watch;

/// Orders commands for the whole cluster and applies them here.
pub trait Log: Send + Sync + 'static {
    /// Appends one entry of commands and waits until it is applied here; only the leader can.
    ///
    /// When it returns, [`Log::view`] shows the entry. It waits for a quorum for as long as it takes: the caller sets
    /// the deadline by dropping the future, and the outcome is then unknown.
    ///
    /// # Errors
    /// - [`ProposeError::NotLeader`]: nothing was appended; ask the leader it names, or wait for one.
    /// - [`ProposeError::Refused`]: nothing was appended; the entry is empty or too large.
    /// - [`ProposeError::Unknown`]: it may be applied or not; propose the same ids again.
    /// - [`ProposeError::Stopped`]: this node takes no part any more; the outcome is unknown too.
    ///
    /// # Cancel safety
    /// Dropping the future does not take the entry back: it may still be applied.
    fn propose(&self, commands: Vec<Command>) -> BoxFuture<'_, Result<Proposed, ProposeError>>;

    /// Watches the node's part in the cluster. Whatever a status counts as applied, the view shows already.
    fn status(&self) -> watch::Receiver<RaftStatus>;

    /// Watches the applied state. A reader that is slow sees the newest one only.
    fn view(&self) -> watch::Receiver<View>;
}

/// An entry that was applied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proposed {
    /// Its place in the log.
    pub log_index: LogIndex,
    /// One for each command, in their order.
    pub replies: Vec<Reply>,
}

/// Why an entry was not applied, as far as is known.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProposeError {
    /// Another node leads, or none does.
    #[error("this node does not lead{}", leader_hint(.leader))]
    NotLeader {
        /// Who leads and where it listens, as far as this node knows.
        leader: Option<(NodeId, String)>,
    },
    /// The entry breaks a limit.
    #[error("{0}")]
    Refused(String),
    /// The outcome is unknown: propose again with the same ids.
    #[error("the outcome is unknown: {0}; propose the same ids again")]
    Unknown(String),
    /// The node stopped; the outcome is unknown.
    #[error("the node stopped taking part: {0}")]
    Stopped(String),
}

/// A node's part in the cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RaftStatus {
    /// This node.
    pub node: NodeId,
    /// Who leads, as far as this node knows.
    pub leader: Option<NodeId>,
    /// This node leads and has applied the first entry of its leadership, so that its view is current.
    pub is_leader: bool,
    /// The election that this node knows of. Several leaders may share a term; never fence by it.
    pub term: u64,
    /// Index of the last entry here.
    pub last_log: LogIndex,
    /// Index up to which entries are agreed upon, as far as this node knows.
    pub committed: LogIndex,
    /// Index of the last entry that was applied here.
    pub applied: LogIndex,
    /// Members that vote. During a change of members those of either configuration.
    pub voters: BTreeSet<NodeId>,
    /// Members that only follow.
    pub learners: BTreeSet<NodeId>,
    /// Where each member listens.
    pub addresses: BTreeMap<NodeId, String>,
    /// How far each member has come; empty where this node does not lead.
    pub matched: BTreeMap<NodeId, LogIndex>,
    /// This node leads and a quorum answered within the longest election timeout.
    pub quorum_acked: bool,
    /// Why this node takes no part any more; it comes back with a restart only.
    pub stopped: Option<String>,
}

impl Default for RaftStatus {
    /// Makes the status of nobody, before anything is known.
    fn default() -> RaftStatus {
        RaftStatus {
            node: NodeId(0),
            leader: None,
            is_leader: false,
            term: 0,
            last_log: LogIndex(0),
            committed: LogIndex(0),
            applied: LogIndex(0),
            voters: BTreeSet::new(),
            learners: BTreeSet::new(),
            addresses: BTreeMap::new(),
            matched: BTreeMap::new(),
            quorum_acked: false,
            stopped: None,
        }
    }
}

fn leader_hint(leader: &Option<(NodeId, String)>) -> String {
    match leader {
        Some((node, address)) => format!("; node {node} at {address} does"),
        None => " and knows of no leader; try again later".to_owned(),
    }
}
