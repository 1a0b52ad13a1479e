//! Who works on a job, and the token that makes a late answer harmless.
//!
//! A lease holds no deadline: the leader's reaper judges silence and proposes `Revoke`. Whatever
//! the former holder says afterwards carries an old token and is refused.

use crate::reply::LogIndex;
use crate::roster::NodeId;
use std::fmt;

/// The log index of the Assign entry that granted a lease. Tokens of one job strictly rise; 0 is
/// never granted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FencingToken(pub u64);

impl FencingToken {
    /// Returns the token of a lease granted by the entry at this index.
    pub fn of(index: LogIndex) -> FencingToken {
        FencingToken(index.0)
    }
}

impl fmt::Display for FencingToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// One job on one slot of one node's process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Lease {
    /// What the holder must show.
    pub token: FencingToken,
    /// The holder.
    pub node: NodeId,
    /// The holder's process; a later one does not inherit the lease.
    pub incarnation: u64,
}

/// Why a lease was taken back. It rides in the log for whoever reads it; the state treats all
/// alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RevokeReason {
    /// The holder was not heard of for too long.
    Silent,
    /// The holder leaves in good order.
    Drained,
    /// The holder's process is another one.
    Restarted,
}
