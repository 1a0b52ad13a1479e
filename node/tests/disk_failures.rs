//! Disks that fail, fill, turn read-only, rot, or are emptied under one peer of three: that peer takes no part any
//! more and says why, nothing is deleted, and the others go on.

#![allow(clippy::unwrap_used)]

mod support;

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use atelier_client::{Client, JobId, Options};
use support::disk::{Disk, PowerSwitch, with_own_mounts};
use support::{Cluster, PATIENCE, Setup, picture};

const DISK_BYTES: u64 = 64 << 20;
/// Clients that fill the log while a disk fails.
const WRITERS: u64 = 6;

#[derive(Clone, Copy, Debug)]
enum Failure {
    Full,
    ReadOnly,
    Broken,
}

#[test]
fn a_peer_whose_disk_fails_stands_aside_and_comes_back() {
    with_own_mounts("a_peer_whose_disk_fails_stands_aside_and_comes_back", || {
        let runtime = tokio::runtime::Runtime::new().expect("a runtime");
        runtime.block_on(async {
            for failure in [Failure::Full, Failure::ReadOnly, Failure::Broken] {
                stand_aside(failure).await;
            }
        });
    });
}

async fn stand_aside(failure: Failure) {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let disk = |id: u64| {
        let at = directory.path();
        Disk::mounted(at.join(format!("disk-{id}")), at.join(format!("data-{id}")), DISK_BYTES)
    };
    let disks: Vec<Disk> = (1..=3).map(disk).collect();
    let data = Some(directory.path().to_owned());
    let mut cluster = Cluster::start(Setup { engine: false, data, ..Setup::default() });
    let victim = cluster.leader().await;
    let disk = &disks[victim as usize - 1];
    let before = cluster.client().submit(&picture("a cat", 0, 0)).await.unwrap().job;

    let (ballast, says) = match failure {
        Failure::Full => (Some(disk.fill()), "No space left on device"),
        Failure::ReadOnly => {
            disk.turn_read_only();
            (None, "Read-only file system")
        }
        Failure::Broken => {
            PowerSwitch::armed([disk]).cut();
            (None, "Input/output error")
        }
    };
    let acknowledged = write_until_unready(&cluster, victim, says).await;
    let log = cluster.log_of(victim);
    assert!(log.contains("this node takes no part any more") && log.contains(says), "{failure:?}");

    // The disk works again, and the peer does not: nobody knows what its last writes came to.
    if let Some(ballast) = ballast {
        fs::remove_file(ballast).unwrap();
        submit(&survivor(&cluster, victim)).await;
        cluster.unready(victim, says).await;
    }
    cluster.kill(victim);
    disk.unmount();
    disk.mount();
    cluster.start_all();
    cluster.agree().await;
    let client = cluster.client_of(victim);
    for job in acknowledged.iter().chain([&before]) {
        client.job(*job).await.unwrap_or_else(|error| panic!("{job} was acknowledged: {error}"));
    }
    println!("{failure:?}: peer {victim} stood aside, {} jobs went on", acknowledged.len());
    drop(cluster);
    disks.iter().for_each(Disk::unmount);
}

/// Submits through the others until the victim says why it takes no part.
async fn write_until_unready(cluster: &Cluster, victim: u64, says: &str) -> Vec<JobId> {
    let enough = Arc::new(AtomicBool::new(false));
    let write = |_| {
        let (client, enough) = (survivor(cluster, victim), enough.clone());
        tokio::spawn(async move {
            let mut jobs = Vec::new();
            while !enough.load(Ordering::Relaxed) {
                jobs.push(submit(&client).await);
            }
            jobs
        })
    };
    let writers: Vec<_> = (0..WRITERS).map(write).collect();
    cluster.unready(victim, says).await;
    enough.store(true, Ordering::Relaxed);
    let mut jobs = vec![submit(&survivor(cluster, victim)).await];
    for writer in writers {
        jobs.extend(writer.await.expect("a majority goes on"));
    }
    jobs
}

/// Submits and cancels again, so that the queue does not fill.
async fn submit(client: &Client) -> JobId {
    let job = client.submit(&picture("a cat", 1, 0)).await.expect("a majority accepts").job;
    client.cancel(job).await.expect("a majority accepts");
    job
}

fn survivor(cluster: &Cluster, victim: u64) -> Client {
    let other = cluster.ids().into_iter().find(|id| *id != victim).unwrap();
    let options = Options { learn_members: false, ..support::patient() };
    Client::connect([cluster.address(other)], options).unwrap()
}

