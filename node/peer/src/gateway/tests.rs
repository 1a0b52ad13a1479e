//! The gRPC front door over a log that works at once, or fails as it is told.

mod http;
mod operate;
mod preview;
mod wait;

use super::*;
use crate::artifacts::{ArtifactParts, ArtifactSettings};
use crate::lines::Lines;
use crate::liveness::LivenessTable;
use crate::ports::engine::{EngineStep, StageTimes};
use crate::ports::members::{Members, MembersError};
use crate::ports::shelf::MemoryShelf;
use crate::ports::{ProposeError, RaftStatus};
use crate::progress::ProgressBoard;
use crate::proposer::{ProposerParts, ProposerSettings};
use crate::real::TonicDial;
use crate::testing::{Counting, MemoryLog, StillClock};
use atelier_proto::client::v1 as wire;
use atelier_proto::client::v1::atelier_server::Atelier;
use atelier_state::limits::UNFINISHED_BYTES_MAX;
use atelier_state::{
    ArtifactRef, Assign, Complete, Digest, FencingToken, NodeId, RaiseFeatures, RegisterNode,
    Revoke, RevokeReason,
};
use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use std::collections::BTreeSet;
use tokio_util::sync::CancellationToken;
use tonic::{Code, Request};

struct World {
    log: Arc<MemoryLog>,
    board: Arc<ProgressBoard>,
    draining: channel::Sender<bool>,
    gateway: Gateway,
}

/// Keeps nothing.
struct NoUpkeep;

impl Upkeep for NoUpkeep {
    fn take_snapshot(&self) -> BoxFuture<'_, Result<(LogIndex, u64), String>> {
        Box::pin(std::future::ready(Err("there is no disk".to_owned())))
    }

    fn marked(&self, _index: LogIndex) -> Option<atelier_state::State> {
        None
    }
}

/// Changes the status at once.
struct MemoryMembers(Arc<MemoryLog>);

impl Members for MemoryMembers {
    fn add_learner(
        &self,
        node: NodeId,
        address: String,
    ) -> BoxFuture<'_, Result<(), MembersError>> {
        self.0.status.send_modify(|status| {
            status.learners.insert(node);
            status.addresses.insert(node, address);
        });
        Box::pin(std::future::ready(Ok(())))
    }

    fn promote(&self, node: NodeId) -> BoxFuture<'_, Result<(), MembersError>> {
        let mut known = false;
        self.0.status.send_modify(|status| {
            known = status.learners.remove(&node);
            status.voters.extend(known.then_some(node));
        });
        let refusal = || MembersError::Refused(format!("node {node} is no learner"));
        Box::pin(std::future::ready(known.then_some(()).ok_or_else(refusal)))
    }

    fn demote(&self, node: NodeId) -> BoxFuture<'_, Result<(), MembersError>> {
        self.0.status.send_modify(|status| {
            let known = status.voters.remove(&node);
            status.learners.extend(known.then_some(node));
        });
        Box::pin(std::future::ready(Ok(())))
    }

    fn replace(&self, leaves: NodeId, comes: NodeId) -> BoxFuture<'_, Result<(), MembersError>> {
        self.0.status.send_modify(|status| {
            status.learners.remove(&comes);
            status.voters.insert(comes);
            status.voters.remove(&leaves);
            status.addresses.remove(&leaves);
        });
        Box::pin(std::future::ready(Ok(())))
    }

    fn transfer(
        &self,
        to: Option<NodeId>,
        _avoided: BTreeSet<NodeId>,
    ) -> BoxFuture<'_, Result<(), MembersError>> {
        self.0.status.send_modify(|status| status.leader = to);
        Box::pin(std::future::ready(Ok(())))
    }

    fn remove(&self, node: NodeId) -> BoxFuture<'_, Result<(), MembersError>> {
        self.0.status.send_modify(|status| {
            status.learners.remove(&node);
            status.voters.remove(&node);
            status.addresses.remove(&node);
        });
        Box::pin(std::future::ready(Ok(())))
    }
}

