//! Clusters of real processes on loopback, for the end-to-end tests and the benchmarks.
//!
//! Owns the processes that it starts and ends every one of them by its pid. What is waited for is an
//! observed state with a deadline, never a time.

#![allow(dead_code, clippy::unwrap_used, missing_docs, unreachable_pub)]

pub mod disk;
pub mod network;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use atelier_client::{Client, Event, Job, JobId, Options, Phase, Submission, TextToImage};
use network::Network;
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// How long a peer may take until it says that it is ready; debug builds and loaded machines are slow.
const READY: Duration = Duration::from_secs(120);
/// How long anything else may take that a test waits for.
pub const PATIENCE: Duration = Duration::from_secs(120);
/// The lease time of test clusters: short, so that tests are.
pub const LEASE_MS: u64 = 2_000;

/// What is the same in all peers of a test cluster.
#[derive(Clone, Debug)]
pub struct Setup {
    pub peers: u64,
    pub engine: bool,
    pub model: PathBuf,
    /// Where each peer has a network of its own; else all are on loopback.
    pub network: Option<Arc<Network>>,
    /// Where each peer's `data-<id>` lies; none for the cluster's own temporary directory.
    pub data: Option<PathBuf>,
    /// Further tables of each peer's configuration.
    pub settings: String,
    /// What the peers log.
    pub log: &'static str,
    /// Further lines below `[jobs]`.
    pub jobs: &'static str,
    /// Further lines below `[engine]`.
    pub engines: &'static str,
    /// Jobs that a peer holds at a time.
    pub slots: u32,
    /// Further lines of each configuration, of keys without a table.
    pub more: String,
    /// What is started; takes the arguments of `atelierd`.
    pub program: PathBuf,
}

impl Default for Setup {
    fn default() -> Self {
        let model = Path::new(env!("CARGO_MANIFEST_DIR")).join("diffusion/toy/model");
        Self {
            peers: 3,
            engine: true,
            model,
            slots: 1,
            program: today(),
            network: None,
            data: None,
            more: String::new(),
            log: "info",
            jobs: "",
            engines: "",
            settings: String::new(),
        }
    }
}

/// The daemon of this build.
pub fn today() -> PathBuf {
    env!("CARGO_BIN_EXE_atelierd").into()
}

/// A cluster; its processes end with it.
pub struct Cluster {
    pub setup: Setup,
    pub peers: BTreeMap<u64, Peer>,
    directory: TempDir,
}

/// One peer, running or not.
pub struct Peer {
    pub id: u64,
    pub host: String,
    pub http: u16,
    pub grpc: u16,
    config: PathBuf,
    log: PathBuf,
    program: PathBuf,
    network: Option<Arc<Network>>,
    child: Option<Child>,
}

