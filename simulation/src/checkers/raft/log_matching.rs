//! Where two logs have an entry of one index and one leader, it is the same and so are all before it.
//!
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
            Change::Entry(entry) => self.compare(*peer, disk, entry),
            Change::Removed(_) | Change::Vote(_) | Change::Purged(_) => Ok(()),
        })
    }
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
