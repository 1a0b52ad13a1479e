//! The command line of the simulation: many seeds, or one of them looked at closely.
//!
//! It alone looks at a watch; a run never does.

#![forbid(unsafe_code)]

mod verbs;

use atelier_simulation::process;
use clap::{Parser, Subcommand};
use std::path::PathBuf;
use std::process::ExitCode;
use verbs::history::Format;
use verbs::{Batch, Rig, Which};

/// Random worlds for Atelier: the product's own code in a world that is made of a seed.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    #[command(subcommand)]
    command: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Run many seeds; stop at the first violation.
    #[command(alias = "simulate")]
    Run {
        #[command(flatten)]
        batch: Batch,
        /// Go on for so long, however many seeds that takes.
        #[arg(long)]
        minutes: Option<f64>,
    },
    /// Run one seed and print what happened.
    Reproduce {
        #[command(flatten)]
        which: Which,
        /// Write the plan, and of the core rig the history, into this directory.
        #[arg(long)]
        out: Option<PathBuf>,
    },
    /// Make the plan of a seed that fails smaller, and write it where `reproduce --plan` takes it.
    Shrink {
        #[command(flatten)]
        which: Which,
        /// Where to; a name after the seed otherwise.
        #[arg(long)]
        out: Option<PathBuf>,
        /// Stop after so long with what there is.
        #[arg(long, default_value_t = 5.0)]
        minutes: f64,
    },
    /// Draw a run as a page: processes, leaders, faults and operations over time.
    Timeline {
        #[command(flatten)]
        which: Which,
        /// The page.
        #[arg(long)]
        html: PathBuf,
    },
    /// Step through the plan of a core run and tell what each command changed.
    Replay {
        /// The plan, as `reproduce --out` and `shrink` write it.
        file: PathBuf,
        /// The last record to be told.
        #[arg(long, default_value_t = usize::MAX)]
        until: usize,
    },
    /// Tell which faults and which paths seeds reach, and fail where one is missing.
    Coverage {
        #[command(flatten)]
        batch: Batch,
    },
    /// Print the digest of everything that happens in each seed.
    Hash {
        #[command(flatten)]
        batch: Batch,
    },
    /// Plant bugs in the product, one after another, and see that each is found.
    Mutants {
        /// This one alone; may be given several times.
        #[arg(long)]
        only: Vec<String>,
        /// How many seeds of the cluster rig each may take; of the core rig ten times as many.
        #[arg(long, default_value_t = 200)]
        seeds: u64,
    },
    /// Run one seed and write what clients asked and were told, for other checkers.
    History {
        #[command(flatten)]
        which: Which,
        /// In which form.
        #[arg(long, value_enum, default_value_t = Format::Jsonl)]
        format: Format,
    },
}

impl Verb {
    /// The rig that it is about.
    fn rig(&self) -> Option<Rig> {
        match self {
            Verb::Run { batch, .. } | Verb::Coverage { batch } | Verb::Hash { batch } => {
                Some(batch.rig)
            }
            Verb::Reproduce { which, .. }
            | Verb::Shrink { which, .. }
            | Verb::Timeline { which, .. }
            | Verb::History { which, .. } => Some(which.rig),
            Verb::Replay { .. } | Verb::Mutants { .. } => None,
        }
    }
}

fn main() -> anyhow::Result<ExitCode> {
    let command = Arguments::parse().command;
    if command.rig() == Some(Rig::Process) {
        process::daemon().map_err(anyhow::Error::msg)?;
        match process::enter() {
            // Inside: the run is here.
            Ok(None) => {}
            Ok(Some(true)) => return Ok(ExitCode::SUCCESS),
            Ok(Some(false)) => return Ok(ExitCode::FAILURE),
            Err(why) => {
                println!("skipped: {why}");
                return Ok(ExitCode::SUCCESS);
            }
        }
    }
    match command {
        Verb::Run { batch, minutes } => verbs::run::run(&batch, minutes),
        Verb::Reproduce { which, out } => verbs::reproduce::run(&which, out.as_deref()),
        Verb::Shrink { which, out, minutes } => verbs::shrink::run(&which, out, minutes),
        Verb::Timeline { which, html } => verbs::timeline::run(&which, &html),
        Verb::Replay { file, until } => verbs::replay::run(&file, until),
        Verb::Coverage { batch } => verbs::coverage::run(&batch),
        Verb::Hash { batch } => verbs::hash::run(&batch),
        Verb::Mutants { only, seeds } => verbs::mutants::run(&only, seeds),
        Verb::History { which, format } => verbs::history::write(&which, format),
    }
}
