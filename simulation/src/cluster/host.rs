//! One machine: what outlives its processes, and the process that runs on it.

use super::Plant;
use super::chronicle::Event;
use super::clock::HostClock;
use super::diary::Serving;
use super::engine::HostEngine;
use super::eye::Onlooker;
use super::network::{Network, SimulatedDial};
use super::plan::Shape;
use crate::operations::Server;
use crate::world::{SimulatedDisk, SimulatedEntropy};
use atelier_peer::config::{Config, EngineSettings, Jobs, Listen, Member, RaftTimers};
use atelier_peer::peer::{OriginError, Outside, Peer, StartError};
use atelier_peer::ports::Tree;
use atelier_peer::ports::shelf::{MemoryShelf, Shelf};
use atelier_peer::tasks::Group;
use atelier_state::Digest;
use futures_util::FutureExt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::time::{Instant, timeout_at};

/// The cluster's name.
const CLUSTER: &str = "simulated";

/// A machine of the cluster.
pub(crate) struct Host {
    pub(crate) id: u64,
    pub(crate) disk: SimulatedDisk,
    pub(crate) clock: HostClock,
    plant: Option<Plant>,
    shape: Shape,
    network: Network,
    onlooker: Onlooker,
    shelf: MemoryShelf,
    /// How many processes it has had.
    lives: AtomicU64,
    /// Faults that keep it down at the moment.
    down: AtomicU64,
    /// Whether a process is to run: a spare waits for the operator, and a peer that was removed has ended for good.
    enabled: Arc<AtomicBool>,
    process: Mutex<Option<Process>>,
}

/// A peer's process.
struct Process {
    group: Group,
    // None while it starts.
    peer: Option<Arc<Peer>>,
}

/// The address that a peer is called by.
pub(crate) fn address(id: u64) -> String {
    format!("http://peer-{id}:7861")
}

impl Serving for Host {
    fn server(&self) -> Server {
        Server { peer: self.id, life: self.life() }
    }
}

impl Host {
    pub(crate) fn new(
        id: u64,
        shape: &Shape,
        plant: Option<Plant>,
        (network, onlooker): (&Network, &Onlooker),
        clock: HostClock,
    ) -> Host {
        let seed = shape.seed ^ (id << 32);
        let host = Host {
            id,
            disk: timed_disk(seed),
            shelf: MemoryShelf::new(Arc::new(clock.clone())),
            clock,
            plant,
            shape: shape.clone(),
            network: network.clone(),
            onlooker: onlooker.clone(),
            lives: AtomicU64::new(0),
            down: AtomicU64::new(0),
            enabled: Arc::new(AtomicBool::new(id <= shape.peers)),
            process: Mutex::new(None),
        };
        onlooker.watch_disk(&host);
        host
    }

    /// Starts a process, unless one runs or something keeps the machine down.
    pub(crate) async fn start(&self) {
        let (starting, group, life) = {
            let mut process = self.process();
            let is_kept_down = self.down.load(Ordering::SeqCst) > 0 || !self.is_enabled();
            if process.is_some() || is_kept_down {
                return;
            }
            let life = 1 + self.lives.fetch_add(1, Ordering::SeqCst);
            let group = Group::new(self.shape.seed ^ (self.id << 40) ^ life);
            let (config, outside) = (self.config(), self.outside(life));
            let starting = group.spawn(async move { Peer::start(&config, outside, None).await });
            *process = Some(Process { group: group.clone(), peer: None });
            (starting, group, life)
        };
        let Ok(started) = starting.await else { return };
        let mut process = self.process();
        // It may have been killed meanwhile, and another one started.
        if self.lives.load(Ordering::SeqCst) != life {
            return;
        }
        let Some(running) = process.as_mut() else { return };
        match started {
            Ok(peer) => {
                self.network.note(&format!("{} starts", self.id));
                self.network.tell(Event::Starts { machine: self.id });
                let peer = Arc::new(peer);
                self.onlooker.watch_process((self.id, life), &peer);
                self.network.join(address(self.id), peer.routes(), group.clone());
                running.peer = Some(peer.clone());
                let (enabled, network, id) = (self.enabled.clone(), self.network.clone(), self.id);
                drop(group.spawn(async move {
                    let why = peer.given_up().await;
                    network.note(&format!("{id} ends: {why}"));
                    enabled.store(false, Ordering::SeqCst);
                }));
            }
            Err(error) => {
                self.network.note(&format!("{} does not start: {error}", self.id));
                if matches!(error, StartError::Origin(OriginError::Removed { .. })) {
                    self.enabled.store(false, Ordering::SeqCst);
                }
                *process = None;
            }
        }
    }

