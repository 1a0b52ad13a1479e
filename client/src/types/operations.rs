//! What operators ask of a cluster and of one peer.

use std::collections::BTreeMap;

use super::NodeId;

/// A change of what the cluster knows of a member; what is left out stays as it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MemberUpdate {
    /// Whether it gets no new jobs.
    pub draining: Option<bool>,
    /// Labels to set. `region` and `zone` have a meaning.
    pub labels_set: BTreeMap<String, String>,
    /// Labels to take away.
    pub labels_removed: Vec<String>,
    /// For whoever reads the trail of the cluster later; may be empty.
    pub why: String,
}

/// Who takes a member's place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Replacement {
    /// A peer that is to be started at this address.
    Address(String),
    /// A learner that is there already.
    Learner(NodeId),
}

/// A snapshot that one peer took.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// Where it stands in the log.
    pub log_index: u64,
    /// How large it is.
    pub bytes: u64,
}

/// What one peer's state is at a mark.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MarkDigest {
    /// Who says so.
    pub node: NodeId,
    /// Equal on all peers, or one of them has another history.
    pub state_digest: String,
}

/// What a peer finds out about itself and its way to the others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Examination {
    /// Who was asked.
    pub node: NodeId,
    /// One a check.
    pub findings: Vec<Finding>,
    /// Its clock when it answered, milliseconds since 1970.
    pub wall_ms: u64,
}

/// What one check found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// What was looked at.
    pub check: String,
    /// How bad it is.
    pub level: FindingLevel,
    /// What was found.
    pub found: String,
    /// What to do; empty when there is nothing to do.
    pub fix: String,
}

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FindingLevel {
    /// As it should be.
    Ok,
    /// It works, and somebody should look.
    Warn,
    /// It does not work.
    Fail,
}

impl FindingLevel {
    /// The lower-case word for it.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warn => "warn",
            Self::Fail => "fail",
        }
    }
}
