//! Nothing is given out while the queue is paused.

use super::{Checker, ensure};
use crate::history::{Answered, Asked, Fact};

/// Remembers whether it is.
#[derive(Default)]
pub(super) struct Paused {
    is_paused: bool,
}

impl Checker for Paused {
    fn see(&mut self, fact: &Fact) -> Result<(), String> {
        match fact {
            Fact::Applied { command: Asked::Set { changes }, reply: Answered::Done, .. } => {
                for change in changes {
                    match change.as_str() {
                        "queue.paused=true" => self.is_paused = true,
                        "queue.paused=false" => self.is_paused = false,
                        _ => {}
                    }
                }
                Ok(())
            }
            Fact::Applied {
                command: Asked::Assign { job, .. },
                reply: Answered::Assigned { .. },
                ..
            } => ensure(!self.is_paused, || format!("job {job} was given out in a pause")),
            _ => Ok(()),
        }
    }
}
