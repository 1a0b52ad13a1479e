//! The checkers of operations are checked: valid histories pass both ways of judging them, and each
//! way of spoiling one is found by the checker that exists for it.

#![expect(clippy::ptr_arg, reason = "mutators have one type, whether they insert or not")]

#[path = "linear/world.rs"]
mod world;

use atelier_simulation::checkers::judge_operations;
use atelier_simulation::checkers::linear::{Sight, wgl};
use atelier_simulation::operations::{Answer, Call, Key, Moment, Operation, Outcome, Phase, Seen};
use atelier_simulation::{cluster, core, plan};
use std::collections::BTreeMap;

const VALID: u64 = 1_000;
const SPOILT: u64 = 200;

/// A way of spoiling a history. It says whether the history had a place for it.
struct Mutator {
    name: &'static str,
    property: &'static str,
    spoil: fn(&mut Vec<Operation>) -> bool,
}

const LINEAR: &str = "linearizable";

/// Of histories in which clients alone are seen.
const OF_CLIENTS: [Mutator; 17] = [
    Mutator { name: "an acknowledged submission is dropped", property: LINEAR, spoil: drop_submit },
    Mutator { name: "a job is seen before its submission", property: LINEAR, spoil: foresee },
    Mutator { name: "a job is accepted twice", property: LINEAR, spoil: accept_twice },
    Mutator { name: "two results are swapped", property: LINEAR, spoil: swap_results },
    Mutator { name: "a result changes", property: LINEAR, spoil: other_result },
    Mutator { name: "a cancelled job is drawn", property: LINEAR, spoil: resurrect },
    Mutator { name: "a job is called off by nobody", property: LINEAR, spoil: vanish },
    Mutator { name: "a cancelled job was drawn", property: LINEAR, spoil: undone_cancel },
    Mutator { name: "a change of settings is lost", property: LINEAR, spoil: lost_update },
    Mutator { name: "settings have other values", property: LINEAR, spoil: other_value },
    Mutator { name: "settings come from the future", property: LINEAR, spoil: future_settings },
    Mutator { name: "a version is refused that holds", property: LINEAR, spoil: refused_in_vain },
    Mutator { name: "an index lies", property: "harness", spoil: lying_index },
    Mutator { name: "a read goes back", property: "sessions", spoil: read_back },
    Mutator { name: "events of a watch are swapped", property: "watches", spoil: swap_events },
    Mutator { name: "a watch leaves the end out", property: "watches", spoil: drop_end },
    Mutator { name: "a watch goes on after the end", property: "watches", spoil: end_twice },
];

/// Of histories in which everything is seen.
const OF_WHOLE: [Mutator; 8] = [
    Mutator { name: "two leases live", property: LINEAR, spoil: lease_twice },
    Mutator { name: "a stale token completes", property: LINEAR, spoil: stale_token },
    Mutator { name: "the end of a lease is dropped", property: LINEAR, spoil: drop_revoke },
    Mutator { name: "a cancelled job completes", property: LINEAR, spoil: complete_cancelled },
    Mutator { name: "a job ends twice", property: LINEAR, spoil: complete_twice },
    Mutator { name: "a key is given to a second job", property: LINEAR, spoil: twin_accepted },
    Mutator { name: "a refusal is not true", property: LINEAR, spoil: untrue_refusal },
    Mutator { name: "a job is forgotten while it waits", property: LINEAR, spoil: forget_waiting },
];

fn of_core(seed: u64) -> Vec<Operation> {
    let run = core::run(&plan::Plan::of(seed), core::Options::default());
    assert_eq!(run.violation, None, "seed {seed}");
    run.operations
}

#[test]
fn a_thousand_valid_histories_pass_both_ways() {
    let (mut operations, mut keys, mut unknown) = (0, 0, 0);
    for seed in 1..=VALID {
        let judged = judge_operations(&world::history(seed), Sight::Clients);
        let tally = judged.unwrap_or_else(|violation| panic!("seed {seed}: {violation:?}"));
        operations += tally.operations;
        keys += tally.keys;
        unknown += tally.unknown;
    }
    println!("{operations} operations on {keys} objects, {unknown} without a verdict");
    assert!(operations > 30 * VALID && keys > 3 * VALID, "{operations} on {keys}");
    assert!(unknown < VALID / 100, "the search decides nearly all histories of this size");
}

