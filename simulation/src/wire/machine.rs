//! One machine and the process that runs on it, on a host of turmoil's.

use super::answering::answering;
use super::sockets::Sockets;
use crate::cluster::chronicle::{Chronicle, Event};
use crate::cluster::diary::Serving;
use crate::cluster::eye::Onlooker;
use crate::cluster::hardware::Hardware;
use crate::cluster::rest::Machine;
use crate::operations::Server;
use atelier_peer::peer::{Peer, grpc_server};
use atelier_peer::tasks::Group;
use atelier_state::Digest;
use std::future::pending;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// A machine of the cluster.
pub(super) struct Host {
    pub(super) id: u64,
    pub(super) hardware: Hardware,
    sockets: Sockets,
    onlooker: Onlooker,
    chronicle: Chronicle,
    /// How many processes it has had.
    lives: AtomicU64,
    process: Mutex<Option<Process>>,
}

/// A peer's process.
struct Process {
    group: Group,
    // None while it starts.
    peer: Option<Arc<Peer>>,
}

impl Host {
    pub(super) fn new(
        hardware: Hardware,
        sockets: Sockets,
        onlooker: &Onlooker,
        chronicle: &Chronicle,
    ) -> Host {
        onlooker.watch_disk(hardware.id, &hardware.disk);
        Host {
            id: hardware.id,
            hardware,
            sockets,
            onlooker: onlooker.clone(),
            chronicle: chronicle.clone(),
            lives: AtomicU64::new(0),
            process: Mutex::new(None),
        }
    }

    /// What runs on the host, from a start until its runtime is taken away. It never ends by itself: turmoil would
    /// leave the tasks of a host behind whose software has ended.
    pub(super) async fn live(self: Arc<Self>) -> turmoil::Result {
        let life = 1 + self.lives.fetch_add(1, Ordering::SeqCst);
        let group = self.hardware.group(life);
        *self.process() = Some(Process { group: group.clone(), peer: None });
        let dial = Arc::new(self.sockets.clone());
        let (config, outside) = (self.hardware.config(life), self.hardware.outside(life, dial));
        let starting = group.spawn(async move { Peer::start(&config, outside, None).await });
        let ended = match starting.await {
            Ok(Ok(peer)) => self.serve(Arc::new(peer), &group, life).await,
            Ok(Err(error)) => error.to_string(),
            Err(killed) => killed.to_string(),
        };
        self.sockets.trace.note(&format!("{} ends: {ended}", self.id));
        group.kill();
        self.process().take();
        pending().await
    }

    /// Serves until the peer gives up, and says why it has.
    async fn serve(&self, peer: Arc<Peer>, group: &Group, life: u64) -> String {
        self.sockets.trace.note(&format!("{} starts", self.id));
        self.chronicle.note(Event::Starts { machine: self.id });
        self.onlooker.watch_process((self.id, life), &peer);
        if let Some(process) = self.process().as_mut() {
            process.peer = Some(peer.clone());
        }
        let incoming = match self.sockets.incoming().await {
            Ok(incoming) => Box::pin(incoming),
            Err(error) => return error.to_string(),
        };
        let service = answering(peer.routes(), group.clone(), self.sockets.trace.clone());
        let served = group.spawn(grpc_server().serve_with_incoming(service, incoming));
        tokio::select! {
            why = peer.given_up() => why,
            served = served => format!("its server has ended: {served:?}"),
        }
    }

    /// Loses the process and what the disk had not synced. Its runtime is taken away by whoever calls.
    pub(super) fn crash(&self) {
        let process = self.process().take();
        self.hardware.disk.crash();
        if let Some(Process { group, .. }) = process {
            group.kill();
            self.sockets.trace.note(&format!("{} dies", self.id));
            self.chronicle.note(Event::Dies { machine: self.id });
        }
    }

    pub(super) fn pause(&self) {
        if let Some(process) = self.process().as_ref() {
            process.group.pause();
        }
    }

    pub(super) fn resume(&self) {
        if let Some(process) = self.process().as_ref() {
            process.group.resume();
        }
    }

    fn process(&self) -> MutexGuard<'_, Option<Process>> {
        self.process.lock().unwrap_or_else(PoisonError::into_inner)
    }
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
        Server { peer: self.id, life: self.lives.load(Ordering::SeqCst) }
    }
}
