//! The demo's child processes. They never outlive it.
//!
//! A history of how a child could: by Ctrl-C, which a terminal sends to the whole process group,
//! so that children die in their own way before they are asked — each has a group of its own; by a
//! panic or an early return — `Drop` kills the groups; by a child of a child (the engine) — the
//! group dies, not the process alone; by `kill -9` of the demo — the kernel sends SIGTERM when the
//! parent dies, which `setpriv` arranges, since doing it here would take unsafe code.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use anyhow::Context as _;
use atelier_client::NodeId;
use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use tokio::process::{Child, Command};
use tokio::time::{Instant, timeout_at};

use super::layout::{Layout, Node};

/// What a peer prints when it serves.
const READY: &str = "Running on local URL";
/// A peer that has not stopped after this is killed.
pub(super) const STOP_TIMEOUT: Duration = Duration::from_secs(10);
/// How much of a log is shown when a peer fails.
const TAIL_LINES: usize = 20;
/// How much of a log is read for that, and for the ready line.
const TAIL_BYTES_MAX: u64 = 1 << 20;
/// Part of util-linux, which every Debian has.
const SETPRIV: &str = "/usr/bin/setpriv";

/// All children, by node.
#[derive(Debug)]
pub(super) struct Peers {
    children: BTreeMap<NodeId, Peer>,
}

#[derive(Debug)]
struct Peer {
    child: Child,
    pid: Pid,
    log: PathBuf,
    /// Where this start's part of the log begins.
    log_start: u64,
    ready: bool,
    ended: Option<ExitStatus>,
}

impl Peers {
    /// Starts every peer. Must be called on the main thread: its end is what children are told.
    pub(super) fn start(layout: &Layout) -> anyhow::Result<Self> {
        let mut peers = Self { children: BTreeMap::new() };
        for node in &layout.nodes {
            peers.children.insert(node.id, Peer::spawn(&layout.atelierd, node)?);
        }
        Ok(peers)
    }

    /// Starts a peer again that ended; returns its process id.
    pub(super) fn restart(&mut self, layout: &Layout, id: NodeId) -> anyhow::Result<i32> {
        let node = layout.nodes.iter().find(|node| node.id == id).context("no such peer")?;
        let peer = Peer::spawn(&layout.atelierd, node)?;
        let pid = peer.pid.as_raw_nonzero().get();
        self.children.insert(id, peer);
        Ok(pid)
    }

    /// Process ids by node.
    pub(super) fn pids(&self) -> impl Iterator<Item = (NodeId, i32)> {
        self.children.iter().map(|(id, peer)| (*id, peer.pid.as_raw_nonzero().get()))
    }

    /// Those that ended.
    pub(super) fn dead(&mut self) -> Vec<NodeId> {
        self.children.iter_mut().filter_map(|(id, peer)| peer.poll().map(|_| *id)).collect()
    }

    pub(super) fn how_it_ended(&self, id: NodeId) -> String {
        match self.children.get(&id).and_then(|peer| peer.ended) {
            Some(status) => how(status),
            None => "runs".to_owned(),
        }
    }

    /// Fails with the end of its log when a peer has ended.
    pub(super) fn fail_on_exit(&mut self) -> anyhow::Result<()> {
        for (id, peer) in &mut self.children {
            if let Some(status) = peer.poll() {
                let tail = peer.tail().unwrap_or_default();
                return super::died(*id, &how(status), &peer.log, &tail);
            }
        }
        Ok(())
    }

