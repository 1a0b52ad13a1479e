//! What is on the disks, and which entries are committed.

use super::{Change, Entry, Glance, LeaderId, LogId, Membership};
use std::collections::{BTreeMap, BTreeSet};

/// Everything that the eye has seen.
#[derive(Clone, Debug, Default)]
pub struct Cluster {
    disks: BTreeMap<u64, Disk>,
    // By index, from 1 without a gap; none where no disks of a quorum held one entry.
    committed: BTreeMap<u64, Option<LeaderId>>,
    // Every membership that an entry has made.
    memberships: BTreeMap<LogId, Membership>,
}

/// What survives on one peer's disk.
#[derive(Clone, Debug, Default)]
pub struct Disk {
    /// By index.
    pub entries: BTreeMap<u64, Entry>,
    /// Whom it would follow or vote for.
    pub vote: LeaderId,
    /// Everything up to here is in its snapshot.
    pub purged: Option<LogId>,
}

impl Disk {
    /// Says whether it has an entry, or a snapshot that contains it.
    pub fn holds(&self, id: LogId) -> bool {
        let is_purged = self.purged.is_some_and(|purged| purged.index >= id.index);
        is_purged || self.entries.get(&id.index).is_some_and(|entry| entry.id == id)
    }

    /// Returns the name of the entry before an index, where it is known.
    pub fn before(&self, index: u64) -> Option<LogId> {
        let before = index.checked_sub(1)?;
        let entry = self.entries.get(&before).map(|entry| entry.id);
        entry.or(self.purged.filter(|purged| purged.index == before))
    }
}

impl Cluster {
    /// Takes in what is seen.
    pub(super) fn see(&mut self, glance: &Glance) {
        match glance {
            Glance::Synced { peer, changes } => {
                for change in changes {
                    self.change(*peer, change);
                }
            }
            Glance::Status { committed, voters, .. } => self.commit(*committed, voters),
            // What was applied was committed, though its peer may say so a moment later.
            Glance::Applied { index, .. } => self.commit(*index, &BTreeSet::new()),
            Glance::Acknowledged { .. } => {}
        }
    }

    fn change(&mut self, peer: u64, change: &Change) {
        let disk = self.disks.entry(peer).or_default();
        match change {
            Change::Entry(entry) => {
                disk.entries.insert(entry.id.index, entry.clone());
                if let Some(members) = &entry.members {
                    self.memberships.insert(entry.id, members.clone());
                }
            }
            Change::Removed(index) => {
                disk.entries.remove(index);
            }
            Change::Vote(vote) => disk.vote = *vote,
            Change::Purged(purged) => disk.purged = Some(*purged),
        }
    }

    /// Finds out which entries were committed up to an index.
    fn commit(&mut self, upto: u64, voters: &BTreeSet<u64>) {
        for index in self.committed() + 1..=upto {
            let held = self.disks.values().filter_map(|disk| disk.entries.get(&index));
            let names: BTreeSet<LogId> = held.map(|entry| entry.id).collect();
            let found = names.into_iter().find(|id| self.is_on_a_quorum(*id, voters));
            self.committed.insert(index, found.map(|id| id.leader));
        }
    }

    /// Says whether an entry is on the disks of a quorum: of the membership that held when it was
    /// written, or of one that came behind it.
    pub fn is_on_a_quorum(&self, id: LogId, voters: &BTreeSet<u64>) -> bool {
        self.memberships_from(id.index, voters)
            .iter()
            .any(|membership| self.has_quorum(membership, |disk| disk.holds(id)))
    }

    /// Says whether a majority of each set of voters has disks of a kind.
    pub fn has_quorum(&self, membership: &Membership, is_one: impl Fn(&Disk) -> bool) -> bool {
        membership.iter().all(|voters| {
            let disks = voters.iter().filter_map(|voter| self.disks.get(voter));
            2 * disks.filter(|disk| is_one(disk)).count() > voters.len()
        })
    }

    /// Returns the newest membership before an index, and all from it on. Before any was seen, the
    /// voters that a peer names.
    pub fn memberships_from(&self, index: u64, voters: &BTreeSet<u64>) -> Vec<Membership> {
        let before = self.memberships.iter().rfind(|(id, _)| id.index <= index);
        let after = self.memberships.iter().filter(|(id, _)| id.index > index);
        let known: Vec<Membership> =
            before.into_iter().chain(after).map(|(_, it)| it.clone()).collect();
        if known.is_empty() { vec![vec![voters.clone()]] } else { known }
    }

    /// Returns a peer's disk.
    pub fn disk(&self, peer: u64) -> Option<&Disk> {
        self.disks.get(&peer)
    }

    /// Returns the highest index that anybody knew as committed.
    pub fn committed(&self) -> u64 {
        self.committed.last_key_value().map_or(0, |(index, _)| *index)
    }

    /// Returns the entries that are committed, from an index on, by name; none where no quorum had
    /// one.
    pub fn committed_from(&self, index: u64) -> impl Iterator<Item = (u64, Option<LogId>)> {
        let name = |(index, leader): (&u64, &Option<LeaderId>)| {
            (*index, leader.map(|leader| LogId { index: *index, leader }))
        };
        self.committed.range(index..).map(name)
    }
}
