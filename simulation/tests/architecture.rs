//! The tree's one-way edges, read from `cargo metadata`. A new edge is a change of architecture:
//! it needs a reason in the commit that adds it here.

use cargo_metadata::{DependencyKind, MetadataCommand, Package, PackageId};
use std::collections::{BTreeMap, BTreeSet};

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
        .other_options(["--locked".to_owned(), "--offline".to_owned()])
        .exec()
        .expect("cargo metadata reads the workspace that this test was built from")
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

/// Names of all packages that `root` reaches by ordinary and build dependencies.
fn reach(metadata: &cargo_metadata::Metadata, root: &str) -> BTreeSet<String> {
    let resolve = metadata.resolve.as_ref().expect("metadata was asked for with dependencies");
    let nodes: BTreeMap<&PackageId, _> =
        resolve.nodes.iter().map(|node| (&node.id, node)).collect();
    let start = &metadata
        .packages
        .iter()
        .find(|package| package.name.as_str() == root)
        .expect("the root is a member")
        .id;
    let mut seen = BTreeSet::new();
    let mut open = vec![start];
    while let Some(id) = open.pop() {
        if !seen.insert(id) {
            continue;
        }
        let followed = nodes[id]
            .deps
            .iter()
            .filter(|dep| dep.dep_kinds.iter().any(|k| k.kind != DependencyKind::Development));
        open.extend(followed.map(|dep| &dep.pkg));
    }
    metadata.packages.iter().filter(|p| seen.contains(&p.id)).map(|p| p.name.to_string()).collect()
}

#[test]
fn the_cluster_and_its_simulation_cannot_reach_burn() {
    let metadata = metadata();
    for root in ["atelier-simulation", "atelier-peer", "atelier-client", "atelier-state"] {
        let reached = reach(&metadata, root);
        let burnt: Vec<_> = reached
            .iter()
            .filter(|name| name.starts_with("burn") || name.starts_with("cubecl"))
            .collect();
        assert!(burnt.is_empty(), "{root} reaches {burnt:?}");
    }
}

#[test]
fn the_model_has_no_word_of_the_cluster() {
    let metadata = metadata();
    let reached = reach(&metadata, "atelier-diffusion");
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
    let metadata = metadata();
    let reached = reach(&metadata, "atelier-state");
    for effect in ["tokio", "sled", "tonic", "prost", "getrandom"] {
        assert!(!reached.contains(effect), "atelier-state reaches {effect}");
    }
}
