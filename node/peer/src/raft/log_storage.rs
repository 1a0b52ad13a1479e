//! openraft's log over the durable one: what is asked of it, and a copy of the entries in memory.
//!
//! All entries that are not purged are in memory, so that replication and apply never read the disk. They are bounded
//! by the snapshot policy: a snapshot every few thousand entries or [`super::node`]'s number of bytes, and a purge
//! behind it.
//!
//! Order: one core calls the writing methods one after another, each puts its operation into the writer's one queue
//! before it returns, and the writer keeps the order. So a vote never overtakes an append.

use super::codec::{self, DecodeError};
use super::types::{Entry, LogId, TypeConfig, Vote};
use crate::ports::{Store, Tree};
use crate::storage::log::{self, Extent, Hard, LogWriter};
use crate::storage::{LoadError, frame};
use atelier_state::mutants::{self, Mutant};
use bytes::Bytes;
use openraft::entry::RaftEntry;
use openraft::storage::{IOFlushed, LogState, RaftLogStorage};
use openraft::{OptionalSend, RaftLogReader};
use std::collections::BTreeMap;
use std::fmt::Debug;
use std::io;
use std::ops::{Bound, RangeBounds};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::JoinHandle;

/// Bytes of entries that one append to a follower carries; at least one entry is always taken.
const READ_BYTES: usize = 4 * 1024 * 1024;

/// The log of this node.
#[derive(Clone)]
pub(super) struct LogStorage {
    memory: Arc<Mutex<Memory>>,
    writer: LogWriter,
    bytes: LogBytes,
}

/// Bytes of the entries in memory, as others may watch them.
#[derive(Clone, Default)]
pub(super) struct LogBytes(Arc<AtomicU64>);

#[derive(Default)]
struct Memory {
    entries: BTreeMap<u64, Stored>,
    vote: Option<Vote>,
    purged: Option<LogId>,
    committed: Option<LogId>,
}

struct Stored {
    entry: Entry,
    bytes: usize,
}

impl LogStorage {
    /// Reads the log and starts its writer. Blocks.
    ///
    /// # Errors
    /// When anything in it is damaged, or does not fit together; nothing is changed then.
    pub(super) fn open(store: &Arc<dyn Store>) -> Result<(LogStorage, JoinHandle<()>), LoadError> {
        let (memory, bytes, extent) = Memory::read(store)?;
        let (writer, thread) = LogWriter::start(store.clone(), extent).map_err(|error| {
            let (place, at) = (store.place(Tree::Log), "start".to_owned());
            LoadError::Corrupt { place, at, reason: error.to_string() }
        })?;
        Ok((LogStorage { memory: Arc::new(Mutex::new(memory)), writer, bytes }, thread))
    }

    /// Opens as [`LogStorage::open`] does, with a writer that is a task of this one's group.
    ///
    /// # Errors
    /// As [`LogStorage::open`].
    pub(super) fn open_here(store: &Arc<dyn Store>) -> Result<LogStorage, LoadError> {
        let (memory, bytes, extent) = Memory::read(store)?;
        let writer = LogWriter::start_here(store.clone(), extent);
        Ok(LogStorage { memory: Arc::new(Mutex::new(memory)), writer, bytes })
    }

    /// Returns how many bytes the entries in memory have.
    pub(super) fn bytes(&self) -> LogBytes {
        self.bytes.clone()
    }

    /// Returns the id of the last purged entry.
    pub(super) fn purged(&self) -> Option<LogId> {
        self.memory().purged
    }

    /// Returns what recovery must know of a log that nobody writes: entries in order, vote, and the last entry that was
    /// known to be committed.
    pub(super) fn contents(&self) -> (Vec<Entry>, Option<Vote>, Option<LogId>) {
        let memory = self.memory();
        let entries = memory.entries.values().map(|stored| stored.entry.clone()).collect();
        (entries, memory.vote, memory.committed)
    }

