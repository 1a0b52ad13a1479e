//! A store in memory: what the real one is compared with, and a disk that can be told to fail.
//!
//! It keeps [`Store`]'s contract as long as the process lives. For tests and simulations; the product has no use for
//! it.

use crate::ports::{Batch, Store, StoreError, Tree};
use bytes::Bytes;
use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Ordered maps in memory. A clone is another handle of the same maps.
#[derive(Clone, Debug, Default)]
pub struct MemoryStore {
    inner: Arc<Mutex<Inner>>,
}

#[derive(Clone, Debug, Default)]
struct Inner {
    trees: BTreeMap<Tree, BTreeMap<Bytes, Bytes>>,
    writes: Vec<(Tree, Batch)>,
    writes_left: Option<usize>,
}

impl MemoryStore {
    /// Makes an empty store.
    pub fn new() -> MemoryStore {
        MemoryStore::default()
    }

    /// Copies what is stored now, as a crash at this moment would leave it. The copy does not fail.
    pub fn after_crash(&self) -> MemoryStore {
        let trees = self.inner().trees.clone();
        let inner = Inner { trees, ..Inner::default() };
        MemoryStore { inner: Arc::new(Mutex::new(inner)) }
    }

    /// Lets so many writes through and fails all that follow, for good.
    pub fn fail_after(&self, writes: usize) {
        self.inner().writes_left = Some(writes);
    }

    /// Returns the batches that were written, oldest first.
    pub fn writes(&self) -> Vec<(Tree, Batch)> {
        self.inner().writes.clone()
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Store for MemoryStore {
    fn read(&self, tree: Tree, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        Ok(self.inner().trees.get(&tree).and_then(|tree| tree.get(key)).cloned())
    }

    fn scan(
        &self,
        tree: Tree,
        from: &[u8],
        below: &[u8],
        limit: usize,
    ) -> Result<Vec<(Bytes, Bytes)>, StoreError> {
        if from >= below {
            return Ok(Vec::new());
        }
        let range = (Bound::Included(from), Bound::Excluded(below));
        let inner = self.inner();
        let pairs =
            inner.trees.get(&tree).into_iter().flat_map(|tree| tree.range::<[u8], _>(range));
        Ok(pairs.take(limit).map(|(key, value)| (key.clone(), value.clone())).collect())
    }

    fn write(&self, tree: Tree, batch: Batch) -> Result<(), StoreError> {
        batch.check_sizes()?;
        let mut inner = self.inner();
        if let Some(left) = &mut inner.writes_left {
            let Some(fewer) = left.checked_sub(1) else {
                let (place, reason) = (self.place(tree), "no space left on device".to_owned());
                return Err(StoreError::Io { place, reason });
            };
            *left = fewer;
        }
        let map = inner.trees.entry(tree).or_default();
        for (key, value) in batch.changes() {
            match value {
                Some(value) => map.insert(key.clone(), value.clone()),
                None => map.remove(key),
            };
        }
        inner.writes.push((tree, batch));
        Ok(())
    }

    fn bytes_on_disk(&self, tree: Tree) -> Result<u64, StoreError> {
        let inner = self.inner();
        let pairs = inner.trees.get(&tree).into_iter().flatten();
        Ok(pairs.map(|(key, value)| (key.len() + value.len()) as u64).sum())
    }

    fn place(&self, tree: Tree) -> String {
        format!("memory/{tree}")
    }
}
