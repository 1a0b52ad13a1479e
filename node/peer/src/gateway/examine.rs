//! What a peer finds out about itself and its way to the others, for `atelier doctor`.
//!
//! Owns the checks and what to do about each. Everything is looked at now, nothing is remembered; what only a client
//! can see, such as the way to this peer, is the client's to judge.

use super::Gateway;
use crate::cluster_time::APART_MAX;
use crate::model_files::check::{Difference, Look, ModelCheck};
use crate::ports::engine::{EngineInfo, EngineState};
use crate::ports::{Clock, Purpose, RaftStatus};
use crate::tasks;
use atelier_proto::client::v1 as wire;
use atelier_proto::peer::v1 as peer_wire;
use atelier_state::NodeId;
use futures_util::future::join_all;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tonic::Request;

/// For another peer to answer who it is.
const GREET_MAX: Duration = Duration::from_secs(2);
/// Clocks further apart than this confuse people who read times; nothing else reads them.
const SKEW_WARN_MS: u64 = 1_000;
/// For a model's files to be read, where one may have changed; whoever asks again after that is told.
const READ_MAX: Duration = Duration::from_secs(3);
/// Files of a model that a finding names; of more it tells the number.
const NAMED_MAX: usize = 3;
/// Writes whose time is measured; the slowest counts.
const FSYNCS: usize = 8;
/// An fsync above this is slow for a disk that every acknowledgement waits for.
const FSYNC_WARN: Duration = Duration::from_millis(50);
/// And above this an election timeout is near.
const FSYNC_FAIL: Duration = Duration::from_millis(500);
/// Free bytes below which somebody should look.
const DISK_WARN_BYTES: u64 = 2 << 30;
/// Free bytes below which the log may soon not be written.
const DISK_FAIL_BYTES: u64 = 200 << 20;

/// What the checks look at beside the gateway's own parts.
#[derive(Clone)]
pub(crate) struct Examined {
    /// Where log, state and results lie; none in a world without files.
    pub(crate) data: Option<PathBuf>,
    /// None for a peer without an engine.
    pub(crate) engine: Option<tokio::sync::watch::Receiver<EngineState>>,
    /// Knows which of the model's files were read already.
    pub(crate) model: Arc<ModelCheck>,
}

impl Gateway {
    /// Looks at everything, the others side by side.
    pub(super) async fn do_examine(&self) -> wire::ExamineReply {
        let status = self.raft_status();
        let mut findings = vec![part_in_raft(&status)];
        if let Some(data) = self.examined.data.clone() {
            let clock = Arc::clone(&self.clock);
            let disk = tasks::blocking(move || [fsync(&data, clock.as_ref()), space(&data)]).await;
            findings.extend(disk.into_iter().flatten());
        }
        let engine = self.examined.engine.as_ref().map(|engine| engine.borrow().clone());
        findings.push(drawing(engine.as_ref()));
        if let Some(EngineState::Ready(info)) = engine {
            findings.push(self.model(info).await);
        }
        let others = status.addresses.iter().filter(|(node, _)| **node != status.node);
        let greetings = others.map(|(node, address)| self.way_to(&status, *node, address));
        findings.extend(join_all(greetings).await);
        let wall_ms = self.clock.own_wall_ms();
        wire::ExamineReply { node: status.node.0, findings, wall_ms }
    }

    /// Compares the model's files with what the engine loaded.
    async fn model(&self, info: EngineInfo) -> wire::Finding {
        let looked = self.look(&info).await;
        if let Ok(Look::Reading { .. }) = looked {
            tokio::select! {
                () = self.examined.model.idle() => {}
                () = self.clock.sleep(READ_MAX) => {}
            }
            return of_model(&info, self.look(&info).await);
        }
        of_model(&info, looked)
    }

    async fn look(&self, info: &EngineInfo) -> Result<Look, String> {
        if info.files.files.is_empty() {
            return Ok(Look::Same);
        }
        let (check, files) = (Arc::clone(&self.examined.model), Arc::clone(&info.files));
        let looked = tasks::blocking(move || check.look(&files)).await;
        looked.map_err(|error| error.to_string())?.map_err(|error| error.to_string())
    }

