//! A cluster of nodes in one process: each with its own directory, its own server and its own runtimes.

use atelier_peer::ports::{Log, ProposeError, Proposed, RaftStatus};
use atelier_peer::raft::{RaftNode, RaftOptions, StartError};
use atelier_peer::real::{SystemEntropy, TonicDial};
use atelier_peer::storage::{OpenError, RewriteBounds, SledStore};
use atelier_peer::view::View;
use atelier_state::{Command, JobId, LogIndex, NodeId, Submit};
use bytes::Bytes;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::net::TcpListener;

use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;

/// Longer than anything may take on a machine that others use too.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// Timing with which no leader is lost on a machine that does much else.
pub(crate) fn calm(options: &mut RaftOptions) {
    (options.heartbeat_ms, options.election_ms_min, options.election_ms_max) = (200, 1000, 2000);
}

pub(crate) struct Cluster {
    pub(crate) directory: tempfile::TempDir,
    pub(crate) peers: BTreeMap<u64, Peer>,
    places: BTreeMap<u64, SocketAddr>,
    tune: fn(&mut RaftOptions),
}

pub(crate) struct Peer {
    pub(crate) node: RaftNode,
    server: Option<tokio::runtime::Runtime>,
}

impl Cluster {
    pub(crate) fn new(tune: fn(&mut RaftOptions)) -> Cluster {
        let directory = tempfile::tempdir().expect("a temporary directory");
        Cluster { directory, peers: BTreeMap::new(), places: BTreeMap::new(), tune }
    }

    /// Starts three voters and waits for a leader.
    pub(crate) async fn three(tune: fn(&mut RaftOptions)) -> Cluster {
        let mut cluster = Cluster::new(tune);
        for id in 1..=3 {
            cluster.start(id).await;
        }
        let members = (1..=3).map(|id| (NodeId(id), cluster.address(id))).collect();
        cluster.node(1).initialize(members).await.expect("initialize");
        cluster.leader().await;
        cluster
    }

    pub(crate) fn path(&self, id: u64) -> PathBuf {
        self.directory.path().join(id.to_string())
    }

    pub(crate) fn address(&self, id: u64) -> String {
        format!("http://{}", self.places[&id])
    }

    pub(crate) fn node(&self, id: u64) -> &RaftNode {
        &self.peers[&id].node
    }

    /// Starts a node, at the address that it had before.
    pub(crate) async fn start(&mut self, id: u64) {
        self.start_as(id, "test").await;
    }

    /// Opens the store of a node that does not run.
    pub(crate) fn store(&self, id: u64) -> SledStore {
        open(&self.path(id))
    }

    /// The same under a lineage of the cluster.
    pub(crate) async fn start_as(&mut self, id: u64, cluster: &str) {
        let place = self.places.get(&id).copied();
        let place = place.unwrap_or_else(|| "127.0.0.1:0".parse().expect("an address"));
        let server = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("a runtime");
        let listener = server.spawn(bind(place)).await.expect("join");
        self.places.insert(id, listener.local_addr().expect("a local address"));
        let mut options = RaftOptions::new(NodeId(id), cluster, self.address(id));
        (self.tune)(&mut options);
        let node = start_node(options, &self.path(id)).await.expect("start");
        let serving = Server::builder()
            .add_service(node.service())
            .serve_with_incoming(TcpIncoming::from(listener).with_nodelay(Some(true)));
        server.spawn(serving);
        self.peers.insert(id, Peer { node, server: Some(server) });
    }

    /// Ends a node in good order.
    pub(crate) async fn stop(&mut self, id: u64) {
        let mut peer = self.peers.remove(&id).expect("it runs");
        peer.node.shutdown().await;
        peer.drop_server();
    }

    /// Drops a node without a farewell.
    pub(crate) fn kill(&mut self, id: u64) {
        let mut peer = self.peers.remove(&id).expect("it runs");
        peer.drop_server();
    }

    /// Waits until a node that runs leads with a current view, and a quorum answers it.
    pub(crate) async fn leader(&self) -> u64 {
        let waits = self.peers.iter().map(|(id, peer)| {
            let mut status = peer.node.status();
            Box::pin(async move {
                let leads = |status: &RaftStatus| status.is_leader && status.quorum_acked;
                status.wait_for(leads).await.expect("it runs");
                *id
            })
        });
        let first = futures_util::future::select_all(waits);
        tokio::time::timeout(PATIENCE, first).await.expect("a leader in time").0
    }

