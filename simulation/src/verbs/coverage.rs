//! Which paths seeds take.

use super::{Batch, bar, failed};
use atelier_simulation::coverage::{count, wanted};
use atelier_simulation::scenario::Scenario;
use std::collections::BTreeMap;
use std::process::ExitCode;

pub(crate) fn run(batch: &Batch) -> anyhow::Result<ExitCode> {
    let (world, seeds) = (batch.world(), batch.range());
    let bar = bar(seeds.end - seeds.start);
    let mut reached = BTreeMap::new();
    let mut in_runs: BTreeMap<String, u64> = BTreeMap::new();
    for seed in seeds {
        let played = Scenario::of(world, seed).play();
        if let Some(broken) = played.broken() {
            bar.finish_and_clear();
            println!("seed {seed}: {broken}");
            return Ok(failed(world, seed));
        }
        let mut counts = BTreeMap::new();
        count(&played, &mut counts);
        for (name, count) in counts {
            *in_runs.entry(name.clone()).or_default() += 1;
            *reached.entry(name).or_insert(0) += count;
        }
        bar.inc(1);
    }
    bar.finish_and_clear();
    println!("{:>9} {:>6}", "times", "seeds");
    let wanted = wanted(world);
    for name in wanted {
        let (times, runs) = (reached.remove(*name), in_runs.get(*name).unwrap_or(&0));
        println!("{:>9} {runs:>6}  {name}", times.unwrap_or(0));
    }
    for (name, times) in &reached {
        println!("{times:>9} {:>6}  {name} (not asked for)", in_runs[name]);
    }
    let missing: Vec<_> = wanted.iter().filter(|name| !in_runs.contains_key(**name)).collect();
    println!("{} of {} reached", wanted.len() - missing.len(), wanted.len());
    match missing.is_empty() {
        true => Ok(ExitCode::SUCCESS),
        false => {
            println!("no seed has reached {missing:?}");
            Ok(ExitCode::FAILURE)
        }
    }
}
