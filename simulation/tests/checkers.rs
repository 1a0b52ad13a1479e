//! The checkers are checked: true histories pass, and each way of spoiling one is found by the
//! checker that exists for it.

#![expect(clippy::ptr_arg, reason = "mutators have one type, whether they insert or not")]

use atelier_simulation::checkers::{PROPERTIES, Panel, audit};
use atelier_simulation::core::{Options, run};
use atelier_simulation::history::{Answered, Asked, Fact, Record};
use atelier_simulation::plan::Plan;
use atelier_state::{Cancel, Command, JobId, LogIndex, Phase, Reply, State, Submit};
use std::collections::{BTreeMap, BTreeSet};

const SEEDS: u64 = 60;

/// A way of spoiling a history. It says whether the history had a place for it.
struct Mutator {
    name: &'static str,
    property: &'static str,
    spoil: fn(&mut Vec<Fact>) -> bool,
}

const MUTATORS: [Mutator; 22] = [
    Mutator { name: "a job is gone at the end", property: "kept", spoil: drop_final },
    Mutator { name: "a waiting job is forgotten", property: "kept", spoil: forget_waiting },
    Mutator { name: "a second result is accepted", property: "result", spoil: second_result },
    Mutator { name: "a read shows another result", property: "result", spoil: other_read },
    Mutator { name: "the result differs at the end", property: "result", spoil: other_final },
    Mutator { name: "an old token completes", property: "fencing", spoil: old_complete },
    Mutator { name: "a token does not rise", property: "fencing", spoil: falling_token },
    Mutator { name: "an old token revokes", property: "fencing", spoil: old_revoke },
    Mutator { name: "a lease without the end of the last", property: "leases", spoil: drop_revoke },
    Mutator { name: "a lease of an old process", property: "leases", spoil: old_process },
    Mutator { name: "a lease beyond the slots", property: "leases", spoil: no_slots },
    Mutator { name: "an attempt is begun twice", property: "executions", spoil: begin_twice },
    Mutator { name: "an attempt without a lease", property: "executions", spoil: begin_unleased },
    Mutator { name: "a cancelled job completes", property: "cancelled", spoil: complete_cancelled },
    Mutator {
        name: "a cancelled job ends as failed",
        property: "cancelled",
        spoil: fail_cancelled,
    },
    Mutator { name: "a key has two jobs", property: "idempotency", spoil: two_jobs },
    Mutator { name: "a repeat is accepted anew", property: "idempotency", spoil: accept_twice },
    Mutator { name: "a result of another picture", property: "artifact", spoil: other_picture },
    Mutator { name: "a back-off is cut short", property: "backoff", spoil: drop_release },
    Mutator { name: "a snapshot changes the order", property: "order", spoil: other_order },
    Mutator { name: "a job is given out in a pause", property: "paused", spoil: pause_before },
    Mutator { name: "a job never ends", property: "liveness", spoil: never_ends },
];

fn history(seed: u64) -> Vec<Fact> {
    let run = run(&Plan::of(seed), Options::default());
    assert_eq!(run.violation, None, "seed {seed}");
    run.history.into_iter().map(|record| record.fact).collect()
}

fn numbered(facts: Vec<Fact>) -> Vec<Record> {
    facts.into_iter().enumerate().map(|(i, fact)| Record { i, at_ms: 0, fact }).collect()
}

#[test]
fn every_mutator_is_caught_by_its_checker() {
    let mut applied = BTreeMap::new();
    for seed in 1..=SEEDS {
        let truth = history(seed);
        for Mutator { name, property, spoil } in MUTATORS {
            let mut facts = truth.clone();
            if !spoil(&mut facts) {
                continue;
            }
            *applied.entry(name).or_insert(0) += 1;
            let violation = Panel::judge(&numbered(facts)).expect_err(name);
            assert_eq!(violation.property, property, "seed {seed}, {name}: {violation:?}");
        }
    }
    println!("{applied:#?}");
    for Mutator { name, .. } in MUTATORS {
        assert!(applied.get(name).is_some_and(|count| *count >= 5), "{name} had no place");
    }
}

#[test]
fn every_property_has_a_mutator() {
    let covered: BTreeSet<_> = MUTATORS.iter().map(|mutator| mutator.property).collect();
    let all: BTreeSet<_> = PROPERTIES.iter().map(|property| property.name).collect();
    assert_eq!(covered, all);
}

