//! One accepted result a job, which never changes.

use super::{Checker, ensure};
use crate::history::{Answered, Asked, Fact};
use std::collections::BTreeMap;

/// Remembers the result that was accepted for each job.
#[derive(Default)]
pub(super) struct Results {
    accepted: BTreeMap<u32, (u64, Vec<String>)>,
}

impl Checker for Results {
    fn see(&mut self, fact: &Fact) -> Result<(), String> {
        match fact {
            Fact::Applied {
                command: Asked::Complete { job, token, artifacts },
                reply: Answered::Done,
                ..
            } => self.see_accepted(*job, *token, artifacts),
            Fact::Read { job, phase: Some(phase), artifacts, .. } if phase == "succeeded" => {
                self.see_result(*job, artifacts)
            }
            Fact::Final { job, phase, artifacts, .. } if phase == "succeeded" => {
                self.see_result(*job, artifacts)
            }
            Fact::Final { job, phase, .. } => ensure(!self.accepted.contains_key(job), || {
                format!("job {job} had a result and ends as {phase}")
            }),
            Fact::Forgotten { job, phase } => {
                let had_result = self.accepted.remove(job).is_some();
                ensure(had_result == (phase == "succeeded"), || {
                    format!("job {job} was forgotten as {phase}, with a result: {had_result}")
                })
            }
            _ => Ok(()),
        }
    }
}

impl Results {
    fn see_accepted(&mut self, job: u32, token: u64, artifacts: &[String]) -> Result<(), String> {
        let new = (token, artifacts.to_vec());
        let first = self.accepted.entry(job).or_insert_with(|| new.clone());
        ensure(*first == new, || {
            format!("job {job} has the result {first:?}, and {new:?} was accepted as well")
        })
    }

    /// A view may be late: a job that was forgotten since is judged no more.
    fn see_result(&self, job: u32, artifacts: &[String]) -> Result<(), String> {
        let Some((_, accepted)) = self.accepted.get(&job) else { return Ok(()) };
        ensure(accepted == artifacts, || {
            format!("job {job} shows the result {artifacts:?}; {accepted:?} was accepted")
        })
    }
}
