//! The configuration of one peer: one typed struct out of a TOML file, the environment and flags.
//!
//! Owns every default, every range and the text that tells an operator what is wrong. The three
//! sources rise in rank (file, then `ATELIER_*`, then flags), an unknown key is a fault in each of
//! them, and all faults are told at once. It must not know what the settings are used for.

mod fields;
mod sources;

pub use sources::{Fault, Faults, Setting, Sources};

pub(crate) use fields::address_of;

use fields::FIELDS;
use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::PathBuf;

/// Everything that one peer is told from outside. Each field's unit, range and reason to change it
/// stand in `config/fields.rs`, from where `atelierd start --print-config` prints them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// This peer's id; never reused for another machine or an emptied disk.
    pub node: u64,
    /// Name of the cluster; peers of another one are refused.
    pub cluster: String,
    /// Directory of the log, the state and the artifacts.
    pub data: PathBuf,
    /// Do not form a cluster: wait to be added to one.
    pub join: bool,
    /// Whom to ask to be let in, `http://host:port`; empty for nobody.
    pub join_through: String,
    /// What opens the cluster to newcomers; empty where only operators add members.
    pub cluster_token: String,
    /// Ask for a vote as soon as this peer has caught up.
    pub promote: bool,
    /// Vote and never draw, and lead no longer than needed.
    pub witness: bool,
    /// Filter of the log, in the syntax of `tracing-subscriber`.
    pub log: String,
    /// How it is written.
    pub log_format: LogFormat,
    /// Where it is written to files; empty for nowhere.
    pub log_directory: PathBuf,
    /// MiB of one such file.
    pub log_file_mib: usize,
    /// Such files that are kept.
    pub log_files: usize,
    /// Where this peer listens.
    pub listen: Listen,
    /// The initial members; empty means this peer alone.
    pub peers: Vec<Member>,
    /// Timers and bounds of Raft.
    pub raft: RaftTimers,
    /// Bounds of jobs and their results.
    pub jobs: Jobs,
    /// The process that owns the device.
    pub engine: EngineSettings,
    /// How the peer leaves.
    pub shutdown: Shutdown,
}

/// How the log is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// For people, on standard error.
    Text,
    /// One object a line, on standard output.
    Json,
}

impl LogFormat {
    fn named(name: &str) -> Option<LogFormat> {
        [LogFormat::Text, LogFormat::Json].into_iter().find(|format| format.name() == name)
    }

    fn name(self) -> &'static str {
        match self {
            LogFormat::Text => "text",
            LogFormat::Json => "json",
        }
    }
}

/// Where a peer listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listen {
    /// HTTP: clients, the page, probes and metrics.
    pub http: SocketAddr,
    /// gRPC: clients and peers.
    pub grpc: SocketAddr,
    /// What others dial, `http://host:port`; empty means derived, see [`Config::advertised`].
    pub advertise: String,
}

/// One initial member of the cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Its id.
    pub id: u64,
    /// Its gRPC address, `http://host:port`.
    pub address: String,
}

/// Timers and bounds of Raft.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RaftTimers {
    /// Milliseconds between heartbeats of the leader.
    pub heartbeat_ms: u64,
    /// Shortest election timeout in milliseconds.
    pub election_ms_min: u64,
    /// Longest election timeout in milliseconds.
    pub election_ms_max: u64,
    /// Entries between snapshots.
    pub snapshot_entries: u64,
    /// Entries that stay in the log behind a snapshot.
    pub entries_kept: u64,
}

/// Bounds of jobs and their results.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Jobs {
    /// Milliseconds of silence after which a worker loses its leases.
    pub lease_ms: u64,
    /// Failed attempts after which a job is failed.
    pub attempts_max: u32,
    /// Peers that hold each result.
    pub artifact_copies: usize,
    /// Steps between checkpoints of a running job; 0 leaves it to what a step costs.
    pub checkpoint_steps: u32,
}

