//! What each port promises, as functions that run against any implementation. They panic where a promise is broken.

use super::{Batch, Clock, Dial, Entropy, Purpose, Store, StoreError, Tree};
use bytes::Bytes;
use std::collections::BTreeMap;
use std::time::Duration;

/// Checks a clock. It needs an async runtime with time, real or simulated.
pub async fn clock(clock: &impl Clock) {
    let mut last = clock.now();
    for _ in 0..1000 {
        let now = clock.now();
        assert!(now >= last, "now went back from {last:?} to {now:?}");
        last = now;
    }

    let wait = Duration::from_millis(20);
    clock.sleep(wait).await;
    assert!(clock.now() >= last + wait, "sleep returned too early");

    clock.sleep(Duration::ZERO).await;
    // 2020-01-01; a clock that was never set would show 1970.
    assert!(clock.wall_ms() > 1_577_836_800_000, "wall time is before 2020");
}

/// Checks a source of entropy.
pub fn entropy(entropy: &impl Entropy) {
    entropy.fill(&mut []);
    let mut draws = std::collections::BTreeSet::new();
    for _ in 0..64 {
        let mut draw = [0; 16];
        entropy.fill(&mut draw);
        assert!(draws.insert(draw), "16 random bytes came twice");
    }
    let mut long = [0; 4096];
    entropy.fill(&mut long);
    assert!(
        long.chunks(16).all(|chunk| chunk.iter().any(|byte| *byte != 0)),
        "a part was not filled"
    );
}

/// Checks a dialler as far as that goes without a peer: good addresses give a channel at once, bad ones are named.
/// It needs an async runtime.
pub fn dial(dial: &impl Dial) {
    for purpose in
        [Purpose::Election, Purpose::Append, Purpose::Snapshot, Purpose::Control, Purpose::Artifact]
    {
        // A reserved address: nobody answers, and that is no error yet.
        dial.line("http://192.0.2.1:7861", purpose).expect("an address gives a line");
        for bad in ["", "not an address", "http://", "ftp://host:1"] {
            let error = dial.line(bad, purpose).expect_err("nonsense is refused");
            assert!(error.to_string().contains(bad), "{error} names what was asked for");
        }
    }
}

/// Checks a store. `reopen` closes the store without a farewell and opens it again at the same place.
pub fn store<S: Store>(mut reopen: impl FnMut(Option<S>) -> S) {
    let mut at = reopen(None);
    for tree in Tree::ALL {
        starts_empty(&at, tree);
        keeps_what_was_written(&at, tree);
        at = reopen(Some(at));
        shows_it_after_reopening(&at, tree);
        replaces_values_of_every_size(&at, tree);
        at = reopen(Some(at));
        refuses_what_is_too_large(&at, tree);
        scans_in_order(&at, tree);
        assert!(at.bytes_on_disk(tree).expect("bytes_on_disk") > 0);
        assert!(!at.place(tree).is_empty());
    }
    trees_are_apart(&at);
}

fn starts_empty(store: &impl Store, tree: Tree) {
    assert_eq!(store.read(tree, b"a").expect("read"), None);
    assert_eq!(store.scan(tree, b"", b"\xff", 10).expect("scan"), Vec::new());
    store.write(tree, Batch::new()).expect("an empty batch is fine");
}

fn keeps_what_was_written(store: &impl Store, tree: Tree) {
    let mut batch = Batch::new();
    batch.set(&b"a"[..], &b"1"[..]);
    batch.set(&b"b"[..], &b"2"[..]);
    batch.remove(&b"b"[..]);
    batch.remove(&b"c"[..]);
    batch.set(&b"c"[..], &b"3"[..]);
    batch.set(&b"empty"[..], &b""[..]);
    store.write(tree, batch).expect("write");
    shows_it_after_reopening(store, tree);
}

fn shows_it_after_reopening(store: &impl Store, tree: Tree) {
    let read = |key: &[u8]| store.read(tree, key).expect("read");
    assert_eq!(read(b"a").as_deref(), Some(&b"1"[..]));
    assert_eq!(read(b"b"), None, "the later change of a key wins");
    assert_eq!(read(b"c").as_deref(), Some(&b"3"[..]), "the later change of a key wins");
    assert_eq!(read(b"empty").as_deref(), Some(&b""[..]));
}

fn replaces_values_of_every_size(store: &impl Store, tree: Tree) {
    let sizes = [super::store::VALUE_BYTES_MAX, 1, 40_000, 0, 4096, 4095, 4097, 8192, 3];
    for (turn, size) in sizes.into_iter().enumerate() {
        let value: Bytes = (0..size).map(|i| (i * 31 + turn) as u8).collect();
        let mut batch = Batch::new();
        batch.set(&b"sized"[..], value.clone());
        store.write(tree, batch).expect("write");
        assert_eq!(store.read(tree, b"sized").expect("read"), Some(value.clone()));
        let scanned = store.scan(tree, b"sized", b"sizee", 10).expect("scan");
        assert_eq!(scanned, [(Bytes::from_static(b"sized"), value)]);
    }
    let mut batch = Batch::new();
    batch.set(&b"sized"[..], vec![7; 50_000]);
    batch.remove(&b"sized"[..]);
    store.write(tree, batch).expect("write");
    assert_eq!(store.scan(tree, b"sized", b"sizee", 10).expect("scan"), Vec::new());
}

fn refuses_what_is_too_large(store: &impl Store, tree: Tree) {
    let (key_max, value_max) = (super::store::KEY_BYTES_MAX, super::store::VALUE_BYTES_MAX);
    for (key, value) in [(1, value_max + 1), (key_max + 1, 1)] {
        let mut batch = Batch::new();
        batch.set(&b"beside"[..], &b"1"[..]);
        batch.set(vec![b'k'; key], vec![0; value]);
        let error = store.write(tree, batch).expect_err("too large");
        assert!(matches!(error, StoreError::Size { .. }), "{error}");
    }
    assert_eq!(store.read(tree, b"beside").expect("read"), None, "a refused batch does nothing");
    let mut batch = Batch::new();
    batch.set(vec![b'k'; key_max], vec![0; value_max]);
    store.write(tree, batch).expect("the bounds themselves fit, and the store works on");
    let mut batch = Batch::new();
    batch.remove(vec![b'k'; key_max]);
    store.write(tree, batch).expect("write");
}

fn scans_in_order(store: &impl Store, tree: Tree) {
    let mut expected = BTreeMap::new();
    let mut batch = Batch::new();
    for i in (0..300_u64).rev() {
        let key = [&b"n"[..], &i.to_be_bytes()].concat();
        let value = vec![i as u8; (i as usize % 7) * 1500];
        batch.set(key.clone(), value.clone());
        expected.insert(Bytes::from(key), Bytes::from(value));
    }
    store.write(tree, batch).expect("write");
    let all: Vec<_> = expected.into_iter().collect();
    assert_eq!(store.scan(tree, b"n", b"o", usize::MAX).expect("scan"), all);
    assert_eq!(store.scan(tree, b"n", b"o", 7).expect("scan"), all[..7]);
    assert_eq!(store.scan(tree, &all[10].0, &all[20].0, 100).expect("scan"), all[10..20]);
    assert_eq!(store.scan(tree, &all[10].0, &all[10].0, 100).expect("scan"), []);
}

fn trees_are_apart(store: &impl Store) {
    let mut batch = Batch::new();
    batch.set(&b"only in log"[..], &b"1"[..]);
    store.write(Tree::Log, batch).expect("write");
    assert_eq!(store.read(Tree::State, b"only in log").expect("read"), None);
}
