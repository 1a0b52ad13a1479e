//! The real ports keep their contracts.

use crate::harness::open;
use atelier_peer::ports::contract;
use atelier_peer::real::{SystemClock, SystemEntropy, TonicDial};
use atelier_peer::storage::MemoryStore;
use std::path::Path;

#[tokio::test]
async fn the_clock_keeps_its_contract() {
    contract::clock(&SystemClock::new()).await;
}

#[test]
fn the_entropy_keeps_its_contract() {
    contract::entropy(&SystemEntropy::open().expect("a source of entropy"));
}

#[tokio::test]
async fn the_dialler_keeps_its_contract() {
    contract::dial(&TonicDial);
}

#[test]
fn the_store_keeps_its_contract() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    contract::store(|before| {
        drop(before);
        open(directory.path())
    });
    assert_no_blobs(directory.path());
}

#[test]
fn the_store_in_memory_keeps_its_contract() {
    let memory = MemoryStore::new();
    contract::store(|before: Option<MemoryStore>| {
        before.map_or(memory.clone(), |it| it.after_crash())
    });
}

/// A blob is never synced by sled: see `SledStore`.
pub(crate) fn assert_no_blobs(directory: &Path) {
    for tree in ["log", "state"] {
        let tree = directory.join(tree);
        let entries = std::fs::read_dir(&tree).expect("list");
        let generations = entries.map(|entry| entry.expect("list").path()).chain([tree.clone()]);
        for blobs in generations.map(|at| at.join("blobs")).filter(|blobs| blobs.exists()) {
            let count = std::fs::read_dir(&blobs).expect("list blobs").count();
            assert_eq!(count, 0, "{} has files", blobs.display());
        }
    }
}
