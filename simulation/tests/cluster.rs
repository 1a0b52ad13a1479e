//! The cluster rig: whole peers in virtual time, the same for the same seed, and no false alarm.

use atelier_simulation::cluster::{Event, Fault, FaultKind, Plan, Plant, Run, run, run_with};
use atelier_simulation::world::Damage;
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
    assert!(faults.len() >= 11, "{faults:?}");
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

/// A plan without faults but for this one, under a load that makes entries all the while.
fn calm(seed: u64, fault: Fault) -> Plan {
    let mut plan = Plan { faults: vec![fault], acts: Vec::new(), ..Plan::of(seed) };
    plan.shape.snapshot_entries = 10_000;
    plan
}

#[test]
fn an_older_copy_of_a_disk_is_found_out_while_the_same_leader_leads() {
    let mut found_out = 0;
    for seed in 1..=6 {
        for peer in 1..=3 {
            let kind = FaultKind::OldDisk { peer };
            let run = run(&calm(seed, Fault { at_ms: 4_000, for_ms: 8_000, kind }));
            assert_eq!(run.violation, None, "seed {seed}, peer {peer}");
            let tells = |event: &Event| matches!(event, Event::Fault { text, .. } if text.contains("found out"));
            found_out += run.events.iter().filter(|(_, event)| tells(event)).count();
        }
    }
    // A leader's copy, or one as new as the disk, is none that anybody could tell.
    println!("{found_out} of 18 older copies were found out");
    assert!(found_out >= 6, "{found_out}");
}

#[test]
fn an_entry_that_was_written_wrong_is_found_out_however_it_was() {
    for how in Damage::ALL {
        for seed in 1..=3 {
            let kind = FaultKind::Damage { peer: 1 + seed % 3, how };
            let run = run(&calm(seed, Fault { at_ms: 9_000, for_ms: 2_000, kind }));
            assert_eq!(run.violation, None, "seed {seed}, {how:?}");
        }
    }
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
