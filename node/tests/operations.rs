//! What operators do to a cluster of real processes under load: restart, hand over, drain, compare, replace, join, recover.

#![allow(clippy::unwrap_used)]

mod support;

use std::fs;

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use atelier_client::{
    Client, Error, JobId, MemberUpdate, NodeId, Options, Phase, Replacement, Role,
};
use support::{Cluster, PATIENCE, Setup, free_ports, patient, picture};
use tempfile::TempDir;
use tokio::task::JoinHandle;

const PROMPT: &str = "a cat on a blue background";
const TOKEN: &str = "a-token-of-the-tests-0123456789";

/// Clients that submit one job after another until they are told to end.
struct Load {
    stop: Arc<AtomicBool>,
    /// The slowest accepted call since it was last looked at, in microseconds.
    slowest_us: Arc<AtomicU64>,
    clients: Vec<JoinHandle<(Vec<JobId>, Vec<Error>)>>,
}

impl Load {
    fn start(cluster: &Cluster, clients: u64, steps: u32, pause: Duration) -> Load {
        let (stop, slowest_us) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let run = |at: u64| {
            let (client, stop, slowest) = (cluster.client(), stop.clone(), slowest_us.clone());
            tokio::spawn(async move {
                let (mut jobs, mut failed) = (Vec::new(), Vec::new());
                let mut seed = at * 1_000_000;
                while !stop.load(Ordering::SeqCst) {
                    let begun = Instant::now();
                    match client.submit(&picture(PROMPT, seed, steps)).await {
                        Ok(accepted) => jobs.push(accepted.job),
                        Err(error) => failed.push(error),
                    }
                    slowest.fetch_max(begun.elapsed().as_micros() as u64, Ordering::SeqCst);
                    seed += 1;
                    tokio::time::sleep(pause).await;
                }
                (jobs, failed)
            })
        };
        Load { clients: (0..clients).map(run).collect(), stop, slowest_us }
    }

    fn slowest_ms(&self) -> f64 {
        self.slowest_us.swap(0, Ordering::SeqCst) as f64 / 1e3
    }

    /// Every accepted job, when no call has failed.
    async fn end(self) -> Vec<JobId> {
        self.stop.store(true, Ordering::SeqCst);
        let mut jobs = Vec::new();
        for client in self.clients {
            let (accepted, failed) = client.await.unwrap();
            assert!(failed.is_empty(), "{} calls failed: {:?}", failed.len(), failed[0]);
            jobs.extend(accepted);
        }
        jobs
    }
}

