//! Golden bytes, round trips and wrong bytes.

use super::*;
use crate::raft::types::{
    Commands, Entry, LogId, Membership, SnapshotMeta, StoredMembership, Vote,
};
use atelier_proto::peer::v1 as pb;
use atelier_state::{
    AllocateNode, ArtifactRef, Assign, Author, Cancel, Command, Complete, Digest, Fail,
    FencingToken, Forget, JobId, LogIndex, NodeId, Refusal, RegisterNode, RemoveNode, Reply,
    Revoke, RevokeReason, State, Submit,
};
use bytes::Bytes;
use openraft::EntryPayload;
use openraft::impls::leader_id_adv::LeaderId;
use proptest::prelude::*;
use prost::Message;
use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::fmt::Write as _;

mod level;

/// The bytes of format 1, which the version before wrote. They never change.
const GOLDEN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/entry.txt");

fn snapshot_bytes(meta: &SnapshotMeta, state: &State) -> Bytes {
    let mut bytes = Vec::new();
    let put = |part: &[u8]| {
        bytes.extend_from_slice(part);
        Ok::<_, Infallible>(())
    };
    encode_snapshot(meta, state, put).expect("a vector takes all");
    bytes.into()
}

fn submit(job: u128) -> Submit {
    Submit {
        job: JobId(job),
        tenant: "studio".into(),
        idempotency_key: Some("order-7".into()),
        priority: 7,
        kind: "text_to_image/v1".into(),
        parameters: Bytes::from_static(b"{\"prompt\":\"a fox\"}"),
        traceparent: "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".to_owned(),
        submitted_ms: 1_763_755_200_000,
        attempts_max: 3,
        deadline_ms: 0,
        max_runtime_s: 0,
        cost: 1,
        retry_of: None,
    }
}

fn commands() -> Vec<(&'static str, Command)> {
    let (job, token, finished_ms) = (JobId(0x1234_5678), FencingToken(42), 1_763_755_260_000);
    let artifacts = vec![ArtifactRef {
        digest: Digest([0xab; 32]),
        bytes: 1_048_576,
        media_type: "image/png".to_owned(),
        holders: vec![NodeId(1), NodeId(3)],
    }];
    let revoke = |reason| Command::Revoke(Revoke { job, token, reason });
    let error = "out of memory".to_owned();
    let address = "http://10.0.0.4:7861".to_owned();
    vec![
        ("submit", Command::Submit(submit(0x1234_5678))),
        ("submit without key", Command::Submit(Submit { idempotency_key: None, ..submit(1) })),
        ("assign", Command::Assign(Assign { job, node: NodeId(2), incarnation: 9 })),
        ("complete", Command::Complete(Complete { job, token, artifacts, finished_ms })),
        ("fail", Command::Fail(Fail { job, token, error, permanent: true, finished_ms })),
        ("revoke silent", revoke(RevokeReason::Silent)),
        ("revoke drained", revoke(RevokeReason::Drained)),
        ("revoke restarted", revoke(RevokeReason::Restarted)),
        ("cancel", Command::Cancel(Cancel { job, reason: "changed my mind".into(), finished_ms })),
        ("forget", Command::Forget(Forget { jobs: vec![job, JobId(u128::MAX)] })),
        ("allocate node", Command::AllocateNode(AllocateNode { address: address.clone() })),
        (
            "register node",
            Command::RegisterNode(RegisterNode {
                node: NodeId(4),
                address,
                incarnation: 2,
                slots: 1,
                class: "h200/bf16/1".to_owned(),
                model: "z-image-turbo@0a1b".to_owned(),
                witness: false,
            }),
        ),
        (
            "remove node",
            Command::RemoveNode(RemoveNode { node: NodeId(4), author: Author::default() }),
        ),
    ]
}

