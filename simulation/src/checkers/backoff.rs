//! A job that failed at feature level 2 waits until its back-off is over.

use super::{Checker, ensure};
use crate::history::{Answered, Asked, Fact};
use std::collections::{BTreeMap, BTreeSet};

/// Remembers who waits, and under which token each job failed last.
#[derive(Default)]
pub(super) struct Backoff {
    is_raised: bool,
    waiting: BTreeSet<u32>,
    failed: BTreeMap<u32, u64>,
}

impl Checker for Backoff {
    fn see(&mut self, fact: &Fact) -> Result<(), String> {
        let Fact::Applied { command, reply, .. } = fact else { return Ok(()) };
        match (command, reply) {
            (Asked::Raise { level: 2.. }, Answered::Done) => self.is_raised = true,
            (Asked::Fail { job, token, .. }, Answered::Done) if self.is_raised => {
                // A repeat of one that was counted begins nothing.
                let before = self.failed.insert(*job, *token);
                self.waiting.extend((before != Some(*token)).then_some(*job));
            }
            (Asked::Release { jobs }, Answered::Done) => {
                self.waiting.retain(|job| !jobs.contains(job));
            }
            (Asked::Assign { job, .. }, Answered::Assigned { .. }) => {
                let waits = self.waiting.contains(job);
                ensure(!waits, || format!("job {job} was given out in its back-off"))?;
            }
            // A job that is forgotten and submitted again begins anew.
            (Asked::Submit { job, .. }, Answered::Submitted { duplicate: false, .. }) => {
                self.waiting.remove(job);
                self.failed.remove(job);
            }
            _ => {}
        }
        Ok(())
    }
}
