//! No work is done more often than leases were lost.

use super::{Checker, ensure};
use crate::history::{Answered, Asked, Fact};
use std::collections::{BTreeMap, BTreeSet};

/// Counts for each job how often it was begun and how often it lost a lease.
#[derive(Default)]
pub(super) struct Executions {
    granted: BTreeSet<(u32, u64)>,
    begun: BTreeSet<(u32, u64)>,
    executions: BTreeMap<u32, u32>,
    losses: BTreeMap<u32, BTreeSet<u64>>,
    lives: BTreeMap<u32, usize>,
}

impl Checker for Executions {
    fn see(&mut self, fact: &Fact) -> Result<(), String> {
        match fact {
            Fact::Applied { command, reply, .. } => match (command, reply) {
                (Asked::Assign { job, .. }, Answered::Assigned { token }) => {
                    self.granted.insert((*job, *token));
                }
                (Asked::Fail { job, token, .. } | Asked::Revoke { job, token }, Answered::Done) => {
                    self.lose(*job, *token)
                }
                _ => {}
            },
            Fact::LeaseLost { job, token } => self.lose(*job, *token),
            // Submitted once more, a forgotten job is another one.
            Fact::Forgotten { job, .. } => {
                *self.lives.entry(*job).or_insert(1) += 1;
            }
            Fact::Began { node, job, token, .. } => return self.begin(*node, *job, *token),
            _ => {}
        }
        Ok(())
    }
}

impl Executions {
    // A repeat of Fail or Revoke is answered as the first; a set counts it once.
    fn lose(&mut self, job: u32, token: u64) {
        self.losses.entry(job).or_default().insert(token);
    }

    fn begin(&mut self, node: u64, job: u32, token: u64) -> Result<(), String> {
        ensure(self.granted.contains(&(job, token)), || {
            format!("node {node} began job {job} under token {token}, which was never granted")
        })?;
        ensure(self.begun.insert((job, token)), || {
            format!("node {node} began job {job} under token {token}, which was begun before")
        })?;
        let executions = self.executions.entry(job).or_insert(0);
        *executions += 1;
        let losses = self.losses.get(&job).map_or(0, BTreeSet::len);
        let lives = self.lives.get(&job).copied().unwrap_or(1);
        ensure(*executions as usize <= lives + losses, || {
            format!("job {job} is begun {executions} times and lost {losses} leases")
        })
    }
}
