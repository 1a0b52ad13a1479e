//! A job of which everything is told, by log index.

use super::{Span, against_time, is_unknown, span, window};
use crate::checkers::linear::Sight;
use crate::checkers::linear::job::{self, Job};
use crate::operations::{Answer, Call, Operation, Outcome};

/// Changes of one job in one entry; more are replayed in the order in which they were asked.
const TOGETHER_MAX: usize = 5;

pub(super) fn check(operations: &[&Operation]) -> Result<(), String> {
    let (mut changes, rest): (Vec<&Operation>, Vec<&Operation>) =
        operations.iter().partition(|it| is_change(it));
    changes.sort_by_key(|it| (it.index(), it.called));
    let mut order: Vec<Span> = Vec::new();
    let mut states = vec![Job::Absent];
    for together in changes.chunk_by(|a, b| a.index() == b.index()) {
        let before = states.last().expect("there is one from the beginning").clone();
        let replayed = replay(&before, together).ok_or_else(|| {
            let first = together.first().map(ToString::to_string).unwrap_or_default();
            format!("in the order of the log a job that is {before:?} does not give: {first}")
        })?;
        for (change, after) in replayed {
            check_token(change)?;
            order.push(span(change));
            states.push(after);
        }
    }
    if let Some(at) = against_time(&order) {
        return Err(format!("the log's order is not that of time: {}", changes[at]));
    }
    // What took effect is told by the log, so what nobody knows of says nothing.
    for operation in rest.into_iter().filter(|it| !is_unknown(it)) {
        let is_past = job::is_from_the_past(Sight::Whole, operation);
        let (least, most) = window(&order, operation, is_past);
        let mut among = states[least.min(most)..=most].iter();
        if !among.any(|state| job::whole(state, operation).is_some()) {
            return Err(format!(
                "at no moment when it may have been answered is this true: {operation}"
            ));
        }
    }
    Ok(())
}

/// What the log carries a number for. A repeat of a submission changes nothing, and its number is
/// its own.
fn is_change(operation: &Operation) -> bool {
    let is_read = matches!(operation.call, Call::Read);
    matches!(operation.outcome, Outcome::Ok { .. }) && !is_read
}

/// Replays changes of one entry in some order that is possible.
fn replay<'a>(before: &Job, together: &[&'a Operation]) -> Option<Vec<(&'a Operation, Job)>> {
    let Some((first, rest)) = together.split_first() else { return Some(Vec::new()) };
    let alternatives = if together.len() <= TOGETHER_MAX { together.len() } else { 1 };
    (0..alternatives).find_map(|at| {
        let mut rest = rest.to_vec();
        let next = if at == 0 { *first } else { std::mem::replace(&mut rest[at - 1], first) };
        let after = job::whole(before, next)?;
        let mut replayed = vec![(next, after.clone())];
        replayed.extend(replay(&after, &rest)?);
        Some(replayed)
    })
}

/// A fencing token is the index of the entry that granted it.
fn check_token(change: &Operation) -> Result<(), String> {
    match (change.answer(), change.index()) {
        (Some(Answer::Leased { token }), Some(index)) if *token != index => {
            Err(format!("its token is not its index: {change}"))
        }
        _ => Ok(()),
    }
}
