//! A disk that keeps what was synced and may lose what was not.
//!
//! Owns two images of each tree: what a reader sees, and what survives a crash. Between them lie
//! the batches that were written and not yet synced. A write syncs before it returns, or the log's
//! within `settled` where syncs take time, unless the
//! disk was told to lie; a crash keeps some of the batches between, always from the oldest on,
//! which the seed decides.

use super::{Damage, Image, Rng};
use atelier_peer::ports::{Batch, Store, StoreError, Tree};
use atelier_state::mutants::{self, Mutant};
use bytes::Bytes;
use futures_util::future::{BoxFuture, ready};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Told of what has just become durable. It must not use the disk.
type OnSync = Arc<dyn Fn(Tree, &[Batch]) + Send + Sync>;

/// Of one sync of a disk that takes time.
const SYNC: Duration = Duration::from_micros(500);

/// The disk of one simulated machine. It outlives the processes that open it.
#[derive(Clone, Debug)]
pub struct SimulatedDisk {
    disk: Arc<Mutex<Disk>>,
}

/// The store of one process on a disk. After a crash it fails; open the disk again.
#[derive(Debug)]
pub struct SimulatedStore {
    disk: Arc<Mutex<Disk>>,
    crashes: u64,
}

#[derive(Debug)]
struct Disk {
    rng: Rng,
    crashes: u64,
    is_lying: bool,
    // Keys that it never keeps over a crash, though it says so.
    forgets: Option<&'static [u8]>,
    // Of each sync of the log, which is acknowledged after it; none: at once.
    sync: Option<Duration>,
    failing: BTreeSet<Tree>,
    trees: BTreeMap<Tree, Images>,
    on_sync: Hook,
}

#[derive(Clone, Default)]
struct Hook(Option<OnSync>);

#[derive(Debug, Default)]
struct Images {
    seen: BTreeMap<Bytes, Bytes>,
    durable: BTreeMap<Bytes, Bytes>,
    pending: Vec<Batch>,
}

impl SimulatedDisk {
    /// Makes an empty disk.
    pub fn new(seed: u64) -> SimulatedDisk {
        let trees = Tree::ALL.into_iter().map(|tree| (tree, Images::default())).collect();
        let (rng, failing) = (Rng::of(seed, "disk"), BTreeSet::new());
        let on_sync = Hook::default();
        let disk = Disk {
            rng,
            crashes: 0,
            is_lying: false,
            forgets: None,
            sync: None,
            failing,
            trees,
            on_sync,
        };
        SimulatedDisk { disk: Arc::new(Mutex::new(disk)) }
    }

    /// Opens the disk for a process.
    pub fn open(&self) -> SimulatedStore {
        SimulatedStore { disk: self.disk.clone(), crashes: lock(&self.disk).crashes }
    }

    /// Cuts the power: what was not synced is lost but for some of the oldest batches, and every
    /// open store is dead. A failed tree works again.
    pub fn crash(&self) {
        let disk = &mut *lock(&self.disk);
        disk.crashes += 1;
        disk.failing.clear();
        for tree in Tree::ALL {
            let pending = disk.images(tree).pending.len();
            let kept = disk.rng.between(0..=u64::try_from(pending).expect("a usize fits"));
            disk.images(tree).pending.truncate(kept as usize);
            disk.sync(tree);
            let images = disk.images(tree);
            images.seen = images.durable.clone();
        }
    }

    /// Copies what would survive a crash.
    pub fn image(&self) -> Image {
        let disk = lock(&self.disk);
        Image(disk.trees.iter().map(|(tree, images)| (*tree, images.durable.clone())).collect())
    }

    /// Puts a copy into the place of what is there. Whoever has the disk open has lost it.
    pub fn put_back(&self, image: &Image) {
        let disk = &mut *lock(&self.disk);
        disk.crashes += 1;
        for (tree, durable) in &image.0 {
            let (seen, durable, pending) = (durable.clone(), durable.clone(), Vec::new());
            *disk.images(*tree) = Images { seen, durable, pending };
        }
    }

    /// Spoils an entry of the log above an index, after a crash; says whether there was one to spoil.
    pub fn damage(&self, damage: Damage, above: u64) -> bool {
        let disk = &mut *lock(&self.disk);
        let log = disk.trees.get_mut(&Tree::Log).expect("every tree has its images");
        let is_done = damage.befall(&mut log.durable, above, &mut disk.rng);
        log.seen = log.durable.clone();
        is_done
    }

    /// Makes writes fail from now on. It is unknown whether the first that fails survives a crash.
    pub fn fail(&self, tree: Tree) {
        lock(&self.disk).failing.insert(tree);
    }

    /// Makes each sync of the log take time: about half a millisecond, and so much more.
    pub fn slow(&self, by_ms: u64) {
        lock(&self.disk).sync = Some(SYNC + Duration::from_millis(by_ms));
    }

    /// Makes the disk lose a key with every crash, whatever it reported.
    pub fn forget(&self, key: &'static [u8]) {
        lock(&self.disk).forgets = Some(key);
    }

