//! A snapshot keeps the order of serving, so that a new leader serves in the same one.

use super::{Checker, ensure};
use crate::history::Fact;

/// Remembers the queue as it was before the snapshot.
#[derive(Default)]
pub(super) struct Order {
    before: Option<(Vec<u32>, Vec<u32>)>,
}

impl Checker for Order {
    fn see(&mut self, fact: &Fact) -> Result<(), String> {
        let Fact::Order { restored, jobs, delayed } = fact else { return Ok(()) };
        let found = (jobs.clone(), delayed.clone());
        if !restored {
            self.before = Some(found);
            return Ok(());
        }
        let before = self.before.take().ok_or("a queue was restored from nothing")?;
        ensure(before == found, || {
            format!("the queue was {before:?}, and is restored as {found:?}")
        })
    }
}
