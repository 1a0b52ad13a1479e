//! Takes leases back from whoever does not work on them.
//!
//! Owns, for each lease, the last moment at which its holder was known to work on it: when this
//! leadership first saw the lease, and then each beat of the holder that lists it. A lease whose
//! moment is older than the lease time is revoked. One rule covers three faults: the holder is
//! silent, the holder never started the job, the holder forgot it. The revoked holder may still be
//! drawing; its token is old and its answer is refused.
//!
//! A holder that speaks and yet does not list its lease is shunned for a while: it would be given
//! the same job again at once, and again, for it has the most free slots of all.

use crate::liveness::Liveness;
use crate::view::View;
use atelier_state::command::{Command, Revoke};
use atelier_state::job::JobId;
use atelier_state::lease::{FencingToken, RevokeReason};
use atelier_state::roster::NodeId;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// The reaper of one leadership.
#[derive(Debug, Default)]
pub struct Reaper {
    // Exactly the leases of the view that was last decided upon, so bounded by nodes and slots.
    confirmed: BTreeMap<(JobId, FencingToken), Duration>,
    // Which process, until when. Nodes of the roster alone, so bounded as that is.
    shunned: BTreeMap<NodeId, (u64, Duration)>,
}

/// How many lease times a node is shunned.
const SHUN_LEASES: u32 = 4;

impl Reaper {
    /// Returns a Revoke for each lease that was not confirmed for longer than the lease time.
    pub fn decide(&mut self, now: Duration, view: &View, liveness: &Liveness) -> Vec<Command> {
        let mut confirmed = BTreeMap::new();
        let mut revokes = Vec::new();
        for (job, lease) in view.state.leases() {
            let key = (job, lease.token);
            let before = self.confirmed.get(&key).copied().unwrap_or(now);
            let listed = liveness.confirmed(lease.node, lease.incarnation, key);
            let last = listed.map_or(before, |at| at.max(before));
            confirmed.insert(key, last);
            if now.saturating_sub(last) > liveness.lease() {
                if liveness.is_alive(now, lease.node) {
                    let until = now + SHUN_LEASES * liveness.lease();
                    self.shunned.insert(lease.node, (lease.incarnation, until));
                }
                let reason = RevokeReason::Silent;
                revokes.push(Command::Revoke(Revoke { job, token: lease.token, reason }));
            }
        }
        self.confirmed = confirmed;
        assert_eq!(self.confirmed.len(), view.state.leased_count());
        revokes
    }

    /// Names the nodes that shall be given nothing for now. Ask after `decide`.
    pub fn shunned(&mut self, now: Duration, view: &View) -> BTreeSet<NodeId> {
        let process = |node: NodeId| view.state.node(node).map(|node| node.incarnation);
        self.shunned.retain(|node, (incarnation, until)| {
            now < *until && process(*node) == Some(*incarnation)
        });
        self.shunned.keys().copied().collect()
    }
}
