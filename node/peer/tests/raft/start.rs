//! What a node says at start when its directory is not what it should be, and what it does when the disk fails.

use crate::harness::{PATIENCE, open, start_node, status_when, submit, submit_with, view_at};
use atelier_peer::ports::{Batch, Log, ProposeError, Store, Tree};
use atelier_peer::raft::{RaftNode, RaftOptions, StartError};
use atelier_peer::real::{SystemEntropy, TonicDial};
use atelier_peer::storage::{IdentityError, LoadError, MemoryStore, SledStore};
use atelier_state::{JobId, LogIndex, NodeId};
use bytes::Bytes;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

const ADDRESS: &str = "http://127.0.0.1:1";

fn options() -> RaftOptions {
    let mut options = RaftOptions::new(NodeId(1), "test", ADDRESS);
    (options.snapshot_entries, options.entries_kept) = (40, 10);
    options
}

/// Runs a cluster of one for some entries, and says how far it came.
async fn run_alone(directory: &Path, entries: u128) -> LogIndex {
    let node = start_node(options(), directory).await.expect("start");
    node.initialize(BTreeMap::from([(NodeId(1), ADDRESS.to_owned())])).await.expect("initialize");
    node.initialize(BTreeMap::from([(NodeId(1), ADDRESS.to_owned())])).await.expect("again");
    status_when(&node, |status| status.is_leader && status.quorum_acked).await;
    let mut last = LogIndex(0);
    for number in 1..=entries {
        last = node.propose(vec![submit(number)]).await.expect("propose").log_index;
    }
    node.shutdown().await;
    last
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_alone_comes_back_from_snapshot_and_log() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let last = run_alone(directory.path(), 100).await;

    let node = start_node(options(), directory.path()).await.expect("start");
    let view = view_at(&node, last).await;
    for number in 1..=100 {
        assert!(view.state.job(JobId(number)).is_some(), "job {number} is lost");
    }
    status_when(&node, |status| status.is_leader).await;
    node.shutdown().await;
    assert!(node.stopped().is_some());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_directory_of_another_node_or_cluster_is_refused() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    run_alone(directory.path(), 1).await;
    let others = [
        RaftOptions { node: NodeId(2), ..options() },
        RaftOptions { cluster: "other".to_owned(), ..options() },
    ];
    for other in others {
        let error = start_node(other, directory.path()).await.err().expect("it is not its own");
        assert!(matches!(error, StartError::Identity(IdentityError::Other { .. })), "{error}");
        assert!(error.to_string().contains("belongs to node 1 of cluster `test`"), "{error}");
    }
    start_node(options(), directory.path()).await.expect("its own").shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn options_that_cannot_be_are_refused() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let wrong = [
        RaftOptions { node: NodeId(0), ..options() },
        RaftOptions { snapshot_entries: 0, ..options() },
        RaftOptions { election_ms_max: 100, ..options() },
        RaftOptions { heartbeat_ms: 500, ..options() },
    ];
    for options in wrong {
        let error = start_node(options, directory.path()).await.err().expect("it cannot be");
        assert!(matches!(error, StartError::Options(_)), "{error}");
    }
}

/// Damages one stored value, and expects the start to name where.
async fn damaged(tree: Tree, change: fn(&SledStore), says: &str) {
    let directory = tempfile::tempdir().expect("a temporary directory");
    run_alone(directory.path(), 100).await;
    let pairs_before = {
        let store = open(directory.path());
        change(&store);
        all(&store)
    };
    let error = start_node(options(), directory.path()).await.err().expect("it is damaged");
    println!("{error}");
    assert!(matches!(error, StartError::Load(LoadError::Corrupt { .. })), "{error}");
    for part in [tree.to_string().as_str(), says, "join again under a new id"] {
        assert!(error.to_string().contains(part), "`{error}` says `{part}`");
    }
    assert!(all(&open(directory.path())) == pairs_before, "nothing is deleted or repaired");
}

fn all(store: &SledStore) -> Vec<Vec<(Bytes, Bytes)>> {
    let all = |tree| store.scan(tree, b"", &[0xff; 2], usize::MAX).expect("scan");
    Tree::ALL.map(all).into()
}

fn entry_key(store: &SledStore, back: usize) -> Bytes {
    let entries = store.scan(Tree::Log, b"e", b"f", usize::MAX).expect("scan");
    entries[entries.len() - 1 - back].0.clone()
}

fn flip(store: &SledStore, tree: Tree, key: &Bytes) {
    let value = store.read(tree, key).expect("read").expect("it is there");
    let mut value = value.to_vec();
    let middle = value.len() / 2;
    value[middle] ^= 0x10;
    let mut batch = Batch::new();
    batch.set(key.clone(), value);
    store.write(tree, batch).expect("write");
}

