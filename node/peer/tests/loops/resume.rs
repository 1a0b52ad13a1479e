//! Checkpoints: who holds them, what is refused, and jobs that go on from them.

use crate::support::*;
use atelier_peer::checkpoints::{Checkpoint, order_digest};
use atelier_peer::liveness::LivenessTable;
use atelier_peer::parameters::TextToImage;
use atelier_peer::ports::Purpose;
use atelier_peer::ports::engine::{EngineError, Point};
use atelier_peer::ports::shelf::MemoryShelf;
use atelier_proto::peer::v1 as pb;
use atelier_state::{
    Author, Cancel, Command, Digest, FencingToken, JobId, NodeId, RemoveNode, Submit,
};
use bytes::Bytes;
use std::sync::Arc;
use tokio::time::Instant;
use tonic::Code;

const JOB: JobId = JobId(1);

/// Peers that reach one another over the loopback; the first one's loops lead.
async fn peers(count: u64) -> (Arc<PerfectCluster>, Vec<Arc<TestPeer>>) {
    let cluster = PerfectCluster::new(Leads::Everyone);
    let liveness = Arc::new(LivenessTable::new(LEASE));
    let mut peers = Vec::new();
    for node in 1..=count {
        let (listener, address) = listener().await;
        let clock = TestClock::new(WALL_MS);
        let shelf = Arc::new(MemoryShelf::new(clock.clone()));
        let log = cluster.log_at(node, &address);
        let peer = TestPeer::sharing(log, clock, shelf, liveness.clone());
        peer.serve(listener);
        peers.push(peer);
    }
    peers[0].lead();
    (cluster, peers)
}

fn of_images(images: u32) -> Submit {
    let parameters = TextToImage { prompt: "a cat".to_owned(), images, ..TextToImage::default() };
    Submit { parameters: parameters.encode(), ..submit(1) }
}

fn checkpoint(job: u128, token: u64, step: u32) -> Checkpoint {
    Checkpoint {
        job: JobId(job),
        token: FencingToken(token),
        class: "fake".to_owned(),
        order: order_digest("kind", b"parameters", "none"),
        point: Point { image: 0, step, latents: Bytes::from_static(&[7; 64]) },
        pictures: Vec::new(),
    }
}

async fn stood_at(peer: &TestPeer, image: u32, step: u32) -> Checkpoint {
    let held = || {
        let held = peer.checkpoints.here(JOB)?;
        ((held.point.image, held.point.step) >= (image, step)).then_some(held)
    };
    eventually(&format!("a checkpoint of step {step}"), held).await
}

async fn picture_bytes(peer: &TestPeer, cluster: &PerfectCluster) -> Vec<Bytes> {
    let mut bytes = Vec::new();
    for artifact in cluster.job(JOB).artifacts {
        assert_eq!(artifact.holders.len(), 2, "as many copies as any other result");
        bytes.push(peer.artifacts.fetch(artifact.digest).await.unwrap());
    }
    bytes
}

#[tokio::test]
async fn a_drained_worker_hands_its_job_over_at_a_step_boundary() {
    let (cluster, peers) = peers(3).await;
    let engines = [FakeEngine::new(60, ms(10)), FakeEngine::new(60, ms(10))];
    // No checkpoint is due before the end, so only the handing over makes one.
    let (leave, worker) =
        peers[1].work_as(Some(engines[0].clone()), |settings| settings.checkpoint_steps = 100);
    let wanted = of_images(3);
    cluster.apply(Command::Submit(wanted.clone()));
    let token = cluster.phase(JOB, "leased").await.last_token.unwrap();
    let mut steps = peers[1].follower().follow(JOB, token, NodeId(2), false);
    use futures_util::StreamExt;
    while steps.next().await.expect("it draws").image < 1 {}
    leave.cancel();
    worker.await.unwrap();
    // Nobody asks this peer any more.
    peers[1].end().await;

    let _other = peers[0].work(Some(engines[1].clone()));
    let job = cluster.phase(JOB, "succeeded").await;
    assert_eq!((job.leases, job.attempts.len()), (2, 0));
    let [(image, step)] = engines[1].first_steps()[..] else { panic!("one drawing") };
    assert!(image == 1 && step > 1, "it goes on within the second image, at step {step}");
    let plus = |count| [&picture_of(&wanted)[..], &b"+".repeat(count)].concat();
    assert_eq!(picture_bytes(&peers[2], &cluster).await, [plus(0), plus(1), plus(2)]);
}

