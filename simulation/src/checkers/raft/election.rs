//! A leader id leads in one process, which the durable votes of a quorum allow.

use super::{Change, Cluster, Glance, Invariant, LeaderId};
use crate::checkers::ensure;
use std::collections::BTreeMap;

/// Remembers who led, and whom each disk has promised its vote.
#[derive(Default)]
pub(super) struct Election {
    leaders: BTreeMap<LeaderId, u64>,
    votes: BTreeMap<u64, LeaderId>,
}

impl Invariant for Election {
    fn see(&mut self, cluster: &Cluster, glance: &Glance) -> Result<(), String> {
        match glance {
            Glance::Synced { peer, changes } => {
                changes.iter().try_for_each(|change| self.promise(*peer, change))
            }
            Glance::Status { peer, life, term, leads: true, last, voters, .. } => {
                let leader = LeaderId { term: *term, node: *peer };
                let known = self.leaders.insert(leader, *life);
                ensure(known.is_none_or(|known| known == *life), || {
                    format!(
                        "peer {peer} leads in term {term} as process {life}, and did as {known:?}"
                    )
                })?;
                let mut memberships = cluster.memberships_from(*last, voters).into_iter();
                let is_elected = known.is_some()
                    || memberships.any(|it| cluster.has_quorum(&it, |disk| disk.vote >= leader));
                ensure(is_elected, || {
                    format!(
                        "peer {peer} leads in term {term} without the durable votes of a quorum"
                    )
                })
            }
            _ => Ok(()),
        }
    }
}

impl Election {
    fn promise(&mut self, peer: u64, change: &Change) -> Result<(), String> {
        let Change::Vote(vote) = change else { return Ok(()) };
        let before = self.votes.insert(peer, *vote).unwrap_or_default();
        ensure(*vote >= before, || format!("peer {peer} voted for {before:?}, then for {vote:?}"))
    }
}
