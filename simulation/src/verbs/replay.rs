//! A core run, step by step: each record, and what it changed in the state.

use anyhow::{Context, anyhow};
use atelier_simulation::core::{Options, run_told};
use atelier_simulation::plan::Plan;
use atelier_simulation::timeline;
use std::fs;
use std::path::Path;
use std::process::ExitCode;

pub(crate) fn run(file: &Path, until: usize) -> anyhow::Result<ExitCode> {
    let text = fs::read_to_string(file).with_context(|| format!("reading {}", file.display()))?;
    let plan = Plan::from_lines(&text).map_err(|error| anyhow!(error.to_string()));
    let plan = plan.with_context(|| format!("in {}", file.display()))?;
    let (run, differences) = run_told(&plan, Options::default());
    let mut differences = differences.iter().peekable();
    for record in run.history.iter().take_while(|record| record.i <= until) {
        println!("{:>6} {}", record.i, timeline::line(record));
        while let Some((_, text)) = differences.next_if(|(at, _)| *at <= record.i) {
            println!("{:>20} {text}", "");
        }
    }
    if let Some(violation) = run.violation.filter(|violation| violation.record <= until) {
        println!("{} is broken: {}", violation.property, violation.detail);
        return Ok(ExitCode::FAILURE);
    }
    Ok(ExitCode::SUCCESS)
}
