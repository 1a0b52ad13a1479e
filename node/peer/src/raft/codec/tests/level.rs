//! What came with feature levels 2 and 3: golden bytes, round trips, and snapshots.

use super::*;
use atelier_state::{
    Expire, ForgetKeys, NoteAct, RaiseFeatures, Release, SetNode, SetSettings, SettingChange,
    SettingValue, TenantKey,
};

/// The bytes of format 2.
const GOLDEN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/entry2.txt");
/// Those of format 3.
const GOLDEN_3: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/entry3.txt");

fn author() -> Author {
    Author { who: "ann".to_owned(), why: "disk fails".to_owned(), at_ms: 1_763_755_300_000 }
}

const JOB: JobId = JobId(0x77);

fn register(node: u64, slots: u32, witness: bool) -> Command {
    let address = format!("http://10.0.0.{node}:7861");
    let (class, model) = (String::new(), String::new());
    let node = NodeId(node);
    Command::RegisterNode(RegisterNode {
        node,
        address,
        incarnation: 3,
        slots,
        class,
        model,
        witness,
    })
}

fn set(expected_version: u64, changes: &[(&str, Option<SettingValue>)]) -> Command {
    let changes =
        changes.iter().map(|(key, value)| SettingChange { key: (*key).to_owned(), value: *value });
    let (changes, author) = (changes.collect(), author());
    Command::SetSettings(SetSettings { expected_version, changes, author })
}

fn set_node() -> Command {
    Command::SetNode(SetNode {
        node: NodeId(5),
        draining: Some(true),
        labels_set: BTreeMap::from([("zone".to_owned(), "a".to_owned())]),
        labels_removed: vec!["rack".to_owned()],
        author: author(),
    })
}

fn timed(job: JobId, key: Option<&str>) -> Command {
    Command::Submit(Submit {
        job,
        idempotency_key: key.map(Into::into),
        deadline_ms: 1_763_755_900_000,
        max_runtime_s: 60,
        cost: 4,
        retry_of: Some(JobId(5)),
        ..submit(1)
    })
}

fn assign() -> Command {
    Command::Assign(Assign { job: JOB, node: NodeId(6), incarnation: 3 })
}

fn fail(token: u64) -> Command {
    let (token, error) = (FencingToken(token), "fault".to_owned());
    let (permanent, finished_ms) = (false, 1_763_755_260_000);
    Command::Fail(Fail { job: JOB, token, error, permanent, finished_ms })
}

/// In an order in which each is accepted, so that the state has one of everything.
fn later() -> Vec<(&'static str, Command)> {
    let (flag, number) = (SettingValue::Flag(true), SettingValue::Number(3));
    let key = TenantKey { tenant: "studio".into(), key: "order-9".into() };
    let (gone, late) = (JobId(0x78), JobId(0x79));
    let keyed = Submit { job: gone, idempotency_key: Some("k".into()), ..submit(1) };
    let cancel = Cancel { job: gone, reason: String::new(), finished_ms: 9 };
    let remove = RemoveNode { node: NodeId(7), author: author() };
    vec![
        ("raise features", Command::RaiseFeatures(RaiseFeatures { level: 2 })),
        ("register witness", register(5, 0, true)),
        ("register worker", register(6, 2, false)),
        ("submit with times", timed(JOB, Some("order-8"))),
        ("assign", assign()),
        ("fail", fail(5)),
        ("release", Command::Release(Release { jobs: vec![JOB] })),
        ("set", set(0, &[("queue.paused", Some(flag)), ("queue.weight.studio", Some(number))])),
        ("set back", set(1, &[("queue.paused", None)])),
        ("set node", set_node()),
        ("remove node", Command::RemoveNode(remove)),
        ("mark", Command::Mark),
        ("forget keys", Command::ForgetKeys(ForgetKeys { keys: vec![key] })),
        ("assign again", assign()),
        ("fail again", fail(14)),
        ("submit of a key", Command::Submit(keyed)),
        ("cancel", Command::Cancel(cancel)),
        ("forget", Command::Forget(Forget { jobs: vec![gone] })),
        ("submit that expires", timed(late, None)),
        ("expire", Command::Expire(Expire { job: late, finished_ms: 1_763_755_900_001 })),
    ]
}