#[test]
fn a_run_that_is_not_healed_or_has_no_fresh_success_is_no_proof_of_liveness() {
    for seed in 1..=5 {
        let is_healed: fn(&Fact) -> bool = |fact| *fact == Fact::Healed;
        let is_probe: fn(&Fact) -> bool = |fact| matches!(fact, Fact::Probed { .. });
        for missing in [is_healed, is_probe] {
            let mut facts = history(seed);
            facts.retain(|fact| !missing(fact));
            let violation = Panel::judge(&numbered(facts)).expect_err("something is missing");
            assert_eq!(violation.property, "liveness");
        }
    }
}

#[test]
fn a_history_survives_its_text() {
    for record in numbered(history(1)) {
        let read: Record = serde_json::from_str(&record.to_line()).expect("a line is a record");
        assert_eq!(read, record);
    }
}

#[test]
fn the_audit_passes_what_apply_does_and_finds_what_it_does_not_do() {
    let submit = Command::Submit(Submit {
        job: JobId(1),
        tenant: "".into(),
        idempotency_key: None,
        priority: 5,
        kind: "text_to_image/v1".into(),
        parameters: Default::default(),
        traceparent: String::new(),
        submitted_ms: 0,
        attempts_max: 1,
        deadline_ms: 0,
        max_runtime_s: 0,
        cost: 1,
        retry_of: None,
    });
    let before = State::new();
    let mut after = before.clone();
    let reply = after.apply(LogIndex(1), &submit);
    assert_eq!(audit::check(&before, &submit, &reply, &after), Ok(()));

    let cancel = Cancel { job: JobId(1), reason: String::new(), finished_ms: 0 };
    let cancel = Command::Cancel(cancel);
    let cases = [
        ("nothing was submitted", audit::check(&before, &submit, &reply, &before)),
        ("a reply of another command", audit::check(&before, &submit, &Reply::Done, &after)),
        ("a job that came by a cancel", audit::check(&before, &cancel, &Reply::Done, &after)),
        ("an index that went down", audit::check(&after, &submit, &reply, &before)),
    ];
    for (name, found) in cases {
        let found = found.expect_err(name);
        assert!(found.starts_with('S'), "{name}: {found} names an invariant");
    }
}

// The mutators. Each finds the first place that fits.

fn find(facts: &[Fact], fits: impl Fn(&Fact) -> bool) -> Option<usize> {
    facts.iter().position(fits)
}

fn applied(command: Asked, reply: Answered) -> Fact {
    Fact::Applied { index: 0, command, reply }
}

fn is_done(fact: &Fact, fits: impl Fn(&Asked) -> bool) -> bool {
    matches!(fact, Fact::Applied { command, reply: Answered::Done, .. } if fits(command))
}

fn granted(fact: &Fact) -> Option<(u32, u64)> {
    match fact {
        Fact::Applied {
            command: Asked::Assign { job, .. },
            reply: Answered::Assigned { token },
            ..
        } => Some((*job, *token)),
        _ => None,
    }
}

fn drop_final(facts: &mut Vec<Fact>) -> bool {
    let told = facts.iter().find_map(|fact| match fact {
        Fact::Told { reply: Answered::Submitted { job, .. }, .. } => Some(*job),
        _ => None,
    });
    let is_it = |fact: &Fact| matches!(fact, Fact::Final { job, .. } if Some(*job) == told);
    let place = find(facts, is_it);
    place.map(|at| facts.remove(at)).is_some()
}

fn forget_waiting(facts: &mut Vec<Fact>) -> bool {
    let Some(Fact::Forgotten { phase, .. }) =
        facts.iter_mut().find(|fact| matches!(fact, Fact::Forgotten { .. }))
    else {
        return false;
    };
    *phase = "queued".to_owned();
    true
}