fn world() -> World {
    let log = Arc::new(MemoryLog::led_by_itself());
    let clock: Arc<dyn Clock> = Arc::new(StillClock);
    let entropy: Arc<dyn Entropy> = Arc::new(Counting::default());
    let lines = Arc::new(Lines::new(Arc::new(TonicDial)));
    let board = Arc::new(ProgressBoard::default());
    let (draining, draining_seen) = channel::channel(false);
    let shutdown = CancellationToken::new();
    let (proposer, _task) = Proposer::spawn(
        ProposerParts {
            log: log.clone(),
            lines: lines.clone(),
            clock: clock.clone(),
            entropy: entropy.clone(),
        },
        ProposerSettings::new("test"),
        shutdown,
    );
    let parts = ArtifactParts {
        shelf: Arc::new(MemoryShelf::new(clock.clone())),
        lines: lines.clone(),
        status: log.status(),
        view: log.view(),
        clock: clock.clone(),
    };
    let leader = Leader {
        cluster: "test".to_owned(),
        log: log.clone(),
        lines: lines.clone(),
        clock: clock.clone(),
        members: Arc::new(MemoryMembers(log.clone())),
        liveness: Arc::new(LivenessTable::new(Duration::from_secs(3))),
    };
    let progress = ProgressFollower {
        cluster: "test".to_owned(),
        board: board.clone(),
        lines,
        status: log.status(),
        view: log.view(),
        clock: clock.clone(),
    };
    let lookout = Arc::<Lookout>::default();
    tokio::spawn(lookout.clone().run(log.view(), CancellationToken::new()));
    let gateway = Gateway {
        log: log.clone(),
        proposer,
        lookout,
        progress,
        artifacts: Arc::new(Artifacts::new(parts, ArtifactSettings::new("test"))),
        leader,
        clock,
        entropy,
        metrics: Arc::new(Metrics::new(std::path::Path::new("/"))),
        upkeep: Arc::new(NoUpkeep),
        examined: Examined { data: None, engine: None, model: Arc::default() },
        draining: draining_seen,
        attempts_max: 3,
        unfinished_bytes_max: UNFINISHED_BYTES_MAX,
        turns: Default::default(),
        acknowledged: AtomicU64::new(0),
    };
    World { log, board, draining, gateway }
}

fn cat() -> wire::SubmitRequest {
    let cat = wire::TextToImage { prompt: "a cat".to_owned(), ..Default::default() };
    let parameters = Some(wire::submit_request::Parameters::TextToImage(cat));
    wire::SubmitRequest { parameters, ..Default::default() }
}

impl World {
    async fn submit(&self) -> wire::SubmitReply {
        self.gateway.submit(Request::new(cat())).await.expect("accepted").into_inner()
    }

    async fn refused_submit(&self, request: Request<wire::SubmitRequest>) -> Status {
        self.gateway.submit(request).await.expect_err("must be refused")
    }

    fn register(&self, node: u64) {
        self.log.apply(&[Command::RegisterNode(RegisterNode {
            node: NodeId(node),
            address: format!("http://127.0.0.1:{node}"),
            incarnation: 1,
            slots: 1,
            class: "flex".to_owned(),
            model: "toy".to_owned(),
            witness: false,
        })]);
    }

    fn assign(&self, job: JobId, node: u64) -> FencingToken {
        let assign = Assign { job, node: NodeId(node), incarnation: 1 };
        match self.log.apply(&[Command::Assign(assign)]).replies.remove(0) {
            Reply::Assigned { token } => token,
            other => panic!("expected a lease, got {other:?}"),
        }
    }

    async fn watch(&self, job: &str) -> <Gateway as Atelier>::WatchStream {
        let request = wire::WatchRequest { job_id: job.to_owned(), ..Default::default() };
        self.gateway.watch(Request::new(request)).await.expect("it is known").into_inner()
    }
}

fn id(reply: &wire::SubmitReply) -> JobId {
    reply.job_id.parse().expect("a job id")
}

fn step(step: u32) -> EngineStep {
    EngineStep {
        stage: "denoise".to_owned(),
        image: 0,
        step,
        steps: 8,
        spent: StageTimes::default(),
        preview: None,
    }
}

/// The next event within the time that a real client would wait.
async fn next(events: &mut <Gateway as Atelier>::WatchStream) -> Result<wire::JobEvent, Status> {
    let event = tokio::time::timeout(Duration::from_secs(60), events.next()).await;
    event.expect("an event comes in time").expect("the watch goes on")
}

