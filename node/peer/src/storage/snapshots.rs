//! Snapshots of the state on the disk: chunks of a generation, and one switch that makes them the current ones.
//!
//! Layout in [`Tree::State`]: `c generation number` holds a chunk, `snapshot` says which generation holds, how many
//! chunks it has and how many bytes. A new generation is written beside the old one, then one batch flips `snapshot`,
//! then the old chunks are removed, but for those that somebody still reads. So a crash at any moment leaves the old
//! snapshot or the new one, whole.

use super::LoadError;
use super::frame;
use crate::ports::{Batch, Store, StoreError, Tree};
use bytes::{Buf, BufMut, Bytes, BytesMut};
use std::collections::BTreeSet;
use std::sync::{Arc, Weak};
use std::{iter, mem};

/// Bytes of a chunk; with its frame it fits into a value.
const CHUNK_BYTES: usize = 48 * 1024;
/// Chunks of one batch, 768 KiB: larger batches would hold sled's pages in memory for longer.
const BATCH_CHUNKS: usize = 16;
const CURRENT: &[u8] = b"snapshot";

/// The snapshots of one store.
pub struct Snapshots {
    current: Current,
    // The highest generation of which chunks may be left: a crash may have come before its switch.
    generation: u64,
    // Generations that are held. Each peer that is sent a snapshot holds one.
    held: Vec<(u64, Weak<()>)>,
}

/// A snapshot on the disk, which stays there for as long as this is held, whichever is current by then.
#[derive(Clone)]
pub struct Stored {
    place: Current,
    _held: Arc<()>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Current {
    generation: u64,
    chunks: u32,
    bytes: u64,
}

impl Snapshots {
    /// Reads the current snapshot, if there is one. Blocks, and writes nothing.
    ///
    /// # Errors
    /// When the store fails, or a chunk is damaged or missing.
    pub fn load(store: &dyn Store) -> Result<(Snapshots, Option<Bytes>), LoadError> {
        let generation = last_generation(store)?;
        let Some(value) = store.read(Tree::State, CURRENT)? else {
            return Ok((Snapshots::new(Current::default(), generation), None));
        };
        let corrupt = |reason: String| corrupt(store, "snapshot head", reason);
        let head = frame::open(CURRENT, &value);
        let head = head.map_err(|error| corrupt(error.to_string()))?;
        let current = Current::decode(head).ok_or_else(|| corrupt("not a head".to_owned()))?;
        let bytes = current.read(store)?;
        let generation = generation.max(current.generation);
        Ok((Snapshots::new(current, generation), Some(bytes)))
    }

    fn new(current: Current, generation: u64) -> Snapshots {
        Snapshots { current, generation, held: Vec::new() }
    }

    /// Makes bytes the current snapshot, and removes the others; they are durable on return. Blocks.
    ///
    /// # Errors
    /// When the store fails. Then the old snapshot holds, and the node must not go on.
    pub fn save(&mut self, store: &dyn Store, bytes: &[u8]) -> Result<(), StoreError> {
        self.save_parts(store, |put| put(bytes))?;
        self.remove_others(store)
    }

    /// Makes bytes that come in parts the current snapshot, one chunk in memory after another. Blocks.
    ///
    /// The one before stays on the disk until [`Snapshots::remove_others`].
    ///
    /// # Errors
    /// As [`Snapshots::save`].
    pub fn save_parts(
        &mut self,
        store: &dyn Store,
        parts: impl FnOnce(&mut Put<'_>) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        self.generation += 1;
        let mut draft = Draft::new(store, self.generation);
        parts(&mut |bytes| draft.put(bytes))?;
        let next = draft.finish()?;
        let mut batch = Batch::new();
        batch.set(CURRENT, frame::seal(CURRENT, &next.encode()));
        store.write(Tree::State, batch)?;
        self.current = next;
        Ok(())
    }

    /// Holds the current snapshot.
    pub fn stored(&mut self) -> Stored {
        let held = Arc::new(());
        self.held.push((self.current.generation, Arc::downgrade(&held)));
        Stored { place: self.current, _held: held }
    }

    /// Removes all that is neither current nor held. Blocks.
    ///
    /// # Errors
    /// When the store fails; the node must not go on.
    pub fn remove_others(&mut self, store: &dyn Store) -> Result<(), StoreError> {
        self.held.retain(|(_, held)| held.strong_count() > 0);
        let held = self.held.iter().map(|(generation, _)| *generation);
        let kept: BTreeSet<u64> = held.chain([self.current.generation]).collect();
        let firsts = iter::once(0).chain(kept.iter().map(|generation| generation + 1));
        let ends = kept.iter().copied().chain([u64::MAX]);
        for (from, below) in firsts.zip(ends) {
            let (from, below) = (chunk_key(from, 0), chunk_key(below, 0));
            loop {
                let pairs = store.scan(Tree::State, &from, &below, BATCH_CHUNKS)?;
                if pairs.is_empty() {
                    break;
                }
                let mut batch = Batch::new();
                pairs.into_iter().for_each(|(key, _)| batch.remove(key));
                store.write(Tree::State, batch)?;
            }
        }
        Ok(())
    }
}

impl Stored {
    /// Bytes of the snapshot.
    pub fn bytes(&self) -> u64 {
        self.place.bytes
    }

