//! Where the demo's cluster lives: directory, ports, configuration of each peer.
//!
//! A cluster remembers its members by address, so its data belong to its ports: each block of
//! ports has a directory of its own below the demo's, and a second run finds the same cluster as
//! long as the same ports are free.

use std::fmt::Write as _;
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail, ensure};

use super::super::args::DemoArgs;

/// From one peer's ports to the next one's.
const STRIDE: u16 = 10;
/// So many blocks are tried before giving up.
const BLOCKS_MAX: u16 = 100;
/// Longest name of a picture, without its seed.
const SLUG_CHARS_MAX: usize = 60;

/// A cluster's place on this machine.
#[derive(Debug)]
pub(super) struct Layout {
    /// Where pictures go.
    pub(super) directory: PathBuf,
    /// Where configuration, logs and data go.
    pub(super) cluster: PathBuf,
    pub(super) atelierd: PathBuf,
    pub(super) nodes: Vec<Node>,
    asked_port: u16,
    base_port: u16,
    resumed: bool,
}

/// One peer's place.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) id: u64,
    pub(super) http_port: u16,
    pub(super) grpc_port: u16,
    pub(super) config: PathBuf,
    pub(super) log: PathBuf,
    data: PathBuf,
}

impl Layout {
    /// Chooses ports, makes directories and writes the configuration files.
    pub(super) fn prepare(args: &DemoArgs, atelierd: PathBuf) -> anyhow::Result<Self> {
        let model = args
            .model
            .canonicalize()
            .with_context(|| format!("cannot open the model {}", args.model.display()))?;
        let base_port = free_block(args.base_port, args.peers)?;
        let cluster = args.directory.join(base_port.to_string());
        std::fs::create_dir_all(&cluster)
            .with_context(|| format!("cannot make the directory {}", cluster.display()))?;
        let cluster = cluster.canonicalize()?;
        let nodes: Vec<_> = (0..args.peers).map(|at| node(&cluster, base_port, at)).collect();
        let resumed = nodes.first().is_some_and(|node| node.data.exists());
        let more = node(&cluster, base_port, args.peers).config;
        ensure!(
            !more.exists() && (!resumed || nodes.iter().all(|node| node.config.exists())),
            "{} holds a cluster of another size than {}; give the same --peers as before, or \
             another --directory",
            cluster.display(),
            args.peers
        );
        for node in &nodes {
            std::fs::write(&node.config, config(node, &nodes, &model))
                .with_context(|| format!("cannot write {}", node.config.display()))?;
        }
        let directory = args.directory.clone();
        let asked_port = args.base_port;
        Ok(Self { directory, cluster, atelierd, nodes, asked_port, base_port, resumed })
    }

    /// What a person should know about the choice.
    pub(super) fn note(&self) -> Option<String> {
        let Self { asked_port, base_port, .. } = self;
        match (asked_port == base_port, self.resumed) {
            (true, false) => None,
            (true, true) => {
                Some(format!("going on with the cluster in {}", self.cluster.display()))
            }
            (false, _) => Some(format!(
                "a port from {asked_port} on is busy; using {base_port} and the following"
            )),
        }
    }

    pub(super) fn endpoints(&self) -> Vec<String> {
        self.nodes.iter().map(Node::address).collect()
    }

    /// The picture's file, named after what it shows.
    pub(super) fn picture(&self, prompt: &str, seed: u64) -> PathBuf {
        self.directory.join(format!("{}-{seed}.png", slug(prompt)))
    }
}

impl Node {
    /// What clients and peers dial.
    pub(super) fn address(&self) -> String {
        format!("http://{}:{}", Ipv4Addr::LOCALHOST, self.grpc_port)
    }
}

fn node(cluster: &Path, base_port: u16, at: u16) -> Node {
    let id = u64::from(at) + 1;
    let http_port = base_port + at * STRIDE;
    Node {
        id,
        http_port,
        grpc_port: http_port + 1,
        config: cluster.join(format!("peer-{id}.toml")),
        log: cluster.join(format!("peer-{id}.log")),
        data: cluster.join(format!("peer-{id}")),
    }
}

