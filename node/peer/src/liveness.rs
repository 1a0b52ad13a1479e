//! The leader's opinion of who is alive.
//!
//! Owns the last beat of each node's process, in memory: fed by `Peer.Beat` and by the leader's own
//! supervisor, read by the leader's loops and by `Peer.Liveness`. It must not know the log, and
//! what it holds is never replicated. A clock decides which command is proposed, never what it
//! does: a wrong opinion wastes a GPU and breaks nothing.
//!
//! A new leader has heard of nobody and cannot blame anybody: it gives everybody a full lease time
//! from the moment its leadership began (as etcd does with its leases). For assignments it waits
//! until it hears.

use crate::cluster_time::{ClusterTime, millis, signed};
use atelier_state::LogIndex;
use atelier_state::job::{JobId, Phase};
use atelier_state::lease::FencingToken;
use atelier_state::limits;
use atelier_state::roster::{Node, NodeId};
use atelier_state::state::State;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::watch;

/// Leases that one beat may list. Filled by a worker; what is beyond is dropped, since no node
/// holds more.
pub const BEAT_LEASES_MAX: usize = limits::SLOTS_MAX as usize;

/// A worker's sign of life.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Beat {
    /// Who.
    pub node: NodeId,
    /// Which of its processes.
    pub incarnation: u64,
    /// What it works on.
    pub running: Vec<(JobId, FencingToken)>,
    /// The highest feature level that the process understands.
    pub features: u32,
    /// What its machine's wall clock says, in milliseconds; 0 where it does not tell.
    pub wall_ms: u64,
}

/// Who was heard, and when. Times are of the port's monotonic clock.
#[derive(Clone, Debug)]
pub struct Liveness {
    lease: Duration,
    led_since: Option<Duration>,
    // Where the log stood when the leadership began.
    led_from: LogIndex,
    heard: BTreeMap<NodeId, Heard>,
}

#[derive(Clone, Debug)]
struct Heard {
    incarnation: u64,
    at: Duration,
    // Shared: whoever decides takes a copy of the whole opinion for each round.
    running: Arc<BTreeSet<(JobId, FencingToken)>>,
    features: u32,
    // What its wall clock said when the leader's monotonic one stood at zero, in milliseconds.
    clock_ms: Option<i64>,
}

impl Liveness {
    /// Makes the opinion of a node that does not lead: none.
    pub fn new(lease: Duration) -> Liveness {
        assert!(!lease.is_zero());
        Liveness { lease, led_since: None, led_from: LogIndex(0), heard: BTreeMap::new() }
    }

    /// Begins a leadership: what was heard in an earlier one counts no more.
    pub fn lead(&mut self, now: Duration) {
        self.led_since = Some(now);
        self.heard.clear();
    }

    /// Ends a leadership.
    pub fn follow(&mut self) {
        self.led_since = None;
        self.heard.clear();
    }

    /// Says whether this node leads, as far as its loops have noticed.
    pub fn leads(&self) -> bool {
        self.led_since.is_some()
    }

    /// Notes a sign of life. One of an older process than the newest heard is ignored.
    pub fn beat(&mut self, now: Duration, beat: Beat) {
        if self.led_since.is_none() {
            return;
        }
        let newest = self.heard.get(&beat.node).map_or(0, |heard| heard.incarnation);
        if beat.incarnation < newest {
            return;
        }
        let full = self.heard.len() >= limits::NODES_MAX && !self.heard.contains_key(&beat.node);
        if full {
            // More nodes than a roster holds: the silent make room for those who speak.
            let quietest = self.heard.iter().min_by_key(|(_, heard)| heard.at).map(|(id, _)| *id);
            self.heard.remove(&quietest.expect("a full table has entries"));
        }
        let running = Arc::new(beat.running.into_iter().take(BEAT_LEASES_MAX).collect());
        let (incarnation, features) = (beat.incarnation, beat.features);
        let clock_ms = (beat.wall_ms > 0).then(|| signed(beat.wall_ms).saturating_sub(millis(now)));
        let heard = Heard { incarnation, at: now, running, features, clock_ms };
        self.heard.insert(beat.node, heard);
        assert!(self.heard.len() <= limits::NODES_MAX);
    }

