//! What the state answers, told as stories with recorded replies.

#[allow(dead_code, reason = "each test file uses its part")]
mod story;

use atelier_state::{
    Author, Cancel, Command, Digest, Fail, FencingToken, Forget, JobId, LogIndex, NodeId, Phase,
    Refusal, RegisterNode, Reply, State, Submit, audit, limits,
};
use story::{apply_audited, check};

#[test]
fn job_is_served_from_submit_to_artifact() {
    check(
        "register n1 -> done
         submit j1 -> accepted j1 at 2
         job j1 -> queued
         assign j1 n1 -> token 3
         job j1 -> leased to n1 as 3
         leases -> j1@n1
         complete j1 token=3 artifacts=a,b -> done
         job j1 -> succeeded with a b at 4
         leases -> none
         ended -> j1
         holders b -> n1",
    );
}

#[test]
fn stale_token_cannot_complete() {
    check(
        "register n1 -> done
         register n2 -> done
         submit j1 -> accepted j1 at 3
         assign j1 n1 -> token 4
         revoke j1 token=4 -> done
         complete j1 token=4 -> refused: stale token, newest 4
         assign j1 n2 -> token 7
         complete j1 token=4 -> refused: stale token, newest 7
         fail j1 token=4 -> refused: stale token, newest 7
         revoke j1 token=4 -> refused: stale token, newest 7
         job j1 -> leased to n2 as 7
         complete j1 token=7 artifacts=b -> done
         complete j1 token=4 -> refused: stale token, newest 7
         job j1 -> succeeded with b at 11",
    );
}

#[test]
fn token_that_was_never_granted_is_stale() {
    check(
        "register n1 -> done
         submit j1 -> accepted j1 at 2
         complete j1 token=9 -> refused: stale token, newest 0
         fail j1 token=9 -> refused: stale token, newest 0
         revoke j1 token=9 -> refused: stale token, newest 0
         complete j2 token=9 -> refused: UnknownJob
         complete j1 token=0 -> refused: token: expected a number above 0, got 0
         assign j1 n1 -> token 8
         complete j1 token=9 -> refused: stale token, newest 8",
    );
}

#[test]
fn repeated_completion_is_done_once() {
    check(
        "register n1 -> done
         submit j1 -> accepted j1 at 2
         assign j1 n1 -> token 3
         complete j1 token=3 artifacts=a -> done
         complete j1 token=3 artifacts=a -> done
         complete j1 token=3 artifacts=b -> refused: Terminal
         fail j1 token=3 -> refused: Terminal
         revoke j1 token=3 -> refused: Terminal
         cancel j1 -> refused: Terminal
         assign j1 n1 -> refused: Terminal
         job j1 -> succeeded with a at 4",
    );
}

#[test]
fn repeated_failure_is_counted_once() {
    check(
        "register n1 -> done
         submit j1 attempts=2 -> accepted j1 at 2
         assign j1 n1 -> token 3
         fail j1 token=3 error=oom -> done
         fail j1 token=3 error=oom -> done
         job j1 -> queued after oom
         fail j1 token=3 error=fault -> refused: stale token, newest 3
         complete j1 token=3 -> refused: stale token, newest 3
         assign j1 n1 -> token 8
         fail j1 token=8 error=fault -> done
         fail j1 token=8 error=fault -> done
         job j1 -> failed after oom, fault",
    );
}

#[test]
fn failure_after_another_end_is_no_repeat() {
    check(
        "register n1 slots=2 -> done
         submit j1 -> accepted j1 at 2
         submit j2 -> accepted j2 at 3
         assign j1 n1 -> token 4
         assign j2 n1 -> token 5
         fail j1 token=4 error=oom -> done
         fail j2 token=5 error=oom -> done
         assign j1 n1 -> token 8
         assign j2 n1 -> token 9
         cancel j1 -> done
         complete j2 token=9 -> done
         fail j1 token=8 error=oom -> refused: Terminal
         fail j2 token=9 error=oom -> refused: Terminal
         revoke j1 token=8 -> refused: Terminal
         complete j1 token=8 -> refused: Terminal",
    );
}

