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
        let trusted = alive.difference(shunned).copied().collect();
        place(&view.state, &trusted, limit).into_iter().map(Command::Assign).collect()
    }
}