#[tokio::test(start_paused = true)]
async fn a_submitted_job_is_read_back_and_a_repeat_is_the_same_job() {
    let world = world();
    let first = world.submit().await;
    assert!(!first.duplicate);
    let job_id = first.job_id.clone();
    let repeat = Request::new(wire::SubmitRequest { job_id: job_id.clone(), ..cat() });
    let repeat = world.gateway.submit(repeat).await.expect("accepted").into_inner();
    assert_eq!((&repeat.job_id, repeat.duplicate), (&job_id, true));
    assert_eq!(repeat.log_index, first.log_index);
    let job = world.gateway.get_job(Request::new(wire::GetJobRequest { job_id })).await;
    let job = job.expect("known").into_inner();
    assert_eq!((job.phase(), job.position, job.priority), (wire::Phase::Queued, 1, 5));
    let Some(wire::job::Parameters::TextToImage(asked)) = job.parameters else {
        panic!("the parameters come back")
    };
    assert_eq!((asked.prompt.as_str(), asked.images), ("a cat", 1));
}

#[tokio::test(start_paused = true)]
async fn a_watch_tells_each_phase_and_step_to_the_end() {
    let world = world();
    let job = id(&world.submit().await);
    let mut events = world.watch(&job.to_string()).await;
    let queued = next(&mut events).await.expect("an event").job.expect("a job");
    assert_eq!((queued.phase(), queued.position), (wire::Phase::Queued, 1));
    world.register(1);
    let token = world.assign(job, 1);
    let leased = next(&mut events).await.expect("an event");
    assert_eq!(leased.job.expect("a job").phase(), wire::Phase::Leased);
    let writer = world.board.begin(job, token);
    writer.publish(step(3));
    let progress = next(&mut events).await.expect("an event").progress.expect("a step");
    assert_eq!((progress.node, progress.token, progress.step), (1, token.0, 3));
    let digest = Digest([7; 32]);
    let artifact = ArtifactRef {
        digest,
        bytes: 5,
        media_type: "image/png".to_owned(),
        holders: vec![NodeId(1)],
    };
    let complete = Complete { job, token, artifacts: vec![artifact], finished_ms: 11 };
    let index = world.log.apply(&[Command::Complete(complete)]).log_index;
    let done = next(&mut events).await.expect("an event");
    assert_eq!(done.log_index, index.0);
    let done = done.job.expect("a job");
    assert_eq!((done.phase(), done.artifacts.len()), (wire::Phase::Succeeded, 1));
    assert!(events.next().await.is_none(), "nothing follows the terminal phase");
}

#[tokio::test(start_paused = true)]
async fn a_watch_follows_the_job_to_another_worker() {
    let world = world();
    let job = id(&world.submit().await);
    world.register(1);
    let old = world.assign(job, 1);
    let old_writer = world.board.begin(job, old);
    old_writer.publish(step(5));
    let mut events = world.watch(&job.to_string()).await;
    let leased = next(&mut events).await.expect("an event");
    assert_eq!(leased.progress, None);
    let progress = next(&mut events).await.expect("an event").progress.expect("a step");
    assert_eq!((progress.token, progress.step), (old.0, 5));
    let revoke = Revoke { job, token: old, reason: RevokeReason::Silent };
    world.log.apply(&[Command::Revoke(revoke)]);
    let queued = next(&mut events).await.expect("an event");
    assert_eq!((queued.progress, queued.job.expect("a job").position), (None, 1));
    let new = world.assign(job, 1);
    let leased = next(&mut events).await.expect("an event");
    assert_eq!(leased.job.expect("a job").token, new.0);
    old_writer.publish(step(6));
    let writer = world.board.begin(job, new);
    writer.publish(step(1));
    let progress = next(&mut events).await.expect("an event").progress.expect("a step");
    assert_eq!((progress.token, progress.step), (new.0, 1), "the old worker's steps are dropped");
}

#[tokio::test(start_paused = true)]
async fn an_idle_watch_gives_signs_of_life_and_ends_when_the_peer_leaves() {
    let world = world();
    let job = id(&world.submit().await);
    let mut events = world.watch(&job.to_string()).await;
    let first = next(&mut events).await.expect("an event");
    let begun = tokio::time::Instant::now();
    let second = next(&mut events).await.expect("a sign of life");
    assert_eq!(first, second);
    assert!(begun.elapsed() <= Duration::from_secs(6));
    world.draining.send_replace(true);
    let status = next(&mut events).await.expect_err("the peer leaves");
    assert_eq!(status.code(), Code::Unavailable);
    assert!(events.next().await.is_none());
    let status = world.refused_submit(Request::new(cat())).await;
    assert_eq!(status.code(), Code::Unavailable);
}

