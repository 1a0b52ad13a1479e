//! When all faults are over, every job ends and a fresh one succeeds.

use super::{Checker, ensure};
use crate::history::{Answered, Asked, Fact};
use std::collections::BTreeSet;

/// Remembers what was still to be done.
#[derive(Default)]
pub(super) struct Liveness {
    is_healed: bool,
    probe: Option<u32>,
    succeeded: BTreeSet<u32>,
}

impl Checker for Liveness {
    fn see(&mut self, fact: &Fact) -> Result<(), String> {
        match fact {
            Fact::Healed => self.is_healed = true,
            Fact::Probed { job } => self.probe = Some(*job),
            Fact::Applied {
                command: Asked::Complete { job, .. }, reply: Answered::Done, ..
            } => {
                self.succeeded.insert(*job);
            }
            Fact::Final { job, phase, token, .. } => {
                ensure(!matches!(phase.as_str(), "queued" | "leased"), || {
                    format!("job {job} is {phase} for ever, its last token is {token}")
                })?;
            }
            Fact::Over => {
                ensure(self.is_healed, || "the run ended before it was healed".to_owned())?;
                let probe = self.probe.ok_or("no fresh job could be submitted")?;
                ensure(self.succeeded.contains(&probe), || {
                    format!("job {probe} was fresh and did not succeed")
                })?;
            }
            _ => {}
        }
        Ok(())
    }
}
