//! Only the newest token that was ever granted for a job is listened to.

use super::{Checker, ensure};
use crate::history::{Answered, Asked, Fact};
use std::collections::BTreeMap;

/// Remembers the newest token of each job.
#[derive(Default)]
pub(super) struct Fencing {
    newest: BTreeMap<u32, u64>,
}

impl Checker for Fencing {
    fn see(&mut self, fact: &Fact) -> Result<(), String> {
        let Fact::Applied { command, reply, .. } = fact else { return Ok(()) };
        match (command, reply) {
            (Asked::Assign { job, .. }, Answered::Assigned { token }) => {
                let before = self.newest.insert(*job, *token).unwrap_or(0);
                ensure(*token > before, || format!("job {job} has token {token} after {before}"))
            }
            (
                Asked::Complete { job, token, .. }
                | Asked::Fail { job, token, .. }
                | Asked::Revoke { job, token },
                Answered::Done,
            ) => {
                let newest = self.newest.get(job).copied().unwrap_or(0);
                ensure(*token == newest, || {
                    format!("token {token} of job {job} was listened to; the newest is {newest}")
                })
            }
            _ => Ok(()),
        }
    }
}
