//! The durable log: entries and hard values, written by one writer with group commit.
//!
//! ```text
//!   append · put · truncate · purge ──► queue ──► writer: take all that wait ──► one batch ──► Store::write ──► done
//! ```
//!
//! Everything passes the one queue, so a vote and an append reach the disk in the order in which they were asked for.
//! Appends go first; a purge follows behind them in slices, since removing thousands of keys at once was measured to
//! hold up all writes for seconds. After the first failure nothing is written any more and every callback says so.
//!
//! Layout in [`Tree::Log`]: `e index` holds an entry, `h name` a hard value; indexes are big-endian.

use super::LoadError;
use super::frame;
use crate::ports::{Batch, Store, StoreError, Tree};
use crate::tasks;
use atelier_state::mutants::{self, Mutant};
use bytes::Bytes;
use std::collections::{BTreeMap, VecDeque};
use std::ops::{ControlFlow, Range};
use std::sync::Arc;
use std::thread::JoinHandle;
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TryRecvError;

/// Operations that wait for the writer. Filled by Raft's core; at the bound the core waits.
const QUEUE_OPS_MAX: usize = 1024;
/// Operations of one batch; more wait for the next.
const BATCH_OPS_MAX: usize = 1024;
/// Bytes after which a batch is closed; the last operation may exceed it.
const BATCH_BYTES: usize = 4 * 1024 * 1024;
/// Purged keys that ride behind appends of one batch.
const PURGE_KEYS_BUSY: u64 = 64;
/// Purged keys of a batch that has nothing else to do.
const PURGE_KEYS_IDLE: u64 = 256;
/// Pairs that one scan reads at start.
const SCAN_PAIRS: usize = 256;

/// Told once an operation is durable, or will never be.
pub type Done = Box<dyn FnOnce(Result<(), StoreError>) + Send>;

/// A value beside the entries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Hard {
    /// Whom this node has promised its vote.
    Vote,
    /// The last entry that was purged.
    Purged,
    /// The last entry that was known to be committed.
    Committed,
}

/// What a log holds at start.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LogImage {
    /// Entries in order of index. Those that a purge has left behind come first; a gap may follow them.
    pub entries: Vec<(u64, Bytes)>,
    /// The hard values.
    pub hard: BTreeMap<Hard, Bytes>,
}

/// Which keys of entries there are when the writer starts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Extent {
    /// Left behind by a purge that did not end; they are removed.
    pub leftover: Range<u64>,
    /// The log.
    pub kept: Range<u64>,
}

/// The handle of the writer, which has a thread of its own. It ends when the last handle is dropped.
#[derive(Clone)]
pub struct LogWriter {
    queue: mpsc::Sender<Op>,
}

enum Op {
    Append { entries: Vec<(u64, Bytes)>, done: Done },
    Put { hard: Hard, value: Bytes, done: Done },
    Truncate { first: u64, last: u64, done: Done },
    Purge { through: u64, marker: Bytes },
    Committed { value: Bytes },
}

/// Reads the log of a store. Blocks.
///
/// # Errors
/// When the store fails or an entry is damaged.
pub fn load(store: &dyn Store) -> Result<LogImage, LoadError> {
    let mut image = LogImage::default();
    for hard in [Hard::Vote, Hard::Purged, Hard::Committed] {
        let key = hard_key(hard);
        if let Some(value) = store.read(Tree::Log, &key)? {
            let body = frame::open(&key, &value);
            let body = body.map_err(|error| corrupt(store, hard.name(), error.to_string()))?;
            image.hard.insert(hard, body);
        }
    }
    let mut from = entry_key(0);
    loop {
        let pairs = store.scan(Tree::Log, &from, b"f", SCAN_PAIRS)?;
        let Some((last, _)) = pairs.last() else { break };
        from = [last, &[0][..]].concat().into();
        for (key, value) in &pairs {
            let index = key.get(1..).and_then(|index| index.try_into().ok());
            let index = index.map(u64::from_be_bytes);
            let index = index.ok_or_else(|| corrupt(store, "an entry", "not an index".into()))?;
            let body = frame::open(key, value);
            let body = body.map_err(|e| corrupt(store, &at(index), e.to_string()))?;
            image.entries.push((index, body));
        }
    }
    Ok(image)
}

/// Puts an entry into a batch of [`Tree::Log`]. For recovery, which writes without a node; a node has a [`LogWriter`].
pub fn put_entry(batch: &mut Batch, index: u64, body: &[u8]) {
    set(batch, entry_key(index), body);
}

/// Puts a hard value into a batch of [`Tree::Log`], as [`put_entry`] does.
pub fn put_hard(batch: &mut Batch, hard: Hard, body: &[u8]) {
    set(batch, hard_key(hard), body);
}