fn drop_release(facts: &mut Vec<Fact>) -> bool {
    let given = |from: usize, job: u32| {
        facts[from..].iter().any(|fact| granted(fact).is_some_and(|(it, _)| it == job))
    };
    let released = |fact: &Fact| match fact {
        Fact::Applied { command: Asked::Release { jobs }, .. } => jobs.clone(),
        _ => Vec::new(),
    };
    let release = facts
        .iter()
        .enumerate()
        .find_map(|(at, fact)| released(fact).first().copied().filter(|job| given(at, *job)));
    let Some(job) = release else { return false };
    // Where a release was proposed again, one alone would not be missed.
    facts.retain(|fact| !released(fact).contains(&job));
    true
}

fn other_order(facts: &mut Vec<Fact>) -> bool {
    let restored = facts.iter_mut().find_map(|fact| match fact {
        Fact::Order { restored: true, jobs, .. } if !jobs.is_empty() => Some(jobs),
        _ => None,
    });
    restored.map(|jobs| jobs.push(999)).is_some()
}

fn pause_before(facts: &mut Vec<Fact>) -> bool {
    let place = find(facts, |fact| granted(fact).is_some());
    let changes = vec!["queue.paused=true".to_owned()];
    let pause = applied(Asked::Set { changes }, Answered::Done);
    place.map(|at| facts.insert(at, pause)).is_some()
}

fn first_complete(facts: &[Fact]) -> Option<(usize, u32, u64)> {
    facts.iter().enumerate().find_map(|(at, fact)| match fact {
        Fact::Applied {
            command: Asked::Complete { job, token, .. },
            reply: Answered::Done,
            ..
        } => Some((at, *job, *token)),
        _ => None,
    })
}

fn second_result(facts: &mut Vec<Fact>) -> bool {
    let Some((at, job, token)) = first_complete(facts) else { return false };
    let command = Asked::Complete { job, token, artifacts: vec!["another".to_owned()] };
    facts.insert(at + 1, applied(command, Answered::Done));
    true
}

fn other_read(facts: &mut Vec<Fact>) -> bool {
    let Some((at, job, _)) = first_complete(facts) else { return false };
    let (client, node, phase) = (1, 1, Some(Phase::Succeeded.name().to_owned()));
    let artifacts = vec!["another".to_owned()];
    facts.insert(at + 1, Fact::Read { client, node, job, phase, artifacts });
    true
}

fn other_final(facts: &mut Vec<Fact>) -> bool {
    let Some(Fact::Final { artifacts, .. }) = facts
        .iter_mut()
        .find(|fact| matches!(fact, Fact::Final { phase, .. } if phase == "succeeded"))
    else {
        return false;
    };
    artifacts.push("another".to_owned());
    true
}

fn old_complete(facts: &mut Vec<Fact>) -> bool {
    let Some((at, ..)) = first_complete(facts) else { return false };
    if let Fact::Applied { command: Asked::Complete { token, .. }, .. } = &mut facts[at] {
        *token -= 1;
    }
    true
}

fn falling_token(facts: &mut Vec<Fact>) -> bool {
    let mut seen = BTreeSet::new();
    let again =
        facts.iter().position(|fact| granted(fact).is_some_and(|(job, _)| !seen.insert(job)));
    let Some(at) = again else { return false };
    if let Fact::Applied { reply: Answered::Assigned { token }, .. } = &mut facts[at] {
        *token = 1;
    }
    true
}

fn old_revoke(facts: &mut Vec<Fact>) -> bool {
    let Some(at) = find(facts, |fact| is_done(fact, |it| matches!(it, Asked::Revoke { .. })))
    else {
        return false;
    };
    if let Fact::Applied { command: Asked::Revoke { token, .. }, .. } = &mut facts[at] {
        *token -= 1;
    }
    true
}

/// Whatever may end a lease of a job or grant one.
fn moves(fact: &Fact, moved: u32) -> bool {
    match fact {
        Fact::Applied { reply: Answered::Refused(_), .. } => false,
        Fact::Applied { command, .. } => command.jobs().contains(&moved),
        Fact::LeaseLost { job, .. } => *job == moved,
        _ => false,
    }
}

/// Finds a grant, then a revoke, then a grant of one job with nothing between, and drops the
/// revoke.
fn drop_revoke(facts: &mut Vec<Fact>) -> bool {
    let place = facts.iter().enumerate().find_map(|(first, fact)| {
        let (job, _) = granted(fact)?;
        let next = |after: usize| {
            let later = facts[after + 1..].iter().position(|fact| moves(fact, job))?;
            Some(after + 1 + later)
        };
        let end = next(first)?;
        let again = next(end)?;
        let is_revoke = is_done(&facts[end], |it| matches!(it, Asked::Revoke { .. }));
        (is_revoke && granted(&facts[again]).is_some()).then_some(end)
    });
    place.map(|at| facts.remove(at)).is_some()
}