#[test]
fn repeated_revocation_is_done() {
    check(
        "register n1 -> done
         submit j1 -> accepted j1 at 2
         assign j1 n1 -> token 3
         revoke j1 token=3 -> done
         revoke j1 token=3 -> done
         fail j1 token=3 -> refused: stale token, newest 3
         job j1 -> queued",
    );
}

#[test]
fn repeated_submit_answers_the_first_job() {
    check(
        "submit j1 trace=x ms=1 -> accepted j1 at 1
         submit j1 trace=y ms=2 attempts=5 -> repeat of j1 at 1
         submit j1 body=dog -> refused: conflict with j1
         submit j1 priority=6 -> refused: conflict with j1
         submit j1 tenant=other -> refused: conflict with j1
         submit j1 key=k -> refused: conflict with j1
         submit j1 kind=speech/v1 -> refused: conflict with j1
         queue -> j1
         cancel j1 -> done
         submit j1 -> repeat of j1 at 1",
    );
}

#[test]
fn idempotency_key_leads_to_the_first_job() {
    check(
        "submit j1 key=k -> accepted j1 at 1
         submit j2 key=k -> repeat of j1 at 1
         submit j2 key=k priority=9 -> repeat of j1 at 1
         submit j2 key=k body=dog -> refused: conflict with j1
         submit j2 key=k kind=speech/v1 -> refused: conflict with j1
         submit j2 key=k tenant=other -> accepted j2 at 6
         submit j3 key=l -> accepted j3 at 7
         job j4 -> none
         cancel j1 -> done
         submit j4 key=k -> repeat of j1 at 1
         forget j1 -> done
         submit j4 key=k body=dog -> accepted j4 at 11
         submit j5 key=k -> refused: conflict with j4",
    );
}

#[test]
fn job_fails_after_its_attempts() {
    check(
        "register n1 -> done
         submit j1 attempts=3 -> accepted j1 at 2
         assign j1 n1 -> token 3
         fail j1 token=3 error=one -> done
         assign j1 n1 -> token 5
         revoke j1 token=5 -> done
         assign j1 n1 -> token 7
         fail j1 token=7 error=two -> done
         assign j1 n1 -> token 9
         fail j1 token=9 error=three -> done
         job j1 -> failed after one, two, three
         assign j1 n1 -> refused: Terminal
         complete j1 token=9 -> refused: Terminal",
    );
}

#[test]
fn permanent_failure_ends_the_job_at_once() {
    check(
        "register n1 -> done
         submit j1 attempts=3 -> accepted j1 at 2
         assign j1 n1 -> token 3
         fail j1 token=3 error=nonsense permanent -> done
         job j1 -> failed after nonsense
         ended -> j1",
    );
}

#[test]
fn returning_job_finds_its_old_place() {
    check(
        "register n1 slots=9 -> done
         submit j1 -> accepted j1 at 2
         submit j2 -> accepted j2 at 3
         submit j3 priority=9 -> accepted j3 at 4
         submit j4 priority=0 -> accepted j4 at 5
         queue -> j3 j1 j2 j4
         position j3 -> Some(0)
         position j4 -> Some(3)
         assign j1 n1 -> token 6
         position j1 -> None
         queue -> j3 j2 j4
         position j2 -> Some(1)
         submit j5 -> accepted j5 at 7
         fail j1 token=6 -> done
         queue -> j3 j1 j2 j5 j4
         position j1 -> Some(1)
         position j9 -> None",
    );
}

#[test]
fn cancellation_ends_a_lease() {
    check(
        "register n1 -> done
         submit j1 -> accepted j1 at 2
         submit j2 -> accepted j2 at 3
         cancel j1 reason=mistake -> done
         job j1 -> cancelled: mistake
         assign j2 n1 -> token 5
         cancel j2 -> done
         leases -> none
         complete j2 token=5 -> refused: Terminal
         fail j2 token=5 -> refused: Terminal
         revoke j2 token=5 -> refused: Terminal
         cancel j2 -> refused: Terminal
         cancel j3 -> refused: UnknownJob
         complete j1 token=5 -> refused: stale token, newest 0
         ended -> j1 j2
         holders a -> none",
    );
}