impl LogImage {
    /// Says which entries are the log, when everything through an index was purged.
    pub fn extent(&self, purged: Option<u64>) -> Extent {
        let start = purged.map_or(0, |purged| purged.saturating_add(1));
        let (left, kept) =
            self.entries.split_at(self.entries.partition_point(|(index, _)| *index < start));
        let end = |entries: &[(u64, Bytes)]| entries.last().map(|(index, _)| index + 1);
        let first = left.first().map_or(0, |(index, _)| *index);
        Extent {
            leftover: first..end(left).unwrap_or(first),
            kept: start..end(kept).unwrap_or(start),
        }
    }
}

fn at(index: u64) -> String {
    format!("log index {index}")
}

fn corrupt(store: &dyn Store, at: &str, reason: String) -> LoadError {
    LoadError::Corrupt { place: store.place(Tree::Log), at: at.to_owned(), reason }
}

impl LogWriter {
    /// Starts the thread, and removes what is left over by and by.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub fn start(
        store: Arc<dyn Store>,
        extent: Extent,
    ) -> std::io::Result<(LogWriter, JoinHandle<()>)> {
        let (queue, writer) = Writer::new(store, extent);
        let runtime = tokio::runtime::Builder::new_current_thread().build()?;
        let thread = std::thread::Builder::new().name("raft-log".to_owned());
        let handle = thread.spawn(move || runtime.block_on(writer.run()))?;
        Ok((LogWriter { queue }, handle))
    }

    /// Starts the writer as a task, for a store that does not block.
    pub fn start_here(store: Arc<dyn Store>, extent: Extent) -> LogWriter {
        let (queue, writer) = Writer::new(store, extent);
        drop(tasks::spawn(writer.run()));
        LogWriter { queue }
    }

    /// Appends encoded entries. `done` is called once they are durable.
    ///
    /// # Cancel safety
    /// Dropping the future before it returns may drop the operation, and `done` with it.
    pub async fn append(&self, entries: Vec<(u64, Bytes)>, done: Done) {
        self.send(Op::Append { entries, done }).await;
    }

    /// Sets a hard value and waits until it is durable.
    ///
    /// # Errors
    /// When it is not; the node must not go on.
    ///
    /// # Cancel safety
    /// Dropping the future leaves it open whether the value is written.
    pub async fn put(&self, hard: Hard, value: Bytes) -> Result<(), StoreError> {
        self.send_and_wait(|done| Op::Put { hard, value, done }).await
    }

    /// Removes the entries from `first` through `last`, and waits until that is durable.
    ///
    /// # Errors
    /// When it is not; the node must not go on.
    ///
    /// # Cancel safety
    /// As [`LogWriter::put`].
    pub async fn truncate(&self, first: u64, last: u64) -> Result<(), StoreError> {
        self.send_and_wait(|done| Op::Truncate { first, last, done }).await
    }

    /// Notes that entries through an index are not needed any more, and removes them by and by.
    pub async fn purge(&self, through: u64, marker: Bytes) {
        self.send(Op::Purge { through, marker }).await;
    }

    /// Notes what is committed. It is a hint for the next start: it is written with the next batch that has something
    /// else to write, and never before what was asked for earlier.
    pub async fn note_committed(&self, value: Bytes) {
        self.send(Op::Committed { value }).await;
    }

    async fn send_and_wait(&self, op: impl FnOnce(Done) -> Op) -> Result<(), StoreError> {
        let (done, result) = tokio::sync::oneshot::channel();
        // The caller may have gone; then nobody wants to know.
        self.send(op(Box::new(|result| drop(done.send(result))))).await;
        result.await.unwrap_or_else(|_| Err(stopped()))
    }

    async fn send(&self, op: Op) {
        if let Err(rejected) = self.queue.send(op).await {
            rejected.0.fail(&stopped());
        }
    }
}

fn stopped() -> StoreError {
    StoreError::Io { place: "the log".to_owned(), reason: "its writer has stopped".to_owned() }
}

impl Op {
    fn fail(self, error: &StoreError) {
        if let Op::Append { done, .. } | Op::Put { done, .. } | Op::Truncate { done, .. } = self {
            done(Err(error.clone()));
        }
    }

    fn bytes(&self) -> usize {
        match self {
            Op::Append { entries, .. } => entries.iter().map(|(_, entry)| entry.len()).sum(),
            Op::Put { .. } | Op::Truncate { .. } | Op::Purge { .. } | Op::Committed { .. } => 0,
        }
    }
}

struct Writer {
    store: Arc<dyn Store>,
    ops: mpsc::Receiver<Op>,
    committed: Option<Bytes>,
    purge: Purge,
    failed: Option<StoreError>,
}

/// What is to be removed, and what may be removed later.
struct Purge {
    pending: VecDeque<Range<u64>>,
    // Keys in this range exist and are not pending.
    kept: Range<u64>,
}

impl Purge {
    fn new(extent: Extent) -> Purge {
        let pending = VecDeque::from([extent.leftover]);
        Purge { pending, kept: extent.kept }
    }

    fn through(&mut self, index: u64) {
        let start = index.saturating_add(1).max(self.kept.start);
        // After a snapshot from elsewhere the log starts anew behind a gap, which has no keys.
        self.pending.push_back(self.kept.start..start.min(self.kept.end));
        self.kept = start..self.kept.end.max(start);
    }

