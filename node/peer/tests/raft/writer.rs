//! The log's thread: what it writes together, and how it purges; and snapshots over crashes.

use atelier_peer::ports::{Batch, Store, StoreError, Tree};
use atelier_peer::storage::MemoryStore;
use atelier_peer::storage::log::{self, Extent, Hard, LogWriter};
use atelier_peer::storage::snapshots::Snapshots;
use bytes::Bytes;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex};
use tokio::sync::oneshot;

type Answer = oneshot::Receiver<Result<(), StoreError>>;

async fn append(writer: &LogWriter, indexes: std::ops::Range<u64>) -> Answer {
    let entries = indexes.map(|index| (index, Bytes::from(index.to_be_bytes().to_vec()))).collect();
    let (done, answer) = oneshot::channel();
    writer.append(entries, Box::new(|result| drop(done.send(result)))).await;
    answer
}

/// A store whose writes wait for a permit.
struct Gated {
    store: MemoryStore,
    entered: SyncSender<()>,
    permits: Mutex<Receiver<()>>,
}

impl Store for Gated {
    fn read(&self, tree: Tree, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        self.store.read(tree, key)
    }

    fn scan(
        &self,
        tree: Tree,
        from: &[u8],
        below: &[u8],
        limit: usize,
    ) -> Result<Vec<(Bytes, Bytes)>, StoreError> {
        self.store.scan(tree, from, below, limit)
    }

    fn write(&self, tree: Tree, batch: Batch) -> Result<(), StoreError> {
        // Without anybody to ask, there is nothing to wait for.
        let _ = self.entered.send(());
        let _ = self.permits.lock().expect("no panic").recv();
        self.store.write(tree, batch)
    }

    fn bytes_on_disk(&self, tree: Tree) -> Result<u64, StoreError> {
        self.store.bytes_on_disk(tree)
    }

    fn place(&self, tree: Tree) -> String {
        self.store.place(tree)
    }
}

#[tokio::test]
async fn one_write_serves_all_that_wait() {
    let (entered, enters) = sync_channel(1000);
    let (permit, permits) = sync_channel(1000);
    let store = MemoryStore::new();
    let gated = Gated { store: store.clone(), entered, permits: Mutex::new(permits) };
    let (writer, thread) = LogWriter::start(Arc::new(gated), Extent::default()).expect("start");

    let first = append(&writer, 0..1).await;
    enters.recv().expect("the first write has begun");
    let mut waiting = Vec::new();
    for index in 1..=50 {
        waiting.push(append(&writer, index..index + 1).await);
    }
    assert!(waiting.iter_mut().all(|answer| answer.try_recv().is_err()), "not durable, not done");
    permit.send(()).expect("permit");
    first.await.expect("answer").expect("durable");
    permit.send(()).expect("permit");
    for answer in waiting {
        answer.await.expect("answer").expect("durable");
    }
    assert_eq!(store.writes().len(), 2, "fifty appends share a write");
    drop((writer, permit));
    thread.join().expect("the thread ends");
}

#[tokio::test]
async fn a_purge_goes_behind_appends_in_slices() {
    let (entered, enters) = sync_channel(1000);
    let (permit, permits) = sync_channel(1000);
    let store = MemoryStore::new();
    let gated = Gated { store: store.clone(), entered, permits: Mutex::new(permits) };
    let (writer, thread) = LogWriter::start(Arc::new(gated), Extent::default()).expect("start");
    let first = append(&writer, 0..6000).await;
    enters.recv().expect("the write has begun");
    writer.purge(4999, Bytes::from_static(b"marker")).await;
    permit.send(()).expect("permit");
    first.await.expect("answer").expect("durable");

    for index in 6000..6010 {
        // A write of the purge is under way; the append is in the very next one.
        enters.recv().expect("a write has begun");
        let answer = append(&writer, index..index + 1).await;
        permit.send(()).expect("permit");
        enters.recv().expect("a write has begun");
        permit.send(()).expect("permit");
        answer.await.expect("answer").expect("durable");
    }
    drop((writer, permit));
    thread.join().expect("the thread ends");

    let writes = store.writes();
    assert!(writes.len() > 20);
    for (_, batch) in &writes[1..] {
        let removed = batch.changes().filter(|(_, value)| value.is_none()).count();
        assert!(removed <= 256, "{removed} keys are removed at once");
        let appended = batch.changes().any(|(key, value)| key[0] == b'e' && value.is_some());
        assert!(!appended || removed <= 64, "{removed} keys are removed behind an append");
    }
}

