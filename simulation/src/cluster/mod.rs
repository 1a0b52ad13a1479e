//! The cluster rig: whole peers with the real Raft, and the real client library, in virtual time.
//!
//! ```text
//!   plan ──► clients: atelier-client ──┐                  ┌──► Host: a peer's process, a group of tasks
//!     │                                ├──► Network ──────┤      │ Outside: clock, entropy, engine, shelf
//!     ├──► operator: atelier-client ───┤                  └──► Host …  └─ SimulatedDisk
//!     └──► faults ─────────────────────┘   frames, cuts
//!              │                                                │
//!              └─ crash · pause · cut · slow · fail             └─► Watcher: states of all peers, compared
//! ```
//!
//! Everything runs on one thread whose clock stands still while anybody has something to do and
//! jumps to the next timer when nobody has, so that waiting costs nothing. Owns the machines and
//! what befalls them; whatever runs on them is the product's, from the gateway to the log's format.
//! What sockets, HTTP/2 and threads add is the business of other rigs.

pub(crate) mod chronicle;
pub(crate) mod clients;
pub(crate) mod clock;
mod decode;
pub(crate) mod deeds;
pub(crate) mod diary;
mod engine;
pub(crate) mod eye;
pub(crate) mod hardware;
mod harm;
mod host;
mod network;
mod operator;
mod plan;
pub(crate) mod rest;
mod rig;

pub use chronicle::Event;
pub use deeds::{Deed, DeedKind};
pub use plan::{Act, ActKind, Fault, FaultKind, Plan, Shape, Wish};
pub(crate) use rig::links;

use crate::checkers::linear::Tally;
use crate::checkers::raft::Glance;
use crate::operations::Operation;
use crate::panics;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// How long the world of a run has existed, as whoever asks sees it.
pub(crate) type Since = Arc<dyn Fn() -> Duration + Send + Sync>;

/// What came of a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Run {
    /// The first property that was broken, and how.
    pub violation: Option<(&'static str, String)>,
    /// What clients asked and were told.
    pub operations: Vec<Operation>,
    /// How many of them were judged.
    pub tally: Tally,
    /// What the eye of `checkers::raft` saw.
    pub glances: Vec<Glance>,
    /// What happened to machines, leaders and the operator, with its moment in milliseconds.
    pub events: Vec<(u64, Event)>,
    /// Digest of every call, frame, start and end, with its moment.
    pub hash: String,
    /// What befell whom, by kind of fault.
    pub faults: BTreeMap<&'static str, u64>,
    /// What the operator has done, by kind of act.
    pub acts: BTreeMap<&'static str, u64>,
    /// Calls over the network.
    pub calls: u64,
    /// Jobs that a client was told of as accepted.
    pub accepted: u64,
    /// Entries of the log at the end.
    pub entries: u64,
    /// How long it took in virtual time.
    pub virtual_ms: u64,
}

/// A bug to plant; none but in tests of the rig itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Plant {
    /// Disks acknowledge what they have not synced, as sled's flush does without ours.
    LyingDisks,
    /// Disks keep no vote, as a node does that forgets to write it down.
    LostVotes,
    /// An engine that goes on from a checkpoint draws one step more.
    ForgetfulEngine,
}

/// Runs a plan. A thread runs one at a time.
pub fn run(plan: &Plan) -> Run {
    run_with(plan, None)
}

/// Runs a plan with a bug in its world.
pub fn run_with(plan: &Plan, plant: Option<Plant>) -> Run {
    panics::watch();
    panics::take();
    let seed = tokio::runtime::RngSeed::from_bytes(&plan.shape.seed.to_le_bytes());
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .rng_seed(seed)
        .build()
        .expect("a runtime without threads or sockets");
    let mut run = runtime.block_on(async {
        // Timers fire at whole milliseconds since the runtime began. From here on the time does too; before, it was off
        // by whatever the machine took to get here.
        tokio::time::sleep(std::time::Duration::from_millis(1)).await;
        rig::Rig::new(plan, plant).play().await
    });
    drop(runtime);
    // Whatever else was found follows from it.
    let panicked = panics::take().into_iter().next().map(|text| ("panic", text));
    run.violation = panicked.or(run.violation);
    run
}
