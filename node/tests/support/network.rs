//! A network of its own for every peer: one namespace a peer, joined by a bridge, so that a peer can be cut
//! off without being stopped. Needs root, `ip`, `unshare` and `nft`.
//!
//! Everything is made inside a namespace that the calling process enters first, so that nothing of the
//! machine's own network changes. The names that `ip` keeps are removed with the value.

use std::ffi::OsStr;
use std::process::Command;

/// Set in the process that runs inside of the namespace.
const INSIDE: &str = "INSIDE_TEST_NETWORK";

/// Namespaces of the peers 1 to n, each with its own address.
#[derive(Debug)]
pub struct Network {
    names: Vec<String>,
}

/// Runs this program again inside a network namespace and returns its success; `None` where it already
/// is inside. `Err` says why this machine cannot.
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
    let program = std::env::current_exe().map_err(|error| error.to_string())?;
    let status = Command::new("unshare")
        .args(["--net", "--"])
        .arg(program)
        .args(std::env::args_os().skip(1))
        .env(INSIDE, "1")
        .status();
    status.map(|status| Some(status.success())).map_err(|error| format!("unshare: {error}"))
}

impl Network {
    /// Makes the namespaces. The caller is inside of one already, see `enter`.
    pub fn new(peers: u64) -> Network {
        assert!(std::env::var_os(INSIDE).is_some(), "call `enter` first");
        ip("link set lo up");
        ip("link add hub type bridge");
        ip("addr add 10.77.0.254/24 dev hub");
        ip("link set hub up");
        let mut network = Network { names: Vec::new() };
        for id in 1..=peers {
            let name = format!("atelier-{}-{id}", std::process::id());
            ip(&format!("netns add {name}"));
            network.names.push(name.clone());
            ip(&format!("link add v{id} type veth peer name eth0 netns {name}"));
            ip(&format!("link set v{id} master hub up"));
            ip(&format!("-n {name} link set lo up"));
            ip(&format!("-n {name} addr add {}/24 dev eth0", Network::host(id)));
            ip(&format!("-n {name} link set eth0 up"));
        }
        network
    }

    /// The address of a peer.
    pub fn host(id: u64) -> String {
        format!("10.77.0.{id}")
    }

    /// A command that will run in a peer's namespace, under its own pid.
    pub fn command(&self, id: u64, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", self.name(id)]).arg(program);
        command
    }

    /// Drops every packet from and to a peer, without telling anybody.
    pub fn cut(&self, id: u64) {
        self.nft(
            id,
            "table inet cut { chain in { type filter hook input priority 0; policy drop; }; \
             chain out { type filter hook output priority 0; policy drop; }; }",
        );
    }

    /// Lets the packets of a peer pass again.
    pub fn heal(&self, id: u64) {
        self.nft(id, "delete table inet cut");
    }

    fn nft(&self, id: u64, rules: &str) {
        let done = self.command(id, "nft").arg(rules).status().expect("run nft");
        assert!(done.success(), "nft {rules}");
    }

    fn name(&self, id: u64) -> &str {
        &self.names[usize::try_from(id).expect("a small number") - 1]
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        for name in &self.names {
            let _ = Command::new("ip").args(["netns", "delete", name]).status();
        }
    }
}

fn ip(arguments: &str) {
    let done = Command::new("ip").args(arguments.split(' ')).status().expect("run ip");
    assert!(done.success(), "ip {arguments}");
}
