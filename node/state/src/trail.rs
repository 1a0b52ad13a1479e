//! The administrative acts that the cluster remembers.

use crate::reply::LogIndex;

/// Who asked for an administrative change, and why. For whoever reads the trail later.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Author {
    /// A name or an address.
    pub who: String,
    /// The reason that was given.
    pub why: String,
    /// Wall clock of the accepting peer in milliseconds, for display only.
    pub at_ms: u64,
}

/// One act.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct TrailRecord {
    /// Where it was agreed upon.
    pub index: LogIndex,
    /// What was done, in one line.
    pub act: String,
    /// Who asked.
    pub author: Author,
}