/// The process that owns the device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EngineSettings {
    /// Whether this peer draws at all.
    pub enabled: bool,
    /// Directory of the model, diffusers layout.
    pub model: PathBuf,
    /// Which backend draws.
    pub backend: Backend,
    /// Jobs that this peer holds at a time.
    pub slots: u32,
    /// Milliseconds without a word from the engine after which it is killed.
    pub silence_ms: u64,
    /// The same between two steps, in steps of the slowest kind.
    pub silence_steps: u32,
    /// Starts in a row that may fail before the peer reports itself unfit.
    pub start_retries: u32,
}

/// Which backend draws.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Backend {
    /// CUDA where there is a device, else the CPU.
    Auto,
    /// The CPU, in F32.
    Cpu,
    /// The first CUDA device, in BF16.
    Cuda,
}

/// How the peer leaves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shutdown {
    /// Milliseconds between "not ready" and the end of service.
    pub pause_ms: u64,
}

impl Default for Config {
    /// The documented defaults. `node` is 0, which [`Config::load`] refuses: an id is never
    /// guessed.
    fn default() -> Self {
        Self {
            node: 0,
            cluster: "atelier".to_owned(),
            data: PathBuf::from("atelier-data"),
            join: false,
            join_through: String::new(),
            cluster_token: String::new(),
            promote: false,
            witness: false,
            log: "info".to_owned(),
            log_format: LogFormat::Text,
            log_directory: PathBuf::new(),
            log_file_mib: 64,
            log_files: 8,
            listen: Listen {
                http: SocketAddr::from(([127, 0, 0, 1], 7860)),
                grpc: SocketAddr::from(([127, 0, 0, 1], 7861)),
                advertise: String::new(),
            },
            peers: Vec::new(),
            raft: RaftTimers {
                heartbeat_ms: 75,
                election_ms_min: 250,
                election_ms_max: 450,
                snapshot_entries: 10_000,
                entries_kept: 20_000,
            },
            jobs: Jobs {
                lease_ms: 3_000,
                attempts_max: 3,
                artifact_copies: 2,
                checkpoint_steps: 0,
            },
            engine: EngineSettings {
                enabled: true,
                model: PathBuf::new(),
                backend: Backend::Auto,
                slots: 1,
                silence_ms: 120_000,
                silence_steps: 30,
                start_retries: 5,
            },
            shutdown: Shutdown { pause_ms: 0 },
        }
    }
}

impl Config {
    /// Reads all sources in rising rank and checks the whole.
    ///
    /// # Errors
    /// [`Faults`] with every fault of every source: mend them all, then start again.
    pub fn load(sources: &Sources) -> Result<Self, Faults> {
        let (config, faults) = Self::read(sources);
        if faults.is_empty() { Ok(config) } else { Err(Faults(faults)) }
    }

    /// Reads all sources as [`Config::load`] does, and keeps what fits beside the faults. For
    /// showing.
    #[must_use]
    pub fn read(sources: &Sources) -> (Self, Vec<Fault>) {
        let mut config = Self::default();
        let mut faults = sources::apply_all(&mut config, sources);
        config.check_relations(&mut faults);
        (config, faults)
    }

    /// The address that others dial: `listen.advertise`, else this node's entry of `peers`, else
    /// the gRPC listen address.
    #[must_use]
    pub fn advertised(&self) -> String {
        if !self.listen.advertise.is_empty() {
            return self.listen.advertise.clone();
        }
        let own = self.peers.iter().find(|peer| peer.id == self.node);
        own.map_or_else(|| format!("http://{}", self.listen.grpc), |peer| peer.address.clone())
    }

    /// The initial members: `peers`, or this peer alone.
    #[must_use]
    pub fn initial_members(&self) -> Vec<Member> {
        if self.peers.is_empty() {
            return vec![Member { id: self.node, address: self.advertised() }];
        }
        self.peers.clone()
    }

    /// Every setting as `key=value`, on one line, for the log.
    #[must_use]
    pub fn effective(&self) -> String {
        let value = |field: &fields::Field| match field.key {
            // Whoever reads the log must not be able to join.
            sources::SECRET if !self.cluster_token.is_empty() => "(secret)".to_owned(),
            _ => (field.get)(self),
        };
        let settings = FIELDS.iter().map(|field| format!("{}={}", field.key, value(field)));
        settings.collect::<Vec<_>>().join(" ")
    }

