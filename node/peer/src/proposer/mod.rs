//! How anyone in a peer gets a command into the replicated log, wherever the leader is.
//!
//! ```text
//!   propose ─► queue ─► Batcher ─► carriers ─┬─► Log::propose      here, when leading
//!                                  ▲     │  └─► Peer.Propose      else, one hop
//!                                  └─────┘ back-off, held over an election
//! ```
//!
//! Owns batching, the way to the leader, and the memory of what may have been applied. It must not
//! know what a command means, but for one thing: all but AllocateNode may be repeated, since they
//! name a job or a token or a node, and `apply` knows what it has seen. Order is kept within a
//! batch and not between batches; whoever needs an order waits for the answer before the next
//! command.

mod batcher;
mod carrier;

use crate::lines::Lines;
use crate::ports::{Clock, Entropy, Log};
use crate::tasks;
use atelier_state::Author;
use atelier_state::command::{Command, Submit};
use atelier_state::limits::ENTRY_BYTES_MAX;
use atelier_state::reply::{LogIndex, Reply};
use batcher::{Batcher, Next};
use carrier::Carrier;
use futures_util::FutureExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::task::{JoinHandle, JoinSet};
use tokio_util::sync::CancellationToken;

/// Commands that wait to be batched. Filled by clients faster than the log takes them, or while
/// there is no leader; at the brim a command is refused with [`ProposeFailure::Busy`].
pub const COMMANDS_WAITING_MAX: usize = 4096;
/// Commands that come together in one call. More are a fault of the caller.
pub const COMMANDS_TOGETHER_MAX: usize = 1_000;
/// Commands at a time that came together with others. Filled by clients that submit batches; at the
/// brim a call waits, so that commands that come alone find room.
const TOGETHER_MAX: usize = 3 * COMMANDS_TOGETHER_MAX;

const _: () = assert!(TOGETHER_MAX < COMMANDS_WAITING_MAX);
const _: () = assert!(TOGETHER_MAX <= u32::MAX as usize);

/// What the proposer works with.
#[derive(Clone)]
pub struct ProposerParts {
    /// This node's log.
    pub log: Arc<dyn Log>,
    /// The way to other peers.
    pub lines: Arc<Lines>,
    /// For deadlines and back-off.
    pub clock: Arc<dyn Clock>,
    /// For jitter.
    pub entropy: Arc<dyn Entropy>,
}

/// How patient the proposer is.
#[derive(Clone, Debug)]
pub struct ProposerSettings {
    /// Name of the cluster; a leader of another one refuses.
    pub cluster: String,
    /// For callers that set none. Default 10 s: several elections.
    pub deadline: Duration,
    /// For one call to the leader. Default 3 s; then it is asked again, whoever it is by then.
    pub forward: Duration,
}

impl ProposerSettings {
    /// Makes the defaults for a cluster.
    pub fn new(cluster: impl Into<String>) -> ProposerSettings {
        ProposerSettings {
            cluster: cluster.into(),
            deadline: Duration::from_secs(10),
            forward: Duration::from_secs(3),
        }
    }
}

/// Why a command has no reply. A refusal by `apply` is a reply.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProposeFailure {
    /// Too many commands wait here; nothing was proposed. Try again later.
    #[error("{COMMANDS_WAITING_MAX} commands wait for the log, the bound; try again later")]
    Busy,
    /// The command is larger than a log entry; nothing was proposed, and a repeat is of no use.
    #[error("{0}")]
    Refused(String),
    /// No leader took the command before the deadline; nothing was applied. Try again later.
    #[error("no leader took the command in time; try again later")]
    Unavailable,
    /// The command may be applied or not. Repeat it with the same ids, or look.
    #[error("the outcome is unknown: {0}; try again with the same id")]
    Unknown(String),
    /// This peer is stopping or has failed; nothing was applied through it. Ask another peer.
    #[error("this peer takes no commands any more: {0}")]
    Stopped(String),
}

/// The way into the log. Clones share one queue.
#[derive(Clone)]
pub struct Proposer {
    asks: mpsc::Sender<Ask>,
    together: Arc<Semaphore>,
    clock: Arc<dyn Clock>,
    deadline: Duration,
}

