//! The core rig over many seeds: no property is broken, every run is the same twice, and bugs that
//! are planted are found.

use atelier_simulation::core::{Options, Plant, Run, run};
use atelier_simulation::coverage;
use atelier_simulation::plan::Plan;
use atelier_simulation::timeline;
use std::collections::{BTreeMap, BTreeSet};

const SEEDS: u64 = 200;
/// A planted bug must show within so many seeds.
const PLANT_SEEDS: u64 = 50;

fn run_seed(seed: u64) -> Run {
    run(&Plan::of(seed), Options::default())
}

#[test]
fn two_hundred_seeds_break_no_property_and_take_every_path() {
    println!("seeds 1 to {SEEDS}");
    let mut counts = BTreeMap::new();
    for seed in 1..=SEEDS {
        let run = run_seed(seed);
        if let Some(violation) = &run.violation {
            let story = timeline::counter_example(&run.history, violation);
            panic!("seed {seed}: {violation:?}\n{story}\nagain: make reproduce SEED={seed}");
        }
        timeline::count(&run, &mut counts);
    }
    let untaken: Vec<_> =
        coverage::CORE.iter().filter(|path| !counts.contains_key(**path)).collect();
    assert!(untaken.is_empty(), "no seed has taken {untaken:?}: {counts:#?}");
    println!("seeds 1 to {SEEDS}: no violation");
}

#[test]
fn a_seed_gives_the_same_run_twice() {
    let mut hashes = BTreeSet::new();
    for seed in 1..=20 {
        let (first, second) = (run_seed(seed), run_seed(seed));
        assert_eq!(first.hash, second.hash, "seed {seed} has two histories");
        assert_eq!(first.unseed, second.unseed, "seed {seed} drew other numbers");
        hashes.insert(first.hash);
    }
    assert_eq!(hashes.len(), 20, "every seed has a run of its own");
}

#[test]
fn a_plan_survives_its_text_and_replays_the_run() {
    for seed in 1..=20 {
        let plan = Plan::of(seed);
        let read = Plan::from_lines(&plan.to_lines()).expect("its own text is a plan");
        assert_eq!(read, plan);
        assert_eq!(run(&read, Options::default()).hash, run_seed(seed).hash);
    }
    let error = Plan::from_lines("{\"nonsense\":1}").expect_err("nonsense is no plan");
    assert!(error.to_string().starts_with("line 1 of the plan"), "{error}");
}

/// Runs seeds with a bug until one shows it: the seed, and the property that was broken.
fn hunt(plant: Plant, audits: bool) -> Option<(u64, &'static str)> {
    (1..=PLANT_SEEDS).find_map(|seed| {
        let options = Options { audits, plant: Some(plant) };
        run(&Plan::of(seed), options).violation.map(|it| (seed, it.property))
    })
}

#[test]
fn planted_bugs_are_found() {
    let mut escaped = Vec::new();
    for plant in Plant::ALL {
        // Without the audit, so that the checkers of histories stand on their own feet.
        let (alone, audited) = (hunt(plant, false), hunt(plant, true));
        println!("{plant:?}: by the history {alone:?}, with the audit {audited:?}");
        if alone.is_none() || audited.is_none() {
            escaped.push(plant);
        }
    }
    assert!(escaped.is_empty(), "not found within {PLANT_SEEDS} seeds: {escaped:?}");
}
