//! Three nodes each of the systems that Atelier's queue is measured against, on loopback.
//!
//! Owns their processes, ports and data directories, and ends every process by its pid. A system
//! that is not installed is named and left out.

use std::fs::{self, File};
use std::net::TcpListener;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process_group};

/// How long a cluster may take until it serves; RabbitMQ takes half a minute.
const READY: Duration = Duration::from_secs(120);
const NODES: usize = 3;

/// Processes that end with this value.
pub(crate) struct Processes {
    children: Vec<Child>,
    directory: PathBuf,
}

impl Processes {
    fn new(name: &str) -> Self {
        let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        // What an earlier run left would be joined, or refused.
        let _ = fs::remove_dir_all(&directory);
        fs::create_dir_all(&directory).expect("a data directory");
        Self { children: Vec::new(), directory }
    }

    fn spawn(&mut self, name: &str, command: &mut Command) {
        let log = File::create(self.directory.join(format!("{name}.log"))).expect("a log file");
        let errors = log.try_clone().expect("the same log");
        let child = command.stdin(Stdio::null()).stdout(log).stderr(errors);
        // A group of its own: RabbitMQ is a script that starts what serves.
        let child = child.process_group(0).spawn();
        self.children.push(child.expect("the program was found before"));
    }

    fn logs(&self) -> String {
        let files = fs::read_dir(&self.directory).into_iter().flatten().flatten();
        let logs = files.filter(|file| file.path().extension().is_some_and(|end| end == "log"));
        logs.filter_map(|log| fs::read_to_string(log.path()).ok()).collect()
    }
}

impl Drop for Processes {
    fn drop(&mut self) {
        for child in &mut self.children {
            if let Some(group) = Pid::from_raw(child.id().cast_signed()) {
                // One that has ended by itself is as good.
                let _ = kill_process_group(group, Signal::KILL);
            }
            let _ = child.wait();
        }
        let _ = fs::remove_dir_all(&self.directory);
    }
}

/// The first of these files that exists.
fn program(paths: &[&str]) -> Option<PathBuf> {
    paths.iter().map(PathBuf::from).find(|path| path.exists())
}

fn ports(count: usize) -> Vec<u16> {
    // All are held until the last is found, so that they differ.
    let bind = |_| TcpListener::bind("127.0.0.1:0").expect("a free port");
    let held: Vec<TcpListener> = (0..count).map(bind).collect();
    held.iter().map(|listener| listener.local_addr().expect("its address").port()).collect()
}

/// Asks until the answer is yes.
pub(crate) async fn wait_until<F: Future<Output = bool>>(
    processes: &Processes,
    what: &str,
    ask: impl Fn() -> F,
) {
    let start = Instant::now();
    while !ask().await {
        assert!(start.elapsed() < READY, "{what}: not within {READY:?}\n{}", processes.logs());
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// Starts three etcd; returns the addresses of their gRPC.
pub(crate) fn etcd() -> Option<(Processes, Vec<String>)> {
    let program = program(&["/usr/bin/etcd", "/usr/local/bin/etcd"])?;
    let mut processes = Processes::new("etcd");
    let (clients, peers) = (ports(NODES), ports(NODES));
    let members = peers.iter().enumerate();
    let members: Vec<_> =
        members.map(|(node, port)| format!("n{node}=http://127.0.0.1:{port}")).collect();
    for node in 0..NODES {
        let peer = format!("http://127.0.0.1:{}", peers[node]);
        let client = format!("http://127.0.0.1:{}", clients[node]);
        let data = processes.directory.join(format!("data-{node}"));
        let mut command = Command::new(&program);
        command.args(["--name", &format!("n{node}")]).arg("--data-dir").arg(data);
        command.args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer]);
        command.args(["--listen-client-urls", &client, "--advertise-client-urls", &client]);
        command.args(["--initial-cluster", &members.join(","), "--log-level", "error"]);
        // Debian's build asks for this where the processor is not amd64.
        command.env("ETCD_UNSUPPORTED_ARCH", "arm64");
        processes.spawn(&format!("etcd-{node}"), &mut command);
    }
    let clients = clients.iter().map(|port| format!("http://127.0.0.1:{port}")).collect();
    Some((processes, clients))
}

