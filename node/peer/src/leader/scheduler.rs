//! Gives waiting jobs to workers that are alive.
//!
//! Owns the decision when; `atelier_state::placement` owns which job goes where.

use crate::liveness::Liveness;
use crate::view::View;
use atelier_state::command::Command;
use atelier_state::placement::place;
use atelier_state::roster::NodeId;
use std::collections::BTreeSet;
use std::time::Duration;

/// The scheduler of one leadership. It keeps nothing between rounds: the loop shows it no view that
/// lacks its earlier decisions.
#[derive(Debug, Default)]
pub struct Scheduler;

impl Scheduler {
    /// Returns at most `limit` Assigns, none to a node that is shunned.
    pub fn decide(
        &mut self,
        now: Duration,
        view: &View,
        liveness: &Liveness,
        shunned: &BTreeSet<NodeId>,
        limit: usize,
    ) -> Vec<Command> {
        if view.state.queued_count() == 0 {
            return Vec::new();
        }
        let alive = liveness.alive(now, &view.state);
        // An attempt that is no lease any more holds its engine up to the next step; others would wait for it.
        let held = |node: &&NodeId| {
            let slots = view.state.node(**node).map_or(0, |node| node.slots as usize);
            let lingering = liveness.lingering(**node, &view.state);
            lingering > 0 && view.state.leased_count_of(**node) + lingering >= slots
        };
        let trusted = alive.difference(shunned).filter(|node| !held(node)).copied().collect();
        place(&view.state, &trusted, limit).into_iter().map(Command::Assign).collect()
    }
}