/// The first block of ports from `base` on that is free from end to end.
fn free_block(base: u16, peers: u16) -> anyhow::Result<u16> {
    let block = peers * STRIDE;
    let mut start = base;
    for _ in 0..BLOCKS_MAX {
        let ports = (0..peers).flat_map(|at| [start + at * STRIDE, start + at * STRIDE + 1]);
        if ports.into_iter().all(is_free) {
            return Ok(start);
        }
        match start.checked_add(block).filter(|next| u16::MAX - next > block) {
            Some(next) => start = next,
            None => break,
        }
    }
    bail!("no free block of ports for {peers} peers from {base} on; choose another --base-port")
}

/// A wildcard listener makes a port busy too, so both are tried.
fn is_free(port: u16) -> bool {
    TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok()
        && TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).is_ok()
}

/// The file for `atelierd start --config`; `atelierd start --print-config` explains each key.
fn config(node: &Node, nodes: &[Node], model: &Path) -> String {
    let mut text = String::from("# Written by `atelier demo` at each start.\n");
    let mut line = |words: String| {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{words}");
    };
    line(format!("node = {}", node.id));
    line("cluster = \"demo\"".to_owned());
    line(format!("data = {}", quoted(&node.data)));
    line("peers = [".to_owned());
    for peer in nodes {
        line(format!("  {{ id = {}, address = \"{}\" }},", peer.id, peer.address()));
    }
    line("]\n\n[listen]".to_owned());
    line(format!("http = \"{}:{}\"", Ipv4Addr::LOCALHOST, node.http_port));
    line(format!("grpc = \"{}:{}\"", Ipv4Addr::LOCALHOST, node.grpc_port));
    line("\n[engine]".to_owned());
    line(format!("model = {}", quoted(model)));
    text
}

/// A path as a TOML string; a JSON string of it is one.
fn quoted(path: &Path) -> String {
    serde_json::Value::from(path.to_string_lossy()).to_string()
}

/// Letters and digits of any script, words joined by a dash.
fn slug(prompt: &str) -> String {
    let mut slug = String::new();
    for letter in prompt.chars().take(SLUG_CHARS_MAX) {
        if letter.is_alphanumeric() {
            slug.extend(letter.to_lowercase());
        } else if !slug.is_empty() && !slug.ends_with('-') {
            slug.push('-');
        }
    }
    let slug = slug.trim_end_matches('-');
    if slug.is_empty() { "picture".to_owned() } else { slug.to_owned() }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that panics has failed")]
mod tests {
    use super::*;

    #[test]
    fn a_busy_block_is_passed_over() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let busy = listener.local_addr().unwrap().port();
        if busy < u16::MAX - 200 {
            let free = free_block(busy - 1, 1).unwrap();
            assert!(free > busy, "{free} holds {busy}");
        }
    }

    #[test]
    fn pictures_are_named_after_their_prompt() {
        assert_eq!(slug("A cat, on a blue background!"), "a-cat-on-a-blue-background");
        assert_eq!(slug("蓝色背景上的猫"), "蓝色背景上的猫");
        assert_eq!(slug("../.."), "picture");
    }

    #[test]
    fn the_configuration_names_all_peers() {
        let nodes: Vec<_> = (0..2).map(|at| node(Path::new("/d/7860"), 7860, at)).collect();
        let text = config(&nodes[1], &nodes, Path::new("/m\"odel"));
        let expected = "\
# Written by `atelier demo` at each start.
node = 2
cluster = \"demo\"
data = \"/d/7860/peer-2\"
peers = [
  { id = 1, address = \"http://127.0.0.1:7861\" },
  { id = 2, address = \"http://127.0.0.1:7871\" },
]

[listen]
http = \"127.0.0.1:7870\"
grpc = \"127.0.0.1:7871\"

[engine]
model = \"/m\\\"odel\"
";
        assert_eq!(text, expected);
    }
}
