//! Lets jobs whose back-off is over be given out again.
//!
//! The state notes when a back-off ends by the wall clock of whoever recorded the failure. Clocks
//! of peers differ, so a job is also let go once this leader has watched it wait for as long as the
//! back-off was to take: a wrong clock delays a retry and never holds it back for ever.

use super::Moment;
use crate::view::View;
use atelier_state::command::{Command, Release};
use atelier_state::job::{Job, JobId};
use atelier_state::limits::RELEASE_JOBS_MAX;
use std::collections::BTreeMap;
use std::time::Duration;

/// Jobs that are watched at a time, those that are due first. Filled by jobs in back-off; further
/// ones are watched when these are gone. It bounds what wrong clocks cost.
const WATCHED_MAX: usize = 1_024;
/// Between two looks at the watched jobs.
const WATCH_PAUSE: Duration = Duration::from_millis(100);

/// The back-off of one leadership.
#[derive(Debug, Default)]
pub struct Backoff {
    // Since when this leader has seen a job wait for this moment.
    watched: BTreeMap<(JobId, u64), Duration>,
    looked: Option<Duration>,
}

impl Backoff {
    /// Returns one Release when a job's back-off is over.
    pub fn decide(&mut self, at: Moment, view: &View) -> Option<Command> {
        let mut due: Vec<JobId> = view
            .state
            .delayed()
            .take_while(|(_, retry_at_ms)| *retry_at_ms <= at.wall_ms)
            .take(RELEASE_JOBS_MAX)
            .map(|(job, _)| job)
            .collect();
        let overdue = self.watch(at.now, view);
        let room = RELEASE_JOBS_MAX - due.len();
        let new = overdue.into_iter().filter(|job| !due.contains(job)).take(room);
        let new: Vec<JobId> = new.collect();
        due.extend(new);
        (!due.is_empty()).then_some(Command::Release(Release { jobs: due }))
    }

    /// How long until the earliest back-off is over; none when no job waits for that.
    pub fn next(at: Moment, view: &View) -> Option<Duration> {
        let (_, retry_at_ms) = view.state.delayed().next()?;
        Some(Duration::from_millis(retry_at_ms.saturating_sub(at.wall_ms)))
    }

    /// Names the watched jobs that have waited for as long as they were to.
    fn watch(&mut self, now: Duration, view: &View) -> Vec<JobId> {
        if self.looked.is_some_and(|looked| now.saturating_sub(looked) < WATCH_PAUSE) {
            return Vec::new();
        }
        self.looked = Some(now);
        let mut watched = BTreeMap::new();
        let mut overdue = Vec::new();
        for (id, retry_at_ms) in view.state.delayed().take(WATCHED_MAX) {
            let since = self.watched.get(&(id, retry_at_ms)).copied().unwrap_or(now);
            watched.insert((id, retry_at_ms), since);
            let delay = view.state.job(id).map_or(Duration::ZERO, delay_of);
            if now.saturating_sub(since) > delay {
                overdue.push(id);
            }
        }
        self.watched = watched;
        overdue
    }
}

/// How long a job was to wait, by the clock that also said until when.
fn delay_of(job: &Job) -> Duration {
    let failed_ms = job.attempts.last().map_or(job.retry_at_ms, |attempt| attempt.failed_ms);
    Duration::from_millis(job.retry_at_ms.saturating_sub(failed_ms))
}