impl Cluster {
    /// Starts the peers and returns when each is ready.
    pub fn start(setup: Setup) -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let mut peers = BTreeMap::new();
        let ports = free_ports(2 * setup.peers as usize);
        for (id, ports) in (1..=setup.peers).zip(ports.chunks(2)) {
            let (config, log) = (
                directory.path().join(format!("{id}.toml")),
                directory.path().join(format!("{id}.log")),
            );
            let (network, program) = (setup.network.clone(), setup.program.clone());
            let host = network.as_ref().map_or("127.0.0.1".to_owned(), |_| Network::host(id));
            let (http, grpc) = (ports[0], ports[1]);
            let child = None;
            let peer = Peer { id, host, http, grpc, config, log, program, network, child };
            peers.insert(id, peer);
        }
        let mut cluster = Self { setup, peers, directory };
        for id in cluster.ids() {
            let text = cluster.config_of(id);
            fs::write(&cluster.peers[&id].config, text).expect("write a configuration");
        }
        cluster.start_all();
        cluster
    }

    pub fn ids(&self) -> Vec<u64> {
        self.peers.keys().copied().collect()
    }

    /// Starts every peer that does not run, side by side, and waits until all are ready.
    pub fn start_all(&mut self) {
        let waiting: Vec<_> = self
            .peers
            .values_mut()
            .filter(|peer| peer.child.is_none())
            .map(|peer| (peer.id, peer.spawn()))
            .collect();
        for (id, ready) in waiting {
            if ready.recv_timeout(READY).is_err() {
                panic!("peer {id} is not ready:\n{}", self.log_of(id));
            }
        }
    }

    /// Starts these peers alone, and waits until they are ready.
    pub fn start_these(&mut self, ids: &[u64]) {
        let start = |id: &u64| (*id, self.peers.get_mut(id).unwrap().spawn());
        let waiting: Vec<_> = ids.iter().map(start).collect();
        for (id, ready) in waiting {
            if ready.recv_timeout(READY).is_err() {
                panic!("peer {id} is not ready:\n{}", self.log_of(id));
            }
        }
    }

    /// Starts a peer that must not run, waits until it has ended, and returns its code and what it logged.
    pub fn start_until_it_ends(&mut self, id: u64) -> (Option<i32>, String) {
        let before = self.log_of(id).len();
        drop(self.peers.get_mut(&id).unwrap().spawn());
        let mut child = self.peers.get_mut(&id).unwrap().child.take().expect("it was started");
        let code = child.wait().expect("it ends").code();
        (code, self.log_of(id)[before..].to_owned())
    }

    /// Tells a peer to leave, waits until it has with success, and returns how long that took.
    pub fn terminate(&mut self, id: u64) -> Duration {
        let start = Instant::now();
        send(self.pid(id), Signal::TERM);
        let mut child = self.peers.get_mut(&id).unwrap().child.take().expect("the peer runs");
        assert!(child.wait().expect("it ends").success(), "peer {id} left badly");
        start.elapsed()
    }

    /// Changes a peer's configuration for its next start: a line more, and a line of the engine's.
    pub fn configure(&self, id: u64, more: &str, engine: &str) {
        let text = fs::read_to_string(self.config(id)).expect("its configuration");
        let text = text.replace("[listen]", &format!("{more}\n[listen]"));
        let text = text.replace("enabled = true", engine);
        fs::write(self.config(id), text).expect("its configuration");
    }

    /// Starts a peer from another build from now on.
    pub fn upgrade(&mut self, id: u64, program: PathBuf) {
        self.peers.get_mut(&id).unwrap().program = program;
    }

    /// Where a peer's configuration lies.
    pub fn config(&self, id: u64) -> &Path {
        &self.peers[&id].config
    }

    /// Starts one peer again without waiting.
    pub fn start_one(&mut self, id: u64) {
        drop(self.peers.get_mut(&id).unwrap().spawn());
    }

    /// Ends a peer as a power switch would end its process.
    pub fn kill(&mut self, id: u64) {
        let mut child = self.peers.get_mut(&id).unwrap().child.take().expect("the peer runs");
        child.kill().expect("kill -9");
        child.wait().expect("it ends");
    }

    /// Ends all peers before any is waited for.
    pub fn kill_all(&mut self) {
        let mut children: Vec<Child> =
            self.peers.values_mut().filter_map(|peer| peer.child.take()).collect();
        children.iter_mut().for_each(|child| child.kill().expect("kill -9"));
        for mut child in children {
            child.wait().expect("it ends");
        }
    }

    /// Tells all peers to leave, and waits until each has, with success.
    pub fn terminate_all(&mut self) {
        for id in self.ids() {
            send(self.pid(id), Signal::TERM);
        }
        for peer in self.peers.values_mut() {
            let mut child = peer.child.take().expect("the peer runs");
            assert!(child.wait().expect("it ends").success(), "peer {} left badly", peer.id);
        }
    }

    /// Freezes a peer and the engine that it owns.
    pub fn freeze(&self, id: u64) {
        self.signal_family(id, Signal::STOP);
    }

    /// Lets a frozen peer go on.
    pub fn thaw(&self, id: u64) {
        self.signal_family(id, Signal::CONT);
    }

    fn signal_family(&self, id: u64, signal: Signal) {
        let pid = self.pid(id);
        [vec![pid], children_of(pid)].concat().into_iter().for_each(|pid| send(pid, signal));
    }

    /// Sends a signal to the engine of a peer alone, and returns its pid.
    pub fn signal_engine(&self, id: u64, signal: Signal) -> u32 {
        let engine = self.engines(id).pop().expect("the peer has an engine");
        send(engine, signal);
        engine
    }

    pub fn pid(&self, id: u64) -> u32 {
        self.peers[&id].child.as_ref().expect("the peer runs").id()
    }

    /// The pids of the engines that a peer has.
    pub fn engines(&self, id: u64) -> Vec<u32> {
        children_of(self.pid(id))
    }

    pub fn address(&self, id: u64) -> String {
        format!("http://{}:{}", self.peers[&id].host, self.peers[&id].grpc)
    }

    /// A client that knows all peers.
    pub fn client(&self) -> Client {
        let addresses: Vec<String> = self.ids().into_iter().map(|id| self.address(id)).collect();
        Client::connect(addresses, patient()).expect("addresses are well formed")
    }

    /// A client that knows one peer alone.
    pub fn client_of(&self, id: u64) -> Client {
        let options = Options { learn_members: false, ..patient() };
        Client::connect([self.address(id)], options).expect("an address is well formed")
    }

    pub fn log_of(&self, id: u64) -> String {
        fs::read_to_string(&self.peers[&id].log).unwrap_or_default()
    }

    /// The data directory of a peer.
    pub fn data_of(&self, id: u64) -> PathBuf {
        let place = self.setup.data.as_deref().unwrap_or(self.directory.path());
        place.join(format!("data-{id}"))
    }

    /// Waits until a peer has ended by itself.
    pub fn ended(&mut self, id: u64) -> ExitStatus {
        let child = self.peers.get_mut(&id).unwrap().child.as_mut().expect("the peer was started");
        let start = Instant::now();
        let status = loop {
            if let Some(status) = child.try_wait().expect("wait") {
                break status;
            }
            assert!(start.elapsed() < PATIENCE, "peer {id} does not end");
            std::thread::sleep(Duration::from_millis(20));
        };
        self.peers.get_mut(&id).unwrap().child = None;
        status
    }

    /// Waits until a peer says that it is not ready for a reason with this in it.
    pub async fn unready(&self, id: u64, because: &str) {
        let start = Instant::now();
        loop {
            let (code, body) = self.get(id, "/readyz").await;
            if code == 503 && body.contains(because) {
                return;
            }
            assert!(start.elapsed() < PATIENCE, "peer {id} is not unready for `{because}`: {body}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Who leads, once the peers that answer agree on one that runs.
    pub async fn leader(&self) -> u64 {
        let running: Vec<u64> =
            self.peers.values().filter(|p| p.child.is_some()).map(|p| p.id).collect();
        let start = Instant::now();
        loop {
            let mut leaders = Vec::new();
            for id in &running {
                let options = Options {
                    deadline: Duration::from_secs(1),
                    retries_max: 1,
                    learn_members: false,
                    ..Options::default()
                };
                let client = Client::connect([self.address(*id)], options).unwrap();
                leaders.extend(client.status().await.ok().and_then(|status| status.leader));
            }
            let agreed = leaders.first().copied().filter(|l| leaders.iter().all(|o| o == l));
            if let Some(leader) = agreed.filter(|l| leaders.len() > 1 && running.contains(l)) {
                return leader;
            }
            assert!(start.elapsed() < PATIENCE, "no leader: {leaders:?}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// One GET of a peer's HTTP port.
    pub async fn get(&self, id: u64, path: &str) -> (u16, String) {
        get("127.0.0.1", self.peers[&id].http, path).await.expect("the HTTP port answers")
    }

    /// Waits until all peers stand at one index with one digest.
    pub async fn agree(&self) {
        let start = Instant::now();
        loop {
            let mut seen = Vec::new();
            for id in self.ids() {
                let status = self.client_of(id).status().await.expect("every peer answers");
                seen.push((status.applied_index, status.state_digest));
            }
            let same_index = seen.windows(2).all(|pair| pair[0].0 == pair[1].0);
            if same_index {
                assert!(seen.windows(2).all(|pair| pair[0].1 == pair[1].1), "diverged: {seen:?}");
                return;
            }
            assert!(start.elapsed() < PATIENCE, "peers do not catch up: {seen:?}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    fn config_of(&self, id: u64) -> String {
        let peer = &self.peers[&id];
        let peers: Vec<String> = self
            .ids()
            .into_iter()
            .map(|id| format!("{{ id = {id}, address = \"{}\" }}", self.address(id)))
            .collect();
        let data = self.data_of(id);
        format!(
            "node = {id}\ncluster = \"test\"\ndata = {data:?}\nlog = {log:?}\npeers = [{peers}]\n{more}\n\
             [listen]\nhttp = \"{host}:{http}\"\ngrpc = \"{host}:{grpc}\"\n\
             [jobs]\nlease_ms = {LEASE_MS}\n{jobs}\n\
             [engine]\nenabled = {engine}\nmodel = {model:?}\nslots = {slots}\nbackend = \"cpu\"\n{engines}\n\
             {settings}",
            log = self.setup.log,
            jobs = self.setup.jobs,
            engines = self.setup.engines,
            settings = self.setup.settings,
            peers = peers.join(", "),
            more = self.setup.more,
            host = peer.host,
            http = peer.http,
            grpc = peer.grpc,
            engine = self.setup.engine,
            model = self.setup.model,
            slots = self.setup.slots,
        )
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for peer in self.peers.values_mut() {
            if let Some(mut child) = peer.child.take() {
                // A frozen process takes SIGKILL too.
                let _ = child.kill();
                let _ = child.wait();
            }
        }
        if std::thread::panicking() {
            for id in self.ids() {
                eprintln!("--- log of peer {id}\n{}", tail(&self.log_of(id), 60));
            }
        }
    }
}

impl Peer {
    /// Starts the process; the receiver hears when it is ready.
    fn spawn(&mut self) -> mpsc::Receiver<()> {
        let log = File::options().append(true).create(true).open(&self.log).expect("a log file");
        let mut command = match &self.network {
            Some(network) => network.command(self.id, &self.program),
            None => Command::new(&self.program),
        };
        let mut child = command
            .args(["start", "--config"])
            .arg(&self.config)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .expect("start atelierd");
        let stdout = child.stdout.take().expect("stdout is a pipe");
        self.child = Some(child);
        let (ready, heard) = mpsc::channel();
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                if line.starts_with("Running on local URL") {
                    let _ = ready.send(());
                }
            }
        });
        heard
    }
}

/// Options of a client that sees elections through.
pub fn patient() -> Options {
    Options { deadline: PATIENCE, watch_deadline: Some(PATIENCE), ..Options::default() }
}

/// A picture of the bundled model.
pub fn picture(prompt: &str, seed: u64, steps: u32) -> Submission {
    Submission::new(TextToImage { seed, steps, ..TextToImage::new(prompt) })
}

/// Follows a job until an event is as wanted.
pub async fn until(client: &Client, job: JobId, wanted: impl Fn(&Event) -> bool) -> Event {
    let mut watch = client.watch(job);
    while let Some(event) = watch.next().await {
        let event = event.expect("the watch goes on");
        if wanted(&event) {
            return event;
        }
        assert!(!event.job.phase.is_terminal(), "it ended before: {:?}", event.job);
    }
    panic!("the watch ended before the event")
}

/// Waits for the ends of jobs, in order.
pub async fn ends(client: &Client, jobs: &[JobId]) -> Vec<Job> {
    let mut ended = Vec::new();
    for job in jobs {
        ended.push(client.finish(*job, |_| ()).await.expect("an accepted job succeeds"));
    }
    ended
}

/// Whether a job is being drawn and has passed a step of denoising.
pub fn denoising(event: &Event, step: u32) -> bool {
    event.job.phase == Phase::Leased
        && event.progress.as_ref().is_some_and(|p| p.stage.word() == "denoise" && p.step >= step)
}

/// The processes that a process has started and that still run.
pub fn children_of(pid: u32) -> Vec<u32> {
    let Ok(tasks) = fs::read_dir(format!("/proc/{pid}/task")) else { return Vec::new() };
    let children = |task: std::fs::DirEntry| {
        fs::read_to_string(task.path().join("children")).unwrap_or_default()
    };
    let lists: Vec<String> = tasks.flatten().map(children).collect();
    lists.iter().flat_map(|list| list.split_whitespace()).filter_map(|p| p.parse().ok()).collect()
}

fn send(pid: u32, signal: Signal) {
    let pid = Pid::from_raw(pid as i32).expect("a pid is not 0");
    kill_process(pid, signal).expect("a signal to a process of ours");
}

/// Random numbers for a test: splitmix64.
pub struct Dice(pub u64);

impl Dice {
    /// Seeds them from `SEED`, or with 1, and says so.
    pub fn seeded() -> Self {
        let seed = number("SEED", 1);
        println!("SEED={seed}");
        Self(seed)
    }

    /// A number below a bound.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % bound
    }
}

/// A number from the environment.
pub fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().filter(|text| !text.is_empty()).map_or(default, |text| {
        text.parse().unwrap_or_else(|_| panic!("{name}={text} is no number"))
    })
}

/// One GET over a socket, so that no client library hides what is sent; none where nobody answers.
pub async fn get(host: &str, port: u16, path: &str) -> Option<(u16, String)> {
    let mut socket = TcpStream::connect((host, port)).await.ok()?;
    // Version 1.0, so that nothing comes in chunks.
    let request = format!("GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n");
    socket.write_all(request.as_bytes()).await.ok()?;
    let mut answer = String::new();
    socket.read_to_string(&mut answer).await.ok()?;
    let (head, body) = answer.split_once("\r\n\r\n")?;
    Some((head.split(' ').nth(1)?.parse().ok()?, body.to_owned()))
}

/// Resident bytes of a process.
pub fn resident_bytes(pid: u32) -> u64 {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or("0");
    line.split_whitespace().next().and_then(|n| n.parse::<u64>().ok()).unwrap_or(0) * 1024
}

/// Ports that nobody has at the moment.
pub fn free_ports(count: usize) -> Vec<u16> {
    // All are held until the last is found, so that they differ.
    let held: Vec<TcpListener> =
        (0..count).map(|_| TcpListener::bind("127.0.0.1:0").expect("a free port")).collect();
    held.iter().map(|listener| listener.local_addr().expect("its address").port()).collect()
}

fn tail(text: &str, lines: usize) -> String {
    let all: Vec<&str> = text.lines().collect();
    all[all.len().saturating_sub(lines)..].join("\n")
}
