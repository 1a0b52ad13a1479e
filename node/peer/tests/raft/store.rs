//! The store against a map in memory, and what damage does.

use crate::harness::{open, open_with};
use crate::ports::assert_no_blobs;
use atelier_peer::ports::{Batch, Store, Tree};
use atelier_peer::storage::snapshots::Snapshots;
use atelier_peer::storage::{OpenError, RewriteBounds, SledStore};
use bytes::Bytes;
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

#[derive(Clone, Debug)]
enum Op {
    Write(Vec<(u8, Option<usize>)>),
    Scan(u8, u8, usize),
    Reopen,
}

fn op() -> impl Strategy<Value = Op> {
    let size = prop_oneof![4 => 0..200_usize, 2 => 4000..4200_usize, 1 => 0..=65_536_usize];
    let change = (0..24_u8, proptest::option::weighted(0.75, size));
    prop_oneof![
        8 => proptest::collection::vec(change, 0..12).prop_map(Op::Write),
        2 => (0..26_u8, 0..26_u8, 0..30_usize).prop_map(|(a, b, limit)| Op::Scan(a, b, limit)),
        1 => Just(Op::Reopen),
    ]
}

fn key(number: u8) -> Vec<u8> {
    // Some keys begin others.
    vec![b'k'; 1 + usize::from(number % 5)].into_iter().chain([number]).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]
    #[test]
    fn the_store_is_a_map(ops in proptest::collection::vec(op(), 1..40)) {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let mut store = open(directory.path());
        let mut oracle: BTreeMap<Bytes, Bytes> = BTreeMap::new();
        for (turn, op) in ops.into_iter().enumerate() {
            match op {
                Op::Write(changes) => {
                    let mut batch = Batch::new();
                    for (number, size) in changes {
                        let key = Bytes::from(key(number));
                        match size {
                            Some(size) => {
                                let value = Bytes::from(vec![turn as u8; size]);
                                batch.set(key.clone(), value.clone());
                                oracle.insert(key, value);
                            }
                            None => {
                                batch.remove(key.clone());
                                oracle.remove(&key);
                            }
                        }
                    }
                    store.write(Tree::Log, batch).expect("write");
                }
                Op::Scan(from, below, limit) => {
                    let (from, below) = (Bytes::from(key(from)), Bytes::from(key(below)));
                    let found = store.scan(Tree::Log, &from, &below, limit).expect("scan");
                    let expected: Vec<_> = oracle
                        .iter()
                        .filter(|(key, _)| **key >= from && **key < below)
                        .take(limit)
                        .map(|(key, value)| (key.clone(), value.clone()))
                        .collect();
                    prop_assert_eq!(found, expected);
                }
                Op::Reopen => {
                    drop(store);
                    store = open(directory.path());
                }
            }
        }
        let all = store.scan(Tree::Log, b"", &[0xff; 8], usize::MAX).expect("scan");
        prop_assert_eq!(all, oracle.into_iter().collect::<Vec<_>>());
        assert_no_blobs(directory.path());
    }
}

/// Entries of the largest size, one leaf of sled's after another, purged behind: no page may leave the log file.
#[test]
fn the_largest_values_make_no_blobs() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let store = open(directory.path());
    for index in 0..200_u64 {
        let mut batch = Batch::new();
        batch.set(index.to_be_bytes().to_vec(), vec![index as u8; 48 * 1024]);
        if let Some(old) = index.checked_sub(40) {
            batch.remove(old.to_be_bytes().to_vec());
        }
        store.write(Tree::Log, batch).expect("write");
    }
    assert_no_blobs(directory.path());
    let bytes = store.bytes_on_disk(Tree::Log).expect("bytes_on_disk");
    println!("40 live values of 48 KiB, 200 written: {} KiB on the disk", bytes / 1024);
}

/// Each snapshot is written beside the one before, which is then removed: the space must come back.
#[test]
fn snapshots_do_not_fill_the_disk() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let store = open(directory.path());
    let (mut snapshots, _) = Snapshots::load(&store).expect("load");
    let mut sizes = Vec::new();
    for round in 0..24_u8 {
        let bytes = Bytes::from(vec![round; 400_000]);
        snapshots.save(&store, &bytes).expect("save");
        sizes.push(store.bytes_on_disk(Tree::State).expect("bytes_on_disk") / 1024);
    }
    println!("KiB on the disk after each snapshot of 390 KiB: {sizes:?}");
    assert!(sizes[23] <= 2 * sizes[11], "it grows and grows");
    assert_no_blobs(directory.path());
}

/// Bounds that a test reaches.
const SMALL: RewriteBounds = RewriteBounds { bytes_min: 2 * 1024 * 1024, factor: 2 };

/// Fills a tree, removes all but a little, and writes until the tree was written anew.
fn grown_and_written_anew(directory: &Path) -> SledStore {
    let store = open_with(directory, SMALL);
    for index in 0..600_u64 {
        let mut batch = Batch::new();
        batch.set(index.to_be_bytes().to_vec(), vec![index as u8; 20_000]);
        if let Some(old) = index.checked_sub(10) {
            batch.remove(old.to_be_bytes().to_vec());
        }
        store.write(Tree::Log, batch).expect("write");
    }
    assert!(directory.join("log/CURRENT").exists(), "it was not written anew");
    store
}

