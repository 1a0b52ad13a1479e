//! The front doors of a peer: gRPC and HTTP for clients, HTTP for probes and metrics.
//!
//! ```text
//!   client ─ gRPC ─► grpc ─► convert ─► proposer ─► log          facts go in
//!                      │                              │
//!                      ◄── watch ◄── view ◄───────────┘          facts come out
//!                            ▲
//!                            └────── progress of the lease's worker (round the log)
//!   client ─ HTTP ─► http ─► the same calls; probe ─► http/probes ─► health, metrics
//! ```
//!
//! Owns what a client may ask and how it is told no. It must not decide anything that the state or
//! the leader's loops decide. Any peer answers any call; what only the leader knows is asked of it.

pub(crate) mod admin;
pub(crate) mod convert;
pub(crate) mod door;
pub(crate) mod error;
pub(crate) mod examine;
mod exposition;
mod grpc;
pub(crate) mod health;
pub(crate) mod http;
pub(crate) mod leader;
pub(crate) mod lookout;
mod members;
pub(crate) mod metered;
pub(crate) mod metrics;
mod pictures;
mod queue;
mod settings;
mod submit;
mod wait;
mod watch;

use crate::artifacts::Artifacts;
use crate::ports::upkeep::Upkeep;
use crate::ports::{Clock, Entropy, Log};
use crate::progress::ProgressFollower;
use crate::proposer::Proposer;
use crate::view::View;
use atelier_state::{Command, JobId, LogIndex, Reply};
use error::unavailable;
use examine::Examined;
use leader::Leader;
use lookout::Lookout;
use metrics::Metrics;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::watch as channel;
use tonic::metadata::MetadataMap;
use tonic::{Code, Status};

/// Metadata of a read that may be answered with what is old.
const STALE_KEY: &str = "atelier-stale";
/// How long a call waits for a leader where its client sets no `grpc-timeout`.
const DEADLINE_DEFAULT: Duration = Duration::from_secs(30);
/// The longest that a call is held, whatever its client asks.
const DEADLINE_MAX: Duration = Duration::from_secs(600);
/// How long a read waits for the local view to catch up before it tells what it sees.
const CATCH_UP_MAX: Duration = Duration::from_secs(2);

/// How long a read waits for the leader's opinions before it tells what this peer knows by itself. Shorter than
/// the patience of whoever asks how a cluster without a leader is.
const OPINIONS_MAX: Duration = Duration::from_millis(500);

/// The gRPC front door of one peer.
pub(crate) struct Gateway {
    pub(crate) log: Arc<dyn Log>,
    pub(crate) proposer: Proposer,
    pub(crate) lookout: Arc<Lookout>,
    pub(crate) progress: ProgressFollower,
    pub(crate) artifacts: Arc<Artifacts>,
    pub(crate) leader: Leader,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) entropy: Arc<dyn Entropy>,
    pub(crate) upkeep: Arc<dyn Upkeep>,
    pub(crate) examined: Examined,
    pub(crate) metrics: Arc<Metrics>,
    /// True once the peer leaves: watchers are sent to another one.
    pub(crate) draining: channel::Receiver<bool>,
    /// For pictures that clients send.
    pub(crate) turns: pictures::Turns,
    /// From the configuration; it holds until the cluster has settings.
    pub(crate) attempts_max: u32,
    /// Bytes of unfinished jobs above which new ones are refused.
    pub(crate) unfinished_bytes_max: u64,
    /// The newest entry that this gateway told a client of: whoever asks for it here waits until it
    /// is
    /// in the view.
    pub(crate) acknowledged: AtomicU64,
}

impl Gateway {
    /// The newest applied state.
    fn view(&self) -> View {
        self.log.view().borrow().clone()
    }

    /// Makes a job id: time first, so that ids sort by age, then chance.
    fn new_job_id(&self) -> JobId {
        let mut chance = [0; 16];
        self.entropy.fill(&mut chance);
        let chance = u128::from_be_bytes(chance) >> 48;
        JobId((u128::from(self.clock.wall_ms()) << 80) | chance)
    }

    /// Proposes a command on behalf of a client, and tells its failure as a status. The local view
    /// may
    /// show the entry later: see [`Gateway::catch_up`].
    async fn propose(
        &self,
        command: Command,
        deadline: Duration,
        what: &str,
    ) -> Result<(LogIndex, Reply), Status> {
        match self.proposer.propose_within(command, deadline).await {
            Ok((_, Reply::Refused(refusal))) => Err(error::refused(&refusal)),
            Ok((index, reply)) => {
                self.acknowledged.fetch_max(index.0, Ordering::Relaxed);
                Ok((index, reply))
            }
            Err(failure) => {
                let leader = self.leader.address();
                Err(error::not_proposed(&failure, what, leader.as_deref()))
            }
        }
    }

