//! The table of settings: key, type, range, documentation, and how each is read and written.
//!
//! One definition serves the file, the environment, the flags, the printed default file and the
//! faults. Order is the order of the printed file: keys without a table first.

use super::{Backend, Config, LogFormat, Member};
use atelier_state::limits;
use std::net::SocketAddr;

/// What a TOML value of this field must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Number,
    Switch,
    Text,
    /// `[{ id = 1, address = "http://…" }]` in TOML; `1=http://…,2=http://…` elsewhere.
    Peers,
}

/// One setting.
pub(super) struct Field {
    pub(super) key: &'static str,
    pub(super) kind: Kind,
    /// The range, as a fault tells it.
    pub(super) expected: &'static str,
    /// What it is, its unit, and why one would change it.
    pub(super) doc: &'static str,
    /// Takes a text; `false` where it is not what is expected.
    pub(super) set: fn(&mut Config, &str) -> bool,
    /// The value in TOML syntax.
    pub(super) get: fn(&Config) -> String,
}

macro_rules! number {
    ($key:literal, $min:literal ..= $max:literal, $unit:literal, $($at:ident).+, $doc:literal) => {
        Field {
            key: $key,
            kind: Kind::Number,
            expected: concat!("a whole number from ", $min, " to ", $max, $unit),
            doc: $doc,
            set: |config, text| {
                let value = text.parse().ok().filter(|value| ($min..=$max).contains(value));
                value.map(|value| config.$($at).+ = value).is_some()
            },
            get: |config| config.$($at).+.to_string(),
        }
    };
}

macro_rules! switch {
    ($key:literal, $($at:ident).+, $doc:literal) => {
        Field {
            key: $key,
            kind: Kind::Switch,
            expected: "true or false",
            doc: $doc,
            set: |config, text| text.parse().map(|value| config.$($at).+ = value).is_ok(),
            get: |config| config.$($at).+.to_string(),
        }
    };
}

macro_rules! text {
    ($key:literal, $expected:literal, $parse:expr, $print:expr, $($at:ident).+, $doc:literal) => {
        Field {
            key: $key,
            kind: Kind::Text,
            expected: $expected,
            doc: $doc,
            set: |config, text| $parse(text).map(|value| config.$($at).+ = value).is_some(),
            get: |config| quote(&$print(&config.$($at).+)),
        }
    };
}