    /// Whether each has said that it is ready.
    pub(super) fn all_ready(&mut self) -> anyhow::Result<bool> {
        for peer in self.children.values_mut() {
            peer.ready = peer.ready || peer.written()?.contains(READY);
            if !peer.ready {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Asks all to stop, the leader last, waits, and kills those that did not.
    ///
    /// A leader that went first would hand over to a peer that goes too. For the others it waits
    /// half the time at most, so that it has the other half.
    ///
    /// # Cancel safety
    /// When dropped, what is left is killed as `self` is dropped.
    pub(super) async fn stop(&mut self, leader: Option<NodeId>, deadline: Instant) {
        let followers_until = deadline - STOP_TIMEOUT / 2;
        let of = |last: bool| move |id: &NodeId| (Some(*id) == leader) == last;
        for (chosen, until) in [(of(false), followers_until), (of(true), deadline)] {
            for (_, peer) in self.children.iter_mut().filter(|(id, _)| chosen(id)) {
                peer.terminate();
            }
            for (_, peer) in self.children.iter_mut().filter(|(id, _)| chosen(id)) {
                peer.wait(until).await;
            }
        }
        for peer in self.children.values_mut() {
            peer.wait(deadline).await;
            peer.kill_group();
            if peer.ended.is_none() {
                peer.ended = peer.child.wait().await.ok();
            }
        }
    }
}

impl Peer {
    fn spawn(atelierd: &Path, node: &Node) -> anyhow::Result<Self> {
        let log = OpenOptions::new().create(true).append(true).open(&node.log);
        let log = log.with_context(|| format!("cannot write {}", node.log.display()))?;
        let log_start = log.metadata()?.len();
        let mut command = command(atelierd);
        command.arg("start").arg("--config").arg(&node.config);
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        command.process_group(0).kill_on_drop(true);
        // What is meant for this program would count as configuration of the peer.
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("ATELIER_") {
                command.env_remove(name);
            }
        }
        let spawned = command.spawn();
        let child = spawned.with_context(|| format!("cannot start {}", atelierd.display()))?;
        let pid = child.id().and_then(|pid| Pid::from_raw(pid.try_into().ok()?));
        let pid = pid.context("the process has ended already")?;
        let log = node.log.clone();
        Ok(Self { child, pid, log, log_start, ready: false, ended: None })
    }

    /// How it ended, if it did.
    fn poll(&mut self) -> Option<ExitStatus> {
        if self.ended.is_none() {
            self.ended = self.child.try_wait().ok().flatten();
            if self.ended.is_some() {
                self.kill_group();
            }
        }
        self.ended
    }

    /// Asks it to stop.
    fn terminate(&mut self) {
        if self.poll().is_none() {
            // It may have ended meanwhile; then there is nothing to stop.
            let _ = kill_process(self.pid, Signal::TERM);
        }
    }

    /// Waits for its end, until then at most.
    async fn wait(&mut self, until: Instant) {
        if self.ended.is_none()
            && let Ok(Ok(status)) = timeout_at(until, self.child.wait()).await
        {
            self.ended = Some(status);
        }
    }

    /// Takes down the whole group: the engine is a child of the peer.
    fn kill_group(&self) {
        // Nobody left in the group is what is wished for.
        let _ = kill_process_group(self.pid, Signal::KILL);
    }

    /// What it has written since it was started.
    fn written(&self) -> anyhow::Result<String> {
        let mut file = File::open(&self.log)?;
        let from = self.log_start.max(file.metadata()?.len().saturating_sub(TAIL_BYTES_MAX));
        file.seek(SeekFrom::Start(from))?;
        let mut bytes = Vec::new();
        file.take(TAIL_BYTES_MAX).read_to_end(&mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    fn tail(&self) -> anyhow::Result<String> {
        let text = self.written()?;
        let lines: Vec<_> = text.lines().collect();
        Ok(lines[lines.len().saturating_sub(TAIL_LINES)..].join("\n"))
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        if self.ended.is_none() {
            self.kill_group();
        }
    }
}

/// The daemon, told to stop when this process dies where the machine can do that.
fn command(atelierd: &Path) -> Command {
    // A bare name would be looked up in PATH by one and in the directory by the other.
    let atelierd = std::path::absolute(atelierd).unwrap_or_else(|_| atelierd.to_owned());
    if !Path::new(SETPRIV).is_file() {
        return Command::new(atelierd);
    }
    let mut command = Command::new(SETPRIV);
    command.args(["--pdeathsig", "TERM", "--"]).arg(atelierd);
    command
}

fn how(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("ended with code {code}"),
        (None, Some(signal)) => format!("was ended by signal {signal}"),
        (None, None) => "ended".to_owned(),
    }
}
