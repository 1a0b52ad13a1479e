//! The simulated ports keep the promises of the real ones, and fail as real ones do.

use atelier_peer::ports::{Batch, Clock, Entropy, Store, StoreError, Tree, contract};
use atelier_simulation::world::{SimulatedClock, SimulatedDisk, SimulatedEntropy, SimulatedStore};
use std::time::Duration;

#[test]
fn the_clock_keeps_its_contract() {
    let clock = SimulatedClock::new();
    clock.run(contract::clock(&clock));
}

#[test]
fn time_jumps_and_an_hour_costs_nothing() {
    let clock = SimulatedClock::new();
    clock.run(clock.sleep(Duration::from_secs(3600)));
    assert_eq!(clock.now(), Duration::from_secs(3600));
    // A sleep that is dropped is not waited for.
    drop(clock.sleep(Duration::from_secs(3600)));
    clock.run(clock.sleep(Duration::from_secs(1)));
    assert_eq!(clock.now(), Duration::from_secs(3601));
}

#[test]
fn the_entropy_keeps_its_contract_and_follows_its_seed() {
    contract::entropy(&SimulatedEntropy::new(1));
    let draw = |seed| {
        let mut bytes = [0; 32];
        SimulatedEntropy::new(seed).fill(&mut bytes);
        bytes
    };
    assert_eq!(draw(1), draw(1));
    assert_ne!(draw(1), draw(2));
}

#[test]
fn the_store_keeps_its_contract_over_power_cuts() {
    let disk = SimulatedDisk::new(1);
    contract::store(|before: Option<SimulatedStore>| {
        if before.is_some() {
            disk.crash();
        }
        disk.open()
    });
}

fn write(store: &SimulatedStore, number: u8) -> Result<(), StoreError> {
    let mut batch = Batch::new();
    batch.set(vec![number], vec![number]);
    batch.set(&b"last"[..], vec![number]);
    store.write(Tree::Log, batch)
}

/// Returns how many batches a reader finds, having checked that they are the oldest ones, whole.
fn survivors(store: &SimulatedStore) -> u8 {
    let pairs = store.scan(Tree::Log, b"\0", b"a", 1000).expect("scan");
    let count = u8::try_from(pairs.len()).expect("few were written");
    for (expected, (key, _)) in (1..=count).zip(&pairs) {
        assert_eq!(key[..], [expected], "a batch survived without one before it");
    }
    let last = store.read(Tree::Log, b"last").expect("read");
    assert_eq!(last.map_or(0, |value| value[0]), count, "half of a batch survived");
    count
}

#[test]
fn a_store_that_was_open_at_a_power_cut_is_dead() {
    let disk = SimulatedDisk::new(1);
    let store = disk.open();
    write(&store, 1).expect("write");
    disk.crash();
    assert!(matches!(write(&store, 2), Err(StoreError::Io { .. })));
    assert!(matches!(store.read(Tree::Log, b"last"), Err(StoreError::Io { .. })));
    assert_eq!(survivors(&disk.open()), 1);
}

#[test]
fn a_failed_write_stops_its_tree_and_may_or_may_not_survive() {
    let mut outcomes = [0; 2];
    for seed in 0..50 {
        let disk = SimulatedDisk::new(seed);
        let store = disk.open();
        write(&store, 1).expect("write");
        disk.fail(Tree::Log);
        for number in 2..=3 {
            assert!(matches!(write(&store, number), Err(StoreError::Io { .. })));
        }
        store.write(Tree::State, Batch::new()).expect("the other tree works on");
        assert_eq!(survivors(&store), 1, "a reader sees what returned");
        disk.crash();
        let store = disk.open();
        let survived = survivors(&store);
        outcomes[usize::from(survived > 1)] += 1;
        write(&store, survived + 1).expect("the tree works again");
    }
    assert!(outcomes.iter().all(|count| *count > 5), "{outcomes:?}");
}

#[test]
fn a_disk_that_lies_loses_what_was_written_last() {
    let mut lost = 0;
    for seed in 0..50 {
        let disk = SimulatedDisk::new(seed);
        let store = disk.open();
        write(&store, 1).expect("write");
        disk.lie(true);
        for number in 2..=5 {
            write(&store, number).expect("it claims success");
        }
        assert_eq!(survivors(&store), 5, "until the crash nobody can tell");
        disk.crash();
        let survived = survivors(&disk.open());
        assert!(survived >= 1, "what was synced before the lie is kept");
        lost += 5 - survived;
    }
    assert!(lost > 50, "{lost} of 200 batches were lost");
}
