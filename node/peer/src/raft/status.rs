//! openraft's metrics as a status, published whenever it changes.

use super::disk::{self, OwnDisk};
use super::log_storage::LogBytes;
use super::options::RaftOptions;
use super::types::{LogId, Raft, TypeConfig};
use crate::ports::RaftStatus;
use atelier_state::{LogIndex, NodeId};
use openraft::async_runtime::watch::WatchReceiver;
use openraft::errors::Fatal;
use openraft::type_config::alias::WatchReceiverOf;
use openraft::{Instant, RaftMetrics, ServerState};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::watch;

/// When a leader was last heard. A follower that is cut off keeps its leader in openraft's metrics for ever, since
/// pre-votes change nothing; whoever asks this node must learn that it follows nobody.
#[derive(Clone, Debug, Default)]
pub(super) struct Heard(Arc<Mutex<HeardOf>>);

#[derive(Debug, Default)]
struct HeardOf {
    at: Option<tokio::time::Instant>,
    // What the leader had committed by then.
    committed: u64,
}

impl Heard {
    /// Notes a heartbeat that was accepted, and what its leader has committed.
    pub(super) fn now(&self, committed: u64) {
        let mut heard = self.lock();
        heard.at = Some(tokio::time::Instant::now());
        heard.committed = heard.committed.max(committed);
    }

    fn within(&self, time: Duration) -> bool {
        self.lock().at.is_some_and(|at| at.elapsed() <= time)
    }

    fn committed(&self) -> LogIndex {
        LogIndex(self.lock().committed)
    }

    fn lock(&self) -> MutexGuard<'_, HeardOf> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

const SHUT_DOWN: &str = "it was shut down";

type Metrics = WatchReceiverOf<TypeConfig, RaftMetrics<TypeConfig>>;

/// Bounds the bytes of the log, which openraft counts in entries alone.
struct LogBound {
    bytes_max: u64,
    // The snapshot that there was when another one was asked for.
    asked_at: Option<Option<u64>>,
    purged: Option<u64>,
}

impl LogBound {
    /// Asks for a snapshot early where the log is above its bytes. Where there is one, what is kept behind it goes
    /// first: it is there for followers that lag, and these can be sent the snapshot.
    async fn keep(&mut self, raft: &Raft, current: &RaftMetrics<TypeConfig>, bytes: u64) {
        if bytes <= self.bytes_max {
            return;
        }
        let snapshot = current.snapshot.map(|id| id.index());
        let asked = if let Some(index) = snapshot.filter(|_| snapshot > self.purged) {
            self.purged = snapshot;
            raft.trigger().purge_log(index).await
        } else if self.asked_at != Some(snapshot) && current.last_applied > current.snapshot {
            self.asked_at = Some(snapshot);
            raft.trigger().snapshot().await
        } else {
            Ok(())
        };
        if let Err(error) = asked {
            tracing::warn!(%error, "the log is above its bytes and could not be made smaller");
        }
    }
}

/// Publishes the status until openraft has stopped, and keeps the log within its bytes.
pub(super) async fn publish(
    raft: Raft,
    mut metrics: Metrics,
    options: RaftOptions,
    (log_bytes, heard, disk): (LogBytes, Heard, OwnDisk),
    status: watch::Sender<RaftStatus>,
) {
    // What a quorum said grows old without any other change.
    let mut age = tokio::time::interval(Duration::from_millis(options.heartbeat_ms));
    age.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut bound =
        LogBound { bytes_max: options.snapshot_log_bytes, asked_at: None, purged: None };
    loop {
        let stopped = tokio::select! {
            changed = metrics.changed() => changed.is_err(),
            _ = age.tick() => false,
        };
        let current = metrics.borrow_and_update().clone();
        let mut next = status_of(&current, &options, &heard);
        if let Some(unfit) = disk.unfit() {
            next.stopped = Some(unfit.clone());
        }
        if stopped && next.stopped.is_none() {
            next.stopped = Some(SHUT_DOWN.to_owned());
        }
        status.send_if_modified(|status| {
            let modified = *status != next;
            if modified {
                tell(status, &next);
                *status = next.clone();
            }
            modified
        });
        if next.stopped.is_some() {
            if disk.unfit().is_some()
                && let Err(error) = raft.shutdown().await
            {
                tracing::warn!(%error, "raft did not end in good order");
            }
            return;
        }
        bound.keep(&raft, &current, log_bytes.get()).await;
    }
}

/// Logs what an operator wants to know: who leads, who belongs to it, and whether this node still takes part.
fn tell(before: &RaftStatus, now: &RaftStatus) {
    let node = now.node.0;
    if (before.leader, before.is_leader) != (now.leader, now.is_leader) {
        let leader = now.leader.map(|leader| leader.0);
        tracing::info!(node, term = now.term, leader, leads = now.is_leader, "the leader changed");
    }
    if (&before.voters, &before.learners) != (&now.voters, &now.learners) {
        tracing::info!(node, voters = ?now.voters, learners = ?now.learners, "the members changed");
    }
    if let Some(reason) = &now.stopped {
        let deliberate = reason == SHUT_DOWN;
        if deliberate {
            tracing::info!(node, reason, "this node takes no part any more");
        } else {
            tracing::error!(node, reason, "this node takes no part any more");
        }
    }
}

fn status_of(
    metrics: &RaftMetrics<TypeConfig>,
    options: &RaftOptions,
    heard: &Heard,
) -> RaftStatus {
    let index = |id: Option<LogId>| LogIndex(id.map_or(0, |id| id.index()));
    let membership = metrics.membership_config.membership();
    let leads = metrics.state == ServerState::Leader;
    let leader = metrics.vote.leader_id();
    let current = metrics.last_applied.is_some_and(|id| id.committed_leader_id() == leader);
    let lease = Duration::from_millis(options.election_ms_max);
    // A leader without other voters asks nobody, and needs nobody.
    let alone = membership.voter_ids().eq([options.node.0]);
    let acked = alone || metrics.last_quorum_acked.is_some_and(|at| at.elapsed() <= lease);
    // Twice the lease: a loaded machine that delays a heartbeat or two is no partition.
    let follows = leads || heard.within(2 * lease);
    let nodes = |ids: &mut dyn Iterator<Item = u64>| ids.map(NodeId).collect();
    let replication = metrics.replication.iter().flatten();
    RaftStatus {
        node: options.node,
        leader: metrics.current_leader.filter(|_| follows).map(NodeId),
        is_leader: leads && current,
        term: metrics.current_term,
        last_log: LogIndex(metrics.last_log_index.unwrap_or(0)),
        committed: index(metrics.local_committed).max(heard.committed()),
        applied: index(metrics.last_applied),
        voters: nodes(&mut membership.voter_ids()),
        learners: nodes(&mut membership.learner_ids()),
        addresses: membership
            .nodes()
            .map(|(id, at)| (NodeId(*id), disk::address_of(at).to_owned()))
            .collect(),
        matched: replication.map(|(id, matched)| (NodeId(*id), index(*matched))).collect(),
        quorum_acked: leads && acked,
        stopped: metrics.running_state.as_ref().err().map(|fatal| match fatal {
            Fatal::Stopped => SHUT_DOWN.to_owned(),
            fatal => fatal.to_string(),
        }),
    }
}
