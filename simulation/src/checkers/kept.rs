//! No accepted job is lost.

use super::{Checker, ensure};
use crate::history::{Answered, Fact};
use std::collections::BTreeSet;

/// Remembers which jobs clients were told of, and where each job was last seen.
#[derive(Default)]
pub(super) struct Kept {
    told: BTreeSet<u32>,
    forgotten: BTreeSet<u32>,
    known: BTreeSet<u32>,
}

impl Checker for Kept {
    fn see(&mut self, fact: &Fact) -> Result<(), String> {
        match fact {
            Fact::Told { reply: Answered::Submitted { job, .. }, .. } => {
                self.told.insert(*job);
            }
            Fact::Forgotten { job, phase } => {
                let is_over = matches!(phase.as_str(), "succeeded" | "failed" | "cancelled");
                ensure(is_over, || format!("job {job} was forgotten while {phase}"))?;
                self.forgotten.insert(*job);
            }
            Fact::Final { job, .. } => {
                self.known.insert(*job);
            }
            Fact::Over => {
                let lost = self.told.difference(&self.known);
                let lost: Vec<_> = lost.filter(|job| !self.forgotten.contains(job)).collect();
                ensure(lost.is_empty(), || {
                    format!("jobs {lost:?} were accepted, as clients were told, and are unknown")
                })?;
            }
            _ => {}
        }
        Ok(())
    }
}
