//! What is wrong with the links between hosts at a moment, when several faults overlap.
//!
//! turmoil knows one state a link. Here each fault is counted: a direction is cut as long as one fault cuts it, and
//! a pair is held back as long as one holds it back. A cut loses what is on its way, so that streams over it are
//! stuck for good; what is held back arrives later, as where TCP sends again. Where both apply, the cut does.

use std::collections::BTreeMap;
use turmoil::Sim;

/// The number of the host that all clients share; peers are numbered from 1.
pub(super) const CLIENTS: u64 = 0;

/// The name of a host.
pub(super) fn name(host: u64) -> String {
    match host {
        CLIENTS => "clients".to_owned(),
        peer => format!("peer-{peer}"),
    }
}

/// The faults of all links.
#[derive(Default)]
pub(super) struct Links {
    // By whom it is from and to.
    cuts: BTreeMap<(u64, u64), u64>,
    // By the two, the lesser one first.
    holds: BTreeMap<(u64, u64), u64>,
}

impl Links {
    pub(super) fn cut(&mut self, sim: &Sim<'_>, from: u64, to: u64) {
        *self.cuts.entry((from, to)).or_default() += 1;
        self.apply(sim, from, to);
    }

    pub(super) fn mend(&mut self, sim: &Sim<'_>, from: u64, to: u64) {
        *self.cuts.entry((from, to)).or_default() -= 1;
        self.apply(sim, from, to);
    }

    pub(super) fn hold(&mut self, sim: &Sim<'_>, one: u64, other: u64) {
        *self.holds.entry((one.min(other), one.max(other))).or_default() += 1;
        self.apply(sim, one, other);
    }

    pub(super) fn release(&mut self, sim: &Sim<'_>, one: u64, other: u64) {
        *self.holds.entry((one.min(other), one.max(other))).or_default() -= 1;
        self.apply(sim, one, other);
    }

    fn apply(&self, sim: &Sim<'_>, one: u64, other: u64) {
        let is_cut = |from, to| self.cuts.get(&(from, to)).is_some_and(|count| *count > 0);
        let pair = (one.min(other), one.max(other));
        let is_held = self.holds.get(&pair).is_some_and(|count| *count > 0);
        let (a, b) = (name(one), name(other));
        let (a, b) = (a.as_str(), b.as_str());
        match (is_cut(one, other), is_cut(other, one)) {
            (true, true) => sim.partition(a, b),
            (true, false) => {
                sim.release(a, b);
                sim.partition_oneway(a, b);
            }
            (false, true) => {
                sim.release(a, b);
                sim.partition_oneway(b, a);
            }
            (false, false) if is_held => sim.hold(a, b),
            (false, false) => sim.release(a, b),
        }
    }
}
