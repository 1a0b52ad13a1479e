//! The proposer: batches, gaps without a leader, unknown outcomes, the hop to the leader.

use crate::support::*;
use atelier_peer::liveness::LivenessTable;
use atelier_peer::ports::Log;
use atelier_peer::ports::shelf::MemoryShelf;
use atelier_peer::proposer::{
    COMMANDS_WAITING_MAX, ProposeFailure, Proposer, ProposerParts, ProposerSettings,
};
use atelier_state::{
    AllocateNode, Author, Command, JobId, LogIndex, NodeId, Refusal, RemoveNode, Reply,
};
use futures_util::future::join_all;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

fn peer(leads: Leads) -> (Arc<PerfectCluster>, Arc<TestPeer>) {
    let cluster = PerfectCluster::new(leads);
    let peer = TestPeer::new(cluster.log(1));
    (cluster, peer)
}

fn entries(cluster: &PerfectCluster) -> usize {
    cluster.entries.load(Ordering::SeqCst)
}

fn allocate() -> Command {
    Command::AllocateNode(AllocateNode { address: "http://127.0.0.1:9".to_owned() })
}

fn accepted(result: Result<(LogIndex, Reply), ProposeFailure>) -> (LogIndex, bool) {
    match result {
        Ok((_, Reply::Submitted { log_index, duplicate, .. })) => (log_index, duplicate),
        other => panic!("not accepted: {other:?}"),
    }
}

#[tokio::test(start_paused = true)]
async fn sixty_four_callers_share_few_entries() {
    let (cluster, peer) = peer(Leads::Everyone);
    cluster.delay(ms(2));
    let submits = (1..=64).map(|job| peer.proposer.propose(Command::Submit(submit(job))));
    let results = join_all(submits).await;
    let duplicates = results.into_iter().filter(|result| accepted(result.clone()).1).count();
    assert_eq!((duplicates, cluster.state().queued_count()), (0, 64));
    println!("64 commands in {} entries", entries(&cluster));
    assert!(entries(&cluster) <= 3, "{} entries", entries(&cluster));
}

#[tokio::test(start_paused = true)]
async fn callers_that_come_one_after_another_gather_behind_a_slow_log() {
    let (cluster, peer) = peer(Leads::Everyone);
    cluster.delay(ms(50));
    let mut callers = Vec::new();
    for job in 1..=200 {
        let proposer = peer.proposer.clone();
        callers.push(tokio::spawn(
            async move { proposer.propose(Command::Submit(submit(job))).await },
        ));
        tokio::time::sleep(ms(1)).await;
    }
    for caller in callers {
        accepted(caller.await.unwrap());
    }
    println!("200 commands in {} entries", entries(&cluster));
    // 250 ms at 50 ms an entry, eight at a time.
    assert!(entries(&cluster) <= 48, "{} entries", entries(&cluster));
}