/// Every setting there is.
pub(super) const FIELDS: &[Field] = &[
    number!(
        "node",
        1..=18_446_744_073_709_551_615_u64,
        "",
        node,
        "This peer's id. Required; unique in the cluster for ever: a machine whose disk was\n\
         emptied gets a new one (`atelier member add` answers it)."
    ),
    text!(
        "cluster",
        "1 to 64 letters, digits, `-` or `_`",
        name,
        String::clone,
        cluster,
        "Name of the cluster. Peers refuse those of another name; change it to run two\n\
         clusters on one network."
    ),
    text!(
        "data",
        "a path of a directory",
        path,
        path_text,
        data,
        "Directory of the log, the state and the results; made when it does not exist. Put it\n\
         on the disk that survives."
    ),
    switch!(
        "join",
        join,
        "Do not form a cluster, wait to be added to one. Set it on a peer that `atelier member\n\
         add` announced; `peers` is then not used to form anything."
    ),
    text!(
        "join_through",
        "an address http://host:port, or nothing",
        address_or_nothing,
        String::clone,
        join_through,
        "Any peer of the cluster to join. A peer with an empty data directory asks it to be let in,\n\
         for cluster_token, and learns its id and the cluster's name; `node` may then be left out."
    ),
    text!(
        "cluster_token",
        "at least 16 printable characters without spaces, or nothing",
        token,
        String::clone,
        cluster_token,
        "What lets newcomers in, the same on every peer. Keep it secret: `atelier cluster init` makes\n\
         one. Empty: only `atelier member add` adds members."
    ),
    switch!(
        "promote",
        promote,
        "Ask for a vote, once, as soon as this peer has joined and caught up. Without it a newcomer\n\
         stays a learner until `atelier member promote`."
    ),
    switch!(
        "witness",
        witness,
        "Vote and never draw: a cheap third voter. Needs engine.enabled = false. It hands the lead on\n\
         where another voter can take it."
    ),
    text!(
        "log",
        "a filter such as `info` or `info,atelier_peer=debug`",
        filled,
        String::clone,
        log,
        "What is logged to standard error. Use `debug` when asked for a report; prompts appear\n\
         at debug level only. openraft says warnings alone, unless `openraft=info` is added."
    ),
    text!(
        "log_format",
        "text or json",
        LogFormat::named,
        |format: &LogFormat| format.name().to_owned(),
        log_format,
        "`text` is for people, on standard error; `json` is one object a line, on standard output,\n\
         and there is nothing else on it."
    ),
    text!(
        "log_directory",
        "a directory, or nothing",
        |text: &str| Some(std::path::PathBuf::from(text)),
        |path: &std::path::PathBuf| path.display().to_string(),
        log_directory,
        "Log to files in this directory too, as JSON: `atelierd.log` is the newest. Empty: no files.\n\
         A peer never waits for this disk; where it is slow, lines are missing."
    ),
    number!(
        "log_file_mib",
        1..=10_000_usize,
        " MiB",
        log_file_mib,
        "A log file of this size is set aside under a number, and a new one begins."
    ),
    number!(
        "log_files",
        2..=1_000_usize,
        "",
        log_files,
        "Log files that are kept, the newest included; the oldest is deleted."
    ),
    Field {
        key: "peers",
        kind: Kind::Peers,
        expected: "a list of { id = 1, address = \"http://host:port\" }, at most 64; elsewhere than \
                   in the file 1=http://host:port,2=http://host:port",
        doc: "The initial members, the same list on each. Empty: a cluster of this peer alone.\n\
              Read when the data directory is new; later `atelier member` changes members.",
        set: |config, text| parse_peers(text).map(|peers| config.peers = peers).is_some(),
        get: |config| {
            let peer = |p: &Member| format!("{{ id = {}, address = {} }}", p.id, quote(&p.address));
            format!("[{}]", config.peers.iter().map(peer).collect::<Vec<_>>().join(", "))
        },
    },
    text!(
        "listen.http",
        "an IP address and a port, such as 127.0.0.1:7860",
        socket,
        SocketAddr::to_string,
        listen.http,
        "HTTP: clients, the page, probes and metrics. Loopback by default, since nothing asks for a password;\n\
         0.0.0.0:7860 opens it to the network."
    ),
    text!(
        "listen.grpc",
        "an IP address and a port, such as 127.0.0.1:7861",
        socket,
        SocketAddr::to_string,
        listen.grpc,
        "gRPC: clients and peers share it. Peers on other machines need 0.0.0.0:7861 here and\n\
         listen.advertise below."
    ),
    text!(
        "listen.advertise",
        "an address http://host:port",
        address_or_nothing,
        String::clone,
        listen.advertise,
        "What clients and peers dial. Empty: this node's entry of `peers`, else listen.grpc.\n\
         Set it behind address translation."
    ),
    number!(
        "raft.heartbeat_ms",
        10..=5_000,
        " ms",
        raft.heartbeat_ms,
        "Milliseconds between heartbeats. Longer between distant regions: above the round trip."
    ),
    number!(
        "raft.election_ms_min",
        30..=60_000,
        " ms",
        raft.election_ms_min,
        "Shortest election timeout in milliseconds; at least three heartbeats. Shorter finds a\n\
         dead leader sooner, and takes a slow disk for one."
    ),
    number!(
        "raft.election_ms_max",
        40..=120_000,
        " ms",
        raft.election_ms_max,
        "Longest election timeout in milliseconds. The distance to the shortest avoids split\n\
         votes."
    ),
    number!(
        "raft.snapshot_entries",
        10..=10_000_000,
        " entries",
        raft.snapshot_entries,
        "Entries between snapshots. Fewer make restarts shorter and write more."
    ),
    number!(
        "raft.entries_kept",
        0..=10_000_000,
        " entries",
        raft.entries_kept,
        "Entries kept behind a snapshot, so that a peer that was away for a moment needs no\n\
         whole snapshot."
    ),
    number!(
        "jobs.lease_ms",
        100..=600_000,
        " ms",
        jobs.lease_ms,
        "Milliseconds of silence after which a worker's jobs go to another. Shorter moves the\n\
         work of a dead worker sooner; longer forgives a loaded machine."
    ),
    number!(
        "jobs.attempts_max",
        1..=10,
        " attempts",
        jobs.attempts_max,
        "Failed attempts after which a job is failed, while some peer of the cluster is of a\n\
         version without settings. Then the setting holds: `atelier config set jobs.attempts_max=3`."
    ),
    number!(
        "jobs.artifact_copies",
        1..=8,
        " peers",
        jobs.artifact_copies,
        "Peers that hold each result before the job counts as done; fewer members hold it\n\
         all. 2 survives the loss of any one machine."
    ),
    number!(
        "jobs.checkpoint_steps",
        0..=100,
        " steps",
        jobs.checkpoint_steps,
        "Denoise steps between two checkpoints of a running job, from which another peer goes on\n\
         when this one dies. 0: after each step that costs more than 250 ms. More where the\n\
         network is slower than the device."
    ),
    switch!(
        "engine.enabled",
        engine.enabled,
        "Whether this peer draws. false makes a witness: it votes and serves, without a model."
    ),
    text!(
        "engine.model",
        "a path of a directory",
        path,
        path_text,
        engine.model,
        "Model directory in the diffusers layout. Required where engine.enabled is true; the\n\
         same bytes on every peer."
    ),
    text!(
        "engine.backend",
        "auto, cpu or cuda",
        Backend::parse,
        Backend::text,
        engine.backend,
        "What draws. auto takes a CUDA device where there is one. Name it to fail rather than\n\
         fall back to the CPU."
    ),
    number!(
        "engine.slots",
        1..=64,
        " jobs",
        engine.slots,
        "Jobs this peer holds at a time. One engine draws them one after the other; 2 hides\n\
         the gap between jobs."
    ),
    number!(
        "engine.silence_ms",
        1_000..=3_600_000,
        " ms",
        engine.silence_ms,
        "Milliseconds without a step after which an engine at work is killed and restarted.\n\
         Longer than the slowest step of the largest picture."
    ),
    number!(
        "engine.silence_steps",
        2..=10_000,
        " steps",
        engine.silence_steps,
        "Between two steps of one picture the same, after so many times the slowest step of the\n\
         drawing, at least 10 s. More where something else takes the device away for long."
    ),
    number!(
        "engine.start_retries",
        0..=100,
        " restarts",
        engine.start_retries,
        "Starts in a row that may fail before the peer reports itself unfit and takes no jobs."
    ),
    number!(
        "shutdown.pause_ms",
        0..=60_000,
        " ms",
        shutdown.pause_ms,
        "Milliseconds between turning not-ready and closing. Use 5000 behind a load balancer,\n\
         so that it looks away first."
    ),
];

