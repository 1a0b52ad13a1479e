//! Progress: from a worker's board to whoever follows, here and over the loopback.

use crate::support::*;
use atelier_peer::ports::engine::{EngineStep, PREVIEW_BYTES_MAX, Preview, StageTimes};
use atelier_state::{FencingToken, JobId, NodeId};
use futures_util::StreamExt;

const JOB: JobId = JobId(1);
const TOKEN: FencingToken = FencingToken(7);

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

#[tokio::test(start_paused = true)]
async fn a_slow_watcher_sees_the_newest_step_and_the_end() {
    let cluster = PerfectCluster::new(Leads::Everyone);
    let peer = TestPeer::new(cluster.log(1));
    let writer = peer.board.begin(JOB, TOKEN);
    let mut steps = peer.follower().follow(JOB, TOKEN, NodeId(1), false);
    for number in 1..=5 {
        writer.publish(step(number));
    }
    assert_eq!(steps.next().await, Some(step(5)));
    writer.publish(step(6));
    assert_eq!(steps.next().await, Some(step(6)));
    drop(writer);
    let end = tokio::time::timeout(ms(5000), steps.next()).await;
    assert_eq!(end, Ok(None), "the stream ends with the attempt");
    assert!(peer.board.watch(JOB, TOKEN, false).is_none());
}

#[tokio::test(start_paused = true)]
async fn whoever_comes_before_the_worker_waits_but_not_for_ever() {
    let cluster = PerfectCluster::new(Leads::Everyone);
    let peer = TestPeer::new(cluster.log(1));
    let mut steps = peer.follower().follow(JOB, TOKEN, NodeId(1), false);
    let (first, _writer) = tokio::join!(steps.next(), async {
        tokio::time::sleep(ms(2000)).await;
        let writer = peer.board.begin(JOB, TOKEN);
        writer.publish(step(1));
        writer
    });
    assert_eq!(first, Some(step(1)));
    // Another token of the same job is another attempt.
    let mut other = peer.follower().follow(JOB, FencingToken(8), NodeId(1), false);
    let asked = tokio::time::Instant::now();
    assert_eq!(other.next().await, None);
    assert!(asked.elapsed() > ms(9000) && asked.elapsed() < ms(12_000));
}

#[tokio::test]
async fn steps_travel_to_another_peer() {
    let cluster = PerfectCluster::new(Leads::One(NodeId(1)));
    let (listener, address) = listener().await;
    let worker = TestPeer::new(cluster.log_at(1, &address));
    worker.serve(listener);
    let gateway = TestPeer::new(cluster.log(2));
    let writer = worker.board.begin(JOB, TOKEN);
    writer.publish(step(3));
    let mut steps = gateway.follower().follow(JOB, TOKEN, NodeId(1), false);
    assert_eq!(steps.next().await, Some(step(3)));
    writer.publish(step(4));
    assert_eq!(steps.next().await, Some(step(4)));
    drop(writer);
    let end = tokio::time::timeout(ms(5000), steps.next()).await;
    assert_eq!(end, Ok(None), "the stream ends with the attempt");
    gateway.end().await;
    worker.end().await;
}

/// A step with a preview as long as one may be.
fn shown(number: u32) -> EngineStep {
    let preview = Preview::new(vec![number as u8; PREVIEW_BYTES_MAX].into());
    assert!(preview.is_some());
    EngineStep { preview, ..step(number) }
}

#[tokio::test]
async fn previews_travel_to_those_who_ask_for_them() {
    let cluster = PerfectCluster::new(Leads::One(NodeId(1)));
    let (listener, address) = listener().await;
    let worker = TestPeer::new(cluster.log_at(1, &address));
    worker.serve(listener);
    let gateway = TestPeer::new(cluster.log(2));
    let writer = worker.board.begin(JOB, TOKEN);
    writer.publish(shown(3));
    for peer in [&gateway, &worker] {
        let follow = |previews| peer.follower().follow(JOB, TOKEN, NodeId(1), previews);
        assert_eq!(follow(true).next().await, Some(shown(3)));
        assert_eq!(follow(false).next().await, Some(step(3)));
    }
    gateway.end().await;
    worker.end().await;
}

#[tokio::test]
async fn watchers_that_do_not_read_hold_up_nobody() {
    let cluster = PerfectCluster::new(Leads::One(NodeId(1)));
    let (listener, address) = listener().await;
    let worker = TestPeer::new(cluster.log_at(1, &address));
    worker.serve(listener);
    let gateway = TestPeer::new(cluster.log(2));
    let writer = worker.board.begin(JOB, TOKEN);
    let follow = || gateway.follower().follow(JOB, TOKEN, NodeId(1), true);
    let mut slow: Vec<_> = (0..4).map(|_| follow()).collect();
    writer.publish(shown(1));
    for slow in &mut slow {
        assert_eq!(slow.next().await, Some(shown(1)), "it has begun, and reads no more");
    }
    let mut fast = follow();
    assert_eq!(fast.next().await, Some(shown(1)));
    // Many times what the one connection to the worker takes without being read.
    for number in 2..=200 {
        writer.publish(shown(number));
        let next = tokio::time::timeout(ms(20_000), fast.next()).await;
        assert_eq!(next.expect("the connection is not full"), Some(shown(number)));
    }
    drop(writer);
    for slow in slow {
        let rest: Vec<u32> = slow.map(|step| step.step).collect().await;
        assert_eq!(rest.last(), Some(&200), "the newest is kept");
        assert!(rest.len() < 100, "and those between are not: {rest:?}");
    }
    gateway.end().await;
    worker.end().await;
}
