//! Where running jobs stand, kept by their worker and by one other peer, so that a lost worker
//! costs some steps and not the whole drawing.
//!
//! ```text
//!   worker: engine ─► attempt ─► put ─┬─► held here
//!                                     └─► send ─► one other peer ─► held there
//!   next worker: newest ─► held here, and every other peer at once ─► checked ─► engine
//! ```
//!
//! Owns what is held ([`held`]), who is sent to and who is asked. It must not know engines or
//! attempts. Nothing of it is logged, and all of it may be lost: the job is then drawn from the
//! beginning, to the same bytes.

mod held;
mod wire;

pub use wire::{CheckpointError, MESSAGE_BYTES_MAX};

use crate::lines::Lines;
use crate::ports::engine::Point;
use crate::ports::{Clock, RaftStatus};
use crate::view::View;
use atelier_state::job::{ArtifactRef, Digest, JobId};
use atelier_state::lease::FencingToken;
use atelier_state::mutants::{self, Mutant};
use atelier_state::roster::NodeId;
use futures_util::stream::{FuturesUnordered, StreamExt};
use held::Held;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// Where an attempt stood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checkpoint {
    /// The job.
    pub job: JobId,
    /// Of the lease under which it was made.
    pub token: FencingToken,
    /// Determinism class of the engine that made it.
    pub class: String,
    /// What was drawn, by which model: see [`order_digest`].
    pub order: Digest,
    /// The place.
    pub point: Point,
    /// The finished images before it, in order.
    pub pictures: Vec<ArtifactRef>,
}

impl Checkpoint {
    /// Orders the checkpoints of one job: of the newest lease, the one that has come furthest.
    pub fn progress(&self) -> (FencingToken, u32, u32) {
        (self.token, self.point.image, self.point.step)
    }
}

/// Names what is drawn and by which model; equal digests and classes give equal latents.
pub fn order_digest(kind: &str, parameters: &[u8], model: &str) -> Digest {
    let mut hasher = blake3::Hasher::new();
    for part in [kind.as_bytes(), parameters, model.as_bytes()] {
        hasher.update(&u64::try_from(part.len()).expect("a usize fits").to_le_bytes());
        hasher.update(part);
    }
    Digest(*hasher.finalize().as_bytes())
}

/// How checkpoints are carried.
#[derive(Clone, Debug)]
pub struct CheckpointSettings {
    /// Name of the cluster; peers of another one refuse.
    pub cluster: String,
    /// For one checkpoint to reach one peer, beside the time that its bytes take at
    /// `bytes_per_second`. Default 2 s.
    pub call: Duration,
    /// The slowest link that is waited for. Default 2 MiB a second.
    pub bytes_per_second: u64,
    /// For all peers to answer who is asked for a checkpoint. Default 2 s.
    pub ask: Duration,
    /// For the others, once one has answered with a checkpoint. Default 0.3 s.
    pub grace: Duration,
    /// A peer that failed is sent to last for this long. Default 10 s.
    pub shy: Duration,
    /// Between two looks for checkpoints that nobody needs any more. Default 1 s.
    pub collect_every: Duration,
}

impl CheckpointSettings {
    /// Makes the defaults for a cluster.
    pub fn new(cluster: impl Into<String>) -> CheckpointSettings {
        CheckpointSettings {
            cluster: cluster.into(),
            call: Duration::from_secs(2),
            bytes_per_second: 2 * 1024 * 1024,
            ask: Duration::from_secs(2),
            grace: Duration::from_millis(300),
            shy: Duration::from_secs(10),
            collect_every: Duration::from_secs(1),
        }
    }
}

/// What checkpoints work with.
#[derive(Clone)]
pub struct CheckpointParts {
    /// The way to other peers.
    pub lines: Arc<Lines>,
    /// Who the other peers are.
    pub status: watch::Receiver<RaftStatus>,
    /// Which jobs have ended.
    pub view: watch::Receiver<View>,
    /// For deadlines.
    pub clock: Arc<dyn Clock>,
}

/// Peers that one checkpoint is offered to before it is given up: the next one is not far.
const OFFERS_MAX: usize = 2;

/// The checkpoints of one peer.
pub struct Checkpoints {
    parts: CheckpointParts,
    settings: CheckpointSettings,
    held: Mutex<Held>,
    // Who failed when; bounded by the members, since others are dropped at each look.
    failures: Mutex<BTreeMap<NodeId, Duration>>,
}

impl Checkpoints {
    /// Makes the checkpoints of one peer, of which there are none yet.
    pub fn new(parts: CheckpointParts, settings: CheckpointSettings) -> Checkpoints {
        Checkpoints { parts, settings, held: Mutex::default(), failures: Mutex::default() }
    }

