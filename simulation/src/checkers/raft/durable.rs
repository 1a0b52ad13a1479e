//! A committed entry is on the disks of a quorum, from the moment on at which anybody knows it to be
//! committed.

use super::{Change, Cluster, Glance, Invariant};
use crate::checkers::ensure;
use std::collections::BTreeSet;

/// Remembers how far it has looked.
#[derive(Default)]
pub(super) struct Durable {
    looked: u64,
}

impl Invariant for Durable {
    fn see(&mut self, cluster: &Cluster, glance: &Glance) -> Result<(), String> {
        for (index, id) in cluster.committed_from(self.looked + 1) {
            self.looked = index;
            ensure(id.is_some(), || {
                format!(
                    "index {index} is committed, and no quorum has one entry there on its disks"
                )
            })?;
        }
        let Glance::Synced { peer, changes } = glance else { return Ok(()) };
        let index_of = |change: &Change| match change {
            Change::Entry(entry) => Some(entry.id.index),
            Change::Removed(index) => Some(*index),
            Change::Vote(_) | Change::Purged(_) => None,
        };
        let Some(first) = changes.iter().filter_map(index_of).min() else { return Ok(()) };
        let purged = cluster.disk(*peer).and_then(|disk| disk.purged).map_or(0, |it| it.index);
        // What a snapshot contains may go; all else that is committed must stay.
        for (_, id) in cluster.committed_from(first.max(purged + 1)) {
            let Some(id) = id else { continue };
            let still_there = cluster.is_on_a_quorum(id, &BTreeSet::new());
            ensure(still_there, || {
                format!("{id:?} was committed, and peer {peer} was one of the quorum that had it")
            })?;
        }
        Ok(())
    }
}
