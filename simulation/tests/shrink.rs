//! A plan that fails is made smaller and fails in the same way; a page tells its story.

use atelier_simulation::core::{Options, Plant, run};
use atelier_simulation::page::Story;
use atelier_simulation::scenario::{Scenario, World};
use atelier_simulation::shrink::shrink;

/// The property that a plan breaks where a bug is planted.
fn broken(scenario: &Scenario) -> Option<&'static str> {
    let Scenario::Core(plan) = scenario else { return None };
    let options = Options { audits: false, plant: Some(Plant::AcceptStaleToken) };
    run(plan, options).violation.map(|violation| violation.property)
}

/// The first seed that shows the bug.
fn failing() -> (Scenario, &'static str) {
    let mut seeds = (1..200).map(|seed| Scenario::of(World::Core, seed));
    let shows = |scenario: Scenario| broken(&scenario).map(|property| (scenario, property));
    seeds.find_map(shows).expect("the bug is found, as another test shows")
}

#[test]
fn a_plan_is_cut_down_to_what_its_failure_needs_and_still_is_a_plan() {
    let (scenario, property) = failing();
    let shrunk = shrink(&scenario, |smaller| broken(smaller) == Some(property), || true);
    assert!(shrunk.is_minimal);
    let (before, after) = (scenario.parts(), shrunk.scenario.parts());
    println!("{before} parts became {after} in {} tries", shrunk.tries);
    assert!(5 * after <= before, "{before} parts became {after}");
    let read = Scenario::read(World::Core, &shrunk.scenario.write()).expect("its text is a plan");
    assert_eq!(read, shrunk.scenario);
    assert_eq!(broken(&read), Some(property));
}

#[test]
fn a_shrink_without_time_gives_back_what_it_has() {
    let (scenario, property) = failing();
    let mut tries = 0;
    let has_time = || {
        tries += 1;
        tries <= 3
    };
    let shrunk = shrink(&scenario, |smaller| broken(smaller) == Some(property), has_time);
    assert!(!shrunk.is_minimal && shrunk.tries == 3);
    assert_eq!(broken(&shrunk.scenario), Some(property));
}

#[test]
fn a_page_shows_processes_leaders_faults_and_operations_of_both_rigs() {
    for (world, lanes) in
        [(World::Core, ["leader", "node 1"]), (World::Cluster, ["machine 1", "operator"])]
    {
        let played = Scenario::of(world, 1).play();
        assert_eq!(played.broken(), None);
        let story = Story::of(&played);
        for name in lanes {
            assert!(story.lanes.iter().any(|lane| lane.name == name), "{name} of {world:?}");
        }
        assert!(!story.faults.is_empty());
        let page = story.page("a seed", None);
        for class in ["life", "lead", "fault", "done"] {
            assert!(page.contains(&format!("<rect class={class} ")), "{class} of {world:?}");
        }
        assert!(page.len() < 2_000_000);
    }
}