    /// Asks another member who it is: shows the way there, its name, and its clock.
    async fn way_to(&self, status: &RaftStatus, node: NodeId, address: &str) -> wire::Finding {
        let check = format!("to node {node}");
        let fail = |found: String, fix: &str| finding(&check, Level::Fail, found, fix);
        let mut peer = match self.leader.lines.peer(address, Purpose::Control) {
            Ok(peer) => peer,
            Err(error) => return fail(error.to_string(), "correct that peer's listen.advertise"),
        };
        let request = || peer_wire::GreetRequest { cluster: self.cluster(), node: status.node.0 };
        let timed = |message| {
            let mut request = Request::new(message);
            request.set_timeout(GREET_MAX);
            request
        };
        // The first one connects; the second one shows the way there and back.
        if let Err(error) = peer.greet(timed(request())).await {
            let fix = "is its process running, and its gRPC port open from this machine?";
            return fail(format!("{address}: {}", error.message()), fix);
        }
        let start = self.clock.now();
        let greeted = peer.greet(timed(request())).await;
        let round_trip = self.clock.now().saturating_sub(start);
        let greeted = match greeted {
            Ok(greeted) => greeted.into_inner(),
            Err(error) => return fail(error.message().to_owned(), "it was there a moment ago"),
        };
        if greeted.node != node.0 || greeted.cluster != self.cluster() {
            let found = format!(
                "{address} is node {} of cluster {:?}, expected node {node} of {:?}",
                greeted.node,
                greeted.cluster,
                self.cluster()
            );
            return fail(found, "correct listen.advertise, or start the right process there");
        }
        let half_ms = u64::try_from(round_trip.as_millis() / 2).unwrap_or(u64::MAX);
        let skew = self.clock.own_wall_ms().saturating_sub(half_ms).abs_diff(greeted.wall_ms);
        let found = format!("{:.1} ms there and back, clocks {skew} ms apart", ms(round_trip));
        let fix = "run a time service, such as chrony, on both machines";
        match u128::from(skew) {
            skew if skew > APART_MAX.as_millis() => {
                let found = format!("{found}; until that is mended most voters' clocks count");
                finding(&check, Level::Fail, found, fix)
            }
            skew if skew > SKEW_WARN_MS.into() => finding(&check, Level::Warn, found, fix),
            _ => finding(&check, Level::Ok, found, ""),
        }
    }
}

type Level = wire::FindingLevel;

fn finding(check: &str, level: Level, found: String, fix: &str) -> wire::Finding {
    wire::Finding { check: check.to_owned(), level: level.into(), found, fix: fix.to_owned() }
}

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

fn part_in_raft(status: &RaftStatus) -> wire::Finding {
    let RaftStatus { committed, applied, .. } = status;
    let lag = committed.0.saturating_sub(applied.0);
    if let Some(stopped) = &status.stopped {
        // A damaged or older directory says itself what to do, and a restart would not mend it.
        let fix = "do as that says; where it says nothing: mend the disk, then restart the peer";
        return finding("raft", Level::Fail, format!("takes no part any more: {stopped}"), fix);
    }
    match status.leader {
        None => {
            let fix = "are the other voters running, and reachable from this machine?";
            finding("raft", Level::Fail, "follows nobody".to_owned(), fix)
        }
        Some(_) if status.is_leader && !status.quorum_acked => {
            // Those that are down cannot be told from a network that is.
            let fix = "start the other voters, or mend the network between them";
            finding("raft", Level::Fail, "leads, but no quorum answers it".to_owned(), fix)
        }
        Some(leader) => {
            let role = if status.is_leader { "leads".into() } else { format!("follows {leader}") };
            finding("raft", Level::Ok, format!("{role}, {lag} entries to apply"), "")
        }
    }
}

/// Times small durable writes beside the log. Blocks.
fn fsync(data: &Path, clock: &dyn Clock) -> wire::Finding {
    let fix = "every acknowledgement waits for it: a faster disk, or one that others use less";
    match slowest_fsync(data, clock) {
        Err(error) => {
            let fix = "is the disk full, read-only or failing? `dmesg` may say";
            finding("fsync", Level::Fail, format!("{}: {error}", data.display()), fix)
        }
        Ok(slowest) => {
            let found = format!("slowest of {FSYNCS}: {:.1} ms", ms(slowest));
            match slowest {
                _ if slowest > FSYNC_FAIL => finding("fsync", Level::Fail, found, fix),
                _ if slowest > FSYNC_WARN => finding("fsync", Level::Warn, found, fix),
                _ => finding("fsync", Level::Ok, found, ""),
            }
        }
    }
}

fn slowest_fsync(data: &Path, clock: &dyn Clock) -> std::io::Result<Duration> {
    let path = data.join("examined.tmp");
    let mut file = std::fs::File::create(&path)?;
    let mut slowest = Duration::ZERO;
    for _ in 0..FSYNCS {
        let start = clock.now();
        file.write_all(&[0; 4096])?;
        file.sync_data()?;
        slowest = slowest.max(clock.now().saturating_sub(start));
    }
    drop(file);
    std::fs::remove_file(path)?;
    Ok(slowest)
}

