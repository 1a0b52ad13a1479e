//! Artifacts: on a disk, between peers over the loopback, and out of the way when nobody names
//! them.

use crate::support::*;
use atelier_peer::artifacts::{
    ARTIFACT_BYTES_MAX, ArtifactParts, ArtifactSettings, Artifacts, DirectoryShelf, FetchError,
    KeepError,
};
use atelier_peer::liveness::LivenessTable;
use atelier_peer::parameters::{Source, TextToImage};
use atelier_peer::ports::Log;
use atelier_peer::ports::shelf::{MemoryShelf, Shelf, ShelfError};
use atelier_state::{
    ArtifactRef, Assign, Cancel, Command, Complete, Digest, FencingToken, JobId, NodeId,
    RegisterNode, Reply, Submit,
};
use bytes::Bytes;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use tokio_util::sync::CancellationToken;

fn digest_of(bytes: &[u8]) -> Digest {
    Digest(*blake3::hash(bytes).as_bytes())
}

fn picture(seed: u8, bytes: usize) -> Bytes {
    (0..bytes).map(|at| (at as u8).wrapping_mul(31).wrapping_add(seed)).collect::<Vec<_>>().into()
}

/// What every shelf promises.
async fn contract(shelf: &dyn Shelf) {
    let (cat, dog) = (picture(1, 1000), picture(2, 300_000));
    assert_eq!(shelf.get(digest_of(&cat)).await, Ok(None));
    assert_eq!(shelf.has(digest_of(&cat)).await, Ok(false));
    for bytes in [&cat, &dog, &cat, &Bytes::new()] {
        shelf.put(digest_of(bytes), bytes.clone()).await.unwrap();
        assert_eq!(shelf.get(digest_of(bytes)).await, Ok(Some(bytes.clone())));
        assert_eq!(shelf.has(digest_of(bytes)).await, Ok(true));
    }
    let mut expected = [digest_of(&cat), digest_of(&dog), digest_of(b"")];
    expected.sort();
    let listed = shelf.list().await.unwrap();
    assert!(listed.iter().all(|(_, age)| *age < Duration::from_secs(5)), "{listed:?}");
    assert_eq!(listed.iter().map(|(digest, _)| *digest).collect::<Vec<_>>(), expected);
    shelf.remove(digest_of(&cat)).await.unwrap();
    shelf.remove(digest_of(&cat)).await.unwrap();
    assert_eq!(shelf.get(digest_of(&cat)).await, Ok(None));
}

#[tokio::test]
async fn both_shelves_keep_the_contract() {
    contract(&MemoryShelf::new(TestClock::new(WALL_MS))).await;
    let directory = tempfile::tempdir().unwrap();
    contract(&DirectoryShelf::open(directory.path().join("artifacts")).unwrap()).await;
}

#[tokio::test]
async fn a_directory_outlives_its_process_and_drops_what_was_unfinished() {
    let directory = tempfile::tempdir().unwrap();
    let cat = picture(1, 1000);
    let shelf = DirectoryShelf::open(directory.path()).unwrap();
    shelf.put(digest_of(&cat), cat.clone()).await.unwrap();
    let unfinished = directory.path().join("abc-0.unfinished");
    std::fs::write(&unfinished, b"half").unwrap();
    std::fs::write(directory.path().join("notes.txt"), b"mine").unwrap();
    drop(shelf);
    let shelf = DirectoryShelf::open(directory.path()).unwrap();
    assert_eq!(shelf.get(digest_of(&cat)).await, Ok(Some(cat.clone())));
    assert!(!unfinished.exists());
    assert!(directory.path().join("notes.txt").exists(), "what is not ours is left alone");
    assert_eq!(shelf.list().await.unwrap().len(), 1);
}

#[tokio::test]
async fn corrupt_bytes_are_set_aside_and_never_served() {
    let directory = tempfile::tempdir().unwrap();
    let shelf = DirectoryShelf::open(directory.path()).unwrap();
    let cat = picture(1, 1000);
    let digest = digest_of(&cat);
    shelf.put(digest, cat.clone()).await.unwrap();
    let path = spoil(directory.path(), digest);
    assert!(matches!(shelf.get(digest).await, Err(ShelfError::Corrupt(_))));
    assert!(!path.exists());
    assert!(path.with_extension("corrupt").exists(), "kept for whoever looks into it");
    assert_eq!(shelf.get(digest).await, Ok(None));
    assert_eq!(shelf.list().await, Ok(Vec::new()));
    // Another put mends it, even where nobody has noticed yet.
    shelf.put(digest, cat.clone()).await.unwrap();
    spoil(directory.path(), digest);
    shelf.put(digest, cat.clone()).await.unwrap();
    assert_eq!(shelf.get(digest).await, Ok(Some(cat)));
}

