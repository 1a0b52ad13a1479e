//! Forgets the oldest terminal jobs above the number that is kept.

use crate::view::View;
use atelier_state::command::{Command, Forget};
use atelier_state::limits::FORGET_JOBS_MAX;

/// The janitor of one leadership.
#[derive(Debug, Default)]
pub struct Janitor {
    // Instead of the setting.
    jobs_kept: Option<usize>,
}

impl Janitor {
    /// Makes a janitor with another number than the setting `retention.jobs`.
    pub fn keeping(jobs_kept: usize) -> Janitor {
        Janitor { jobs_kept: Some(jobs_kept) }
    }

    /// Returns one Forget when there is anything to forget.
    pub fn decide(&mut self, view: &View) -> Option<Command> {
        let jobs_kept = self.jobs_kept.unwrap_or_else(|| view.state.settings().retention_jobs());
        let above = view.state.terminal_count().saturating_sub(jobs_kept);
        if above == 0 {
            return None;
        }
        let oldest = view.state.terminal_oldest().take(above.min(FORGET_JOBS_MAX));
        Some(Command::Forget(Forget { jobs: oldest.map(|(job, _)| *job).collect() }))
    }
}
