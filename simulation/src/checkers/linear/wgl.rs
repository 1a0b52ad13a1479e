//! The search of Wing and Gong with the memory of Lowe, on the list of Horn and Kroening.
//!
//! Calls and returns stand in one list by time. The search takes a call whose operation may come next
//! out of the list, with its return, and begins anew at the head; where it meets a return first, that
//! operation should have come before, and the last choice is taken back. A set of operations and a
//! state that were tried before are not tried again. It uses no recursion, so long histories do not
//! end in a stack that is too small.
//!
//! Source: G. Lowe, "Testing for linearizability" (2017), section 4; A. Horn and D. Kroening, "Faster
//! linearizability checking via P-compositionality" (2015), algorithm 1.

use crate::operations::{Operation, Outcome};
use std::collections::BTreeSet;

/// A single copy of an object.
pub trait Model {
    /// How it is.
    type State: Clone + Ord;

    /// Returns how it is in the beginning.
    fn initial(&self) -> Self::State;

    /// Does an operation, and returns how the object is afterwards, if it could be answered so. Of one
    /// whose outcome is unknown it does what it would have done.
    fn step(&self, state: &Self::State, operation: &Operation) -> Option<Self::State>;

    /// Says whether the answer may come from the past, so that the operation has no earliest moment.
    fn is_from_the_past(&self, operation: &Operation) -> bool;
}

/// What the search found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// There is an order.
    Linearizable,
    /// There is none; what the longest attempt could not place.
    Illegal(String),
    /// The bound was reached before either was sure.
    Unknown,
}

/// Searches an order of the operations on one object, in at most so many steps.
pub fn check<M: Model>(model: &M, operations: &[&Operation], steps_max: u64) -> Verdict {
    Search::new(model, operations).run(steps_max)
}

/// A call or a return in the list.
#[derive(Clone, Copy, Debug)]
struct Entry {
    operation: usize,
    // Of a call: where the return is.
    returns: Option<usize>,
    previous: usize,
    next: usize,
}

struct Search<'a, M: Model> {
    model: &'a M,
    operations: &'a [&'a Operation],
    /// The first is the head, which stands for nothing.
    entries: Vec<Entry>,
    state: M::State,
    placed: BTreeSet<usize>,
    /// Operations that must be placed and are not.
    open: usize,
    tried: BTreeSet<(BTreeSet<usize>, M::State)>,
    /// Choices, with the state before each. One that changes nothing is never taken back alone.
    choices: Vec<(usize, M::State, bool)>,
    /// The most that were placed, and what was in the way then.
    furthest: (usize, String),
}

impl<'a, M: Model> Search<'a, M> {
    fn new(model: &'a M, operations: &'a [&'a Operation]) -> Search<'a, M> {
        // By place; a call that may be from the past comes before all others.
        let mut moments: Vec<(u64, bool, usize)> = Vec::new();
        for (at, operation) in operations.iter().enumerate() {
            let is_past = model.is_from_the_past(operation);
            moments.push((if is_past { 0 } else { operation.called.place + 1 }, false, at));
            moments.push((returned(operation).map_or(u64::MAX, |place| place + 1), true, at));
        }
        moments.sort_unstable();
        let head = Entry { operation: usize::MAX, returns: None, previous: 0, next: 0 };
        let mut entries = vec![head];
        let mut calls = vec![0; operations.len()];
        for (at, (_, is_return, operation)) in moments.into_iter().enumerate() {
            let (place, previous) = (at + 1, at);
            entries.push(Entry { operation, returns: None, previous, next: place + 1 });
            entries[previous].next = place;
            if is_return {
                entries[calls[operation]].returns = Some(place);
            } else {
                calls[operation] = place;
            }
        }
        let last = entries.len() - 1;
        entries[last].next = 0;
        let open = operations.iter().filter(|it| returned(it).is_some()).count();
        let (state, tried) = (model.initial(), BTreeSet::new());
        let (placed, choices, furthest) = (BTreeSet::new(), Vec::new(), (0, String::new()));
        Search { model, operations, entries, state, placed, open, tried, choices, furthest }
    }

    fn run(mut self, steps_max: u64) -> Verdict {
        let mut at = self.entries[0].next;
        let mut steps = 0;
        // What cannot be known need not be placed: it may never have happened.
        while self.open > 0 {
            steps += 1;
            if steps > steps_max {
                return Verdict::Unknown;
            }
            let entry = self.entries[at];
            if entry.returns.is_some() {
                let next = self.place(at);
                at = if next { self.entries[0].next } else { entry.next };
                continue;
            }
            self.note_obstacle(entry.operation);
            match self.take_back() {
                Some(next) => at = next,
                None => return Verdict::Illegal(self.furthest.1),
            }
        }
        Verdict::Linearizable
    }

    /// Places the operation of a call next, if it can be and was not tried before.
    fn place(&mut self, at: usize) -> bool {
        let operation = self.entries[at].operation;
        let asked = self.operations[operation];
        let Some(next) = self.model.step(&self.state, asked) else { return false };
        let changes = next != self.state;
        if !changes && returned(asked).is_none() {
            // It changes nothing and nobody heard of it.
            return false;
        }
        self.placed.insert(operation);
        if changes && !self.tried.insert((self.placed.clone(), next.clone())) {
            self.placed.remove(&operation);
            return false;
        }
        let before = std::mem::replace(&mut self.state, next);
        self.choices.push((at, before, changes));
        self.open -= usize::from(returned(asked).is_some());
        self.lift(at);
        true
    }

    /// Takes the last choice back, and all before it that had no alternative. Returns where to go on.
    ///
    /// An operation that changed nothing had none: what is possible without it is possible with it.
    fn take_back(&mut self) -> Option<usize> {
        while let Some((at, before, changes)) = self.choices.pop() {
            self.state = before;
            self.unlift(at);
            let operation = self.entries[at].operation;
            self.placed.remove(&operation);
            self.open += usize::from(returned(self.operations[operation]).is_some());
            if changes {
                return Some(self.entries[at].next);
            }
        }
        None
    }

    fn lift(&mut self, at: usize) {
        for at in [Some(at), self.entries[at].returns].into_iter().flatten() {
            let Entry { previous, next, .. } = self.entries[at];
            self.entries[previous].next = next;
            self.entries[next].previous = previous;
        }
    }

    fn unlift(&mut self, at: usize) {
        for at in [self.entries[at].returns, Some(at)].into_iter().flatten() {
            let Entry { previous, next, .. } = self.entries[at];
            self.entries[previous].next = at;
            self.entries[next].previous = at;
        }
    }

    fn note_obstacle(&mut self, operation: usize) {
        if self.furthest.1.is_empty() || self.placed.len() > self.furthest.0 {
            let (placed, all) = (self.placed.len(), self.operations.len());
            let detail = format!(
                "no order has a place for this, after {placed} of {all} operations: {}",
                self.operations[operation]
            );
            self.furthest = (placed, detail);
        }
    }
}

/// When the operation was over. One whose outcome is unknown may take effect ever after.
fn returned(operation: &Operation) -> Option<u64> {
    match operation.outcome {
        Outcome::Unknown(_) => None,
        Outcome::Ok { .. } | Outcome::Refused(_) => operation.returned.map(|it| it.place),
    }
}