fn replies() -> Vec<Reply> {
    let refusals = [
        Refusal::Invalid("priority 10 is above 9".to_owned()),
        Refusal::QueueFull(9),
        Refusal::IdempotencyConflict(JobId(77)),
        Refusal::UnknownJob,
        Refusal::StaleToken(FencingToken(9)),
        Refusal::NotQueued,
        Refusal::Terminal,
        Refusal::UnknownNode,
        Refusal::StaleIncarnation(5),
        Refusal::NoSlot,
        Refusal::RosterFull,
        Refusal::TenantFull(7),
        Refusal::StaleVersion(3),
        Refusal::Paused,
        Refusal::Draining,
        Refusal::Unsupported(1),
    ];
    let mut replies = vec![
        Reply::Submitted { job: JobId(5), duplicate: true, log_index: LogIndex(6) },
        Reply::Assigned { token: FencingToken(8) },
        Reply::NodeAllocated { node: NodeId(11) },
        Reply::Done,
    ];
    replies.extend(refusals.map(Reply::Refused));
    replies
}

fn log_id(term: u64, node: u64, index: u64) -> LogId {
    LogId::new(LeaderId { term, node_id: node }, index)
}

fn membership() -> Membership {
    let addresses: BTreeMap<u64, String> =
        (1..=4).map(|node| (node, format!("http://10.0.0.{node}:7861"))).collect();
    let (old, new) = (BTreeSet::from([1, 2, 3]), BTreeSet::from([2, 3, 4]));
    Membership::new(vec![old, new], addresses).expect("a membership")
}

fn entries() -> Vec<(&'static str, Entry)> {
    let all = commands().into_iter().map(|(_, command)| command).collect();
    let entry = |index, payload| Entry { log_id: log_id(3, 2, index), payload };
    vec![
        ("entry blank", entry(7, EntryPayload::Blank)),
        ("entry membership", entry(8, EntryPayload::Membership(membership()))),
        ("entry commands", entry(9, EntryPayload::Normal(Commands::new(all)))),
    ]
}

fn state() -> (SnapshotMeta, State) {
    let mut state = State::new();
    for ((_, command), index) in commands().iter().zip(1..) {
        state.apply(LogIndex(index), command);
    }
    let last = state.applied().0;
    let last_membership = StoredMembership::new(Some(log_id(1, 1, 0)), membership());
    (SnapshotMeta { last_log_id: Some(log_id(3, 2, last)), last_membership }, state)
}

fn golden() -> String {
    let mut text = String::new();
    let mut line = |name: &str, bytes: &[u8]| {
        write!(text, "{name}: ").expect("a string grows");
        bytes.iter().for_each(|byte| write!(text, "{byte:02x}").expect("a string grows"));
        text.push('\n');
    };
    for (name, command) in commands() {
        line(name, &command_to_proto(&command).encode_to_vec());
    }
    for (name, entry) in entries() {
        line(name, &encode_entry(&entry));
    }
    line("vote", &encode_vote(&Vote::new(3, 2)));
    line("vote committed", &encode_vote(&Vote::new_committed(3, 2)));
    line("log id", &encode_log_id(&log_id(3, 2, 9)));
    let (meta, state) = state();
    line("snapshot", &snapshot_bytes(&meta, &state));
    text
}

#[test]
fn bytes_are_those_of_the_golden_file() {
    check_golden(GOLDEN, &golden());
}

fn check_golden(file: &str, golden: &str) {
    if std::env::var_os("ATELIER_GOLDEN_WRITE").is_some() {
        std::fs::write(file, golden).expect("write the golden file");
    }
    let expected = std::fs::read_to_string(file).expect("read the golden file");
    for (found, expected) in golden.lines().zip(expected.lines()) {
        assert_eq!(found, expected, "the format on disk has changed: raise it, or undo that");
    }
    assert_eq!(golden.lines().count(), expected.lines().count());
}

#[test]
fn commands_come_back() {
    for (name, command) in commands() {
        assert_eq!(command_from_proto(command_to_proto(&command)), Ok(command), "{name}");
    }
}

