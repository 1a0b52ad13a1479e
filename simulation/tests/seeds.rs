//! Every run that ever showed a fault, as a plan. A plan keeps its meaning when seeds lose theirs.
//!
//! | plan | what it showed |
//! |---|---|
//! | submitted-again-after-forget | a repeat of a submit that comes after Forget makes the job anew; the checker of executions counted both lives as one |
//! | begun-late-in-an-earlier-life | a worker with a slow view begins under a lease of a job that was forgotten since; the same checker |
//! | leader-waits-without-a-tick | a round of the leader is lost while the clients rest; the model of its loop had stopped its tick and never looked again |

use atelier_simulation::core::{Options, run};
use atelier_simulation::plan::Plan;
use atelier_simulation::timeline;
use std::fs;
use std::path::Path;

#[test]
fn what_failed_once_does_not_fail_again() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/seeds");
    let entries = fs::read_dir(folder).expect("the folder of plans can be read");
    let mut paths: Vec<_> = entries.map(|entry| entry.expect("an entry").path()).collect();
    paths.sort();
    assert!(paths.len() >= 3, "the plans are found");
    for path in paths {
        let text = fs::read_to_string(&path).expect("a plan can be read");
        let plan = Plan::from_lines(&text).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        let run = run(&plan, Options::default());
        if let Some(violation) = &run.violation {
            let story = timeline::counter_example(&run.history, violation);
            panic!("{}: {violation:?}\n{story}", path.display());
        }
    }
}
