//! One peer, composed: what it is made of, how it starts, and how it leaves.
//!
//! ```text
//!   Outside: clock, entropy, dial, store, shelf, engine       (ports; real or simulated)
//!      │
//!      ├─► RaftNode ─► view, status ──┬─► supervisor ───┬─► proposer ─► log, here or at the leader
//!      │                              ├─► gateway ──────┘
//!      │                              └─► leader loops ───► log, while this peer leads
//!      └─► listeners: gRPC (Raft, Peer, Atelier, health, reflection), HTTP (dialects, page, probes)
//! ```
//!
//! Owns every task: it starts them in order of need and ends them in the opposite order. It must
//! not
//! decide anything; whoever wants to know why a job moved will not find it here.

mod auditor;
mod membership;
mod observer;
mod origin;
mod run;
mod serve;
mod standing;

pub use origin::OriginError;
pub use run::{RunError, Signals, run};
pub use serve::{Listeners, grpc_server};

use crate::artifacts::{ArtifactParts, ArtifactSettings, Artifacts, DirectoryShelf};
use crate::checkpoints::{CheckpointParts, CheckpointSettings, Checkpoints};
use crate::cluster_time::{ClusterClock, ClusterTime};
use crate::config::Config;
use crate::gateway::Gateway;
use crate::gateway::door::TokenDoor;
use crate::gateway::examine::Examined;
use crate::gateway::health::Health;
use crate::gateway::http::Probes;
use crate::gateway::leader::Leader as WayToLeader;
use crate::gateway::lookout::Lookout;
use crate::gateway::metered::MeteredEngine;
use crate::gateway::metrics::Metrics;
use crate::leader::Leader;
use crate::lines::Lines;
use crate::liveness::LivenessTable;
use crate::peer_service::{Door, PeerService, PeerServiceParts};
use crate::ports::engine::Engine;
use crate::ports::members::Members;
use crate::ports::shelf::{Shelf, ShelfError};
use crate::ports::upkeep::Upkeep;
use crate::ports::{Clock, Dial, Entropy, Log, Store};
use crate::progress::{ProgressBoard, ProgressFollower};
use crate::proposer::{Proposer, ProposerParts, ProposerSettings};
use crate::raft::{RaftNode, RaftOptions, TransferError};
use crate::real::{SystemClock, SystemEntropy, TonicDial};
use crate::storage::{OpenError, SledStore};
use crate::supervisor::{Supervisor, SupervisorParts, SupervisorSettings};
use crate::tasks;
use atelier_state::NodeId;
use atelier_state::limits::UNFINISHED_BYTES_MAX;
use serve::{Servers, Services};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;

/// How long a leader that leaves waits for its heir; a transfer takes some milliseconds.
const HAND_OVER_MAX: Duration = Duration::from_secs(1);
/// For one task to end after it was told to; then it is dropped where it stands.
const TASK_END_MAX: Duration = Duration::from_secs(8);

/// The world of one peer, behind ports.
#[derive(Clone)]
pub struct Outside {
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Randomness.
    pub entropy: Arc<dyn Entropy>,
    /// The way to other peers.
    pub dial: Arc<dyn Dial>,
    /// Where log and state lie.
    pub store: Arc<dyn Store>,
    /// Where results lie.
    pub shelf: Arc<dyn Shelf>,
    /// Draws; none on a witness.
    pub engine: Option<Arc<dyn Engine>>,
    /// Where the files lie, for whoever looks at the disk; none in a world without files.
    pub files: Option<PathBuf>,
}

