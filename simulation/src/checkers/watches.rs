//! A watch tells of one job in order, tells its end, and tells nothing after that.
//!
//! Ordered: log indexes never fall, and each state follows from the one before, whichever peers told
//! them. Gap-free: what a watch may leave out are states that have passed (`node/peer/src/view.rs`: a
//! reader that is slow sees the newest one only), never the end. Resumable: the client library goes on
//! at another peer when one dies; its events are one watch here, so the order holds over that too.

use super::ensure;
use super::linear::job::{follows, is_further};
use crate::operations::{Answer, Call, Operation, Outcome, Phase, Seen};
use std::collections::BTreeMap;

/// Judges a history; each watch is a session of its own.
///
/// # Errors
/// The first event that is out of order, or the end that comes too early or too late.
pub fn check(history: &[Operation]) -> Result<(), String> {
    let mut watches: BTreeMap<u64, Watch> = BTreeMap::new();
    for operation in history.iter().filter(|operation| operation.call == Call::Watch) {
        watches.entry(operation.session).or_default().tell(operation)?;
    }
    Ok(())
}

/// What one watch has told so far.
#[derive(Default)]
struct Watch {
    last: Option<(u64, Seen)>,
    is_over: bool,
}

impl Watch {
    fn tell(&mut self, event: &Operation) -> Result<(), String> {
        let is_told = event.returned.is_some();
        ensure(!self.is_over || !is_told, || format!("the watch was over, and then: {event}"))?;
        match &event.outcome {
            Outcome::Ok { answer: Answer::Job(seen), index } => {
                self.order(event, (index.unwrap_or(0), seen))
            }
            Outcome::Ok { .. } => {
                self.is_over = true;
                let has_ended =
                    self.last.as_ref().is_some_and(|(_, seen)| seen.phase.is_terminal());
                ensure(has_ended, || format!("the watch ended before its job: {event}"))
            }
            // It gave up, or was dropped.
            Outcome::Refused(_) | Outcome::Unknown(_) => {
                self.is_over = true;
                Ok(())
            }
        }
    }

    fn order(&mut self, event: &Operation, (index, seen): (u64, &Seen)) -> Result<(), String> {
        if let Some((before_index, before)) = self.last.replace((index, seen.clone())) {
            ensure(!before.phase.is_terminal(), || format!("the end was told before: {event}"))?;
            ensure(index >= before_index, || {
                format!("index {before_index} was told before: {event}")
            })?;
            let is_called_off = seen.phase == Phase::Cancelled;
            let is_later = follows(&before, seen) || (is_called_off && is_further(&before, seen));
            ensure(is_later, || format!("{before:?} was told before: {event}"))?;
        }
        Ok(())
    }
}
