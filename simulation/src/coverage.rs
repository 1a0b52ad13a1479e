//! What a batch of runs has gone through: faults, and what must happen sometimes. A path that no run takes is
//! a path that no run tests.

use crate::checkers::raft::{Change, Glance, LeaderId};
use crate::cluster::{Event, Run};
use crate::operations::{Answer, Call, Operation, Outcome};
use crate::scenario::{Played, World};
use crate::timeline;
use std::collections::BTreeMap;

/// What the core rig must reach.
#[rustfmt::skip]
pub const CORE: [&str; 45] = [
    "assign NoSlot", "assign NotQueued", "assign Paused", "assign StaleIncarnation", "assign Terminal",
    "assign UnknownJob", "assign granted", "cancel Terminal", "cancel UnknownJob", "cancel done",
    "complete StaleToken", "complete Terminal", "complete UnknownJob", "complete done",
    "draw crashed", "draw drawn", "draw refused", "draw stopped",
    "ends cancelled", "ends failed", "ends succeeded", "fail StaleToken", "fail done",
    "fault answer loss", "fault beat loss", "fault double proposals", "fault engine crash", "fault engine hang",
    "fault engine unfit", "fault leader change", "fault proposal loss", "fault slow proposals", "fault slow view",
    "fault worker crash", "fault worker pause",
    "forget done", "lease lost by restart", "raise done", "register done", "release done",
    "revoke StaleToken", "revoke done", "set done", "submit IdempotencyConflict", "submit repeated",
];

/// What the cluster rig must reach.
#[rustfmt::skip]
pub const CLUSTER: [&str; 34] = [
    "fault bridge", "fault clock skew", "fault crash", "fault disk failure", "fault isolated peer",
    "fault corrupted write", "fault lost write", "fault misdirected write", "fault torn write",
    "fault one-way partition", "fault pause", "fault power cut", "fault slow disk", "fault slow links",
    "operator add", "operator demote", "operator drain", "operator promote", "operator remove",
    "operator replace", "operator resume", "operator transfer",
    "a cancel comes too late", "a change of settings meets another", "a job is leased again",
    "a job is not there", "a log is purged", "a machine starts again", "a membership is joint",
    "a submission is repeated", "an entry is replaced", "an outcome is unknown", "another leader comes",
    "two lead at once",
];

/// What the wire rig must reach.
#[rustfmt::skip]
pub const WIRE: [&str; 21] = [
    "fault bridge", "fault clock skew", "fault crash", "fault disk failure", "fault isolated peer",
    "fault one-way partition", "fault pause", "fault power cut", "fault slow disk", "fault slow links",
    "a cancel comes too late", "a change of settings meets another", "a job is leased again",
    "a job is not there", "a log is purged", "a machine starts again", "a submission is repeated",
    "an entry is replaced", "an outcome is unknown", "another leader comes", "two lead at once",
];

/// What the process rig must reach, where libfaketime is there.
#[rustfmt::skip]
pub const PROCESS: [&str; 12] = [
    "fault bridge", "fault clock skew", "fault crash", "fault isolated peer", "fault one-way partition", "fault pause",
    "fault power cut", "a job is leased again", "a job is not there", "a machine starts again", "a submission is repeated",
    "an outcome is unknown",
];

/// What a rig must reach.
pub fn wanted(world: World) -> &'static [&'static str] {
    match world {
        World::Core => &CORE,
        World::Cluster => &CLUSTER,
        World::Wire => &WIRE,
        World::Process => &PROCESS,
    }
}

/// Counts what a run went through.
pub fn count(played: &Played, counts: &mut BTreeMap<String, u64>) {
    match played {
        Played::Core(run) => timeline::count(run, counts),
        Played::Cluster(run) | Played::Wire(run) | Played::Process(run) => {
            count_cluster(run, counts)
        }
        Played::Panicked(_) => {}
    }
}

fn count_cluster(run: &Run, counts: &mut BTreeMap<String, u64>) {
    let mut add = |name: String, count: u64| {
        if count > 0 {
            *counts.entry(name).or_default() += count;
        }
    };
    run.faults.iter().for_each(|(kind, count)| add(format!("fault {kind}"), *count));
    run.acts.iter().for_each(|(kind, count)| add(format!("operator {kind}"), *count));
    let told = |is_one: &dyn Fn(&Operation) -> bool| {
        run.operations.iter().filter(|operation| is_one(operation)).count() as u64
    };
    let refused =
        |it: &Operation, why: &str| matches!(&it.outcome, Outcome::Refused(w) if w == why);
    let points: [(&str, u64); 6] = [
        ("a job is leased again", told(&|it| it.seen().is_some_and(|seen| seen.leases > 1))),
        (
            "a submission is repeated",
            told(&|it| matches!(it.answer(), Some(Answer::Submitted { duplicate: true, .. }))),
        ),
        ("a job is not there", told(&|it| it.answer() == Some(&Answer::NoJob))),
        ("a cancel comes too late", told(&|it| it.call == Call::Cancel && refused(it, "Terminal"))),
        ("a change of settings meets another", told(&|it| refused(it, "StaleVersion"))),
        (
            "an outcome is unknown",
            told(&|it| it.returned.is_some() && matches!(it.outcome, Outcome::Unknown(_))),
        ),
    ];
    points.into_iter().for_each(|(name, count)| add(name.to_owned(), count));
    for (name, count) in disks(run).into_iter().chain(reigns(run)) {
        add(name.to_owned(), count);
    }
}

/// What was seen on the disks.
fn disks(run: &Run) -> [(&'static str, u64); 3] {
    let (mut purged, mut joint, mut replaced) = (0, 0, 0);
    let mut logs: BTreeMap<(u64, u64), LeaderId> = BTreeMap::new();
    for glance in &run.glances {
        let Glance::Synced { peer, changes } = glance else { continue };
        for change in changes {
            match change {
                Change::Purged(_) => purged += 1,
                Change::Removed(_) | Change::Vote(_) => {}
                Change::Entry(entry) => {
                    joint += u64::from(entry.members.as_ref().is_some_and(|it| it.len() > 1));
                    let before = logs.insert((*peer, entry.id.index), entry.id.leader);
                    replaced += u64::from(before.is_some_and(|before| before != entry.id.leader));
                }
            }
        }
    }
    [
        ("a log is purged", purged),
        ("a membership is joint", joint),
        ("an entry is replaced", replaced),
    ]
}

/// Who led and who lived.
fn reigns(run: &Run) -> [(&'static str, u64); 3] {
    let (mut leading, mut last, mut lives) = (Vec::new(), None, BTreeMap::<u64, u64>::new());
    let (mut others, mut at_once) = (0, 0);
    for (_, event) in &run.events {
        match event {
            Event::Leads { machine, .. } => {
                others += u64::from(last.is_some_and(|last| last != *machine));
                last = Some(*machine);
                leading.push(*machine);
                at_once += u64::from(leading.len() > 1);
            }
            Event::Follows { machine } | Event::Dies { machine } => {
                leading.retain(|leader| leader != machine);
            }
            Event::Starts { machine } => *lives.entry(*machine).or_default() += 1,
            Event::Fault { .. } | Event::Act { .. } | Event::ActEnds { .. } => {}
        }
    }
    let again = lives.values().map(|lives| lives - 1).sum();
    [
        ("another leader comes", others),
        ("two lead at once", at_once),
        ("a machine starts again", again),
    ]
}