    /// Chunks of the snapshot, numbered from 0.
    pub fn chunks(&self) -> u32 {
        self.place.chunks
    }

    /// Reads one of its chunks. Blocks.
    ///
    /// # Errors
    /// When the store fails, or the chunk is damaged or missing.
    pub fn chunk(&self, store: &dyn Store, number: u32) -> Result<Bytes, LoadError> {
        self.place.chunk(store, number)
    }

    /// Reads all of it. Blocks.
    ///
    /// # Errors
    /// As [`Snapshots::load`].
    pub fn read(&self, store: &dyn Store) -> Result<Bytes, LoadError> {
        self.place.read(store)
    }
}

impl Current {
    fn encode(self) -> BytesMut {
        let mut body = BytesMut::new();
        body.put_u64(self.generation);
        body.put_u32(self.chunks);
        body.put_u64(self.bytes);
        body
    }

    fn decode(mut body: Bytes) -> Option<Current> {
        let generation = body.try_get_u64().ok()?;
        let chunks = body.try_get_u32().ok()?;
        let bytes = body.try_get_u64().ok()?;
        body.is_empty().then_some(Current { generation, chunks, bytes })
    }

    fn read(self, store: &dyn Store) -> Result<Bytes, LoadError> {
        let most = u64::from(self.chunks) * CHUNK_BYTES as u64;
        let mut bytes = BytesMut::with_capacity(self.bytes.min(most) as usize);
        for number in 0..self.chunks {
            bytes.put(self.chunk(store, number)?);
        }
        if bytes.len() as u64 != self.bytes {
            let reason = format!("{} bytes where {} were written", bytes.len(), self.bytes);
            return Err(corrupt(store, "snapshot", reason));
        }
        Ok(bytes.freeze())
    }

    fn chunk(self, store: &dyn Store, number: u32) -> Result<Bytes, LoadError> {
        let at = || format!("snapshot chunk {number} of {}", self.chunks);
        let corrupt = |reason: String| corrupt(store, &at(), reason);
        let key = chunk_key(self.generation, number);
        let value = store.read(Tree::State, &key)?;
        let value = value.ok_or_else(|| corrupt("the chunk is missing".to_owned()))?;
        frame::open(&key, &value).map_err(|error| corrupt(error.to_string()))
    }
}

/// Takes the next bytes of a snapshot.
pub type Put<'p> = dyn FnMut(&[u8]) -> Result<(), StoreError> + 'p;

/// The chunks of a generation that is not current yet.
struct Draft<'s> {
    store: &'s dyn Store,
    next: Current,
    chunk: BytesMut,
    batch: Batch,
}

impl Draft<'_> {
    fn new(store: &dyn Store, generation: u64) -> Draft<'_> {
        let next = Current { generation, ..Current::default() };
        let chunk = BytesMut::with_capacity(CHUNK_BYTES);
        Draft { store, next, chunk, batch: Batch::new() }
    }

    fn put(&mut self, mut bytes: &[u8]) -> Result<(), StoreError> {
        while !bytes.is_empty() {
            let room = CHUNK_BYTES - self.chunk.len();
            let (now, later) = bytes.split_at(room.min(bytes.len()));
            self.chunk.put_slice(now);
            bytes = later;
            if self.chunk.len() == CHUNK_BYTES {
                self.end_chunk()?;
            }
        }
        Ok(())
    }

    fn end_chunk(&mut self) -> Result<(), StoreError> {
        let key = chunk_key(self.next.generation, self.next.chunks);
        let value = frame::seal(&key, &self.chunk);
        self.batch.set(key, value);
        self.next.chunks += 1;
        self.next.bytes += self.chunk.len() as u64;
        self.chunk.clear();
        if (self.next.chunks as usize).is_multiple_of(BATCH_CHUNKS) {
            self.store.write(Tree::State, mem::take(&mut self.batch))?;
        }
        Ok(())
    }

    fn finish(mut self) -> Result<Current, StoreError> {
        if !self.chunk.is_empty() {
            self.end_chunk()?;
        }
        self.store.write(Tree::State, mem::take(&mut self.batch))?;
        Ok(self.next)
    }
}

fn corrupt(store: &dyn Store, at: &str, reason: String) -> LoadError {
    LoadError::Corrupt { place: store.place(Tree::State), at: at.to_owned(), reason }
}

/// Finds the highest generation that has chunks. There are few, and each is one scan.
fn last_generation(store: &dyn Store) -> Result<u64, LoadError> {
    let mut last = 0;
    loop {
        let from = chunk_key(last + 1, 0);
        let pairs = store.scan(Tree::State, &from, &chunk_key(u64::MAX, u32::MAX), 1)?;
        let Some((key, _)) = pairs.first() else { return Ok(last) };
        let generation = key.get(1..9).and_then(|bytes| bytes.try_into().ok());
        last = generation.map_or(last + 1, u64::from_be_bytes);
    }
}

fn chunk_key(generation: u64, number: u32) -> Bytes {
    [&b"c"[..], &generation.to_be_bytes(), &number.to_be_bytes()].concat().into()
}

const _: () = assert!(CHUNK_BYTES <= frame::BODY_BYTES_MAX);
