//! A job that failed at feature level 2 waits until its back-off is over.

use super::{Checker, ensure};
use crate::history::{Answered, Asked, Fact};
use std::collections::{BTreeMap, BTreeSet};

/// Remembers who waits, and which lease of each job lives: the failure of another is a repeat, or
/// one of long ago, and begins nothing.
#[derive(Default)]
pub(super) struct Backoff {
    is_raised: bool,
    waiting: BTreeSet<u32>,
    live: BTreeMap<u32, u64>,
}

impl Checker for Backoff {
    fn see(&mut self, fact: &Fact) -> Result<(), String> {
        if let Fact::LeaseLost { job, .. } = fact {
            self.live.remove(job);
        }
        let Fact::Applied { command, reply, .. } = fact else { return Ok(()) };
        match (command, reply) {
            (Asked::Raise { level: 2.. }, Answered::Done) => self.is_raised = true,
            (Asked::Fail { job, token, .. }, Answered::Done) if self.is_raised => {
                let ended = self.live.remove(job);
                self.waiting.extend((ended == Some(*token)).then_some(*job));
            }
            (Asked::Fail { job, .. } | Asked::Revoke { job, .. }, Answered::Done) => {
                self.live.remove(job);
            }
            (Asked::Release { jobs }, Answered::Done) => {
                self.waiting.retain(|job| !jobs.contains(job));
            }
            (Asked::Assign { job, .. }, Answered::Assigned { token }) => {
                self.live.insert(*job, *token);
                let waits = self.waiting.contains(job);
                ensure(!waits, || format!("job {job} was given out in its back-off"))?;
            }
            // A job that is forgotten and submitted again begins anew.
            (Asked::Submit { job, .. }, Answered::Submitted { duplicate: false, .. }) => {
                self.waiting.remove(job);
            }
            _ => {}
        }
        Ok(())
    }
}
