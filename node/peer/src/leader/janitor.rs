//! Forgets jobs that ended long ago, and those above the number and the bytes that are kept.
//!
//! A slice at a time, with a pause after each: whoever writes meanwhile waits for one slice at
//! most. Keys of forgotten jobs are kept until a day after their job's end, so that a client that
//! repeats itself late still gets the first answer.

use super::Moment;
use crate::view::View;
use atelier_state::command::{Command, Forget, ForgetKeys};
use atelier_state::job::JobId;
use atelier_state::limits::{ENDED_BYTES_MAX, FORGET_JOBS_MAX, FORGET_KEYS_MAX, NAME_BYTES_MAX};
use std::time::Duration;

/// Between two slices. A slice has at most 256 jobs, so 50,000 are forgotten a second: more than
/// end.
const SLICE_PAUSE: Duration = Duration::from_millis(5);
/// Keys of one slice: so few that they fit beside the other commands of a round.
const SLICE_KEYS_MAX: usize = 64;
/// A bound of what a slice takes in an entry.
pub(super) const SLICE_BYTES: usize = SLICE_KEYS_MAX * (2 * NAME_BYTES_MAX + 16);
/// For how long after its job's end an idempotency key is known, at least.
const KEY_AGE_MS: u64 = 24 * 60 * 60 * 1_000;

const _: () = assert!(SLICE_KEYS_MAX <= FORGET_KEYS_MAX);
const _: () = assert!(32 * FORGET_JOBS_MAX <= SLICE_BYTES);

/// The janitor of one leadership.
#[derive(Debug)]
pub struct Janitor {
    // Instead of the setting.
    jobs_kept: Option<usize>,
    bytes_kept: u64,
    sliced: Option<Duration>,
}

impl Default for Janitor {
    fn default() -> Janitor {
        Janitor { jobs_kept: None, bytes_kept: ENDED_BYTES_MAX, sliced: None }
    }
}

impl Janitor {
    /// Makes a janitor with another number than the setting `retention.jobs`.
    pub fn keeping(jobs_kept: usize) -> Janitor {
        Janitor { jobs_kept: Some(jobs_kept), ..Janitor::default() }
    }

    /// Makes a janitor that keeps fewer bytes of ended jobs.
    pub fn keeping_bytes(bytes_kept: u64) -> Janitor {
        Janitor { bytes_kept, ..Janitor::default() }
    }

    /// Returns one slice, of jobs or else of keys, where there is anything to forget.
    pub fn decide(&mut self, at: Moment, view: &View) -> Option<Command> {
        if self.next(at.now) > Some(Duration::ZERO) {
            return None;
        }
        // Before any age, so that what is too much goes all the same.
        let wall_ms = if at.is_agreed { at.wall_ms } else { 0 };
        let slice = self.jobs(wall_ms, view).or_else(|| keys(wall_ms, view));
        self.sliced = slice.is_some().then_some(at.now);
        slice
    }

    /// How long until the next slice may go; none when the last look found nothing.
    pub fn next(&self, now: Duration) -> Option<Duration> {
        self.sliced.map(|sliced| (sliced + SLICE_PAUSE).saturating_sub(now))
    }

    fn jobs(&self, wall_ms: u64, view: &View) -> Option<Command> {
        let settings = view.state.settings();
        let kept = self.jobs_kept.unwrap_or_else(|| settings.retention_jobs());
        let above = view.state.terminal_count().saturating_sub(kept);
        let ended_by = wall_ms.saturating_sub(settings.retention_age_s().saturating_mul(1_000));
        let oldest = view.state.terminal_oldest().take(FORGET_JOBS_MAX).enumerate();
        // In the order of their ends, so behind the first young one all are young.
        let mut bytes_above = view.state.ended_bytes().saturating_sub(self.bytes_kept);
        let slice = oldest.take_while(|(place, (_, job))| {
            let forgets = *place < above || bytes_above > 0 || job.finished_ms < ended_by;
            bytes_above = bytes_above.saturating_sub(job.bytes());
            forgets
        });
        let jobs: Vec<JobId> = slice.map(|(_, (job, _))| *job).collect();
        (!jobs.is_empty()).then_some(Command::Forget(Forget { jobs }))
    }
}

fn keys(wall_ms: u64, view: &View) -> Option<Command> {
    let ended_by = wall_ms.saturating_sub(KEY_AGE_MS);
    let old = view.state.forgotten_keys().take_while(|record| record.finished_ms < ended_by);
    let keys: Vec<_> = old.take(SLICE_KEYS_MAX).map(|record| record.key.clone()).collect();
    (!keys.is_empty()).then_some(Command::ForgetKeys(ForgetKeys { keys }))
}
