//! One machine and the process that runs on it.

use super::Plant;
use super::chronicle::Event;
use super::clock::HostClock;
use super::diary::Serving;
use super::eye::Onlooker;
use super::hardware::{Hardware, address};
use super::network::{Network, SimulatedDial};
use super::plan::Shape;
use super::rest::Machine;
use crate::operations::Server;
use atelier_peer::config::Config;
use atelier_peer::peer::{OriginError, Outside, Peer, StartError};
use atelier_peer::tasks::Group;
use atelier_state::Digest;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::time::{Instant, timeout_at};

/// A machine of the cluster.
pub(crate) struct Host {
    pub(crate) id: u64,
    pub(crate) hardware: Hardware,
    network: Network,
    onlooker: Onlooker,
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

impl Machine for Host {
    fn id(&self) -> u64 {
        self.id
    }

    fn peer(&self) -> Option<Arc<Peer>> {
        self.process().as_ref()?.peer.clone()
    }

    fn holds(&self, digest: Digest) -> bool {
        self.hardware.holds(digest)
    }
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
        let hardware = Hardware::new(id, shape, plant, clock);
        onlooker.watch_disk(id, &hardware.disk);
        Host {
            id,
            hardware,
            network: network.clone(),
            onlooker: onlooker.clone(),
            lives: AtomicU64::new(0),
            down: AtomicU64::new(0),
            enabled: Arc::new(AtomicBool::new(id <= shape.peers)),
            process: Mutex::new(None),
        }
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
            let group = self.hardware.group(life);
            let (config, outside) = self.told(life);
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
        let group = self.hardware.group(life);
        let (config, outside) = self.told(life);
        let starting = group.spawn(async move { Peer::start(&config, outside, None).await });
        let started = timeout_at(until, starting).await;
        group.kill();
        self.hardware.disk.crash();
        matches!(started, Ok(Ok(Ok(_))))
    }

    /// Kills the process and loses what the disk had not synced.
    pub(crate) fn crash(&self) {
        let process = self.process().take();
        self.hardware.disk.crash();
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

    /// Says which process it is that runs, or ran last.
    pub(crate) fn life(&self) -> u64 {
        self.lives.load(Ordering::SeqCst)
    }

    fn told(&self, life: u64) -> (Config, Outside) {
        let dial = SimulatedDial { network: self.network.clone(), from: address(self.id) };
        (self.hardware.config(life), self.hardware.outside(life, Arc::new(dial)))
    }

    fn process(&self) -> MutexGuard<'_, Option<Process>> {
        self.process.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
