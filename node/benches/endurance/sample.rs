//! What a peer takes of its machine at a moment, and what it did with its log.

use std::fs;
use std::path::Path;

use crate::queue::one_peer;
use crate::support::{Cluster, resident_bytes};

/// What the peers log: openraft says when it makes a snapshot and purges.
pub(crate) const LOGGED: &str =
    "warn,openraft::core::sm::worker=info,openraft::engine::handler::log_handler=info";
const SNAPSHOT: &str = "spawned building snapshot task";
const PURGE: &str = "purge_upto: ";

/// What one peer takes.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Sample {
    pub(crate) resident: u64,
    /// Bytes of its data directory, and of the two parts that have bounds of their own.
    pub(crate) directory: u64,
    pub(crate) log: u64,
    pub(crate) state: u64,
    /// Bytes of a snapshot that is made for this sample.
    pub(crate) snapshot: u64,
    pub(crate) files: u64,
    pub(crate) threads: u64,
}

impl Sample {
    /// Of one peer.
    pub(crate) async fn of(cluster: &Cluster, id: u64) -> Sample {
        let (pid, data) = (cluster.pid(id), cluster.data_of(id));
        // Before the snapshot, which takes memory for a moment.
        let resident = resident_bytes(pid);
        let snapshot = one_peer(cluster, id).take_snapshot().await;
        Sample {
            resident,
            directory: directory_bytes(&data),
            log: directory_bytes(&data.join("log")),
            state: directory_bytes(&data.join("state")),
            snapshot: snapshot.expect("a peer makes a snapshot").bytes,
            files: entries(&format!("/proc/{pid}/fd")),
            threads: entries(&format!("/proc/{pid}/task")),
        }
    }

    /// Its figures with their names; the first five are bytes.
    pub(crate) fn figures(&self) -> [(&'static str, u64); 7] {
        [
            ("resident memory", self.resident),
            ("directory", self.directory),
            ("log", self.log),
            ("state", self.state),
            ("snapshot", self.snapshot),
            ("open files", self.files),
            ("threads", self.threads),
        ]
    }
}

fn entries(directory: &str) -> u64 {
    fs::read_dir(directory).map_or(0, |entries| entries.count() as u64)
}

/// Bytes of all files below; what goes away meanwhile is not counted.
fn directory_bytes(directory: &Path) -> u64 {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    entries
        .map(|entry| match entry.metadata() {
            Ok(metadata) if metadata.is_dir() => directory_bytes(&entry.path()),
            Ok(metadata) => metadata.len(),
            Err(_) => 0,
        })
        .sum()
}

/// Snapshots that the peers have made, and purges of their logs.
pub(crate) fn upkeep(cluster: &Cluster) -> (usize, usize) {
    let logs: Vec<String> = cluster.ids().into_iter().map(|id| cluster.log_of(id)).collect();
    let snapshots = logs.iter().map(|log| log.matches(SNAPSHOT).count()).sum();
    (snapshots, logs.iter().map(|log| purges(log)).sum())
}

/// How often the log was purged up to another index.
fn purges(log: &str) -> usize {
    let mut upto: Vec<&str> = log.lines().filter_map(|line| line.split(PURGE).nth(1)).collect();
    upto.dedup();
    upto.len()
}

/// Bytes in MiB.
pub(crate) fn mib(bytes: u64) -> String {
    format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20))
}