#[tokio::test]
async fn a_worker_that_vanishes_leaves_its_checkpoint_with_another_peer() {
    let (cluster, peers) = peers(3).await;
    let engines = [FakeEngine::new(300, ms(10)), FakeEngine::new(300, ms(1))];
    let every = |settings: &mut atelier_peer::supervisor::SupervisorSettings| {
        settings.checkpoint_steps = 5;
    };
    let (_leave, worker) = peers[1].work_as(Some(engines[0].clone()), every);
    cluster.apply(Command::Submit(submit(1)));
    let there = stood_at(&peers[2], 0, 20).await;
    assert_eq!(there.point.step % 5, 0);
    worker.abort();
    peers[1].end().await;
    // What the leader concludes from its silence.
    cluster.apply(Command::RemoveNode(RemoveNode { node: NodeId(2), author: Author::default() }));
    let newest = peers[2].checkpoints.here(JOB).unwrap().point.step;

    let _other = peers[0].work_as(Some(engines[1].clone()), every);
    cluster.phase(JOB, "succeeded").await;
    assert_eq!(engines[1].first_steps(), [(0, newest + 1)]);
    assert_eq!(picture_bytes(&peers[2], &cluster).await, [picture_of(&submit(1))]);
    // What nobody needs any more is not held, and a late one is not taken.
    for peer in [&peers[0], &peers[2]] {
        peer.checkpoints.collect();
        peer.checkpoints.put(Checkpoint { job: JOB, ..checkpoint(1, 1_000_000, 9) });
        assert_eq!(peer.checkpoints.here(JOB), None);
    }
}

#[tokio::test(start_paused = true)]
async fn a_crashed_engine_goes_on_from_the_checkpoint_here() {
    let (cluster, peer) = alone();
    let engine = FakeEngine::failing([EngineError::Crashed("fault".to_owned())]);
    let _worker = peer.work_as(Some(engine.clone()), |settings| settings.checkpoint_steps = 1);
    cluster.apply(Command::Submit(submit(1)));
    let job = cluster.phase(JOB, "succeeded").await;
    assert_eq!((job.attempts.len(), job.leases), (1, 2));
    assert_eq!(engine.first_steps(), [(0, 1), (0, 2)]);
}

#[tokio::test(start_paused = true)]
async fn a_checkpoint_of_another_class_or_order_is_not_gone_on_from() {
    let (cluster, peer) = alone();
    let Submit { kind, parameters, .. } = submit(1);
    let order = order_digest(&kind, &parameters, "none");
    // Of the newest lease, so that it is the one that is found.
    let foreign = Checkpoint { class: "another".to_owned(), order, ..checkpoint(1, 1_000, 3) };
    peer.checkpoints.put(foreign);
    let engine = FakeEngine::failing([EngineError::Crashed("fault".to_owned())]);
    let _worker = peer.work_as(Some(engine.clone()), |settings| settings.checkpoint_steps = 1);
    cluster.apply(Command::Submit(submit(1)));
    cluster.phase(JOB, "succeeded").await;
    assert_eq!(engine.first_steps(), [(0, 1), (0, 1)]);

    let theirs = checkpoint(9, 1_000, 3);
    peer.checkpoints.put(theirs.clone());
    let newest = async |class, order| peer.checkpoints.newest(JobId(9), class, order).await;
    assert_eq!(newest("another", theirs.order).await, None);
    let models = ["none", "other"].map(|model| order_digest("kind", b"parameters", model));
    assert_eq!(newest("fake", models[1]).await, None);
    assert_eq!(newest("fake", models[0]).await, Some(theirs));
}

/// One peer that leads, and nobody to send to.
fn alone() -> (Arc<PerfectCluster>, Arc<TestPeer>) {
    let cluster = PerfectCluster::new(Leads::Everyone);
    let peer = TestPeer::new(cluster.log(1));
    peer.lead();
    (cluster, peer)
}