#[tokio::test]
async fn a_purge_that_a_crash_cut_short_is_ended_at_the_next_start() {
    let store = MemoryStore::new();
    let (writer, _thread) =
        LogWriter::start(Arc::new(store.clone()), Extent::default()).expect("start");
    append(&writer, 0..1000).await.await.expect("answer").expect("durable");
    let marker = Bytes::from_static(b"899");
    store.fail_after(1);
    writer.purge(899, marker.clone()).await;
    // The first may share the write that the disk still takes.
    let _ = writer.put(Hard::Vote, Bytes::new()).await;
    let error = writer.put(Hard::Vote, Bytes::new()).await.expect_err("the disk fails");
    assert!(error.to_string().contains("no space left"), "{error}");
    let error = writer.put(Hard::Vote, Bytes::new()).await.expect_err("and is not tried again");
    assert!(error.to_string().contains("no space left"), "{error}");

    let store = store.after_crash();
    let image = log::load(&store).expect("load");
    assert_eq!(image.hard.get(&Hard::Purged), Some(&marker));
    let extent = image.extent(Some(899));
    assert_eq!((extent.leftover.end, extent.kept.clone()), (900, 900..1000));
    assert!(extent.leftover.start > 0 && !extent.leftover.is_empty(), "{extent:?}");
    let (writer, thread) = LogWriter::start(Arc::new(store.clone()), extent).expect("start");
    writer.put(Hard::Vote, Bytes::new()).await.expect("durable");
    while log::load(&store).expect("load").entries.len() != 100 {
        tokio::task::yield_now().await;
    }
    drop(writer);
    thread.join().expect("the thread ends");
}

#[tokio::test]
async fn what_is_committed_is_never_written_before_its_entry() {
    let (entered, enters) = sync_channel(1000);
    let (permit, permits) = sync_channel(1000);
    let store = MemoryStore::new();
    let gated = Gated { store: store.clone(), entered, permits: Mutex::new(permits) };
    let (writer, thread) = LogWriter::start(Arc::new(gated), Extent::default()).expect("start");
    let committed =
        |store: &MemoryStore| log::load(store).expect("load").hard.contains_key(&Hard::Committed);

    let first = append(&writer, 0..1).await;
    enters.recv().expect("the first write has begun");
    let second = append(&writer, 1..2).await;
    writer.note_committed(Bytes::from_static(b"1")).await;
    permit.send(()).expect("permit");
    first.await.expect("answer").expect("durable");
    assert!(!committed(&store), "entry 1 is not durable yet");
    permit.send(()).expect("permit");
    second.await.expect("answer").expect("durable");
    assert!(committed(&store));
    drop((writer, permit));
    thread.join().expect("the thread ends");
}

/// A crash after each write in turn: what is loaded is the old snapshot or the new one, whole.
#[test]
fn a_snapshot_is_replaced_whole_or_not_at_all() {
    let old = Bytes::from(vec![1; 1_000_000]);
    let new: Bytes = (0..2_500_000_u32).map(|i| (i >> 8) as u8).collect();
    let store = MemoryStore::new();
    let (mut snapshots, none) = Snapshots::load(&store).expect("load");
    assert_eq!(none, None);
    snapshots.save(&store, &old).expect("save");

    let (mut writes, mut seen_old, mut seen_new) = (0, 0, 0);
    loop {
        let store = store.after_crash();
        let (mut snapshots, _) = Snapshots::load(&store).expect("load");
        store.fail_after(writes);
        let saved = snapshots.save(&store, &new).is_ok();

        let store = store.after_crash();
        let (mut snapshots, found) = Snapshots::load(&store).expect("whole");
        let found = found.expect("a snapshot");
        assert!(found == old || found == new, "after {writes} writes it is neither");
        if found == old {
            seen_old += 1
        } else {
            seen_new += 1
        }
        // Whatever the crash left, the next snapshot takes its place and the space comes back.
        let small = Bytes::from_static(b"small");
        snapshots.save(&store, &small).expect("save");
        assert_eq!(Snapshots::load(&store).expect("load").1, Some(small));
        let pairs = store.scan(Tree::State, b"", &[0xff; 2], usize::MAX).expect("scan");
        assert_eq!(pairs.len(), 2, "one chunk and the head");
        if saved {
            break;
        }
        writes += 1;
    }
    println!("crashes after 0..={writes} writes: {seen_old} old, {seen_new} new");
    assert!(seen_old > 1 && seen_new > 1);
}

#[test]
fn an_empty_snapshot_is_one() {
    let store = MemoryStore::new();
    let (mut snapshots, _) = Snapshots::load(&store).expect("load");
    snapshots.save(&store, &Bytes::new()).expect("save");
    assert_eq!(Snapshots::load(&store).expect("load").1, Some(Bytes::new()));
}

#[test]
fn a_snapshot_that_somebody_reads_stays_until_they_are_done() {
    let bytes_of = |number: u8| Bytes::from(vec![number; 100_000]);
    let store = MemoryStore::new();
    let (mut snapshots, _) = Snapshots::load(&store).expect("load");
    snapshots.save(&store, &bytes_of(1)).expect("save");
    let sent = snapshots.stored();
    for number in 2..=4 {
        snapshots.save(&store, &bytes_of(number)).expect("save");
    }
    assert_eq!(sent.read(&store).expect("it is there"), bytes_of(1));
    let pairs = || store.scan(Tree::State, b"", &[0xff; 2], usize::MAX).expect("scan").len();
    assert_eq!(pairs(), 3 + 3 + 1, "the one that is read, the current one, and the head");
    drop(sent);
    snapshots.save(&store, &bytes_of(5)).expect("save");
    assert_eq!(pairs(), 3 + 1);
    assert_eq!(Snapshots::load(&store).expect("load").1, Some(bytes_of(5)));
}
