//! The history of operations: both rigs write one that follows Jepsen's rules, and its texts say the
//! same as it.

use atelier_simulation::operations::{
    Answer, Call, Key, Operation, Outcome, Recorder, edn, lines, porcupine,
};
use atelier_simulation::{cluster, core, plan};
use std::collections::{BTreeMap, BTreeSet};

fn of_core(seed: u64) -> Vec<Operation> {
    core::run(&plan::Plan::of(seed), core::Options::default()).operations
}

fn of_cluster(seed: u64) -> Vec<Operation> {
    cluster::run(&cluster::Plan::of(seed)).operations
}

/// A submission that is accepted, a change of a setting that is refused, and a cancel without end.
fn three() -> Vec<Operation> {
    let mut recorder = Recorder::default();
    let submit = Call::Submit { key: Some("a \"key\"".to_owned()), attempts_max: 2 };
    let submit = recorder.call(1_000, 7, Key::Job(3), submit);
    let set = Call::Set { expected: 4, name: "queue.weight.a".to_owned(), value: 9 };
    let set = recorder.call(1_500, 8, Key::Settings, set);
    let answer = Answer::Submitted { job: 3, duplicate: false };
    recorder.returns(2_000, submit, Outcome::Ok { answer, index: Some(12) });
    recorder.returns(2_000, set, Outcome::Refused("StaleVersion".to_owned()));
    recorder.call(2_500, 7, Key::Job(3), Call::Cancel);
    recorder.operations().to_vec()
}

#[test]
fn a_process_asks_one_thing_at_a_time_and_nothing_after_an_unknown_outcome() {
    let histories = (1..=8).map(of_core).chain([1, 2, 3, 8].map(of_cluster));
    let (mut operations, mut unknown) = (0, 0);
    for history in histories {
        // By process: the place from which on it may ask again; none: never.
        let mut free: BTreeMap<u64, Option<u64>> = BTreeMap::new();
        let mut places = BTreeSet::new();
        for it in &history {
            let free_from = free.get(&it.process).copied().unwrap_or(Some(0));
            assert!(free_from.is_some_and(|from| from <= it.called.place), "{it}");
            let is_unknown = matches!(it.outcome, Outcome::Unknown(_));
            let returned = it.returned.filter(|_| !is_unknown);
            free.insert(it.process, returned.map(|returned| returned.place));
            let moments = [Some(it.called), it.returned];
            let is_new = moments.iter().flatten().all(|moment| places.insert(moment.place));
            assert!(is_new, "no two events have one place: {it}");
            assert!(it.returned.is_none_or(|returned| returned > it.called), "{it}");
            unknown += u32::from(is_unknown);
        }
        operations += history.len();
    }
    assert!(operations > 1_000 && unknown > 0, "{operations} operations, {unknown} unknown");
}

#[test]
fn both_rigs_reach_every_kind_of_operation() {
    let reached = |history: Vec<Operation>| -> BTreeSet<&str> {
        history.iter().filter(|it| it.answer().is_some()).map(|it| it.call.name()).collect()
    };
    let all = |histories: Vec<Vec<Operation>>| -> BTreeSet<&str> {
        histories.into_iter().flat_map(reached).collect()
    };
    let core = all((1..=8).map(of_core).collect());
    let kinds =
        ["submit", "cancel", "read", "lease", "complete", "fail", "revoke", "lose", "forget"];
    assert_eq!(core, kinds.into());
    let cluster = all((1..=4).map(of_cluster).collect());
    let kinds = ["submit", "cancel", "read", "watch", "read_settings", "set"];
    assert_eq!(cluster, kinds.into());
}

#[test]
fn a_history_survives_its_lines() {
    for history in [of_core(1), of_cluster(1), three()] {
        assert_eq!(lines::read(&lines::write(&history)), Ok(history));
    }
}

#[test]
fn lines_that_are_no_history_are_named() {
    let text = lines::write(&three());
    let all: Vec<&str> = text.lines().collect();
    let check = |lines: &[&str], expect: &str| {
        let error = lines::read(&lines.join("\n")).expect_err(expect);
        assert!(error.to_string().starts_with(expect), "{error}, expected {expect}");
    };
    check(&all[2..], "line 1 of the history: an answer to nothing");
    check(&[all[0], all[0]], "line 2 of the history: process 0 asks two things");
    check(&[&all[0].replace("job/3", "jobs")], "line 1 of the history: jobs is neither");
    check(&[&all[0].replace("submit", "summit")], "line 1 of the history: unknown variant");
    check(&["{"], "line 1 of the history: EOF");
}

#[test]
fn edn_is_what_jepsen_writes() {
    let expected = r#"[{:index 0, :time 1000000, :type :invoke, :process 0, :f :submit, :key "job/3", :value {:attempts-max 2, :key "a \"key\""}}
 {:index 1, :time 1500000, :type :invoke, :process 1, :f :set, :key "settings", :value {:expected 4, :name "queue.weight.a", :value 9}}
 {:index 2, :time 2000000, :type :ok, :process 0, :f :submit, :key "job/3", :value {:submitted {:duplicate false, :job 3}}, :log-index 12}
 {:index 3, :time 2000000, :type :fail, :process 1, :f :set, :key "settings", :value nil, :error "StaleVersion"}
 {:index 4, :time 2500000, :type :invoke, :process 0, :f :cancel, :key "job/3", :value nil}]
"#;
    assert_eq!(edn::write(&three()), expected);
}

#[test]
fn porcupine_gets_whole_operations_and_unknown_ones_return_at_the_end_of_time() {
    let text = porcupine::write(&three());
    let operations: Vec<serde_json::Value> =
        text.lines().map(|line| serde_json::from_str(line).expect("a line is JSON")).collect();
    let [submit, set, cancel] = operations.as_slice() else { panic!("three lines: {text}") };
    assert_eq!((&submit["Call"], &submit["Return"]), (&0.into(), &2.into()));
    assert_eq!(submit["Input"]["f"], "submit");
    assert_eq!(submit["Output"]["value"]["submitted"]["job"], 3);
    assert_eq!(set["Output"]["type"], "fail");
    assert_eq!(cancel["Return"], porcupine::NEVER);
    assert_eq!(cancel["Output"]["type"], "info");
    let fields = ["ClientId", "Key", "Input", "Call", "Output", "Return"];
    assert!(fields.iter().all(|field| cancel.get(field).is_some()), "{cancel}");
}
