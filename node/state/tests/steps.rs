//! Plants steps that no command makes, to see `audit::check_step` find each.

#[allow(dead_code, reason = "each test file uses its part")]
mod story;

use atelier_state::Invariant::{S1, S2, S3, S4, S5, S7, S8};
use atelier_state::{
    Attempt, FencingToken, Invariant, Job, LogIndex, Node, NodeId, Phase, Refusal, Reply, Snapshot,
    State, audit,
};
use std::sync::Arc;
use story::{check, command};

#[test]
fn terminal_job_that_changes_is_found() {
    found(S1, "cancel j1", Reply::Done, |it| job(it, 0).finished_ms += 1);
    found(S1, "complete j1 token=7", Reply::Done, |it| job(it, 0).artifacts[0].bytes += 1);
    found(S1, "cancel j3", Reply::Done, |it| {
        cancelled(job(it, 2));
        job(it, 2).finished = LogIndex(9);
    });
}

#[test]
fn error_that_is_lost_or_made_up_is_found() {
    found(S1, "fail j2 token=8", Reply::Done, |it| job(it, 1).phase = Phase::Queued);
    found(S1, "revoke j2 token=8", Reply::Done, |it| {
        job(it, 1).phase = Phase::Queued;
        failed(job(it, 1), "odd");
    });
}

#[test]
fn second_body_of_a_job_is_found() {
    found(S2, "revoke j2 token=8", Reply::Done, |it| {
        job(it, 1).phase = Phase::Queued;
        job(it, 1).submit.priority = 9;
    });
    found(S2, "submit j9", accepted(9), |it| add_job(it, 9, |job| job.submit.priority = 9));
    found(S2, "submit j9", accepted(9), |it| add_job(it, 9, |job| job.accepted = LogIndex(9)));
    found(S2, "submit j9", accepted(8), |it| add_job(it, 9, |_| {}));
    found(S2, "submit j8", accepted(8), |it| add_job(it, 9, |_| {}));
}

#[test]
fn submit_answered_by_another_job_is_found() {
    let first = |log_index| {
        let job = atelier_state::JobId(1);
        Reply::Submitted { job, duplicate: true, log_index: LogIndex(log_index) }
    };
    found(S2, "submit j9", accepted(9), |_| {});
    found(S2, "submit j9", first(3), |_| {});
    found(S2, "submit j9 key=l", first(3), |_| {});
    found(S2, "submit j9 key=k body=dog", first(3), |_| {});
    found(S2, "submit j9 key=k tenant=other", first(3), |_| {});
    found(S2, "submit j1 key=k body=dog", first(3), |_| {});
    found(S2, "submit j9 key=k", first(4), |_| {});
}

#[test]
fn reply_that_did_not_come_about_is_found() {
    found(S3, "assign j3 n1", Reply::Assigned { token: FencingToken(10) }, |_| {});
    found(S3, "complete j2 token=8", Reply::Done, |_| {});
    found(S3, "complete j1 token=7 artifacts=b", Reply::Done, |_| {});
    found(S3, "fail j2 token=8", Reply::Done, |_| {});
    found(S3, "revoke j2 token=8", Reply::Done, |_| {});
    found(S3, "cancel j3", Reply::Done, |_| {});
    found(S3, "forget j1", Reply::Done, |_| {});
    found(S3, "register n1 incarnation=9", Reply::Done, |_| {});
    found(S3, "remove n1", Reply::Done, |_| {});
    found(S3, "allocate address=x", Reply::NodeAllocated { node: NodeId(10) }, |_| {});
}

#[test]
fn lease_without_a_slot_is_found() {
    let reply = Reply::Assigned { token: FencingToken(10) };
    found(S3, "assign j3 n2", reply, |it| lease(job(it, 2), 2, 10));
}

#[test]
fn roster_that_changes_by_itself_is_found() {
    found(S3, "forget", Reply::Done, |it| it.nodes[0].1.slots = 5);
    found(S3, "forget", Reply::Done, |it| drop(it.nodes.remove(1)));
    found(S3, "register n2", Reply::Done, |it| drop(it.nodes.remove(1)));
    found(S3, "register n3 incarnation=1", Reply::Done, |it| it.nodes[1].1.incarnation = 2);
    found(S3, "allocate address=x", Reply::NodeAllocated { node: NodeId(9) }, |it| {
        it.nodes.push((NodeId(9), unregistered()));
    });
}

#[test]
fn job_moved_by_another_token_is_found() {
    let queued = |it: &mut Snapshot| job(it, 1).phase = Phase::Queued;
    found(S4, "revoke j2 token=7", Reply::Done, queued);
    found(S4, "fail j2 token=7", Reply::Done, queued);
    found(S4, "cancel j2", Reply::Done, queued);
    found(S4, "fail j2 token=8 permanent", Reply::Done, queued);
    found(S4, "fail j2 token=8", Reply::Done, |it| {
        job(it, 1).phase = Phase::Failed;
        job(it, 1).finished = LogIndex(10);
        failed(job(it, 1), "oom");
    });
    found(S4, "register n2 incarnation=2", Reply::Done, queued);
    found(S4, "remove n2", Reply::Done, queued);
    found(S4, "revoke j3 token=8", Reply::Done, queued);
    found(S4, "complete j3 token=8", Reply::Done, |it| {
        let artifacts = it.jobs[0].artifacts.clone();
        job(it, 2).artifacts = artifacts;
        lease(job(it, 2), 1, 8);
        job(it, 2).phase = Phase::Succeeded;
        job(it, 2).finished = LogIndex(10);
    });
}

