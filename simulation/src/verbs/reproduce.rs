//! One run again: its plan, what happened, and the verdict.

use super::{Which, failed, mutants, run};
use anyhow::Context;
use atelier_simulation::scenario::{Played, Scenario};
use atelier_simulation::timeline;
use std::fs;
use std::path::Path;
use std::process::ExitCode;

pub(crate) fn run(which: &Which, out: Option<&Path>) -> anyhow::Result<ExitCode> {
    let scenario = which.scenario()?;
    let _planted = mutants::plant(which.bug())?;
    println!("seed {}\n{}", scenario.seed(), scenario.write());
    let played = scenario.play();
    match &played {
        Played::Core(run) => {
            run.history.iter().for_each(|record| println!("{}", timeline::line(record)));
            println!("history {}, unseed {:016x}", run.hash, run.unseed);
        }
        Played::Cluster(run) | Played::Wire(run) | Played::Process(run) => {
            for (at_ms, event) in &run.events {
                println!("{:>5}.{:03}  {event:?}", at_ms / 1_000, at_ms % 1_000);
            }
            let (calls, accepted, entries) = (run.calls, run.accepted, run.entries);
            let virtual_ms = run.virtual_ms;
            println!("{calls} calls, {accepted} jobs accepted, {entries} entries, {virtual_ms} ms");
            println!("trace {}", run.hash);
        }
        Played::Panicked(_) => {}
    }
    if let Some(out) = out {
        write(&scenario, &played, out)?;
    }
    match played.broken() {
        Some(broken) => {
            println!("seed {}: {broken}", scenario.seed());
            run::tell_core(&played);
            Ok(failed(scenario.world(), scenario.seed()))
        }
        None => {
            println!("seed {}: no violation", scenario.seed());
            Ok(ExitCode::SUCCESS)
        }
    }
}

fn write(scenario: &Scenario, played: &Played, out: &Path) -> anyhow::Result<()> {
    fs::create_dir_all(out).with_context(|| format!("creating {}", out.display()))?;
    let mut files = Vec::new();
    match played {
        Played::Core(run) => {
            let history: String = run.history.iter().map(|it| it.to_line() + "\n").collect();
            files.push(("plan.jsonl", scenario.write()));
            files.push(("history.jsonl", history));
        }
        Played::Cluster(_) | Played::Wire(_) | Played::Process(_) | Played::Panicked(_) => {
            files.push(("plan.json", scenario.write()))
        }
    }
    for (name, text) in files {
        let path = out.join(name);
        fs::write(&path, text).with_context(|| format!("writing {}", path.display()))?;
        println!("wrote {}", path.display());
    }
    Ok(())
}
