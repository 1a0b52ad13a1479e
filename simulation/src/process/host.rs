//! One machine: its directory, its clock, and the process of `atelierd` that runs on it.

use super::network::{GRPC, HTTP, Network, host};
use crate::cluster::Shape;
use crate::cluster::chronicle::{Chronicle, Event};
use crate::cluster::clients::Reach;
use crate::cluster::diary::Serving;
use crate::operations::Server;
use rustix::process::{Pid, Signal, kill_process};
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// The model that peers draw with.
const MODEL: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../node/diffusion/toy/model");

/// Debian's library that sets the clock of one process wrong; none where it is not installed.
pub(super) fn faketime() -> Option<PathBuf> {
    let directories = ["/usr/lib/x86_64-linux-gnu", "/usr/lib/aarch64-linux-gnu", "/usr/lib"];
    let library = |directory: &&str| Path::new(directory).join("faketime/libfaketimeMT.so.1");
    directories.iter().map(library).find(|library| library.exists())
}

pub(super) struct Host {
    pub(super) id: u64,
    daemon: PathBuf,
    directory: PathBuf,
    network: Network,
    chronicle: Chronicle,
    machine: Mutex<Machine>,
}

#[derive(Default)]
struct Machine {
    child: Option<Child>,
    lives: u64,
    // Faults that keep it down at the moment.
    down: u64,
}

impl Host {
    pub(super) fn new(
        id: u64,
        shape: &Shape,
        (daemon, directory): (&Path, &Path),
        network: &Network,
        chronicle: &Chronicle,
    ) -> Host {
        let host = Host {
            id,
            daemon: daemon.to_owned(),
            directory: directory.to_owned(),
            network: network.clone(),
            chronicle: chronicle.clone(),
            machine: Mutex::default(),
        };
        fs::write(host.file("toml"), host.config(shape)).expect("a configuration is written");
        host.skew(0);
        host
    }

    fn config(&self, shape: &Shape) -> String {
        let peer = |id| format!("{{ id = {id}, address = \"{}\" }}", self.network.address(id));
        let peers: Vec<String> = (1..=shape.peers).map(peer).collect();
        let (id, host, peers) = (self.id, host(self.id), peers.join(", "));
        let Shape { lease_ms, snapshot_entries, checkpoint_steps, .. } = shape;
        let (data, kept) = (self.file("data"), snapshot_entries / 2);
        format!(
            "node = {id}\ncluster = \"rig\"\ndata = {data:?}\nlog = \"info\"\npeers = [{peers}]\n\
             [listen]\nhttp = \"{host}:{HTTP}\"\ngrpc = \"{host}:{GRPC}\"\n\
             [jobs]\nlease_ms = {lease_ms}\ncheckpoint_steps = {checkpoint_steps}\n\
             [raft]\nsnapshot_entries = {snapshot_entries}\nentries_kept = {kept}\n\
             [engine]\nenabled = true\nmodel = {MODEL:?}\nbackend = \"cpu\"\n"
        )
    }

    fn file(&self, kind: &str) -> PathBuf {
        self.directory.join(format!("{}.{kind}", self.id))
    }

    /// What the peer has logged, over all its lives.
    pub(super) fn log(&self) -> String {
        fs::read_to_string(self.file("log")).unwrap_or_default()
    }

    /// Starts a process, unless one runs or a fault keeps the machine down.
    pub(super) fn start(&self) {
        let mut machine = self.machine();
        if machine.down > 0 || machine.child.is_some() {
            return;
        }
        let log = File::options().append(true).create(true).open(self.file("log"));
        let log = log.expect("a log file");
        let mut command = self.network.command(self.id, &self.daemon);
        command.args(["start", "--config"]).arg(self.file("toml")).stdin(Stdio::null());
        command.stdout(log.try_clone().expect("a second handle")).stderr(log);
        if let Some(library) = faketime() {
            command
                .env("LD_PRELOAD", library)
                .env("FAKETIME_TIMESTAMP_FILE", self.file("clock"))
                .env("FAKETIME_NO_CACHE", "1")
                .env("FAKETIME_DONT_FAKE_MONOTONIC", "1");
        }
        machine.child = Some(command.spawn().expect("start atelierd"));
        machine.lives += 1;
        self.chronicle.note(Event::Starts { machine: self.id });
    }

    /// Kills the process, and keeps the machine down until it is released.
    pub(super) fn hold(&self) {
        let mut machine = self.machine();
        machine.down += 1;
        self.end(&mut machine);
    }

    pub(super) fn release(&self) {
        self.machine().down -= 1;
        self.start();
    }

    pub(super) fn kill(&self) {
        self.end(&mut self.machine());
    }

    fn end(&self, machine: &mut Machine) {
        let Some(mut child) = machine.child.take() else { return };
        let engines = children_of(child.id());
        child.kill().expect("kill -9");
        child.wait().expect("it ends");
        // A stopped engine does not notice that its peer is gone.
        engines.into_iter().for_each(|engine| send(engine, Signal::KILL));
        self.chronicle.note(Event::Dies { machine: self.id });
    }

    /// Lets the process and its engine stand still, or go on.
    pub(super) fn signal(&self, signal: Signal) {
        let machine = self.machine();
        let Some(child) = &machine.child else { return };
        let family = [vec![child.id()], children_of(child.id())].concat();
        family.into_iter().for_each(|pid| send(pid, signal));
    }

    /// Sets the wall clock wrong by so much.
    pub(super) fn skew(&self, by_ms: i64) {
        let text = format!(
            "{}{}.{:03}\n",
            if by_ms < 0 { '-' } else { '+' },
            by_ms.abs() / 1_000,
            by_ms.abs() % 1_000
        );
        // As a whole: it is read at any moment.
        let (new, file) = (self.file("clock.new"), self.file("clock"));
        fs::write(&new, text).and_then(|()| fs::rename(&new, file)).expect("a clock is set");
    }

    /// Says how a process ended that nobody has ended.
    pub(super) fn ended_by_itself(&self) -> Option<String> {
        let mut machine = self.machine();
        let status = machine.child.as_mut()?.try_wait().expect("a child of ours")?;
        machine.child = None;
        let log = self.log();
        let lines: Vec<&str> = log.lines().collect();
        let tail = lines[lines.len().saturating_sub(5)..].join(" | ");
        Some(format!("peer {} ended by itself, {status}: {tail}", self.id))
    }

    fn machine(&self) -> MutexGuard<'_, Machine> {
        self.machine.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        self.kill();
    }
}

impl Serving for Host {
    fn server(&self) -> Server {
        Server { peer: self.id, life: self.machine().lives }
    }
}

fn send(pid: u32, signal: Signal) {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
    // It may have ended by now.
    let _ = kill_process(pid.expect("a pid"), signal);
}

/// The pids of the processes that a process has started.
fn children_of(pid: u32) -> Vec<u32> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let listed = tasks.filter_map(|task| fs::read_to_string(task.path().join("children")).ok());
    listed
        .flat_map(|pids| {
            pids.split_whitespace().filter_map(|pid| pid.parse().ok()).collect::<Vec<_>>()
        })
        .collect()
}
