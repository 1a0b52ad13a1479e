//! Forgets the oldest terminal jobs above the number that is kept.

use crate::view::View;
use atelier_state::command::{Command, Forget};
use atelier_state::limits::{FORGET_JOBS_MAX, JOBS_KEPT};

/// The janitor of one leadership.
#[derive(Debug)]
pub struct Janitor {
    jobs_kept: usize,
}

impl Default for Janitor {
    fn default() -> Janitor {
        Janitor::keeping(JOBS_KEPT)
    }
}

impl Janitor {
    /// Makes a janitor with another number, at most `JOBS_KEPT`.
    pub fn keeping(jobs_kept: usize) -> Janitor {
        assert!(jobs_kept <= JOBS_KEPT);
        Janitor { jobs_kept }
    }

    /// Returns one Forget when there is anything to forget.
    pub fn decide(&mut self, view: &View) -> Option<Command> {
        let above = view.state.terminal_count().saturating_sub(self.jobs_kept);
        if above == 0 {
            return None;
        }
        let oldest = view.state.terminal_oldest().take(above.min(FORGET_JOBS_MAX));
        Some(Command::Forget(Forget { jobs: oldest.map(|(job, _)| *job).collect() }))
    }
}
