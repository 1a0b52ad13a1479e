//! Progress: from a worker's board to whoever follows, here and over the loopback.

use crate::support::*;
use atelier_peer::ports::engine::{EngineStep, StageTimes};
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
    }
}

#[tokio::test(start_paused = true)]
async fn a_slow_watcher_sees_the_newest_step_and_the_end() {
    let cluster = PerfectCluster::new(Leads::Everyone);
    let peer = TestPeer::new(cluster.log(1));
    let writer = peer.board.begin(JOB, TOKEN);
    let mut steps = peer.follower().follow(JOB, TOKEN, NodeId(1));
    for number in 1..=5 {
        writer.publish(step(number));
    }
    assert_eq!(steps.next().await, Some(step(5)));
    writer.publish(step(6));
    assert_eq!(steps.next().await, Some(step(6)));
    drop(writer);
    let end = tokio::time::timeout(ms(5000), steps.next()).await;
    assert_eq!(end, Ok(None), "the stream ends with the attempt");
    assert!(peer.board.watch(JOB, TOKEN).is_none());
}

#[tokio::test(start_paused = true)]
async fn whoever_comes_before_the_worker_waits_but_not_for_ever() {
    let cluster = PerfectCluster::new(Leads::Everyone);
    let peer = TestPeer::new(cluster.log(1));
    let mut steps = peer.follower().follow(JOB, TOKEN, NodeId(1));
    let (first, _writer) = tokio::join!(steps.next(), async {
        tokio::time::sleep(ms(2000)).await;
        let writer = peer.board.begin(JOB, TOKEN);
        writer.publish(step(1));
        writer
    });
    assert_eq!(first, Some(step(1)));
    // Another token of the same job is another attempt.
    let mut other = peer.follower().follow(JOB, FencingToken(8), NodeId(1));
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
    let mut steps = gateway.follower().follow(JOB, TOKEN, NodeId(1));
    assert_eq!(steps.next().await, Some(step(3)));
    writer.publish(step(4));
    assert_eq!(steps.next().await, Some(step(4)));
    drop(writer);
    let end = tokio::time::timeout(ms(5000), steps.next()).await;
    assert_eq!(end, Ok(None), "the stream ends with the attempt");
    gateway.end().await;
    worker.end().await;
}
