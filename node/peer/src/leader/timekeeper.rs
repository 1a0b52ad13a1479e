//! Ends jobs whose deadline has passed, and attempts that run for too long.
//!
//! A deadline is a moment of the wall clock, so that it means the same under every leader. How long
//! an attempt runs is measured by this leader's own monotonic clock from when it first saw the
//! lease: a new leader measures anew, so an attempt may run for up to twice its time across a
//! change of leaders, and never for less than its time.

use super::Moment;
use crate::view::View;
use atelier_state::command::{Command, Expire, Fail};
use atelier_state::job::JobId;
use atelier_state::lease::FencingToken;
use std::collections::BTreeMap;
use std::time::Duration;

/// The timekeeper of one leadership.
#[derive(Debug, Default)]
pub struct Timekeeper {
    // Leases whose job bounds its attempts, and since when they are known: bounded by slots.
    running: BTreeMap<(JobId, FencingToken), Duration>,
}

impl Timekeeper {
    /// Returns at most `limit` Expires, those first whose deadline passed first.
    pub fn expire(&self, at: Moment, view: &View, limit: usize) -> Vec<Command> {
        let passed = view.state.deadlines().take_while(|(_, deadline)| *deadline <= at.wall_ms);
        let expire = |(job, _)| Command::Expire(Expire { job, finished_ms: at.wall_ms });
        passed.take(limit).map(expire).collect()
    }

    /// Returns a Fail for each attempt that has run for longer than its job allows.
    pub fn stop(&mut self, at: Moment, view: &View) -> Vec<Command> {
        let mut running = BTreeMap::new();
        let mut fails = Vec::new();
        for (job, lease) in view.state.leases() {
            let Some(known) = view.state.job(job).filter(|job| job.submit.max_runtime_s > 0) else {
                continue;
            };
            let max_runtime_s = known.submit.max_runtime_s;
            let key = (job, lease.token);
            let since = self.running.get(&key).copied().unwrap_or(at.now);
            running.insert(key, since);
            if at.now.saturating_sub(since) > Duration::from_secs(u64::from(max_runtime_s)) {
                let error = format!("the attempt ran longer than max_runtime_s {max_runtime_s}");
                let (token, finished_ms) = (lease.token, at.wall_ms);
                fails.push(Command::Fail(Fail {
                    job,
                    token,
                    error,
                    permanent: false,
                    finished_ms,
                }));
            }
        }
        self.running = running;
        fails
    }

    /// How long until the earliest deadline; none when no job has one.
    pub fn next(at: Moment, view: &View) -> Option<Duration> {
        let (_, deadline_ms) = view.state.deadlines().next()?;
        Some(Duration::from_millis(deadline_ms.saturating_sub(at.wall_ms)))
    }
}
