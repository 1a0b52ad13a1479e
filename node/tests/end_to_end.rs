//! Real peers, real sockets, real engines, and processes that are really killed.

#![allow(clippy::unwrap_used)]

mod support;

use std::time::{Duration, Instant};

use atelier_client::{JobId, Phase};
use support::{Cluster, LEASE_MS, PATIENCE, Setup, denoising, ends, picture, until};

const PROMPT: &str = "a cat on a blue background";
/// Enough steps that a job can be met in the middle.
const LONG: u32 = 50;

#[tokio::test(flavor = "multi_thread")]
async fn every_peer_draws_the_same_bytes() {
    let cluster = Cluster::start(Setup::default());
    let mut pictures = Vec::new();
    for id in cluster.ids() {
        let drawn = cluster.client_of(id).generate(&picture(PROMPT, 7, 0), |_| ()).await;
        let drawn = drawn.expect("a picture through any peer");
        assert_eq!(drawn.job.leases, 1);
        assert!(drawn.images[0].bytes.starts_with(b"\x89PNG\r\n\x1a\n"));
        pictures.push(drawn.images[0].bytes.clone());
    }
    assert!(pictures.windows(2).all(|pair| pair[0] == pair[1]), "one request, one picture");

    let other = cluster.client().generate(&picture(PROMPT, 8, 0), |_| ()).await.unwrap();
    assert_ne!(other.images[0].bytes, pictures[0], "another seed, another picture");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repeated_submit_is_one_job() {
    let cluster = Cluster::start(Setup::default());
    let wanted = picture(PROMPT, 3, 0);
    let first = cluster.client_of(1).submit(&wanted).await.unwrap();
    let again = cluster.client_of(2).submit(&wanted).await.unwrap();
    assert!(!first.duplicate && again.duplicate);
    assert_eq!((again.job, again.log_index), (first.job, first.log_index));
    assert_eq!(cluster.client().jobs(&[], 0).await.unwrap().total, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_leader_loses_no_job() {
    let mut cluster = Cluster::start(Setup::default());
    let client = cluster.client();
    let leader = cluster.leader().await;
    let jobs = submit_many(&cluster, 23).await;
    // Three run and twenty wait; a call waits for the last of them.
    wait_for(&cluster, "three jobs run", |leased, queued| leased == 3 && queued >= 10).await;
    let waiting = tokio::spawn({
        let (client, wanted) = (client.clone(), picture("a dog on a red background", 5, 0));
        async move { client.generate(&wanted, |_| ()).await }
    });
    cluster.kill(leader);

    let jobs = ends(&client, &jobs).await;
    let drawn = waiting.await.unwrap().expect("the waiting call returns its picture");
    assert_eq!(drawn.images.len(), 1);
    for job in &jobs {
        assert_eq!((job.phase, job.artifacts.len()), (Phase::Succeeded, 1), "{job:?}");
    }
    let page = client.jobs(&[], 1000).await.unwrap();
    assert_eq!(page.total, 24, "nothing accepted is lost, nothing is accepted twice");

    // The killed one comes back and agrees.
    cluster.start_all();
    cluster.agree().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_worker_does_not_change_the_picture() {
    let mut cluster = Cluster::start(Setup::default());
    let client = cluster.client();
    let undisturbed = client.generate(&picture(PROMPT, 7, LONG), |_| ()).await.unwrap();

    let wanted = picture(PROMPT, 7, LONG);
    client.submit(&wanted).await.unwrap();
    let seen = until(&client, wanted.job, |event| denoising(event, 5)).await;
    let worker = seen.job.node.expect("somebody draws it");
    cluster.kill(worker);

    let drawn = client.generate(&wanted, |_| ()).await.expect("another worker draws it");
    assert!(drawn.accepted.duplicate);
    assert_ne!(drawn.job.node, Some(worker));
    assert!(drawn.job.leases >= 2 && drawn.job.token > seen.job.token);
    assert_eq!(drawn.job.attempts, 0, "a lost worker is no failed attempt");
    assert_eq!(drawn.images[0].bytes, undisturbed.images[0].bytes);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_slept_beyond_its_lease_is_refused() {
    let cluster = Cluster::start(Setup::default());
    let client = cluster.client();
    let wanted = picture(PROMPT, 9, LONG);
    client.submit(&wanted).await.unwrap();
    let seen = until(&client, wanted.job, |event| denoising(event, 2)).await;
    let sleeper = seen.job.node.expect("somebody draws it");
    cluster.freeze(sleeper);

    let job = client.finish(wanted.job, |_| ()).await.expect("another worker draws it");
    assert_ne!(job.node, Some(sleeper));
    cluster.thaw(sleeper);
    // The sleeper catches up, learns of its loss, and works again.
    cluster.agree().await;
    let after = cluster.client_of(sleeper).job(wanted.job).await.unwrap();
    assert_eq!((after.artifacts, after.token), (job.artifacts, job.token));
    let next = cluster.client_of(sleeper).generate(&picture(PROMPT, 10, 0), |_| ()).await;
    assert_eq!(next.unwrap().job.phase, Phase::Succeeded);
}

#[tokio::test(flavor = "multi_thread")]
async fn all_restart_at_once_and_nothing_is_lost() {
    let mut cluster = Cluster::start(Setup::default());
    let client = cluster.client();
    let done = client.generate(&picture(PROMPT, 1, 0), |_| ()).await.unwrap();
    let jobs = submit_many(&cluster, 12).await;
    cluster.kill_all();
    cluster.start_all();

    for job in ends(&client, &jobs).await {
        assert_eq!((job.phase, job.artifacts.len()), (Phase::Succeeded, 1));
    }
    let again = client.job(done.job.job).await.unwrap();
    assert_eq!(again.artifacts, done.job.artifacts);
    let kept = client.fetch(&again).await.expect("a result outlives a restart");
    assert_eq!(kept[0].bytes, done.images[0].bytes);
    cluster.agree().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_engine_costs_an_attempt_not_the_peer() {
    let cluster = Cluster::start(Setup { peers: 1, ..Setup::default() });
    let client = cluster.client();
    let wanted = picture(PROMPT, 4, LONG);
    client.submit(&wanted).await.unwrap();
    until(&client, wanted.job, |event| denoising(event, 2)).await;
    let (peer, engines) = (cluster.pid(1), cluster.engines(1));
    assert_eq!(engines.len(), 1, "one engine, one process");
    let engine = rustix::process::Pid::from_raw(engines[0] as i32).unwrap();
    rustix::process::kill_process(engine, rustix::process::Signal::KILL).unwrap();

    let drawn = client.generate(&wanted, |_| ()).await.expect("the next engine draws it");
    assert_eq!((drawn.job.attempts, drawn.job.leases), (1, 2));
    assert_eq!(cluster.pid(1), peer);
    assert_ne!(cluster.engines(1), engines);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancelled_job_frees_its_worker() {
    let cluster = Cluster::start(Setup { peers: 1, ..Setup::default() });
    let client = cluster.client();
    let unwanted = picture(PROMPT, 4, LONG);
    client.submit(&unwanted).await.unwrap();
    until(&client, unwanted.job, |event| denoising(event, 1)).await;
    assert_eq!(client.cancel(unwanted.job).await.unwrap().phase, Phase::Cancelled);

    let start = Instant::now();
    let next = client.generate(&picture(PROMPT, 5, 1), |_| ()).await.unwrap();
    assert_eq!(next.job.leases, 1, "after {:?}", start.elapsed());
    assert_eq!(client.job(unwanted.job).await.unwrap().phase, Phase::Cancelled);
}

#[tokio::test(flavor = "multi_thread")]
async fn all_that_are_told_to_leave_leave_in_good_order() {
    let mut cluster = Cluster::start(Setup { engine: false, ..Setup::default() });
    cluster.leader().await;
    cluster.terminate_all();
    for id in cluster.ids() {
        assert!(cluster.log_of(id).contains("peer has left"), "peer {id} did not leave in order");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_minority_refuses_and_says_so() {
    let mut cluster = Cluster::start(Setup { engine: false, ..Setup::default() });
    let leader = cluster.leader().await;
    let followers: Vec<u64> = cluster.ids().into_iter().filter(|id| *id != leader).collect();
    for (left, killed) in [(leader, followers.clone()), (followers[0], vec![leader, followers[1]])]
    {
        killed.iter().for_each(|id| cluster.kill(*id));
        alone(&cluster, left).await;
        cluster.start_all();
    }
}

/// Judges the one peer of three that is left.
async fn alone(cluster: &Cluster, left: u64) {
    let options = atelier_client::Options {
        deadline: Duration::from_millis(2 * LEASE_MS),
        learn_members: false,
        ..Default::default()
    };
    let client = atelier_client::Client::connect([cluster.address(left)], options).unwrap();
    let error = client.submit(&picture(PROMPT, 1, 0)).await.expect_err("no majority, no promise");
    let status = client.status().await.expect("a peer that is left alone tells how it is");
    assert_eq!(status.node, left);
    use atelier_client::Error::{Unavailable, UnknownOutcome};
    assert!(matches!(error, Unavailable { .. } | UnknownOutcome { .. }), "{error}");
    let alive = cluster.get(left, "/livez").await;
    assert_eq!(alive.0, 200, "the process lives without a quorum");
    let start = Instant::now();
    while cluster.get(left, "/readyz").await.0 != 503 {
        assert!(start.elapsed() < PATIENCE, "a peer without a quorum is not ready");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    // A peer that refuses connections is asked again at a measured pace.
    let lines = cluster.log_of(left).lines().count();
    assert!(lines < 2_000, "the log of the last peer has {lines} lines");
}

#[tokio::test(flavor = "multi_thread")]
async fn probes_and_metrics_answer() {
    let cluster = Cluster::start(Setup { peers: 1, ..Setup::default() });
    assert_eq!(cluster.get(1, "/livez").await.0, 200);
    // A cluster of one asks nobody, so it stays ready when nothing happens.
    let start = Instant::now();
    while start.elapsed() < Duration::from_millis(LEASE_MS) {
        assert_eq!(cluster.get(1, "/readyz").await.0, 200);
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let (status, body) = cluster.get(1, "/health").await;
    assert_eq!((status, body.trim()), (200, r#"{"status":"healthy"}"#));
    let (status, body) = cluster.get(1, "/metrics").await;
    assert!(status == 200 && body.contains("atelier_raft_is_leader 1"), "{body}");
}

async fn submit_many(cluster: &Cluster, count: u64) -> Vec<JobId> {
    let mut jobs = Vec::new();
    for seed in 0..count {
        // Through every peer in turn.
        let id = cluster.ids()[(seed % cluster.setup.peers) as usize];
        let accepted = cluster.client_of(id).submit(&picture(PROMPT, seed, LONG)).await;
        jobs.push(accepted.expect("the queue has room").job);
    }
    jobs
}

async fn wait_for(cluster: &Cluster, what: &str, wanted: impl Fn(u64, u64) -> bool) {
    let (client, start) = (cluster.client(), Instant::now());
    loop {
        let status = client.status().await.unwrap();
        if wanted(status.leased, status.queued) {
            return;
        }
        assert!(start.elapsed() < PATIENCE, "{what}: {status:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