#[test]
fn only_ended_jobs_are_forgotten() {
    let state = check(
        "register n1 -> done
         submit j1 key=k -> accepted j1 at 2
         submit j2 -> accepted j2 at 3
         submit j3 -> accepted j3 at 4
         submit j4 -> accepted j4 at 5
         assign j1 n1 -> token 6
         complete j1 token=6 artifacts=a,a,b -> done
         assign j2 n1 -> token 8
         cancel j3 -> done
         ended -> j1 j3
         forget j1 j2 j3 j4 j5 j1 -> done
         ended -> none
         job j1 -> none
         job j2 -> leased to n1 as 8
         job j4 -> queued
         holders a -> none
         complete j1 token=6 artifacts=a,a,b -> refused: UnknownJob
         forget -> done",
    );
    assert_eq!(state.forgotten_count(), 2);
}

#[test]
fn equal_artifacts_of_two_jobs_outlive_one() {
    let state = check(
        "register n1 slots=2 -> done
         submit j1 -> accepted j1 at 2
         submit j2 -> accepted j2 at 3
         assign j1 n1 -> token 4
         assign j2 n1 -> token 5
         complete j1 token=4 artifacts=a holders=n1,n2 -> done
         complete j2 token=5 artifacts=a,b holders=n3 -> done
         holders a -> n3
         forget j2 -> done
         holders a -> n1 n2
         holders b -> none",
    );
    let left: Vec<u8> = state.artifact_digests().map(|digest| digest.0[0]).collect();
    assert_eq!(left, b"a");
}

#[test]
fn completion_without_a_result_is_refused() {
    check(
        "register n1 -> done
         submit j1 -> accepted j1 at 2
         assign j1 n1 -> token 3
         complete j1 token=3 artifacts= -> refused: artifacts: expected 1 to 16 items, got 0
         complete j1 token=3 artifacts=a,b,c,d,e,f,g,h,i,j,k,l,m,n,o,p,q -> refused: artifacts: expected 1 to 16 items, got 17
         complete j1 token=3 holders= -> refused: holders: expected 1 to 8 items, got 0
         complete j1 token=3 holders=n1,n2,n3,n4,n5,n6,n7,n8,n9 -> refused: holders: expected 1 to 8 items, got 9
         complete j1 token=3 holders=n0 -> refused: holders: expected a node id above 0, got 0
         job j1 -> leased to n1 as 3",
    );
}

#[test]
fn node_draws_no_more_jobs_than_slots() {
    check(
        "register n1 slots=2 -> done
         register n2 slots=0 -> done
         submit j1 -> accepted j1 at 3
         submit j2 -> accepted j2 at 4
         submit j3 -> accepted j3 at 5
         assign j1 n1 -> token 6
         assign j1 n1 -> refused: NotQueued
         assign j2 n1 -> token 8
         assign j3 n1 -> refused: NoSlot
         assign j3 n2 -> refused: NoSlot
         assign j3 n3 -> refused: UnknownNode
         assign j4 n1 -> refused: UnknownJob
         register n1 slots=1 -> done
         leases -> j1@n1 j2@n1
         complete j1 token=6 -> done
         assign j3 n1 -> refused: NoSlot
         complete j2 token=8 -> done
         assign j3 n1 -> token 17",
    );
}

#[test]
fn restarted_node_loses_its_leases() {
    check(
        "register n1 incarnation=3 slots=2 -> done
         submit j1 -> accepted j1 at 2
         submit j2 -> accepted j2 at 3
         assign j1 n1 incarnation=2 -> refused: stale incarnation, newest 3
         assign j1 n1 incarnation=4 -> refused: stale incarnation, newest 3
         assign j1 n1 incarnation=3 -> token 6
         assign j2 n1 incarnation=3 -> token 7
         register n1 incarnation=3 slots=2 model=other -> done
         leases -> j1@n1 j2@n1
         register n1 incarnation=2 -> refused: stale incarnation, newest 3
         register n1 incarnation=4 slots=1 -> done
         leases -> none
         queue -> j1 j2
         complete j1 token=6 -> refused: stale token, newest 6
         assign j1 n1 incarnation=3 -> refused: stale incarnation, newest 4
         assign j1 n1 incarnation=4 -> token 13
         nodes -> n1#4/1",
    );
}

