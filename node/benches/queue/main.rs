//! The queue beside etcd, RabbitMQ and NATS, in one run on one machine: `make bench-queue`.
//!
//! Writes its own section of `node/BENCH.md`. Every system has three nodes on loopback, and all of
//! them share the machine's cores with the clients. `ONLY=etcd,atelier` runs some of the systems,
//! `ROUNDS=1` shortens the run; then nothing is written.

#[path = "../../../client/src/cli/bench/load.rs"]
#[allow(dead_code, unused_imports, reason = "its tests run with the command line")]
mod load;
#[path = "../report/mod.rs"]
mod report;
#[path = "../../tests/support/mod.rs"]
mod support;

mod calls;
mod peer;
mod rivals;
mod table;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use atelier_client::{Client, Submission, TextToImage};
use calls::{BYTES, Consumed, Etcd, Nats, Rabbit};
use load::{Figures, Limit};
use rivals::Processes;
use support::{Cluster, Setup};
use table::Table;

/// Clients, and the calls of each. In all less than the jobs that may wait in Atelier's queue.
const LEVELS: [(usize, u64); 3] = [(1, 1_500), (64, 140), (512, 18)];
/// For a whole life of a job or a message; nothing is left waiting, so it may go on.
const CYCLES: [(usize, u64); 2] = [(64, 140), (512, 36)];
/// Connections to a node at most, for every system; further clients share them.
const CONNECTIONS_MAX: usize = 64;
/// Clients of Atelier's library; callers share one as they would in a program, which makes calls of
/// theirs that meet one call.
const ATELIER_CLIENTS_MAX: usize = 4;
/// The table tells of the round whose rate is in the middle.
const ROUNDS: usize = 3;
/// Jobs that a peer with an instant engine holds at a time.
const SLOTS: u32 = 64;

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Work {
    /// A record is durable on a majority.
    Accept,
    /// It was taken by a worker and acknowledged, too.
    Cycle,
}

/// As in the daemon, whose part this program plays too.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    if arguments.get(1).is_some_and(|word| word == "start") {
        return peer::run(Path::new(arguments.last().expect("the path of a configuration")));
    }
    let only = std::env::var("ONLY").unwrap_or_default();
    let rounds = std::env::var("ROUNDS").ok().and_then(|text| text.parse().ok());
    let wanted = |system: &str| only.is_empty() || only.split(',').any(|one| one == system);
    let mut table = Table::new(rounds.unwrap_or(ROUNDS));
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(async {
        if wanted("atelier") {
            atelier(&mut table).await;
        }
        if wanted("etcd") {
            etcd(&mut table).await;
        }
        if wanted("rabbitmq") {
            rabbitmq(&mut table).await;
        }
        if wanted("nats") {
            nats(&mut table).await;
        }
    });
    table.write(only.is_empty() && rounds.is_none());
}

/// So many of these, the first ones again and again.
fn shared<C>(all: &[Arc<C>], clients: usize) -> Vec<Arc<C>> {
    all.iter().cycle().take(clients).cloned().collect()
}

/// One call of each client, so that every connection is there, then the calls that count.
async fn measure<C, F>(
    clients: &[Arc<C>],
    calls: u64,
    call: impl Fn(Arc<C>) -> F + Clone + Send + 'static,
) -> Figures
where
    C: Send + Sync + 'static,
    F: Future<Output = Result<(), String>> + Send + 'static,
{
    load::run(clients, Limit::Calls(1), call.clone()).await;
    load::run(clients, Limit::Calls(calls), call).await
}

async fn atelier(table: &mut Table) {
    for (clients, calls) in LEVELS {
        for _ in 0..table.rounds {
            // A fresh one each time: what was accepted waits in its queue.
            let cluster = Cluster::start(Setup { engine: false, log: "warn", ..Setup::default() });
            let clients = atelier_clients(&cluster, clients).await;
            let syncs = report::syncs_per_second();
            let figures = measure(&clients, calls, |client| async move {
                client.submit(&job()).await.map(drop).map_err(|error| error.to_string())
            });
            let figures = figures.await;
            table.add("atelier", Work::Accept, clients.len(), figures, Some(syncs));
        }
    }
    let program = std::env::current_exe().expect("this program's file");
    let cluster = Cluster::start(Setup { slots: SLOTS, program, log: "warn", ..Setup::default() });
    for (clients, calls) in CYCLES {
        let clients = atelier_clients(&cluster, clients).await;
        for _ in 0..table.rounds {
            let figures = measure(&clients, calls, |client| async move {
                let accepted = client.submit(&job()).await.map_err(|error| error.to_string())?;
                client.wait(&accepted).await.map(drop).map_err(|error| error.to_string())
            });
            table.add("atelier", Work::Cycle, clients.len(), figures.await, None);
        }
    }
}

fn job() -> Submission {
    Submission::new(TextToImage::new("x".repeat(BYTES)))
}

async fn atelier_clients(cluster: &Cluster, clients: usize) -> Vec<Arc<Client>> {
    cluster.leader().await;
    let connect = |_| Arc::new(cluster.client());
    shared(&(0..clients.min(ATELIER_CLIENTS_MAX)).map(connect).collect::<Vec<_>>(), clients)
}

