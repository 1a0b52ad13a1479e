//! Whoever asks one process of one peer twice never sees the past after the present: monotonic reads,
//! and with them the reading of one's own writes there.
//!
//! That is as much as is promised. A peer answers from its own view, which only goes forward while it
//! runs (`node/peer/src/view.rs`); another peer's, or that of its next process, may be behind.

use super::ensure;
use super::linear::job::{follows, is_further};
use crate::operations::{Answer, Key, Operation, Phase, Seen, Server};
use std::collections::BTreeMap;

/// Judges a history.
///
/// # Errors
/// The first pair of answers that goes back.
pub fn check(history: &[Operation]) -> Result<(), String> {
    let mut served: BTreeMap<(Server, Key), Vec<&Operation>> = BTreeMap::new();
    for operation in history {
        if let Some(server) = operation.server {
            served.entry((server, operation.key)).or_default().push(operation);
        }
    }
    for operations in served.values_mut() {
        operations.sort_by_key(|operation| operation.returned);
        for (at, before) in operations.iter().enumerate() {
            for after in operations[at + 1..].iter().filter(|after| before.precedes(after)) {
                ensure(is_forward(before, after), || format!("{before}; after that {after}"))?;
            }
        }
    }
    Ok(())
}

fn is_forward(before: &Operation, after: &Operation) -> bool {
    match (before.answer(), after.answer()) {
        (Some(Answer::Job(before)), Some(Answer::Job(after))) => is_later(before, after),
        (Some(Answer::Job(_)), Some(Answer::NoJob)) => false,
        (
            Some(Answer::Settings { version: before, .. }),
            Some(Answer::Settings { version: after, .. }),
        ) => before <= after,
        _ => true,
    }
}

fn is_later(before: &Seen, after: &Seen) -> bool {
    let is_called_off = after.phase == Phase::Cancelled && !before.phase.is_terminal();
    follows(before, after) || (is_called_off && is_further(before, after))
}