/// Every file that matters, damaged in two ways.
#[tokio::test(flavor = "multi_thread")]
async fn a_peer_with_damaged_files_refuses_to_start_and_names_them() {
    let mut cluster =
        Cluster::start(Setup { engine: false, settings: SNAPSHOTS.to_owned(), ..Setup::default() });
    for _ in 0..60 {
        submit(&cluster.client()).await;
    }
    let ids = cluster.ids();
    for (turn, file) in ["log/db", "state/db"].into_iter().cycle().take(4).enumerate() {
        let victim = ids[turn % 3];
        cluster.kill(victim);
        let path = cluster.data_of(victim).join(file);
        let whole = fs::read(&path).unwrap();
        let damaged = if turn < 2 { flipped(&whole) } else { cut(&whole) };
        fs::write(&path, &damaged).unwrap();

        cluster.start_one(victim);
        let status = cluster.ended(victim);
        let log = cluster.log_of(victim);
        let last = log.lines().last().unwrap_or_default().to_owned();
        assert_eq!(status.code(), Some(1), "{file}: {last}");
        let tree = file.split('/').next().unwrap();
        for part in ["corrupted", &format!("data-{victim}/{tree}"), "join again under a new id"] {
            assert!(last.contains(part), "`{last}` says `{part}`");
        }
        println!("{last}");
        submit(&survivor(&cluster, victim)).await;
        assert!(fs::read(&path).unwrap() == damaged, "nothing is deleted or repaired");

        // With its own bytes back it is the peer that it was.
        fs::write(&path, &whole).unwrap();
        cluster.start_all();
        cluster.agree().await;
    }
}

const SNAPSHOTS: &str = "[raft]\nsnapshot_entries = 20\nentries_kept = 10\n";

/// One flipped bit in every page.
fn flipped(whole: &[u8]) -> Vec<u8> {
    let mut damaged = whole.to_vec();
    damaged.chunks_mut(4096).for_each(|page| page[page.len() / 2] ^= 4);
    damaged
}

/// The first half of what is written. sled makes its files longer than that in advance.
fn cut(whole: &[u8]) -> Vec<u8> {
    let written = whole.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
    whole[..written / 2].to_vec()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_artifact_is_set_aside_and_never_served() {
    let cluster = Cluster::start(Setup::default());
    let drawn = cluster.client().generate(&picture("a cat", 7, 0), |_| ()).await.unwrap();
    let artifact = &drawn.job.artifacts[0];
    let holder = cluster.ids().into_iter().find(|id| file_of(&cluster, *id, artifact).exists());
    let holder = holder.expect("somebody holds it");
    let file = file_of(&cluster, holder, artifact);
    for damage in [flipped, |whole: &[u8]| whole[..whole.len() / 2].to_vec()] {
        let whole = fs::read(&file).unwrap();
        fs::write(&file, damage(&whole)).unwrap();
        let client = cluster.client_of(holder);
        let fetched = client.fetch(&drawn.job).await.expect("another peer has it whole");
        assert_eq!(fetched[0].bytes, drawn.images[0].bytes);
        assert_eq!(fs::read(&file).unwrap(), whole, "it was fetched again");
        assert!(Path::new(&file).with_extension("corrupt").exists(), "nothing is deleted");
    }
    assert!(cluster.log_of(holder).contains("artifact is corrupt on this disk"));
}

fn file_of(cluster: &Cluster, id: u64, artifact: &atelier_client::Artifact) -> std::path::PathBuf {
    cluster.data_of(id).join("artifacts").join(&artifact.digest)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_with_an_emptied_disk_takes_no_part_under_its_old_id() {
    let mut cluster = Cluster::start(Setup { engine: false, ..Setup::default() });
    submit(&cluster.client()).await;
    // Peer 1 would form the cluster; another one would only follow.
    for victim in [1, 2] {
        cluster.kill(victim);
        let (data, aside) = (cluster.data_of(victim), cluster.data_of(victim + 10));
        fs::rename(&data, &aside).unwrap();
        cluster.start_one(victim);
        listening(&cluster, victim).await;
        cluster.unready(victim, "atelier member replace").await;
        submit(&survivor(&cluster, victim)).await;
        assert!(cluster.log_of(victim).contains("its disk was emptied or exchanged"));

        // The old disk is put back.
        cluster.kill(victim);
        fs::remove_dir_all(&data).unwrap();
        fs::rename(&aside, &data).unwrap();
        cluster.start_all();
        cluster.agree().await;
    }
}

async fn listening(cluster: &Cluster, id: u64) {
    let start = Instant::now();
    let address = ("127.0.0.1", cluster.peers[&id].http);
    while tokio::net::TcpStream::connect(address).await.is_err() {
        assert!(start.elapsed() < PATIENCE, "peer {id} does not listen");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
