//! A perfect log, peers of it and real loopback connections, for the tests of the loops.

pub use crate::fake_engine::*;
use atelier_peer::artifacts::{ArtifactParts, ArtifactSettings, Artifacts};
use atelier_peer::checkpoints::{CheckpointParts, CheckpointSettings, Checkpoints};
use atelier_peer::leader::Leader;
use atelier_peer::lines::Lines;
use atelier_peer::liveness::LivenessTable;
use atelier_peer::parameters::{TEXT_TO_IMAGE_KIND, TextToImage};
use atelier_peer::peer_service::{PeerService, PeerServiceParts};
use atelier_peer::ports::engine::Engine;
use atelier_peer::ports::members::{Members, MembersError};
use atelier_peer::ports::shelf::{MemoryShelf, Shelf};
use atelier_peer::ports::{
    Clock, Dial, DialError, Entropy, Line, Log, ProposeError, Proposed, Purpose, RaftStatus,
};
use atelier_peer::progress::{ProgressBoard, ProgressFollower};
use atelier_peer::proposer::{Proposer, ProposerParts, ProposerSettings};
use atelier_peer::supervisor::{Supervisor, SupervisorParts, SupervisorSettings};
use atelier_peer::view::View;
use atelier_state::{Command, Job, JobId, LogIndex, NodeId, Phase, Reply, State, Submit, audit};
use bytes::Bytes;
use futures_util::future::BoxFuture;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

pub const CLUSTER: &str = "test";
pub const LEASE: Duration = Duration::from_secs(2);

pub fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// Waits for something that must come, within ten (paused: virtual) minutes, or ten real seconds.
pub async fn eventually<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    for _ in 0..12_000 {
        if let Some(found) = look() {
            return found;
        }
        tokio::time::sleep(ms(5)).await;
    }
    panic!("never came: {what}");
}

// -------------------------------------------------------------------------------------------- time

#[derive(Clone)]
pub struct TestClock {
    origin: tokio::time::Instant,
    wall_ms: u64,
}

impl TestClock {
    pub fn new(wall_ms: u64) -> Arc<TestClock> {
        Arc::new(TestClock { origin: tokio::time::Instant::now(), wall_ms })
    }
}

impl Clock for TestClock {
    fn now(&self) -> Duration {
        self.origin.elapsed()
    }

    fn wall_ms(&self) -> u64 {
        self.wall_ms + u64::try_from(self.origin.elapsed().as_millis()).expect("short")
    }

    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()> {
        Box::pin(tokio::time::sleep(duration))
    }
}

#[derive(Default)]
pub struct TestEntropy(AtomicU64);

impl Entropy for TestEntropy {
    fn fill(&self, bytes: &mut [u8]) {
        for byte in bytes {
            let state = self.0.fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::Relaxed);
            *byte = (state >> 56) as u8;
        }
    }
}

// --------------------------------------------------------------------------------------------- log

/// Who takes proposals.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Leads {
    /// Every handle believes that it leads: many workers without a network between them.
    Everyone,
    One(NodeId),
    Nobody,
}

/// What happens to the next entries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    Applied,
    /// Applied, but the proposer does not hear of it.
    AppliedUnknown,
    LostUnknown,
}

/// One state for all nodes, audited after every command.
pub struct PerfectCluster {
    inner: Mutex<Inner>,
    pub entries: AtomicUsize,
}

struct Inner {
    state: State,
    leads: Leads,
    fates: Vec<Fate>,
    delay: Duration,
    addresses: BTreeMap<NodeId, String>,
    nodes: BTreeMap<NodeId, (watch::Sender<RaftStatus>, watch::Sender<View>)>,
    frozen: BTreeSet<NodeId>,
    expelled: BTreeSet<NodeId>,
}

impl PerfectCluster {
    pub fn new(leads: Leads) -> Arc<PerfectCluster> {
        let inner = Inner {
            state: State::new(),
            leads,
            fates: Vec::new(),
            delay: Duration::ZERO,
            addresses: BTreeMap::new(),
            nodes: BTreeMap::new(),
            frozen: BTreeSet::new(),
            expelled: BTreeSet::new(),
        };
        Arc::new(PerfectCluster { inner: Mutex::new(inner), entries: AtomicUsize::new(0) })
    }

    pub fn log(self: &Arc<Self>, node: u64) -> Arc<PerfectLog> {
        self.log_at(node, &format!("http://127.0.0.1:{}", 1 + node))
    }

    pub fn log_at(self: &Arc<Self>, node: u64, address: &str) -> Arc<PerfectLog> {
        let node = NodeId(node);
        let mut inner = self.lock();
        inner.addresses.insert(node, address.to_owned());
        let view = View { state: inner.state.clone(), applied: inner.state.applied() };
        let pair = (watch::Sender::new(RaftStatus::default()), watch::Sender::new(view));
        inner.nodes.insert(node, pair);
        inner.publish();
        Arc::new(PerfectLog { cluster: self.clone(), node })
    }

