//! What must hold in every run: one property a file.
//!
//! A checker sees the history, record by record, and nothing else, so that it can be tested with a
//! history that was planted. It shares no code with the product. The audit of the state stands
//! apart: it sees states, and is the product's own.
//!
//! | property | promise | source | module |
//! |---|---|---|---|
//! | audit | S1 to S9 hold after every command | design.md 6 | `audit` |
//! | kept | every job that a client was told of is known at the end, or was forgotten after it ended | I1 | `kept` |
//! | result | one accepted result a job, which never changes | I2, I5 | `result` |
//! | fencing | only the newest token ever granted is listened to; tokens strictly rise | I3 | `fencing` |
//! | leases | no two live leases of a job; no node has more than its slots, none is given to an old process | I4 | `leases` |
//! | executions | a job is begun at most once a lease, and at most once more than it lost leases | I20 | `executions` |
//! | cancelled | a job that was cancelled stays so | I10 | `cancelled` |
//! | idempotency | a key, and an id, has one job | I9 | `idempotency` |
//! | artifact | a result is the deterministic function of the parameters | zimage.md | `artifact` |
//! | backoff | a failed job is given out again only after its release | issue 3 | `backoff` |
//! | order | a snapshot keeps who is served when, and who is in back-off | issue 3 | `order` |
//! | paused | nothing is given out in a pause | issue 3 | `paused` |
//! | liveness | after the healing every job ends, and a fresh one succeeds | I21 | `liveness` |
//!
//! Beside them stand those that judge operations, which both rigs write (`judge_operations`), and
//! those that look into all peers at once (`raft`, with a table of its own).
//!
//! | property | promise | source | module |
//! |---|---|---|---|
//! | linearizable | jobs and settings behave as one copy of each; found by a search that believes no index | Herlihy and Wing (1990), Lowe (2017); I6, I9 | `linear::wgl` |
//! | linearizable | the same; found by a replay in the order of log indexes, tokens and versions | simulation-notes.md 3 | `linear::witness` |
//! | harness | both ways find the same | simulation-notes.md 3 | `linear` |
//! | sessions | one process of a peer never answers the past after the present | I7 | `sessions` |
//! | identity | a new job has the id that it was submitted under | I9 | `identity` |
//! | watches | a watch is in order, over any number of peers, and ends with the job's end | I8 | `watches` |
//!
//! Sources I1 to I24: the invariants of simulation-notes.md, section 6.

mod artifact;
pub mod audit;
mod backoff;
mod cancelled;
mod executions;
mod fencing;
mod idempotency;
pub mod identity;
mod kept;
mod leases;
pub mod linear;
mod liveness;
mod order;
mod paused;
pub mod raft;
mod result;
pub mod sessions;
pub mod watches;

use crate::history::{Fact, Record};
use crate::operations::Operation;

/// Judges a history as it grows.
pub trait Checker: Send {
    /// Looks at the next fact.
    ///
    /// # Errors
    /// What is wrong, when the property is broken.
    fn see(&mut self, fact: &Fact) -> Result<(), String>;
}

/// A row of the table above.
pub struct Property {
    /// Its name, which is its module's.
    pub name: &'static str,
    /// Makes its checker.
    pub checker: fn() -> Box<dyn Checker>,
}

/// Every property that the history shows.
pub const PROPERTIES: [Property; 12] = [
    Property { name: "kept", checker: || Box::<kept::Kept>::default() },
    Property { name: "result", checker: || Box::<result::Results>::default() },
    Property { name: "fencing", checker: || Box::<fencing::Fencing>::default() },
    Property { name: "leases", checker: || Box::<leases::Leases>::default() },
    Property { name: "executions", checker: || Box::<executions::Executions>::default() },
    Property { name: "cancelled", checker: || Box::<cancelled::Cancelled>::default() },
    Property { name: "idempotency", checker: || Box::<idempotency::Idempotency>::default() },
    Property { name: "artifact", checker: || Box::<artifact::Artifacts>::default() },
    Property { name: "backoff", checker: || Box::<backoff::Backoff>::default() },
    Property { name: "order", checker: || Box::<order::Order>::default() },
    Property { name: "paused", checker: || Box::<paused::Paused>::default() },
    Property { name: "liveness", checker: || Box::<liveness::Liveness>::default() },
];

/// A property is broken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Which.
    pub property: &'static str,
    /// How.
    pub detail: String,
    /// The record at which it showed.
    pub record: usize,
}

/// All checkers at once.
pub struct Panel {
    checkers: Vec<(&'static str, Box<dyn Checker>)>,
}

impl Default for Panel {
    fn default() -> Panel {
        let checkers = PROPERTIES.iter().map(|it| (it.name, (it.checker)()));
        Panel { checkers: checkers.collect() }
    }
}

impl Panel {
    /// Shows a record to every checker.
    ///
    /// # Errors
    /// The first property that is broken by it, in the order of the table.
    pub fn see(&mut self, record: &Record) -> Result<(), Violation> {
        for (property, checker) in &mut self.checkers {
            checker.see(&record.fact).map_err(|detail| Violation {
                property,
                detail,
                record: record.i,
            })?;
        }
        Ok(())
    }

    /// Judges a whole history.
    ///
    /// # Errors
    /// The first violation.
    pub fn judge(history: &[Record]) -> Result<(), Violation> {
        let mut panel = Panel::default();
        history.iter().try_for_each(|record| panel.see(record))
    }
}

/// Judges a history of operations.
///
/// # Errors
/// The first property that is broken: `linearizable`, `harness` where both ways to find that out
/// disagree, `sessions`, `watches` or `identity`.
pub fn judge_operations(
    history: &[Operation],
    sight: linear::Sight,
) -> Result<linear::Tally, Violation> {
    let broken = |property| move |detail| Violation { property, detail, record: 0 };
    watches::check(history).map_err(broken("watches"))?;
    sessions::check(history).map_err(broken("sessions"))?;
    let tally = linear::judge(history, sight)?;
    identity::check(history).map_err(broken("identity"))?;
    Ok(tally)
}

fn ensure(holds: bool, detail: impl FnOnce() -> String) -> Result<(), String> {
    if holds { Ok(()) } else { Err(detail()) }
}