#[test]
fn token_that_does_not_rise_is_found() {
    let reply = |token| Reply::Assigned { token: FencingToken(token) };
    found(S4, "assign j3 n1", reply(9), |it| lease(job(it, 2), 1, 9));
    found(S4, "assign j3 n1", reply(10), |it| {
        lease(job(it, 2), 1, 10);
        job(it, 2).leases = 2;
    });
    found(S4, "revoke j2 token=8", Reply::Done, |it| {
        job(it, 1).phase = Phase::Queued;
        job(it, 1).last_token = Some(FencingToken(9));
    });
}

#[test]
fn job_that_disappears_is_found() {
    let gone = |it: &mut Snapshot| {
        it.jobs.remove(0);
        it.forgotten += 1;
    };
    found(S5, "cancel j1", Reply::Done, gone);
    found(S5, "forget j2", Reply::Done, gone);
    found(S5, "forget j3", Reply::Done, |it| {
        it.jobs.remove(2);
        it.forgotten += 1;
    });
    found(S5, "forget", Reply::Done, |it| add_job(it, 9, |_| {}));
}

#[test]
fn refusal_with_a_change_is_found() {
    let refused = || Reply::Refused(Refusal::UnknownJob);
    found(S8, "cancel j3", refused(), |it| cancelled(job(it, 2)));
    found(S8, "register n1", refused(), |it| it.nodes[0].1.slots = 5);
    found(S8, "submit j9", refused(), |it| add_job(it, 9, |_| {}));
    let repeat =
        Reply::Submitted { job: atelier_state::JobId(9), duplicate: true, log_index: LogIndex(10) };
    found(S8, "submit j9", repeat, |it| add_job(it, 9, |_| {}));
}

#[test]
fn reply_to_another_command_is_found() {
    found(S8, "submit j9", Reply::Done, |_| {});
    found(S8, "assign j3 n1", Reply::Done, |_| {});
    found(S8, "allocate address=x", Reply::Done, |_| {});
    found(S8, "cancel j3", accepted(3), |_| {});
}

#[test]
fn index_that_goes_down_is_found() {
    let before = sample();
    let mut later = before.clone();
    later.mark_applied(LogIndex(11));
    let refused = Reply::Refused(Refusal::UnknownJob);
    let violation = audit::check_step(&later, &command("cancel j9"), &refused, &before);
    assert_eq!(violation.expect_err("it was planted").invariant, S7);
}

/// Plants a step from the sample, at index 10.
#[track_caller]
fn found(invariant: Invariant, ask: &str, reply: Reply, plant: impl FnOnce(&mut Snapshot)) {
    let before = sample();
    let mut after = before.to_snapshot();
    after.applied = LogIndex(10);
    plant(&mut after);
    let after = State::from_snapshot(after).expect("each state is sound, the step is not");
    let step = audit::check_step(&before, &command(ask), &reply, &after);
    let violation = step.expect_err("it was planted");
    assert_eq!(violation.invariant, invariant, "{violation}");
}

/// j1 has succeeded, j2 is leased to n1, j3 waits; n2 has no slot.
fn sample() -> State {
    check(
        "register n1 slots=3 -> done
         register n2 slots=0 -> done
         submit j1 key=k -> accepted j1 at 3
         submit j2 -> accepted j2 at 4
         submit j3 -> accepted j3 at 5
         register n2 slots=0 -> done
         assign j1 n1 -> token 7
         assign j2 n1 -> token 8
         complete j1 token=7 -> done",
    )
}

fn accepted(job: u128) -> Reply {
    let job = atelier_state::JobId(job);
    Reply::Submitted { job, duplicate: false, log_index: LogIndex(10) }
}

fn job(snapshot: &mut Snapshot, at: usize) -> &mut Job {
    Arc::make_mut(&mut snapshot.jobs[at])
}

fn failed(job: &mut Job, error: &str) {
    let (token, node) = (FencingToken(0), NodeId(0));
    job.attempts.push(Attempt { token, node, error: error.to_owned(), failed_ms: 0 });
}

fn add_job(snapshot: &mut Snapshot, id: u128, spoil: impl FnOnce(&mut Job)) {
    let mut job = Job::clone(&snapshot.jobs[2]);
    job.submit.job = atelier_state::JobId(id);
    job.accepted = LogIndex(10);
    job.sequence = 4;
    spoil(&mut job);
    snapshot.jobs.push(Arc::new(job));
    snapshot.submit_sequence += 1;
}

fn cancelled(job: &mut Job) {
    job.phase = Phase::Cancelled;
    job.finished = LogIndex(10);
}

fn lease(job: &mut Job, node: u64, token: u64) {
    let (token, node) = (FencingToken(token), NodeId(node));
    job.phase = Phase::Leased(atelier_state::Lease { token, node, incarnation: 1 });
    job.last_token = Some(token);
    job.last_node = Some(node);
    job.leases += 1;
}

fn unregistered() -> Node {
    Node { address: "x".to_owned(), ..Node::default() }
}
