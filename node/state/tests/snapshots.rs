//! A snapshot restores its state, and data that is no state is refused by name.

#[allow(dead_code, reason = "each test file uses its part")]
mod story;

use atelier_state::Invariant::{S1, S2, S3, S4, S5, S6};
use atelier_state::{
    Attempt, Digest, FencingToken, Invariant, Job, JobId, JobIdError, LogIndex, NodeId, Phase,
    Snapshot, SnapshotError, State, limits,
};
use std::sync::Arc;
use story::check;

#[test]
fn snapshot_restores_every_answer() {
    let state = sample();
    let restored = State::from_snapshot(state.to_snapshot()).expect("it was made here");
    assert_eq!(restored, state);
    assert_eq!(restored.digest(), state.digest());
    assert_eq!(restored.to_snapshot(), state.to_snapshot());
    let empty = State::from_snapshot(Snapshot::default()).expect("nothing is a state");
    assert_eq!(empty, State::new());
}

#[test]
fn records_out_of_order_are_refused() {
    let mut twice = sample().to_snapshot();
    twice.jobs.insert(1, twice.jobs[0].clone());
    assert_eq!(State::from_snapshot(twice), Err(SnapshotError::JobOrder(JobId(1))));

    let mut swapped = sample().to_snapshot();
    swapped.jobs.swap(0, 1);
    assert_eq!(State::from_snapshot(swapped), Err(SnapshotError::JobOrder(JobId(1))));

    let mut nodes = sample().to_snapshot();
    nodes.nodes.swap(0, 1);
    assert_eq!(State::from_snapshot(nodes), Err(SnapshotError::NodeOrder(NodeId(1))));
}

#[test]
fn job_that_fits_no_phase_is_refused() {
    // The place in the queue is taken from the sequence: two jobs at one place.
    refused(S1, |it| {
        job(it, 1).phase = Phase::Queued;
        job(it, 1).sequence = it.jobs[2].sequence;
    });
    refused(S1, |it| job(it, 0).artifacts.clear());
    refused(S1, |it| {
        let artifacts = it.jobs[0].artifacts.clone();
        job(it, 2).artifacts = artifacts;
    });
    refused(S1, |it| job(it, 2).finished = LogIndex(8));
    refused(S1, |it| job(it, 2).finished_ms = 8);
    refused(S1, |it| job(it, 2).cancel_reason = "odd".to_owned());
    refused(S1, |it| job(it, 0).finished = LogIndex(1));
    refused(S1, |it| job(it, 0).finished = LogIndex(9_999));
    refused(S1, |it| job(it, 3).attempts.clear());
    refused(S1, |it| job(it, 3).phase = Phase::Queued);
}

#[test]
fn key_of_two_jobs_is_refused() {
    refused(S2, |it| job(it, 1).submit.idempotency_key = Some("k".into()));
}

#[test]
fn lease_without_its_node_is_refused() {
    refused(S3, |it| drop(it.nodes.remove(0)));
    refused(S3, |it| it.nodes[0].1.incarnation = 2);
    refused(S3, |it| job(it, 1).last_node = Some(NodeId(2)));
}

#[test]
fn token_that_fits_no_lease_is_refused() {
    refused(S4, |it| job(it, 1).last_token = Some(FencingToken(2)));
    refused(S4, |it| job(it, 1).last_token = None);
    refused(S4, |it| job(it, 1).last_node = None);
    refused(S4, |it| job(it, 1).leases = 0);
    refused(S4, |it| job(it, 0).last_token = Some(FencingToken(9_999)));
    refused(S4, |it| failed(job(it, 2), "no attempt"));
}

#[test]
fn lost_job_is_refused() {
    refused(S5, |it| it.forgotten += 1);
    refused(S5, |it| it.submit_sequence = 0);
    refused(S5, |it| it.forgotten = u64::MAX);
    refused(S5, |it| drop(it.jobs.remove(0)));
    refused(S5, |it| job(it, 0).sequence = 2);
    refused(S5, |it| job(it, 0).sequence = 0);
    refused(S5, |it| job(it, 2).sequence = 99);
    refused(S5, |it| job(it, 2).accepted = LogIndex(9_999));
    refused(S5, |it| job(it, 2).accepted = LogIndex(1));
}

#[test]
fn record_above_the_limits_is_refused() {
    refused(S6, |it| job(it, 2).submit.priority = 10);
    refused(S6, |it| job(it, 2).submit.kind = "".into());
    refused(S6, |it| job(it, 2).submit.idempotency_key = Some("".into()));
    refused(S6, |it| job(it, 2).submit.tenant = "x".repeat(limits::NAME_BYTES_MAX + 1).into());
    refused(S6, |it| job(it, 2).submit.traceparent = "x".repeat(limits::NAME_BYTES_MAX + 1));
    refused(S6, |it| job(it, 2).submit.attempts_max = limits::ATTEMPTS_MAX + 1);
    let parameters = vec![0; limits::PARAMETERS_BYTES_MAX + 1];
    refused(S6, |it| job(it, 2).submit.parameters = parameters.into());
    refused(S6, |it| job(it, 3).attempts[0].error = "x".repeat(limits::ERROR_BYTES_MAX + 1));
    refused(S6, |it| job(it, 4).cancel_reason = "x".repeat(limits::ERROR_BYTES_MAX + 1));
    refused(S6, |it| job(it, 0).artifacts[0].holders.clear());
    refused(S6, |it| job(it, 0).artifacts[0].holders = vec![NodeId(1); limits::HOLDERS_MAX + 1]);
    refused(S6, |it| {
        let artifact = it.jobs[0].artifacts[0].clone();
        job(it, 0).artifacts = vec![artifact; limits::ARTIFACTS_MAX + 1];
    });
    refused(S6, |it| it.nodes[0].1.slots = limits::SLOTS_MAX + 1);
    refused(S6, |it| it.nodes[0].1.address = String::new());
    refused(S6, |it| it.nodes[1].1.incarnation = 0);
}