    // Never held across an await, and never while the disk is written.
    fn memory(&self) -> MutexGuard<'_, Memory> {
        self.memory.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn read(&self, range: impl RangeBounds<u64>, bytes_max: usize) -> io::Result<Vec<Entry>> {
        let memory = self.memory();
        let mut found: Vec<Entry> = Vec::new();
        let mut bytes = 0;
        if is_empty(&range) {
            return Ok(found);
        }
        for (index, stored) in memory.entries.range((range.start_bound(), range.end_bound())) {
            bytes += stored.bytes;
            if bytes > bytes_max && !found.is_empty() {
                break;
            }
            if found.last().is_some_and(|last| last.index() + 1 != *index) {
                return Err(io::Error::other(format!("log index {} is missing", index - 1)));
            }
            found.push(stored.entry.clone());
        }
        Ok(found)
    }
}

impl LogBytes {
    pub(super) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

impl Memory {
    /// Reads a log and checks that it fits together.
    fn read(store: &Arc<dyn Store>) -> Result<(Memory, LogBytes, Extent), LoadError> {
        let image = log::load(store.as_ref())?;
        let corrupt = |at: String, reason: String| LoadError::Corrupt {
            place: store.place(Tree::Log),
            at,
            reason,
        };
        let undecodable = |at: &str| {
            let at = at.to_owned();
            move |error: DecodeError| (at, error.to_string())
        };
        let hard = |hard: Hard| image.hard.get(&hard).cloned();
        let log_id =
            |which, at| hard(which).map(codec::decode_log_id).transpose().map_err(undecodable(at));
        let mut memory = Memory {
            vote: hard(Hard::Vote)
                .map(codec::decode_vote)
                .transpose()
                .map_err(undecodable("vote"))
                .map_err(|(at, reason)| corrupt(at, reason))?,
            purged: log_id(Hard::Purged, "purged").map_err(|(at, r)| corrupt(at, r))?,
            committed: log_id(Hard::Committed, "committed").map_err(|(at, r)| corrupt(at, r))?,
            entries: BTreeMap::new(),
        };
        let purged = memory.purged.map(|id| id.index());
        let extent = image.extent(purged);
        let bytes = LogBytes::default();
        for (index, body) in image.entries {
            let length = body.len();
            let entry = codec::decode_entry(body)
                .map_err(|error| corrupt(format!("log index {index}"), error.to_string()))?;
            if entry.index() != index {
                let reason = format!("the entry says that it is {}", entry.index());
                return Err(corrupt(format!("log index {index}"), reason));
            }
            if extent.kept.contains(&index) {
                memory.insert(entry, length, &bytes);
            }
        }
        memory.check().map_err(|(at, reason)| corrupt(at, reason))?;
        Ok((memory, bytes, extent))
    }

    fn insert(&mut self, entry: Entry, bytes: usize, total: &LogBytes) {
        let before = self.entries.insert(entry.index(), Stored { entry, bytes });
        let before = before.map_or(0, |stored| stored.bytes as u64);
        total.0.fetch_add(bytes as u64, Ordering::Relaxed);
        total.0.fetch_sub(before, Ordering::Relaxed);
    }

    fn drop_all(&mut self, dropped: BTreeMap<u64, Stored>, total: &LogBytes) {
        let bytes = dropped.values().map(|stored| stored.bytes as u64).sum();
        total.0.fetch_sub(bytes, Ordering::Relaxed);
    }

    fn last(&self) -> Option<LogId> {
        self.entries.last_key_value().map(|(_, stored)| stored.entry.log_id).or(self.purged)
    }

    /// Says what does not fit together: where, and why.
    fn check(&self) -> Result<(), (String, String)> {
        let first = self.purged.map_or(0, |purged| purged.index() + 1);
        if let Some((_, missing)) =
            self.entries.keys().zip(first..).find(|(index, expected)| **index != *expected)
        {
            return Err((format!("log index {missing}"), "the entry is missing".to_owned()));
        }
        if let Some(committed) = self.committed
            && self.last().is_none_or(|last| last.index() < committed.index())
        {
            let reason = "the entry was committed and is missing".to_owned();
            return Err((format!("log index {}", committed.index()), reason));
        }
        Ok(())
    }
}

fn is_empty(range: &impl RangeBounds<u64>) -> bool {
    let start = match range.start_bound() {
        Bound::Included(start) => *start,
        Bound::Excluded(start) => start.saturating_add(1),
        Bound::Unbounded => 0,
    };
    match range.end_bound() {
        Bound::Included(end) => start > *end,
        Bound::Excluded(end) => start >= *end,
        Bound::Unbounded => false,
    }
}

impl RaftLogReader<TypeConfig> for LogStorage {
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: RB,
    ) -> io::Result<Vec<Entry>> {
        self.read(range, usize::MAX)
    }