    /// Waits, not for long, until the local view contains an entry.
    async fn catch_up(&self, index: LogIndex) {
        let mut view = self.log.view();
        let reached = async {
            while view.borrow_and_update().applied < index {
                if view.changed().await.is_err() {
                    return;
                }
            }
        };
        tokio::select! {
            () = reached => {}
            () = self.clock.sleep(CATCH_UP_MAX) => {}
        }
    }

    /// Waits until the local view has come as far as a client has seen elsewhere.
    ///
    /// # Errors
    /// UNAVAILABLE when this peer lags for long: another one may be ahead.
    async fn reach(&self, index: LogIndex) -> Result<(), Status> {
        self.catch_up(index).await;
        let applied = self.view().applied;
        if applied >= index {
            return Ok(());
        }
        let text =
            format!("this peer has come to index {}, not to {}; try another", applied.0, index.0);
        Err(unavailable(text, self.leader.address().as_deref()))
    }

    /// Refuses a read that must be of what is agreed upon now, where this peer follows nobody: it may be cut off, or
    /// removed, and what it knows may be of yesterday. The metadata `atelier-stale` takes it as it is.
    ///
    /// # Errors
    /// UNAVAILABLE: another peer may know more.
    fn check_fresh(&self, metadata: &MetadataMap) -> Result<(), Status> {
        let status = self.log.status();
        let status = status.borrow();
        if status.leader.is_some() || metadata.contains_key(STALE_KEY) {
            return Ok(());
        }
        let (node, applied) = (status.node, self.log.view().borrow().applied.0);
        let text = format!(
            "node {node} follows no leader, so what it knows, up to entry {applied}, may be old; ask another peer, or \
             take it as it is (`--stale`, or the metadata `{STALE_KEY}`)"
        );
        Err(unavailable(text, None))
    }

    /// Waits until the local view has a change that was made, so that the answer shows it.
    ///
    /// # Errors
    /// DEADLINE_EXCEEDED when this peer lags for long: it cannot tell what came of the change, and a repeat at another
    /// peer finds it made.
    async fn show(&self, index: LogIndex, what: &str) -> Result<(), Status> {
        self.catch_up(index).await;
        let applied = self.view().applied;
        if applied >= index {
            return Ok(());
        }
        let text = format!(
            "{what}: it is in the log as entry {}, and this peer has come to {}; ask another one",
            index.0, applied.0
        );
        let leader = self.leader.address();
        Err(error::status(Code::DeadlineExceeded, text, leader.as_deref(), None))
    }

    /// Makes sure that a job which the local view does not know is not known to the leader either.
    ///
    /// # Errors
    /// NOT_FOUND when it does not exist; UNAVAILABLE when the leader could not be asked.
    async fn find(&self, job: JobId) -> Result<View, Status> {
        let view = self.view();
        if view.state.job(job).is_some() {
            return Ok(view);
        }
        self.catch_up(LogIndex(self.acknowledged.load(Ordering::Relaxed))).await;
        let view = self.view();
        if view.state.job(job).is_some() {
            return Ok(view);
        }
        let last = self.leader.last_index(CATCH_UP_MAX).await.map_err(|_| {
            let text = format!(
                "job {job} is not known here, and the leader could not be asked; try another peer"
            );
            unavailable(text, self.leader.address().as_deref())
        })?;
        self.catch_up(last).await;
        let view = self.view();
        match view.state.job(job) {
            Some(_) => Ok(view),
            None if view.applied < last => {
                let text = format!("job {job} is not known here, and this peer lags; try another");
                Err(unavailable(text, self.leader.address().as_deref()))
            }
            None => Err(not_found(job)),
        }
    }
}

fn not_found(job: JobId) -> Status {
    let text = format!("no job {job}; it was never accepted, or it is past its retention");
    Status::not_found(text)
}

/// How long a call may be held: its client's `grpc-timeout` less what the answer needs, or a
/// default.
fn deadline_of(metadata: &MetadataMap) -> Duration {
    let asked = metadata.get("grpc-timeout").and_then(|value| value.to_str().ok());
    let asked = asked.and_then(timeout_of).unwrap_or(DEADLINE_DEFAULT).min(DEADLINE_MAX);
    // The server drops a call at its timeout; our own answer, which names the job, must come
    // before.
    asked - (asked / 10).min(Duration::from_millis(200))
}

/// Reads a `grpc-timeout`: up to eight digits and a unit.
fn timeout_of(text: &str) -> Option<Duration> {
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let number: u64 = digits.parse().ok().filter(|_| digits.len() <= 8)?;
    match unit {
        "H" => Some(Duration::from_secs(number * 3_600)),
        "M" => Some(Duration::from_secs(number * 60)),
        "S" => Some(Duration::from_secs(number)),
        "m" => Some(Duration::from_millis(number)),
        "u" => Some(Duration::from_micros(number)),
        "n" => Some(Duration::from_nanos(number)),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
