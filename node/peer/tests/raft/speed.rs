//! How fast the log takes entries, beside what the disk can do. It asserts nothing: the numbers are the machine's.

use crate::harness::{Cluster, calm, open, submit};
use atelier_peer::ports::{Log, Store};
use atelier_peer::storage::log::{Extent, LogWriter};
use bytes::Bytes;
use std::fs::File;
use std::io::Write;
use std::sync::Arc;
use std::time::{Duration, Instant};

const BATCHES: [u64; 3] = [1, 16, 256];
const ENTRY_BYTES: usize = 256;

/// Set to measure for so many milliseconds a line; a test run takes a glance only.
const MEASURE_MS: &str = "ATELIER_TEST_SPEED_MS";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_of_three_keeps_up() {
    let cluster = Cluster::three(calm).await;
    let leader = cluster.node(cluster.leader().await);
    let mut base = 0;
    for (proposers, commands) in [(1, 1), (64, 1), (64, 64)] {
        let (started, mut taken) = (Instant::now(), 0);
        while started.elapsed() < span() {
            let proposals = (0..proposers).map(|proposer| {
                let first = base + proposer * commands;
                leader.propose((first..first + commands).map(|number| submit(number + 1)).collect())
            });
            let outcomes = futures_util::future::try_join_all(proposals).await.expect("propose");
            base += proposers * commands;
            taken += outcomes.len();
        }
        let rate = taken as f64 / started.elapsed().as_secs_f64();
        println!(
            "{proposers} proposers, {commands} commands each: {rate:.0} entries/s, {:.0} commands/s",
            rate * commands as f64
        );
    }
}

fn span() -> Duration {
    let span = std::env::var(MEASURE_MS).ok().and_then(|ms| ms.parse().ok()).unwrap_or(200);
    Duration::from_millis(span)
}

#[test]
fn the_log_keeps_up() {
    let span = span();
    for batch in BATCHES {
        let (file, log) = (file_rate(span, batch), log_rate(span, batch));
        println!(
            "batch {batch}: file {:.0} syncs/s, {:.0} entries/s; log {:.0} batches/s, {:.0} entries/s",
            file,
            file * batch as f64,
            log,
            log * batch as f64
        );
    }
}

fn file_rate(span: Duration, batch: u64) -> f64 {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let mut file = File::create(directory.path().join("file")).expect("create");
    let bytes = vec![7; ENTRY_BYTES * batch as usize];
    let (started, mut rounds) = (Instant::now(), 0.0);
    while started.elapsed() < span {
        file.write_all(&bytes).expect("write");
        file.sync_data().expect("sync");
        rounds += 1.0;
    }
    rounds / started.elapsed().as_secs_f64()
}

fn log_rate(span: Duration, batch: u64) -> f64 {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let store: Arc<dyn Store> = Arc::new(open(directory.path()));
    let (writer, thread) = LogWriter::start(store, Extent::default()).expect("start");
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    let body = Bytes::from(vec![7; ENTRY_BYTES]);
    let (started, mut rounds) = (Instant::now(), 0.0);
    let mut next = 0;
    runtime.block_on(async {
        while started.elapsed() < span {
            let entries = (next..next + batch).map(|index| (index, body.clone())).collect();
            next += batch;
            let (done, result) = tokio::sync::oneshot::channel();
            writer.append(entries, Box::new(|result| drop(done.send(result)))).await;
            result.await.expect("the writer answers").expect("append");
            rounds += 1.0;
        }
    });
    let rate = rounds / started.elapsed().as_secs_f64();
    drop(writer);
    thread.join().expect("the thread ends");
    rate
}