#[test]
fn too_many_records_are_refused() {
    refused(S6, |it| {
        let node = it.nodes[1].1.clone();
        it.nodes.extend((10..80).map(|id| (NodeId(id), node.clone())));
    });
    refused(S6, |it| {
        let job = it.jobs[4].clone();
        let more = (100..100 + limits::JOBS_MAX_FIRST as u64).map(|number| renamed(&job, number));
        it.jobs.extend(more);
        it.submit_sequence += limits::JOBS_MAX_FIRST as u64;
    });
    refused(S6, |it| {
        let job = it.jobs[2].clone();
        let more = (100..100 + 15_000).map(|number| renamed(&job, number));
        it.jobs.extend(more);
        it.submit_sequence += 15_000;
    });
}

#[test]
fn job_id_is_a_ulid() {
    for id in
        [JobId(0), JobId(1), JobId(u128::MAX), JobId(0x0192_3456_789a_bcde_f012_3456_789a_bcde)]
    {
        let text = id.to_string();
        assert_eq!(text.len(), 26);
        assert_eq!(text.parse(), Ok(id));
        assert_eq!(text.to_lowercase().parse(), Ok(id));
        assert_eq!(JobId::from_bytes(id.to_bytes()), id);
    }
    assert_eq!(JobId(u128::MAX).to_string(), "7ZZZZZZZZZZZZZZZZZZZZZZZZZ");
    let parse = |text: &str| text.parse::<JobId>();
    assert_eq!(parse(""), Err(JobIdError::Length(0)));
    assert_eq!(parse("7ZZZZZZZZZZZZZZZZZZZZZZZZZZ"), Err(JobIdError::Length(27)));
    assert_eq!(parse("0000000000000000000000000U"), Err(JobIdError::Character));
    assert_eq!(parse("000000000000000000000000€"), Err(JobIdError::Length(27)));
    assert_eq!(parse("00000000000000000000000€"), Err(JobIdError::Character));
    assert_eq!(parse("80000000000000000000000000"), Err(JobIdError::Overflow));
}

#[test]
fn digest_is_hexadecimal() {
    let digest = Digest([0xab; 32]);
    assert_eq!(digest.to_string(), "ab".repeat(32));
    assert_eq!("ab".repeat(32).parse(), Ok(digest));
    assert_eq!("AB".repeat(32).parse(), Ok(digest));
    assert!("ab".repeat(31).parse::<Digest>().is_err());
    assert!("xy".repeat(32).parse::<Digest>().is_err());
}

/// j1 has succeeded, j2 is leased, j3 waits and has a key, j4 has failed, j5 is cancelled.
fn sample() -> State {
    check(
        "register n1 slots=4 -> done
         register n2 -> done
         submit j1 -> accepted j1 at 3
         submit j2 -> accepted j2 at 4
         submit j3 key=k -> accepted j3 at 5
         submit j4 attempts=1 -> accepted j4 at 6
         submit j5 -> accepted j5 at 7
         assign j1 n1 -> token 8
         assign j2 n1 -> token 9
         assign j4 n1 -> token 10
         complete j1 token=8 artifacts=a,b -> done
         fail j4 token=10 -> done
         cancel j5 -> done
         submit j6 -> accepted j6 at 14
         cancel j6 -> done
         forget j6 -> done",
    )
}

#[track_caller]
fn refused(invariant: Invariant, spoil: impl FnOnce(&mut Snapshot)) {
    let mut snapshot = sample().to_snapshot();
    spoil(&mut snapshot);
    match State::from_snapshot(snapshot) {
        Err(SnapshotError::Violation(found)) => assert_eq!(found.invariant, invariant, "{found}"),
        other => panic!("expected a violation of {invariant:?}, got {:?}", other.err()),
    }
}

fn job(snapshot: &mut Snapshot, at: usize) -> &mut Job {
    Arc::make_mut(&mut snapshot.jobs[at])
}

fn failed(job: &mut Job, error: &str) {
    let (token, node) = (FencingToken(0), NodeId(0));
    job.attempts.push(Attempt { token, node, error: error.to_owned(), failed_ms: 0 });
}

fn renamed(job: &Job, number: u64) -> Arc<Job> {
    let mut job = job.clone();
    job.submit.job = JobId(number.into());
    job.submit.idempotency_key = None;
    job.sequence = number;
    Arc::new(job)
}