    /// Holds a checkpoint here, unless a newer one of the job is held or the job has ended.
    pub fn put(&self, checkpoint: Checkpoint) {
        if !is_needed(&self.parts.view.borrow(), checkpoint.job, checkpoint.token) {
            return;
        }
        self.held().put(checkpoint);
    }

    /// Returns the newest checkpoint of a job that is held here.
    pub fn here(&self, job: JobId) -> Option<Checkpoint> {
        self.held().get(job).cloned()
    }

    /// Sends a checkpoint to one other peer, and says to whom. Without one that takes it, it is
    /// lost: the next one is sent all the same.
    pub async fn send(&self, checkpoint: &Checkpoint) -> Option<NodeId> {
        let message = self.message(checkpoint).await;
        for (node, address) in self.candidates().into_iter().take(OFFERS_MAX) {
            match self.offer(&address, message.clone()).await {
                Ok(()) => return Some(node),
                Err(error) => {
                    tracing::debug!(peer = %node, %error, "a checkpoint was not taken");
                    self.failures().insert(node, self.parts.clock.now());
                }
            }
        }
        None
    }

    /// Lists the other members: voters before learners, each from this node's successor on, so that
    /// every worker has another one, and last those that failed a short time ago.
    fn candidates(&self) -> Vec<(NodeId, String)> {
        let status = self.parts.status.borrow().clone();
        let mut candidates = Vec::new();
        for group in [&status.voters, &status.learners] {
            let after = group.iter().filter(|node| **node > status.node);
            let before = group.iter().filter(|node| **node < status.node);
            let with_address = |node: &NodeId| Some((*node, status.addresses.get(node)?.clone()));
            candidates.extend(after.chain(before).filter_map(with_address));
        }
        let now = self.parts.clock.now();
        let mut failures = self.failures();
        failures.retain(|_, at| now.saturating_sub(*at) < self.settings.shy);
        candidates.sort_by_key(|(node, _)| failures.contains_key(node));
        candidates
    }

    /// Returns the newest checkpoint of a job from which an engine of a class may go on with an
    /// order: held here, or by a peer that answers in time.
    pub async fn newest(&self, job: JobId, class: &str, order: Digest) -> Option<Checkpoint> {
        let of_class =
            |found: &Checkpoint| found.class == class || mutants::is(Mutant::ForeignCheckpoint);
        let usable =
            |found: &Checkpoint| found.job == job && of_class(found) && found.order == order;
        let mut newest = self.here(job).filter(usable);
        let peers = self.candidates();
        let mut answers: FuturesUnordered<_> =
            peers.iter().map(|(node, address)| self.ask(*node, address, job)).collect();
        let mut late = self.parts.clock.sleep(self.settings.ask);
        loop {
            let answer = tokio::select! {
                biased;
                answer = answers.next() => answer,
                () = &mut late => return newest,
            };
            let Some(answer) = answer else { return newest };
            let Some(found) = answer.filter(usable) else { continue };
            if newest.as_ref().is_none_or(|newest| newest.progress() < found.progress()) {
                newest = Some(found);
            }
            // Those who are slower than this may be gone for good.
            late = self.parts.clock.sleep(self.settings.grace);
        }
    }

    async fn ask(&self, node: NodeId, address: &str, job: JobId) -> Option<Checkpoint> {
        match self.fetch(address, job).await {
            Ok(found) => found,
            Err(error) => {
                tracing::debug!(peer = %node, %job, %error, "a peer has no checkpoint to give");
                None
            }
        }
    }

    /// Drops what nobody needs any more; returns how many.
    pub fn collect(&self) -> usize {
        let view = self.parts.view.borrow().clone();
        self.held().retain(|checkpoint| is_needed(&view, checkpoint.job, checkpoint.token))
    }

    /// Collects after changes of the view until `shutdown`.
    pub async fn run_collector(self: Arc<Self>, shutdown: CancellationToken) {
        let mut view = self.parts.view.clone();
        loop {
            tokio::select! {
                biased;
                () = shutdown.cancelled() => return,
                changed = view.changed() => if changed.is_err() { return },
            }
            self.collect();
            tokio::select! {
                biased;
                () = shutdown.cancelled() => return,
                () = self.parts.clock.sleep(self.settings.collect_every) => {}
            }
        }
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn failures(&self) -> MutexGuard<'_, BTreeMap<NodeId, Duration>> {
        self.failures.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Says whether a job may still go on. One that this view does not know may be newer than the view.
fn is_needed(view: &View, job: JobId, token: FencingToken) -> bool {
    match view.state.job(job) {
        Some(job) => !job.phase.is_terminal(),
        None => token.0 > view.applied.0,
    }
}