#[test]
fn removed_node_loses_its_leases() {
    check(
        "register n1 slots=2 -> done
         register n2 -> done
         submit j1 -> accepted j1 at 3
         submit j2 -> accepted j2 at 4
         assign j1 n1 -> token 5
         assign j2 n2 -> token 6
         remove n1 -> done
         leases -> j2@n2
         queue -> j1
         nodes -> n2#1/1
         complete j1 token=5 -> refused: stale token, newest 5
         assign j1 n1 -> refused: UnknownNode
         remove n1 -> refused: UnknownNode
         remove n0 -> refused: node: expected a node id above 0, got 0",
    );
}

#[test]
fn allocated_node_draws_jobs_once_registered() {
    check(
        "register n1 -> done
         allocate address=http://b:1 -> node n2
         + allocate address=http://c:1 -> refused: node: expected an id that is free, got 2, the index of this entry; try again
         allocate address=http://c:1 -> node n3
         allocate -> refused: address: expected 1 to 512 bytes, got 0
         nodes -> n1#1/1 n2#0/0 n3#0/0
         submit j1 -> accepted j1 at 5
         assign j1 n2 incarnation=0 -> refused: UnknownNode
         register n8 -> done
         allocate address=http://d:1 -> refused: node: expected an id that is free, got 8, the index of this entry; try again
         register n2 slots=3 -> done
         assign j1 n2 -> token 10
         nodes -> n1#1/1 n2#1/3 n3#0/0 n8#1/1",
    );
}

#[test]
fn job_is_leased_once_an_entry() {
    check(
        "register n1 -> done
         submit j1 -> accepted j1 at 2
         submit j2 -> accepted j2 at 3
         assign j1 n1 -> token 4
         + revoke j1 token=4 -> done
         + assign j1 n1 -> refused: index: expected one above the last token 4, got 4; lease a job once an entry
         + assign j2 n1 -> token 4
         assign j1 n1 -> refused: NoSlot
         complete j1 token=4 -> refused: stale token, newest 4
         complete j2 token=4 -> done
         assign j1 n1 -> token 8",
    );
}

#[test]
fn submit_outside_the_limits_names_the_field() {
    let long = "x".repeat(limits::NAME_BYTES_MAX + 1);
    let huge = "x".repeat(limits::PARAMETERS_BYTES_MAX + 1);
    check(&format!(
        "submit j0 -> refused: job: expected a ulid above 0, got 0
         submit j1 tenant={long} -> refused: tenant: expected 0 to 128 bytes, got 129
         submit j1 key={long} -> refused: idempotency_key: expected 1 to 128 bytes, got 129
         submit j1 key= -> refused: idempotency_key: expected 1 to 128 bytes, got 0
         submit j1 priority=10 -> refused: priority: expected 0 to 9, got 10
         submit j1 kind= -> refused: kind: expected 1 to 128 bytes, got 0
         submit j1 kind={long} -> refused: kind: expected 1 to 128 bytes, got 129
         submit j1 body={huge} -> refused: parameters: expected 0 to 16384 bytes, got 16385
         submit j1 trace={long} -> refused: traceparent: expected 0 to 128 bytes, got 129
         submit j1 attempts=0 -> refused: attempts_max: expected 1 to 10, got 0
         submit j1 attempts=11 -> refused: attempts_max: expected 1 to 10, got 11
         job j1 -> none
         register n0 -> refused: node: expected a node id above 0, got 0
         register n1 incarnation=0 -> refused: incarnation: expected a number above 0, got 0
         register n1 slots=65 -> refused: slots: expected 0 to 64, got 65
         register n1 address= -> refused: address: expected 1 to 512 bytes, got 0
         nodes -> none"
    ));
}

