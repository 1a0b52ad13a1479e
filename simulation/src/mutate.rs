//! The verb that plants bugs and tells which are found.

use anyhow::bail;
use std::process::ExitCode;

#[cfg(not(feature = "mutants"))]
pub(crate) fn run(_only: &[String], _seeds: u64) -> anyhow::Result<ExitCode> {
    bail!("this build has no planted bugs; run `make mutants`, which makes one that has")
}

#[cfg(feature = "mutants")]
pub(crate) fn run(only: &[String], seeds: u64) -> anyhow::Result<ExitCode> {
    use atelier_simulation::mutants::{CATALOGUE, hunt};
    use atelier_simulation::panics;

    let known = |name: &&String| CATALOGUE.iter().all(|entry| entry.name != **name);
    if let Some(unknown) = only.iter().find(known) {
        let names: Vec<_> = CATALOGUE.iter().map(|entry| entry.name).collect();
        bail!("no bug is called {unknown}; there are {}", names.join(", "));
    }
    let wanted = |name: &str| only.is_empty() || only.iter().any(|it| it == name);
    println!("{:<29} {:<34} {:>5} {:>7}  models", "bug", "found by", "seeds", "cpu s");
    let (mut costs, mut escaped) = (Vec::new(), Vec::new());
    for entry in CATALOGUE.iter().filter(|entry| wanted(entry.name)) {
        panics::be_quiet(true);
        let (found, spent) = hunt(entry, seeds);
        panics::be_quiet(false);
        let (by, tried) = match &found {
            Some(found) => (found.property.clone(), found.seed),
            None => ("NOT FOUND".to_owned(), seeds),
        };
        let spent = spent.as_secs_f64();
        println!("{:<29} {by:<34} {tried:>5} {spent:>7.1}  {}", entry.name, entry.models);
        match found {
            Some(found) if !only.is_empty() => println!("    {}", found.detail),
            Some(_) => {}
            None => escaped.push(entry.name),
        }
        costs.push(spent);
    }
    costs.sort_by(f64::total_cmp);
    let (total, median) = (costs.iter().sum::<f64>(), costs[costs.len() / 2]);
    let found = costs.len() - escaped.len();
    println!(
        "{found} of {} found; {total:.0} s of processor time, median {median:.1} s",
        costs.len()
    );
    match escaped.is_empty() {
        true => Ok(ExitCode::SUCCESS),
        false => {
            println!("not found within {seeds} seeds: {}", escaped.join(", "));
            Ok(ExitCode::FAILURE)
        }
    }
}
