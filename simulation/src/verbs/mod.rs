//! The verbs of the command line, and the arguments that they share.

pub(crate) mod coverage;
pub(crate) mod hash;
pub(crate) mod history;
pub(crate) mod mutants;
pub(crate) mod replay;
pub(crate) mod reproduce;
pub(crate) mod run;
pub(crate) mod shrink;
pub(crate) mod timeline;

use anyhow::{Context, anyhow, bail};
use atelier_simulation::scenario::{Scenario, World};
use clap::{Args, ValueEnum};
use indicatif::{ProgressBar, ProgressStyle};
use std::fs;
use std::ops::Range;
use std::path::PathBuf;
use std::process::ExitCode;

/// How much of the world is simulated.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Rig {
    /// State and deciding code over a perfect log.
    Core,
    /// Whole peers with Raft, over simulated links and disks.
    Cluster,
    /// The same with real gRPC, over simulated sockets.
    Wire,
    /// The real program, a network namespace a peer; root alone.
    Process,
}

/// Many seeds.
#[derive(Args)]
pub(crate) struct Batch {
    /// How many seeds.
    #[arg(long, default_value_t = 200)]
    seeds: u64,
    /// The first of them.
    #[arg(long, default_value_t = 1)]
    from: u64,
    /// In which world.
    #[arg(long, value_enum, default_value_t = Rig::Core)]
    pub(crate) rig: Rig,
}

/// One run.
#[derive(Args)]
pub(crate) struct Which {
    /// The seed.
    #[arg(value_name = "SEED", required_unless_present_any = ["named", "plan"])]
    seed: Option<u64>,
    /// The seed, by name.
    #[arg(long = "seed", value_name = "SEED", conflicts_with = "seed")]
    named: Option<u64>,
    /// A file with the plan, instead of the seed's own.
    #[arg(long, conflicts_with_all = ["seed", "named"])]
    plan: Option<PathBuf>,
    /// In which world.
    #[arg(long, value_enum, default_value_t = Rig::Core)]
    pub(crate) rig: Rig,
    /// With this bug planted in the product; `make mutants` lists them.
    #[arg(long)]
    bug: Option<String>,
}

impl From<Rig> for World {
    fn from(rig: Rig) -> World {
        match rig {
            Rig::Core => World::Core,
            Rig::Cluster => World::Cluster,
            Rig::Wire => World::Wire,
            Rig::Process => World::Process,
        }
    }
}

impl Batch {
    pub(crate) fn world(&self) -> World {
        self.rig.into()
    }

    pub(crate) fn range(&self) -> Range<u64> {
        self.from..self.from.saturating_add(self.seeds)
    }
}

impl Which {
    /// Draws the plan, or reads it.
    pub(crate) fn scenario(&self) -> anyhow::Result<Scenario> {
        let world = self.rig.into();
        match (&self.plan, self.seed.or(self.named)) {
            (Some(path), _) => {
                let text = fs::read_to_string(path);
                let text = text.with_context(|| format!("reading {}", path.display()))?;
                let read = Scenario::read(world, &text).map_err(|error| anyhow!(error));
                read.with_context(|| format!("in {}", path.display()))
            }
            (None, Some(seed)) => Ok(Scenario::of(world, seed)),
            (None, None) => bail!("give a seed or --plan"),
        }
    }

    /// The command that does a thing with the same run, where the bug is planted too.
    pub(crate) fn bug(&self) -> Option<&str> {
        self.bug.as_deref()
    }
}

/// Says how to see a failure again.
pub(crate) fn failed(world: World, seed: u64) -> ExitCode {
    println!("seed {seed}; again: {}", world.command(seed));
    ExitCode::FAILURE
}

/// A bar on the standard error, where somebody watches it.
pub(crate) fn bar(count: u64) -> ProgressBar {
    let style = "{bar:40} {pos} of {len} seeds, {eta} left {msg}";
    let style = ProgressStyle::with_template(style).expect("the template is one");
    ProgressBar::new(count).with_style(style)
}