fn check(mutators: &[Mutator], sight: Sight, history: impl Fn(u64) -> Vec<Operation>) {
    let mut applied: BTreeMap<&str, u64> = BTreeMap::new();
    for seed in 1..=SPOILT {
        let truth = history(seed);
        for Mutator { name, property, spoil } in mutators {
            let mut spoilt = truth.clone();
            if !spoil(&mut spoilt) {
                continue;
            }
            *applied.entry(name).or_default() += 1;
            let violation = judge_operations(&spoilt, sight).expect_err(name);
            assert_eq!(violation.property, *property, "seed {seed}, {name}: {violation:?}");
        }
    }
    println!("{applied:#?}");
    for Mutator { name, .. } in mutators {
        assert!(applied.get(name).is_some_and(|count| *count >= 5), "{name} had no place");
    }
}

#[test]
fn every_mutator_of_what_clients_see_is_caught() {
    check(&OF_CLIENTS, Sight::Clients, world::history);
}

#[test]
fn every_mutator_of_the_whole_is_caught() {
    check(&OF_WHOLE, Sight::Whole, of_core);
}

#[test]
fn histories_of_whole_peers_are_spoilt_and_caught_too() {
    for seed in 1..=6 {
        let truth = cluster::run(&cluster::Plan::of(seed)).operations;
        for Mutator { name, property, spoil } in OF_CLIENTS {
            let mut spoilt = truth.clone();
            // There jobs are accepted on behalf of others, so the broken one may be another.
            if spoil(&mut spoilt) {
                let violation = judge_operations(&spoilt, Sight::Clients).expect_err(name);
                assert_eq!(violation.property, property, "seed {seed}, {name}: {violation:?}");
            }
        }
    }
}

#[test]
fn bugs_of_a_whole_product_are_found_by_operations_alone() {
    use atelier_simulation::core::Plant;
    let plants = [
        Plant::AcceptStaleToken,
        Plant::AssignTwice,
        Plant::LoseRevoked,
        Plant::CompleteCancelled,
        Plant::AcknowledgeEarly,
        Plant::SubmitAgain,
        Plant::CancelEnded,
    ];
    for plant in plants {
        let found = (1..=100).find(|seed| {
            let options = core::Options { audits: false, plant: Some(plant) };
            let operations = core::run(&plan::Plan::of(*seed), options).operations;
            judge_operations(&operations, Sight::Whole).is_err()
        });
        assert!(found.is_some(), "{plant:?} was not found");
        println!("{plant:?} by seed {found:?}");
    }
}

#[test]
fn a_search_without_steps_has_no_verdict_and_says_so() {
    let history = world::history(1);
    let operations: Vec<&Operation> = history.iter().filter(|it| it.key == Key::Settings).collect();
    let model = atelier_simulation::checkers::linear::register::Model;
    assert_eq!(wgl::check(&model, &operations, 2), wgl::Verdict::Unknown);
    assert_eq!(wgl::check(&model, &operations, 100_000), wgl::Verdict::Linearizable);
}

// The mutators. Each finds the first place that fits.

fn answer_mut(operation: &mut Operation) -> Option<&mut Answer> {
    match &mut operation.outcome {
        Outcome::Ok { answer, .. } => Some(answer),
        _ => None,
    }
}

fn seen_mut(operation: &mut Operation) -> Option<&mut Seen> {
    match answer_mut(operation) {
        Some(Answer::Job(seen)) => Some(seen),
        _ => None,
    }
}

fn set_answer(operation: &mut Operation, answer: Answer) {
    operation.outcome = Outcome::Ok { answer, index: operation.index() };
}