    pub fn lead(&self, leads: Leads) {
        let mut inner = self.lock();
        inner.leads = leads;
        inner.publish();
    }

    pub fn fates(&self, fates: impl IntoIterator<Item = Fate>) {
        self.lock().fates.extend(fates);
    }

    /// Makes each entry take a while.
    pub fn delay(&self, delay: Duration) {
        self.lock().delay = delay;
    }

    /// Keeps a node from seeing anything new.
    pub fn freeze(&self, node: u64) {
        self.lock().frozen.insert(NodeId(node));
    }

    /// Takes a node out of the membership.
    pub fn expel(&self, node: u64) {
        let mut inner = self.lock();
        inner.expelled.insert(NodeId(node));
        inner.publish();
    }

    pub fn admit(&self, node: u64) {
        let mut inner = self.lock();
        inner.expelled.remove(&NodeId(node));
        inner.publish();
    }

    pub fn stop(&self, node: u64, reason: &str) {
        let inner = self.lock();
        let (status, _) = &inner.nodes[&NodeId(node)];
        status.send_modify(|status| status.stopped = Some(reason.to_owned()));
    }

    pub fn state(&self) -> State {
        self.lock().state.clone()
    }

    pub fn job(&self, job: JobId) -> Job {
        self.state().job(job).expect("submitted").clone()
    }

    pub fn apply(&self, command: Command) -> Reply {
        self.lock().apply(&[command]).replies.remove(0)
    }

    pub async fn phase(&self, job: JobId, wanted: &str) -> Job {
        let what = format!("phase {wanted} of {job}");
        eventually(&what, || Some(self.job(job)).filter(|job| job.phase.name() == wanted)).await
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Inner> {
        self.inner.lock().expect("no test panics within")
    }
}

impl Inner {
    fn apply(&mut self, commands: &[Command]) -> Proposed {
        let index = LogIndex(self.state.applied().0 + 1);
        let mut replies = Vec::new();
        for command in commands {
            let before = self.state.clone();
            let reply = self.state.apply(index, command);
            audit::check_step(&before, command, &reply, &self.state).expect("S1 to S8 hold");
            replies.push(reply);
        }
        self.publish();
        Proposed { log_index: index, replies }
    }

    fn publish(&self) {
        let view = View { state: self.state.clone(), applied: self.state.applied() };
        for (node, (status, views)) in &self.nodes {
            if self.frozen.contains(node) {
                continue;
            }
            views.send_replace(view.clone());
            let leader = match self.leads {
                Leads::Everyone => Some(*node),
                Leads::One(leader) => Some(leader),
                Leads::Nobody => None,
            };
            let applied = view.applied;
            let matched = self.nodes.keys().map(|node| (*node, applied)).collect();
            status.send_modify(|status| {
                *status = RaftStatus {
                    node: *node,
                    leader,
                    is_leader: leader == Some(*node),
                    term: status.term + u64::from(status.leader != leader),
                    last_log: applied,
                    committed: applied,
                    applied,
                    voters: self
                        .nodes
                        .keys()
                        .copied()
                        .collect::<BTreeSet<_>>()
                        .difference(&self.expelled)
                        .copied()
                        .collect(),
                    learners: BTreeSet::new(),
                    addresses: self.addresses.clone(),
                    matched,
                    quorum_acked: true,
                    stopped: status.stopped.clone(),
                }
            });
        }
    }
}

pub struct PerfectLog {
    cluster: Arc<PerfectCluster>,
    node: NodeId,
}

impl Log for PerfectLog {
    fn propose(&self, commands: Vec<Command>) -> BoxFuture<'_, Result<Proposed, ProposeError>> {
        Box::pin(async move {
            let delay = self.cluster.lock().delay;
            if !delay.is_zero() {
                tokio::time::sleep(delay).await;
            }
            let mut inner = self.cluster.lock();
            let leader = match inner.leads {
                Leads::Everyone => Some(self.node),
                Leads::One(leader) => Some(leader),
                Leads::Nobody => None,
            };
            if leader != Some(self.node) {
                let leader = leader.map(|leader| (leader, inner.addresses[&leader].clone()));
                return Err(ProposeError::NotLeader { leader });
            }
            self.cluster.entries.fetch_add(1, Ordering::SeqCst);
            let fate = match inner.fates.is_empty() {
                true => Fate::Applied,
                false => inner.fates.remove(0),
            };
            let unknown = || ProposeError::Unknown("as the test wants".to_owned());
            match fate {
                Fate::Applied => Ok(inner.apply(&commands)),
                Fate::AppliedUnknown => {
                    inner.apply(&commands);
                    Err(unknown())
                }
                Fate::LostUnknown => Err(unknown()),
            }
        })
    }

