//! A namespace a peer, joined by a bridge, and links between them that can be cut in one direction.

use crate::cluster::clients::Reach;
use atelier_client::{ConnectError, Line, LineError};
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::process::Command;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tonic::transport::Endpoint;
use tower::ServiceExt;

/// Set in the process that runs inside of the namespace.
const INSIDE: &str = "INSIDE_PROCESS_RIG";
/// Port of gRPC at each peer.
pub(super) const GRPC: u16 = 7861;
/// Port of HTTP at each peer.
pub(super) const HTTP: u16 = 7860;

/// Runs this program again inside of a network namespace, and returns whether that went well; none where it is
/// inside already.
///
/// # Errors
/// Says why this machine cannot.
pub fn enter() -> Result<Option<bool>, String> {
    if std::env::var_os(INSIDE).is_some() {
        return Ok(None);
    }
    for (program, probe) in [("ip", "-V"), ("unshare", "--version"), ("nft", "--version")] {
        let found = Command::new(program).arg(probe).output();
        found.map_err(|error| format!("{program} is needed: {error}"))?;
    }
    if !rustix::process::geteuid().is_root() {
        return Err("only root makes network namespaces".to_owned());
    }
    let probe = Command::new("unshare").args(["--net", "--", "true"]).status();
    if !probe.map_err(|error| format!("unshare: {error}"))?.success() {
        return Err("this machine does not let root make network namespaces".to_owned());
    }
    let program = std::env::current_exe().map_err(|error| error.to_string())?;
    let status = Command::new("unshare")
        .args(["--net", "--"])
        .arg(program)
        .args(std::env::args_os().skip(1))
        .env(INSIDE, "1")
        .status();
    status.map(|status| Some(status.success())).map_err(|error| format!("unshare: {error}"))
}

/// All namespaces. Clones are the same network; the last one takes them away.
#[derive(Clone)]
pub(super) struct Network(Arc<Spaces>);

struct Spaces {
    names: BTreeMap<u64, String>,
    // How many faults cut a link, by whom it is from and to.
    cuts: Mutex<BTreeMap<(u64, u64), u64>>,
}

impl Network {
    pub(super) fn new(peers: u64) -> Network {
        assert!(std::env::var_os(INSIDE).is_some(), "call `enter` first");
        ip("link set lo up");
        ip("link add hub type bridge");
        ip("addr add 10.77.0.254/24 dev hub");
        ip("link set hub up");
        let mut names = BTreeMap::new();
        for id in 1..=peers {
            let name = format!("atelier-rig-{}-{id}", std::process::id());
            ip(&format!("netns add {name}"));
            ip(&format!("link add v{id} type veth peer name eth0 netns {name}"));
            ip(&format!("link set v{id} master hub up"));
            ip(&format!("-n {name} link set lo up"));
            ip(&format!("-n {name} addr add {}/24 dev eth0", host(id)));
            ip(&format!("-n {name} link set eth0 up"));
            names.insert(id, name);
        }
        Network(Arc::new(Spaces { names, cuts: Mutex::default() }))
    }

    /// A command that will run in a peer's namespace, under its own pid.
    pub(super) fn command(&self, id: u64, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.0.names[&id]]).arg(program);
        command
    }

    /// Drops every packet of one peer to another, until it is mended as often as it was cut.
    pub(super) fn cut(&self, from: u64, to: u64) {
        self.change(from, to, |cuts| cuts + 1);
    }

    pub(super) fn mend(&self, from: u64, to: u64) {
        self.change(from, to, |cuts| cuts - 1);
    }

    fn change(&self, from: u64, to: u64, change: impl FnOnce(u64) -> u64) {
        let mut cuts = self.0.cuts.lock().unwrap_or_else(PoisonError::into_inner);
        let count = cuts.entry((from, to)).or_default();
        *count = change(*count);
        let silent: BTreeSet<String> = cuts
            .iter()
            .filter(|((_, deaf), count)| *deaf == to && **count > 0)
            .map(|((from, _), _)| host(*from))
            .collect();
        let mut rules = "table inet cut {}; delete table inet cut;".to_owned();
        if !silent.is_empty() {
            let silent = silent.into_iter().collect::<Vec<_>>().join(", ");
            rules += &format!(
                "table inet cut {{ chain in {{ type filter hook input priority 0; ip saddr {{ {silent} }} drop; }}; }}"
            );
        }
        let done = self.command(to, "nft").arg(&rules).status().expect("run nft");
        assert!(done.success(), "nft {rules}");
    }
}

impl Drop for Spaces {
    fn drop(&mut self) {
        for (id, name) in &self.names {
            // By name: a namespace that is deleted keeps its links for a while.
            let _ = Command::new("ip").args(["link", "delete", &format!("v{id}")]).status();
            let _ = Command::new("ip").args(["netns", "delete", name]).status();
        }
        let _ = Command::new("ip").args(["link", "delete", "hub"]).status();
    }
}

impl Reach for Network {
    fn address(&self, peer: u64) -> String {
        format!("http://{}:{GRPC}", host(peer))
    }

    fn line(&self, _from: &str, to: &str) -> Result<Line, ConnectError> {
        let endpoint = Endpoint::from_shared(to.to_owned()).map_err(|error| {
            ConnectError::Address { address: to.to_owned(), reason: error.to_string() }
        })?;
        // As the library's own lines: a peer that is cut off must be noticed.
        let endpoint = endpoint
            .connect_timeout(Duration::from_secs(1))
            .tcp_nodelay(true)
            .http2_keep_alive_interval(Duration::from_secs(2))
            .keep_alive_timeout(Duration::from_secs(2))
            .keep_alive_while_idle(true);
        Ok(Line::new(endpoint.connect_lazy().map_err(LineError::new)))
    }
}

/// The address of a peer's machine.
pub(super) fn host(id: u64) -> String {
    format!("10.77.0.{id}")
}

fn ip(arguments: &str) {
    let done = Command::new("ip").args(arguments.split(' ')).status().expect("run ip");
    assert!(done.success(), "ip {arguments}");
}