    /// Returns how far ahead of the leader's own wall clock those of the voters are that are alive, its
    /// own among them. One that did not tell is of the version before, and counts as the leader's.
    pub fn clocks(
        &self,
        now: Duration,
        (own, own_ms): (NodeId, u64),
        voters: &BTreeSet<NodeId>,
    ) -> Vec<i64> {
        let ahead =
            |clock_ms: i64| clock_ms.saturating_add(millis(now)).saturating_sub(signed(own_ms));
        let of = |voter: &NodeId| match *voter == own {
            true => Some(0),
            false => {
                let heard = self.heard.get(voter).filter(|_| self.is_alive(now, *voter))?;
                Some(heard.clock_ms.map_or(0, ahead))
            }
        };
        voters.iter().filter_map(of).collect()
    }

    /// Says whether a member answers: it was heard within the lease time, or this leadership is younger than that and
    /// the member has taken an entry of it. Whoever counts voters right after an election must not take those for dead
    /// who have elected.
    pub fn answers(&self, now: Duration, node: NodeId, matched: LogIndex) -> bool {
        let is_young = self.led_since.is_some_and(|since| now.saturating_sub(since) <= self.lease);
        self.is_alive(now, node) || (is_young && matched >= self.led_from && matched.0 > 0)
    }

    /// Says whether a node was heard within the lease time, whichever its process.
    pub fn is_alive(&self, now: Duration, node: NodeId) -> bool {
        self.heard.get(&node).is_some_and(|heard| now.saturating_sub(heard.at) <= self.lease)
    }

    /// Returns the highest feature level that a node understands; none when it was not heard within
    /// the lease time.
    pub fn features(&self, now: Duration, node: NodeId) -> Option<u32> {
        let heard = self.heard.get(&node).filter(|_| self.is_alive(now, node));
        heard.map(|heard| heard.features)
    }

    /// Names the nodes of the roster whose registered process was heard within the lease time:
    /// those that may be given work.
    pub fn alive(&self, now: Duration, state: &State) -> BTreeSet<NodeId> {
        let speaks = |id: NodeId, node: &Node| {
            let heard = self.heard.get(&id);
            heard.is_some_and(|heard| heard.incarnation == node.incarnation)
                && self.is_alive(now, id)
        };
        state.nodes().filter(|(id, node)| speaks(*id, node)).map(|(id, _)| id).collect()
    }

    /// Returns when a lease's holder last listed it; none when it never did.
    pub(crate) fn confirmed(
        &self,
        node: NodeId,
        incarnation: u64,
        lease: (JobId, FencingToken),
    ) -> Option<Duration> {
        let heard = self.heard.get(&node).filter(|heard| heard.incarnation == incarnation)?;
        heard.running.contains(&lease).then_some(heard.at)
    }

    /// Counts what a node still draws though the lease was taken away: revoked or cancelled.
    ///
    /// What it has finished itself does not count: the next beat no longer lists it.
    pub fn lingering(&self, node: NodeId, state: &State) -> usize {
        let Some(heard) = self.heard.get(&node) else { return 0 };
        let ended = |(job, token): &&(JobId, FencingToken)| {
            let Some(job) = state.job(*job) else { return true };
            let newest = job.last_token == Some(*token);
            let finished = matches!(job.phase, Phase::Succeeded | Phase::Failed);
            !newest || !(job.lease().is_some() || finished)
        };
        heard.running.iter().filter(ended).count()
    }

    /// Returns the time after which silence is judged.
    pub fn lease(&self) -> Duration {
        self.lease
    }
}

/// The opinion, shared between the service that hears and the loops that judge.
#[derive(Debug)]
pub struct LivenessTable {
    liveness: Mutex<Liveness>,
    // Counts the beats that may matter to the scheduler: a node that was not alive speaks.
    arrivals: watch::Sender<u64>,
    time: Arc<ClusterTime>,
}

impl LivenessTable {
    /// Makes an empty table.
    pub fn new(lease: Duration) -> LivenessTable {
        LivenessTable::telling(lease, Arc::default())
    }

    /// Makes an empty table whose leader tells a clock what time it is.
    pub(crate) fn telling(lease: Duration, time: Arc<ClusterTime>) -> LivenessTable {
        LivenessTable {
            time,
            liveness: Mutex::new(Liveness::new(lease)),
            arrivals: watch::Sender::new(0),
        }
    }

