//! What only the leader can do or know, wherever this peer stands.
//!
//! Owns the way to the leader: here when this peer leads, else one call over the network. It
//! retries
//! over elections until a deadline; every call it makes may be repeated without harm.

use super::convert::Opinion;
use super::error::{not_changed, status, unavailable};
use crate::lines::Lines;
use crate::liveness::LivenessTable;
use crate::ports::members::Members;
use crate::ports::{Clock, Line, Log, Purpose};
use atelier_proto::peer::v1 as wire;
use atelier_proto::peer::v1::peer_client::PeerClient;
use atelier_state::limits::FEATURES;
use atelier_state::mutants::{self, Mutant};
use atelier_state::{LogIndex, NodeId};
use futures_util::FutureExt;
use futures_util::future::{self, BoxFuture};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;
use tonic::{Code, Request, Status};

/// Between two attempts to reach a leader.
const RETRY_PAUSE: Duration = Duration::from_millis(50);
/// For one attempt; a leader that is silent for longer is asked again, or another one is.
const ATTEMPT_MAX: Duration = Duration::from_secs(5);

/// The way to the leader.
pub(crate) struct Leader {
    pub(crate) cluster: String,
    pub(crate) log: Arc<dyn Log>,
    pub(crate) lines: Arc<Lines>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) members: Arc<dyn Members>,
    pub(crate) liveness: Arc<LivenessTable>,
}

/// A change of the membership.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    AddLearner(NodeId, String),
    Promote(NodeId),
    Remove(NodeId),
    Demote(NodeId),
    /// Who leaves, and who comes.
    Replace(NodeId, NodeId),
    /// To whom, else to whoever has come furthest beside those who should not lead.
    Transfer(Option<NodeId>, BTreeSet<NodeId>),
}

impl Leader {
    /// Where the leader listens, as far as this peer knows.
    pub(crate) fn address(&self) -> Option<String> {
        let status = self.log.status();
        let status = status.borrow();
        status.leader.and_then(|leader| status.addresses.get(&leader).cloned())
    }

    /// The index of the leader's last entry: a view that contains it shows everything that was
    /// acknowledged before the question.
    ///
    /// # Errors
    /// UNAVAILABLE when no leader answers in time.
    pub(crate) async fn last_index(&self, within: Duration) -> Result<LogIndex, Status> {
        if mutants::is(Mutant::FollowerReadWithoutIndex) {
            return Ok(LogIndex(0));
        }
        let opinions = self.opinions(within).await?;
        // What was acknowledged is on somebody's disk beside the leader's, where there is somebody.
        let furthest = opinions.values().map(|opinion| opinion.matched).max();
        Ok(LogIndex(furthest.unwrap_or(0)))
    }

    /// The leader's opinion of every member.
    ///
    /// # Errors
    /// UNAVAILABLE when no leader answers in time.
    pub(crate) async fn opinions(
        &self,
        within: Duration,
    ) -> Result<BTreeMap<NodeId, Opinion>, Status> {
        let ask = |leader| match leader {
            None => future::ready(self.own_opinions()).boxed(),
            Some(peer) => self.opinions_of(peer).boxed(),
        };
        self.retried(within, ask).await
    }

    async fn opinions_of(
        &self,
        mut peer: PeerClient<Line>,
    ) -> Result<BTreeMap<NodeId, Opinion>, Status> {
        let request = wire::LivenessRequest { cluster: self.cluster.clone() };
        let reply =
            peer.liveness(bounded(request)).await.map_err(|status| match status.code() {
                // A read may be repeated whatever came of it, but for another cluster's refusal.
                Code::PermissionDenied => status,
                _ => unavailable(status.message(), None),
            })?;
        let opinion = |peer: wire::PeerLiveness| {
            let wire::PeerLiveness { alive, matched_index: matched, features, .. } = peer;
            let opinion = Opinion { alive, matched, features };
            (NodeId(peer.node), opinion)
        };
        Ok(reply.into_inner().peers.into_iter().map(opinion).collect())
    }

