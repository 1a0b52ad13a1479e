//! The tree's one-way edges, read from `cargo metadata`. A new edge is a change of architecture:
//! it needs a reason in the commit that adds it here.

use cargo_metadata::{DependencyKind, MetadataCommand, Package};
use std::collections::BTreeSet;
use std::process::Command;

/// Every edge between the workspace's packages, and no other. Source: node/README.md, "Code map".
const EDGES: [(&str, &str); 9] = [
    ("atelier-client", "atelier-proto"),
    ("atelier-node", "atelier-diffusion"),
    ("atelier-node", "atelier-peer"),
    ("atelier-peer", "atelier-proto"),
    ("atelier-peer", "atelier-state"),
    ("atelier-simulation", "atelier-client"),
    ("atelier-simulation", "atelier-peer"),
    ("atelier-simulation", "atelier-state"),
    // For tests alone: the end-to-end tests drive the real daemon with the real client.
    ("atelier-node (tests)", "atelier-client"),
];

fn metadata() -> cargo_metadata::Metadata {
    MetadataCommand::new()
        .manifest_path(concat!(env!("CARGO_MANIFEST_DIR"), "/../Cargo.toml"))
        .no_deps()
        .exec()
        .expect("cargo metadata reads the workspace")
}

fn edges_of(package: &Package, members: &BTreeSet<String>) -> BTreeSet<(String, String)> {
    package
        .dependencies
        .iter()
        .filter(|dependency| members.contains(dependency.name.as_str()))
        .map(|dependency| {
            let from = match dependency.kind {
                DependencyKind::Development => format!("{} (tests)", package.name),
                _ => package.name.to_string(),
            };
            (from, dependency.name.to_string())
        })
        .collect()
}

#[test]
fn the_workspace_has_the_allowed_edges_and_no_other() {
    let metadata = metadata();
    let packages = metadata.workspace_packages();
    let members: BTreeSet<String> = packages.iter().map(|p| p.name.to_string()).collect();
    assert_eq!(members.len(), 7, "the seven crates of the tree: {members:?}");

    let found: BTreeSet<(String, String)> =
        packages.iter().flat_map(|package| edges_of(package, &members)).collect();
    let allowed: BTreeSet<(String, String)> =
        EDGES.iter().map(|(from, to)| (from.to_string(), to.to_string())).collect();

    let forbidden: Vec<_> = found.difference(&allowed).collect();
    assert!(forbidden.is_empty(), "edges that the tree does not allow: {forbidden:?}");
    let stale: Vec<_> = allowed.difference(&found).collect();
    assert!(stale.is_empty(), "allowed edges that nothing uses: {stale:?}; delete them");
}

/// Names of all packages that `root` reaches by ordinary and build dependencies, built by itself.
///
/// `cargo tree` and not the metadata: there the features that other members ask for are mixed in.
fn reach(root: &str) -> BTreeSet<String> {
    let tree = Command::new(env!("CARGO"))
        .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
        .args(["tree", "--locked", "--package", root, "--edges", "normal,build"])
        .args(["--prefix", "none", "--format", "{p}"])
        .output()
        .expect("cargo runs");
    assert!(tree.status.success(), "{}", String::from_utf8_lossy(&tree.stderr));
    let lines = String::from_utf8(tree.stdout).expect("package names are UTF-8");
    lines.lines().filter_map(|line| line.split_whitespace().next()).map(str::to_owned).collect()
}

#[test]
fn the_cluster_and_its_simulation_cannot_reach_burn() {
    for root in ["atelier-simulation", "atelier-peer", "atelier-client", "atelier-state"] {
        let reached = reach(root);
        let burnt: Vec<_> = reached
            .iter()
            .filter(|name| name.starts_with("burn") || name.starts_with("cubecl"))
            .collect();
        assert!(burnt.is_empty(), "{root} reaches {burnt:?}");
    }
}

#[test]
fn the_model_has_no_word_of_the_cluster() {
    let reached = reach("atelier-diffusion");
    for cluster in ["atelier-state", "atelier-peer", "atelier-proto", "tokio", "tonic", "openraft"]
    {
        assert!(!reached.contains(cluster), "atelier-diffusion reaches {cluster}");
    }
    assert!(
        reached.contains("burn"),
        "the walk finds burn where it is, so it can find it elsewhere"
    );
}

#[test]
fn the_state_reaches_nothing_that_does_io() {
    let reached = reach("atelier-state");
    for effect in ["tokio", "sled", "tonic", "prost", "getrandom"] {
        assert!(!reached.contains(effect), "atelier-state reaches {effect}");
    }
}