    fn appended(&mut self, index: u64) {
        self.kept.end = self.kept.end.max(index + 1);
    }

    fn truncated(&mut self, first: u64) {
        self.kept.end = first.clamp(self.kept.start, self.kept.end);
    }

    /// Takes the next keys to remove, oldest first.
    fn slice(&mut self, keys_max: u64) -> Range<u64> {
        while self.pending.front().is_some_and(Range::is_empty) {
            self.pending.pop_front();
        }
        let Some(front) = self.pending.front_mut() else { return 0..0 };
        let end = front.end.min(front.start + keys_max);
        let slice = front.start..end;
        front.start = end;
        slice
    }

    fn is_due(&self) -> bool {
        self.pending.iter().any(|range| !range.is_empty())
    }
}

impl Writer {
    fn new(store: Arc<dyn Store>, extent: Extent) -> (mpsc::Sender<Op>, Writer) {
        let (queue, ops) = mpsc::channel(QUEUE_OPS_MAX);
        let purge = Purge::new(extent);
        (queue, Writer { store, ops, committed: None, purge, failed: None })
    }

    async fn run(mut self) {
        let mut ops = Vec::new();
        while self.take(&mut ops).await.is_continue() {
            let taken = std::mem::take(&mut ops);
            if let Some(failed) = &self.failed {
                taken.into_iter().for_each(|op| op.fail(failed));
                continue;
            }
            self.write(taken).await;
        }
    }

    /// Waits for work and takes all of it, within the bounds of a batch.
    async fn take(&mut self, ops: &mut Vec<Op>) -> ControlFlow<()> {
        let mut bytes = 0;
        while ops.len() < BATCH_OPS_MAX && bytes < BATCH_BYTES {
            let op = match self.ops.try_recv() {
                Ok(op) => op,
                Err(TryRecvError::Disconnected) if ops.is_empty() => return ControlFlow::Break(()),
                Err(_) if !ops.is_empty() || self.may_purge() => break,
                Err(_) => match self.ops.recv().await {
                    Some(op) => op,
                    None => return ControlFlow::Break(()),
                },
            };
            bytes += op.bytes();
            ops.push(op);
        }
        ControlFlow::Continue(())
    }

    fn may_purge(&self) -> bool {
        self.failed.is_none() && self.purge.is_due()
    }

    async fn write(&mut self, ops: Vec<Op>) {
        let mut batch = Batch::new();
        let mut done = Vec::new();
        let slice = if ops.is_empty() { PURGE_KEYS_IDLE } else { PURGE_KEYS_BUSY };
        for op in ops {
            done.extend(self.add(op, &mut batch));
        }
        self.purge.slice(slice).for_each(|index| batch.remove(entry_key(index)));
        if batch.is_empty() {
            return;
        }
        if let Some(committed) = self.committed.take() {
            set(&mut batch, hard_key(Hard::Committed), &committed);
        }
        let mut result = self.store.write(Tree::Log, batch);
        if mutants::is(Mutant::AcknowledgedBeforeFsync) {
            done.drain(..).for_each(|done| done(result.clone()));
        }
        if result.is_ok() {
            result = self.store.settled(Tree::Log).await;
        }
        if mutants::is(Mutant::WriteErrorIgnored) {
            result = Ok(());
        }
        if let Err(error) = &result {
            tracing::error!(%error, "the log cannot be written; this node takes no part any more");
            self.failed = Some(error.clone());
        }
        done.into_iter().for_each(|done| done(result.clone()));
    }

    fn add(&mut self, op: Op, batch: &mut Batch) -> Option<Done> {
        match op {
            Op::Append { entries, done } => {
                for (index, entry) in entries {
                    set(batch, entry_key(index), &entry);
                    self.purge.appended(index);
                }
                Some(done)
            }
            Op::Put { hard, value, done } => {
                set(batch, hard_key(hard), &value);
                Some(done)
            }
            Op::Truncate { first, last, done } => {
                (first..=last).for_each(|index| batch.remove(entry_key(index)));
                self.purge.truncated(first);
                Some(done)
            }
            Op::Purge { through, marker } => {
                set(batch, hard_key(Hard::Purged), &marker);
                self.purge.through(through);
                None
            }
            Op::Committed { value } => {
                self.committed = Some(value);
                None
            }
        }
    }
}

fn set(batch: &mut Batch, key: Bytes, body: &[u8]) {
    let value = frame::seal(&key, body);
    batch.set(key, value);
}

impl Hard {
    fn name(self) -> &'static str {
        match self {
            Hard::Vote => "vote",
            Hard::Purged => "purged",
            Hard::Committed => "committed",
        }
    }
}

fn hard_key(hard: Hard) -> Bytes {
    [b"h", hard.name().as_bytes()].concat().into()
}

fn entry_key(index: u64) -> Bytes {
    [&b"e"[..], &index.to_be_bytes()].concat().into()
}
