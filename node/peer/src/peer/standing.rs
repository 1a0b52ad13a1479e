//! What a member sees to by itself: a witness gives the lead away, a newcomer asks for its vote, and a peer that was
//! removed or whose lineage was given up ends.

use super::Task;
use super::origin::goes_on;
use crate::gateway::leader::{Change, Leader as WayToLeader};
use crate::lines::Lines;
use crate::ports::{Clock, Log};
use crate::raft::RaftNode;
use atelier_state::NodeId;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// Between two looks.
const PAUSE: Duration = Duration::from_secs(1);
/// Looks between two questions whether the cluster goes on without this peer.
const LINEAGE_LOOKS: u32 = 5;
/// For a vote to be given.
const PROMOTE_MAX: Duration = Duration::from_secs(10);

/// What the task looks at.
pub(super) struct Standing {
    pub(super) raft: RaftNode,
    pub(super) leader: WayToLeader,
    pub(super) lines: Arc<Lines>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) cluster: String,
    /// It should not lead for long.
    pub(super) witness: bool,
    /// It asks for a vote.
    pub(super) promote: bool,
    /// Told why this peer must end.
    pub(super) given_up: watch::Sender<Option<String>>,
}

pub(super) fn start(standing: Standing) -> Task {
    Task::spawn("standing", |stop| standing.run(stop))
}

impl Standing {
    async fn run(self, stop: CancellationToken) {
        let mut looks = 0;
        let mut asks = self.promote;
        let watch = async {
            loop {
                self.clock.sleep(PAUSE).await;
                self.give_the_lead_away().await;
                if asks {
                    asks = !self.has_a_vote().await;
                }
                if looks % LINEAGE_LOOKS == 0 {
                    self.look_whether_it_goes_on().await;
                }
                looks = looks.wrapping_add(1);
            }
        };
        tokio::select! {
            () = stop.cancelled() => {}
            () = watch => {}
        }
    }

    /// A witness leads no longer than it must, and neither does a member that drains.
    async fn give_the_lead_away(&self) {
        let status = self.raft.status().borrow().clone();
        if !status.is_leader || !status.quorum_acked {
            return;
        }
        let unfit = self.raft.view().borrow().unfit_to_lead();
        if !self.witness && !unfit.contains(&status.node) {
            return;
        }
        // Where all the others are unfit as well, the lead would only go round.
        let fit = status.voters.iter().any(|node| *node != status.node && !unfit.contains(node));
        if !fit {
            return;
        }
        match self.raft.hand_over(&unfit).await {
            Ok(leader) => tracing::info!(leader = leader.0, "gave the lead away"),
            Err(error) => tracing::debug!(%error, "keeps the lead for now"),
        }
    }

    /// Asks for a vote, and says whether it is there. The leader refuses until this peer has caught up. Beside a
    /// single voter it waits until another newcomer is there, so that there will be three.
    async fn has_a_vote(&self) -> bool {
        let status = self.raft.status().borrow().clone();
        if !status.learners.contains(&status.node) {
            return status.voters.contains(&status.node);
        }
        // Of two voters both are needed, so two are worse than one.
        if status.voters.len() < 2 && status.learners.len() < 2 {
            tracing::debug!("waits for a third peer before it asks for a vote");
            return false;
        }
        match self.leader.change(&Change::Promote(status.node), PROMOTE_MAX).await {
            Ok(()) => {
                tracing::info!(node = status.node.0, "has a vote");
                true
            }
            Err(status) => {
                tracing::debug!(reason = status.message(), "has no vote yet");
                false
            }
        }
    }

    async fn look_whether_it_goes_on(&self) {
        let status = self.raft.status().borrow().clone();
        let others = status.addresses.iter().filter(|(node, _)| **node != status.node);
        let others: Vec<String> = others.map(|(_, address)| address.clone()).collect();
        let NodeId(node) = status.node;
        if let Err(error) = goes_on(&self.lines, &self.cluster, node, &others).await {
            tracing::error!(%error, "this peer must not go on");
            self.given_up.send_replace(Some(error.to_string()));
        }
    }
}
