//! Where two logs have an entry of one index and one leader, it is the same and so are all before it.
//!
//! Along a log the leaders do not go down: whoever appends behind an entry knows of its leader.
//! By induction it is enough that each entry has one content and one predecessor, wherever and
//! whenever it is seen.

use super::{Change, Cluster, Disk, Entry, Glance, Invariant, LogId};
use crate::checkers::ensure;
use std::collections::BTreeMap;

/// Remembers every entry that was ever durable: its content, and the entry before it.
#[derive(Default)]
pub(super) struct LogMatching {
    entries: BTreeMap<LogId, (String, Option<LogId>)>,
}

impl Invariant for LogMatching {
    fn see(&mut self, cluster: &Cluster, glance: &Glance) -> Result<(), String> {
        let Glance::Synced { peer, changes } = glance else { return Ok(()) };
        let Some(disk) = cluster.disk(*peer) else { return Ok(()) };
        changes.iter().try_for_each(|change| match change {
            Change::Entry(entry) => {
                check_order(*peer, disk, entry)?;
                self.compare(*peer, disk, entry)
            }
            Change::Removed(_) | Change::Vote(_) | Change::Purged(_) => Ok(()),
        })
    }
}

fn check_order(peer: u64, disk: &Disk, entry: &Entry) -> Result<(), String> {
    let purged = disk.purged.map_or(0, |purged| purged.index);
    let at = entry.id.index;
    // One batch may write an entry and replace it; the disk is seen behind the batch.
    if disk.entries.get(&at).is_none_or(|now| now.id != entry.id) {
        return Ok(());
    }
    let around = [at.saturating_sub(1), at + 1].into_iter().filter(|index| *index > purged);
    let mut around = around.filter_map(|index| disk.entries.get(&index));
    let wrong = around.find(|it| {
        (it.id.index < at) != (it.id.leader < entry.id.leader) && it.id.leader != entry.id.leader
    });
    ensure(wrong.is_none(), || {
        let beside = wrong.map(|entry| entry.id);
        format!("peer {peer} has {beside:?} beside {:?}: no leader has written that", entry.id)
    })
}

impl LogMatching {
    fn compare(&mut self, peer: u64, disk: &Disk, entry: &Entry) -> Result<(), String> {
        let before = disk.before(entry.id.index);
        let new = || (entry.digest.clone(), before);
        let (digest, known_before) = self.entries.entry(entry.id).or_insert_with(new);
        ensure(*digest == entry.digest, || {
            format!("peer {peer} has another {:?} than a peer had before", entry.id)
        })?;
        let is_same = known_before.is_none() || before.is_none() || *known_before == before;
        ensure(is_same, || {
            format!("peer {peer} has {before:?} before {:?}, another {known_before:?}", entry.id)
        })?;
        *known_before = known_before.or(before);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Eye, LeaderId};
    use super::*;

    fn written(index: u64, term: u64) -> Change {
        let id = LogId { index, leader: LeaderId { term, node: 1 } };
        Change::Entry(Entry { id, digest: format!("{term} {index}"), members: None })
    }

    #[test]
    fn leaders_that_go_down_along_a_log_are_found_and_entries_that_are_replaced_are_fine() {
        let judged = |changes: &[Change]| {
            Eye::judge(&[Glance::Synced { peer: 1, changes: changes.to_vec() }])
        };
        let log = [written(1, 1), written(2, 1), written(3, 1)];
        assert_eq!(judged(&log), Ok(()));
        let replaced = [&log[..], &[Change::Removed(3), written(2, 2), written(3, 2)]].concat();
        assert_eq!(judged(&replaced), Ok(()));
        let left = [&log[..], &[written(2, 2)]].concat();
        assert_eq!(judged(&left).map_err(|(property, _)| property), Err("log matching"));
    }
}
