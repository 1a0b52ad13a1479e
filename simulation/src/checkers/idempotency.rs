//! A key has one job, and so has an id.

use super::{Checker, ensure};
use crate::history::{Answered, Asked, Fact};
use std::collections::BTreeMap;

/// Remembers the job that each key leads to, and what each job asked for.
#[derive(Default)]
pub(super) struct Idempotency {
    jobs: BTreeMap<String, u32>,
    parameters: BTreeMap<u32, String>,
    // From feature level 2 on keys outlive their jobs.
    is_raised: bool,
    outlived: BTreeMap<String, (u32, String)>,
}

impl Checker for Idempotency {
    fn see(&mut self, fact: &Fact) -> Result<(), String> {
        match fact {
            Fact::Applied {
                command: Asked::Submit { job, key, parameters },
                reply: Answered::Submitted { job: held, duplicate },
                ..
            } => self.accept(*job, key.as_deref(), parameters, (*held, *duplicate)),
            Fact::Applied {
                command: Asked::Raise { level: 2.. }, reply: Answered::Done, ..
            } => {
                self.is_raised = true;
                Ok(())
            }
            Fact::Forgotten { job, .. } => {
                self.forget(*job);
                Ok(())
            }
            _ => Ok(()),
        }
    }
}

impl Idempotency {
    fn forget(&mut self, job: u32) {
        let parameters = self.parameters.remove(&job).unwrap_or_default();
        for (key, _) in self.jobs.extract_if(.., |_, owner| *owner == job) {
            if self.is_raised {
                self.outlived.insert(key, (job, parameters.clone()));
            }
        }
    }

    fn accept(
        &mut self,
        job: u32,
        key: Option<&str>,
        parameters: &str,
        (held, duplicate): (u32, bool),
    ) -> Result<(), String> {
        let outlived = key.and_then(|key| self.outlived.get(key));
        if let Some((first, asked)) = outlived.filter(|_| !self.parameters.contains_key(&job)) {
            return ensure(duplicate && held == *first && asked == parameters, || {
                format!("job {job} with key {key:?} was answered with {held}, it is of {first}")
            });
        }
        let first = match self.parameters.contains_key(&job) {
            true => Some(job),
            false => key.and_then(|key| self.jobs.get(key)).copied(),
        };
        ensure(held == first.unwrap_or(job), || {
            format!("job {job} with key {key:?} was answered with {held}, the first is {first:?}")
        })?;
        ensure(duplicate == first.is_some(), || {
            format!("job {job} with key {key:?} was answered duplicate: {duplicate}")
        })?;
        let asked = self.parameters.entry(held).or_insert_with(|| parameters.to_owned());
        ensure(asked == parameters, || {
            format!("job {held} was answered to a request with other parameters, {parameters}")
        })?;
        if let (Some(key), None) = (key, first) {
            self.jobs.insert(key.to_owned(), job);
        }
        Ok(())
    }
}