impl Proposer {
    /// Starts the proposer's loop; it runs until `shutdown`. Join the handle afterwards.
    ///
    /// Cancel it after the supervisor was joined, which still proposes while it drains.
    pub fn spawn(
        parts: ProposerParts,
        settings: ProposerSettings,
        shutdown: CancellationToken,
    ) -> (Proposer, JoinHandle<()>) {
        let (asks, waiting) = mpsc::channel(COMMANDS_WAITING_MAX);
        let clock = parts.clock.clone();
        let deadline = settings.deadline;
        let carrier = Arc::new(Carrier::new(parts, settings));
        let task = tasks::spawn(run(waiting, clock.clone(), carrier, shutdown));
        let together = Arc::new(Semaphore::new(TOGETHER_MAX));
        (Proposer { asks, together, clock, deadline }, task)
    }

    /// Proposes a command within the default deadline; see [`Proposer::propose_within`].
    ///
    /// # Errors
    /// As [`Proposer::propose_within`].
    pub async fn propose(&self, command: Command) -> Result<(LogIndex, Reply), ProposeFailure> {
        self.propose_within(command, self.deadline).await
    }

    /// Proposes a command and returns its reply and the index of its entry. While there is no
    /// leader the command is held; while its outcome is unknown it is repeated, but for
    /// AllocateNode.
    ///
    /// # Errors
    /// - [`ProposeFailure::Busy`], [`ProposeFailure::Unavailable`], [`ProposeFailure::Stopped`]:
    ///   nothing was applied.
    /// - [`ProposeFailure::Refused`]: nothing was applied, and never will be.
    /// - [`ProposeFailure::Unknown`]: repeat it with the same ids.
    ///
    /// # Cancel safety
    /// The command may be applied after the future was dropped.
    pub async fn propose_within(
        &self,
        command: Command,
        within: Duration,
    ) -> Result<(LogIndex, Reply), ProposeFailure> {
        let (ask, answer) = self.ask(command, within)?;
        self.asks.try_send(ask).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => ProposeFailure::Busy,
            mpsc::error::TrySendError::Closed(_) => stopping(),
        })?;
        answer.by(self.clock.sleep(within), within).await
    }

    /// Proposes many commands and returns an outcome for each, in their order. They share entries
    /// as their size allows; each is accepted or refused on its own.
    ///
    /// So many commands go at a time, and further calls wait, so that they do not crowd out commands
    /// that come alone.
    ///
    /// # Errors
    /// Of each as [`Proposer::propose_within`], but for [`ProposeFailure::Busy`].
    ///
    /// # Panics
    /// Above [`COMMANDS_TOGETHER_MAX`] commands.
    ///
    /// # Cancel safety
    /// Any of them may be applied after the future was dropped.
    pub async fn propose_all(
        &self,
        commands: Vec<Command>,
        within: Duration,
    ) -> Vec<Result<(LogIndex, Reply), ProposeFailure>> {
        assert!(commands.len() <= COMMANDS_TOGETHER_MAX, "the caller splits what is more");
        let count = u32::try_from(commands.len()).expect("checked above");
        let late = self.clock.sleep(within).shared();
        let _permits = tokio::select! {
            biased;
            permits = self.together.acquire_many(count) => permits,
            () = late.clone() => {
                return commands.iter().map(|_| Err(ProposeFailure::Unavailable)).collect();
            }
        };
        let mut asked = Vec::with_capacity(commands.len());
        for command in commands {
            asked.push(match self.ask(command, within) {
                Ok((ask, answer)) => tokio::select! {
                    biased;
                    sent = self.asks.send(ask) => sent.map(|()| answer).map_err(|_| stopping()),
                    () = late.clone() => Err(ProposeFailure::Unavailable),
                },
                Err(failure) => Err(failure),
            });
        }
        let mut outcomes = Vec::with_capacity(asked.len());
        for asked in asked {
            outcomes.push(match asked {
                Ok(answer) => answer.by(late.clone(), within).await,
                Err(failure) => Err(failure),
            });
        }
        outcomes
    }

    fn ask(&self, command: Command, within: Duration) -> Result<(Ask, Answer), ProposeFailure> {
        let bytes = bytes_of(&command);
        if bytes > ENTRY_BYTES_MAX {
            return Err(ProposeFailure::Refused(format!(
                "the request has {bytes} bytes, at most {ENTRY_BYTES_MAX} fit into a log entry"
            )));
        }
        let doubtful = Arc::new(AtomicBool::new(false));
        let (answer, answered) = oneshot::channel();
        let deadline = self.clock.now() + within;
        let ask = Ask { command, deadline, doubtful: doubtful.clone(), answer };
        Ok((ask, Answer { doubtful, answered }))
    }
}