fn find(history: &[Operation], fits: impl Fn(&Operation) -> bool) -> Option<usize> {
    history.iter().position(fits)
}

fn is_accepted(operation: &Operation) -> bool {
    matches!(operation.answer(), Some(Answer::Submitted { duplicate: false, .. }))
}

/// Two operations on one object of which one is over before the other begins.
fn pair(
    history: &[Operation],
    first: impl Fn(&Operation) -> bool,
    second: impl Fn(&Operation, &Operation) -> bool,
) -> Option<(usize, usize)> {
    history.iter().enumerate().filter(|(_, it)| first(it)).find_map(|(at, before)| {
        let fits =
            |it: &Operation| it.key == before.key && before.precedes(it) && second(before, it);
        Some((at, find(history, fits)?))
    })
}

fn drop_submit(history: &mut Vec<Operation>) -> bool {
    let read = |_: &Operation, it: &Operation| it.call == Call::Read && it.seen().is_some();
    let Some((_, at)) = pair(history, is_accepted, read) else { return false };
    // Asked of another server, which has no part in what sessions promise.
    history[at].server = None;
    set_answer(&mut history[at], Answer::NoJob);
    true
}

fn foresee(history: &mut Vec<Operation>) -> bool {
    let at = find(history, |it| {
        let Some(returned) = it.returned else { return false };
        let is_early = |other: &Operation| {
            other.key != it.key
                || !matches!(other.call, Call::Submit { .. })
                || other.called > returned
        };
        it.answer() == Some(&Answer::NoJob) && it.call == Call::Read && history.iter().all(is_early)
    });
    let Some(at) = at else { return false };
    let (phase, result) = (Phase::Queued, Vec::new());
    let seen = Seen { phase, token: 0, leases: 0, attempts: 0, result };
    history[at].server = None;
    set_answer(&mut history[at], Answer::Job(seen));
    true
}

fn accept_twice(history: &mut Vec<Operation>) -> bool {
    let again = |_: &Operation, it: &Operation| {
        matches!(it.answer(), Some(Answer::Submitted { duplicate: true, .. }))
    };
    let Some((_, at)) = pair(history, is_accepted, again) else { return false };
    if let Some(Answer::Submitted { duplicate, .. }) = answer_mut(&mut history[at]) {
        *duplicate = false;
    }
    true
}

fn succeeded(operation: &Operation) -> bool {
    operation.call == Call::Read
        && operation.seen().is_some_and(|seen| seen.phase == Phase::Succeeded)
}

fn swap_results(history: &mut Vec<Operation>) -> bool {
    let has_result = |it: &Operation| it.seen().is_some_and(|seen| !seen.result.is_empty());
    let Some(one) = find(history, succeeded) else { return false };
    let key = history[one].key;
    let other = find(history, |it| has_result(it) && it.key != key);
    let is_told_twice = history.iter().filter(|it| it.key == key && has_result(it)).count() > 1;
    let Some(other) = other.filter(|_| is_told_twice) else { return false };
    let results = [one, other].map(|at| history[at].seen().map(|seen| seen.result.clone()));
    for (at, result) in [other, one].into_iter().zip(results) {
        history[at].server = None;
        if let (Some(seen), Some(result)) = (seen_mut(&mut history[at]), result) {
            seen.result = result;
        }
    }
    true
}

fn other_result(history: &mut Vec<Operation>) -> bool {
    let Some(at) = find(history, succeeded) else { return false };
    let mut other = history[at].clone();
    other.server = None;
    if let Some(seen) = seen_mut(&mut other) {
        seen.result = vec!["another".to_owned()];
    }
    history.push(other);
    true
}

fn resurrect(history: &mut Vec<Operation>) -> bool {
    let gone = |it: &Operation| {
        it.call == Call::Cancel && it.seen().is_some_and(|seen| seen.phase == Phase::Cancelled)
    };
    let Some(at) = find(history, gone) else { return false };
    let mut later = history[at].clone();
    later.call = Call::Read;
    if let Some(seen) = seen_mut(&mut later) {
        *seen =
            Seen { phase: Phase::Leased, token: 10_000, leases: seen.leases + 1, ..seen.clone() };
    }
    history.push(later);
    true
}

