//! Whether what clients were told can be put into one order that a single copy of the object could
//! have followed, and that agrees with the real order of those that did not overlap.
//!
//! Owns two ways to find out. [`wgl`] searches for such an order and believes no index; [`witness`]
//! takes the order that log indexes and versions name and replays it. Neither knows of the other but
//! for the sequential models, [`job`] and [`register`]. Where one accepts what the other refuses one
//! of them is wrong, which is as bad as a violation: [`judge`] says so.
//!
//! Linearizability is local (Herlihy and Wing, 1990, theorem 1), so each key is judged alone.
//!
//! Where the product promises less, less is demanded. `GetJob`, `GetSettings`, `Watch` and `Await` are
//! served from the peer's own view, so what they show may be past: such a read may stand anywhere
//! before its return. That a job does not exist is a promise again (`Gateway::find` asks the leader).
//! What a change shows of its object is such a read, too, but one that contains the change
//! (`Gateway::show`).

pub mod job;
pub mod register;
pub mod wgl;
pub mod witness;

use super::Violation;
use crate::operations::{Answer, Call, Key, Operation};
use std::collections::BTreeMap;
use std::fmt;
use std::ops::Add;
use wgl::Verdict;

/// Steps of the search for one key; beyond it the verdict is that nobody knows.
pub const STEPS_MAX: u64 = 200_000;

/// How much of an object's life is in the history.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sight {
    /// Everything that changes it.
    Whole,
    /// What clients do. Workers and the leader change it too, unseen.
    Clients,
}

/// What came of a judgement.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Operations that were looked at.
    pub operations: u64,
    /// Objects that were judged by both ways.
    pub keys: u64,
    /// Objects that the search gave up on.
    pub unknown: u64,
}

impl Add for Tally {
    type Output = Tally;

    fn add(self, other: Tally) -> Tally {
        Tally {
            operations: self.operations + other.operations,
            keys: self.keys + other.keys,
            unknown: self.unknown + other.unknown,
        }
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Tally { operations, keys, unknown } = self;
        write!(f, "{operations} operations on {keys} objects judged by both ways, ")?;
        write!(f, "{unknown} objects by one alone")
    }
}

/// Judges a history by both ways.
///
/// # Errors
/// - `linearizable`: both ways refuse.
/// - `harness`: they disagree.
pub fn judge(history: &[Operation], sight: Sight) -> Result<Tally, Violation> {
    let mut tally = Tally::default();
    for (key, operations) in by_key(history) {
        tally.operations += operations.len() as u64;
        tally.keys += 1;
        let operations: Vec<&Operation> = operations.iter().collect();
        let searched = search(key, &operations, sight);
        let replayed = witness::check(key, &operations, sight);
        let record = operations.first().map_or(0, |it| it.called.place as usize);
        let broken = |property, detail| Err(Violation { property, detail, record });
        match (searched, replayed) {
            (Verdict::Linearizable, Ok(())) => {}
            (Verdict::Unknown, Ok(())) => tally.unknown += 1,
            (Verdict::Illegal(why), Err(also)) => {
                return broken("linearizable", format!("{key}: {why}; by the indexes: {also}"));
            }
            (Verdict::Unknown, Err(why)) => {
                let detail = format!("{key}, by the indexes: {why}; the search gave up");
                return broken("linearizable", detail);
            }
            (Verdict::Illegal(why), Ok(())) => {
                let detail = format!("{key}: the search refuses what the indexes allow: {why}");
                return broken("harness", detail);
            }
            (Verdict::Linearizable, Err(why)) => {
                let detail = format!("{key}: the search allows what the indexes refuse: {why}");
                return broken("harness", detail);
            }
        }
    }
    Ok(tally)
}

/// Judges one object by the search alone.
pub fn search(key: Key, operations: &[&Operation], sight: Sight) -> Verdict {
    match key {
        Key::Job(_) => wgl::check(&job::Model { sight }, operations, STEPS_MAX),
        Key::Settings => wgl::check(&register::Model, operations, STEPS_MAX),
    }
}

/// Groups operations by the object that they are about: a submission is about the job that its answer
/// names. What a change of settings shows of them is a read of its own.
pub fn by_key(history: &[Operation]) -> BTreeMap<Key, Vec<Operation>> {
    let mut keys: BTreeMap<Key, Vec<Operation>> = BTreeMap::new();
    for operation in history.iter().filter(|it| matters(it)) {
        let operations = keys.entry(key_of(operation)).or_default();
        operations.push(operation.clone());
        if matches!(operation.call, Call::Set { .. }) && operation.answer().is_some() {
            operations.push(Operation { call: Call::ReadSettings, ..operation.clone() });
        }
    }
    keys
}

fn key_of(operation: &Operation) -> Key {
    match operation.answer() {
        Some(Answer::Submitted { job, .. }) => Key::Job(*job),
        _ => operation.key,
    }
}

/// A read without an answer says nothing, nor does the end of a watch.
fn matters(operation: &Operation) -> bool {
    let is_read = matches!(operation.call, Call::Read | Call::Watch | Call::ReadSettings);
    !is_read || operation.answer().is_some_and(|answer| *answer != Answer::Done)
}
