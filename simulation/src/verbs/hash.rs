//! The digest of each seed's run. Nothing here looks at a watch, so that whoever counts what the process asks
//! of the system sees the runs alone.

use super::Batch;
use atelier_simulation::scenario::Scenario;
use std::process::ExitCode;

pub(crate) fn run(batch: &Batch) -> anyhow::Result<ExitCode> {
    for seed in batch.range() {
        println!("{seed} {}", Scenario::of(batch.world(), seed).play().hash());
    }
    Ok(ExitCode::SUCCESS)
}