fn vanish(history: &mut Vec<Operation>) -> bool {
    let is_live = |it: &Operation| {
        it.call == Call::Read && it.seen().is_some_and(|seen| !seen.phase.is_terminal())
    };
    let at = find(history, |it| {
        is_live(it)
            && !history.iter().any(|other| other.key == it.key && other.call == Call::Cancel)
    });
    let Some(at) = at else { return false };
    history[at].server = None;
    if let Some(seen) = seen_mut(&mut history[at]) {
        seen.phase = Phase::Cancelled;
    }
    true
}

/// A cancel that was done, of a job that is then seen as drawn.
fn undone_cancel(history: &mut Vec<Operation>) -> bool {
    let is_cancel = |it: &Operation| it.call == Call::Cancel && it.answer().is_some();
    let gone = |it: &Operation| it.seen().is_some_and(|seen| seen.phase == Phase::Cancelled);
    let Some(at) = find(history, |it| is_cancel(it) && gone(it)) else { return false };
    let key = history[at].key;
    let others = history.iter_mut().filter(|it| it.key == key && it.call != Call::Cancel);
    let mut sights = others.filter(|it| gone(it));
    let Some(sight) = sights.next() else { return false };
    if sight.call == Call::Watch {
        return false;
    }
    sight.server = None;
    if let Some(seen) = seen_mut(sight) {
        (seen.phase, seen.result) = (Phase::Succeeded, vec!["drawn".to_owned()]);
        (seen.token, seen.leases) = (seen.token + 1_000, seen.leases + 1);
    }
    true
}

fn lost_update(history: &mut Vec<Operation>) -> bool {
    let stale = |it: &Operation| {
        matches!(it.call, Call::Set { .. })
            && it.outcome == Outcome::Refused("StaleVersion".to_owned())
    };
    let Some(at) = find(history, stale) else { return false };
    let Call::Set { expected, .. } = history[at].call else { return false };
    let made = find(history, |it| {
        matches!(it.call, Call::Set { expected: it, .. } if it == expected) && it.answer().is_some()
    });
    let Some(answer) = made.and_then(|made| history[made].answer().cloned()) else { return false };
    set_answer(&mut history[at], answer);
    true
}

fn other_value(history: &mut Vec<Operation>) -> bool {
    let changed = |it: &Operation| match it.answer() {
        Some(Answer::Settings { values, .. }) => {
            !values.is_empty() && it.call == Call::ReadSettings
        }
        _ => false,
    };
    let Some(at) = find(history, changed) else { return false };
    let Some(Answer::Settings { version, values }) = history[at].answer().cloned() else {
        return false;
    };
    let told = |it: &Operation| matches!(it.answer(), Some(Answer::Settings { version: it, .. }) if *it == version);
    if history.iter().filter(|it| told(it)).count() < 2 {
        return false;
    }
    let values = values.into_iter().map(|(name, value)| (name, value + 1_000)).collect();
    set_answer(&mut history[at], Answer::Settings { version, values });
    true
}

fn future_settings(history: &mut Vec<Operation>) -> bool {
    let is_read = |it: &Operation| it.call == Call::ReadSettings && it.answer().is_some();
    let made = |_: &Operation, it: &Operation| {
        matches!(it.call, Call::Set { .. }) && it.answer().is_some()
    };
    let Some((read, set)) = pair(history, is_read, made) else { return false };
    let Some(answer) = history[set].answer().cloned() else { return false };
    history[read].server = None;
    set_answer(&mut history[read], answer);
    true
}

