//! The verb that writes a run's operations, for whoever wants to judge them by other means.

use crate::Rig;
use anyhow::{Context, bail};
use atelier_simulation::operations::{Operation, edn, lines, porcupine};
use atelier_simulation::{cluster, core, plan};
use clap::ValueEnum;
use std::fs;
use std::io::{ErrorKind, Write, stdout};
use std::path::Path;
use std::process::ExitCode;

/// How a history is written.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// One event a line, each a JSON object.
    Jsonl,
    /// As Jepsen does, for Knossos and Elle.
    Edn,
    /// One operation a line, for a Go program with Porcupine.
    Porcupine,
}

/// Writes the history to the standard output and nothing else; the verdict goes beside it.
pub(crate) fn write(
    rig: Rig,
    seed: Option<u64>,
    plan: Option<&Path>,
    format: Format,
) -> anyhow::Result<ExitCode> {
    let text = plan.map(|path| {
        let text = fs::read_to_string(path);
        text.with_context(|| format!("reading {}", path.display()))
    });
    let text = text.transpose()?;
    let (operations, broken) = match rig {
        Rig::Core => of_core(seed, text.as_deref())?,
        Rig::Cluster => of_cluster(seed, text.as_deref())?,
    };
    let text = match format {
        Format::Jsonl => lines::write(&operations),
        Format::Edn => edn::write(&operations),
        Format::Porcupine => porcupine::write(&operations),
    };
    match stdout().write_all(text.as_bytes()) {
        // Whoever reads has seen enough.
        Err(error) if error.kind() == ErrorKind::BrokenPipe => return Ok(ExitCode::SUCCESS),
        written => written.context("writing the history")?,
    }
    eprintln!("{} operations", operations.len());
    let Some(broken) = broken else { return Ok(ExitCode::SUCCESS) };
    eprintln!("{broken}");
    Ok(ExitCode::FAILURE)
}

type Played = (Vec<Operation>, Option<String>);

fn of_core(seed: Option<u64>, text: Option<&str>) -> anyhow::Result<Played> {
    let plan = match (text, seed) {
        (Some(text), _) => plan::Plan::from_lines(text)?,
        (None, Some(seed)) => plan::Plan::of(seed),
        (None, None) => bail!("give --seed or --plan"),
    };
    let run = core::run(&plan, core::Options::default());
    let broken = run.violation.map(|it| format!("{} is broken: {}", it.property, it.detail));
    Ok((run.operations, broken))
}

fn of_cluster(seed: Option<u64>, text: Option<&str>) -> anyhow::Result<Played> {
    let plan = match (text, seed) {
        (Some(text), _) => serde_json::from_str(text)?,
        (None, Some(seed)) => cluster::Plan::of(seed),
        (None, None) => bail!("give --seed or --plan"),
    };
    let run = cluster::run(&plan);
    let broken = run.violation.map(|(property, detail)| format!("{property} is broken: {detail}"));
    Ok((run.operations, broken))
}
