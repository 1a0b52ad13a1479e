//! Jobs on workers: from the queue to the result, and what may go wrong between. Time is paused.

use crate::support::*;
use atelier_peer::liveness::Beat;
use atelier_peer::ports::engine::{Engine, EngineError, EngineState};
use atelier_peer::ports::shelf::MemoryShelf;
use atelier_peer::ports::{Clock, Log};
use atelier_state::{
    Author, Cancel, Command, Complete, FencingToken, Job, JobId, NodeId, Phase, Refusal,
    RemoveNode, Reply,
};
use futures_util::StreamExt;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use tokio::time::sleep;

const JOB: JobId = JobId(1);

struct Lone {
    cluster: Arc<PerfectCluster>,
    peer: Arc<TestPeer>,
}

/// One peer that leads.
fn lone() -> Lone {
    let cluster = PerfectCluster::new(Leads::Everyone);
    let peer = TestPeer::new(cluster.log(1));
    peer.lead();
    Lone { cluster, peer }
}

impl Lone {
    async fn submit(&self) {
        let reply = self.peer.proposer.propose(Command::Submit(submit(1))).await;
        assert!(matches!(reply, Ok((_, Reply::Submitted { duplicate: false, .. }))), "{reply:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_job_flows_to_its_picture() {
    let lone = lone();
    let engine = FakeEngine::new(8, ms(100));
    let (end, worker) = lone.peer.work(Some(engine.clone()));
    lone.submit().await;
    lone.cluster.phase(JOB, "leased").await;

    let token = lone.cluster.job(JOB).last_token.unwrap();
    let steps = lone.peer.follower().follow(JOB, token, NodeId(1), false);
    let steps: Vec<u32> = steps.map(|step| step.step).collect().await;
    let job = lone.cluster.phase(JOB, "succeeded").await;

    assert_eq!(steps, (1..=8).collect::<Vec<_>>());
    assert_eq!(engine.begun(), 1);
    assert_eq!(job.leases, 1);
    let [artifact] = &job.artifacts[..] else { panic!("one picture, got {:?}", job.artifacts) };
    assert_eq!(artifact.holders, [NodeId(1)]);
    let bytes = lone.peer.artifacts.fetch(artifact.digest).await.unwrap();
    assert_eq!(bytes, picture_of(&submit(1)));
    assert_eq!(artifact.bytes, bytes.len() as u64);

    end.cancel();
    worker.await.unwrap();
    lone.peer.end().await;
}

#[tokio::test(start_paused = true)]
async fn many_jobs_share_two_workers_and_none_is_drawn_twice() {
    let cluster = PerfectCluster::new(Leads::Everyone);
    let peer = TestPeer::new(cluster.log(1));
    peer.lead();
    let shelf = Arc::new(MemoryShelf::new(peer.clock.clone()));
    let other =
        TestPeer::sharing(cluster.log(2), TestClock::new(WALL_MS), shelf, peer.liveness.clone());
    let engines = [FakeEngine::new(2, ms(50)), FakeEngine::new(2, ms(50))];
    let _first = peer.work_as(Some(engines[0].clone()), |settings| settings.slots = 3);
    let _second = other.work_as(Some(engines[1].clone()), |settings| settings.slots = 3);
    for job in 1..=50 {
        cluster.apply(Command::Submit(submit(job)));
    }
    eventually("all jobs", || (cluster.state().terminal_count() == 50).then_some(())).await;
    let begun = [engines[0].begun(), engines[1].begun()];
    assert_eq!(begun[0] + begun[1], 50, "each job was begun once");
    assert!(begun[0] > 10 && begun[1] > 10, "both worked: {begun:?}");
    assert!(
        cluster.state().jobs().all(|(_, job)| job.phase == Phase::Succeeded && job.leases == 1)
    );
}

#[tokio::test(start_paused = true)]
async fn a_silent_worker_is_replaced_and_its_late_answer_is_refused() {
    let cluster = PerfectCluster::new(Leads::Everyone);
    let peer = TestPeer::new(cluster.log(1));
    peer.lead();
    // Node 2 has a table of its own, so the leader hears of it only what this test says.
    let mute = TestPeer::new(cluster.log(2));
    let slow = FakeEngine::new(10, ms(1000));
    let _mute_worker = mute.work(Some(slow.clone()));
    eventually("registration", || cluster.state().node(NodeId(2)).cloned()).await;
    let incarnation = cluster.state().node(NodeId(2)).unwrap().incarnation;
    let (node, running) = (NodeId(2), Vec::new());
    let beat = Beat { node, incarnation, running, features: 1, wall_ms: 0 };
    peer.liveness.beat(peer.clock.now(), beat);
    cluster.apply(Command::Submit(submit(1)));
    let job = cluster.phase(JOB, "leased").await;
    assert!(is_leased_to(&job, 2));
    let old = job.last_token.unwrap();
    // It neither hears nor is heard from here on, and goes on drawing.
    cluster.freeze(2);

    let quick = FakeEngine::new(4, ms(100));
    let _quick_worker = peer.work(Some(quick.clone()));
    let job = cluster.phase(JOB, "succeeded").await;
    assert_eq!((job.last_node, job.leases), (Some(NodeId(1)), 2));
    assert_eq!((slow.begun(), quick.begun()), (1, 1));
    assert!(job.attempts.is_empty(), "silence is no attempt");

    // The mute worker finishes after 10 s and proposes its result.
    let before = cluster.entries.load(Ordering::SeqCst);
    sleep(ms(15_000)).await;
    assert!(cluster.entries.load(Ordering::SeqCst) > before, "it said something");
    assert_eq!(cluster.job(JOB), job, "and nothing came of it");
    let late = Complete { job: JOB, token: old, artifacts: job.artifacts, finished_ms: 1 };
    let reply = cluster.apply(Command::Complete(late));
    assert_eq!(reply, Reply::Refused(Refusal::StaleToken(job.last_token.unwrap())));
}

#[tokio::test(start_paused = true)]
async fn a_lease_that_its_living_holder_forgot_is_taken_back() {
    let lone = lone();
    let engine = FakeEngine::new(4, ms(100));
    let _worker = lone.peer.work(Some(engine.clone()));
    eventually("slots", || lone.cluster.state().node(NodeId(1)).filter(|n| n.slots > 0).cloned())
        .await;
    let shared = TestPeer::sharing(
        lone.cluster.log(2),
        TestClock::new(WALL_MS),
        Arc::new(MemoryShelf::new(lone.peer.clock.clone())),
        lone.peer.liveness.clone(),
    );
    let deaf = FakeEngine::new(4, ms(100));
    let _deaf_worker = shared.work_as(Some(deaf.clone()), |settings| settings.slots = 5);
    eventually("slots", || lone.cluster.state().node(NodeId(2)).filter(|n| n.slots > 0).cloned())
        .await;
    sleep(ms(500)).await;
    lone.cluster.freeze(2);
    lone.submit().await;
    // It has the most free slots.
    assert!(is_leased_to(&lone.cluster.phase(JOB, "leased").await, 2));
    let leased_at = tokio::time::Instant::now();
    let job = lone.cluster.phase(JOB, "succeeded").await;
    let after = leased_at.elapsed();
    assert!(after >= LEASE + ms(400) && after < LEASE + ms(1000), "done after {after:?}");
    // The deaf one still has the most free slots; it is shunned for a while.
    assert_eq!((job.last_node, job.leases), (Some(NodeId(1)), 2));
    assert_eq!((engine.begun(), deaf.begun()), (1, 0));
}

fn errors(job: &Job) -> Vec<&str> {
    job.attempts.iter().map(|attempt| attempt.error.as_str()).collect()
}

#[tokio::test(start_paused = true)]
async fn a_crash_is_a_failed_attempt_and_the_third_is_the_last() {
    let lone = lone();
    let crash = |n: u32| EngineError::Crashed(format!("fault {n}"));
    let engine = FakeEngine::failing([crash(1), crash(2), crash(3)]);
    let _worker = lone.peer.work(Some(engine.clone()));
    lone.submit().await;
    let job = lone.cluster.phase(JOB, "failed").await;
    assert_eq!(
        errors(&job),
        ["engine crashed: fault 1", "engine crashed: fault 2", "engine crashed: fault 3"]
    );
    assert_eq!((engine.begun(), job.leases), (3, 3));
}

#[tokio::test(start_paused = true)]
async fn after_two_crashes_the_third_attempt_may_succeed() {
    let lone = lone();
    let crash = || EngineError::Crashed("fault".to_owned());
    let _worker = lone.peer.work(Some(FakeEngine::failing([crash(), crash()])));
    lone.submit().await;
    let job = lone.cluster.phase(JOB, "succeeded").await;
    assert_eq!((job.attempts.len(), job.leases), (2, 3));
}

#[tokio::test(start_paused = true)]
async fn a_refused_job_fails_at_once() {
    let lone = lone();
    let refused = EngineError::Refused("width 1000 is not a multiple of 16".to_owned());
    let engine = FakeEngine::failing([refused]);
    let _worker = lone.peer.work(Some(engine.clone()));
    lone.submit().await;
    let job = lone.cluster.phase(JOB, "failed").await;
    assert_eq!(errors(&job), ["width 1000 is not a multiple of 16"]);
    assert_eq!(engine.begun(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_cancelled_job_stops_the_engine_and_the_slot_serves_the_next() {
    let lone = lone();
    let engine = FakeEngine::new(1000, ms(100));
    let _worker = lone.peer.work(Some(engine.clone()));
    lone.submit().await;
    lone.cluster.phase(JOB, "leased").await;
    eventually("begin", || (engine.begun() == 1).then_some(())).await;

    let cancel = Cancel { job: JOB, reason: "changed my mind".to_owned(), finished_ms: WALL_MS };
    lone.peer.proposer.propose(Command::Cancel(cancel)).await.unwrap();
    let asked = tokio::time::Instant::now();
    eventually("stop", || (engine.stopped.load(Ordering::SeqCst) == 1).then_some(())).await;
    assert!(asked.elapsed() <= ms(110), "at the next step boundary");
    assert_eq!(lone.cluster.job(JOB).phase, Phase::Cancelled);

    lone.peer.proposer.propose(Command::Submit(submit(2))).await.unwrap();
    eventually("the next", || (engine.begun() == 2).then_some(())).await;
}

#[tokio::test(start_paused = true)]
async fn a_worker_that_drains_gives_its_lease_back_and_takes_no_other() {
    let lone = lone();
    let engine = FakeEngine::new(1000, ms(100));
    let (end, worker) = lone.peer.work(Some(engine.clone()));
    lone.submit().await;
    eventually("begin", || (engine.begun() == 1).then_some(())).await;

    end.cancel();
    let asked = tokio::time::Instant::now();
    worker.await.unwrap();
    assert!(asked.elapsed() < ms(1000), "it took {:?}", asked.elapsed());
    // By the worker's own word, before anybody could miss it.
    assert_eq!(lone.cluster.job(JOB).phase, Phase::Queued);
    sleep(ms(3000)).await;
    let job = lone.cluster.job(JOB);
    assert_eq!((&job.phase, job.leases), (&Phase::Queued, 1));
    assert_eq!(engine.stopped.load(Ordering::SeqCst), 1);
    assert_eq!(lone.cluster.state().node(NodeId(1)).unwrap().slots, 0);
}

#[tokio::test(start_paused = true)]
async fn a_worker_that_has_its_picture_may_say_so_while_it_drains() {
    let lone = lone();
    let engine = FakeEngine::new(2, ms(100));
    let (end, worker) = lone.peer.work(Some(engine.clone()));
    lone.submit().await;
    eventually("begin", || (engine.begun() == 1).then_some(())).await;
    // Its Complete is under way for a while.
    lone.cluster.delay(ms(300));
    sleep(ms(250)).await;
    assert_eq!(lone.cluster.job(JOB).phase.name(), "leased");
    end.cancel();
    worker.await.unwrap();
    let job = lone.cluster.job(JOB);
    assert_eq!((job.phase, job.leases), (Phase::Succeeded, 1));
}

#[tokio::test(start_paused = true)]
async fn a_worker_without_a_leader_does_not_drain_for_ever() {
    let lone = lone();
    let engine = FakeEngine::new(1000, ms(100));
    let (end, worker) = lone.peer.work(Some(engine.clone()));
    lone.submit().await;
    eventually("begin", || (engine.begun() == 1).then_some(())).await;
    lone.cluster.lead(Leads::Nobody);
    end.cancel();
    let asked = tokio::time::Instant::now();
    worker.await.unwrap();
    assert!(asked.elapsed() <= ms(5100), "it took {:?}", asked.elapsed());
    assert_eq!(engine.stopped.load(Ordering::SeqCst), 1);
}

#[tokio::test(start_paused = true)]
async fn a_roster_that_lost_the_node_gets_it_back() {
    let lone = lone();
    let _worker = lone.peer.work(Some(FakeEngine::new(1, ms(1))));
    eventually("registration", || lone.cluster.state().node(NodeId(1)).cloned()).await;
    lone.cluster
        .apply(Command::RemoveNode(RemoveNode { node: NodeId(1), author: Author::default() }));
    assert!(lone.cluster.state().node(NodeId(1)).is_none());
    eventually("registration", || lone.cluster.state().node(NodeId(1)).cloned()).await;
    lone.submit().await;
    lone.cluster.phase(JOB, "succeeded").await;
}

#[tokio::test(start_paused = true)]
async fn a_node_that_is_no_member_does_not_register() {
    let lone = lone();
    lone.cluster.expel(1);
    let _worker = lone.peer.work(Some(FakeEngine::new(1, ms(1))));
    sleep(ms(10_000)).await;
    assert_eq!(lone.cluster.state().nodes().count(), 0);
    lone.cluster.admit(1);
    eventually("registration", || lone.cluster.state().node(NodeId(1)).cloned()).await;
}

#[tokio::test(start_paused = true)]
async fn slots_follow_the_engine() {
    let lone = lone();
    let engine = FakeEngine::new(1, ms(1));
    engine.state.send_replace(EngineState::Loading { bytes: 1, total: 2 });
    let _worker = lone.peer.work(Some(engine.clone()));
    let slots = |wanted: u32| {
        let cluster = lone.cluster.clone();
        async move {
            let found =
                || cluster.state().node(NodeId(1)).filter(|node| node.slots == wanted).cloned();
            eventually("slots", found).await
        }
    };
    assert_eq!(slots(0).await.class, "");
    engine.state.send_replace(EngineState::Ready(info()));
    assert_eq!(slots(1).await.class, "fake");
    engine.state.send_replace(EngineState::Unfit("no card".to_owned()));
    slots(0).await;
    // One entry for each change, and the one that raised the feature level: what the view does not
    // show yet is not said again.
    assert_eq!(lone.cluster.entries.load(Ordering::SeqCst), 4);
}

#[tokio::test(start_paused = true)]
async fn a_clock_that_went_back_does_not_keep_a_node_out() {
    let lone = lone();
    let later = atelier_state::RegisterNode {
        node: NodeId(1),
        address: "http://127.0.0.1:2".to_owned(),
        incarnation: WALL_MS + 1_000_000,
        slots: 1,
        class: String::new(),
        model: String::new(),
        witness: false,
    };
    lone.cluster.apply(Command::RegisterNode(later));
    let _worker = lone.peer.work(Some(FakeEngine::new(1, ms(1))));
    lone.submit().await;
    lone.cluster.phase(JOB, "succeeded").await;
    let node = lone.cluster.state().node(NodeId(1)).unwrap().clone();
    assert_eq!(node.incarnation, WALL_MS + 1_000_001);
}

#[tokio::test(start_paused = true)]
async fn an_unfit_engine_costs_no_attempt() {
    let lone = lone();
    let unfit = EngineError::Unfit("no card".to_owned());
    let _worker = lone.peer.work(Some(FakeEngine::failing([unfit])));
    lone.submit().await;
    let job = lone.cluster.phase(JOB, "succeeded").await;
    assert_eq!((job.attempts.len(), job.leases), (0, 2));
}

#[tokio::test(start_paused = true)]
async fn a_witness_is_known_but_gets_no_work() {
    let lone = lone();
    let (end, worker) = lone.peer.work(None);
    lone.submit().await;
    sleep(ms(5000)).await;
    assert_eq!(lone.cluster.job(JOB).phase, Phase::Queued);
    assert_eq!(lone.cluster.state().node(NodeId(1)).unwrap().slots, 0);
    assert!(lone.peer.liveness.get().is_alive(lone.peer.clock.now(), NodeId(1)));
    end.cancel();
    worker.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_new_leader_gives_running_leases_their_time_and_waits_for_voices() {
    let cluster = PerfectCluster::new(Leads::One(NodeId(1)));
    let peer = TestPeer::new(cluster.log(1));
    peer.lead();
    let engine = FakeEngine::new(40, ms(100));
    let _worker = peer.work(Some(engine.clone()));
    peer.proposer.propose(Command::Submit(submit(1))).await.unwrap();
    eventually("begin", || (engine.begun() == 1).then_some(())).await;
    // Leadership is lost and found again, three times, while the job is drawn.
    for _ in 0..3 {
        cluster.lead(Leads::Nobody);
        sleep(ms(400)).await;
        cluster.lead(Leads::One(NodeId(1)));
        sleep(ms(400)).await;
    }
    let job = cluster.phase(JOB, "succeeded").await;
    assert_eq!((engine.begun(), job.leases), (1, 1), "the running attempt was left alone");
}

#[tokio::test(start_paused = true)]
async fn an_answer_survives_a_gap_without_leader_and_an_unknown_outcome() {
    let cluster = PerfectCluster::new(Leads::One(NodeId(1)));
    let peer = TestPeer::new(cluster.log(1));
    peer.lead();
    let engine = FakeEngine::new(10, ms(100));
    let _worker = peer.work(Some(engine.clone()));
    peer.proposer.propose(Command::Submit(submit(1))).await.unwrap();
    eventually("begin", || (engine.begun() == 1).then_some(())).await;
    cluster.lead(Leads::Nobody);
    // The picture is finished after one second; the gap outlasts the proposer's deadline.
    sleep(ms(14_000)).await;
    cluster.fates([Fate::LostUnknown, Fate::AppliedUnknown]);
    cluster.lead(Leads::One(NodeId(1)));
    let job = cluster.phase(JOB, "succeeded").await;
    assert_eq!((engine.begun(), job.leases), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn a_token_is_started_once_however_often_the_view_changes() {
    let lone = lone();
    let engine = FakeEngine::new(20, ms(100));
    let _worker = lone.peer.work(Some(engine.clone()));
    lone.submit().await;
    for job in 10..40 {
        sleep(ms(20)).await;
        lone.cluster.apply(Command::Submit(submit(job)));
    }
    assert_eq!(engine.begun(), 1);
    assert!(lone.cluster.job(JOB).last_token > Some(FencingToken(0)));
    assert_eq!(lone.cluster.job(JOB).leases, 1);
}

#[test]
fn the_fake_engine_is_an_engine() {
    fn is<E: Engine>() {}
    is::<FakeEngine>();
    let _ = <PerfectLog as Log>::status;
}