async fn etcd(table: &mut Table) {
    let Some((processes, nodes)) = rivals::etcd() else {
        return table.absent("etcd", "etcd-server");
    };
    let serves = || async {
        match Etcd::connect(&nodes[0], 0).await {
            Ok(etcd) => etcd.put().await.is_ok(),
            Err(_) => false,
        }
    };
    rivals::wait_until(&processes, "etcd", serves).await;
    for (clients, calls) in LEVELS {
        for _ in 0..table.rounds {
            let mut connected: Vec<Arc<Etcd>> = Vec::new();
            for number in 0..clients {
                let etcd = match connected.get(number % CONNECTIONS_MAX) {
                    Some(other) if number >= CONNECTIONS_MAX => other.sharing(number),
                    _ => Etcd::connect(&nodes[number % nodes.len()], number).await.expect("etcd"),
                };
                connected.push(Arc::new(etcd));
            }
            let put = |client: Arc<Etcd>| async move { client.put().await };
            let figures = measure(&connected, calls, put).await;
            table.add("etcd", Work::Accept, clients, figures, None);
        }
    }
}

async fn rabbitmq(table: &mut Table) {
    let Some((processes, nodes)) = rivals::rabbitmq() else {
        return table.absent("RabbitMQ", "rabbitmq-server");
    };
    wait_for_rabbitmq(&processes, &nodes).await;
    for (clients, calls) in LEVELS {
        for _ in 0..table.rounds {
            let (publishers, connections) = publishers(&nodes, clients, &Arc::default()).await;
            let publish = |client: Arc<Rabbit>| async move { client.publish().await };
            let figures = measure(&publishers, calls, publish).await;
            close(connections).await;
            table.add("RabbitMQ", Work::Accept, clients, figures, None);
        }
    }
    for (clients, calls) in CYCLES {
        for _ in 0..table.rounds {
            let consumed = Arc::<Consumed>::default();
            let (publishers, mut connections) = publishers(&nodes, clients, &consumed).await;
            for node in &nodes {
                let connection = calls::connect_rabbit(node).await.expect("RabbitMQ");
                calls::consume(&connection, consumed.clone()).await.expect("a consumer");
                connections.push(connection);
            }
            let cycle = |client: Arc<Rabbit>| async move { client.cycle().await };
            let figures = measure(&publishers, calls, cycle).await;
            close(connections).await;
            table.add("RabbitMQ", Work::Cycle, clients, figures, None);
        }
    }
}

async fn wait_for_rabbitmq(processes: &Processes, nodes: &[String]) {
    for node in nodes {
        let serves = || async { calls::connect_rabbit(node).await.is_ok() };
        rivals::wait_until(processes, "RabbitMQ", serves).await;
    }
    // All three listen, so all three have joined: a node joins before it listens.
    let connection = calls::connect_rabbit(&nodes[0]).await.expect("RabbitMQ");
    calls::declare_queue(&connection).await.expect("a quorum queue");
}

/// Publishers to an empty queue, and the connections that they live on.
async fn publishers(
    nodes: &[String],
    clients: usize,
    consumed: &Arc<Consumed>,
) -> (Vec<Arc<Rabbit>>, Vec<lapin::Connection>) {
    let mut connections = Vec::new();
    for number in 0..clients.min(CONNECTIONS_MAX) {
        let node = &nodes[number % nodes.len()];
        connections.push(calls::connect_rabbit(node).await.expect("RabbitMQ"));
    }
    calls::declare_queue(&connections[0]).await.expect("the queue");
    let mut publishers = Vec::new();
    for number in 0..clients {
        let connection = &connections[number % connections.len()];
        let number = u32::try_from(number).expect("few clients");
        let publisher = Rabbit::open(connection, number, consumed.clone()).await;
        publishers.push(Arc::new(publisher.expect("a channel")));
    }
    (publishers, connections)
}

/// A consumer that is only dropped would take the next round's messages.
async fn close(connections: Vec<lapin::Connection>) {
    for connection in connections {
        connection.close(200, "done".into()).await.expect("a connection that is open");
    }
}

async fn nats(table: &mut Table) {
    let Some((processes, nodes)) = rivals::nats() else {
        return table.absent("NATS", "nats-server");
    };
    let serves = || async {
        match Nats::connect(&nodes[0], 0).await {
            Ok(nats) => {
                let created = tokio::time::timeout(Duration::from_secs(5), nats.create_stream());
                created.await.is_ok_and(|created| created.is_ok())
            }
            Err(_) => false,
        }
    };
    rivals::wait_until(&processes, "NATS", serves).await;
    for (clients, calls) in LEVELS {
        for _ in 0..table.rounds {
            let mut publishers = Vec::new();
            for number in 0..clients {
                let nats = Nats::connect(&nodes[number % nodes.len()], number).await;
                publishers.push(Arc::new(nats.expect("NATS")));
            }
            let publish = |client: Arc<Nats>| async move { client.publish().await };
            let figures = measure(&publishers, calls, publish).await;
            table.add("NATS", Work::Accept, clients, figures, None);
        }
    }
}