    /// A commented TOML file of this configuration.
    #[must_use]
    pub fn to_commented_toml(&self) -> String {
        let mut text = String::from(
            "# Configuration of atelierd. Environment variables (ATELIER_RAFT_HEARTBEAT_MS for\n\
             # raft.heartbeat_ms, and so on) come before this file, flags before both.\n",
        );
        let mut table = "";
        for field in FIELDS {
            let (parent, name) = field.key.rsplit_once('.').unwrap_or(("", field.key));
            if parent != table {
                let _ = writeln!(text, "\n[{parent}]");
                table = parent;
            }
            for line in field.doc.lines() {
                let _ = write!(text, "\n# {}", line.trim());
            }
            let value = (field.get)(self);
            let _ = writeln!(text, "\n# Expected: {}.\n{name} = {value}", field.expected);
        }
        text
    }

    /// Checks what no field can say alone.
    fn check_relations(&self, faults: &mut Vec<Fault>) {
        let mut fault = |key: &str, expected: &str, got: String| {
            // A field that is wrong in itself has been told already.
            if !faults.iter().any(|known| known.key == key) {
                faults.push(Fault::relation(key, expected, got));
            }
        };
        if self.node == 0 && self.join_through.is_empty() {
            fault("node", "an id from 1 to 18446744073709551615", "nothing".to_owned());
        }
        let (min, max) = (self.raft.election_ms_min, self.raft.election_ms_max);
        if min < 3 * self.raft.heartbeat_ms {
            let expected = "at least three times raft.heartbeat_ms";
            fault("raft.election_ms_min", expected, min.to_string());
        }
        if max <= min {
            fault("raft.election_ms_max", "more than raft.election_ms_min", max.to_string());
        }
        if self.jobs.lease_ms < max {
            let expected = "at least raft.election_ms_max";
            fault("jobs.lease_ms", expected, self.jobs.lease_ms.to_string());
        }
        if !self.join_through.is_empty() && self.cluster_token.is_empty() {
            let expected = "the token of the cluster that join_through asks";
            fault("cluster_token", expected, "nothing".to_owned());
        }
        if self.witness && self.engine.enabled {
            let expected = "false where witness is true: a witness never draws";
            fault("engine.enabled", expected, "true".to_owned());
        }
        if self.engine.enabled && self.engine.model.as_os_str().is_empty() {
            let expected =
                "a model directory, or engine.enabled = false for a peer that only votes";
            fault("engine.model", expected, "nothing".to_owned());
        }
        if self.advertised().contains("//0.0.0.0:") || self.advertised().contains("//[::]:") {
            let (why, got) = match self.listen.advertise.as_str() {
                "" => ("since listen.grpc is every interface", "nothing"),
                given => ("which every interface is not", given),
            };
            let expected = format!("an address that others can dial, {why}");
            fault("listen.advertise", &expected, got.to_owned());
        }
        self.check_peers(&mut fault);
    }

    fn check_peers(&self, fault: &mut impl FnMut(&str, &str, String)) {
        let ids: BTreeSet<u64> = self.peers.iter().map(|peer| peer.id).collect();
        let addresses: BTreeSet<&str> = self.peers.iter().map(|p| p.address.as_str()).collect();
        if ids.len() < self.peers.len() || addresses.len() < self.peers.len() {
            fault("peers", "each id and each address once", fields::peers_text(&self.peers));
        }
        if self.peers.is_empty() {
            return;
        }
        match self.peers.iter().find(|peer| peer.id == self.node) {
            None if self.join || self.node == 0 => {}
            None => {
                let expected = format!("an entry of this node ({}), or join = true", self.node);
                fault("peers", &expected, fields::peers_text(&self.peers));
            }
            Some(own) if own.address != self.advertised() => {
                let expected = format!("{}, as in this node's entry of peers", own.address);
                fault("listen.advertise", &expected, self.listen.advertise.clone());
            }
            Some(_) => {}
        }
    }
}

#[cfg(test)]
mod tests;
