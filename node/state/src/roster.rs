//! The nodes that may hold leases.

use std::collections::BTreeMap;
use std::fmt;

/// A peer's identity. 1, 2, 3, … come from static configuration, larger ones from `AllocateNode`; 0
/// is nobody.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(pub u64);

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// What the cluster knows about a node. Whether it is alive is the leader's opinion and not kept
/// here.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Node {
    /// Where its gRPC listens, `http://host:port`.
    pub address: String,
    /// Rises with each start of the process; 0: allocated, never registered.
    pub incarnation: u64,
    /// Jobs it may hold at a time; 0 while no engine is ready.
    pub slots: u32,
    /// Determinism class of its engine.
    pub class: String,
    /// Name and digest of its model.
    pub model: String,
    /// It votes, and never has an engine.
    pub witness: bool,
    /// It gets no new jobs.
    pub draining: bool,
    /// What operators say about it. `region` and `zone` have a meaning.
    pub labels: BTreeMap<String, String>,
}

impl Node {
    /// Says whether a process has announced itself. Before that a node draws no jobs.
    pub fn is_registered(&self) -> bool {
        self.incarnation > 0
    }

    /// Says whether it may be given jobs.
    pub fn is_open(&self) -> bool {
        self.is_registered() && !self.draining && !self.witness
    }
}