#[test]
fn replies_come_back() {
    for reply in replies() {
        assert_eq!(reply_from_proto(reply_to_proto(&reply)), Ok(reply));
    }
}

#[test]
fn entries_votes_and_log_ids_come_back() {
    for (name, entry) in entries() {
        assert_eq!(decode_entry(encode_entry(&entry)), Ok(entry), "{name}");
    }
    for vote in [Vote::new(0, 0), Vote::new(3, 2), Vote::new_committed(3, 2)] {
        assert_eq!(decode_vote(encode_vote(&vote)), Ok(vote));
    }
    assert_eq!(decode_log_id(encode_log_id(&log_id(1, 2, 3))), Ok(log_id(1, 2, 3)));
}

#[test]
fn snapshots_come_back() {
    let (meta, state) = state();
    let (meta_back, back) = decode_snapshot(&snapshot_bytes(&meta, &state)).expect("decode");
    assert_eq!(meta_back, meta);
    assert_eq!(back, state);
    assert_eq!(back.digest(), state.digest());

    let empty = SnapshotMeta::default();
    let bytes = snapshot_bytes(&empty, &State::new());
    assert_eq!(decode_snapshot(&bytes), Ok((empty, State::new())));
}

#[test]
fn what_a_later_version_wrote_is_refused_by_name() {
    let command = pb::Command { format: COMMAND_FORMAT + 1, command: None };
    let error = command_from_proto(command).expect_err("a later format");
    assert_eq!(error.what, "command.format");
    assert!(error.reason.contains("upgrade this node"), "{error}");

    // A kind that this version does not know decodes to nothing.
    let error = command_from_proto(pb::Command { format: 1, command: None }).expect_err("no kind");
    assert_eq!(error.what, "command");
    let entry = pb::Entry { log_id: Some(pb::LogId::default()), payload: None };
    let error = decode_entry(entry.encode_to_vec().into()).expect_err("no payload");
    assert_eq!(error.what, "entry.payload");
    assert_eq!(reply_from_proto(pb::Reply { reply: None }).expect_err("no kind").what, "reply");
}

#[test]
fn a_gap_between_entries_is_refused() {
    let target = Target { cluster: "c".to_owned(), to: 1 };
    let entries: Vec<Entry> =
        entries().into_iter().map(|(_, entry)| entry).filter(|e| e.log_id.index != 8).collect();
    let request = openraft::raft::AppendEntriesRequest {
        vote: Vote::new_committed(3, 2),
        prev_log_id: Some(log_id(3, 2, 6)),
        entries,
        leader_commit: None,
    };
    let error = append_request_from_proto(append_request_to_proto(&target, &request));
    assert_eq!(error.expect_err("a gap").what, "append_request.entries");
}

proptest! {
    #[test]
    fn no_bytes_make_decoding_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let bytes = Bytes::from(bytes);
        let _ = decode_entry(bytes.clone());
        let _ = decode_vote(bytes.clone());
        let _ = decode_log_id(bytes.clone());
        let _ = decode_snapshot(&bytes);
        let _ = pb::Command::decode(bytes.clone()).map(command_from_proto);
        let _ = pb::Reply::decode(bytes).map(reply_from_proto);
    }

    #[test]
    fn damaged_entries_never_panic(at in any::<proptest::sample::Index>(), bit in 0..8_u32) {
        for (_, entry) in entries() {
            let mut bytes = encode_entry(&entry).to_vec();
            let at = at.index(bytes.len());
            bytes[at] ^= 1_u8 << bit;
            let _ = decode_entry(bytes.into());
        }
    }

    #[test]
    fn damaged_snapshots_are_refused(at in any::<proptest::sample::Index>(), bit in 0..8_u32) {
        let (meta, state) = state();
        let mut bytes = snapshot_bytes(&meta, &state).to_vec();
        let at = at.index(bytes.len());
        bytes[at] ^= 1_u8 << bit;
        prop_assert!(decode_snapshot(&bytes.into()).is_err());
    }
}
