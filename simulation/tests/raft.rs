//! The eye that looks into all peers at once: what it sees in true runs passes, and each way of
//! spoiling that is found by the judge that exists for it.

#![expect(clippy::ptr_arg, reason = "mutators have one type, whether they insert or not")]

use atelier_simulation::checkers::raft::{Change, Entry, Eye, Glance, LeaderId, LogId, PROPERTIES};
use atelier_simulation::cluster::{Plan, run};
use std::collections::{BTreeMap, BTreeSet};

const SEEDS: u64 = 8;

/// A way of spoiling what was seen. It says whether there was a place for it.
struct Mutator {
    name: &'static str,
    property: &'static str,
    spoil: fn(&mut Vec<Glance>) -> bool,
}

const MUTATORS: [Mutator; 15] = [
    Mutator { name: "a vote is taken back", property: "election", spoil: vote_back },
    Mutator { name: "a leader without votes", property: "election", spoil: unelected },
    Mutator { name: "votes are not durable", property: "election", spoil: no_votes },
    Mutator { name: "a leader's second process leads", property: "election", spoil: leads_again },
    Mutator { name: "an entry differs", property: "log matching", spoil: other_entry },
    Mutator { name: "the entry before differs", property: "log matching", spoil: other_before },
    Mutator { name: "a leader's log is short", property: "leader completeness", spoil: short_log },
    Mutator {
        name: "a leader has another entry",
        property: "leader completeness",
        spoil: other_log,
    },
    Mutator { name: "an entry is on one disk alone", property: "durable quorum", spoil: one_disk },
    Mutator { name: "a committed entry is removed", property: "durable quorum", spoil: removed },
    Mutator { name: "told before committed", property: "acknowledged", spoil: told_early },
    Mutator { name: "a state differs", property: "state machine safety", spoil: other_state },
    Mutator { name: "a process goes back", property: "state machine safety", spoil: applied_back },
    Mutator { name: "members without a bridge", property: "quorum intersection", spoil: disjoint },
    Mutator { name: "members of long ago", property: "quorum intersection", spoil: old_members },
];

#[test]
fn every_mutator_is_caught_by_its_judge() {
    let mut applied: BTreeMap<&str, u64> = BTreeMap::new();
    for seed in 1..=SEEDS {
        // Among members that stay the same each spoiling is one judge's alone.
        let truth = run(&Plan { acts: Vec::new(), ..Plan::of(seed) }).glances;
        assert_eq!(Eye::judge(&truth), Ok(()), "seed {seed}");
        for Mutator { name, property, spoil } in MUTATORS {
            let mut glances = truth.clone();
            if !spoil(&mut glances) {
                continue;
            }
            *applied.entry(name).or_default() += 1;
            let (broken, why) = Eye::judge(&glances).expect_err(name);
            assert_eq!(broken, property, "seed {seed}, {name}: {why}");
        }
    }
    println!("{applied:#?}");
    for Mutator { name, .. } in MUTATORS {
        assert!(applied.get(name).is_some_and(|count| *count >= 3), "{name} had no place");
    }
}

#[test]
fn every_property_has_a_mutator() {
    let covered: BTreeSet<_> = MUTATORS.iter().map(|mutator| mutator.property).collect();
    let all: BTreeSet<_> = PROPERTIES.iter().map(|property| property.name).collect();
    assert_eq!(covered, all);
}

#[test]
fn the_eye_sees_every_kind_of_thing() {
    let glances = run(&Plan::of(1)).glances;
    let has = |fits: fn(&Glance) -> bool| glances.iter().filter(|it| fits(it)).count();
    let entries = |glance: &Glance| match glance {
        Glance::Synced { changes, .. } => changes.iter().any(|it| matches!(it, Change::Entry(_))),
        _ => false,
    };
    assert!(has(entries) > 50, "entries become durable");
    assert!(has(|it| matches!(it, Glance::Status { leads: true, .. })) > 5, "somebody leads");
    assert!(has(|it| matches!(it, Glance::Applied { .. })) > 50, "entries are applied");
    assert!(has(|it| matches!(it, Glance::Acknowledged { .. })) > 5, "clients are told");
    let members = |glance: &Glance| {
        match glance {
        Glance::Synced { changes, .. } => changes
            .iter()
            .any(|it| matches!(it, Change::Entry(Entry { members: Some(members), .. }) if members.len() == 1)),
        _ => false,
    }
    };
    assert!(has(members) >= 3, "each peer has the first membership");
}

// The mutators. Each finds the first place that fits, or the last.