    /// Tells somebody of whatever becomes durable from now on: a tree, and its batches in order.
    pub fn on_sync(&self, told: impl Fn(Tree, &[Batch]) + Send + Sync + 'static) {
        lock(&self.disk).on_sync = Hook(Some(Arc::new(told)));
    }

    /// Makes the disk report a sync that it did not do, or stop doing so.
    pub fn lie(&self, is_lying: bool) {
        lock(&self.disk).is_lying = is_lying;
    }
}

impl Store for SimulatedStore {
    fn read(&self, tree: Tree, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        Ok(self.alive(tree)?.images(tree).seen.get(key).cloned())
    }

    fn scan(
        &self,
        tree: Tree,
        from: &[u8],
        below: &[u8],
        limit: usize,
    ) -> Result<Vec<(Bytes, Bytes)>, StoreError> {
        let mut disk = self.alive(tree)?;
        if from >= below {
            return Ok(Vec::new());
        }
        let range = Bytes::copy_from_slice(from)..Bytes::copy_from_slice(below);
        let pairs = disk.images(tree).seen.range(range).take(limit);
        Ok(pairs.map(|(key, value)| (key.clone(), value.clone())).collect())
    }

    fn write(&self, tree: Tree, batch: Batch) -> Result<(), StoreError> {
        batch.check_sizes()?;
        let mut disk = self.alive(tree)?;
        let (is_lying, is_failing) = (disk.is_lying, disk.failing.contains(&tree));
        let images = disk.images(tree);
        if is_failing {
            // The bytes may have reached the platter before the error.
            images.pending.push(batch);
            return Err(failed(tree, "injected failure"));
        }
        change(&mut images.seen, &batch);
        images.pending.push(batch);
        let is_synced_later = disk.sync.is_some() && tree == Tree::Log;
        if !is_lying && !is_synced_later {
            disk.sync(tree);
        }
        Ok(())
    }

    fn settled(&self, tree: Tree) -> BoxFuture<'static, Result<(), StoreError>> {
        let mut held = lock(&self.disk);
        let Some(sync) = held.sync.filter(|_| tree == Tree::Log) else {
            return Box::pin(ready(Ok(())));
        };
        let wait = sync.mul_f64(0.5 + held.rng.below(1_000) as f64 / 1_000.0);
        let process = SimulatedStore { disk: self.disk.clone(), crashes: self.crashes };
        Box::pin(async move {
            tokio::time::sleep(wait).await;
            let mut disk = process.alive(tree)?;
            if !disk.is_lying && !mutants::is(Mutant::FlushWithoutFdatasync) {
                disk.sync(tree);
            }
            Ok(())
        })
    }

    fn bytes_on_disk(&self, tree: Tree) -> Result<u64, StoreError> {
        let mut disk = self.alive(tree)?;
        let bytes = disk.images(tree).durable.iter().map(|(key, value)| key.len() + value.len());
        Ok(u64::try_from(bytes.sum::<usize>()).expect("a usize fits"))
    }

    fn place(&self, tree: Tree) -> String {
        format!("simulated disk, tree {tree}")
    }
}

impl SimulatedStore {
    fn alive(&self, tree: Tree) -> Result<MutexGuard<'_, Disk>, StoreError> {
        let disk = lock(&self.disk);
        if disk.crashes == self.crashes { Ok(disk) } else { Err(failed(tree, "power was cut")) }
    }
}

impl Disk {
    fn images(&mut self, tree: Tree) -> &mut Images {
        self.trees.get_mut(&tree).expect("every tree has its images")
    }

    fn sync(&mut self, tree: Tree) {
        let forgets = self.forgets;
        let images = self.images(tree);
        let mut synced = std::mem::take(&mut images.pending);
        if let Some(forgotten) = forgets {
            synced.iter_mut().for_each(|batch| *batch = without(batch, forgotten));
        }
        synced.iter().for_each(|batch| change(&mut images.durable, batch));
        if let (Hook(Some(told)), false) = (&self.on_sync, synced.is_empty()) {
            told(tree, &synced);
        }
    }
}

impl fmt::Debug for Hook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Hook").field(&self.0.is_some()).finish()
    }
}

fn without(batch: &Batch, forgotten: &[u8]) -> Batch {
    let mut kept = Batch::new();
    for (key, value) in batch.changes().filter(|(key, _)| *key != forgotten) {
        match value {
            Some(value) => kept.set(key.clone(), value.clone()),
            None => kept.remove(key.clone()),
        }
    }
    kept
}

fn change(image: &mut BTreeMap<Bytes, Bytes>, batch: &Batch) {
    for (key, value) in batch.changes() {
        match value {
            Some(value) => image.insert(key.clone(), value.clone()),
            None => image.remove(key),
        };
    }
}

fn failed(tree: Tree, reason: &str) -> StoreError {
    StoreError::Io { place: format!("simulated disk, tree {tree}"), reason: reason.to_owned() }
}

fn lock(disk: &Mutex<Disk>) -> MutexGuard<'_, Disk> {
    disk.lock().unwrap_or_else(PoisonError::into_inner)
}