    fn status(&self) -> watch::Receiver<RaftStatus> {
        self.cluster.lock().nodes[&self.node].0.subscribe()
    }

    fn view(&self) -> watch::Receiver<View> {
        self.cluster.lock().nodes[&self.node].1.subscribe()
    }
}

pub fn submit(job: u128) -> Submit {
    let prompt = format!("job {job}");
    Submit {
        job: JobId(job),
        tenant: "t".into(),
        idempotency_key: None,
        priority: 4,
        kind: TEXT_TO_IMAGE_KIND.into(),
        parameters: TextToImage { prompt, ..TextToImage::default() }.encode(),
        traceparent: String::new(),
        submitted_ms: 0,
        attempts_max: 3,
        deadline_ms: 0,
        max_runtime_s: 0,
        cost: 1,
        retry_of: None,
    }
}

pub fn picture_of(submit: &Submit) -> Bytes {
    [b"picture of ", &submit.parameters[..]].concat().into()
}

// ------------------------------------------------------------------------------------------ a peer

pub struct TestDial;

impl Dial for TestDial {
    fn line(&self, address: &str, _purpose: Purpose) -> Result<Line, DialError> {
        let endpoint = tonic::transport::Endpoint::from_shared(address.to_owned());
        let endpoint = endpoint.map_err(|error| DialError::Address {
            address: address.to_owned(),
            reason: error.to_string(),
        })?;
        Ok(atelier_proto::line::over(endpoint.connect_timeout(ms(500)).connect_lazy()))
    }
}

#[derive(Default)]
pub struct NotedMembers(pub Mutex<Vec<String>>);

impl Members for NotedMembers {
    fn add_learner(
        &self,
        node: NodeId,
        address: String,
    ) -> BoxFuture<'_, Result<(), MembersError>> {
        self.0.lock().expect("whole").push(format!("add {node} {address}"));
        Box::pin(async { Ok(()) })
    }

    fn promote(&self, node: NodeId) -> BoxFuture<'_, Result<(), MembersError>> {
        self.0.lock().expect("whole").push(format!("promote {node}"));
        Box::pin(async { Err(MembersError::Behind("it is 12 entries behind".to_owned())) })
    }

    fn demote(&self, node: NodeId) -> BoxFuture<'_, Result<(), MembersError>> {
        self.0.lock().expect("whole").push(format!("demote {node}"));
        Box::pin(async { Ok(()) })
    }

    fn replace(&self, leaves: NodeId, comes: NodeId) -> BoxFuture<'_, Result<(), MembersError>> {
        self.0.lock().expect("whole").push(format!("replace {leaves} by {comes}"));
        Box::pin(async { Ok(()) })
    }

    fn transfer(
        &self,
        to: Option<NodeId>,
        _avoided: BTreeSet<NodeId>,
    ) -> BoxFuture<'_, Result<(), MembersError>> {
        self.0.lock().expect("whole").push(format!("transfer to {to:?}"));
        Box::pin(async { Ok(()) })
    }

    fn remove(&self, node: NodeId) -> BoxFuture<'_, Result<(), MembersError>> {
        self.0.lock().expect("whole").push(format!("remove {node}"));
        Box::pin(async { Ok(()) })
    }
}

/// Everything of one peer but Raft and the gateway.
pub struct TestPeer {
    pub node: NodeId,
    pub log: Arc<PerfectLog>,
    pub clock: Arc<TestClock>,
    pub proposer: Proposer,
    pub artifacts: Arc<Artifacts>,
    pub checkpoints: Arc<Checkpoints>,
    pub board: Arc<ProgressBoard>,
    pub liveness: Arc<LivenessTable>,
    pub lines: Arc<Lines>,
    pub members: Arc<NotedMembers>,
    pub shutdown: CancellationToken,
    tasks: Mutex<Vec<JoinHandle<()>>>,
}

pub const WALL_MS: u64 = 1_700_000_000_000;

impl TestPeer {
    pub fn new(log: Arc<PerfectLog>) -> Arc<TestPeer> {
        let clock = TestClock::new(WALL_MS);
        let shelf = Arc::new(MemoryShelf::new(clock.clone()));
        TestPeer::with(log, clock, shelf, LivenessTable::new(LEASE))
    }

    pub fn with(
        log: Arc<PerfectLog>,
        clock: Arc<TestClock>,
        shelf: Arc<dyn Shelf>,
        liveness: LivenessTable,
    ) -> Arc<TestPeer> {
        TestPeer::sharing(log, clock, shelf, Arc::new(liveness))
    }

