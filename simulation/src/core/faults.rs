//! Which faults are at work now. Asked by whoever would be disturbed.

use crate::plan::{Fault, FaultKind};

/// The faults of a plan.
#[derive(Debug)]
pub(crate) struct Faults {
    faults: Vec<Fault>,
}

impl Faults {
    pub(crate) fn new(faults: Vec<Fault>) -> Faults {
        Faults { faults }
    }

    pub(crate) fn count(&self) -> usize {
        self.faults.len()
    }

    /// Returns a fault by its place in the plan.
    pub(crate) fn get(&self, at: usize) -> &Fault {
        &self.faults[at]
    }

    /// Returns when the last of the pauses ends that a node is in now.
    pub(crate) fn paused_until(&self, now_ms: u64, node: u64) -> Option<u64> {
        let pauses = self.active(now_ms).filter(|it| it.kind == FaultKind::WorkerPause { node });
        pauses.map(|it| it.at_ms + it.for_ms).max()
    }

    pub(crate) fn is_down(&self, now_ms: u64, node: u64) -> bool {
        self.active(now_ms).any(|it| it.kind == FaultKind::WorkerCrash { node })
    }

    pub(crate) fn is_unfit(&self, now_ms: u64, node: u64) -> bool {
        self.active(now_ms).any(|it| it.kind == FaultKind::EngineUnfit { node })
    }

    pub(crate) fn loses_beats(&self, now_ms: u64, node: u64) -> bool {
        self.active(now_ms).any(|it| it.kind == FaultKind::BeatLoss { node })
    }

    pub(crate) fn is_leaderless(&self, now_ms: u64) -> bool {
        self.active(now_ms).any(|it| it.kind == FaultKind::LeaderChange)
    }

    pub(crate) fn loses_proposals(&self, now_ms: u64) -> bool {
        self.active(now_ms).any(|it| it.kind == FaultKind::ProposalLoss)
    }

    pub(crate) fn loses_answers(&self, now_ms: u64) -> bool {
        self.active(now_ms).any(|it| it.kind == FaultKind::AnswerLoss)
    }

    /// Returns how much later a node sees a view.
    pub(crate) fn view_delay_ms(&self, now_ms: u64, node: u64) -> u64 {
        let delays = self.active(now_ms).filter_map(|it| match it.kind {
            FaultKind::SlowView { node: slow, by_ms } if slow == node => Some(by_ms),
            _ => None,
        });
        delays.sum()
    }

    /// Returns how much later a proposal may arrive.
    pub(crate) fn proposal_delay_ms(&self, now_ms: u64) -> Option<u64> {
        self.active(now_ms).find_map(|it| match it.kind {
            FaultKind::SlowProposals { by_ms } => Some(by_ms),
            _ => None,
        })
    }

    /// Returns how much later the copy of a proposal may arrive.
    pub(crate) fn copy_delay_ms(&self, now_ms: u64) -> Option<u64> {
        self.active(now_ms).find_map(|it| match it.kind {
            FaultKind::DoubleProposals { by_ms } => Some(by_ms),
            _ => None,
        })
    }

    fn active(&self, now_ms: u64) -> impl Iterator<Item = &Fault> {
        self.faults.iter().filter(move |it| (it.at_ms..it.at_ms + it.for_ms).contains(&now_ms))
    }
}
