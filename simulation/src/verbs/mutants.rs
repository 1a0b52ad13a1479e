//! Bugs that are planted in the product, and which of them are found.

use anyhow::bail;
use std::process::ExitCode;

/// Seeds of the core rig for one of the cluster rig: they are that much quicker.
#[cfg(feature = "mutants")]
const CORE_SEEDS: u64 = 10;

#[cfg(not(feature = "mutants"))]
const NONE: &str = "this build has no planted bugs; `make mutants` makes one that has";

#[cfg(not(feature = "mutants"))]
pub(crate) fn run(_only: &[String], _seeds: u64) -> anyhow::Result<ExitCode> {
    bail!(NONE)
}

/// Plants a bug for as long as the result lives, where one is named.
#[cfg(not(feature = "mutants"))]
pub(crate) fn plant(bug: Option<&str>) -> anyhow::Result<Option<std::convert::Infallible>> {
    match bug {
        Some(_) => bail!(NONE),
        None => Ok(None),
    }
}

/// Plants a bug for as long as the result lives, where one is named.
#[cfg(feature = "mutants")]
pub(crate) fn plant(
    bug: Option<&str>,
) -> anyhow::Result<Option<atelier_simulation::mutants::Planted>> {
    use atelier_simulation::mutants::Planted;
    let Some(bug) = bug else { return Ok(None) };
    Ok(Some(Planted::new(find(bug)?.bug)))
}

#[cfg(feature = "mutants")]
fn find(name: &str) -> anyhow::Result<&'static atelier_simulation::mutants::Entry> {
    use atelier_simulation::mutants::CATALOGUE;
    let found = CATALOGUE.iter().find(|entry| entry.name == name);
    let names: Vec<_> = CATALOGUE.iter().map(|entry| entry.name).collect();
    match found {
        Some(entry) => Ok(entry),
        None => bail!("no bug is called {name}; there are {}", names.join(", ")),
    }
}

#[cfg(feature = "mutants")]
pub(crate) fn run(only: &[String], seeds: u64) -> anyhow::Result<ExitCode> {
    use atelier_simulation::mutants::{CATALOGUE, Entry, hunt};
    use atelier_simulation::panics;
    use atelier_simulation::scenario::World;

    let named: Vec<&Entry> = only.iter().map(|name| find(name)).collect::<Result<_, _>>()?;
    let entries = if named.is_empty() { CATALOGUE.iter().collect() } else { named };
    println!("{:<29} {:<8} {:<21} {:>5} {:>6}  models", "bug", "rig", "found by", "seeds", "cpu s");
    let (mut costs, mut escaped) = (Vec::new(), Vec::new());
    for entry in entries {
        let seeds = if entry.world == World::Core { CORE_SEEDS * seeds } else { seeds };
        panics::be_quiet(true);
        let (found, spent) = hunt(entry, seeds);
        panics::be_quiet(false);
        let (by, tried) = match &found {
            Some(found) => (found.broken.property.as_str(), found.seed),
            None => ("NOT FOUND", seeds),
        };
        let (name, spent, rig) = (entry.name, spent.as_secs_f64(), entry.world.name());
        println!("{name:<29} {rig:<8} {by:<21} {tried:>5} {spent:>6.1}  {}", entry.models);
        match found {
            Some(found) if !only.is_empty() => println!("    {}", found.broken.detail),
            Some(_) => {}
            None => escaped.push(name),
        }
        costs.push(spent);
    }
    costs.sort_by(f64::total_cmp);
    let (total, median) = (costs.iter().sum::<f64>(), costs[costs.len() / 2]);
    let (found, all) = (costs.len() - escaped.len(), costs.len());
    println!("{found} of {all} found; {total:.0} s of processor time, median {median:.1} s");
    match escaped.is_empty() {
        true => Ok(ExitCode::SUCCESS),
        false => {
            println!("not found within {seeds} seeds: {}", escaped.join(", "));
            Ok(ExitCode::FAILURE)
        }
    }
}
