//! Which attempts to start and to stop, from the view alone.
//!
//! Owns what was started. Each lease is started once: one whose attempt has ended stays remembered
//! until it has left the view, which may be behind. Decides, and moves nothing.

use super::LeaseKey;
use atelier_state::job::{JobId, Phase};
use atelier_state::lease::FencingToken;
use atelier_state::roster::NodeId;
use atelier_state::state::State;
use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet};

/// A lease to be worked on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Assignment {
    /// The job.
    pub job: JobId,
    /// The lease's token.
    pub token: FencingToken,
    /// Says who understands the parameters.
    pub kind: String,
    /// As the job carries them.
    pub parameters: Bytes,
    /// An earlier lease was begun; it may have left a checkpoint.
    pub is_repeated: bool,
}

/// What to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Duty {
    /// Begin an attempt.
    Start(Assignment),
    /// End an attempt; its lease is gone.
    Stop {
        /// The job.
        job: JobId,
        /// The lease's token.
        token: FencingToken,
    },
}

/// The leases of one node's process, as it has dealt with them.
#[derive(Clone, Debug)]
pub struct Duties {
    node: NodeId,
    // The leases of the view and the attempts that are being stopped: bounded by slots.
    held: BTreeMap<LeaseKey, Held>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Held {
    Running,
    /// The lease is gone, the attempt not yet.
    Stopping,
    /// The attempt has ended, the lease is still in the view.
    Ended,
}

impl Duties {
    /// Makes the duties of a node that has begun nothing.
    pub fn new(node: NodeId) -> Duties {
        Duties { node, held: BTreeMap::new() }
    }

    /// Compares what the view leases to this process with what was begun.
    pub fn decide(&mut self, state: &State, incarnation: u64) -> Vec<Duty> {
        let mut duties = Vec::new();
        let mut leased = BTreeSet::new();
        for (job, lease) in state.leases_of(self.node) {
            if lease.incarnation != incarnation {
                continue;
            }
            let key = (job, lease.token);
            leased.insert(key);
            if self.held.contains_key(&key) {
                continue;
            }
            self.held.insert(key, Held::Running);
            let leased_job = state.job(job).expect("a leased job exists");
            let submit = &leased_job.submit;
            duties.push(Duty::Start(Assignment {
                job,
                token: lease.token,
                kind: submit.kind.to_string(),
                parameters: submit.parameters.clone(),
                is_repeated: leased_job.leases > 1,
            }));
        }
        self.held.retain(|key, held| leased.contains(key) || *held != Held::Ended);
        for (key, held) in &mut self.held {
            // Where its own answer has taken effect it ends by itself, as soon as it hears that.
            let has_answered = || {
                let job = state.job(key.0);
                job.is_some_and(|it| it.phase == Phase::Succeeded && it.last_token == Some(key.1))
            };
            if *held == Held::Running && !leased.contains(key) && !has_answered() {
                *held = Held::Stopping;
                duties.push(Duty::Stop { job: key.0, token: key.1 });
            }
        }
        duties
    }

    /// Notes that an attempt has ended.
    pub fn finished(&mut self, key: LeaseKey) {
        match self.held.get_mut(&key) {
            Some(held @ Held::Running) => *held = Held::Ended,
            Some(Held::Stopping) => {
                self.held.remove(&key);
            }
            Some(Held::Ended) | None => unreachable!("an attempt that was begun ends once"),
        }
    }
}