fn old_process(facts: &mut Vec<Fact>) -> bool {
    let Some(at) = find(facts, |fact| granted(fact).is_some()) else { return false };
    if let Fact::Applied { command: Asked::Assign { incarnation, .. }, .. } = &mut facts[at] {
        *incarnation += 1;
    }
    true
}

fn no_slots(facts: &mut Vec<Fact>) -> bool {
    let Some(at) = find(facts, |fact| granted(fact).is_some()) else { return false };
    let Fact::Applied { command: Asked::Assign { node, incarnation, .. }, .. } = facts[at] else {
        return false;
    };
    let register = Asked::Register { node, incarnation, slots: 0 };
    facts.insert(at, applied(register, Answered::Done));
    true
}

fn begin_twice(facts: &mut Vec<Fact>) -> bool {
    let Some(at) = find(facts, |fact| matches!(fact, Fact::Began { .. })) else { return false };
    facts.insert(at + 1, facts[at].clone());
    true
}

fn begin_unleased(facts: &mut Vec<Fact>) -> bool {
    let Some(at) = find(facts, |fact| matches!(fact, Fact::Began { .. })) else { return false };
    if let Fact::Began { token, .. } = &mut facts[at] {
        *token += 100_000;
    }
    true
}

fn complete_cancelled(facts: &mut Vec<Fact>) -> bool {
    let mut newest = BTreeMap::new();
    let place = facts.iter().enumerate().find_map(|(at, fact)| {
        newest.extend(granted(fact));
        match fact {
            Fact::Applied { command: Asked::Cancel { job }, reply: Answered::Done, .. } => {
                newest.get(job).map(|token| (at, *job, *token))
            }
            _ => None,
        }
    });
    let Some((at, job, token)) = place else { return false };
    let command = Asked::Complete { job, token, artifacts: Vec::new() };
    facts.insert(at + 1, applied(command, Answered::Done));
    true
}

fn fail_cancelled(facts: &mut Vec<Fact>) -> bool {
    let Some(Fact::Final { phase, .. }) = facts
        .iter_mut()
        .find(|fact| matches!(fact, Fact::Final { phase, .. } if phase == "cancelled"))
    else {
        return false;
    };
    *phase = "failed".to_owned();
    true
}

fn is_accepted(fact: &Fact) -> bool {
    matches!(fact, Fact::Applied { reply: Answered::Submitted { duplicate: false, .. }, .. })
}

fn two_jobs(facts: &mut Vec<Fact>) -> bool {
    let keyed = |fact: &Fact| {
        is_accepted(fact)
            && matches!(fact, Fact::Applied { command: Asked::Submit { key: Some(_), .. }, .. })
    };
    let Some(at) = find(facts, keyed) else { return false };
    let mut twin = facts[at].clone();
    if let Fact::Applied {
        command: Asked::Submit { job, .. },
        reply: Answered::Submitted { job: held, .. },
        ..
    } = &mut twin
    {
        (*job, *held) = (100_000, 100_000);
    }
    facts.insert(at + 1, twin);
    true
}

fn accept_twice(facts: &mut Vec<Fact>) -> bool {
    let Some(at) = find(facts, is_accepted) else { return false };
    facts.insert(at + 1, facts[at].clone());
    true
}

fn other_picture(facts: &mut Vec<Fact>) -> bool {
    let Some((at, ..)) = first_complete(facts) else { return false };
    if let Fact::Applied { command: Asked::Complete { artifacts, .. }, .. } = &mut facts[at] {
        *artifacts = vec!["another".to_owned()];
    }
    true
}

fn never_ends(facts: &mut Vec<Fact>) -> bool {
    let Some(Fact::Final { phase, .. }) = facts
        .iter_mut()
        .find(|fact| matches!(fact, Fact::Final { phase, .. } if phase == "failed"))
    else {
        return false;
    };
    *phase = "queued".to_owned();
    true
}
