//! `simulation simulate` runs many seeds, `simulation reproduce` one of them again, line by line, and
//! `simulation history` writes what its clients asked and were told.

#![forbid(unsafe_code)]

mod clusters;
mod histories;
mod mutate;

use anyhow::{Context, bail};
use atelier_simulation::checkers::linear::Tally;
use atelier_simulation::core::{Options, Run, run};
use atelier_simulation::plan::Plan;
use atelier_simulation::timeline;
use clap::{Parser, Subcommand, ValueEnum};
use histories::Format;
use std::collections::BTreeMap;
use std::fs;
use std::panic::catch_unwind;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

/// Random worlds for Atelier: the real state and the real deciding code, with faults.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    #[command(subcommand)]
    command: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Run many seeds; stop at the first violation.
    Simulate {
        /// How many seeds.
        #[arg(long, default_value_t = 200)]
        seeds: u64,
        /// The first of them.
        #[arg(long, default_value_t = 1)]
        from: u64,
        /// In which world.
        #[arg(long, value_enum, default_value_t = Rig::Core)]
        rig: Rig,
    },
    /// Run one seed and print what happened, line by line.
    Reproduce {
        /// The seed.
        #[arg(long, required_unless_present = "plan")]
        seed: Option<u64>,
        /// A file with the plan, instead of the seed's own.
        #[arg(long, conflicts_with = "seed")]
        plan: Option<PathBuf>,
        /// In which world.
        #[arg(long, value_enum, default_value_t = Rig::Core)]
        rig: Rig,
        /// Write the plan and the history, both JSON lines, into this directory.
        #[arg(long)]
        out: Option<PathBuf>,
    },
    /// Plant bugs in the product, one after another, and see that each is found.
    Mutants {
        /// This one alone; may be given several times.
        #[arg(long)]
        only: Vec<String>,
        /// How many seeds each may take.
        #[arg(long, default_value_t = 200)]
        seeds: u64,
    },
    /// Run one seed and write what clients asked and were told, for other checkers.
    History {
        /// The seed.
        #[arg(long, required_unless_present = "plan")]
        seed: Option<u64>,
        /// A file with the plan, instead of the seed's own.
        #[arg(long, conflicts_with = "seed")]
        plan: Option<PathBuf>,
        /// In which world.
        #[arg(long, value_enum, default_value_t = Rig::Core)]
        rig: Rig,
        /// In which form.
        #[arg(long, value_enum, default_value_t = Format::Jsonl)]
        format: Format,
    },
}

/// How much of the world is simulated.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Rig {
    /// State and deciding code over a perfect log.
    Core,
    /// Whole peers with Raft, over simulated links and disks.
    Cluster,
}

fn main() -> anyhow::Result<ExitCode> {
    match Arguments::parse().command {
        Verb::Simulate { seeds, from, rig: Rig::Core } => simulate(from, seeds),
        Verb::Simulate { seeds, from, rig: Rig::Cluster } => clusters::simulate(from, seeds),
        Verb::Reproduce { seed, plan, out, rig: Rig::Cluster } => {
            clusters::reproduce(seed, plan.as_deref(), out.as_deref())
        }
        Verb::Mutants { only, seeds } => mutate::run(&only, seeds),
        Verb::History { seed, plan, rig, format } => {
            histories::write(rig, seed, plan.as_deref(), format)
        }
        Verb::Reproduce { seed, plan, out, rig: Rig::Core } => {
            let plan = match (plan, seed) {
                (Some(path), _) => {
                    let text = fs::read_to_string(&path);
                    let text = text.with_context(|| format!("reading {}", path.display()))?;
                    Plan::from_lines(&text).with_context(|| format!("in {}", path.display()))?
                }
                (None, Some(seed)) => Plan::of(seed),
                (None, None) => bail!("give --seed or --plan"),
            };
            reproduce(&plan, out)
        }
    }
}

fn simulate(from: u64, seeds: u64) -> anyhow::Result<ExitCode> {
    let last = from.saturating_add(seeds.saturating_sub(1));
    println!("seeds {from} to {last}; one again: {}", command("<seed>"));
    let watch = Instant::now();
    let mut counts = BTreeMap::new();
    let (mut events, mut records, mut virtual_ms) = (0, 0, 0);
    let mut tally = Tally::default();
    for seed in from..from.saturating_add(seeds) {
        let Ok(run) = catch_unwind(|| run(&Plan::of(seed), Options::default())) else {
            println!("seed {seed}: the product or the rig panicked, see above");
            return Ok(failed(seed));
        };
        if run.violation.is_some() {
            print_verdict(&format!("seed {seed}"), &run);
            return Ok(failed(seed));
        }
        events += run.events;
        records += run.history.len();
        tally = tally + run.tally;
        virtual_ms += run.virtual_ms;
        timeline::count(&run, &mut counts);
    }
    for (kind, count) in &counts {
        println!("{count:>9}  {kind}");
    }
    let wall = watch.elapsed().as_secs_f64();
    let (seconds, minute) = (virtual_ms as f64 / 1000.0, seeds as f64 * 60.0 / wall);
    println!("{tally}");
    println!("{events} events, {records} records, {:.1} virtual hours", seconds / 3600.0);
    println!("{wall:.1} s, {minute:.0} seeds a minute, {:.0} virtual s each s", seconds / wall);
    println!("seeds {from} to {last}: no violation; one again: {}", command("<seed>"));
    Ok(ExitCode::SUCCESS)
}

fn reproduce(plan: &Plan, out: Option<PathBuf>) -> anyhow::Result<ExitCode> {
    let seed = plan.shape.seed;
    println!("seed {seed}\n{}", plan.to_lines());
    let run = run(plan, Options::default());
    for record in &run.history {
        println!("{}", timeline::line(record));
    }
    if let Some(out) = out {
        fs::create_dir_all(&out).with_context(|| format!("creating {}", out.display()))?;
        let history: String = run.history.iter().map(|it| it.to_line() + "\n").collect();
        for (name, text) in [("plan.jsonl", plan.to_lines()), ("history.jsonl", history)] {
            let path = out.join(name);
            fs::write(&path, text).with_context(|| format!("writing {}", path.display()))?;
            println!("wrote {}", path.display());
        }
    }
    println!("history {}, unseed {:016x}", run.hash, run.unseed);
    print_verdict(&format!("seed {seed}"), &run);
    if run.violation.is_some() {
        return Ok(failed(seed));
    }
    Ok(ExitCode::SUCCESS)
}

fn print_verdict(name: &str, run: &Run) {
    let Some(violation) = &run.violation else {
        let (events, records) = (run.events, run.history.len());
        println!("{name}: no violation in {events} events, {records} records");
        return;
    };
    println!("{name}: {} is broken: {}", violation.property, violation.detail);
    println!("\nwhat led to it:\n{}", timeline::counter_example(&run.history, violation));
}

fn failed(seed: u64) -> ExitCode {
    println!("seed {seed}; again: {}", command(&seed.to_string()));
    ExitCode::FAILURE
}

fn command(seed: &str) -> String {
    format!("make reproduce SEED={seed}")
}