fn refused_in_vain(history: &mut Vec<Operation>) -> bool {
    // A change that nobody else overlaps: its version holds for as long as it asks.
    let is_set = |it: &Operation| matches!(it.call, Call::Set { .. });
    let at = find(history, |it| {
        let overlaps = |other: &Operation| {
            is_set(other) && other != it && !other.precedes(it) && !it.precedes(other)
        };
        is_set(it) && it.answer().is_some() && !history.iter().any(overlaps)
    });
    let Some(at) = at else { return false };
    let Call::Set { expected, .. } = history[at].call else { return false };
    let mut refused = history[at].clone();
    refused.outcome = Outcome::Refused("StaleVersion".to_owned());
    // Asked and refused within the span of the change before it, of which nothing overlaps either.
    let Some(before) = find(history, |it| {
        it.precedes(&history[at])
            && is_set(it)
            && it.answer().is_some()
            && matches!(it.call, Call::Set { expected: it, .. } if it + 1 == expected)
    }) else {
        return false;
    };
    let (from, to) = (history[before].returned, history[at].called);
    let Some(from) = from.filter(|from| from.place + 3 <= to.place) else { return false };
    if history.iter().any(|it| is_set(it) && matches!(it.outcome, Outcome::Unknown(_))) {
        return false;
    }
    refused.called = Moment { place: from.place + 1, ..from };
    refused.returned = Some(Moment { place: to.place - 1, ..to });
    history.push(refused);
    true
}

fn lying_index(history: &mut Vec<Operation>) -> bool {
    let again = |_: &Operation, it: &Operation| {
        matches!(it.answer(), Some(Answer::Submitted { duplicate: true, .. }))
    };
    let Some((_, at)) = pair(history, is_accepted, again) else { return false };
    if let Outcome::Ok { index: Some(index), .. } = &mut history[at].outcome {
        *index += 1_000;
    }
    true
}

fn read_back(history: &mut Vec<Operation>) -> bool {
    let is_read = |it: &Operation| it.server.is_some() && it.answer().is_some();
    let later = |before: &Operation, it: &Operation| {
        it.server == before.server && it.answer().is_some() && it.answer() != before.answer()
    };
    let Some((before, after)) = pair(history, is_read, later) else { return false };
    let (one, other) = (history[before].outcome.clone(), history[after].outcome.clone());
    (history[before].outcome, history[after].outcome) = (other, one);
    true
}

/// Two events of one watch that show different states.
fn events(history: &[Operation]) -> Option<(usize, usize)> {
    let is_event = |it: &Operation| it.call == Call::Watch && it.seen().is_some();
    pair(history, is_event, |before, it| {
        is_event(it) && it.session == before.session && it.seen() != before.seen()
    })
}

fn swap_events(history: &mut Vec<Operation>) -> bool {
    let Some((before, after)) = events(history) else { return false };
    let (one, other) = (history[before].outcome.clone(), history[after].outcome.clone());
    (history[before].outcome, history[after].outcome) = (other, one);
    true
}

fn end_of_a_watch(history: &[Operation]) -> Option<usize> {
    find(history, |it| {
        let is_end = |other: &Operation| {
            other.session == it.session && other.answer() == Some(&Answer::Done)
        };
        it.call == Call::Watch
            && it.seen().is_some_and(|seen| seen.phase.is_terminal())
            && history.iter().any(is_end)
    })
}

fn drop_end(history: &mut Vec<Operation>) -> bool {
    let Some(at) = end_of_a_watch(history) else { return false };
    history.remove(at);
    true
}

fn end_twice(history: &mut Vec<Operation>) -> bool {
    let Some(at) = end_of_a_watch(history) else { return false };
    let again = history[at].clone();
    history.insert(at + 1, again);
    true
}

fn leased(operation: &Operation) -> Option<u64> {
    match operation.answer() {
        Some(Answer::Leased { token }) => Some(*token),
        _ => None,
    }
}

/// What happened after everything else.
fn append(history: &mut Vec<Operation>, mut operation: Operation) {
    let last = history.iter().filter_map(|it| it.returned).map(|it| it.place).max().unwrap_or(0);
    operation.called.place = last + 1;
    let moment = operation.called;
    operation.returned = Some(Moment { place: last + 2, ..moment });
    history.push(operation);
}