#[test]
fn long_errors_are_cut_at_a_character() {
    let mut state = check(
        "register n1 -> done
         submit j1 -> accepted j1 at 2
         assign j1 n1 -> token 3
         submit j2 -> accepted j2 at 4",
    );
    // 3 bytes a character, so the bound falls into the midst of one.
    let text = "€".repeat(limits::ERROR_BYTES_MAX);
    let fail = Command::Fail(Fail {
        job: JobId(1),
        token: FencingToken(3),
        error: text.clone(),
        permanent: false,
        finished_ms: 0,
    });
    assert_eq!(apply_audited(&mut state, LogIndex(5), &fail), Reply::Done);
    assert_eq!(apply_audited(&mut state, LogIndex(6), &fail), Reply::Done, "a repeat is known");
    let cancel = Cancel { job: JobId(2), reason: text, finished_ms: 0 };
    assert_eq!(apply_audited(&mut state, LogIndex(7), &Command::Cancel(cancel)), Reply::Done);

    let expected = "€".repeat(limits::ERROR_BYTES_MAX / 3);
    assert_eq!(state.job(JobId(1)).expect("it is kept").last_error(), Some(expected.as_str()));
    assert_eq!(state.job(JobId(2)).expect("it is kept").cancel_reason, expected);
}

#[test]
fn full_queue_refuses_and_says_so() {
    let mut state = State::new();
    for number in 1..=limits::QUEUE_JOBS_MAX_FIRST as u128 {
        state.apply(LogIndex(1), &submit(number));
    }
    audit::check(&state).expect("a full queue is sound");
    assert_eq!(state.queued_count(), limits::QUEUE_JOBS_MAX_FIRST);
    assert_eq!(state.position(JobId(10_000)), Some(9_999));

    let refused = Reply::Refused(Refusal::QueueFull(10_000));
    assert_eq!(apply_audited(&mut state, LogIndex(2), &submit(20_000)), refused);
    let repeat = Reply::Submitted { job: JobId(7), duplicate: true, log_index: LogIndex(1) };
    assert_eq!(apply_audited(&mut state, LogIndex(3), &submit(7)), repeat);
    assert_eq!(apply_audited(&mut state, LogIndex(4), &cancel(8)), Reply::Done);
    let accepted =
        Reply::Submitted { job: JobId(20_000), duplicate: false, log_index: LogIndex(5) };
    assert_eq!(apply_audited(&mut state, LogIndex(5), &submit(20_000)), accepted);
}

#[test]
fn leased_jobs_come_back_to_a_full_queue() {
    let mut state = check(
        "register n1 slots=1 -> done
         submit j20000 priority=9 -> accepted j20000 at 2
         assign j20000 n1 -> token 3",
    );
    for number in 1..=limits::QUEUE_JOBS_MAX_FIRST as u128 {
        state.apply(LogIndex(4), &submit(number));
    }
    let remove = Command::RemoveNode(atelier_state::RemoveNode {
        node: NodeId(1),
        author: Author::default(),
    });
    assert_eq!(apply_audited(&mut state, LogIndex(5), &remove), Reply::Done);
    assert_eq!(state.queued_count(), limits::QUEUE_JOBS_MAX_FIRST + 1);
    assert_eq!(state.position(JobId(20_000)), Some(0));
    assert_eq!(state.position(JobId(10_000)), Some(10_000));
}

#[test]
fn full_memory_refuses_until_jobs_are_forgotten() {
    let mut state = State::new();
    for number in 1..=limits::JOBS_MAX_FIRST as u128 {
        state.apply(LogIndex(1), &submit(number));
        state.apply(LogIndex(1), &cancel(number));
    }
    audit::check(&state).expect("a full memory is sound");
    assert_eq!(state.terminal_count(), limits::JOBS_MAX_FIRST);

    let next = submit(limits::JOBS_MAX_FIRST as u128 + 1);
    assert_eq!(state.apply(LogIndex(2), &next), Reply::Refused(Refusal::QueueFull(40_000)));
    let forget = Command::Forget(Forget { jobs: vec![JobId(3)] });
    assert_eq!(state.apply(LogIndex(3), &forget), Reply::Done);
    assert!(matches!(state.apply(LogIndex(4), &next), Reply::Submitted { .. }));
    let many = Forget { jobs: vec![JobId(5); limits::FORGET_JOBS_MAX + 1] };
    let refused = state.apply(LogIndex(5), &Command::Forget(many));
    let text = "jobs: expected 0 to 256 items, got 257";
    assert_eq!(refused, Reply::Refused(Refusal::Invalid(text.to_owned())));
    audit::check(&state).expect("it is sound still");
}