#[tokio::test(start_paused = true)]
async fn an_unknown_outcome_names_the_job() {
    let world = world();
    let failure = ProposeError::Unknown("the leader was lost".to_owned());
    *world.log.failure.lock().expect("no panic") = Some(failure);
    let mut request = Request::new(wire::SubmitRequest { job_id: JobId(77).to_string(), ..cat() });
    request.set_timeout(Duration::from_secs(2));
    let begun = tokio::time::Instant::now();
    let status = world.refused_submit(request).await;
    assert_eq!(status.code(), Code::DeadlineExceeded);
    assert!(status.message().contains(&JobId(77).to_string()), "{status}");
    assert!(begun.elapsed() < Duration::from_secs(2), "our answer comes before the server's");
}

#[tokio::test(start_paused = true)]
async fn without_a_leader_a_submit_is_held_then_unavailable_with_hints() {
    let world = world();
    let none = ProposeError::NotLeader { leader: None };
    *world.log.failure.lock().expect("no panic") = Some(none);
    world.log.status.send_modify(|status| (status.is_leader, status.leader) = (false, None));
    let begun = tokio::time::Instant::now();
    let status = world.refused_submit(Request::new(cat())).await;
    assert_eq!(status.code(), Code::Unavailable, "{status}");
    assert!(begun.elapsed() > Duration::from_secs(25), "it was held: {:?}", begun.elapsed());
    assert!(status.metadata().contains_key(error::RETRY_AFTER_KEY));
}

#[tokio::test(start_paused = true)]
async fn a_call_that_is_held_succeeds_when_a_leader_comes() {
    let world = world();
    let none = ProposeError::NotLeader { leader: None };
    *world.log.failure.lock().expect("no panic") = Some(none);
    world.log.status.send_modify(|status| (status.is_leader, status.leader) = (false, None));
    let submit = world.submit();
    let elect = async {
        tokio::time::sleep(Duration::from_secs(3)).await;
        *world.log.failure.lock().expect("no panic") = None;
        let leads = |status: &mut RaftStatus| {
            (status.is_leader, status.leader) = (true, Some(NodeId(1)));
        };
        world.log.status.send_modify(leads);
    };
    let (reply, ()) = tokio::join!(submit, elect);
    assert!(!reply.duplicate);
}

#[tokio::test(start_paused = true)]
async fn a_full_queue_says_when_to_come_back() {
    let refusal = error::refused(&atelier_state::Refusal::QueueFull(100));
    assert_eq!(refusal.code(), Code::ResourceExhausted);
    assert_eq!(refusal.metadata().get("retry-after").expect("a hint"), "5");
    let conflict = atelier_state::Refusal::IdempotencyConflict(JobId(3));
    assert_eq!(error::refused(&conflict).code(), Code::AlreadyExists);
}

#[tokio::test(start_paused = true)]
async fn jobs_above_the_bytes_are_refused_and_repeats_are_not() {
    let mut world = world();
    let job_id = world.submit().await.job_id;
    let state = world.gateway.view().state;
    let (_, job) = state.jobs().next().expect("one was accepted");
    let bytes = state.unfinished_bytes();
    assert_eq!((bytes, state.ended_bytes()), (job.bytes(), 0));
    world.gateway.unfinished_bytes_max = bytes + 1;
    let jobs = vec![cat(), wire::SubmitRequest { job_id: job_id.clone(), ..cat() }, cat()];
    let batch = Request::new(wire::SubmitBatchRequest { jobs });
    let outcomes =
        world.gateway.submit_batch(batch).await.expect("an answer").into_inner().outcomes;
    use wire::batch_outcome::Outcome::{Accepted, Refused};
    let outcomes: Vec<_> = outcomes.into_iter().filter_map(|it| it.outcome).collect();
    let is_right =
        matches!(&outcomes[..], [Accepted(_), Accepted(same), Refused(_)] if same.duplicate);
    assert!(is_right, "room for one, a repeat needs none: {outcomes:?}");
    world.refused_submit(Request::new(cat())).await;
    let repeat = wire::SubmitRequest { job_id, ..cat() };
    let repeat = world.gateway.submit(Request::new(repeat)).await.expect("a repeat").into_inner();
    assert!(repeat.duplicate);
    world.gateway.unfinished_bytes_max = bytes;
    let status = world.refused_submit(Request::new(cat())).await;
    assert_eq!(status.code(), Code::ResourceExhausted);
    assert_eq!(status.metadata().get("retry-after").expect("a hint"), "5");
    assert!(status.message().contains(&format!("the bound is {bytes}")), "{}", status.message());
}

