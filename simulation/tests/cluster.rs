//! The cluster rig: whole peers in virtual time, the same for the same seed, and no false alarm.

use atelier_simulation::cluster::{Plan, Plant, Run, run, run_with};
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
    let (mut accepted, mut entries, mut operations) = (0, 0, 0);
    for seed in 1..=SEEDS {
        let run = played(seed);
        for (kind, count) in run.faults {
            *faults.entry(kind).or_default() += count;
        }
        accepted += run.accepted;
        entries += run.entries;
        operations += run.tally.operations;
        assert_eq!(run.tally.unknown, 0, "seed {seed}: the search decides histories of this size");
    }
    assert!(operations > 80 * SEEDS, "{operations} operations were judged");
    assert_eq!(faults.len(), 10, "{faults:?}");
    assert!(accepted > 10 * SEEDS && entries > accepted, "{accepted} jobs, {entries} entries");
}

#[test]
fn the_same_seed_gives_the_same_run_to_the_last_frame() {
    for seed in [3, 5, 8] {
        assert_eq!(played(seed), played(seed), "seed {seed}");
    }
}

/// The property that a planted bug breaks in the first seed that shows it.
fn found(plant: Plant, among: std::ops::RangeInclusive<u64>) -> &'static str {
    let broken = |seed| run_with(&Plan::of(seed), Some(plant)).violation;
    let (property, _) = among
        .clone()
        .find_map(broken)
        .unwrap_or_else(|| panic!("{plant:?} was not found by any of the seeds {among:?}"));
    property
}

#[test]
fn disks_that_lie_are_found_out() {
    // As soon as anything is committed, and not only when a crash has lost it.
    assert_eq!(found(Plant::LyingDisks, 1..=1), "durable quorum");
}

#[test]
fn disks_that_keep_no_votes_are_found_out() {
    assert_eq!(found(Plant::LostVotes, 1..=1), "election");
}

#[test]
fn a_picture_that_a_checkpoint_has_changed_is_found_out() {
    assert_eq!(found(Plant::ForgetfulEngine, 1..=60), "artifact");
}
