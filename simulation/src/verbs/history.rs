//! The verb that writes a run's operations, for whoever wants to judge them by other means.

use super::{Which, mutants};
use anyhow::Context;
use atelier_simulation::operations::{Operation, edn, lines, porcupine};
use atelier_simulation::scenario::Played;
use clap::ValueEnum;
use std::io::{ErrorKind, Write, stdout};
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
pub(crate) fn write(which: &Which, format: Format) -> anyhow::Result<ExitCode> {
    let scenario = which.scenario()?;
    let _planted = mutants::plant(which.bug())?;
    let played = scenario.play();
    let operations: &[Operation] = match &played {
        Played::Core(run) => &run.operations,
        Played::Cluster(run) | Played::Wire(run) | Played::Process(run) => &run.operations,
        Played::Panicked(_) => &[],
    };
    let text = match format {
        Format::Jsonl => lines::write(operations),
        Format::Edn => edn::write(operations),
        Format::Porcupine => porcupine::write(operations),
    };
    match stdout().write_all(text.as_bytes()) {
        // Whoever reads has seen enough.
        Err(error) if error.kind() == ErrorKind::BrokenPipe => return Ok(ExitCode::SUCCESS),
        written => written.context("writing the history")?,
    }
    eprintln!("{} operations", operations.len());
    let Some(broken) = played.broken() else { return Ok(ExitCode::SUCCESS) };
    eprintln!("{broken}");
    Ok(ExitCode::FAILURE)
}