fn entries_mut(glances: &mut [Glance]) -> impl Iterator<Item = (u64, &mut Entry)> {
    glances.iter_mut().flat_map(|glance| {
        let (peer, changes) = match glance {
            Glance::Synced { peer, changes } => (*peer, Some(changes)),
            _ => (0, None),
        };
        changes.into_iter().flatten().filter_map(move |change| match change {
            Change::Entry(entry) => Some((peer, entry)),
            _ => None,
        })
    })
}

/// The highest index that anybody applied, and where that was seen first.
fn last_applied(glances: &[Glance]) -> (usize, u64) {
    let applied = glances.iter().enumerate().filter_map(|(at, glance)| match glance {
        Glance::Applied { index, .. } => Some((at, *index)),
        _ => None,
    });
    let most = applied.clone().map(|(_, index)| index).max().unwrap_or(0);
    applied.into_iter().find(|(_, index)| *index == most).unwrap_or((0, 0))
}

/// Leaders in the order in which they were first seen to lead, and where.
fn leaders(glances: &[Glance]) -> Vec<(usize, LeaderId)> {
    let mut known = BTreeSet::new();
    let leads = glances.iter().enumerate().filter_map(|(at, glance)| match glance {
        Glance::Status { peer, term, leads: true, .. } => {
            Some((at, LeaderId { term: *term, node: *peer }))
        }
        _ => None,
    });
    leads.filter(|(_, leader)| known.insert(*leader)).collect()
}

fn vote_back(glances: &mut Vec<Glance>) -> bool {
    let (term, node) = (0, 0);
    let changes = vec![Change::Vote(LeaderId { term, node })];
    glances.push(Glance::Synced { peer: 1, changes });
    true
}

fn unelected(glances: &mut Vec<Glance>) -> bool {
    let Some((at, _)) = leaders(glances).first().copied() else { return false };
    let mut usurper = glances[at].clone();
    if let Glance::Status { term, .. } = &mut usurper {
        *term += 100;
    }
    glances.insert(at + 1, usurper);
    true
}

fn no_votes(glances: &mut Vec<Glance>) -> bool {
    for glance in glances.iter_mut() {
        if let Glance::Synced { changes, .. } = glance {
            changes.retain(|change| !matches!(change, Change::Vote(_)));
        }
    }
    true
}

fn leads_again(glances: &mut Vec<Glance>) -> bool {
    let Some((at, _)) = leaders(glances).first().copied() else { return false };
    let mut again = glances[at].clone();
    if let Glance::Status { life, .. } = &mut again {
        *life += 1;
    }
    glances.insert(at + 1, again);
    true
}

/// Entries that two peers have, in the order in which the second one got them.
fn shared(glances: &mut [Glance]) -> Vec<(u64, LogId)> {
    let mut first: BTreeMap<LogId, u64> = BTreeMap::new();
    let entries: Vec<(u64, LogId)> = entries_mut(glances).map(|(peer, it)| (peer, it.id)).collect();
    let is_second = |(peer, id): &(u64, LogId)| *first.entry(*id).or_insert(*peer) != *peer;
    entries.into_iter().filter(|(_, id)| id.index > 0).filter(is_second).collect()
}

fn other_entry(glances: &mut Vec<Glance>) -> bool {
    let Some((owner, id)) = shared(glances).first().copied() else { return false };
    let mut copies = entries_mut(glances).filter(|(peer, it)| (*peer, it.id) == (owner, id));
    let Some((_, entry)) = copies.next() else { return false };
    entry.digest.push('x');
    true
}

/// Another entry before one that two peers have, on the disk of one of them.
fn other_before(glances: &mut Vec<Glance>) -> bool {
    let place = glances.iter().enumerate().find_map(|(at, glance)| match glance {
        Glance::Synced { peer, changes } if at > 0 => {
            changes.iter().find_map(|change| match change {
                Change::Entry(entry) if entry.id.index > 2 => Some((at, *peer, entry.clone())),
                _ => None,
            })
        }
        _ => None,
    });
    let Some((at, peer, entry)) = place else { return false };
    // A third peer has had another log all along, but for this entry.
    let stranger = peer + 100;
    let leader = LeaderId { term: entry.id.leader.term, node: 99 };
    let id = LogId { index: entry.id.index - 1, leader };
    let before = Entry { id, digest: "another".to_owned(), members: None };
    let changes = vec![Change::Entry(before), Change::Entry(entry)];
    glances.insert(at + 1, Glance::Synced { peer: stranger, changes });
    true
}

fn short_log(glances: &mut Vec<Glance>) -> bool {
    let Some((at, _)) = leaders(glances).get(1).copied() else { return false };
    if let Glance::Status { last, .. } = &mut glances[at] {
        *last = 0;
    }
    true
}

