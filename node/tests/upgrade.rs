//! The previous build beside this one: a cluster under load is upgraded peer by peer.
//!
//! `make upgrade` builds the previous commit's daemon and names it in `PREVIOUS_DAEMON`. Without it there is nothing
//! to upgrade from: the test says so and passes.

#![allow(clippy::unwrap_used)]

mod support;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use atelier_client::{Client, Phase};
use support::{Cluster, PATIENCE, Setup, picture, today};

const RAISED_BY: Duration = Duration::from_secs(3);
/// What this build raises the cluster to.
const LEVEL: u32 = 3;
const PROMPT: &str = "a cat on a blue background";

/// The feature level as every peer of this build tells it; those of an older one tell none.
async fn levels(cluster: &Cluster, ids: &[u64]) -> Vec<u32> {
    let mut levels = Vec::new();
    for id in ids {
        levels.push(cluster.client_of(*id).status().await.expect("it answers").features);
    }
    levels
}

async fn level_is_reached(client: &Client, level: u32) {
    let start = Instant::now();
    while client.status().await.expect("it answers").features < level {
        assert!(start.elapsed() < PATIENCE, "level {level} is not reached");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_is_upgraded_peer_by_peer_and_loses_nothing() {
    let Some(previous) = std::env::var_os("PREVIOUS_DAEMON").map(PathBuf::from) else {
        println!("skipped: `make upgrade` builds the previous daemon and runs this test with it");
        return;
    };
    let mut cluster = Cluster::start(Setup { program: previous, ..Setup::default() });
    let stop = Arc::new(AtomicBool::new(false));
    let (client, ended) = (cluster.client(), stop.clone());
    let load = tokio::spawn(async move {
        let mut jobs = Vec::new();
        while !ended.load(Ordering::SeqCst) {
            let wanted = picture(PROMPT, jobs.len() as u64, 6);
            jobs.push(client.submit(&wanted).await.expect("no call fails").job);
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        jobs
    });
    let ids = cluster.ids();
    // By then the previous build has raised the level to what it knows.
    tokio::time::sleep(RAISED_BY).await;
    let before = levels(&cluster, &ids).await.into_iter().max().unwrap().max(1);
    for (upgraded, id) in ids.iter().enumerate() {
        cluster.terminate(*id);
        cluster.upgrade(*id, today());
        cluster.start_these(&[*id]);
        let newer = &ids[..=upgraded];
        if newer.len() < ids.len() {
            let told = levels(&cluster, newer).await;
            assert!(told.iter().all(|level| *level <= before), "an older peer is there: {told:?}");
        }
    }
    level_is_reached(&cluster.client(), LEVEL).await;
    stop.store(true, Ordering::SeqCst);
    let jobs = load.await.unwrap();
    let client = cluster.client();
    for job in &jobs {
        let job = client.finish(*job, |_| ()).await.expect("an accepted job succeeds");
        assert_eq!(job.phase, Phase::Succeeded);
    }
    let mark = client.place_mark().await.expect("a mark");
    let mut digests = Vec::new();
    for id in &ids {
        digests.push(cluster.client_of(*id).digest_at(mark).await.expect("a digest").state_digest);
    }
    assert!(digests.windows(2).all(|pair| pair[0] == pair[1]), "diverged: {digests:?}");
    let jobs = jobs.len();
    println!("{jobs} jobs over the upgrade from feature level {before}, level {LEVEL} in the end");
}