/// Why a peer did not start. What is on the disk is as it was.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The directory of log and state cannot be used; the text says which tree and what to do.
    #[error(transparent)]
    Store(#[from] OpenError),
    /// The directory of results cannot be used.
    #[error(transparent)]
    Shelf(#[from] ShelfError),
    /// The system has no randomness to give.
    #[error("cannot open /dev/urandom: {0}")]
    Entropy(std::io::Error),
    /// An address is taken, or not this machine's. Name another one in the configuration.
    #[error("cannot listen at {address} ({key}): {error}; is another process there?")]
    Listen {
        /// The setting.
        key: &'static str,
        /// The address.
        address: SocketAddr,
        /// What the system said.
        error: std::io::Error,
    },
    /// The node's part in Raft did not start.
    #[error(transparent)]
    Raft(#[from] crate::raft::StartError),
    /// This peer must not take part, or was not let in.
    #[error(transparent)]
    Origin(#[from] OriginError),
    /// What was compiled in cannot be read; this is a bug.
    #[error("gRPC reflection: {0}")]
    Reflection(#[from] tonic_reflection::server::Error),
    /// A thread died while it opened something.
    #[error("starting: {0}")]
    Thread(#[from] tokio::task::JoinError),
}

/// A running peer. Dropping it ends it abruptly, as a crash would; [`Peer::stop`] ends it well.
pub struct Peer {
    raft: RaftNode,
    clock: Arc<dyn Clock>,
    health: Health,
    draining: watch::Sender<bool>,
    given_up: watch::Receiver<Option<String>>,
    liveness: Arc<LivenessTable>,
    pause: Duration,
    servers: Servers,
    supervisor: Task,
    /// Leader loops, collector and observer.
    loops: Vec<Task>,
    proposer: Task,
}

/// A task, the token that ends it, and its name for the log.
struct Task {
    name: &'static str,
    stop: CancellationToken,
    handle: JoinHandle<()>,
}

/// What the tasks share.
struct Shared {
    log: Arc<dyn Log>,
    members: Arc<dyn Members>,
    lines: Arc<Lines>,
    liveness: Arc<LivenessTable>,
    board: Arc<ProgressBoard>,
    artifacts: Arc<Artifacts>,
    checkpoints: Arc<Checkpoints>,
    lookout: Arc<Lookout>,
    metrics: Arc<Metrics>,
}

impl Outside {
    /// Opens the real world: sled and files below the data directory, the system's clock, TCP.
    ///
    /// # Errors
    /// As the variants of [`StartError`] say.
    pub async fn open(
        config: &Config,
        engine: Option<Arc<dyn Engine>>,
    ) -> Result<Outside, StartError> {
        let data = config.data.clone();
        let opened = tasks::blocking(move || {
            let store = SledStore::open(&data)?;
            let shelf = DirectoryShelf::open(data.join("artifacts"))?;
            Ok::<_, StartError>((store, shelf))
        });
        let (store, shelf) = opened.await??;
        Ok(Outside {
            clock: Arc::new(SystemClock::new()),
            entropy: Arc::new(SystemEntropy::open().map_err(StartError::Entropy)?),
            dial: Arc::new(TonicDial),
            store: Arc::new(store),
            shelf: Arc::new(shelf),
            engine,
            files: Some(config.data.clone()),
        })
    }
}

impl Peer {
    /// Starts everything, and forms the cluster where that is this peer's part. It returns before
    /// the
    /// peer is ready: see [`Peer::ready`]. Without listeners it is reached by its
    /// [`Peer::routes`] alone, and Raft runs on the threads of whoever starts it.
    ///
    /// # Errors
    /// As the variants of [`StartError`] say.
    pub async fn start(
        config: &Config,
        mut outside: Outside,
        listeners: Option<Listeners>,
    ) -> Result<Peer, StartError> {
        let time = Arc::<ClusterTime>::default();
        outside.clock = Arc::new(ClusterClock { own: outside.clock, time: time.clone() });
        let config = &origin::settle(config, &outside).await?;
        let options = match &listeners {
            Some(_) => raft_options(config),
            None => RaftOptions { threads: 0, ..raft_options(config) },
        };
        let (store, dial) = (outside.store.clone(), outside.dial.clone());
        let raft = RaftNode::start(options, store, dial, outside.entropy.as_ref()).await?;
        let (draining, draining_seen) = watch::channel(false);
        let health = Health {
            raft: raft.status(),
            engine: outside.engine.as_ref().map(|engine| engine.ready()),
            draining: draining_seen,
        };
        let shared = Shared::new(config, &outside, &raft, time);
        let (proposer, proposer_task) = shared.start_proposer(config, &outside);
        let supervisor = shared.start_supervisor(config, &outside, proposer.clone());
        let mut loops = shared.start_loops(&outside);
        let (given_up, given_up_seen) = watch::channel(None);
        loops.push(shared.start_standing(config, &outside, &raft, given_up));
        let gateway = shared.gateway(config, &outside, proposer, &health, Arc::new(raft.clone()));
        let gateway = Arc::new(gateway);
        let started = Arc::new(AtomicBool::new(false));
        let services = Services {
            raft: raft.service(),
            peer: shared.peer_service(config, &outside, door(config, &gateway)),
            gateway,
            probes: Probes {
                health: health.clone(),
                view: raft.view(),
                metrics: shared.metrics.clone(),
                clock: outside.clock.clone(),
                started: started.clone(),
            },
        };
        let (servers, reporter) = serve::start(listeners, services)?;
        let metrics = shared.metrics.clone();
        loops.push(observer::start(health.clone(), metrics, reporter, started));
        loops.push(auditor::start(shared.log.view()));
        if forms_the_cluster(config) {
            let members = config.initial_members().into_iter();
            let members = members.map(|member| (NodeId(member.id), member.address));
            loops.push(formation(raft.clone(), members.collect()));
        }
        let pause = Duration::from_millis(config.shutdown.pause_ms);
        let clock = outside.clock;
        let proposer = proposer_task;
        let (given_up, liveness) = (given_up_seen, shared.liveness);
        Ok(Peer {
            raft,
            clock,
            health,
            draining,
            given_up,
            liveness,
            pause,
            servers,
            supervisor,
            loops,
            proposer,
        })
    }

    /// Where HTTP is answered; none without listeners.
    #[must_use]
    pub fn http_address(&self) -> Option<SocketAddr> {
        self.servers.sockets.as_ref().map(|sockets| sockets.http_address)
    }

    /// Where gRPC is answered; none without listeners.
    #[must_use]
    pub fn grpc_address(&self) -> Option<SocketAddr> {
        self.servers.sockets.as_ref().map(|sockets| sockets.grpc_address)
    }

    /// The gRPC services, for whoever calls them without a socket.
    #[must_use]
    pub fn routes(&self) -> Routes {
        self.servers.routes.clone()
    }

    /// Every reason why this peer is not ready; none when it is.
    #[must_use]
    pub fn unready_reasons(&self) -> Vec<String> {
        self.health.reasons()
    }

    /// The node's part in Raft, for whoever wants to watch it.
    #[must_use]
    pub fn raft(&self) -> &RaftNode {
        &self.raft
    }

    /// Waits until the peer serves: a leader is known, the state is restored, the engine can draw.
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn ready(&self) {
        let mut health = self.health.clone();
        while !health.reasons().is_empty() {
            health.changed().await;
        }
    }

    /// Waits until this peer learns that its cluster was recovered without it, and says so.
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn given_up(&self) -> String {
        let mut given_up = self.given_up.clone();
        let told = given_up.wait_for(Option::is_some).await.ok().and_then(|told| told.clone());
        match told {
            Some(why) => why,
            None => std::future::pending().await,
        }
    }

    /// Leaves in good order: not ready any more, then no leader, then no leases, then gone.
    pub async fn stop(self) {
        self.draining.send_replace(true);
        tracing::info!("peer is leaving");
        self.clock.sleep(self.pause).await;
        self.hand_over().await;
        // The supervisor gives its leases back through the proposer, which goes through Raft; so
        // whoever is needed ends later.
        self.supervisor.end().await;
        for task in self.loops {
            task.end().await;
        }
        self.proposer.end().await;
        // While calls under way end, the log still follows; what came to a stopped Raft would only
        // be an error in two logs.
        self.servers.end().await;
        self.raft.shutdown().await;
        tracing::info!("peer has left");
    }

    /// Hands the lead to the voter that has come furthest; without one the others elect by
    /// themselves.
    async fn hand_over(&self) {
        let status = self.raft.status().borrow().clone();
        if !status.is_leader || !status.quorum_acked {
            return;
        }
        let mut avoided = self.raft.view().borrow().unfit_to_lead();
        let (now, liveness) = (self.clock.now(), self.liveness.get());
        avoided.extend(status.voters.iter().filter(|node| !liveness.is_alive(now, **node)));
        // Where all leave at once the heir leaves too, and nobody takes over.
        let begun = self.clock.now();
        match tokio::time::timeout(HAND_OVER_MAX, self.raft.hand_over(&avoided)).await {
            Ok(Ok(leader)) => {
                let elapsed_ms = self.clock.now().saturating_sub(begun).as_millis();
                tracing::info!(leader = leader.0, elapsed_ms, "handed the lead over");
            }
            Ok(Err(TransferError::NoHeir)) => {}
            Ok(Err(error)) => tracing::warn!(%error, "lead not handed over"),
            Err(_) => tracing::warn!("the heir does not take the lead"),
        }
    }
}

impl Task {
    fn spawn<F: Future<Output = ()> + Send + 'static>(
        name: &'static str,
        run: impl FnOnce(CancellationToken) -> F,
    ) -> Task {
        let stop = CancellationToken::new();
        let handle = tasks::spawn(run(stop.clone()));
        Task { name, stop, handle }
    }

    /// Tells the task to end, and waits for it.
    async fn end(mut self) {
        self.stop.cancel();
        match tokio::time::timeout(TASK_END_MAX, &mut self.handle).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::error!(task = self.name, %error, "task died"),
            Err(_) => {
                tracing::warn!(task = self.name, "task did not end in time, it is dropped");
                self.handle.abort();
            }
        }
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        self.handle.abort();
    }
}

impl Shared {
    fn new(config: &Config, outside: &Outside, raft: &RaftNode, time: Arc<ClusterTime>) -> Shared {
        let lines = Arc::new(Lines::new(outside.dial.clone()));
        let parts = ArtifactParts {
            shelf: outside.shelf.clone(),
            lines: lines.clone(),
            status: raft.status(),
            view: raft.view(),
            clock: outside.clock.clone(),
        };
        let checkpoints = CheckpointParts {
            lines: lines.clone(),
            status: raft.status(),
            view: raft.view(),
            clock: outside.clock.clone(),
        };
        let settings = CheckpointSettings::new(config.cluster.clone());
        let checkpoints = Checkpoints::new(checkpoints, settings);
        let settings = ArtifactSettings {
            copies: config.jobs.artifact_copies,
            ..ArtifactSettings::new(config.cluster.clone())
        };
        Shared {
            log: Arc::new(raft.clone()),
            members: Arc::new(raft.clone()),
            lines,
            liveness: Arc::new(LivenessTable::telling(lease(config), time)),
            board: Arc::default(),
            artifacts: Arc::new(Artifacts::new(parts, settings)),
            checkpoints: Arc::new(checkpoints),
            lookout: Arc::default(),
            metrics: Arc::new(Metrics::new(&config.data)),
        }
    }

    fn start_proposer(&self, config: &Config, outside: &Outside) -> (Proposer, Task) {
        let parts = ProposerParts {
            log: self.log.clone(),
            lines: self.lines.clone(),
            clock: outside.clock.clone(),
            entropy: outside.entropy.clone(),
        };
        let settings = ProposerSettings::new(config.cluster.clone());
        let stop = CancellationToken::new();
        let (proposer, handle) = Proposer::spawn(parts, settings, stop.clone());
        (proposer, Task { name: "proposer", stop, handle })
    }

    fn start_supervisor(&self, config: &Config, outside: &Outside, proposer: Proposer) -> Task {
        let metered = |engine: &Arc<dyn Engine>| -> Arc<dyn Engine> {
            Arc::new(MeteredEngine {
                inner: engine.clone(),
                metrics: self.metrics.clone(),
                clock: outside.clock.clone(),
            })
        };
        let parts = SupervisorParts {
            log: self.log.clone(),
            proposer,
            engine: outside.engine.as_ref().map(metered),
            artifacts: self.artifacts.clone(),
            checkpoints: self.checkpoints.clone(),
            board: self.board.clone(),
            liveness: self.liveness.clone(),
            lines: self.lines.clone(),
            clock: outside.clock.clone(),
        };
        let (cluster, node) = (config.cluster.clone(), NodeId(config.node));
        let settings = SupervisorSettings {
            slots: config.engine.slots,
            checkpoint_steps: config.jobs.checkpoint_steps,
            witness: config.witness,
            lease: lease(config),
            ..SupervisorSettings::new(cluster, node, config.advertised())
        };
        let supervisor = Supervisor::new(parts, settings);
        Task::spawn("supervisor", |stop| supervisor.run(stop))
    }

    fn start_loops(&self, outside: &Outside) -> Vec<Task> {
        let (log, clock) = (self.log.clone(), outside.clock.clone());
        let leader = Leader::new(log, clock, self.liveness.clone());
        let (artifacts, checkpoints) = (self.artifacts.clone(), self.checkpoints.clone());
        let (lookout, view) = (self.lookout.clone(), self.log.view());
        vec![
            Task::spawn("lookout", |stop| lookout.run(view, stop)),
            Task::spawn("leader loops", |stop| leader.run(stop)),
            Task::spawn("artifact collector", |stop| artifacts.run_collector(stop)),
            Task::spawn("checkpoint collector", |stop| checkpoints.run_collector(stop)),
        ]
    }

    fn peer_service(
        &self,
        config: &Config,
        outside: &Outside,
        door: Option<Arc<dyn Door>>,
    ) -> PeerService {
        PeerService::new(PeerServiceParts {
            door,
            cluster: config.cluster.clone(),
            log: self.log.clone(),
            members: self.members.clone(),
            liveness: self.liveness.clone(),
            board: self.board.clone(),
            artifacts: self.artifacts.clone(),
            checkpoints: self.checkpoints.clone(),
            clock: outside.clock.clone(),
        })
    }

    fn way_to_leader(&self, config: &Config, outside: &Outside) -> WayToLeader {
        WayToLeader {
            cluster: config.cluster.clone(),
            log: self.log.clone(),
            lines: self.lines.clone(),
            clock: outside.clock.clone(),
            members: self.members.clone(),
            liveness: self.liveness.clone(),
        }
    }

    fn start_standing(
        &self,
        config: &Config,
        outside: &Outside,
        raft: &RaftNode,
        given_up: watch::Sender<Option<String>>,
    ) -> Task {
        standing::start(standing::Standing {
            raft: raft.clone(),
            leader: self.way_to_leader(config, outside),
            lines: self.lines.clone(),
            clock: outside.clock.clone(),
            cluster: config.cluster.clone(),
            witness: config.witness,
            promote: config.promote,
            given_up,
        })
    }

    fn gateway(
        &self,
        config: &Config,
        outside: &Outside,
        proposer: Proposer,
        health: &Health,
        upkeep: Arc<dyn Upkeep>,
    ) -> Gateway {
        let leader = self.way_to_leader(config, outside);
        let progress = ProgressFollower {
            cluster: config.cluster.clone(),
            board: self.board.clone(),
            lines: self.lines.clone(),
            status: self.log.status(),
            view: self.log.view(),
            clock: outside.clock.clone(),
        };
        Gateway {
            log: self.log.clone(),
            proposer,
            lookout: self.lookout.clone(),
            progress,
            artifacts: self.artifacts.clone(),
            leader,
            clock: outside.clock.clone(),
            entropy: outside.entropy.clone(),
            metrics: self.metrics.clone(),
            upkeep,
            examined: Examined {
                data: outside.files.clone(),
                engine: health.engine.clone(),
                model: Arc::default(),
            },
            draining: health.draining.clone(),
            attempts_max: config.jobs.attempts_max,
            unfinished_bytes_max: UNFINISHED_BYTES_MAX,
            turns: Default::default(),
            acknowledged: AtomicU64::new(0),
        }
    }
}

fn raft_options(config: &Config) -> RaftOptions {
    let (node, cluster) = (NodeId(config.node), config.cluster.clone());
    RaftOptions {
        heartbeat_ms: config.raft.heartbeat_ms,
        election_ms_min: config.raft.election_ms_min,
        election_ms_max: config.raft.election_ms_max,
        snapshot_entries: config.raft.snapshot_entries,
        entries_kept: config.raft.entries_kept,
        ..RaftOptions::new(node, cluster, config.advertised())
    }
}

fn lease(config: &Config) -> Duration {
    Duration::from_millis(config.jobs.lease_ms)
}

/// Forms the cluster beside everything else: other members, which it asks, may start much later.
fn formation(raft: RaftNode, members: BTreeMap<NodeId, String>) -> Task {
    Task::spawn("formation", |stop| async move {
        tokio::select! {
            () = stop.cancelled() => {}
            formed = raft.initialize(members) => if let Err(error) = formed {
                tracing::error!(%error, "the cluster was not formed");
            }
        }
    })
}

fn door(config: &Config, gateway: &Arc<Gateway>) -> Option<Arc<dyn Door>> {
    let has_token = !config.cluster_token.is_empty();
    has_token.then(|| -> Arc<dyn Door> {
        Arc::new(TokenDoor::new(&config.cluster_token, gateway.clone()))
    })
}

/// One of the initial members forms the cluster, the one with the least id; doing it again is no
/// harm.
fn forms_the_cluster(config: &Config) -> bool {
    let members = config.initial_members();
    let joins = config.join || !config.join_through.is_empty();
    !joins && members.iter().map(|member| member.id).min() == Some(config.node)
}

#[cfg(test)]
mod tests;
