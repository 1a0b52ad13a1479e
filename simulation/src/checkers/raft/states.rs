//! Equal states at equal indexes, and no process that goes back.

use super::{Cluster, Glance, Invariant};
use crate::checkers::ensure;
use std::collections::BTreeMap;

/// Digests that are kept for comparison; older ones make room.
const DIGESTS_MAX: usize = 4_096;

/// Remembers digests by index, and how far each process had come.
#[derive(Default)]
pub(super) struct States {
    digests: BTreeMap<u64, (u64, String)>,
    applied: BTreeMap<u64, (u64, u64)>,
}

impl Invariant for States {
    fn see(&mut self, _cluster: &Cluster, glance: &Glance) -> Result<(), String> {
        let Glance::Applied { peer, life, index, digest } = glance else { return Ok(()) };
        let (known_life, known) = self.applied.insert(*peer, (*life, *index)).unwrap_or_default();
        ensure(known_life != *life || known <= *index, || {
            format!("peer {peer} went back from index {known} to {index}")
        })?;
        let new = || (*peer, digest.clone());
        let (other, known) = self.digests.entry(*index).or_insert_with(new);
        ensure(known == digest, || {
            format!("peer {peer} has {digest} at index {index}, peer {other} had {known}")
        })?;
        if self.digests.len() > DIGESTS_MAX {
            self.digests.pop_first();
        }
        Ok(())
    }
}
