//! The process rig: the release binary, a network namespace a peer, and what a real kernel lets go wrong.
//!
//! ```text
//!   plan ──► clients: atelier-client ──┐  bridge of   ┌──► Host: atelierd and its engine, killed, stopped,
//!     └────► faults ───────────────────┴─ namespaces ─┴──► Host …  restarted, cut off, with a wrong clock
//! ```
//!
//! Takes plans, clients and checkers of the cluster rig, and real time; the same seed is the same plan and
//! another run. Root alone makes namespaces: without it the rig says so and runs nothing. Everything happens
//! inside of a namespace of its own, so that nothing of the machine's own network changes.
//!
//! Of the cluster rig's faults it leaves out slow links and slow disks, for which the kernel has no means here,
//! failing and damaged disks, which `node/tests` have, and the operator.

mod host;
mod network;
mod rig;

pub use network::enter;

use crate::cluster::{FaultKind, Plan, Run};
use crate::panics;
use std::path::PathBuf;

/// The plan of a seed: what the cluster rig draws, as far as real machines can be made to do it.
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
        | FaultKind::Bridge { .. } => true,
        FaultKind::Skew { .. } => host::faketime().is_some(),
        FaultKind::SlowLinks { .. }
        | FaultKind::SlowDisk { .. }
        | FaultKind::DiskFailure { .. }
        | FaultKind::Damage { .. }
        | FaultKind::OldDisk { .. } => false,
    }
}

/// The daemon beside this program.
///
/// # Errors
/// Says how to build it.
pub fn daemon() -> Result<PathBuf, String> {
    let own = std::env::current_exe().map_err(|error| error.to_string())?;
    let daemon = own.with_file_name("atelierd");
    match daemon.is_file() {
        true => Ok(daemon),
        false => {
            Err(format!("{} is not there; cargo build --release -p atelier-node", daemon.display()))
        }
    }
}

/// Runs a plan; the caller is inside of a namespace already, see [`enter`].
///
/// # Panics
/// When the machine does not let it: no namespaces, no daemon, no temporary directory.
pub fn run(plan: &Plan) -> Run {
    panics::watch();
    panics::take();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime");
    let mut run = runtime.block_on(async { rig::Rig::new(plan).play().await });
    drop(runtime);
    let panicked = panics::take().into_iter().next().map(|text| ("panic", text));
    run.violation = panicked.or(run.violation);
    run
}