#[tokio::test(start_paused = true)]
async fn an_unknown_job_is_told_apart_from_an_unreachable_leader() {
    let world = world();
    let request = || Request::new(wire::GetJobRequest { job_id: JobId(9).to_string() });
    let status = world.gateway.get_job(request()).await.expect_err("unknown");
    assert_eq!(status.code(), Code::NotFound);
    world.log.status.send_modify(|status| (status.is_leader, status.leader) = (false, None));
    let status = world.gateway.get_job(request()).await.expect_err("unknown");
    assert_eq!(status.code(), Code::Unavailable, "it may well exist");
}

#[tokio::test(start_paused = true)]
async fn cancelling_twice_answers_as_the_first_time_and_a_result_stays() {
    let world = world();
    let job_id = world.submit().await.job_id;
    for _ in 0..2 {
        let request = Request::new(wire::CancelJobRequest { job_id: job_id.clone() });
        let job = world.gateway.cancel_job(request).await.expect("cancelled").into_inner();
        assert_eq!(job.phase(), wire::Phase::Cancelled);
        assert_eq!(job.error, "cancelled by a client");
    }
}

#[tokio::test(start_paused = true)]
async fn an_artifact_comes_in_chunks_and_a_missing_one_is_not_found() {
    let world = world();
    let bytes = Bytes::from((0..200_000_u32).map(|i| i as u8).collect::<Vec<u8>>());
    let digest = world.gateway.artifacts.put(bytes.clone()).await.expect("kept");
    let fetch = |digest: Digest| {
        let request = wire::GetArtifactRequest { digest: digest.to_string() };
        world.gateway.get_artifact(Request::new(request))
    };
    let chunks = fetch(digest).await.expect("found").into_inner();
    let chunks: Vec<Bytes> = chunks.map(|chunk| chunk.expect("a chunk").data).collect().await;
    assert!(chunks.iter().all(|chunk| chunk.len() <= 64 * 1024));
    assert_eq!(chunks.concat(), bytes);
    let status = fetch(Digest([1; 32])).await.err().expect("nobody has it");
    assert_eq!(status.code(), Code::NotFound);
}

#[tokio::test(start_paused = true)]
async fn members_are_added_promoted_and_removed() {
    let world = world();
    world.submit().await;
    let address = "http://127.0.0.1:9001".to_owned();
    let add = || Request::new(wire::AddMemberRequest { address: address.clone() });
    let added = world.gateway.add_member(add()).await.expect("added").into_inner();
    assert_eq!((added.node, added.role()), (2, wire::MemberRole::Learner));
    let again = world.gateway.add_member(add()).await.expect("it has not come yet").into_inner();
    assert_eq!(again.node, added.node, "a repeat is no second member");
    let promote = Request::new(wire::PromoteMemberRequest { node: added.node });
    let promoted = world.gateway.promote_member(promote).await.expect("promoted").into_inner();
    assert_eq!(promoted.role(), wire::MemberRole::Voter);
    let again = world.gateway.add_member(add()).await.expect_err("it is a member");
    assert_eq!(again.code(), Code::FailedPrecondition);
    let unknown = Request::new(wire::PromoteMemberRequest { node: 99 });
    let status = world.gateway.promote_member(unknown).await.expect_err("no learner");
    assert_eq!(status.code(), Code::FailedPrecondition);
    let remove = || Request::new(wire::RemoveMemberRequest { node: added.node, author: None });
    world.gateway.remove_member(remove()).await.expect("removed");
    assert!(world.gateway.view().state.node(NodeId(added.node)).is_none());
    let status = world.gateway.remove_member(remove()).await.expect_err("gone");
    assert_eq!(status.code(), Code::NotFound);
}