/// One command with its way back.
#[derive(Debug)]
struct Ask {
    command: Command,
    // Of the port's monotonic clock. The caller judges it; here it bounds an attempt.
    deadline: Duration,
    // Some attempt may have been applied.
    doubtful: Arc<AtomicBool>,
    answer: oneshot::Sender<Result<(LogIndex, Reply), ProposeFailure>>,
}

/// Where the outcome of a command comes.
struct Answer {
    doubtful: Arc<AtomicBool>,
    answered: oneshot::Receiver<Outcome>,
}

type Outcome = Result<(LogIndex, Reply), ProposeFailure>;

impl Answer {
    /// Waits for the outcome, but for no longer than `late` does.
    async fn by(mut self, late: impl Future<Output = ()>, within: Duration) -> Outcome {
        tokio::select! {
            biased;
            result = &mut self.answered => self.came(result),
            () = late => Err(self.missed(within)),
        }
    }

    fn came(&self, result: Result<Outcome, oneshot::error::RecvError>) -> Outcome {
        match result {
            Ok(outcome) => outcome,
            Err(_) if self.is_doubtful() => {
                Err(ProposeFailure::Unknown("this peer stops".to_owned()))
            }
            Err(_) => Err(stopping()),
        }
    }

    fn missed(&self, within: Duration) -> ProposeFailure {
        match self.is_doubtful() {
            true => ProposeFailure::Unknown(format!("no answer within {within:?}")),
            false => ProposeFailure::Unavailable,
        }
    }

    fn is_doubtful(&self) -> bool {
        self.doubtful.load(Ordering::SeqCst)
    }
}

fn stopping() -> ProposeFailure {
    ProposeFailure::Stopped("it is shutting down".to_owned())
}

/// The event loop: gathers, and lets carriers go.
async fn run(
    mut waiting: mpsc::Receiver<Ask>,
    clock: Arc<dyn Clock>,
    carrier: Arc<Carrier>,
    shutdown: CancellationToken,
) {
    let mut batcher = Batcher::default();
    // Dropping the set at the end aborts its carriers, and with them their callers' wait.
    let mut carriers = JoinSet::new();
    loop {
        let wait = match batcher.next(clock.now()) {
            Next::Send(batch) => {
                carriers.spawn(tasks::joined(carrier.clone().carry(batch)));
                continue;
            }
            Next::Wait(wait) => wait,
        };
        tokio::select! {
            biased;
            () = shutdown.cancelled() => break,
            Some(landed) = carriers.join_next() => {
                if let Err(error) = landed {
                    tracing::error!(%error, "a carrier of proposals died");
                }
                batcher.landed();
            }
            ask = waiting.recv(), if batcher.has_room() => {
                let Some(ask) = ask else { break };
                take(&mut batcher, ask, clock.now());
                // Whatever has come at the same time goes along.
                while batcher.has_room() && let Ok(ask) = waiting.try_recv() {
                    take(&mut batcher, ask, clock.now());
                }
            }
            () = clock.sleep(wait.unwrap_or_default()), if wait.is_some() => {}
        }
    }
    carriers.shutdown().await;
}

fn take(batcher: &mut Batcher<Ask>, ask: Ask, now: Duration) {
    let bytes = bytes_of(&ask.command);
    batcher.push(ask, bytes, now);
}