fn lease_twice(history: &mut Vec<Operation>) -> bool {
    // Granted in the same entry, before anything else can end the first.
    let Some(at) = find(history, |it| leased(it).is_some()) else { return false };
    let mut second = history[at].clone();
    second.call = Call::Lease { node: 99 };
    history.insert(at + 1, second);
    true
}

fn done(operation: &Operation, name: &str) -> bool {
    operation.call.name() == name && operation.answer() == Some(&Answer::Done)
}

fn stale_token(history: &mut Vec<Operation>) -> bool {
    let Some(at) = find(history, |it| done(it, "complete")) else { return false };
    if let Call::Complete { token, .. } = &mut history[at].call {
        *token -= 1;
    }
    true
}

fn drop_revoke(history: &mut Vec<Operation>) -> bool {
    let ends = |it: &Operation, token: u64| {
        let of = match it.call {
            Call::Revoke { token } | Call::Lose { token } | Call::Fail { token, .. } => token,
            _ => 0,
        };
        of == token && it.answer().is_some()
    };
    let place = history.iter().find_map(|first| {
        let token = leased(first)?;
        let of_job = |it: &&Operation| it.key == first.key;
        let again = history.iter().filter(of_job).any(|it| leased(it).is_some_and(|it| it > token));
        let is_ended = history.iter().filter(of_job).any(|it| ends(it, token));
        (again && is_ended).then_some((first.key, token))
    });
    let Some((key, token)) = place else { return false };
    history.retain(|it| it.key != key || !ends(it, token));
    true
}

fn complete_cancelled(history: &mut Vec<Operation>) -> bool {
    let Some(at) = find(history, |it| done(it, "cancel")) else { return false };
    let mut late = history[at].clone();
    let token = history.iter().filter(|it| it.key == late.key).filter_map(leased).max();
    let Some(token) = token else { return false };
    late.call = Call::Complete { token, result: vec!["late".to_owned()] };
    let index = Some(u64::MAX);
    late.outcome = Outcome::Ok { answer: Answer::Done, index };
    append(history, late);
    true
}

fn complete_twice(history: &mut Vec<Operation>) -> bool {
    let Some(at) = find(history, |it| done(it, "complete")) else { return false };
    let mut again = history[at].clone();
    if let Call::Complete { result, .. } = &mut again.call {
        result.push("another".to_owned());
    }
    again.outcome = Outcome::Ok { answer: Answer::Done, index: Some(u64::MAX) };
    append(history, again);
    true
}

fn twin_accepted(history: &mut Vec<Operation>) -> bool {
    let keyed = |it: &Operation| {
        let is_twin =
            matches!(it.answer(), Some(Answer::Submitted { job, .. }) if Key::Job(*job) != it.key);
        is_twin && matches!(it.call, Call::Submit { .. })
    };
    let Some(at) = find(history, keyed) else { return false };
    if let Some(Answer::Submitted { duplicate, .. }) = answer_mut(&mut history[at]) {
        *duplicate = false;
    }
    true
}

fn untrue_refusal(history: &mut Vec<Operation>) -> bool {
    let Some(at) = find(history, |it| done(it, "complete")) else { return false };
    let mut refused = history[at].clone();
    refused.call = Call::Cancel;
    refused.outcome = Outcome::Refused("UnknownJob".to_owned());
    let forgotten = |it: &Operation| it.key == refused.key && it.call == Call::Forget;
    if history.iter().any(forgotten) {
        return false;
    }
    append(history, refused);
    true
}

fn forget_waiting(history: &mut Vec<Operation>) -> bool {
    let Some(at) = find(history, is_accepted) else { return false };
    let mut forget = history[at].clone();
    let index = history[at].index();
    let Some(Answer::Submitted { job, .. }) = forget.answer() else { return false };
    forget.key = Key::Job(*job);
    forget.call = Call::Forget;
    forget.outcome = Outcome::Ok { answer: Answer::Done, index };
    history.insert(at + 1, forget);
    true
}