/// Looks at the room below the data directory. Blocks.
fn space(data: &Path) -> wire::Finding {
    let fix = "make room, or move the data directory; without room the peer stops taking part";
    match rustix::fs::statvfs(data) {
        Err(error) => finding("disk", Level::Warn, format!("cannot be looked at: {error}"), ""),
        Ok(stat) => {
            let free = stat.f_bavail.saturating_mul(stat.f_frsize);
            let found = format!("{:.1} GiB free", free as f64 / f64::from(1 << 30));
            match free {
                _ if free < DISK_FAIL_BYTES => finding("disk", Level::Fail, found, fix),
                _ if free < DISK_WARN_BYTES => finding("disk", Level::Warn, found, fix),
                _ => finding("disk", Level::Ok, found, ""),
            }
        }
    }
}

fn drawing(engine: Option<&EngineState>) -> wire::Finding {
    match engine {
        None => finding("engine", Level::Ok, "none, it only votes".to_owned(), ""),
        Some(EngineState::Ready(info)) => {
            finding("engine", Level::Ok, format!("ready: {}", info.class), "")
        }
        Some(EngineState::Loading { bytes, total }) => {
            let found = format!("loading its model, {bytes} of {total} bytes");
            finding("engine", Level::Warn, found, "wait; large models take minutes")
        }
        Some(EngineState::Unfit(why)) => {
            let fix = "see the engine's lines in the peer's log; is the model directory complete?";
            finding("engine", Level::Fail, format!("unfit: {why}"), fix)
        }
    }
}

fn of_model(info: &EngineInfo, looked: Result<Look, String>) -> wire::Finding {
    let model = &info.model;
    match looked {
        Ok(Look::Same) if info.files.files.is_empty() => {
            finding("model", Level::Ok, model.clone(), "")
        }
        Ok(Look::Same) => {
            let count = info.files.files.len();
            let found = format!("{model}, its {count} files are as they were loaded");
            finding("model", Level::Ok, found, "")
        }
        Ok(Look::Reading { path, bytes, total }) => {
            let path = path.display();
            let found = format!(
                "{model}, hashing {path} and what else has a new date: {bytes} of {total} bytes"
            );
            finding("model", Level::Warn, found, "ask again in a minute")
        }
        Ok(Look::Differs(files)) => {
            let found = format!("{model} was loaded, but since then {}", told(&files));
            let fix = "it draws from what it loaded, and would load something else: put the files back as \
                       another peer has them, or give every peer the new ones and restart it";
            finding("model", Level::Fail, found, fix)
        }
        Err(error) => {
            let found = format!("{model} was loaded, but its files cannot be looked at: {error}");
            let fix = "bring the directory back before the engine has to be started again";
            finding("model", Level::Fail, found, fix)
        }
    }
}

/// The first few files with what happened to each, and how many more there are.
fn told(files: &[(PathBuf, Difference)]) -> String {
    let words = files.iter().take(NAMED_MAX).map(|(path, difference)| {
        let word = match difference {
            Difference::Changed => "changed",
            Difference::Unreadable => "cannot be read",
            Difference::Missing => "is missing",
            Difference::Added => "was added",
        };
        format!("{} {word}", path.display())
    });
    let mut text = words.collect::<Vec<_>>().join(", ");
    let more = files.len().saturating_sub(NAMED_MAX);
    if more > 0 {
        text += &format!(" and {more} more");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_that_stopped_is_not_told_to_restart_where_its_reason_says_otherwise() {
        let stopped = Some("an older copy; keep it and `atelier member replace`".to_owned());
        let told = part_in_raft(&RaftStatus { stopped, ..RaftStatus::default() });
        assert!(told.found.ends_with("`atelier member replace`"), "{}", told.found);
        assert!(told.fix.starts_with("do as that says"), "{}", told.fix);
        let status =
            RaftStatus { leader: Some(NodeId(1)), is_leader: true, ..RaftStatus::default() };
        let alone = part_in_raft(&status);
        assert!(alone.fix.contains("the other voters") && alone.fix.contains("network"));
    }

    #[test]
    fn what_happened_to_a_model_is_told_in_few_words() {
        let file = |name: &str| (PathBuf::from(name), Difference::Changed);
        assert_eq!(told(&[file("a")]), "a changed");
        let missing = (PathBuf::from("vae/b"), Difference::Missing);
        assert_eq!(told(&[file("a"), missing]), "a changed, vae/b is missing");
        let many: Vec<_> = ["a", "b", "c", "d", "e"].map(file).into();
        assert_eq!(told(&many), "a changed, b changed, c changed and 2 more");
    }
}
