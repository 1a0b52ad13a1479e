//! The verbs for the cluster rig.

use anyhow::{Context, bail};
use atelier_simulation::checkers::linear::Tally;
use atelier_simulation::cluster::{Plan, Run, run};
use std::collections::BTreeMap;
use std::fs;
use std::panic::catch_unwind;
use std::path::Path;
use std::process::ExitCode;
use std::time::Instant;

pub(crate) fn simulate(from: u64, seeds: u64) -> anyhow::Result<ExitCode> {
    let last = from.saturating_add(seeds.saturating_sub(1));
    println!("seeds {from} to {last}; one again: {}", command("<seed>"));
    let watch = Instant::now();
    let mut faults: BTreeMap<String, u64> = BTreeMap::new();
    let (mut accepted, mut entries, mut calls, mut virtual_ms) = (0, 0, 0, 0);
    let mut tally = Tally::default();
    for seed in from..from.saturating_add(seeds) {
        let Ok(run) = catch_unwind(|| run(&Plan::of(seed))) else {
            println!("seed {seed}: the product or the rig panicked, see above");
            return Ok(failed(seed));
        };
        if let Some((property, detail)) = &run.violation {
            println!("seed {seed}: {property} is broken: {detail}");
            return Ok(failed(seed));
        }
        let acts = run.acts.iter().map(|(kind, count)| (format!("operator: {kind}"), count));
        let faulty = run.faults.iter().map(|(kind, count)| (kind.to_string(), count));
        for (kind, count) in faulty.chain(acts) {
            *faults.entry(kind).or_default() += count;
        }
        accepted += run.accepted;
        entries += run.entries;
        calls += run.calls;
        tally = tally + run.tally;
        virtual_ms += run.virtual_ms;
    }
    for (kind, count) in &faults {
        println!("{count:>9}  {kind}");
    }
    let (wall, seconds) = (watch.elapsed().as_secs_f64(), virtual_ms as f64 / 1000.0);
    println!("{tally}");
    println!("{accepted} jobs accepted, {entries} entries, {calls} calls");
    println!(
        "{:.1} virtual hours in {wall:.1} s, a ratio of {:.0}",
        seconds / 3600.0,
        seconds / wall
    );
    println!("seeds {from} to {last}: no violation; one again: {}", command("<seed>"));
    Ok(ExitCode::SUCCESS)
}

pub(crate) fn reproduce(
    seed: Option<u64>,
    plan: Option<&Path>,
    out: Option<&Path>,
) -> anyhow::Result<ExitCode> {
    let plan = match (plan, seed) {
        (Some(path), _) => {
            let text = fs::read_to_string(path);
            let text = text.with_context(|| format!("reading {}", path.display()))?;
            serde_json::from_str(&text).with_context(|| format!("in {}", path.display()))?
        }
        (None, Some(seed)) => Plan::of(seed),
        (None, None) => bail!("give --seed or --plan"),
    };
    let text = serde_json::to_string_pretty(&plan)?;
    println!("{text}");
    if let Some(out) = out {
        fs::create_dir_all(out).with_context(|| format!("creating {}", out.display()))?;
        let path = out.join("plan.json");
        fs::write(&path, text).with_context(|| format!("writing {}", path.display()))?;
        println!("wrote {}", path.display());
    }
    let Run { violation, hash, calls, accepted, entries, virtual_ms, .. } = run(&plan);
    println!("{calls} calls, {accepted} jobs accepted, {entries} entries, {virtual_ms} ms");
    println!("trace {hash}");
    match violation {
        Some((property, detail)) => {
            println!("{property} is broken: {detail}");
            Ok(failed(plan.shape.seed))
        }
        None => {
            println!("no violation");
            Ok(ExitCode::SUCCESS)
        }
    }
}

fn failed(seed: u64) -> ExitCode {
    println!("seed {seed}; again: {}", command(&seed.to_string()));
    ExitCode::FAILURE
}

fn command(seed: &str) -> String {
    format!("make reproduce RIG=cluster SEED={seed}")
}
