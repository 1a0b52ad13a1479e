//! A run as a page.

use super::{Which, mutants, run};
use anyhow::Context;
use atelier_simulation::page::Story;
use std::fs;
use std::path::Path;
use std::process::ExitCode;

pub(crate) fn run(which: &Which, html: &Path) -> anyhow::Result<ExitCode> {
    let scenario = which.scenario()?;
    let _planted = mutants::plant(which.bug())?;
    let played = scenario.play();
    let broken = played.broken();
    let bug = which.bug().map_or(String::new(), |bug| format!(", with the bug {bug}"));
    let title = format!("{} rig, seed {}{bug}", run::word(scenario.world()), scenario.seed());
    let page = Story::of(&played).page(&title, broken.as_ref());
    fs::write(html, &page).with_context(|| format!("writing {}", html.display()))?;
    println!("wrote {}, {} bytes", html.display(), page.len());
    match broken {
        Some(broken) => println!("seed {}: {broken}", scenario.seed()),
        None => println!("seed {}: no violation", scenario.seed()),
    }
    Ok(ExitCode::SUCCESS)
}
