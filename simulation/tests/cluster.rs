//! The cluster rig: whole peers in virtual time, the same for the same seed, and no false alarm.

use atelier_simulation::cluster::{Plan, Run, run};
use std::collections::BTreeMap;

const SEEDS: u64 = 12;

fn played(seed: u64) -> Run {
    let run = run(&Plan::of(seed));
    assert_eq!(run.violation, None, "again: make reproduce RIG=cluster SEED={seed}");
    run
}

#[test]
fn seeds_hold_and_reach_every_kind_of_fault() {
    let mut faults: BTreeMap<&str, u64> = BTreeMap::new();
    let (mut accepted, mut entries) = (0, 0);
    for seed in 1..=SEEDS {
        let run = played(seed);
        for (kind, count) in run.faults {
            *faults.entry(kind).or_default() += count;
        }
        accepted += run.accepted;
        entries += run.entries;
    }
    assert_eq!(faults.len(), 10, "{faults:?}");
    assert!(accepted > 10 * SEEDS && entries > accepted, "{accepted} jobs, {entries} entries");
}

#[test]
fn the_same_seed_gives_the_same_run_to_the_last_frame() {
    for seed in [3, 5, 8] {
        assert_eq!(played(seed), played(seed), "seed {seed}");
    }
}
