//! From a seed to a plan.

use super::{Ask, Fault, FaultKind, Plan, Request, Shape, Wish};
use crate::world::{Drawing, Nature, Rng};

/// Draws a plan. Each seed has its own mix: every kind of fault is in or out, so that some runs see
/// one kind alone and some see many together.
pub(super) fn plan(seed: u64) -> Plan {
    let rng = &mut Rng::of(seed, "plan");
    let jobs = rng.between(5..=40);
    let heal_ms = rng.between(10_000..=40_000);
    let lease_ms = rng.between(1_000..=4_000);
    // Apart from the rest, which thereby is what it was before there were levels.
    let level = &mut Rng::of(seed, "level");
    let raise_ms = if level.chance(75) { level.between(1..=heal_ms / 3) } else { 0 };
    let is_paused = raise_ms > 0 && level.chance(40);
    let pause_ms = if is_paused { level.between(raise_ms..=heal_ms - 3_000) } else { 0 };
    let shape = Shape {
        seed,
        workers: rng.between(1..=5),
        slots: if rng.chance(60) { 1 } else { rng.between(2..=3) as u32 },
        lease_ms,
        step_ms: rng.between(20..=200),
        jobs_kept: if rng.chance(70) { 10_000 } else { rng.between(0..=10) as usize },
        heal_ms,
        // Every job on one slot, several times over, and each loss costs a lease.
        settle_ms: 60_000 + jobs * (8_000 + 2 * lease_ms),
        raise_ms,
        ageing_jobs: if level.chance(70) { level.between(1..=4) } else { 0 },
        pause_ms,
        resume_ms: if is_paused { pause_ms + level.between(500..=3_000) } else { 0 },
    };
    let requests = requests(rng, &shape, jobs);
    let faults = faults(rng, &shape);
    Plan { shape, requests, faults }
}

fn requests(rng: &mut Rng, shape: &Shape, jobs: u64) -> Vec<Request> {
    let has_deadly = rng.chance(40);
    let mut wishes: Vec<Wish> = Vec::new();
    let mut requests = Vec::new();
    for job in 1..=jobs as u32 {
        let wish = wish(rng, job, has_deadly, &wishes);
        let at_ms = rng.below(shape.heal_ms * 9 / 10);
        let client = rng.between(1..=4) as u32;
        let mut later = |rng: &mut Rng, longest_ms, ask| {
            let at_ms = at_ms + rng.below(longest_ms);
            let client = rng.between(1..=4) as u32;
            requests.push(Request { at_ms, client, ask });
        };
        let some_time_ms = if rng.chance(50) { 500 } else { shape.heal_ms / 2 };
        for _ in 0..rng.below(3) {
            let node = rng.between(1..=shape.workers);
            later(rng, some_time_ms, Ask::Read { job, node });
        }
        if rng.chance(20) {
            later(rng, some_time_ms, Ask::Submit(wish.clone()));
        }
        if rng.chance(20) {
            // Mostly while it is drawn.
            let longest_ms = match rng.chance(70) {
                true => 2 * wish.drawing.steps * shape.step_ms,
                false => some_time_ms,
            };
            later(rng, longest_ms, Ask::Cancel { job });
        }
        requests.push(Request { at_ms, client, ask: Ask::Submit(wish.clone()) });
        wishes.push(wish);
    }
    // Stable, so that equal times keep the order in which they were drawn.
    requests.sort_by_key(|request| request.at_ms);
    requests
}

fn wish(rng: &mut Rng, job: u32, has_deadly: bool, before: &[Wish]) -> Wish {
    let nature = match rng.below(20) {
        0 if has_deadly => Nature::Deadly,
        1 => Nature::Refused,
        _ => Nature::Fine,
    };
    let drawing = Drawing { picture: job, steps: rng.between(1..=8), nature };
    let priority = if rng.chance(70) { 5 } else { rng.between(0..=9) as u8 };
    let attempts_max = rng.between(1..=4) as u32;
    let key = rng.chance(40).then(|| format!("key {job}"));
    let mut wish = Wish { job, key, priority, attempts_max, drawing };
    let keyed: Vec<_> = before.iter().filter(|earlier| earlier.key.is_some()).collect();
    if !keyed.is_empty() && rng.chance(15) {
        let earlier = rng.pick(&keyed);
        wish.key = earlier.key.clone();
        if rng.chance(70) {
            wish.drawing = earlier.drawing;
        }
    }
    wish
}

fn faults(rng: &mut Rng, shape: &Shape) -> Vec<Fault> {
    let mut drawn = Vec::new();
    for kind in 0..KINDS {
        if rng.chance(50) {
            continue;
        }
        for _ in 0..rng.between(1..=3) {
            let kind = kind_of(rng, shape, kind);
            let (shortest, longest) = lasting_ms(&kind, shape.lease_ms);
            // The last one ends a little before everything is healed.
            let latest = shape.heal_ms - 1_000;
            let for_ms = rng.between(shortest..=longest).min(latest);
            let at_ms = rng.between(0..=latest - for_ms);
            drawn.push(Fault { at_ms, for_ms, kind });
        }
    }
    drawn.sort_by_key(|fault| fault.at_ms);
    drawn
}

const KINDS: u32 = 12;

fn kind_of(rng: &mut Rng, shape: &Shape, kind: u32) -> FaultKind {
    let node = rng.between(1..=shape.workers);
    match kind {
        0 => FaultKind::WorkerCrash { node },
        1 => FaultKind::WorkerPause { node },
        2 => FaultKind::BeatLoss { node },
        3 => FaultKind::SlowView { node, by_ms: rng.between(50..=2 * shape.lease_ms) },
        4 => FaultKind::LeaderChange,
        5 => FaultKind::EngineCrash { node },
        6 => FaultKind::EngineHang { node },
        7 => FaultKind::EngineUnfit { node },
        8 => FaultKind::SlowProposals { by_ms: rng.between(100..=2 * shape.lease_ms) },
        9 => FaultKind::DoubleProposals { by_ms: rng.between(10..=2 * shape.lease_ms) },
        10 => FaultKind::ProposalLoss,
        _ => FaultKind::AnswerLoss,
    }
}

/// Returns how long a fault lasts, at least and at most. A pause is mostly longer than a lease:
/// that is when a late result meets a new holder.
fn lasting_ms(kind: &FaultKind, lease_ms: u64) -> (u64, u64) {
    match kind {
        FaultKind::WorkerCrash { .. } => (50, 6_000),
        FaultKind::WorkerPause { .. } => (100, 3 * lease_ms),
        FaultKind::BeatLoss { .. } => (lease_ms / 4, 3 * lease_ms),
        FaultKind::LeaderChange => (100, 2_000),
        FaultKind::EngineCrash { .. } | FaultKind::EngineHang { .. } => (0, 0),
        FaultKind::EngineUnfit { .. } => (1_000, 8_000),
        FaultKind::SlowView { .. }
        | FaultKind::SlowProposals { .. }
        | FaultKind::DoubleProposals { .. }
        | FaultKind::ProposalLoss
        | FaultKind::AnswerLoss => (1_000, 10_000),
    }
}
