//! Runs seeds with a bug until one of them shows it.

use super::{Bug, Entry};
use crate::scenario::{Broken, Scenario};
use crate::{core, panics};
use atelier_state::mutants as product;
use std::fs;
use std::panic::catch_unwind;
use std::time::Duration;

/// How a bug was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// The property that it broke, and how.
    pub broken: Broken,
    /// The seed that showed it; the first that is tried is 1.
    pub seed: u64,
}

/// A bug that is planted for as long as this lives.
#[derive(Debug)]
pub struct Planted;

impl Planted {
    /// Plants a bug in this process.
    pub fn new(bug: Bug) -> Planted {
        match bug {
            Bug::Product(mutant) => product::plant(Some(mutant)),
            Bug::Client(mutant) => atelier_client::mutants::plant(Some(mutant)),
        }
        Planted
    }
}

impl Drop for Planted {
    fn drop(&mut self) {
        product::plant(None);
        atelier_client::mutants::plant(None);
    }
}

/// Hunts a bug over seeds from 1 on; returns how it was found and what it cost in processor time.
///
/// A process hunts one at a time: which bug is on is the process's choice.
pub fn hunt(entry: &Entry, seeds: u64) -> (Option<Found>, Duration) {
    panics::watch();
    let begun = processor_time();
    let found = (1..=seeds).find_map(|seed| {
        // Anew for each seed, so that what stands for a clock does not depend on the seeds before.
        let _planted = Planted::new(entry.bug);
        let broken = broken_by(&Scenario::of(entry.world, seed))?;
        Some(Found { broken, seed })
    });
    (found, processor_time().saturating_sub(begun))
}

fn broken_by(scenario: &Scenario) -> Option<Broken> {
    // Without the audit first, so that the checkers of histories stand on their own feet.
    if let Scenario::Core(plan) = scenario
        && let Ok(run) =
            catch_unwind(|| core::run(plan, core::Options { audits: false, plant: None }))
        && let Some(violation) = run.violation
    {
        let (property, detail) = (violation.property.to_owned(), violation.detail);
        return Some(Broken { property, detail });
    }
    scenario.play().broken()
}

/// What this thread has computed, by the system's books; nothing where it keeps none.
fn processor_time() -> Duration {
    let books = fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    let spent = books.split_whitespace().next().and_then(|spent| spent.parse().ok());
    Duration::from_nanos(spent.unwrap_or(0))
}
