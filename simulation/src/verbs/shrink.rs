//! A smaller plan with the same failure.

use super::{Which, mutants, run};
use anyhow::Context;
use atelier_simulation::panics;
use atelier_simulation::scenario::Scenario;
use atelier_simulation::shrink::shrink;
use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

pub(crate) fn run(which: &Which, out: Option<PathBuf>, minutes: f64) -> anyhow::Result<ExitCode> {
    let scenario = which.scenario()?;
    let (world, seed) = (scenario.world(), scenario.seed());
    let _planted = mutants::plant(which.bug())?;
    panics::be_quiet(true);
    let Some(broken) = scenario.play().broken() else {
        println!("seed {seed}: no violation, so there is nothing to make smaller");
        return Ok(ExitCode::FAILURE);
    };
    println!("seed {seed}: {broken}");
    let end = Instant::now() + Duration::from_secs_f64(60.0 * minutes);
    let fails = |smaller: &Scenario| {
        let found = smaller.play().broken();
        found.is_some_and(|found| found.property == broken.property)
    };
    let shrunk = shrink(&scenario, fails, || Instant::now() < end);
    let (before, after) = (scenario.parts(), shrunk.scenario.parts());
    let ending = if shrunk.is_minimal { "none of which can go" } else { "the time is over" };
    println!("{before} parts became {after} in {} tries, {ending}", shrunk.tries);
    let path = out.unwrap_or_else(|| format!("{}-{seed}.plan", run::word(world)).into());
    fs::write(&path, shrunk.scenario.write())
        .with_context(|| format!("writing {}", path.display()))?;
    if let Some(broken) = shrunk.scenario.play().broken() {
        println!("it fails so: {broken}");
    }
    let bug = which.bug().map_or(String::new(), |bug| format!(" --bug {bug}"));
    let (word, path) = (run::word(world), path.display());
    println!("again: atelier-simulation reproduce --rig {word}{bug} --plan {path}");
    Ok(ExitCode::SUCCESS)
}