#[tokio::test(start_paused = true)]
async fn a_command_is_held_over_a_gap_without_leader() {
    let (cluster, peer) = peer(Leads::Nobody);
    let proposer = peer.proposer.clone();
    let caller = tokio::spawn(async move { proposer.propose(Command::Submit(submit(1))).await });
    tokio::time::sleep(ms(3000)).await;
    assert!(!caller.is_finished());
    cluster.lead(Leads::One(NodeId(1)));
    let led_at = tokio::time::Instant::now();
    accepted(caller.await.unwrap());
    assert!(led_at.elapsed() < ms(10), "it notices at once: {:?}", led_at.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_new_leader_that_is_asked_too_early_is_asked_again_at_once() {
    let (cluster, peer) = peer(Leads::Nobody);
    let proposer = peer.proposer.clone();
    let caller = tokio::spawn(async move { proposer.propose(Command::Submit(submit(1))).await });
    // Long enough for the back-off to be at its longest.
    tokio::time::sleep(ms(5000)).await;
    cluster.fates([Fate::LostUnknown]);
    cluster.lead(Leads::One(NodeId(1)));
    let led_at = tokio::time::Instant::now();
    accepted(caller.await.unwrap());
    assert!(led_at.elapsed() < ms(50), "the back-off begins anew: {:?}", led_at.elapsed());
}

#[tokio::test(start_paused = true)]
async fn without_a_leader_until_the_deadline_nothing_was_applied() {
    let (cluster, peer) = peer(Leads::Nobody);
    let asked = tokio::time::Instant::now();
    let result = peer.proposer.propose_within(Command::Submit(submit(1)), ms(1500)).await;
    assert_eq!(result, Err(ProposeFailure::Unavailable));
    assert!(asked.elapsed() >= ms(1500) && asked.elapsed() < ms(1600));
    // And it is not proposed behind the caller's back.
    cluster.lead(Leads::One(NodeId(1)));
    tokio::time::sleep(ms(2000)).await;
    assert_eq!(cluster.state().jobs_count(), 0);
}

#[tokio::test(start_paused = true)]
async fn an_unknown_outcome_is_repeated_and_answers_the_first_job() {
    let (cluster, peer) = peer(Leads::Everyone);
    cluster.fates([Fate::AppliedUnknown]);
    let (log_index, duplicate) = accepted(peer.proposer.propose(Command::Submit(submit(1))).await);
    assert_eq!((log_index, duplicate), (LogIndex(1), true));
    cluster.fates([Fate::LostUnknown, Fate::LostUnknown]);
    let (_, duplicate) = accepted(peer.proposer.propose(Command::Submit(submit(2))).await);
    assert!(!duplicate);
    assert_eq!(entries(&cluster), 5);
}

#[tokio::test(start_paused = true)]
async fn an_allocation_with_an_unknown_outcome_is_not_repeated() {
    let (cluster, peer) = peer(Leads::Everyone);
    cluster.fates([Fate::AppliedUnknown]);
    let (allocated, submitted) = tokio::join!(
        peer.proposer.propose(allocate()),
        // In the same entry, and repeated without the other.
        peer.proposer.propose(Command::Submit(submit(1))),
    );
    assert!(matches!(allocated, Err(ProposeFailure::Unknown(_))), "{allocated:?}");
    accepted(submitted);
    assert_eq!(cluster.state().nodes().count(), 1, "one node was reserved, not two");
    // What was not taken for certain is tried again, an allocation too.
    cluster.lead(Leads::Nobody);
    let proposer = peer.proposer.clone();
    let held = tokio::spawn(async move { proposer.propose(allocate()).await });
    tokio::time::sleep(ms(500)).await;
    cluster.lead(Leads::Everyone);
    assert!(matches!(held.await.unwrap(), Ok((_, Reply::NodeAllocated { .. }))));
}

#[tokio::test(start_paused = true)]
async fn a_log_that_never_answers_leaves_the_outcome_unknown() {
    let (cluster, peer) = peer(Leads::Everyone);
    cluster.delay(Duration::from_secs(3600));
    let result = peer.proposer.propose_within(Command::Submit(submit(1)), ms(1000)).await;
    assert!(matches!(result, Err(ProposeFailure::Unknown(_))), "{result:?}");
}

#[tokio::test(start_paused = true)]
async fn at_the_brim_commands_are_refused() {
    let (cluster, peer) = peer(Leads::Nobody);
    let submits = (1..=2 * COMMANDS_WAITING_MAX as u128 + 10_000)
        .map(|job| peer.proposer.propose_within(Command::Submit(submit(job)), ms(500)));
    let results = join_all(submits).await;
    let count = |wanted: ProposeFailure| {
        results.iter().filter(|result| **result == Err(wanted.clone())).count()
    };
    let (busy, unavailable) = (count(ProposeFailure::Busy), count(ProposeFailure::Unavailable));
    assert_eq!(busy + unavailable, results.len());
    assert!((COMMANDS_WAITING_MAX..3 * COMMANDS_WAITING_MAX).contains(&unavailable));
    // Afterwards there is room again.
    cluster.lead(Leads::One(NodeId(1)));
    accepted(peer.proposer.propose(Command::Submit(submit(1))).await);
}

#[tokio::test(start_paused = true)]
async fn what_no_entry_holds_is_refused() {
    let (_cluster, peer) = peer(Leads::Everyone);
    let huge = atelier_state::Submit { parameters: vec![0; 60_000].into(), ..submit(1) };
    let result = peer.proposer.propose(Command::Submit(huge)).await;
    assert!(matches!(result, Err(ProposeFailure::Refused(_))), "{result:?}");
}

#[tokio::test(start_paused = true)]
async fn a_refusal_by_the_state_is_a_reply() {
    let (_cluster, peer) = peer(Leads::Everyone);
    let remove = Command::RemoveNode(RemoveNode { node: NodeId(7), author: Author::default() });
    let result = peer.proposer.propose(remove).await;
    assert!(matches!(result, Ok((_, Reply::Refused(Refusal::UnknownNode)))), "{result:?}");
}

#[tokio::test(start_paused = true)]
async fn shutdown_answers_whoever_waits() {
    let (cluster, peer) = peer(Leads::Nobody);
    let waiting = peer.proposer.propose(Command::Submit(submit(1)));
    let (result, ()) = tokio::join!(waiting, async {
        tokio::time::sleep(ms(100)).await;
        peer.end().await;
    });
    assert!(matches!(result, Err(ProposeFailure::Stopped(_))), "{result:?}");
    let later = peer.proposer.propose(Command::Submit(submit(1))).await;
    assert!(matches!(later, Err(ProposeFailure::Stopped(_))), "{later:?}");
    drop(cluster);
}

#[tokio::test(start_paused = true)]
async fn a_node_whose_raft_stopped_says_so() {
    let (cluster, peer) = peer(Leads::Everyone);
    cluster.stop(1, "the disk is full");
    let result = peer.proposer.propose(Command::Submit(submit(1))).await;
    assert_eq!(result, Err(ProposeFailure::Stopped("the disk is full".to_owned())));
}

// -------------------------------------------------------------------- over the loopback, real time

struct Pair {
    cluster: Arc<PerfectCluster>,
    peers: [Arc<TestPeer>; 2],
}

/// Two peers that hear one another; the first leads.
async fn pair() -> Pair {
    let cluster = PerfectCluster::new(Leads::One(NodeId(1)));
    let (first, first_address) = listener().await;
    let (second, second_address) = listener().await;
    let peers = [
        TestPeer::new(cluster.log_at(1, &first_address)),
        TestPeer::new(cluster.log_at(2, &second_address)),
    ];
    peers[0].serve(first);
    peers[1].serve(second);
    Pair { cluster, peers }
}

#[tokio::test]
async fn a_follower_forwards_to_the_leader_and_follows_it() {
    let Pair { cluster, peers: [first, second] } = pair().await;
    let submits = (1..=64).map(|job| second.proposer.propose(Command::Submit(submit(job))));
    for result in join_all(submits).await {
        assert!(!accepted(result).1);
    }
    println!("64 forwarded commands in {} entries", entries(&cluster));
    assert!(entries(&cluster) <= 8, "{} entries", entries(&cluster));

    // Refusals travel as well.
    let remove = Command::RemoveNode(RemoveNode { node: NodeId(7), author: Author::default() });
    let result = second.proposer.propose(remove).await;
    assert!(matches!(result, Ok((_, Reply::Refused(Refusal::UnknownNode)))), "{result:?}");

    cluster.lead(Leads::One(NodeId(2)));
    accepted(first.proposer.propose(Command::Submit(submit(100))).await);
    accepted(second.proposer.propose(Command::Submit(submit(101))).await);
    first.end().await;
    second.end().await;
}

#[tokio::test]
async fn a_follower_with_an_old_opinion_is_told_the_leader() {
    let Pair { cluster, peers: [first, second] } = pair().await;
    let third = TestPeer::new(cluster.log(3));
    // The third believes in the first for ever.
    cluster.freeze(3);
    cluster.lead(Leads::One(NodeId(2)));
    accepted(third.proposer.propose(Command::Submit(submit(1))).await);
    for peer in [first, second, third] {
        peer.end().await;
    }
}

#[tokio::test]
async fn a_leader_that_is_not_there_yet_is_waited_for() {
    let cluster = PerfectCluster::new(Leads::One(NodeId(1)));
    // A port that was free a moment ago.
    let (listener, address) = listener().await;
    let port = listener.local_addr().unwrap();
    drop(listener);
    let first = TestPeer::new(cluster.log_at(1, &address));
    let second = TestPeer::new(cluster.log(2));
    let proposer = second.proposer.clone();
    let held = tokio::spawn(async move { proposer.propose(allocate()).await });
    tokio::time::sleep(ms(300)).await;
    first.serve(tokio::net::TcpListener::bind(port).await.unwrap());
    // Not even an allocation is in doubt: there never was a connection.
    let result = held.await.unwrap();
    assert!(matches!(result, Ok((_, Reply::NodeAllocated { .. }))), "{result:?}");
    first.end().await;
    second.end().await;
}

#[tokio::test]
async fn a_leader_of_another_cluster_takes_nothing() {
    let Pair { cluster, peers: [first, second] } = pair().await;
    let parts = ProposerParts {
        log: second.log.clone(),
        lines: second.lines.clone(),
        clock: second.clock.clone(),
        entropy: Arc::new(TestEntropy::default()),
    };
    let shutdown = tokio_util::sync::CancellationToken::new();
    let settings = ProposerSettings::new("another");
    let (stranger, task) = Proposer::spawn(parts, settings, shutdown.clone());
    let result = stranger.propose(Command::Submit(submit(1))).await;
    let Err(ProposeFailure::Refused(reason)) = result else { panic!("got {result:?}") };
    assert!(reason.contains("\"test\"") && reason.contains("\"another\""), "{reason}");
    assert_eq!(entries(&cluster), 0);
    shutdown.cancel();
    task.await.unwrap();
    first.end().await;
    second.end().await;
}

#[tokio::test]
async fn a_whole_job_runs_on_a_worker_behind_the_network() {
    let cluster = PerfectCluster::new(Leads::One(NodeId(1)));
    let (first_listener, first_address) = listener().await;
    let (second_listener, second_address) = listener().await;
    let leader = TestPeer::new(cluster.log_at(1, &first_address));
    leader.serve(first_listener);
    leader.lead();
    let clock = TestClock::new(WALL_MS);
    let shelf = Arc::new(MemoryShelf::new(clock.clone()));
    let log = cluster.log_at(2, &second_address);
    let worker = TestPeer::with(log, clock, shelf, LivenessTable::new(LEASE));
    worker.serve(second_listener);
    let engine = FakeEngine::new(5, ms(20));
    let (end, task) = worker.work(Some(engine.clone()));
    accepted(worker.proposer.propose(Command::Submit(submit(1))).await);
    let job = cluster.phase(JobId(1), "succeeded").await;
    assert_eq!(job.last_node, Some(NodeId(2)));
    // The picture was copied before it was named, so the leader serves it from its own disk.
    assert_eq!(job.artifacts[0].holders, [NodeId(2), NodeId(1)]);
    let here = leader.artifacts.here(job.artifacts[0].digest).await.unwrap();
    assert_eq!(here, Some(picture_of(&submit(1))));
    assert!(leader.log.view().borrow().state.node(NodeId(2)).is_some());
    end.cancel();
    task.await.unwrap();
    leader.end().await;
    worker.end().await;
}