/// Bounds a command's bytes in an entry from above: tags and numbers are counted at their longest.
fn bytes_of(command: &Command) -> usize {
    const FIXED: usize = 128;
    const ARTIFACT: usize = 64;
    const HOLDER: usize = 12;
    const JOB: usize = 20;
    const FRAME: usize = 32;
    let varied = match command {
        Command::Submit(submit) => bytes_of_submit(submit),
        Command::Complete(complete) => {
            let artifacts = complete.artifacts.iter();
            let bytes = artifacts.map(|a| ARTIFACT + a.media_type.len() + HOLDER * a.holders.len());
            bytes.sum()
        }
        Command::Fail(fail) => fail.error.len(),
        Command::Cancel(cancel) => cancel.reason.len(),
        Command::Forget(forget) => JOB * forget.jobs.len(),
        Command::AllocateNode(allocate) => allocate.address.len(),
        Command::RegisterNode(node) => node.address.len() + node.class.len() + node.model.len(),
        Command::RemoveNode(remove) => bytes_of_author(&remove.author),
        Command::Release(release) => JOB * release.jobs.len(),
        Command::ForgetKeys(forget) => {
            forget.keys.iter().map(|it| FRAME + it.tenant.len() + it.key.len()).sum()
        }
        Command::SetSettings(set) => {
            let changes = set.changes.iter().map(|change| FRAME + change.key.len());
            changes.sum::<usize>() + bytes_of_author(&set.author)
        }
        Command::SetNode(set) => {
            let labels = set.labels_set.iter().map(|(label, value)| label.len() + value.len());
            let removed = set.labels_removed.iter().map(String::len);
            let texts = labels.chain(removed).map(|bytes| FRAME + bytes);
            texts.sum::<usize>() + bytes_of_author(&set.author)
        }
        Command::NoteAct(note) => note.act.len() + bytes_of_author(&note.author),
        Command::Assign(_)
        | Command::Revoke(_)
        | Command::Expire(_)
        | Command::RaiseFeatures(_)
        | Command::Mark => 0,
    };
    FIXED + varied
}

fn bytes_of_author(author: &Author) -> usize {
    author.who.len() + author.why.len()
}

fn bytes_of_submit(submit: &Submit) -> usize {
    let key = submit.idempotency_key.as_ref().map_or(0, |key| key.len());
    submit.tenant.len()
        + key
        + submit.kind.len()
        + submit.parameters.len()
        + submit.traceparent.len()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::raft::codec::command_to_proto;
    use atelier_state::command::{Complete, Fail, Forget, RegisterNode};
    use atelier_state::job::{ArtifactRef, Digest, JobId};
    use atelier_state::lease::FencingToken;
    use atelier_state::roster::NodeId;
    use prost::Message;

    #[test]
    fn the_bound_of_a_command_is_never_below_its_bytes() {
        let text = |bytes| "x".repeat(bytes);
        let (job, token) = (JobId(u128::MAX), FencingToken(u64::MAX));
        let artifact = ArtifactRef {
            digest: Digest([0xff; 32]),
            bytes: u64::MAX,
            media_type: text(128),
            holders: vec![NodeId(u64::MAX); 8],
        };
        let commands = [
            Command::Submit(Submit {
                job,
                tenant: text(128).into(),
                idempotency_key: Some(text(128).into()),
                priority: 9,
                kind: text(128).into(),
                parameters: vec![7; 16 * 1024].into(),
                traceparent: text(128),
                submitted_ms: u64::MAX,
                attempts_max: u32::MAX,
                deadline_ms: 0,
                max_runtime_s: 0,
                cost: 1,
                retry_of: None,
            }),
            Command::Complete(Complete {
                job,
                token,
                artifacts: vec![artifact; 16],
                finished_ms: u64::MAX,
            }),
            Command::Fail(Fail {
                job,
                token,
                error: text(1024),
                permanent: true,
                finished_ms: u64::MAX,
            }),
            Command::Forget(Forget { jobs: vec![job; 256] }),
            Command::RegisterNode(RegisterNode {
                node: NodeId(u64::MAX),
                address: text(512),
                incarnation: u64::MAX,
                slots: u32::MAX,
                class: text(512),
                model: text(512),
                witness: false,
            }),
        ];
        for command in commands {
            let bytes = command_to_proto(&command).encoded_len();
            // In an entry each command has a tag and a length besides.
            assert!(bytes + 4 <= bytes_of(&command), "{bytes} of {}", bytes_of(&command));
        }
    }
}