fn all(store: &SledStore) -> Vec<(Bytes, Bytes)> {
    store.scan(Tree::Log, b"", &[0xff; 2], usize::MAX).expect("scan")
}

#[test]
fn a_tree_that_has_grown_is_written_anew_and_holds_the_same() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let store = grown_and_written_anew(directory.path());
    let pairs = all(&store);
    assert_eq!(pairs.len(), 10);
    for ((key, value), index) in pairs.iter().zip(590_u64..) {
        assert_eq!((&key[..], &value[..]), (&index.to_be_bytes()[..], &[index as u8; 20_000][..]));
    }
    let bytes = store.bytes_on_disk(Tree::Log).expect("bytes_on_disk");
    println!("12,000,000 bytes written, 200,000 live: {bytes} on the disk");
    assert!(bytes <= 2 * SMALL.bytes_min);
    assert!(!directory.path().join("log/db").exists(), "the old one takes no space any more");
    drop(store);
    assert_eq!(all(&open(directory.path())), pairs);
}

/// What crashes in the middle of a switch leave, put together by hand.
#[test]
fn a_crash_leaves_the_old_generation_or_the_new_one() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let pairs = all(&grown_and_written_anew(directory.path()));
    let log = directory.path().join("log");
    let number = fs::read_to_string(log.join("CURRENT")).expect("read");
    let next = log.join("generation-77");
    let old = [log.join("db"), log.join("conf"), log.join("snap.1")];

    // Before the switch: a copy that is not finished. After it: an old one that is not gone.
    fs::create_dir_all(next.join("blobs")).expect("mkdir");
    fs::write(next.join("db"), b"half").expect("write");
    fs::write(log.join("CURRENT.unfinished"), b"gener").expect("write");
    for path in &old {
        fs::write(path, b"half gone").expect("write");
    }
    let store = open(directory.path());
    assert_eq!(all(&store), pairs);
    assert_eq!(fs::read_to_string(log.join("CURRENT")).expect("read"), number);
    assert!(!next.exists() && old.iter().all(|path| !path.exists()), "leftovers are removed");
}

#[test]
fn a_tree_whose_current_generation_is_unknown_is_refused() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    drop(grown_and_written_anew(directory.path()));
    let current = directory.path().join("log/CURRENT");
    let whole = fs::read(&current).expect("read");
    let refused = || {
        let error = SledStore::open(directory.path()).err().expect("it is damaged");
        assert!(matches!(error, OpenError::Corrupt { .. }), "{error}");
        assert!(error.to_string().contains("`CURRENT`"), "{error}");
    };
    fs::write(&current, &whole[..7]).expect("cut");
    refused();
    fs::remove_file(&current).expect("remove");
    refused();
    fs::write(&current, whole).expect("write");
    assert_eq!(all(&open(directory.path())).len(), 10, "nothing was deleted meanwhile");
}

#[test]
fn a_snapshot_that_sled_did_not_finish_is_removed() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    write_one(&open(directory.path()));
    let unfinished = directory.path().join("log/snap.000000000000FFFF.generating");
    fs::write(&unfinished, b"half").expect("write");

    let store = open(directory.path());
    assert_eq!(store.read(Tree::Log, b"k").expect("read").as_deref(), Some(&b"v"[..]));
    assert!(!unfinished.exists());
}

#[test]
fn a_database_cut_to_nothing_is_refused() {
    for tree in Tree::ALL {
        let directory = tempfile::tempdir().expect("a temporary directory");
        write_one(&open(directory.path()));
        let database = directory.path().join(tree.to_string());
        for entry in fs::read_dir(&database).expect("list") {
            let path = entry.expect("list").path();
            if path.to_string_lossy().contains("snap.") {
                fs::remove_file(path).expect("remove");
            }
        }
        fs::write(database.join("db"), b"").expect("cut");

        let error = match SledStore::open(directory.path()) {
            Ok(_) => panic!("an empty {tree} was opened"),
            Err(error) => error,
        };
        assert!(matches!(error, OpenError::Corrupt { .. }), "{error}");
        assert!(error.to_string().contains(&tree.to_string()), "{error}");
        assert!(error.to_string().contains("join again under a new id"), "{error}");
        assert!(database.join("db").exists(), "nothing is deleted");
    }
}

#[test]
fn a_directory_in_use_is_refused() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let _first = open(directory.path());
    let error = SledStore::open(directory.path()).err().expect("it is in use");
    assert!(matches!(error, OpenError::Io { .. }), "{error}");
}

fn write_one(store: &SledStore) {
    for tree in Tree::ALL {
        let mut batch = Batch::new();
        batch.set(&b"k"[..], &b"v"[..]);
        store.write(tree, batch).expect("write");
    }
}