    pub fn sharing(
        log: Arc<PerfectLog>,
        clock: Arc<TestClock>,
        shelf: Arc<dyn Shelf>,
        liveness: Arc<LivenessTable>,
    ) -> Arc<TestPeer> {
        let shutdown = CancellationToken::new();
        let lines = Arc::new(Lines::new(Arc::new(TestDial)));
        let parts = ProposerParts {
            log: log.clone(),
            lines: lines.clone(),
            clock: clock.clone(),
            entropy: Arc::new(TestEntropy::default()),
        };
        let settings = ProposerSettings::new(CLUSTER);
        let (proposer, task) = Proposer::spawn(parts, settings, shutdown.clone());
        let parts = ArtifactParts {
            shelf,
            lines: lines.clone(),
            status: log.status(),
            view: log.view(),
            clock: clock.clone(),
        };
        let checkpoints = CheckpointParts {
            lines: lines.clone(),
            status: log.status(),
            view: log.view(),
            clock: clock.clone(),
        };
        let checkpoints = Checkpoints::new(checkpoints, CheckpointSettings::new(CLUSTER));
        let mut settings = ArtifactSettings::new(CLUSTER);
        settings.copy_deadline = ms(3000);
        settings.call = ms(1000);
        Arc::new(TestPeer {
            node: log.node,
            log,
            clock,
            proposer,
            artifacts: Arc::new(Artifacts::new(parts, settings)),
            checkpoints: Arc::new(checkpoints),
            board: Arc::default(),
            liveness,
            lines,
            members: Arc::default(),
            shutdown,
            tasks: Mutex::new(vec![task]),
        })
    }

    /// Starts the leader's loops.
    pub fn lead(&self) {
        let leader = Leader::new(self.log.clone(), self.clock.clone(), self.liveness.clone());
        self.keep(tokio::spawn(leader.run(self.shutdown.clone())));
    }

    /// Starts a worker, which drains when the token is cancelled.
    pub fn work(&self, engine: Option<Arc<dyn Engine>>) -> (CancellationToken, JoinHandle<()>) {
        self.work_as(engine, |_| {})
    }

    pub fn work_as(
        &self,
        engine: Option<Arc<dyn Engine>>,
        adjust: impl FnOnce(&mut SupervisorSettings),
    ) -> (CancellationToken, JoinHandle<()>) {
        let parts = SupervisorParts {
            log: self.log.clone(),
            proposer: self.proposer.clone(),
            engine,
            artifacts: self.artifacts.clone(),
            checkpoints: self.checkpoints.clone(),
            board: self.board.clone(),
            liveness: self.liveness.clone(),
            lines: self.lines.clone(),
            clock: self.clock.clone(),
        };
        let address = self.log.status().borrow().addresses[&self.node].clone();
        let mut settings = SupervisorSettings::new(CLUSTER, self.node, address);
        settings.lease = LEASE;
        adjust(&mut settings);
        let end = CancellationToken::new();
        let task = tokio::spawn(Supervisor::new(parts, settings).run(end.clone()));
        (end, task)
    }

    /// Serves the `Peer` service on a listener of the loopback.
    pub fn serve(&self, listener: tokio::net::TcpListener) {
        let service = PeerService::new(PeerServiceParts {
            door: None,
            cluster: CLUSTER.to_owned(),
            log: self.log.clone(),
            members: self.members.clone(),
            liveness: self.liveness.clone(),
            board: self.board.clone(),
            artifacts: self.artifacts.clone(),
            checkpoints: self.checkpoints.clone(),
            clock: self.clock.clone(),
        });
        let incoming = tokio_stream::wrappers::TcpListenerStream::new(listener);
        let end = self.shutdown.clone().cancelled_owned();
        let server = tonic::transport::Server::builder().add_service(service.server());
        let serving = server.serve_with_incoming_shutdown(incoming, end);
        self.keep(tokio::spawn(async move { serving.await.expect("the loopback serves") }));
    }

    pub fn log_address(&self) -> String {
        self.log.status().borrow().addresses[&self.node].clone()
    }

    pub fn follower(&self) -> ProgressFollower {
        ProgressFollower {
            cluster: CLUSTER.to_owned(),
            board: self.board.clone(),
            lines: self.lines.clone(),
            status: self.log.status(),
            view: self.log.view(),
            clock: self.clock.clone(),
        }
    }

    fn keep(&self, task: JoinHandle<()>) {
        self.tasks.lock().expect("whole").push(task);
    }

    /// Ends everything that was started and kept here.
    pub async fn end(&self) {
        self.shutdown.cancel();
        let tasks = std::mem::take(&mut *self.tasks.lock().expect("whole"));
        for task in tasks {
            task.await.expect("a loop ends in good order");
        }
    }
}

pub async fn listener() -> (tokio::net::TcpListener, String) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = format!("http://{}", listener.local_addr().expect("bound"));
    (listener, address)
}

pub fn is_leased_to(job: &Job, node: u64) -> bool {
    matches!(&job.phase, Phase::Leased(lease) if lease.node == NodeId(node))
}
