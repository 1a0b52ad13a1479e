//! What a million ended jobs cost that are remembered: memory, disk, and the time of a start.

use std::time::{Duration, Instant};

use tokio::net::TcpStream;

use crate::queue::{drained, fill, number, one_peer, own, set, until};
use crate::report::{Report, longest, seconds};
use crate::sample::{Sample, mib};
use crate::support::{Cluster, PATIENCE};
use crate::{extent, instant, write};

/// As many as the setting `retention.jobs` takes.
const JOBS: u64 = 1_000_000;
/// Jobs that wait at a time while they are drawn.
const WAITING_MAX: u64 = 20_000;
/// Between two looks at a peer that starts.
const LOOK: Duration = Duration::from_millis(5);
const START_MAX: Duration = Duration::from_secs(10);
const RESIDENT_MAX: u64 = 3 << 29;

const ABOUT: &str = "\
    Written by `make bench-endurance ONLY=retained`: three peers with an instant engine on \
    loopback; jobs of 256 bytes are submitted in batches, drawn, each with a result of its own, \
    and all remembered. A start is counted from the new process to 200 of `/readyz`.";

pub(crate) async fn measure() {
    let (jobs, short) = extent("JOBS", JOBS);
    assert!(jobs <= JOBS, "JOBS={jobs}: expected at most {JOBS}, the bound of retention.jobs");
    let mut cluster = Cluster::start(instant());
    let client = cluster.client();
    set(&client, &[("retention.jobs", number(JOBS))]).await;
    let begun = Instant::now();
    fill(&client, jobs, WAITING_MAX, own).await;
    drained(&client).await;
    let elapsed = begun.elapsed();
    let mut report = Report::new("A million retained").about(ABOUT);
    let rate = format!("{:.0}/s", jobs as f64 / elapsed.as_secs_f64());
    let beside = format!("{jobs} jobs in {}, submitted and drawn", seconds(elapsed));
    report.row("jobs until all are there", rate, beside);
    remembered(&cluster, jobs).await;
    statuses(&mut report, &cluster).await;

    let before = sizes(&mut report, &cluster, "").await;
    starts(&mut report, &mut cluster, jobs).await;
    let after = sizes(&mut report, &cluster, "after its start: ").await;
    let most = before.max(after);
    let beside = target(most < RESIDENT_MAX, &mib(RESIDENT_MAX));
    report.row("most resident memory of a peer", mib(most), beside);
    write(&report, short);
}

/// Waits until every peer has them all. Their statuses would tell by a digest of the whole state.
async fn remembered(cluster: &Cluster, jobs: u64) {
    for id in cluster.ids() {
        let client = one_peer(cluster, id);
        until(&client, "a peer lags", |stats| stats.succeeded == jobs).await;
    }
}

/// A status has a digest of the whole state.
async fn statuses(report: &mut Report, cluster: &Cluster) {
    let mut times = Vec::new();
    for id in cluster.ids() {
        let begun = Instant::now();
        one_peer(cluster, id).status().await.expect("the peer answers");
        times.push(begun.elapsed());
    }
    report.row("one call of `status`", seconds(longest(&times)), "the slowest peer".to_owned());
}

async fn leader(cluster: &Cluster) -> u64 {
    let begun = Instant::now();
    loop {
        let members = cluster.client().members().await.expect("some peer answers");
        if let Some(leader) = members.iter().find(|member| member.leader) {
            return leader.node;
        }
        assert!(begun.elapsed() < PATIENCE, "no leader: {members:?}");
        tokio::time::sleep(LOOK).await;
    }
}

/// What each peer takes; returns the most resident bytes.
async fn sizes(report: &mut Report, cluster: &Cluster, when: &str) -> u64 {
    let leader = leader(cluster).await;
    let mut most = 0;
    for id in cluster.ids() {
        let sample = Sample::of(cluster, id).await;
        let role = if id == leader { "leader" } else { "follower" };
        let value = format!("{} resident", mib(sample.resident));
        let beside = format!(
            "directory {}, of it log {} and state {}; snapshot {}",
            mib(sample.directory),
            mib(sample.log),
            mib(sample.state),
            mib(sample.snapshot)
        );
        report.row(&format!("{when}peer {id}, {role}"), value, beside);
        most = most.max(sample.resident);
    }
    most
}

/// A follower leaves and comes back, the leader is killed and comes back, and then all at once.
async fn starts(report: &mut Report, cluster: &mut Cluster, jobs: u64) {
    let leads = leader(cluster).await;
    let follower = cluster.ids().into_iter().find(|id| *id != leads).expect("there are three");
    cluster.terminate(follower);
    let times = started(cluster, &[follower]).await;
    tell(report, "a follower that had left by SIGTERM", &times);
    remembered(cluster, jobs).await;

    let leads = leader(cluster).await;
    cluster.kill(leads);
    let times = started(cluster, &[leads]).await;
    tell(report, "the leader after kill -9", &times);
    remembered(cluster, jobs).await;

    cluster.kill_all();
    let times = started(cluster, &cluster.ids()).await;
    tell(report, "the slowest of all three after kill -9 of all", &times);
    remembered(cluster, jobs).await;
}

/// Starts peers side by side; how long each took until it served.
async fn started(cluster: &mut Cluster, ids: &[u64]) -> Vec<Duration> {
    let begun = Instant::now();
    ids.iter().for_each(|id| cluster.start_one(*id));
    let mut times = Vec::new();
    let mut waiting = ids.to_vec();
    while !waiting.is_empty() {
        for id in std::mem::take(&mut waiting) {
            if serves(cluster, id).await { times.push(begun.elapsed()) } else { waiting.push(id) }
        }
        assert!(begun.elapsed() < PATIENCE, "{waiting:?} do not start");
        tokio::time::sleep(LOOK).await;
    }
    times
}

async fn serves(cluster: &Cluster, id: u64) -> bool {
    let listens = TcpStream::connect(("127.0.0.1", cluster.peers[&id].http)).await.is_ok();
    listens && cluster.get(id, "/readyz").await.0 == 200
}

fn tell(report: &mut Report, what: &str, times: &[Duration]) {
    let beside = target(longest(times) < START_MAX, &seconds(START_MAX));
    report.row(&format!("start to ready: {what}"), seconds(longest(times)), beside);
}

fn target(met: bool, bound: &str) -> String {
    format!("the target of less than {bound} is {}", if met { "met" } else { "not met" })
}