#[tokio::test(start_paused = true)]
async fn members_are_replaced_and_given_the_lead_and_the_trail_tells_of_it() {
    let world = world();
    let raise = RaiseFeatures { level: 3 };
    world.log.apply(&[Command::RaiseFeatures(raise)]);
    let add = |address: &str| Request::new(wire::AddMemberRequest { address: address.to_owned() });
    let second = world.gateway.add_member(add("http://127.0.0.1:9001")).await.expect("added");
    let second = second.into_inner().node;
    let promote = Request::new(wire::PromoteMemberRequest { node: second });
    world.gateway.promote_member(promote).await.expect("promoted");

    let request = wire::ReplaceMemberRequest {
        node: second,
        address: "http://127.0.0.1:9002".to_owned(),
        ..wire::ReplaceMemberRequest::default()
    };
    let third = world.gateway.replace_member(Request::new(request)).await.expect("replaced");
    let third = third.into_inner();
    assert!(third.node > second && third.role() == wire::MemberRole::Voter);
    let members = world.gateway.list_members(Request::new(wire::ListMembersRequest {})).await;
    let members = members.expect("told").into_inner().members;
    assert_eq!(members.iter().map(|one| one.node).collect::<Vec<_>>(), [1, third.node]);

    let transfer = Request::new(wire::TransferLeaderRequest { node: third.node });
    let led = world.gateway.transfer_leader(transfer).await.expect("handed over").into_inner();
    assert_eq!(led.leader, third.node);
    let trail = world.gateway.trail(Request::new(wire::TrailRequest { limit: 0 })).await;
    let trail = trail.expect("told").into_inner().records;
    let acts: Vec<_> = trail.iter().rev().map(|record| &*record.act).collect();
    let third = third.node;
    let expected = [
        "raise the feature level to 3".to_owned(),
        format!("add node {second} at http://127.0.0.1:9001"),
        format!("give node {second} a vote"),
        format!("add node {third} at http://127.0.0.1:9002"),
        format!("put node {third} into the place of node {second}"),
        format!("remove node {second}"),
        format!("hand the lead to node {third}"),
    ];
    assert_eq!(acts, expected);
}

#[tokio::test(start_paused = true)]
async fn what_needs_a_later_feature_level_is_refused_and_strangers_are_not_found() {
    let world = world();
    world.submit().await;
    let set = |node| wire::SetMemberRequest {
        node,
        draining: Some(true),
        ..wire::SetMemberRequest::default()
    };
    let status = world.gateway.set_member(Request::new(set(9))).await.expect_err("a stranger");
    assert_eq!(status.code(), Code::NotFound);
    let status = world.gateway.set_member(Request::new(set(1))).await.expect_err("level 1");
    assert_eq!(status.code(), Code::FailedPrecondition, "{status}");
    let mark = world.gateway.place_mark(Request::new(wire::PlaceMarkRequest {})).await;
    assert_eq!(mark.expect_err("level 1").code(), Code::FailedPrecondition);
    let digest = Request::new(wire::DigestAtRequest { log_index: 1 });
    let status = world.gateway.digest_at(digest).await.expect_err("no mark");
    assert_eq!(status.code(), Code::NotFound);
}

#[tokio::test]
async fn status_tells_where_this_peer_stands() {
    let world = world();
    world.submit().await;
    let status = world.gateway.status(Request::new(wire::StatusRequest {})).await;
    let status = status.expect("told").into_inner();
    assert_eq!((status.node, status.leader, status.queued), (1, 1, 1));
    assert_eq!((status.applied_index, status.commit_index), (1, 1));
    assert_eq!(status.state_digest.len(), 64);
    assert_eq!(status.members.len(), 1);
    assert!(status.members[0].alive);
}

#[test]
fn timeouts_are_read_as_grpc_writes_them() {
    let check = |text, expect: Option<Duration>| assert_eq!(timeout_of(text), expect, "{text}");
    check("5S", Some(Duration::from_secs(5)));
    check("250m", Some(Duration::from_millis(250)));
    check("2M", Some(Duration::from_secs(120)));
    check("1H", Some(Duration::from_secs(3_600)));
    check("99999999n", Some(Duration::from_nanos(99_999_999)));
    for unreadable in ["", "S", "5", "123456789S", "-1S", "5X", "5秒"] {
        check(unreadable, None);
    }
}