    /// What this peer knows as the leader.
    fn own_opinions(&self) -> Result<BTreeMap<NodeId, Opinion>, Status> {
        let status = self.log.status().borrow().clone();
        if !status.quorum_acked && !mutants::is(Mutant::StaleReadOfDeposedLeader) {
            return Err(unavailable("this peer leads, but no quorum answers it", None));
        }
        let (now, liveness) = (self.clock.now(), self.liveness.get());
        let opinion = |node: &NodeId| {
            let own = *node == status.node;
            let matched = status.matched.get(node).map_or(0, |index| index.0);
            let matched = if own { status.last_log.0 } else { matched };
            let alive = own || liveness.answers(now, *node, LogIndex(matched));
            let features = if own { FEATURES } else { liveness.features(now, *node).unwrap_or(0) };
            (*node, Opinion { alive, matched, features })
        };
        let all = status.voters.union(&status.learners);
        Ok(all.map(opinion).collect())
    }

    /// Changes the membership.
    ///
    /// # Errors
    /// FAILED_PRECONDITION when the leader refuses, UNAVAILABLE when none answers in time.
    pub(crate) async fn change(&self, change: &Change, within: Duration) -> Result<(), Status> {
        let ask = |leader| match leader {
            None => self.change_here(change).boxed(),
            Some(peer) => self.change_at(peer, change).boxed(),
        };
        self.retried(within, ask).await
    }

    async fn change_at(&self, mut peer: PeerClient<Line>, change: &Change) -> Result<(), Status> {
        let change = Some(match change.clone() {
            Change::AddLearner(node, address) => {
                let learner = wire::AddLearner { node: node.0, address };
                wire::change_members_request::Change::AddLearner(learner)
            }
            Change::Promote(node) => wire::change_members_request::Change::Promote(node.0),
            Change::Remove(node) => wire::change_members_request::Change::Remove(node.0),
            Change::Demote(node) => wire::change_members_request::Change::Demote(node.0),
            Change::Replace(leaves, comes) => {
                let swap = wire::ReplaceVoter { leaves: leaves.0, comes: comes.0 };
                wire::change_members_request::Change::Replace(swap)
            }
            Change::Transfer(to, _) => {
                let to = to.map_or(0, |to| to.0);
                wire::change_members_request::Change::TransferLeader(to)
            }
        });
        let request = wire::ChangeMembersRequest { cluster: self.cluster.clone(), change };
        match peer.change_members(request).await {
            Ok(_) => Ok(()),
            Err(refusal) => Err(match refusal.code() {
                // It does not lead any more; the next one is asked.
                Code::FailedPrecondition => unavailable(refusal.message(), None),
                Code::Aborted => status(Code::FailedPrecondition, refusal.message(), None, None),
                // A change may be repeated: it leads to the same members.
                Code::Unknown | Code::Cancelled => unavailable(refusal.message(), None),
                _ => refusal,
            }),
        }
    }

    async fn change_here(&self, change: &Change) -> Result<(), Status> {
        let changed = match change.clone() {
            Change::AddLearner(node, address) => self.members.add_learner(node, address).await,
            Change::Promote(node) => self.members.promote(node).await,
            Change::Remove(node) => self.members.remove(node).await,
            Change::Demote(node) => self.members.demote(node).await,
            Change::Replace(leaves, comes) => self.members.replace(leaves, comes).await,
            Change::Transfer(to, avoided) => self.members.transfer(to, avoided).await,
        };
        changed.map_err(|error| not_changed(&error))
    }

    /// Calls until an answer comes that is final, or the time is over. `None` stands for this peer.
    async fn retried<'a, T>(
        &self,
        within: Duration,
        call: impl Fn(Option<PeerClient<Line>>) -> BoxFuture<'a, Result<T, Status>>,
    ) -> Result<T, Status> {
        let mut last = unavailable("no leader is known; try again later", None);
        let attempts = async {
            loop {
                match self.reach() {
                    Some(leader) => match call(leader).await {
                        Err(status) if status.code() == Code::Unavailable => last = status,
                        result => return result,
                    },
                    None => last = unavailable("no leader is known; try again later", None),
                }
                self.clock.sleep(RETRY_PAUSE).await;
            }
        };
        let result = tokio::select! {
            result = attempts => Some(result),
            () = self.clock.sleep(within) => None,
        };
        result.unwrap_or(Err(last))
    }

    /// The leader: itself `None` when it is this peer; nothing when none is known.
    fn reach(&self) -> Option<Option<PeerClient<Line>>> {
        let status = self.log.status().borrow().clone();
        let leader = status.leader?;
        if status.is_leader {
            return Some(None);
        }
        let address = status.addresses.get(&leader)?;
        let peer = self.lines.peer(address, Purpose::Control).ok()?;
        Some(Some(peer))
    }
}

fn bounded<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.set_timeout(ATTEMPT_MAX);
    request
}
