//! How a Raft node runs.

use atelier_state::NodeId;
use std::num::NonZero;

/// How a Raft node runs. All nodes of a cluster should have the same timing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RaftOptions {
    /// This node, from 1. An id is never used again, not even for the same machine with an empty disk: a node that
    /// forgot its vote may vote twice.
    pub node: NodeId,
    /// The cluster's name. Requests of another cluster are refused, and so is a directory of another cluster.
    pub cluster: String,
    /// Where the others reach this node, `http://host:port`.
    pub address: String,
    /// Milliseconds between two heartbeats; default 75. Lower finds a dead leader sooner and costs more.
    pub heartbeat_ms: u64,
    /// The shortest election timeout in milliseconds; default 250. More than two heartbeats.
    pub election_ms_min: u64,
    /// The longest election timeout in milliseconds; default 450, above the shortest. A dead leader is replaced
    /// after about this and another election timeout.
    pub election_ms_max: u64,
    /// Entries between two snapshots; default 5,000. Fewer make a start quicker and write more.
    pub snapshot_entries: u64,
    /// Bytes of entries above which a snapshot is made early, and nothing is kept behind it; default 64 MiB.
    pub snapshot_log_bytes: u64,
    /// Entries that are kept behind a snapshot for followers that lag, as far as their bytes allow; default 10,000. Two
    /// intervals of snapshots: whoever has been sent one must find the entries behind it.
    pub entries_kept: u64,
    /// Threads of Raft's own runtime; default 1 on up to four cores, else 2. None: it runs where it is started, and so
    /// does the writing of its log, for a world on one thread.
    pub threads: usize,
}

impl RaftOptions {
    /// Makes options with the defaults.
    pub fn new(
        node: NodeId,
        cluster: impl Into<String>,
        address: impl Into<String>,
    ) -> RaftOptions {
        RaftOptions {
            node,
            cluster: cluster.into(),
            address: address.into(),
            heartbeat_ms: 75,
            election_ms_min: 250,
            election_ms_max: 450,
            snapshot_entries: 5_000,
            snapshot_log_bytes: 64 * 1024 * 1024,
            entries_kept: 10_000,
            threads: threads_for(std::thread::available_parallelism()),
        }
    }

    /// Gives openraft's configuration, every option that matters said out loud.
    ///
    /// # Errors
    /// Says which options contradict one another.
    pub(super) fn config(&self) -> Result<openraft::Config, String> {
        if self.node.0 == 0 {
            return Err("node 0 is nobody; number nodes from 1".to_owned());
        }
        if self.snapshot_entries == 0 || self.heartbeat_ms == 0 {
            return Err("snapshot_entries and heartbeat_ms must be above 0".to_owned());
        }
        openraft::Config {
            cluster_name: self.cluster.clone(),
            heartbeat_interval: self.heartbeat_ms,
            heartbeat_min_interval: Some(0),
            election_timeout_min: self.election_ms_min,
            election_timeout_max: self.election_ms_max,
            enable_pre_vote: Some(true),
            // Followers get an entry while the leader's own disk still writes it; it counts when both have it.
            broadcast_submitted_on_append: Some(true),
            // A leader that restarts would lead with a state machine that is behind what it had answered.
            enable_leader_restore: Some(false),
            // A node that lost its disk must not be taken for one that lags.
            allow_log_reversion: Some(false),
            install_snapshot_timeout: 120_000,
            max_payload_entries: 256,
            max_append_entries: Some(1024),
            snapshot_policy: openraft::SnapshotPolicy::LogsSinceLast(self.snapshot_entries),
            max_in_snapshot_log_to_keep: self.entries_kept,
            // A follower that lags by less than what is kept never needs a snapshot.
            replication_lag_threshold: self.snapshot_entries * 2 + self.entries_kept,
            purge_batch_size: (self.entries_kept / 4).clamp(1, 256),
            api_channel_size: Some(4096),
            api_batch_capacity: 1024,
            notification_channel_size: Some(65536),
            state_machine_channel_size: Some(1024),
            backoff: "200ms".to_owned(),
            ..openraft::Config::default()
        }
        .validate()
        .map_err(|error| error.to_string())
    }
}

/// On few cores a second thread is woken more often than it works: with three peers on two cores, 64 clients were served
/// an eighth slower.
fn threads_for(cores: std::io::Result<NonZero<usize>>) -> usize {
    let cores = cores.map_or(1, NonZero::get);
    if cores > 4 { 2 } else { 1 }
}
