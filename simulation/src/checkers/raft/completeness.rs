//! Whoever comes to lead has every entry that was committed before.

use super::{Cluster, Glance, Invariant, LeaderId};
use crate::checkers::ensure;
use std::collections::BTreeSet;

/// Remembers the leaders that were looked at.
#[derive(Default)]
pub(super) struct Completeness {
    seen: BTreeSet<LeaderId>,
}

impl Invariant for Completeness {
    fn see(&mut self, cluster: &Cluster, glance: &Glance) -> Result<(), String> {
        let Glance::Status { peer, term, leads: true, last, .. } = glance else { return Ok(()) };
        let leader = LeaderId { term: *term, node: *peer };
        if !self.seen.insert(leader) {
            return Ok(());
        }
        let Some(disk) = cluster.disk(*peer) else { return Ok(()) };
        for (index, id) in cluster.committed_from(1) {
            let Some(id) = id.filter(|id| id.leader < leader) else { continue };
            ensure(index <= *last, || {
                format!(
                    "peer {peer} leads in term {term} with a log up to {last}; {id:?} is committed"
                )
            })?;
            // What its disk lacks may still be on the way there; what it has must be that.
            let held = disk.entries.get(&index).map(|entry| entry.id);
            ensure(held.is_none_or(|held| held == id), || {
                format!(
                    "peer {peer} leads in term {term} and has {held:?}, but {id:?} is committed"
                )
            })?;
        }
        Ok(())
    }
}
