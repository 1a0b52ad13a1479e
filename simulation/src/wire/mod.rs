//! The wire rig: whole peers and the client library, with real gRPC over sockets that turmoil simulates.
//!
//! ```text
//!   plan ──► clients: atelier-client ─ tonic, hyper, h2 ─┐  turmoil's  ┌──► Machine: a peer behind tonic's server
//!     └────► faults ─────────────────────────────────────┴──── TCP ────┴──► Machine …   disk, clock, engine: simulated
//!              └─ crash · pause · cut · hold · slow · fail
//! ```
//!
//! Takes plans, clients, deeds, machines' hardware, the eye and the checkers of the cluster rig. Owns sockets and
//! what is wrong with them: what the cluster rig passes over in memory goes through codecs, frames, flow control,
//! keep-alive, deadlines and reconnects here, of the same bounds as the daemon's.
//!
//! turmoil gives each machine a runtime of its own, and takes it away where the machine crashes. It runs them one after
//! another for a tick at a time, so that idle time costs something, unlike in the cluster rig.
//!
//! Of the cluster rig's faults it leaves out entries of the log that were written wrong and old copies of disks,
//! which no wire can tell from others, and the operator. HTTP is not served: its dialects are the gateway's, which
//! gRPC reaches too.

mod answering;
mod links;
mod machine;
mod rig;
mod sockets;

use crate::cluster::{FaultKind, Plan, Plant, Run};
use crate::panics;

/// The plan of a seed: what the cluster rig draws, as far as it can show on a wire.
pub fn plan(seed: u64) -> Plan {
    Plan::limited_to(seed, can_be)
}

fn can_be(kind: &FaultKind) -> bool {
    match kind {
        FaultKind::Crash { .. }
        | FaultKind::PowerCut
        | FaultKind::Pause { .. }
        | FaultKind::Isolate { .. }
        | FaultKind::OneWay { .. }
        | FaultKind::Bridge { .. }
        | FaultKind::SlowLinks { .. }
        | FaultKind::SlowDisk { .. }
        | FaultKind::DiskFailure { .. }
        | FaultKind::Skew { .. } => true,
        FaultKind::Damage { .. } | FaultKind::OldDisk { .. } => false,
    }
}

/// Runs a plan. A thread runs one at a time.
pub fn run(plan: &Plan) -> Run {
    run_with(plan, None)
}

/// Runs a plan with a bug in its world.
pub fn run_with(plan: &Plan, plant: Option<Plant>) -> Run {
    panics::watch();
    panics::take();
    rig::Rig::new(plan, plant).play()
}
