//! What jobs leave behind in one peer: many are submitted, assigned, completed and forgotten through a Raft node over
//! a real store, and its disk, its memory and its next start are measured. `make bench-storage JOBS=1000000` runs it.

use atelier_peer::ports::{Log, Store, Tree};
use atelier_peer::raft::{RaftNode, RaftOptions};
use atelier_peer::real::{SystemEntropy, TonicDial};
use atelier_peer::storage::SledStore;
use atelier_state::command::{Assign, Complete, Forget, RegisterNode};
use atelier_state::job::{ArtifactRef, Digest};
use atelier_state::limits::FORGET_JOBS_MAX;
use atelier_state::{Command, FencingToken, JobId, LogIndex, NodeId, Reply, Submit};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

const JOBS_DEFAULT: u64 = 100_000;
/// Ended jobs that are kept, as the default of `retention.jobs`.
const JOBS_KEPT: usize = 20_000;
/// Jobs of one entry, and slots of one worker.
const GROUP: u64 = 64;
const WORKERS: u64 = 8;
const PARAMETERS_BYTES: usize = 256;
const ADDRESS: &str = "http://127.0.0.1:1";
/// Lines of the report.
const LINES: u64 = 10;

fn main() {
    // `cargo bench` passes flags of its own; the number comes by the environment.
    let jobs = std::env::var("JOBS").ok().map_or(JOBS_DEFAULT, |n| n.parse().expect("JOBS"));
    let directory = tempfile::tempdir().expect("a temporary directory");
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(async {
        let store = Arc::new(SledStore::open(directory.path()).expect("open"));
        let node = start(store.clone()).await;
        let started = Instant::now();
        for line in 1..=LINES {
            wave(&node, jobs / LINES, line).await;
            report(line * (jobs / LINES), started.elapsed(), &store, directory.path());
        }
        let last = node.status().borrow().applied;
        node.shutdown().await;
        drop((node, store));
        restart(directory.path(), last).await;
    });
}

async fn start(store: Arc<SledStore>) -> RaftNode {
    let mut options = RaftOptions::new(NodeId(1), "bench", ADDRESS);
    // As `atelierd` runs it by default.
    (options.snapshot_entries, options.entries_kept) = (10_000, 2_000);
    let entropy = SystemEntropy::open().expect("a source of entropy");
    let node = RaftNode::start(options, store, Arc::new(TonicDial), &entropy).await.expect("start");
    node.initialize(BTreeMap::from([(NodeId(1), ADDRESS.to_owned())])).await.expect("initialize");
    let mut status = node.status();
    status.wait_for(|status| status.is_leader).await.expect("it leads");
    node
}

/// Passes so many jobs through their whole lives, several workers side by side.
async fn wave(node: &RaftNode, jobs: u64, number: u64) {
    let tasks = (0..WORKERS).map(|worker| {
        let node = node.clone();
        let first = (number * WORKERS + worker) << 32;
        tokio::spawn(async move {
            let worker = register(&node, worker + 1, number).await;
            for group in 0..jobs / WORKERS / GROUP {
                live(&node, worker, first + group * GROUP, number).await;
            }
        })
    });
    for task in tasks.collect::<Vec<_>>() {
        task.await.expect("a worker");
    }
}

async fn register(node: &RaftNode, worker: u64, incarnation: u64) -> NodeId {
    let registration = RegisterNode {
        node: NodeId(worker),
        address: ADDRESS.to_owned(),
        incarnation,
        slots: GROUP as u32,
        class: "bench".to_owned(),
        model: "bench".to_owned(),
        witness: false,
    };
    propose(node, vec![Command::RegisterNode(registration)]).await;
    NodeId(worker)
}

/// One group of jobs from submission to the end, and as many of the oldest forgotten as are above what is kept.
async fn live(node: &RaftNode, worker: NodeId, first: u64, incarnation: u64) {
    let jobs = || (first..first + GROUP).map(|number| JobId(number.into()));
    propose(node, jobs().map(submit).collect()).await;
    let assign = |job| Command::Assign(Assign { job, node: worker, incarnation });
    let token = propose(node, jobs().map(assign).collect()).await;
    let complete = |job: JobId| {
        let (token, finished_ms) = (FencingToken::of(token), 1_700_000_000_000);
        let artifact = ArtifactRef {
            digest: Digest(*blake3::hash(&job.0.to_be_bytes()).as_bytes()),
            bytes: 20_000,
            media_type: "image/png".to_owned(),
            holders: vec![worker],
        };
        Command::Complete(Complete { job, token, artifacts: vec![artifact], finished_ms })
    };
    let mut commands: Vec<Command> = jobs().map(complete).collect();
    let view = node.view().borrow().clone();
    let above = view.state.terminal_count().saturating_sub(JOBS_KEPT);
    let oldest = view.state.terminal_oldest().take(above.min(FORGET_JOBS_MAX));
    let oldest: Vec<JobId> = oldest.map(|(job, _)| *job).collect();
    if !oldest.is_empty() {
        commands.push(Command::Forget(Forget { jobs: oldest }));
    }
    propose(node, commands).await;
}

fn submit(job: JobId) -> Command {
    Command::Submit(Submit {
        job,
        tenant: "bench".into(),
        idempotency_key: None,
        priority: 5,
        kind: "text_to_image/v1".into(),
        parameters: vec![7; PARAMETERS_BYTES].into(),
        traceparent: String::new(),
        submitted_ms: 1_700_000_000_000,
        attempts_max: 3,
        deadline_ms: 0,
        max_runtime_s: 0,
        cost: 1,
        retry_of: None,
    })
}

async fn propose(node: &RaftNode, commands: Vec<Command>) -> LogIndex {
    let proposed = node.propose(commands).await.expect("propose");
    let refused = proposed.replies.iter().find(|reply| matches!(reply, Reply::Refused(_)));
    assert_eq!(refused, None);
    proposed.log_index
}

fn report(jobs: u64, elapsed: Duration, store: &SledStore, directory: &Path) {
    let mib = |bytes: u64| bytes as f64 / 1024.0 / 1024.0;
    let tree = |tree| mib(store.bytes_on_disk(tree).expect("bytes_on_disk"));
    println!(
        "{jobs} jobs: {:.0} jobs/s, log {:.1} MiB, state {:.1} MiB, directory {:.1} MiB, resident {:.1} MiB",
        jobs as f64 / elapsed.as_secs_f64(),
        tree(Tree::Log),
        tree(Tree::State),
        mib(bytes_below(directory)),
        mib(resident_bytes()),
    );
}

async fn restart(directory: &Path, last: LogIndex) {
    let started = Instant::now();
    let store = Arc::new(SledStore::open(directory).expect("open"));
    let opened = started.elapsed();
    let node = start(store).await;
    let mut view = node.view();
    view.wait_for(|view| view.applied >= last).await.expect("it runs");
    println!(
        "restart: {} ms to open the store, {} ms until it leads with all {} applied",
        opened.as_millis(),
        started.elapsed().as_millis(),
        last.0
    );
    node.shutdown().await;
}

fn bytes_below(directory: &Path) -> u64 {
    let entries = std::fs::read_dir(directory).expect("list").flatten();
    let bytes = entries.map(|entry| match entry.metadata() {
        Ok(metadata) if metadata.is_dir() => bytes_below(&entry.path()),
        Ok(metadata) => metadata.len(),
        // sled's own work in the meantime.
        Err(_) => 0,
    });
    bytes.sum()
}

fn resident_bytes() -> u64 {
    let text = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or("0");
    line.split_whitespace().next().and_then(|n| n.parse::<u64>().ok()).unwrap_or(0) * 1024
}