/// Flips one bit of an artifact on a disk.
fn spoil(directory: &Path, digest: Digest) -> PathBuf {
    let path = directory.join(digest.to_string());
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[500] ^= 1;
    std::fs::write(&path, bytes).unwrap();
    path
}

#[tokio::test]
async fn a_repeat_makes_an_artifact_young_again() {
    let directory = tempfile::tempdir().unwrap();
    let shelf = DirectoryShelf::open(directory.path()).unwrap();
    let cat = picture(1, 1000);
    shelf.put(digest_of(&cat), cat.clone()).await.unwrap();
    age(directory.path(), digest_of(&cat));
    assert!(shelf.list().await.unwrap()[0].1 > Duration::from_secs(7000));
    shelf.put(digest_of(&cat), cat.clone()).await.unwrap();
    assert!(shelf.list().await.unwrap()[0].1 < Duration::from_secs(60));
}

/// Makes an artifact two hours old.
fn age(directory: &Path, digest: Digest) {
    let file = std::fs::File::options().write(true).open(directory.join(digest.to_string()));
    file.unwrap().set_modified(SystemTime::now() - Duration::from_secs(7200)).unwrap();
}

// ------------------------------------------------------------------------------- over the loopback

struct Disk {
    directory: tempfile::TempDir,
    peer: Arc<TestPeer>,
}

/// Peers with disks that hear one another; those of `deaf` do not listen.
async fn disks(count: u64, deaf: &[u64]) -> (Arc<PerfectCluster>, Vec<Disk>) {
    let cluster = PerfectCluster::new(Leads::One(NodeId(1)));
    let mut disks = Vec::new();
    for node in 1..=count {
        let (listener, address) = listener().await;
        let directory = tempfile::tempdir().unwrap();
        let shelf = Arc::new(DirectoryShelf::open(directory.path()).unwrap());
        let clock = TestClock::new(WALL_MS);
        let log = cluster.log_at(node, &address);
        let peer = TestPeer::with(log, clock, shelf, LivenessTable::new(LEASE));
        if !deaf.contains(&node) {
            peer.serve(listener);
        }
        disks.push(Disk { directory, peer });
    }
    (cluster, disks)
}

impl Disk {
    fn has(&self, digest: Digest) -> bool {
        self.directory.path().join(digest.to_string()).exists()
    }
}

async fn end(disks: Vec<Disk>) {
    for disk in disks {
        disk.peer.end().await;
    }
}

#[tokio::test]
async fn an_artifact_is_on_two_disks_before_it_is_named_and_anybody_can_fetch_it() {
    let (_cluster, disks) = disks(3, &[]).await;
    // More than one chunk, and not a whole number of them.
    let cat = picture(1, 700_001);
    let kept = disks[0].peer.artifacts.keep(cat.clone()).await.unwrap();
    assert_eq!(kept.digest, digest_of(&cat));
    assert_eq!((kept.holders.len(), kept.holders[0]), (2, NodeId(1)));
    for (node, disk) in (1..).zip(&disks) {
        assert_eq!(disk.has(kept.digest), kept.holders.contains(&NodeId(node)));
        assert_eq!(disk.peer.artifacts.fetch(kept.digest).await, Ok(cat.clone()));
    }
    // The next ones go elsewhere: copies spread.
    let next = disks[0].peer.artifacts.keep(picture(2, 10)).await.unwrap();
    assert_ne!(next.holders, kept.holders);
    let nothing = digest_of(b"never made");
    assert_eq!(disks[2].peer.artifacts.fetch(nothing).await, Err(FetchError::NotFound(nothing)));
    end(disks).await;
}

#[tokio::test]
async fn a_dead_peer_is_passed_over_and_fewer_copies_are_better_than_none() {
    let (_cluster, disks3) = disks(3, &[2]).await;
    for seed in 0..3 {
        let kept = disks3[0].peer.artifacts.keep(picture(seed, 100)).await.unwrap();
        assert_eq!(kept.holders, [NodeId(1), NodeId(3)]);
    }
    let nothing = digest_of(b"never made");
    let missing = disks3[0].peer.artifacts.fetch(nothing).await;
    assert_eq!(missing, Err(FetchError::Unavailable { digest: nothing, silent: 1 }));
    end(disks3).await;

    let (_cluster, lonely) = disks(3, &[2, 3]).await;
    let asked = std::time::Instant::now();
    let kept = lonely[0].peer.artifacts.keep(picture(9, 100)).await.unwrap();
    assert_eq!(kept.holders, [NodeId(1)]);
    assert!(asked.elapsed() < Duration::from_secs(4), "{:?}", asked.elapsed());
    end(lonely).await;
}

