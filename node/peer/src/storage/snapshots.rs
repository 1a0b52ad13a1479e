//! Snapshots of the state on the disk: chunks of a generation, and one switch that makes them the current ones.
//!
//! Layout in [`Tree::State`]: `c generation number` holds a chunk, `snapshot` says which generation holds, how many
//! chunks it has and how many bytes. A new generation is written beside the old one, then one batch flips `snapshot`,
//! then the old chunks are removed. So a crash at any moment leaves the old snapshot or the new one, whole.

use super::LoadError;
use super::frame;
use crate::ports::{Batch, Store, StoreError, Tree};
use bytes::{Buf, BufMut, Bytes, BytesMut};

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
            return Ok((Snapshots { current: Current::default(), generation }, None));
        };
        let corrupt = |at: &str, reason: String| LoadError::Corrupt {
            place: store.place(Tree::State),
            at: at.to_owned(),
            reason,
        };
        let head = frame::open(CURRENT, &value);
        let head = head.map_err(|error| corrupt("snapshot head", error.to_string()))?;
        let current = Current::decode(head)
            .ok_or_else(|| corrupt("snapshot head", "not a head".to_owned()))?;
        let mut bytes = BytesMut::new();
        for number in 0..current.chunks {
            let at = format!("snapshot chunk {number} of {}", current.chunks);
            let key = chunk_key(current.generation, number);
            let value = store.read(Tree::State, &key)?;
            let value = value.ok_or_else(|| corrupt(&at, "the chunk is missing".to_owned()))?;
            let chunk = frame::open(&key, &value);
            bytes.put(chunk.map_err(|error| corrupt(&at, error.to_string()))?);
        }
        if bytes.len() as u64 != current.bytes {
            let reason = format!("{} bytes where {} were written", bytes.len(), current.bytes);
            return Err(corrupt("snapshot", reason));
        }
        let generation = generation.max(current.generation);
        Ok((Snapshots { current, generation }, Some(bytes.freeze())))
    }

    /// Makes bytes the current snapshot; they are durable on return. Blocks.
    ///
    /// # Errors
    /// When the store fails. Then the old snapshot holds, and the node must not go on.
    pub fn save(&mut self, store: &dyn Store, bytes: &Bytes) -> Result<(), StoreError> {
        let chunks: Vec<Bytes> =
            (0..bytes.len()).step_by(CHUNK_BYTES).map(|at| slice(bytes, at)).collect();
        self.generation += 1;
        let next = Current {
            generation: self.generation,
            chunks: u32::try_from(chunks.len()).unwrap_or(u32::MAX),
            bytes: bytes.len() as u64,
        };
        let mut number = 0;
        for group in chunks.chunks(BATCH_CHUNKS) {
            let mut batch = Batch::new();
            for chunk in group {
                let key = chunk_key(next.generation, number);
                let value = frame::seal(&key, chunk);
                batch.set(key, value);
                number += 1;
            }
            store.write(Tree::State, batch)?;
        }
        let mut batch = Batch::new();
        batch.set(CURRENT, frame::seal(CURRENT, &next.encode()));
        store.write(Tree::State, batch)?;
        self.current = next;
        self.remove_others(store)
    }

    fn remove_others(&self, store: &dyn Store) -> Result<(), StoreError> {
        let keep = self.current.generation;
        let (first, end) = (chunk_key(0, 0), chunk_key(u64::MAX, u32::MAX));
        let ranges = [(first, chunk_key(keep, 0)), (chunk_key(keep + 1, 0), end)];
        for (from, below) in ranges {
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
}

/// Finds the highest generation that has chunks. There are two at most, so two scans do.
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

fn slice(bytes: &Bytes, at: usize) -> Bytes {
    bytes.slice(at..bytes.len().min(at + CHUNK_BYTES))
}

fn chunk_key(generation: u64, number: u32) -> Bytes {
    [&b"c"[..], &generation.to_be_bytes(), &number.to_be_bytes()].concat().into()
}

const _: () = assert!(CHUNK_BYTES <= frame::BODY_BYTES_MAX);
