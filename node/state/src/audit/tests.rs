//! Plants in a state what no command leaves behind, to see the audit find it.

use super::{Invariant, check};
use crate::command::{Assign, Cancel, Command, Complete, RegisterNode, Submit, TenantKey};
use crate::job::{ArtifactRef, Digest, JobId, Phase};
use crate::lease::FencingToken;
use crate::reply::LogIndex;
use crate::roster::NodeId;
use crate::state::State;
use std::sync::Arc;

#[test]
fn job_in_no_phase_is_found() {
    found(Invariant::S1, |state| state.queue.remove(&job(state, 1)));
    found(Invariant::S1, |state| assert!(state.leases.remove(&(NodeId(1), JobId(2))).is_some()));
    found(Invariant::S1, |state| {
        assert!(state.ended.succeeded.remove(&(LogIndex(8), JobId(3))).is_some())
    });
}

#[test]
fn job_in_two_phases_is_found() {
    found(Invariant::S1, |state| state.queue.insert(&job(state, 2)));
    found(Invariant::S1, |state| assert!(state.leases.insert((NodeId(1), JobId(1))).is_none()));
    found(Invariant::S1, |state| {
        assert!(state.ended.succeeded.insert((LogIndex(8), JobId(1))).is_none())
    });
}

#[test]
fn index_that_swaps_jobs_is_found() {
    found(Invariant::S3, |state| {
        let mut moved = job(state, 1);
        state.queue.remove(&moved);
        moved.submit.priority = 7;
        state.queue.insert(&moved);
    });
    found(Invariant::S3, |state| {
        state.leases.remove(&(NodeId(1), JobId(2)));
        state.leases.insert((NodeId(2), JobId(2)));
    });
    found(Invariant::S3, |state| {
        state.ended.succeeded.remove(&(LogIndex(8), JobId(3)));
        state.ended.succeeded.insert((LogIndex(7), JobId(3)));
    });
}

#[test]
fn key_that_leads_elsewhere_is_found() {
    let key = |name: &str| TenantKey { tenant: "default".into(), key: name.into() };
    found(Invariant::S2, |state| assert!(state.keys.owners.remove(&key("key 1")).is_some()));
    found(Invariant::S2, |state| {
        assert!(state.keys.owners.insert(key("key 1"), JobId(2)).is_some())
    });
    found(Invariant::S2, |state| {
        assert!(state.keys.owners.insert(key("key 9"), JobId(1)).is_none())
    });
}

#[test]
fn artifact_index_that_differs_is_found() {
    found(Invariant::S7, |state| state.artifacts.clear());
    found(Invariant::S7, |state| {
        assert!(state.artifacts.insert((Digest([9; 32]), JobId(3))).is_none())
    });
}

#[test]
fn job_under_another_id_is_found() {
    found(Invariant::S2, |state| {
        let job = state.jobs.get_mut(&JobId(1)).expect("it is there");
        Arc::make_mut(job).submit.job = JobId(9);
    });
}

#[test]
fn node_above_every_limit_is_found() {
    found(Invariant::S6, |state| {
        state.nodes.get_mut(&NodeId(1)).expect("it is there").class = "x".repeat(513);
    });
}

fn found(invariant: Invariant, plant: impl FnOnce(&mut State)) {
    let mut state = sample();
    check(&state).expect("the sample is sound");
    plant(&mut state);
    let violation = check(&state).expect_err("it was planted");
    assert_eq!(violation.invariant, invariant, "{violation}");
}

/// j1 waits, j2 is leased to n1, j3 has succeeded with artifact 1.
fn sample() -> State {
    let mut state = State::new();
    for (index, command) in (1..).zip([
        register(),
        submit(1),
        submit(2),
        submit(3),
        submit(4),
        assign(2),
        assign(3),
        complete(3, 7),
        Command::Cancel(Cancel { job: JobId(4), reason: String::new(), finished_ms: 0 }),
    ]) {
        let reply = state.apply(LogIndex(index), &command);
        assert!(!matches!(reply, crate::reply::Reply::Refused(_)), "{reply:?}");
    }
    assert_eq!(job(&state, 1).phase, Phase::Queued);
    state
}

fn job(state: &State, id: u128) -> crate::job::Job {
    state.job(JobId(id)).expect("it is there").clone()
}

fn register() -> Command {
    Command::RegisterNode(RegisterNode {
        node: NodeId(1),
        address: "http://a:1".to_owned(),
        incarnation: 1,
        slots: 2,
        class: "cpu".to_owned(),
        model: "small".to_owned(),
        witness: false,
    })
}

fn submit(id: u128) -> Command {
    Command::Submit(Submit {
        job: JobId(id),
        tenant: "default".into(),
        idempotency_key: Some(format!("key {id}").into()),
        priority: 5,
        kind: "text_to_image/v1".into(),
        parameters: "a cat".into(),
        traceparent: String::new(),
        submitted_ms: 0,
        attempts_max: 3,
        deadline_ms: 0,
        max_runtime_s: 0,
        cost: 1,
        retry_of: None,
    })
}

fn assign(id: u128) -> Command {
    Command::Assign(Assign { job: JobId(id), node: NodeId(1), incarnation: 1 })
}

fn complete(id: u128, token: u64) -> Command {
    let artifact = ArtifactRef {
        digest: Digest([1; 32]),
        bytes: 100,
        media_type: "image/png".to_owned(),
        holders: vec![NodeId(1)],
    };
    let token = FencingToken(token);
    Command::Complete(Complete { job: JobId(id), token, artifacts: vec![artifact], finished_ms: 0 })
}
