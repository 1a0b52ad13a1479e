//! Makes a plan that fails smaller, as long as it fails in the same way.
//!
//! Parts of a plan are left out by delta debugging: halves first, then smaller and smaller pieces, until no
//! single part can go. Then each fault is made shorter. Nothing is drawn anew, so every try is a plan that
//! can be read, and the seed in it decides the same latencies.
//!
//! Source: A. Zeller and R. Hildebrandt, "Simplifying and isolating failure-inducing input" (2002).

use crate::scenario::Scenario;

/// A fault is not made shorter than this.
const FAULT_MS_MIN: u64 = 50;

/// What came of it.
#[derive(Clone, Debug)]
pub struct Shrunk {
    /// The smallest plan that was found to fail.
    pub scenario: Scenario,
    /// How many plans were tried.
    pub tries: u64,
    /// No single part can go; otherwise the time was over.
    pub is_minimal: bool,
}

/// Makes a plan smaller. `fails` runs one and says whether it fails as the first one did; `has_time` is asked
/// before each try.
pub fn shrink(
    scenario: &Scenario,
    mut fails: impl FnMut(&Scenario) -> bool,
    mut has_time: impl FnMut() -> bool,
) -> Shrunk {
    let mut tries = 0;
    let mut attempt = |candidate: &Scenario| {
        if !has_time() {
            return None;
        }
        tries += 1;
        Some(fails(candidate))
    };
    let (mut smallest, is_minimal) = with_fewer_parts(scenario, &mut attempt);
    if is_minimal {
        smallest = with_shorter_faults(smallest, &mut attempt);
    }
    Shrunk { scenario: smallest, tries, is_minimal }
}

/// Leaves parts out; says whether it came to an end.
fn with_fewer_parts(
    scenario: &Scenario,
    attempt: &mut impl FnMut(&Scenario) -> Option<bool>,
) -> (Scenario, bool) {
    let mut kept: Vec<usize> = (0..scenario.parts()).collect();
    let mut pieces = 2;
    while !kept.is_empty() {
        let size = kept.len().div_ceil(pieces);
        let mut without = None;
        for at in (0..kept.len()).step_by(size) {
            let end = kept.len().min(at + size);
            let rest: Vec<usize> = kept[..at].iter().chain(&kept[end..]).copied().collect();
            match attempt(&scenario.with(&rest)) {
                Some(true) => {
                    without = Some(rest);
                    break;
                }
                Some(false) => {}
                None => return (scenario.with(&kept), false),
            }
        }
        match without {
            Some(rest) => {
                kept = rest;
                pieces = 2.max(pieces - 1);
            }
            None if size == 1 => break,
            None => pieces = kept.len().min(2 * pieces),
        }
    }
    (scenario.with(&kept), true)
}

fn with_shorter_faults(
    mut smallest: Scenario,
    attempt: &mut impl FnMut(&Scenario) -> Option<bool>,
) -> Scenario {
    for at in 0..smallest.faults() {
        while let Some(candidate) = smallest.with_half_a_fault(at) {
            match attempt(&candidate) {
                Some(true) => smallest = candidate,
                Some(false) => break,
                None => return smallest,
            }
        }
    }
    smallest
}

impl Scenario {
    /// How many parts it could do without: what clients and operators do, and what goes wrong.
    pub fn parts(&self) -> usize {
        match self {
            Scenario::Core(plan) => plan.faults.len() + plan.requests.len(),
            Scenario::Cluster(plan) | Scenario::Wire(plan) | Scenario::Process(plan) => {
                plan.faults.len() + plan.acts.len() + plan.deeds.len() + plan.wishes.len()
            }
        }
    }

    /// How many of them are faults.
    pub fn faults(&self) -> usize {
        match self {
            Scenario::Core(plan) => plan.faults.len(),
            Scenario::Cluster(plan) | Scenario::Wire(plan) | Scenario::Process(plan) => {
                plan.faults.len()
            }
        }
    }

    /// The same plan with some of its parts alone, which are named in rising order.
    fn with(&self, kept: &[usize]) -> Scenario {
        let mut scenario = self.clone();
        let mut first = 0;
        match &mut scenario {
            Scenario::Core(plan) => {
                first = keep(&mut plan.faults, first, kept);
                keep(&mut plan.requests, first, kept);
            }
            Scenario::Cluster(plan) | Scenario::Wire(plan) | Scenario::Process(plan) => {
                first = keep(&mut plan.faults, first, kept);
                first = keep(&mut plan.acts, first, kept);
                first = keep(&mut plan.deeds, first, kept);
                keep(&mut plan.wishes, first, kept);
            }
        }
        scenario
    }

    fn with_half_a_fault(&self, at: usize) -> Option<Scenario> {
        let mut scenario = self.clone();
        let for_ms = match &mut scenario {
            Scenario::Core(plan) => &mut plan.faults[at].for_ms,
            Scenario::Cluster(plan) | Scenario::Wire(plan) | Scenario::Process(plan) => {
                &mut plan.faults[at].for_ms
            }
        };
        *for_ms /= 2;
        (*for_ms >= FAULT_MS_MIN).then_some(scenario)
    }
}

/// Keeps the parts of one kind that are named; the first of them has this number. Returns the number behind
/// the last.
fn keep<T>(parts: &mut Vec<T>, first: usize, kept: &[usize]) -> usize {
    let end = first + parts.len();
    let mut number = first..end;
    parts.retain(|_| {
        let number = number.next().expect("one a part");
        kept.binary_search(&number).is_ok()
    });
    end
}
