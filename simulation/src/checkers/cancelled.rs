//! A job that was cancelled stays so.

use super::{Checker, ensure};
use crate::history::{Answered, Asked, Fact};
use std::collections::BTreeSet;

/// Remembers what was cancelled.
#[derive(Default)]
pub(super) struct Cancelled {
    jobs: BTreeSet<u32>,
}

impl Checker for Cancelled {
    fn see(&mut self, fact: &Fact) -> Result<(), String> {
        match fact {
            Fact::Applied { reply: Answered::Refused(_), .. } => {}
            Fact::Applied { command, .. } => return self.see_done(command),
            Fact::Forgotten { job, phase } => {
                let was_cancelled = self.jobs.remove(job);
                return ensure(!was_cancelled || phase == "cancelled", || {
                    format!("job {job} was cancelled and is forgotten as {phase}")
                });
            }
            Fact::Final { job, phase, .. } => {
                return ensure(!self.jobs.contains(job) || phase == "cancelled", || {
                    format!("job {job} was cancelled and ends as {phase}")
                });
            }
            _ => {}
        }
        Ok(())
    }
}

impl Cancelled {
    fn see_done(&mut self, command: &Asked) -> Result<(), String> {
        match command {
            Asked::Cancel { job } => {
                self.jobs.insert(*job);
                Ok(())
            }
            Asked::Assign { job, .. }
            | Asked::Complete { job, .. }
            | Asked::Fail { job, .. }
            | Asked::Revoke { job, .. } => ensure(!self.jobs.contains(job), || {
                format!("job {job} was cancelled, and {command:?} was accepted")
            }),
            Asked::Submit { .. }
            | Asked::Forget { .. }
            | Asked::Register { .. }
            | Asked::Release { .. }
            | Asked::Raise { .. }
            | Asked::Set { .. }
            | Asked::Other(_) => Ok(()),
        }
    }
}