// The ranges above are literals so that the faults can tell them; these hold them to the state's.
const _: () = assert!(limits::NODES_MAX == 64);
const _: () = assert!(limits::ATTEMPTS_MAX == 10);
const _: () = assert!(limits::HOLDERS_MAX == 8);
const _: () = assert!(limits::SLOTS_MAX == 64);

impl Backend {
    fn parse(text: &str) -> Option<Self> {
        match text {
            "auto" => Some(Self::Auto),
            "cpu" => Some(Self::Cpu),
            "cuda" => Some(Self::Cuda),
            _ => None,
        }
    }

    fn text(&self) -> String {
        self.as_str().to_owned()
    }

    /// The word that configuration and command line use.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Cpu => "cpu",
            Self::Cuda => "cuda",
        }
    }
}

/// Peers as environment and flags write them.
pub(super) fn peers_text(peers: &[Member]) -> String {
    let peer = |p: &Member| format!("{}={}", p.id, p.address);
    peers.iter().map(peer).collect::<Vec<_>>().join(",")
}

fn parse_peers(text: &str) -> Option<Vec<Member>> {
    if text.is_empty() {
        return Some(Vec::new());
    }
    let peer = |part: &str| {
        let (id, address) = part.trim().split_once('=')?;
        let id = id.parse().ok().filter(|id| *id > 0)?;
        Some(Member { id, address: address_of(address)? })
    };
    let peers: Vec<Member> = text.split(',').map(peer).collect::<Option<_>>()?;
    (peers.len() <= limits::NODES_MAX).then_some(peers)
}

/// Reads `http://host:port`.
pub(crate) fn address_of(text: &str) -> Option<String> {
    let (host, port) = text.strip_prefix("http://")?.rsplit_once(':')?;
    let port_fits = port.parse::<u16>().is_ok_and(|port| port > 0);
    let plain = |c: char| c.is_ascii_alphanumeric() || "-._".contains(c);
    let v6 = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    let host_fits = match v6 {
        Some(v6) => v6.parse::<std::net::Ipv6Addr>().is_ok(),
        None => !host.is_empty() && host.chars().all(plain),
    };
    let fits = port_fits && host_fits && text.len() <= limits::TEXT_BYTES_MAX;
    fits.then(|| text.to_owned())
}

fn address_or_nothing(text: &str) -> Option<String> {
    if text.is_empty() { Some(String::new()) } else { address_of(text) }
}

fn name(text: &str) -> Option<String> {
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    ((1..=64).contains(&text.len()) && text.chars().all(plain)).then(|| text.to_owned())
}

fn filled(text: &str) -> Option<String> {
    (!text.is_empty()).then(|| text.to_owned())
}

/// Short ones are guessed; 16 random characters are not.
fn token(text: &str) -> Option<String> {
    let plain = text.chars().all(|c| c.is_ascii_graphic());
    (text.is_empty() || (plain && (16..=256).contains(&text.len()))).then(|| text.to_owned())
}

fn socket(text: &str) -> Option<SocketAddr> {
    text.parse().ok()
}

fn path(text: &str) -> Option<std::path::PathBuf> {
    Some(text.into())
}

fn path_text(path: &std::path::Path) -> String {
    path.display().to_string()
}

/// A TOML basic string.
fn quote(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}
