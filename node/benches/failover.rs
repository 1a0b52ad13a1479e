//! Measures how long the cluster takes no job after it lost its leader, with default settings: to kill -9,
//! to SIGSTOP, and to a network that drops every packet. `make bench-failover` calls it.
//!
//! Each peer has a network namespace of its own. Where that cannot be had, all are on loopback, and the
//! partition is left out and said so.

#[path = "report/mod.rs"]
mod report;
#[path = "../tests/support/mod.rs"]
mod support;

use std::sync::Arc;
use std::time::{Duration, Instant};

use atelier_client::{Client, Options};
use report::{Report, longest, median, seconds};
use support::network::{self, Network};
use support::{Cluster, PATIENCE, Setup, picture};

const PEERS: u64 = 3;
/// Runs of each kind; `RUNS` replaces it.
const RUNS: usize = 20;
/// How long a write may take to come through before the run is given up.
const FAILOVER_MAX: Duration = Duration::from_secs(60);

/// How a leader is lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Loss {
    Kill,
    Freeze,
    Partition,
}

impl Loss {
    fn name(self) -> &'static str {
        match self {
            Loss::Kill => "kill -9",
            Loss::Freeze => "SIGSTOP",
            Loss::Partition => "partition",
        }
    }
}

fn main() {
    let network = match network::enter() {
        Ok(Some(success)) => std::process::exit(i32::from(!success)),
        Ok(None) => Some(Arc::new(Network::new(PEERS))),
        Err(reason) => {
            println!("no partitions: {reason}");
            None
        }
    };
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(measure(network));
}

async fn measure(network: Option<Arc<Network>>) {
    let runs = std::env::var("RUNS").ok().and_then(|runs| runs.parse().ok()).unwrap_or(RUNS);
    let setup = Setup { peers: PEERS, engine: false, network: network.clone(), ..Setup::default() };
    let mut cluster = Cluster::start(setup);
    let mut report = Report::new("Loss of the leader");
    for loss in [Loss::Kill, Loss::Freeze, Loss::Partition] {
        if loss == Loss::Partition && network.is_none() {
            continue;
        }
        let mut times = Vec::new();
        for _ in 0..runs {
            times.push(lose(&mut cluster, loss, network.as_deref()).await);
        }
        let figure = format!("{} of the leader to the next accepted submit", loss.name());
        let value =
            format!("median {}, max {}", seconds(median(&mut times)), seconds(longest(&times)));
        report.row(&figure, value, format!("{} runs, default settings", times.len()));
    }
    report.write();
}

/// Takes the leader away from a cluster in good order, and brings it back.
async fn lose(cluster: &mut Cluster, loss: Loss, network: Option<&Network>) -> Duration {
    let leader = settled(cluster).await;
    let others = cluster.ids().into_iter().filter(|id| *id != leader);
    let survivors: Vec<String> = others.map(|id| cluster.address(id)).collect();
    let start = Instant::now();
    match loss {
        Loss::Kill => cluster.kill(leader),
        Loss::Freeze => cluster.freeze(leader),
        Loss::Partition => network.expect("looked at before").cut(leader),
    }
    let options = Options { deadline: FAILOVER_MAX, retries_max: u32::MAX, ..Options::default() };
    let client = Client::connect(survivors, options).expect("addresses");
    client.submit(&picture("lost leader", 0, 0)).await.expect("the survivors go on");
    let time = start.elapsed();
    match loss {
        Loss::Kill => cluster.start_all(),
        Loss::Freeze => cluster.thaw(leader),
        Loss::Partition => network.expect("looked at before").heal(leader),
    }
    time
}

/// The leader, once every peer follows it and has all that it has: a peer that lags cannot be elected, and
/// losing two peers is another story.
async fn settled(cluster: &Cluster) -> u64 {
    let start = Instant::now();
    loop {
        let leader = cluster.leader().await;
        let mut applied = Vec::new();
        for id in cluster.ids() {
            let status = cluster.client_of(id).status().await.ok();
            let follows = status.filter(|status| status.leader == Some(leader));
            applied.extend(follows.map(|status| status.applied_index));
        }
        if applied.len() == cluster.ids().len() && applied.iter().all(|at| *at == applied[0]) {
            return leader;
        }
        assert!(start.elapsed() < PATIENCE, "the cluster does not come together: {applied:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