/// What came with level 3.
fn third() -> Vec<(&'static str, Command)> {
    let note = NoteAct { act: "give node 4 a vote".to_owned(), author: author() };
    vec![
        ("raise to 3", Command::RaiseFeatures(RaiseFeatures { level: 3 })),
        ("note", Command::NoteAct(note)),
    ]
}

fn state() -> (SnapshotMeta, State) {
    state_after(&later())
}

fn state_after(commands: &[(&'static str, Command)]) -> (SnapshotMeta, State) {
    let mut state = State::new();
    for ((_, command), index) in commands.iter().zip(1..) {
        state.apply(LogIndex(index), command);
    }
    let last_membership = StoredMembership::new(Some(log_id(1, 1, 0)), membership());
    let last = state.applied().0;
    (SnapshotMeta { last_log_id: Some(log_id(3, 2, last)), last_membership }, state)
}

#[test]
fn bytes_of_format_2_are_those_of_the_golden_file() {
    let mut text = String::new();
    let mut line = |name: &str, bytes: &[u8]| {
        let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        writeln!(text, "{name}: {hex}").expect("a string grows");
    };
    for (name, command) in later() {
        line(name, &command_to_proto(&command).encode_to_vec());
    }
    let (meta, state) = state();
    line("snapshot", &snapshot_bytes(&meta, &state));
    check_golden(GOLDEN, &text);
}

#[test]
fn bytes_of_format_3_are_those_of_the_golden_file() {
    let mut text = String::new();
    let mut line = |name: &str, bytes: &[u8]| {
        let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        writeln!(text, "{name}: {hex}").expect("a string grows");
    };
    for (name, command) in third() {
        let proto = command_to_proto(&command);
        line(name, &proto.encode_to_vec());
        assert_eq!(command_from_proto(proto), Ok(command), "{name}");
    }
    let (meta, state) = state_after(&[later(), third()].concat());
    assert_eq!(
        (state.features(), state.trail().next_back().map(|it| &*it.act)),
        (3, Some("give node 4 a vote"))
    );
    let bytes = snapshot_bytes(&meta, &state);
    line("snapshot", &bytes);
    check_golden(GOLDEN_3, &text);
    let (_, back) = decode_snapshot(&bytes).expect("decode");
    assert_eq!((&back, back.digest()), (&state, state.digest()));
}

#[test]
fn commands_of_format_2_come_back_and_say_so() {
    for (name, command) in later() {
        let proto = command_to_proto(&command);
        assert_eq!(proto.format, command.features(), "{name}");
        assert_eq!(command_from_proto(proto), Ok(command), "{name}");
    }
    for (name, command) in commands() {
        assert_eq!(command_to_proto(&command).format, 1, "{name}");
    }
}

#[test]
fn snapshot_of_format_2_misses_nothing() {
    let (meta, state) = state();
    assert_eq!((state.features(), state.delayed_count()), (2, 1));
    assert!(state.forgotten_keys().count() > 0 && state.trail().count() > 3);
    assert!(state.settings_history().count() == 2 && state.marked().0 > 0);
    assert!(state.assigned_count() == 2 && state.failed_count() == 1);
    let (meta_back, back) = decode_snapshot(&snapshot_bytes(&meta, &state)).expect("decode");
    assert_eq!((meta_back, &back), (meta, &state));
    assert_eq!(back.digest(), state.digest());
}

#[test]
fn format_that_does_not_fit_its_command_is_refused() {
    for (name, command) in later() {
        let mut proto = command_to_proto(&command);
        if proto.format == 2 {
            proto.format = 1;
            assert_eq!(command_from_proto(proto).expect_err(name).what, "command.format");
        }
    }
    let mut note = command_to_proto(&third()[1].1);
    note.format = 2;
    assert_eq!(command_from_proto(note).expect_err("an early note").what, "command.format");
    let raise = pb::RaiseFeatures { level: atelier_state::limits::FEATURES + 1 };
    let raise = pb::command::Command::RaiseFeatures(raise);
    let error = command_from_proto(pb::Command { format: 2, command: Some(raise) });
    assert_eq!(error.expect_err("a later level").what, "raise_features.level");
}
