//! Two memberships that follow one another in a log have no disjoint quorums, and every peer counts
//! votes by a membership that is not older than the newest committed one.

use super::{Change, Cluster, Disk, Entry, Glance, Invariant, LogId, Membership};
use crate::checkers::ensure;
use std::collections::{BTreeMap, BTreeSet};

/// Remembers every membership.
#[derive(Default)]
pub(super) struct Quorums {
    memberships: BTreeMap<LogId, Membership>,
}

impl Invariant for Quorums {
    fn see(&mut self, cluster: &Cluster, glance: &Glance) -> Result<(), String> {
        match glance {
            Glance::Synced { peer, changes } => {
                let Some(disk) = cluster.disk(*peer) else { return Ok(()) };
                changes.iter().try_for_each(|change| match change {
                    Change::Entry(entry) => self.follow(disk, entry),
                    Change::Removed(_) | Change::Vote(_) | Change::Purged(_) => Ok(()),
                })
            }
            // It counts by an entry as soon as it has one, and the eye sees it once it is durable.
            Glance::Status { peer, last, committed, voters, .. }
                if !voters.is_empty() && is_durable(cluster.disk(*peer), *last) =>
            {
                self.check_counted(cluster, *peer, (*committed, voters))
            }
            _ => Ok(()),
        }
    }
}

impl Quorums {
    fn follow(&mut self, disk: &Disk, entry: &Entry) -> Result<(), String> {
        let Some(members) = &entry.members else { return Ok(()) };
        let mut before = disk.entries.range(..entry.id.index).rev();
        let before = before.find_map(|(_, entry)| entry.members.as_ref());
        // What its log has no more is in its snapshot, and in other logs the same.
        let purged = disk.purged.map_or(0, |purged| purged.index);
        let mut known = self.memberships.iter().rev();
        let before = before.or_else(|| known.find(|(id, _)| id.index <= purged).map(|(_, it)| it));
        ensure(before.is_none_or(|before| !are_disjoint(before, members)), || {
            format!("{:?} makes {members:?} of {before:?}; they have disjoint quorums", entry.id)
        })?;
        self.memberships.insert(entry.id, members.clone());
        Ok(())
    }

    fn check_counted(
        &self,
        cluster: &Cluster,
        peer: u64,
        (committed, voters): (u64, &BTreeSet<u64>),
    ) -> Result<(), String> {
        let is_committed = |id: &LogId| {
            let mut at = cluster.committed_from(id.index).take(1);
            // The first is written by each peer for itself before there is a leader.
            id.index == 0 || at.any(|(_, held)| held == Some(*id))
        };
        let mut known = self.memberships.iter().rev();
        let newest = known.find(|(id, _)| id.index <= committed && is_committed(id));
        let Some((newest, _)) = newest else { return Ok(()) };
        let mut counted = self.memberships.range(newest..).map(|(_, it)| it);
        let is_one = counted
            .any(|it| it.iter().flatten().collect::<BTreeSet<_>>() == voters.iter().collect());
        ensure(is_one, || {
            format!(
                "peer {peer} counts {voters:?} as voters; the newest that are committed are of {newest:?}"
            )
        })
    }
}

/// Says whether a log that ends here is on the disk as it is.
fn is_durable(disk: Option<&Disk>, last: u64) -> bool {
    let entry = disk.and_then(|disk| disk.entries.last_key_value()).map_or(0, |(index, _)| *index);
    let purged = disk.and_then(|disk| disk.purged).map_or(0, |purged| purged.index);
    entry.max(purged) == last
}

/// Says whether two memberships could decide apart. Tries every set of voters: there are few.
fn are_disjoint(one: &Membership, other: &Membership) -> bool {
    let all: Vec<u64> =
        one.iter().chain(other).flatten().copied().collect::<BTreeSet<_>>().into_iter().collect();
    let is_quorum = |membership: &Membership, chosen: u32, is_in: bool| {
        membership.iter().all(|voters| {
            let is_chosen = |voter: &&u64| {
                let at = all.iter().position(|it| it == *voter).expect("all are there");
                (chosen >> at & 1 == 1) == is_in
            };
            2 * voters.iter().filter(is_chosen).count() > voters.len()
        })
    };
    (0..1_u32 << all.len())
        .any(|chosen| is_quorum(one, chosen, true) && is_quorum(other, chosen, false))
}
