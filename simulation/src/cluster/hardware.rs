//! What of a machine outlives its processes, and the world that it makes for each of them.

use super::Plant;
use super::clock::HostClock;
use super::engine::HostEngine;
use super::plan::Shape;
use crate::world::{SimulatedDisk, SimulatedEntropy};
use atelier_peer::config::{Config, EngineSettings, Jobs, Listen, Member, RaftTimers};
use atelier_peer::peer::Outside;
use atelier_peer::ports::shelf::{MemoryShelf, Shelf};
use atelier_peer::ports::{Dial, Tree};
use atelier_peer::tasks::Group;
use atelier_state::Digest;
use futures_util::FutureExt;
use std::sync::Arc;
use std::time::Duration;

/// The cluster's name.
const CLUSTER: &str = "simulated";

/// Disk, clock and shelf of a machine, and what its peers are told.
pub(crate) struct Hardware {
    pub(crate) id: u64,
    pub(crate) disk: SimulatedDisk,
    pub(crate) clock: HostClock,
    plant: Option<Plant>,
    shape: Shape,
    shelf: MemoryShelf,
}

/// The address that a peer is called by.
pub(crate) fn address(id: u64) -> String {
    format!("http://peer-{id}:7861")
}

impl Hardware {
    pub(crate) fn new(id: u64, shape: &Shape, plant: Option<Plant>, clock: HostClock) -> Hardware {
        Hardware {
            id,
            disk: timed_disk(shape.seed ^ (id << 32)),
            shelf: MemoryShelf::new(Arc::new(clock.clone())),
            clock,
            plant,
            shape: shape.clone(),
        }
    }

    /// Makes the group of a process' tasks.
    pub(crate) fn group(&self, life: u64) -> Group {
        Group::new(self.shape.seed ^ (self.id << 40) ^ life)
    }

    /// Makes the disk of the running process fail its writes.
    pub(crate) fn fail_disk(&self) {
        Tree::ALL.into_iter().for_each(|tree| self.disk.fail(tree));
    }

    /// Says whether the machine holds an artifact.
    pub(crate) fn holds(&self, digest: Digest) -> bool {
        let held = self.shelf.has(digest).now_or_never();
        matches!(held, Some(Ok(true)))
    }

    /// What a process is told.
    pub(crate) fn config(&self, life: u64) -> Config {
        let Config { listen, raft, jobs, engine, .. } = Config::default();
        let member = |id| Member { id, address: address(id) };
        let is_spare = self.id > self.shape.peers;
        // It asks another one with each start, so that one that is down or gone keeps it out for a while only.
        let through = 1 + life % self.shape.peers;
        Config {
            node: if is_spare { 0 } else { self.id },
            cluster: CLUSTER.to_owned(),
            join_through: if is_spare { address(through) } else { String::new() },
            cluster_token: "a-token-of-the-simulation".to_owned(),
            listen: Listen { advertise: address(self.id), ..listen },
            peers: if is_spare { Vec::new() } else { (1..=self.shape.peers).map(member).collect() },
            // The engine comes from outside.
            engine: EngineSettings { enabled: false, ..engine },
            raft: RaftTimers {
                snapshot_entries: self.shape.snapshot_entries,
                entries_kept: self.shape.snapshot_entries,
                ..raft
            },
            jobs: Jobs {
                lease_ms: self.shape.lease_ms,
                checkpoint_steps: self.shape.checkpoint_steps,
                ..jobs
            },
            ..Config::default()
        }
    }

    /// Makes the world of a process.
    pub(crate) fn outside(&self, life: u64, dial: Arc<dyn Dial>) -> Outside {
        let is_forgetful = self.plant == Some(Plant::ForgetfulEngine);
        let class = self.id % self.shape.classes.max(1);
        let step = Duration::from_millis(self.shape.step_ms);
        let engine = HostEngine::new(step, class, is_forgetful);
        self.disk.lie(self.plant == Some(Plant::LyingDisks));
        if self.plant == Some(Plant::LostVotes) {
            self.disk.forget(b"hvote");
        }
        Outside {
            clock: Arc::new(self.clock.clone()),
            entropy: Arc::new(SimulatedEntropy::new(self.shape.seed ^ (self.id << 16) ^ life)),
            dial,
            store: Arc::new(self.disk.open()),
            shelf: Arc::new(self.shelf.clone()),
            engine: Some(Arc::new(engine)),
            files: None,
        }
    }
}

fn timed_disk(seed: u64) -> SimulatedDisk {
    let disk = SimulatedDisk::new(seed);
    disk.slow(0);
    disk
}