    pub(crate) async fn follower(&self) -> u64 {
        let leader = self.leader().await;
        *self.peers.keys().find(|id| **id != leader).expect("another node")
    }

    /// Proposes until a leader takes it: over an election the same commands go in again.
    pub(crate) async fn propose(&self, commands: Vec<Command>) -> Proposed {
        let started = Instant::now();
        loop {
            let leader = self.leader().await;
            let proposal = self.node(leader).propose(commands.clone());
            match tokio::time::timeout(Duration::from_secs(2), proposal).await {
                Ok(Ok(proposed)) => return proposed,
                Ok(Err(ProposeError::Refused(reason))) => panic!("refused: {reason}"),
                Ok(Err(_)) | Err(_) => {
                    assert!(started.elapsed() < PATIENCE, "no proposal went through in time");
                    tokio::task::yield_now().await;
                }
            }
        }
    }

    /// Waits until every node that runs has applied an entry, and checks that all have the same state.
    pub(crate) async fn agree(&self, at_least: LogIndex) {
        let mut views: BTreeMap<LogIndex, View> = BTreeMap::new();
        for (id, peer) in &self.peers {
            let view = view_at(&peer.node, at_least).await;
            if let Some(other) = views.get(&view.applied) {
                assert_eq!(other.state.digest(), view.state.digest(), "node {id} differs");
            }
            views.insert(view.applied, view);
        }
        assert_eq!(views.len(), 1, "all stand at the same entry");
    }
}

impl Peer {
    fn drop_server(&mut self) {
        if let Some(server) = self.server.take() {
            server.shutdown_background();
        }
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        self.drop_server();
    }
}

/// Binds an address; waits for its former holder to let go of it.
async fn bind(place: SocketAddr) -> TcpListener {
    let started = Instant::now();
    loop {
        match TcpListener::bind(place).await {
            Ok(listener) => return listener,
            Err(_) if started.elapsed() < PATIENCE => tokio::task::yield_now().await,
            Err(error) => panic!("{place}: {error}"),
        }
    }
}

/// Opens a directory and starts a node; waits for a process's former self to let go of the directory.
pub(crate) async fn start_node(options: RaftOptions, path: &Path) -> Result<RaftNode, StartError> {
    let store = Arc::new(open(path));
    let entropy = SystemEntropy::open().expect("a source of entropy");
    RaftNode::start(options, store, Arc::new(TonicDial), &entropy).await
}

pub(crate) fn open(path: &Path) -> SledStore {
    open_with(path, RewriteBounds::default())
}

pub(crate) fn open_with(path: &Path, bounds: RewriteBounds) -> SledStore {
    let started = Instant::now();
    loop {
        match SledStore::open_with(path, bounds) {
            Ok(store) => return store,
            Err(OpenError::Io { reason, .. })
                if reason.contains("lock") && started.elapsed() < PATIENCE =>
            {
                std::thread::yield_now();
            }
            Err(error) => panic!("{error}"),
        }
    }
}

pub(crate) async fn view_at(node: &RaftNode, at_least: LogIndex) -> View {
    let mut view = node.view();
    let reached = view.wait_for(|view| view.applied >= at_least);
    tokio::time::timeout(PATIENCE, reached).await.expect("applied in time").expect("runs").clone()
}

pub(crate) async fn status_when(
    node: &RaftNode,
    is: impl FnMut(&RaftStatus) -> bool,
) -> RaftStatus {
    let mut status = node.status();
    let reached = status.wait_for(is);
    tokio::time::timeout(PATIENCE, reached).await.expect("status in time").expect("runs").clone()
}

/// A job that nobody submitted before.
pub(crate) fn submit(number: u128) -> Command {
    submit_with(number, Bytes::from_static(b"{}"))
}

pub(crate) fn submit_with(number: u128, parameters: Bytes) -> Command {
    Command::Submit(Submit {
        job: JobId(number),
        tenant: "test".into(),
        idempotency_key: None,
        priority: 5,
        kind: "text_to_image/v1".into(),
        parameters,
        traceparent: String::new(),
        submitted_ms: 1_700_000_000_000,
        attempts_max: 3,
        deadline_ms: 0,
        max_runtime_s: 0,
        cost: 1,
        retry_of: None,
    })
}