#[tokio::test]
async fn the_newest_of_all_peers_is_found_and_a_silent_one_delays_little() {
    let (cluster, peers) = peers(3).await;
    // It takes connections and never answers.
    let (mute, address) = listener().await;
    let _mute = cluster.log_at(4, &address);
    peers[0].checkpoints.put(checkpoint(9, 1_000, 3));
    peers[1].checkpoints.put(checkpoint(9, 2_000, 2));
    peers[2].checkpoints.put(checkpoint(9, 1_000, 8));
    let asked = Instant::now();
    let found = peers[0].checkpoints.newest(JobId(9), "fake", checkpoint(9, 0, 0).order).await;
    assert_eq!(found, Some(checkpoint(9, 2_000, 2)));
    assert!(asked.elapsed() < ms(1500), "{:?}", asked.elapsed());
    drop(mute);
}

#[tokio::test]
async fn a_peer_that_does_not_take_a_checkpoint_is_passed_over() {
    let (_cluster, peers) = peers(3).await;
    peers[1].end().await;
    assert_eq!(peers[0].checkpoints.send(&checkpoint(9, 1_000, 3)).await, Some(NodeId(3)));
    assert_eq!(peers[2].checkpoints.here(JobId(9)), Some(checkpoint(9, 1_000, 3)));
    // The largest picture's latents fit into a message.
    let latents = Bytes::from(vec![5; 4 * 1024 * 1024]);
    let point = Point { image: 0, step: 4, latents };
    let large = Checkpoint { point, ..checkpoint(9, 1_000, 4) };
    assert_eq!(peers[0].checkpoints.send(&large).await, Some(NodeId(3)));
    let order = large.order;
    assert_eq!(peers[0].checkpoints.newest(JobId(9), "fake", order).await, Some(large));
}

#[tokio::test]
async fn damaged_foreign_and_needless_checkpoints_are_not_held() {
    let (cluster, peers) = peers(1).await;
    let address = peers[0].log_address();
    let mut client = peers[0].lines.peer(&address, Purpose::Control).unwrap();
    let request = |cluster: &str, checkpoint| pb::PutCheckpointRequest {
        cluster: cluster.to_owned(),
        checkpoint,
    };
    let whole = peers[0].checkpoints.message(&checkpoint(9, 1_000, 3)).await;
    let mut torn = whole.clone();
    torn.latents = torn.latents.slice(..60);
    let nameless = Checkpoint { pictures: Vec::new(), ..checkpoint(9, 1_000, 3) };
    let point = Point { image: 2, ..nameless.point.clone() };
    let nameless = peers[0].checkpoints.message(&Checkpoint { point, ..nameless }).await;
    for bad in [None, Some(torn), Some(nameless)] {
        let status = client.put_checkpoint(request(CLUSTER, bad)).await.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument, "{status}");
    }
    let status = client.put_checkpoint(request("other", Some(whole.clone()))).await.unwrap_err();
    assert_eq!(status.code(), Code::PermissionDenied);
    assert_eq!(peers[0].checkpoints.here(JobId(9)), None);

    cluster.apply(Command::Submit(submit(9)));
    client.put_checkpoint(request(CLUSTER, Some(whole.clone()))).await.unwrap();
    assert_eq!(peers[0].checkpoints.here(JobId(9)), Some(checkpoint(9, 1_000, 3)));
    // A job that ended long ago would be forgotten, and nothing be known of it.
    let cancel = Cancel { job: JobId(9), reason: String::new(), finished_ms: WALL_MS };
    cluster.apply(Command::Cancel(cancel));
    assert_eq!(peers[0].checkpoints.collect(), 1);
    client.put_checkpoint(request(CLUSTER, Some(whole))).await.unwrap();
    assert_eq!(peers[0].checkpoints.here(JobId(9)), None);
}

#[test]
fn an_order_is_named_by_each_of_its_parts() {
    let orders: std::collections::BTreeSet<Digest> = [
        order_digest("kind", b"parameters", "model"),
        order_digest("kindp", b"arameters", "model"),
        order_digest("kind", b"parametersm", "odel"),
        order_digest("kind", b"parameters", "model2"),
    ]
    .into();
    assert_eq!(orders.len(), 4);
}
