//! Whatever a client was told of is committed, and so, by `durable`, on the disks of a quorum.

use super::{Cluster, Glance, Invariant};
use crate::checkers::ensure;

/// Needs no memory.
#[derive(Default)]
pub(super) struct Acknowledged;

impl Invariant for Acknowledged {
    fn see(&mut self, cluster: &Cluster, glance: &Glance) -> Result<(), String> {
        let Glance::Acknowledged { index } = glance else { return Ok(()) };
        let committed = cluster.committed();
        ensure(*index <= committed, || {
            format!("a client was told of index {index}; the log is committed up to {committed}")
        })
    }
}