fn remove(store: &SledStore, tree: Tree, key: &Bytes) {
    let mut batch = Batch::new();
    batch.remove(key.clone());
    store.write(tree, batch).expect("write");
}

fn chunk_key(store: &SledStore) -> Bytes {
    store.scan(Tree::State, b"c", b"cz", 1).expect("scan")[0].0.clone()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_entry_stops_the_start() {
    damaged(Tree::Log, |store| flip(store, Tree::Log, &entry_key(store, 3)), "log index").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_missing_entry_stops_the_start() {
    damaged(Tree::Log, |store| remove(store, Tree::Log, &entry_key(store, 3)), "is missing").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_missing_tail_that_was_committed_stops_the_start() {
    let cut = |store: &SledStore| {
        (0..5).for_each(|_| remove(store, Tree::Log, &entry_key(store, 0)));
    };
    damaged(Tree::Log, cut, "was committed and is missing").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_vote_stops_the_start() {
    let change = |store: &SledStore| flip(store, Tree::Log, &Bytes::from_static(b"hvote"));
    damaged(Tree::Log, change, "vote").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_snapshot_stops_the_start() {
    damaged(Tree::State, |store| flip(store, Tree::State, &chunk_key(store)), "chunk 0").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_missing_snapshot_stops_the_start() {
    let change = |store: &SledStore| remove(store, Tree::State, &Bytes::from_static(b"snapshot"));
    damaged(Tree::State, change, "the log was purged through").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_whose_disk_fails_takes_no_part_any_more() {
    let store = MemoryStore::new();
    let node = start_over(options(), &store).await;
    node.initialize(BTreeMap::from([(NodeId(1), ADDRESS.to_owned())])).await.expect("initialize");
    status_when(&node, |status| status.is_leader).await;
    node.propose(vec![submit(1)]).await.expect("propose");

    store.fail_after(0);
    let error = node.propose(vec![submit(2)]).await.expect_err("it cannot be durable");
    assert!(matches!(error, ProposeError::Stopped(_)), "{error}");
    let status = status_when(&node, |status| status.stopped.is_some()).await;
    println!("stopped: {}", status.stopped.as_deref().unwrap_or_default());
    assert!(!status.is_leader);

    // The disk is back, the node is not: what it wrote last is unknown until it starts anew.
    store.fail_after(1_000_000);
    let error = node.propose(vec![submit(3)]).await.expect_err("it has stopped");
    assert!(matches!(error, ProposeError::Stopped(_)), "{error}");
    let view = node.view().borrow().clone();
    assert!(view.state.job(JobId(2)).is_none(), "nothing is applied that is not durable");

    let node = start_over(options(), &store.after_crash()).await;
    status_when(&node, |status| status.is_leader).await;
    let view = node.view().borrow().clone();
    assert!(view.state.job(JobId(1)).is_some());
}

/// Some six of the entries below.
const BYTES: u64 = 100_000;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_of_many_bytes_brings_a_snapshot_early_and_becomes_small() {
    let store = MemoryStore::new();
    let large = RaftOptions { snapshot_entries: 1_000_000, entries_kept: 1_000_000, ..options() };
    let large = RaftOptions { snapshot_log_bytes: BYTES, ..large };
    let node = start_over(large, &store).await;
    node.initialize(BTreeMap::from([(NodeId(1), ADDRESS.to_owned())])).await.expect("initialize");
    status_when(&node, |status| status.is_leader).await;
    for number in 1..=30 {
        let submit = submit_with(number, vec![7; 16_000].into());
        node.propose(vec![submit]).await.expect("propose");
    }
    let started = Instant::now();
    let snapshots = || store.scan(Tree::State, b"c", b"d", usize::MAX).expect("scan");
    let entries = || store.scan(Tree::Log, b"e", b"f", usize::MAX).expect("scan");
    let bytes = || entries().iter().map(|(_, entry)| entry.len() as u64).sum::<u64>();
    while snapshots().is_empty() || bytes() > BYTES {
        assert!(started.elapsed() < PATIENCE, "{} bytes of entries are left", bytes());
        tokio::task::yield_now().await;
    }
}

async fn start_over(options: RaftOptions, store: &MemoryStore) -> RaftNode {
    let store = Arc::new(store.clone());
    let entropy = SystemEntropy::open().expect("a source of entropy");
    RaftNode::start(options, store, Arc::new(TonicDial), &entropy).await.expect("start")
}