    /// Tries whether a process starts from the disk as it is, while the machine is kept down; kills it where it
    /// does.
    pub(crate) async fn starts_within(&self, until: Instant) -> bool {
        let life = 1 + self.lives.fetch_add(1, Ordering::SeqCst);
        let group = Group::new(self.shape.seed ^ (self.id << 40) ^ life);
        let (config, outside) = (self.config(), self.outside(life));
        let starting = group.spawn(async move { Peer::start(&config, outside, None).await });
        let started = timeout_at(until, starting).await;
        group.kill();
        self.disk.crash();
        matches!(started, Ok(Ok(Ok(_))))
    }

    /// Kills the process and loses what the disk had not synced.
    pub(crate) fn crash(&self) {
        let process = self.process().take();
        self.disk.crash();
        self.network.leave(&address(self.id));
        if let Some(Process { group, peer }) = process {
            group.kill();
            drop(peer);
            self.network.note(&format!("{} dies", self.id));
            self.network.tell(Event::Dies { machine: self.id });
        }
    }

    /// Lets a spare start.
    pub(crate) fn enable(&self) {
        self.enabled.store(true, Ordering::SeqCst);
    }

    /// Says whether a process is to run here.
    pub(crate) fn is_enabled(&self) -> bool {
        self.enabled.load(Ordering::SeqCst)
    }

    /// Clears away a process that has ended by itself.
    pub(crate) fn reap(&self) {
        if !self.is_enabled() && self.process().is_some() {
            self.crash();
        }
    }

    /// Keeps the machine down until as many calls of [`Host::release`].
    pub(crate) fn hold(&self) {
        self.down.fetch_add(1, Ordering::SeqCst);
        self.crash();
    }

    pub(crate) async fn release(&self) {
        self.down.fetch_sub(1, Ordering::SeqCst);
        self.start().await;
    }

    pub(crate) fn pause(&self) {
        if let Some(process) = self.process().as_ref() {
            process.group.pause();
        }
    }

    pub(crate) fn resume(&self) {
        if let Some(process) = self.process().as_ref() {
            process.group.resume();
        }
    }

    /// Makes the disk of the running process fail its writes.
    pub(crate) fn fail_disk(&self) {
        Tree::ALL.into_iter().for_each(|tree| self.disk.fail(tree));
    }

    /// Says which process it is that runs, or ran last.
    pub(crate) fn life(&self) -> u64 {
        self.lives.load(Ordering::SeqCst)
    }

    /// Says whether the machine holds an artifact.
    pub(crate) fn holds(&self, digest: Digest) -> bool {
        let held = self.shelf.has(digest).now_or_never();
        matches!(held, Some(Ok(true)))
    }

    /// Returns the peer that runs.
    pub(crate) fn peer(&self) -> Option<Arc<Peer>> {
        self.process().as_ref()?.peer.clone()
    }

    fn config(&self) -> Config {
        let Config { listen, raft, jobs, engine, .. } = Config::default();
        let member = |id| Member { id, address: address(id) };
        let is_spare = self.id > self.shape.peers;
        // It asks another one with each start, so that one that is down or gone keeps it out for a while only.
        let through = 1 + self.life() % self.shape.peers;
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

    fn outside(&self, life: u64) -> Outside {
        let is_forgetful = self.plant == Some(Plant::ForgetfulEngine);
        let class = self.id % self.shape.classes.max(1);
        let step = Duration::from_millis(self.shape.step_ms);
        let engine = HostEngine::new(step, class, is_forgetful);
        self.disk.lie(self.plant == Some(Plant::LyingDisks));
        if self.plant == Some(Plant::LostVotes) {
            self.disk.forget(b"hvote");
        }
        let dial = SimulatedDial { network: self.network.clone(), from: address(self.id) };
        Outside {
            clock: Arc::new(self.clock.clone()),
            entropy: Arc::new(SimulatedEntropy::new(self.shape.seed ^ (self.id << 16) ^ life)),
            dial: Arc::new(dial),
            store: Arc::new(self.disk.open()),
            shelf: Arc::new(self.shelf.clone()),
            engine: Some(Arc::new(engine)),
            files: None,
        }
    }

    fn process(&self) -> MutexGuard<'_, Option<Process>> {
        self.process.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn timed_disk(seed: u64) -> SimulatedDisk {
    let disk = SimulatedDisk::new(seed);
    disk.slow(0);
    disk
}