    async fn limited_get_log_entries(&mut self, start: u64, end: u64) -> io::Result<Vec<Entry>> {
        self.read(start..end, READ_BYTES)
    }

    async fn read_vote(&mut self) -> io::Result<Option<Vote>> {
        Ok(self.memory().vote)
    }
}

impl RaftLogStorage<TypeConfig> for LogStorage {
    type LogReader = LogStorage;

    async fn get_log_state(&mut self) -> io::Result<LogState<TypeConfig>> {
        let memory = self.memory();
        Ok(LogState { last_purged_log_id: memory.purged, last_log_id: memory.last() })
    }

    async fn get_log_reader(&mut self) -> LogStorage {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> io::Result<()> {
        if !mutants::is(Mutant::VoteNotPersisted) {
            self.writer
                .put(Hard::Vote, codec::encode_vote(vote))
                .await
                .map_err(io::Error::other)?;
        }
        self.memory().vote = Some(*vote);
        Ok(())
    }

    async fn save_committed(&mut self, committed: Option<LogId>) -> io::Result<()> {
        self.memory().committed = committed;
        if let Some(committed) = committed {
            self.writer.note_committed(codec::encode_log_id(&committed)).await;
        }
        Ok(())
    }

    async fn read_committed(&mut self) -> io::Result<Option<LogId>> {
        Ok(self.memory().committed)
    }

    async fn append<I>(&mut self, entries: I, callback: IOFlushed<TypeConfig>) -> io::Result<()>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let encode = |entry: Entry| {
            let body = codec::encode_entry(&entry);
            (entry, body)
        };
        let encoded: Vec<(Entry, Bytes)> = entries.into_iter().map(encode).collect();
        if let Some((entry, body)) =
            encoded.iter().find(|(_, body)| body.len() > frame::BODY_BYTES_MAX)
        {
            // Proposals and appends of other peers were checked; openraft would have had to make it.
            let (index, bytes) = (entry.index(), body.len());
            return Err(io::Error::other(format!("log index {index} has {bytes} bytes, too many")));
        }
        let writes = encoded.iter().map(|(entry, body)| (entry.index(), body.clone())).collect();
        {
            let mut memory = self.memory();
            for (entry, body) in encoded {
                memory.insert(entry, body.len(), &self.bytes);
            }
        }
        let done = |result: Result<_, _>| callback.io_completed(result.map_err(io::Error::other));
        self.writer.append(writes, Box::new(done)).await;
        Ok(())
    }

    async fn truncate_after(&mut self, last: Option<LogId>) -> io::Result<()> {
        let first = last.map_or(0, |last| last.index() + 1);
        let end = {
            let mut memory = self.memory();
            let dropped = memory.entries.split_off(&first);
            let end = dropped.last_key_value().map(|(index, _)| *index);
            memory.drop_all(dropped, &self.bytes);
            end
        };
        match end {
            Some(_) if mutants::is(Mutant::TruncationNotPersisted) => Ok(()),
            Some(end) => self.writer.truncate(first, end).await.map_err(io::Error::other),
            None => Ok(()),
        }
    }

    async fn purge(&mut self, log_id: LogId) -> io::Result<()> {
        {
            let mut memory = self.memory();
            let kept = memory.entries.split_off(&(log_id.index() + 1));
            let dropped = std::mem::replace(&mut memory.entries, kept);
            memory.drop_all(dropped, &self.bytes);
            memory.purged = memory.purged.max(Some(log_id));
        }
        self.writer.purge(log_id.index(), codec::encode_log_id(&log_id)).await;
        Ok(())
    }
}