#[test]
fn full_roster_refuses() {
    let mut state = State::new();
    for node in 1..=limits::NODES_MAX as u64 {
        assert_eq!(apply_audited(&mut state, LogIndex(1), &register(node)), Reply::Done);
    }
    let refused = Reply::Refused(Refusal::RosterFull);
    assert_eq!(apply_audited(&mut state, LogIndex(2), &register(100)), refused);
    assert_eq!(apply_audited(&mut state, LogIndex(3), &register(64)), Reply::Done);
    let allocate = atelier_state::AllocateNode { address: "http://new:1".to_owned() };
    let allocate = Command::AllocateNode(allocate);
    assert_eq!(apply_audited(&mut state, LogIndex(100), &allocate), refused);
}

#[test]
#[should_panic(expected = "applied index 4 after 5")]
fn replayed_log_is_not_applied_twice() {
    let mut state = State::new();
    state.mark_applied(LogIndex(5));
    state.apply(LogIndex(4), &submit(1));
}

#[test]
fn clones_do_not_see_later_commands() {
    let mut state = check(
        "register n1 -> done
         submit j1 -> accepted j1 at 2",
    );
    let view = state.clone();
    let digest = view.digest();
    state.apply(LogIndex(3), &cancel(1));
    assert_eq!(view.job(JobId(1)).map(|job| &job.phase), Some(&Phase::Queued));
    assert_eq!(view.digest(), digest);
    assert_ne!(state.digest(), digest);
}

/// The digest of a fixed story is a constant: peers of two builds must agree. When this fails, the
/// meaning of a command or the encoding has changed; that needs a new `DOMAIN` and a reason.
#[test]
fn digest_of_a_fixed_story_is_golden() {
    let state = check(
        "register n1 slots=3 -> done
         register n2 incarnation=7 class=cuda model=large -> done
         allocate address=http://c:1 -> node n3
         submit j1 key=k trace=t priority=9 -> accepted j1 at 4
         submit j2 attempts=1 -> accepted j2 at 5
         submit j3 tenant=other body= -> accepted j3 at 6
         submit j4 -> accepted j4 at 7
         submit j5 -> accepted j5 at 8
         submit j6 -> accepted j6 at 9
         assign j1 n1 -> token 10
         assign j2 n1 -> token 11
         assign j3 n2 incarnation=7 -> token 12
         assign j4 n1 -> token 13
         complete j1 token=10 artifacts=a,b holders=n1,n2 -> done
         fail j2 token=11 error=oom -> done
         fail j4 token=13 error=fault -> done
         cancel j5 reason=mistake -> done
         submit j7 -> accepted j7 at 18
         cancel j7 -> done
         forget j7 -> done
         queue -> j4 j6
         leases -> j3@n2
         ended -> j1 j2 j5",
    );
    let golden = "fe40c90d2df9666cc6097f69e714eb05dc67ce9aea9a6964c346198992d81f8c";
    assert_eq!(state.digest().to_string(), golden);
    let empty = "4cdc17ae00c157381c0e484eb84140facb1286d13ec60e37726422f3c1317bf3";
    assert_eq!(State::new().digest().to_string(), empty);
    assert_eq!(golden.parse::<Digest>(), Ok(state.digest()));
}

fn submit(number: u128) -> Command {
    Command::Submit(Submit {
        job: JobId(number),
        tenant: "default".into(),
        idempotency_key: Some(format!("key {number}").into()),
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

fn cancel(number: u128) -> Command {
    Command::Cancel(Cancel { job: JobId(number), reason: String::new(), finished_ms: 0 })
}

fn register(node: u64) -> Command {
    Command::RegisterNode(RegisterNode {
        node: NodeId(node),
        address: format!("http://n{node}:7861"),
        incarnation: 1,
        slots: 1,
        class: "cpu".to_owned(),
        model: "small".to_owned(),
        witness: false,
    })
}
