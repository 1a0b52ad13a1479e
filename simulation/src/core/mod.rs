//! The core rig: the real state and the real deciding code of the leader, over a perfect log.
//!
//! ```text
//!   plan ──► clients ──┐                    ┌──► Ledger ──► the real State
//!     │                ├─► Arrive ─► Flush ─┤                    │
//!     │      workers ──┘     ▲              └──► Answer          │ a view for each worker,
//!     │        ▲  │          │                                   │ each at its own time
//!     └► faults│  └─ beats ─►Leader: Reaper · Scheduler · Janitor│
//!              └─────────────────────────────────────────────────┘
//! ```
//!
//! Owns a cluster in which the log never forks and nothing but time passes between an event and the
//! next. Clients, the leader's loop and the workers' rules are modelled here; whatever decides
//! about shared state is the product's. What Raft, disks and connections add is the business of
//! other rigs.

mod clients;
mod diary;
mod differences;
mod event;
mod faults;
mod journal;
mod leader;
mod ledger;
mod names;
mod operator;
mod plant;
mod rig;
mod scene;
mod worker;

pub use plant::Plant;

use crate::checkers::Violation;
use crate::checkers::linear::Tally;
use crate::history::Record;
use crate::operations::Operation;
use crate::plan::Plan;

/// How a plan is run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// Audit the state after every command. Off to see which checkers find a bug without it.
    pub audits: bool,
    /// A bug to plant; none but in tests of the rig itself.
    pub plant: Option<Plant>,
}

impl Default for Options {
    fn default() -> Options {
        Options { audits: true, plant: None }
    }
}

/// What came of a run.
#[derive(Clone, Debug)]
pub struct Run {
    /// Everything that happened, up to the violation.
    pub history: Vec<Record>,
    /// What clients, workers and the leader asked and were told.
    pub operations: Vec<Operation>,
    /// How many of them were judged.
    pub tally: Tally,
    /// The first property that was broken.
    pub violation: Option<Violation>,
    /// Digest of the history's text.
    pub hash: String,
    /// Where the randomness stood at the end: equal only if exactly the same numbers were drawn.
    pub unseed: u64,
    /// Events that were handled.
    pub events: u64,
    /// How long it took in virtual time.
    pub virtual_ms: u64,
}

/// Says whose session an operation is of.
pub fn sessions(session: u64) -> String {
    match session {
        diary::LEADER => "leader's".to_owned(),
        diary::CLIENTS..diary::WORKERS => "clients".to_owned(),
        diary::WORKERS.. => format!("node {}'s", session - diary::WORKERS),
        _ => "the log's".to_owned(),
    }
}

/// Runs a plan.
pub fn run(plan: &Plan, options: Options) -> Run {
    rig::Rig::new(plan, options).run().0
}

/// Runs a plan and tells what each command changed: the record that it belongs to, and how a job, a node or
/// something else is now.
pub fn run_told(plan: &Plan, options: Options) -> (Run, Vec<(usize, String)>) {
    let mut rig = rig::Rig::new(plan, options);
    rig.tell_differences();
    rig.run()
}