#[tokio::test]
async fn a_peer_that_hangs_costs_one_call_and_then_nothing() {
    let (cluster, disks) = disks(2, &[]).await;
    // It accepts connections and never says a word.
    let (_mute, address) = listener().await;
    cluster.log_at(3, &address);
    let asked = std::time::Instant::now();
    for seed in 0..6 {
        let kept = disks[0].peer.artifacts.keep(picture(seed, 100)).await.unwrap();
        assert_eq!(kept.holders, [NodeId(1), NodeId(2)]);
    }
    let nothing = digest_of(b"never made");
    let missing = disks[0].peer.artifacts.fetch(nothing).await;
    assert_eq!(missing, Err(FetchError::Unavailable { digest: nothing, silent: 1 }));
    // A second for the first copy that met it, a second for the fetch.
    let elapsed = asked.elapsed();
    assert!(elapsed < Duration::from_millis(2900), "{elapsed:?}");
    end(disks).await;
}

#[tokio::test]
async fn what_is_corrupt_here_comes_from_another_disk_and_is_mended() {
    let (_cluster, disks) = disks(2, &[]).await;
    let cat = picture(1, 5000);
    let kept = disks[0].peer.artifacts.keep(cat.clone()).await.unwrap();
    assert_eq!(kept.holders.len(), 2);
    spoil(disks[0].directory.path(), kept.digest);
    assert_eq!(disks[0].peer.artifacts.fetch(kept.digest).await, Ok(cat.clone()));
    assert_eq!(disks[0].peer.artifacts.here(kept.digest).await, Ok(Some(cat.clone())));
    // Where both are corrupt there is nothing, rather than something wrong.
    spoil(disks[0].directory.path(), kept.digest);
    spoil(disks[1].directory.path(), kept.digest);
    let fetched = disks[0].peer.artifacts.fetch(kept.digest).await;
    assert_eq!(fetched, Err(FetchError::Unavailable { digest: kept.digest, silent: 1 }));
    end(disks).await;
}

#[tokio::test]
async fn bytes_that_are_not_what_they_claim_are_refused() {
    let (_cluster, disks) = disks(2, &[]).await;
    let artifacts = &disks[0].peer.artifacts;
    let claimed = digest_of(b"a cat");
    let refused = artifacts.put_as(claimed, Bytes::from_static(b"a dog")).await;
    let got = digest_of(b"a dog");
    assert_eq!(refused, Err(KeepError::Digest { expected: claimed, got }));
    assert!(!disks[0].has(claimed));
    let huge = Bytes::from(vec![0; ARTIFACT_BYTES_MAX + 1]);
    assert_eq!(artifacts.put(huge).await, Err(KeepError::TooLarge(ARTIFACT_BYTES_MAX + 1)));
    end(disks).await;
}

#[tokio::test]
async fn a_peer_of_another_cluster_keeps_nothing() {
    let (_cluster, disks) = disks(2, &[]).await;
    let parts = ArtifactParts {
        shelf: Arc::new(MemoryShelf::new(disks[0].peer.clock.clone())),
        lines: disks[0].peer.lines.clone(),
        status: disks[0].peer.log.status(),
        view: disks[0].peer.log.view(),
        clock: disks[0].peer.clock.clone(),
    };
    let stranger = Artifacts::new(parts, ArtifactSettings::new("another"));
    let kept = stranger.keep(picture(1, 10)).await.unwrap();
    assert_eq!(kept.holders, [NodeId(1)]);
    assert!(!disks[1].has(kept.digest));
    end(disks).await;
}

#[tokio::test]
async fn only_what_is_old_and_unnamed_is_collected() {
    let (cluster, disks) = disks(1, &[]).await;
    let (disk, artifacts) = (&disks[0], &disks[0].peer.artifacts);
    let mut digests = Vec::new();
    for seed in 0..3 {
        digests.push(artifacts.put(picture(seed, 100)).await.unwrap());
    }
    let [named, unnamed, young] = digests[..] else { unreachable!("three were put") };
    let begun_from = artifacts.put(picture(3, 100)).await.unwrap();
    name(&cluster, named);
    for old in [named, unnamed, begun_from] {
        age(disk.directory.path(), old);
    }
    let source = Source { image: begun_from, strength: 0.5, mask: None };
    let wanted = TextToImage { source: Some(source), ..TextToImage::default() };
    let (kind, parameters) = (wanted.kind().into(), wanted.encode());
    cluster.apply(Command::Submit(Submit { kind, parameters, ..submit(2) }));

    // Without a leader the view may be behind: nothing is judged by it.
    cluster.lead(Leads::Nobody);
    assert_eq!(artifacts.collect().await, Ok(0));
    cluster.lead(Leads::One(NodeId(1)));
    assert_eq!(artifacts.collect().await, Ok(1));
    assert!(disk.has(named) && disk.has(young) && !disk.has(unnamed));
    assert!(disk.has(begun_from), "a job that waits begins from it");

    let cancel = Cancel { job: JobId(2), reason: String::new(), finished_ms: 0 };
    cluster.apply(Command::Cancel(cancel));
    assert_eq!(artifacts.collect().await, Ok(0), "as long as the job is remembered");
    let forget = atelier_state::Forget { jobs: vec![JobId(1), JobId(2)] };
    assert_eq!(cluster.apply(Command::Forget(forget)), Reply::Done);
    assert_eq!(artifacts.collect().await, Ok(2));
    assert!(!disk.has(named) && !disk.has(begun_from) && disk.has(young));
    end(disks).await;
}