async fn until<T, F: Future<Output = Option<T>>>(what: &str, look: impl Fn() -> F) -> T {
    let start = Instant::now();
    loop {
        if let Some(found) = look().await {
            return found;
        }
        assert!(start.elapsed() < PATIENCE, "{what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Waits until every peer understands what this build does, so that operators' commands are taken.
async fn level_two(cluster: &Cluster) {
    let client = cluster.client();
    until("feature level 2", || async {
        let status = client.status().await.ok()?;
        (status.features >= 2).then_some(())
    })
    .await;
}

async fn succeed(client: &Client, jobs: &[JobId]) {
    for job in jobs {
        let ended = client.finish(*job, |_| ()).await.expect("an accepted job succeeds");
        assert_eq!((ended.phase, ended.attempts), (Phase::Succeeded, 0), "{ended:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rolling_restart_loses_no_job_and_fails_no_call() {
    let mut cluster = Cluster::start(Setup::default());
    let load = Load::start(&cluster, 4, 6, Duration::from_millis(50));
    // Somebody watches a job through all of it.
    let (client, watched) = (cluster.client(), picture(PROMPT, 77, 50));
    let watcher = tokio::spawn(async move { client.generate(&watched, |_| ()).await });
    for id in cluster.ids() {
        let left = cluster.terminate(id);
        cluster.start_all();
        let slowest = load.slowest_ms();
        println!("peer {id} left in {left:?}; the slowest call took {slowest:.0} ms");
    }
    let jobs = load.end().await;
    let drawn = watcher.await.unwrap().expect("the watched job succeeds");
    assert_eq!(drawn.images.len(), 1);
    println!("{} jobs were accepted", jobs.len());
    let client = cluster.client();
    succeed(&client, &jobs).await;
    assert_eq!(client.jobs(&[], 1).await.unwrap().total, jobs.len() as u64 + 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_planned_transfer_takes_moments_and_fails_no_call() {
    const TRANSFERS: usize = 11;
    let cluster = Cluster::start(Setup { engine: false, ..Setup::default() });
    level_two(&cluster).await;
    let load = Load::start(&cluster, 8, 4, Duration::from_millis(2));
    let client = cluster.client();
    let (mut took, mut held, mut missed) = (Vec::new(), Vec::new(), 0);
    while took.len() < TRANSFERS {
        let before = cluster.leader().await;
        load.slowest_ms();
        let begun = Instant::now();
        match client.transfer_leader(None).await {
            Ok(after) => assert_ne!(after, before),
            // The heir's vote must reach its disk in time; a disk that stalls for a second misses that.
            Err(error) => {
                missed += 1;
                assert!(missed < TRANSFERS, "the lead is not handed over: {error}");
                continue;
            }
        }
        took.push(begun.elapsed().as_millis());
        tokio::time::sleep(Duration::from_millis(200)).await;
        held.push(load.slowest_ms() as u64);
    }
    let jobs = load.end().await;
    took.sort_unstable();
    held.sort_unstable();
    let calls = jobs.len();
    println!("transfers {took:?} ms, {missed} missed; slowest calls {held:?} ms of {calls}");
    // A machine that does much else stretches some of them, not all.
    assert!(took[TRANSFERS / 4] < 100, "transfers take {took:?} ms");
    assert_eq!(client.jobs(&[], 1).await.unwrap().total, jobs.len() as u64);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drained_member_gets_no_jobs_until_it_is_resumed() {
    let cluster = Cluster::start(Setup::default());
    level_two(&cluster).await;
    let client = cluster.client();
    let drain = |draining| MemberUpdate { draining: Some(draining), ..MemberUpdate::default() };
    // The first of equals draws where all are idle.
    let drained = client.set_member(1, &drain(true)).await.expect("drained");
    assert!(drained.draining);
    let mut workers = Vec::new();
    for seed in 0..9 {
        let drawn = client.generate(&picture(PROMPT, seed, 0), |_| ()).await.unwrap();
        workers.push(drawn.job.node.unwrap());
    }
    assert!(!workers.contains(&1), "{workers:?}");
    // It hands the lead on by itself, should it have it.
    until("another one leads", || async { (cluster.leader().await != 1).then_some(()) }).await;

    let resumed = client.set_member(1, &drain(false)).await.expect("resumed");
    assert!(!resumed.draining);
    until("it draws again", || async {
        let drawn = client.generate(&picture(PROMPT, 5, 0), |_| ()).await.unwrap();
        (drawn.job.node == Some(1)).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_peer_has_the_same_state_at_a_mark_and_takes_a_snapshot() {
    let cluster = Cluster::start(Setup { engine: false, ..Setup::default() });
    level_two(&cluster).await;
    let load = Load::start(&cluster, 4, 4, Duration::from_millis(2));
    let mut digests = Vec::new();
    for _ in 0..5 {
        let mark = cluster.client().place_mark().await.expect("a mark");
        for id in cluster.ids() {
            let told = cluster.client_of(id).digest_at(mark).await.expect("a digest");
            assert_eq!(told.node, id);
            digests.push((mark, told.state_digest));
        }
    }
    load.end().await;
    digests.dedup();
    assert_eq!(digests.len(), 5, "one digest a mark: {digests:?}");
    let unknown = cluster.client_of(1).digest_at(1).await;
    assert!(matches!(unknown, Err(Error::NotFound { .. })), "{unknown:?}");
    for id in cluster.ids() {
        let taken = cluster.client_of(id).take_snapshot().await.expect("a snapshot");
        assert!(taken.log_index >= digests[4].0 && taken.bytes > 0, "{taken:?}");
    }
}

/// A process beside the cluster's own, with its own configuration.
struct Newcomer {
    directory: TempDir,
    grpc: u16,
    http: u16,
    child: Option<Child>,
}

impl Newcomer {
    fn new() -> Newcomer {
        let ports = free_ports(2);
        let directory = tempfile::tempdir().unwrap();
        Newcomer { directory, grpc: ports[0], http: ports[1], child: None }
    }

    fn address(&self) -> String {
        format!("http://127.0.0.1:{}", self.grpc)
    }

    /// Starts it with these words besides.
    fn start(&mut self, words: &[&str]) {
        let log = fs::File::options().append(true).create(true).open(self.log()).unwrap();
        let model = Setup::default().model;
        let child = Command::new(env!("CARGO_BIN_EXE_atelierd"))
            .args(["start", "--backend", "cpu", "--set", "jobs.lease_ms=2000"])
            .args(["--grpc", &format!("127.0.0.1:{}", self.grpc)])
            .args(["--http", &format!("127.0.0.1:{}", self.http)])
            .arg("--data")
            .arg(self.directory.path().join("data"))
            .arg("--model")
            .arg(model)
            .args(words)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        self.child = Some(child);
    }

    fn log(&self) -> PathBuf {
        self.directory.path().join("log")
    }

    /// Waits until it has ended by itself, and returns its code and its last words.
    fn ended(&mut self) -> (Option<i32>, String) {
        let status = self.child.take().unwrap().wait().unwrap();
        (status.code(), fs::read_to_string(self.log()).unwrap())
    }
}

impl Drop for Newcomer {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
        if std::thread::panicking() {
            let log = fs::read_to_string(self.log()).unwrap_or_default();
            eprintln!("--- log of the newcomer\n{log}");
        }
    }
}

async fn member(client: &Client, address: &str) -> Option<atelier_client::Member> {
    client.members().await.ok()?.into_iter().find(|member| member.address == address)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_joins_by_the_token_and_gets_a_vote() {
    let token = format!("cluster_token = \"{TOKEN}\"");
    let cluster = Cluster::start(Setup { more: token, ..Setup::default() });
    let client = cluster.client();
    let through = cluster.address(2);

    let mut stranger = Newcomer::new();
    stranger.start(&["--join", &through, "--token", "another-token-0123456789"]);
    let (code, log) = stranger.ended();
    assert_eq!(code, Some(1), "{log}");
    assert!(log.contains("this is not the cluster's token"), "{log}");

    let mut newcomer = Newcomer::new();
    let words = ["--join", &through, "--token", TOKEN, "--promote"];
    newcomer.start(&words);
    let came = until("it has a vote", || async {
        member(&client, &newcomer.address()).await.filter(|one| one.role == Role::Voter)
    })
    .await;
    assert!(came.node > 3, "ids are never used again");
    // It can draw, and is the same node when it comes back.
    until("it can draw", || async {
        member(&client, &newcomer.address()).await.filter(|one| one.slots > 0)
    })
    .await;
    let mut child = newcomer.child.take().unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
    newcomer.start(&words);
    until("it answers again", || async {
        let options = Options { learn_members: false, ..patient() };
        let client = Client::connect([newcomer.address()], options).unwrap();
        client.status().await.ok().filter(|status| status.node == came.node)
    })
    .await;
    assert_eq!(client.members().await.unwrap().len(), 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_member_is_replaced_by_one_change() {
    let token = format!("cluster_token = \"{TOKEN}\"");
    let mut cluster = Cluster::start(Setup { more: token, ..Setup::default() });
    let load = Load::start(&cluster, 2, 4, Duration::from_millis(50));
    cluster.kill(3);
    let client = cluster.client();
    let mut newcomer = Newcomer::new();
    newcomer.start(&["--join", &cluster.address(1), "--token", TOKEN]);
    let comes: NodeId = until("it is let in", || async {
        member(&client, &newcomer.address()).await.map(|member| member.node)
    })
    .await;
    let swap = Replacement::Learner(comes);
    let member = client.replace_member(3, &swap, "its disk is broken").await.expect("replaced");
    assert_eq!((member.node, member.role), (comes, Role::Voter));
    let ids: Vec<NodeId> = client.members().await.unwrap().iter().map(|one| one.node).collect();
    assert_eq!(ids, [1, 2, comes]);
    let jobs = load.end().await;
    succeed(&client, &jobs).await;

    // The dead one comes back, and learns what happened; so does one that is removed while it runs.
    let (code, log) = cluster.start_until_it_ends(3);
    assert_eq!(code, Some(1), "{log}");
    assert!(log.contains("node 3 was removed from cluster"), "{log}");
    client.remove_member(comes, "it has to go as well").await.expect("removed");
    let (code, log) = newcomer.ended();
    assert_eq!(code, Some(1), "{log}");
    assert!(log.contains(&format!("node {comes} was removed from cluster")), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_witness_votes_draws_nothing_and_hands_the_lead_on() {
    let mut cluster = Cluster::start(Setup::default());
    cluster.terminate(3);
    cluster.configure(3, "witness = true", "enabled = false");
    cluster.start_all();
    level_two(&cluster).await;
    let client = cluster.client();
    let known = until("it is known as a witness", || async {
        let members = client.members().await.ok()?;
        members.into_iter().find(|member| member.node == 3 && member.witness)
    })
    .await;
    assert_eq!((known.role, known.slots), (Role::Voter, 0));
    client.transfer_leader(Some(3)).await.expect("it may lead for a while");
    until("it hands the lead on", || async { (cluster.leader().await != 3).then_some(()) }).await;
    let drawn = client.generate(&picture(PROMPT, 5, 0), |_| ()).await.unwrap();
    assert_ne!(drawn.job.node, Some(3));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_survivor_is_recovered_and_the_lost_never_come_back() {
    let token = format!("cluster_token = \"{TOKEN}\"");
    let mut cluster = Cluster::start(Setup { more: token, ..Setup::default() });
    let client = cluster.client();
    let done = client.generate(&picture(PROMPT, 1, 0), |_| ()).await.unwrap();
    let mut jobs = Vec::new();
    for seed in 0..12 {
        jobs.push(client.submit(&picture(PROMPT, seed, 50)).await.unwrap().job);
    }
    let survivor = 2;
    until("the survivor has them all", || async {
        let known = cluster.client_of(survivor).status().await.ok()?;
        (known.queued + known.leased + known.terminal == 13).then_some(())
    })
    .await;
    for lost in [1, 3] {
        cluster.kill(lost);
    }
    // What it has applied may be on the disks of the other two alone, until its own has it too.
    cluster.terminate(survivor);

    let recover = |words: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_atelierd"))
            .args(["recover", "--reason", "two machines burnt", "--config"])
            .arg(cluster.config(survivor))
            .args(words)
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        (output.status.code(), text + &String::from_utf8_lossy(&output.stderr))
    };
    assert_eq!(recover(&[]).0, Some(4), "it must be said");
    let (code, text) = recover(&["--dry-run"]);
    assert_eq!(code, Some(0), "{text}");
    assert!(text.contains("LOST, if there was any"), "{text}");
    let (code, text) = recover(&["--majority-is-lost"]);
    assert_eq!(code, Some(0), "{text}");
    println!("{text}");
    let (code, text) = recover(&["--majority-is-lost"]);
    assert_eq!(code, Some(1), "a second time there is nothing to recover: {text}");

    cluster.start_these(&[survivor]);
    let alone = cluster.client_of(survivor);
    let again = alone.job(done.job.job).await.unwrap();
    assert_eq!(again.phase, Phase::Succeeded);
    succeed(&alone, &jobs).await;
    let status = alone.status().await.unwrap();
    assert!(status.cluster.starts_with("test@1-"), "{}", status.cluster);
    assert_eq!(status.members.len(), 1);

    // An old peer is told why, and ends.
    for lost in [1, 3] {
        let (code, log) = cluster.start_until_it_ends(lost);
        assert_eq!(code, Some(1), "{log}");
        assert!(log.contains("was recovered as `test@1-"), "{log}");
    }
    two_newcomers_vote(&alone, &cluster.address(survivor)).await;
}

/// Of two voters both are needed, so the first newcomer waits for the second one.
async fn two_newcomers_vote(alone: &Client, through: &str) {
    let mut newcomers = [Newcomer::new(), Newcomer::new()];
    let words = ["--join", through, "--token", TOKEN, "--promote"];
    newcomers[0].start(&words);
    let first = until("a new peer joins and can draw", || async {
        member(alone, &newcomers[0].address()).await.filter(|one| one.slots > 0)
    })
    .await;
    assert!(first.node > 3, "ids are never used again");
    assert_eq!(first.role, Role::Learner);
    newcomers[1].start(&words);
    for newcomer in &newcomers {
        until("it has a vote", || async {
            member(alone, &newcomer.address()).await.filter(|one| one.role == Role::Voter)
        })
        .await;
    }
}
