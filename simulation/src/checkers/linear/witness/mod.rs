//! Whether what clients were told agrees with the order that the product itself names: log indexes,
//! fencing tokens, versions.
//!
//! Whatever changed an object is sorted by that number and replayed through the sequential model;
//! two things of one number are tried in either order, since commands that are proposed at a time
//! share an entry. The order must be that of real time. Whatever changed nothing must be true of a
//! state between what returned before it was asked and what was asked after it returned. That costs
//! O(n log n), so no history is too long for it.

mod clients;
mod settings;
mod whole;

use super::Sight;
use crate::operations::{Key, Operation, Outcome};

/// Judges one object.
///
/// # Errors
/// The first operation that does not fit, and why.
pub fn check(key: Key, operations: &[&Operation], sight: Sight) -> Result<(), String> {
    match (key, sight) {
        (Key::Settings, _) => settings::check(operations),
        (Key::Job(_), Sight::Whole) => whole::check(operations),
        (Key::Job(_), Sight::Clients) => clients::check(operations),
    }
}

/// Something that changed the object, in the order of the numbers.
#[derive(Clone, Copy, Debug)]
struct Span {
    called: u64,
    // None where nobody knows when it was over.
    returned: Option<u64>,
}

fn span(operation: &Operation) -> Span {
    let returned = operation.returned.filter(|_| !is_unknown(operation));
    Span { called: operation.called.place, returned: returned.map(|it| it.place) }
}

fn is_unknown(operation: &Operation) -> bool {
    matches!(operation.outcome, Outcome::Unknown(_))
}

/// Says where the order goes against real time: something that returned before an earlier one was
/// asked.
fn against_time(order: &[Span]) -> Option<usize> {
    let mut latest_call = 0;
    order.iter().position(|span| {
        let is_against = span.returned.is_some_and(|returned| returned < latest_call);
        latest_call = latest_call.max(span.called);
        is_against
    })
}

/// Says after how many of the changes an operation may have taken effect, at least and at most.
fn window(order: &[Span], operation: &Operation, is_from_the_past: bool) -> (usize, usize) {
    let this = span(operation);
    let came_before = |it: &Span| it.returned.is_some_and(|returned| returned < this.called);
    let came_after = |it: &Span| this.returned.is_some_and(|returned| returned < it.called);
    let least = order.iter().rposition(came_before).map_or(0, |at| at + 1);
    let most = order.iter().position(came_after).unwrap_or(order.len());
    (if is_from_the_past { 0 } else { least }, most)
}