#[tokio::test(start_paused = true)]
async fn nothing_is_collected_until_a_leader_was_known_throughout() {
    let cluster = PerfectCluster::new(Leads::One(NodeId(1)));
    let peer = TestPeer::new(cluster.log_at(1, "http://127.0.0.1:1"));
    let shelf = MemoryShelf::new(peer.clock.clone());
    let parts = ArtifactParts {
        shelf: Arc::new(shelf.clone()),
        lines: peer.lines.clone(),
        status: peer.log.status(),
        view: peer.log.view(),
        clock: peer.clock.clone(),
    };
    let seconds = Duration::from_secs;
    let settings = ArtifactSettings {
        unnamed_kept: Duration::ZERO,
        collect_every: seconds(300),
        ..ArtifactSettings::new(CLUSTER)
    };
    let artifacts = Arc::new(Artifacts::new(parts, settings));
    let digest = artifacts.put(picture(1, 10)).await.unwrap();
    let stop = CancellationToken::new();
    let collector = tokio::spawn(artifacts.run_collector(stop.clone()));
    let is_there = async || shelf.has(digest).await == Ok(true);
    tokio::time::sleep(seconds(200)).await;
    cluster.lead(Leads::Nobody);
    tokio::time::sleep(seconds(200)).await;
    cluster.lead(Leads::One(NodeId(1)));
    tokio::time::sleep(seconds(250)).await;
    assert!(is_there().await, "a worker may only now say what it has drawn");
    tokio::time::sleep(seconds(51)).await;
    assert!(!is_there().await);
    stop.cancel();
    collector.await.unwrap();
}

#[tokio::test]
async fn a_copy_whose_holder_is_gone_is_replaced_once() {
    let (cluster, disks) = disks(3, &[]).await;
    let cat = picture(1, 5000);
    let digest = disks[0].peer.artifacts.put(cat.clone()).await.unwrap();
    let copies = || disks.iter().filter(|disk| disk.has(digest)).count();
    assert_eq!(disks[0].peer.artifacts.replace_lost().await, Ok(0), "no job names it");
    name_held(&cluster, digest, vec![NodeId(9), NodeId(1)]);
    assert_eq!(disks[1].peer.artifacts.replace_lost().await, Ok(0), "it is not the holder");
    cluster.lead(Leads::Nobody);
    assert_eq!(
        disks[0].peer.artifacts.replace_lost().await,
        Ok(0),
        "who the members are is not known"
    );
    cluster.lead(Leads::One(NodeId(1)));
    assert_eq!((copies(), disks[0].peer.artifacts.replace_lost().await), (1, Ok(1)));
    assert_eq!(copies(), 2);
    assert_eq!((disks[0].peer.artifacts.replace_lost().await, copies()), (Ok(0), 2));
    end(disks).await;
}

fn name(cluster: &PerfectCluster, digest: Digest) {
    name_held(cluster, digest, vec![NodeId(1)]);
}

/// Completes a job with this artifact.
fn name_held(cluster: &PerfectCluster, digest: Digest, holders: Vec<NodeId>) {
    let register = RegisterNode {
        node: NodeId(1),
        address: "http://127.0.0.1:1".to_owned(),
        incarnation: 1,
        slots: 1,
        class: String::new(),
        model: String::new(),
        witness: false,
    };
    cluster.apply(Command::RegisterNode(register));
    cluster.apply(Command::Submit(submit(1)));
    let assign = Assign { job: JobId(1), node: NodeId(1), incarnation: 1 };
    let Reply::Assigned { token: FencingToken(token) } = cluster.apply(Command::Assign(assign))
    else {
        panic!("not assigned");
    };
    let artifact = ArtifactRef { digest, bytes: 100, media_type: "image/png".to_owned(), holders };
    let complete = Complete {
        job: JobId(1),
        token: FencingToken(token),
        artifacts: vec![artifact],
        finished_ms: 1,
    };
    assert_eq!(cluster.apply(Command::Complete(complete)), Reply::Done);
}