/// A leader whose disk has another entry where one is committed: it comes with the next leadership,
/// and is no part of a quorum.
fn other_log(glances: &mut Vec<Glance>) -> bool {
    let Some((at, leader)) = leaders(glances).get(1).copied() else { return false };
    let committed = glances[..at].iter().filter_map(|glance| match glance {
        Glance::Applied { index, .. } => Some(*index),
        _ => None,
    });
    let most = committed.max().unwrap_or(0);
    // Of an earlier leader, as its own are no news to it; two have it, so it is committed.
    let mut before = glances[..at].to_vec();
    let shared = shared(&mut before).into_iter().map(|(_, id)| id).collect::<BTreeSet<_>>();
    let fits = |entry: &&mut Entry| {
        let is_earlier = entry.id.leader < leader && (3..=most).contains(&entry.id.index);
        is_earlier && shared.contains(&entry.id)
    };
    let spare = entries_mut(&mut before).map(|(_, entry)| entry).filter(fits).last().cloned();
    let Some(spare) = spare else { return false };
    let index = spare.id.index;
    // Everybody else has it, so the quorum stays one.
    let mut changes = vec![];
    for peer in 1..=5 {
        if peer != leader.node {
            changes.push(Glance::Synced { peer, changes: vec![Change::Entry(spare.clone())] });
        }
    }
    let id = LogId { index, leader: LeaderId { node: 7, ..spare.id.leader } };
    let other = Entry { id, digest: "another".to_owned(), members: None };
    changes.push(Glance::Synced { peer: leader.node, changes: vec![Change::Entry(other)] });
    // It mends its log at once, so nothing but the moment of its election is wrong.
    glances
        .insert(at + 1, Glance::Synced { peer: leader.node, changes: vec![Change::Entry(spare)] });
    glances.splice(at..at, changes);
    true
}

fn one_disk(glances: &mut Vec<Glance>) -> bool {
    let (at, index) = last_applied(glances);
    let keeper = entries_mut(glances).find(|(_, it)| it.id.index == index).map(|(peer, _)| peer);
    for glance in &mut glances[..at] {
        if let Glance::Synced { peer, changes } = glance
            && Some(*peer) != keeper
        {
            changes.retain(|change| !matches!(change, Change::Entry(it) if it.id.index == index));
        }
    }
    index > 0
}

fn removed(glances: &mut Vec<Glance>) -> bool {
    let (_, index) = last_applied(glances);
    for peer in 1..=5 {
        glances.push(Glance::Synced { peer, changes: vec![Change::Removed(index)] });
    }
    index > 0
}

fn told_early(glances: &mut Vec<Glance>) -> bool {
    let told = glances.iter_mut().find_map(|glance| match glance {
        Glance::Acknowledged { index } => Some(index),
        _ => None,
    });
    told.map(|index| *index += 1_000).is_some()
}

fn other_state(glances: &mut Vec<Glance>) -> bool {
    let mut known = BTreeSet::new();
    let second = glances.iter_mut().find_map(|glance| match glance {
        Glance::Applied { index, digest, .. } if !known.insert(*index) => Some(digest),
        _ => None,
    });
    second.map(|digest| digest.push('x')).is_some()
}

fn applied_back(glances: &mut Vec<Glance>) -> bool {
    let applied = glances.iter().enumerate().filter_map(|(at, glance)| match glance {
        Glance::Applied { peer, life, index, .. } => Some((at, (*peer, *life), *index)),
        _ => None,
    });
    let applied: Vec<_> = applied.collect();
    let first = applied.first().copied();
    let Some((first_at, who, first_index)) = first else { return false };
    let later = applied.iter().find(|(_, it, index)| *it == who && *index > first_index);
    let Some((later_at, ..)) = later else { return false };
    let again = glances[first_at].clone();
    glances.insert(later_at + 1, again);
    true
}

fn members_of(glances: &mut [Glance]) -> Option<Entry> {
    entries_mut(glances).find(|(_, it)| it.members.is_some()).map(|(_, it)| it.clone())
}

fn disjoint(glances: &mut Vec<Glance>) -> bool {
    let Some(first) = members_of(glances) else { return false };
    let id = LogId { index: 1_000_000, ..first.id };
    let members = Some(vec![[7, 8, 9].into()]);
    let change = Change::Entry(Entry { id, digest: "members".to_owned(), members });
    glances.push(Glance::Synced { peer: 1, changes: vec![change] });
    true
}

fn old_members(glances: &mut Vec<Glance>) -> bool {
    let last = glances.iter_mut().rev().find_map(|glance| match glance {
        Glance::Status { voters, committed, .. } if *committed > 0 => Some(voters),
        _ => None,
    });
    last.map(|voters| voters.pop_first()).is_some()
}