    /// Notes a sign of life, and wakes the leader's loop when the node was not alive before.
    pub fn beat(&self, now: Duration, beat: Beat) {
        let mut liveness = self.lock();
        let node = beat.node;
        let process =
            |liveness: &Liveness| liveness.heard.get(&node).map(|heard| heard.incarnation);
        let before = (liveness.is_alive(now, node), process(&liveness));
        liveness.beat(now, beat);
        let after = (liveness.is_alive(now, node), process(&liveness));
        drop(liveness);
        if before != after {
            self.arrivals.send_modify(|count| *count += 1);
        }
    }

    /// The cluster's time, as far as this peer knows.
    pub(crate) fn time(&self) -> &ClusterTime {
        &self.time
    }

    /// Wakes at arrivals.
    pub(crate) fn arrivals(&self) -> watch::Receiver<u64> {
        self.arrivals.subscribe()
    }

    /// Copies the opinion out.
    pub fn get(&self) -> Liveness {
        self.lock().clone()
    }

    pub(crate) fn lead(&self, now: Duration, from: LogIndex) {
        self.time.lead();
        let mut liveness = self.lock();
        liveness.lead(now);
        liveness.led_from = from;
    }

    pub(crate) fn follow(&self) {
        self.lock().follow();
    }

    fn lock(&self) -> MutexGuard<'_, Liveness> {
        self.liveness.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEASE: Duration = Duration::from_secs(2);

    fn at(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    fn beat(incarnation: u64) -> Beat {
        let (node, running) = (NodeId(1), Vec::new());
        Beat { node, incarnation, running, features: 1, wall_ms: 0 }
    }

    #[test]
    fn a_voter_that_has_elected_answers_before_its_first_beat() {
        let table = LivenessTable::new(Duration::from_secs(2));
        table.lead(at(100), LogIndex(7));
        let liveness = table.get();
        assert!(liveness.answers(at(100), NodeId(2), LogIndex(7)));
        assert!(!liveness.answers(at(100), NodeId(3), LogIndex(6)), "it has not elected");
        assert!(!liveness.answers(at(2101), NodeId(2), LogIndex(9)), "by now it would have spoken");
        assert!(!liveness.is_alive(at(100), NodeId(2)), "no work before it speaks");
        assert!(!LivenessTable::new(Duration::from_secs(2)).get().answers(
            at(0),
            NodeId(1),
            LogIndex(0)
        ));
    }

    #[test]
    fn a_node_is_alive_for_one_lease_after_its_beat() {
        let mut liveness = Liveness::new(LEASE);
        liveness.lead(at(0));
        liveness.beat(at(100), beat(5));
        assert!(liveness.is_alive(at(2100), NodeId(1)));
        assert!(!liveness.is_alive(at(2101), NodeId(1)));
        assert!(!liveness.is_alive(at(100), NodeId(2)));
    }

    #[test]
    fn a_beat_of_an_older_process_is_ignored() {
        let mut liveness = Liveness::new(LEASE);
        liveness.lead(at(0));
        liveness.beat(at(0), beat(5));
        liveness.beat(at(3000), beat(4));
        assert!(!liveness.is_alive(at(3000), NodeId(1)));
    }

    #[test]
    fn only_a_leader_has_an_opinion_and_a_new_one_starts_afresh() {
        let mut liveness = Liveness::new(LEASE);
        liveness.beat(at(0), beat(5));
        assert!(!liveness.is_alive(at(0), NodeId(1)));
        liveness.lead(at(0));
        liveness.beat(at(1), beat(5));
        liveness.lead(at(2));
        assert!(!liveness.is_alive(at(2), NodeId(1)));
    }

    #[test]
    fn the_table_is_bounded_and_the_quietest_makes_room() {
        let mut liveness = Liveness::new(LEASE);
        liveness.lead(at(0));
        for node in 1..=limits::NODES_MAX as u64 + 1 {
            liveness.beat(at(node), Beat { node: NodeId(node), ..beat(1) });
        }
        assert!(!liveness.is_alive(at(100), NodeId(1)));
        assert!(liveness.is_alive(at(100), NodeId(2)));
    }
}
