//! No two leases of one job live at a time, and no node has more than it can draw.

use super::{Checker, ensure};
use crate::history::{Answered, Asked, Fact};
use std::collections::BTreeMap;

/// Remembers the leases that live, and the processes that may hold some.
#[derive(Default)]
pub(super) struct Leases {
    live: BTreeMap<u32, Lease>,
    nodes: BTreeMap<u64, (u64, u32)>,
}

struct Lease {
    token: u64,
    node: u64,
}

impl Checker for Leases {
    fn see(&mut self, fact: &Fact) -> Result<(), String> {
        match fact {
            Fact::Applied { command, reply: Answered::Assigned { token }, .. } => {
                let Asked::Assign { job, node, incarnation } = command else {
                    return Err(format!("{command:?} was answered with a token"));
                };
                self.grant(*job, Lease { token: *token, node: *node }, *incarnation)
            }
            Fact::Applied { command, reply: Answered::Done, .. } => {
                self.end(command);
                Ok(())
            }
            Fact::LeaseLost { job, token } => {
                let lost = self.live.remove(job).map(|lease| lease.token);
                ensure(lost == Some(*token), || format!("job {job} lost {token}, it had {lost:?}"))
            }
            Fact::Final { job, phase, .. } => {
                ensure((phase == "leased") == self.live.contains_key(job), || {
                    format!("job {job} ends as {phase}; its lease is of another opinion")
                })
            }
            _ => Ok(()),
        }
    }
}

impl Leases {
    fn grant(&mut self, job: u32, lease: Lease, incarnation: u64) -> Result<(), String> {
        let Lease { token, node } = lease;
        let (current, slots) = self.nodes.get(&node).copied().unwrap_or((0, 0));
        ensure(current == incarnation, || {
            format!("job {job} was leased to process {incarnation} of node {node} at {current}")
        })?;
        let held = self.live.values().filter(|lease| lease.node == node).count();
        ensure(held < slots as usize, || {
            format!("job {job} was leased to node {node}, which holds {held} on {slots} slots")
        })?;
        let before = self.live.insert(job, lease);
        ensure(before.is_none(), || {
            let before = before.expect("there was one").token;
            format!("job {job} has lease {token} beside {before}")
        })
    }

    fn end(&mut self, command: &Asked) {
        match command {
            Asked::Complete { job, token, .. }
            | Asked::Fail { job, token, .. }
            | Asked::Revoke { job, token } => {
                if self.live.get(job).is_some_and(|lease| lease.token == *token) {
                    self.live.remove(job);
                }
            }
            Asked::Cancel { job } => {
                self.live.remove(job);
            }
            Asked::Register { node, incarnation, slots } => {
                self.nodes.insert(*node, (*incarnation, *slots));
            }
            Asked::Submit { .. }
            | Asked::Assign { .. }
            | Asked::Forget { .. }
            | Asked::Release { .. }
            | Asked::Raise { .. }
            | Asked::Set { .. }
            | Asked::Other(_) => {}
        }
    }
}
