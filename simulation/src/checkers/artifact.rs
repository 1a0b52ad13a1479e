//! A result is the deterministic function of the job's parameters, whoever drew it and however
//! often.

use super::{Checker, ensure};
use crate::history::{Answered, Asked, Fact};
use crate::world::{Drawing, drawn};
use std::collections::BTreeMap;

/// Remembers what each job must look like.
#[derive(Default)]
pub(super) struct Artifacts {
    expected: BTreeMap<u32, String>,
}

impl Checker for Artifacts {
    fn see(&mut self, fact: &Fact) -> Result<(), String> {
        let Fact::Applied { command, reply, .. } = fact else { return Ok(()) };
        match (command, reply) {
            (Asked::Submit { parameters, .. }, Answered::Submitted { job, duplicate: false }) => {
                let drawing = Drawing::from_bytes(parameters.as_bytes());
                let drawing = drawing.map_err(|e| format!("parameters of job {job}: {e}"))?;
                self.expected.insert(*job, blake3::hash(&drawn(drawing)).to_hex().to_string());
                Ok(())
            }
            (Asked::Complete { job, artifacts, .. }, Answered::Done) => {
                let expected = self.expected.get(job);
                ensure(artifacts.iter().eq(expected), || {
                    format!("job {job} has the result {artifacts:?}, expected {expected:?}")
                })
            }
            _ => Ok(()),
        }
    }
}
