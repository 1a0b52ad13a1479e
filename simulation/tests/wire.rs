//! The wire rig: whole peers and the client library over simulated sockets, and no false alarm.

use atelier_simulation::cluster::{Event, Fault, FaultKind, Plan, Plant, Run};
use atelier_simulation::wire::{plan, run, run_with};
use std::collections::BTreeMap;

const SEEDS: u64 = 6;

fn played(plan: &Plan) -> Run {
    let run = run(plan);
    let seed = plan.shape.seed;
    assert_eq!(run.violation, None, "again: make reproduce RIG=wire SEED={seed}");
    assert_eq!(run.tally.unknown, 0, "seed {seed}: the search decides histories of this size");
    run
}

#[test]
fn seeds_hold_and_are_judged() {
    let mut faults: BTreeMap<&str, u64> = BTreeMap::new();
    let (mut accepted, mut entries, mut calls, mut operations) = (0, 0, 0, 0);
    for seed in 1..=SEEDS {
        let run = played(&plan(seed));
        for (kind, count) in run.faults {
            *faults.entry(kind).or_default() += count;
        }
        accepted += run.accepted;
        entries += run.entries;
        calls += run.calls;
        operations += run.tally.operations;
    }
    assert!(operations > 60 * SEEDS, "{operations} operations were judged");
    assert!(faults.len() >= 8, "{faults:?}");
    assert!(accepted > 5 * SEEDS && entries > accepted, "{accepted} jobs, {entries} entries");
    assert!(calls > entries, "{calls} calls went over the wire");
}

/// A plan without faults but for this one, and not long.
fn calm(seed: u64, fault: Fault) -> Plan {
    let mut plan = Plan { faults: vec![fault], ..plan(seed) };
    plan.shape.heal_ms = 15_000;
    plan.wishes.retain(|wish| wish.at_ms < 13_000);
    plan.deeds.retain(|deed| deed.at_ms < 15_000);
    plan
}

/// How often another one leads than before.
fn successions(run: &Run) -> usize {
    let leaders = run.events.iter().filter_map(|(_, event)| match event {
        Event::Leads { machine, .. } => Some(*machine),
        _ => None,
    });
    let leaders: Vec<u64> = leaders.collect();
    leaders.windows(2).filter(|pair| pair[0] != pair[1]).count()
}

#[test]
fn a_leader_that_falls_silent_is_succeeded_whatever_silences_it() {
    let silenced = |kind: fn(u64) -> FaultKind| {
        let run = |peer| played(&calm(3, Fault { at_ms: 4_000, for_ms: 5_000, kind: kind(peer) }));
        (1..=plan(3).shape.peers).map(|peer| successions(&run(peer))).sum::<usize>()
    };
    // One of the peers leads, and nothing else disturbs it.
    assert!(silenced(|peer| FaultKind::Isolate { peer }) >= 1);
    assert!(silenced(|peer| FaultKind::Pause { peer }) >= 1);
    assert!(silenced(|peer| FaultKind::Crash { peer }) >= 1);
}

#[test]
fn a_power_cut_ends_every_process_and_every_one_starts_again() {
    let run = played(&calm(2, Fault { at_ms: 6_000, for_ms: 1_500, kind: FaultKind::PowerCut }));
    let count = |is_one: fn(&Event) -> bool| {
        run.events.iter().filter(|(_, event)| is_one(event)).count() as u64
    };
    let (starts, ends) = (
        count(|event| matches!(event, Event::Starts { .. })),
        count(|event| matches!(event, Event::Dies { .. })),
    );
    let peers = plan(2).shape.peers;
    assert_eq!((starts, ends), (2 * peers, peers));
}

#[test]
fn disks_that_lie_are_found_out() {
    let violation = run_with(&plan(1), Some(Plant::LyingDisks)).violation;
    assert_eq!(violation.map(|(property, _)| property), Some("durable quorum"));
}