/// Starts three RabbitMQ with an epmd of their own; returns their AMQP addresses.
pub(crate) fn rabbitmq() -> Option<(Processes, Vec<String>)> {
    // The wrapper in /usr/sbin changes the user and the environment; this is what it calls.
    let server = program(&["/usr/lib/rabbitmq/bin/rabbitmq-server"])?;
    let epmd = program(&["/usr/bin/epmd", "/usr/local/bin/epmd"])?;
    let mut processes = Processes::new("rabbitmq");
    let root = processes.directory.clone();
    let (amqp, dist, names) = (ports(NODES), ports(NODES), ports(1)[0].to_string());
    processes.spawn("epmd", Command::new(epmd).args(["-port", &names]));
    let node_name = |node: usize| format!("atelier{node}@localhost");
    let config = root.join("rabbitmq.conf");
    let mut text = "cluster_formation.peer_discovery_backend = classic_config\n".to_owned();
    for node in 0..NODES {
        text += &format!("cluster_formation.classic_config.nodes.{node} = {}\n", node_name(node));
    }
    text += "log.console = true\nlog.file = false\nloopback_users = none\n";
    fs::write(&config, text).expect("a configuration");
    fs::write(root.join("plugins"), "[].\n").expect("a list of plugins");
    fs::write(root.join(".erlang.cookie"), "atelier-benchmark").expect("a cookie");
    restrict(&root.join(".erlang.cookie"));
    for node in 0..NODES {
        let mut command = Command::new(&server);
        command.env("HOME", &root).env("ERL_EPMD_PORT", &names);
        command.env("RABBITMQ_NODENAME", node_name(node));
        command.env("RABBITMQ_NODE_IP_ADDRESS", "127.0.0.1");
        command.env("RABBITMQ_NODE_PORT", amqp[node].to_string());
        command.env("RABBITMQ_DIST_PORT", dist[node].to_string());
        command.env("RABBITMQ_CONFIG_FILE", &config);
        command.env("RABBITMQ_ENABLED_PLUGINS_FILE", root.join("plugins"));
        command.env("RABBITMQ_MNESIA_BASE", root.join(format!("data-{node}")));
        command.env("RABBITMQ_LOG_BASE", root.join(format!("logs-{node}")));
        // No environment file of the machine's own.
        command.env("RABBITMQ_CONF_ENV_FILE", root.join("none"));
        processes.spawn(&format!("rabbit-{node}"), &mut command);
    }
    let amqp = amqp.iter().map(|port| format!("amqp://127.0.0.1:{port}/%2f")).collect();
    Some((processes, amqp))
}

/// Erlang refuses a cookie that others may read.
fn restrict(file: &Path) {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(file, fs::Permissions::from_mode(0o600)).expect("a file of our own");
}

/// Starts three NATS with JetStream; returns their client addresses.
pub(crate) fn nats() -> Option<(Processes, Vec<String>)> {
    let program = program(&["/usr/sbin/nats-server", "/usr/bin/nats-server"])?;
    let mut processes = Processes::new("nats");
    let (clients, routes) = (ports(NODES), ports(NODES));
    let others: Vec<_> = routes.iter().map(|port| format!("nats://127.0.0.1:{port}")).collect();
    for node in 0..NODES {
        let root = processes.directory.join(format!("data-{node}"));
        let config = processes.directory.join(format!("{node}.conf"));
        let text = format!(
            "server_name: n{node}\nlisten: 127.0.0.1:{}\njetstream {{ store_dir: {root:?} }}\n\
             cluster {{ name: bench, listen: 127.0.0.1:{}, routes: {others:?} }}\n",
            clients[node], routes[node]
        );
        fs::write(&config, text).expect("a configuration");
        processes.spawn(&format!("nats-{node}"), Command::new(&program).arg("-c").arg(config));
    }
    let clients = clients.iter().map(|port| format!("127.0.0.1:{port}")).collect();
    Some((processes, clients))
}
