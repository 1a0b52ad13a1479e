//! Proposals that meet share an entry.
//!
//! ```text
//!   propose ─► waiting ─► one entry of all that fits ─► openraft ─► replies, each to its proposal
//! ```
//!
//! An entry costs every peer about the same whether it holds one command or a hundred. So a few go
//! at a time, and what is proposed meanwhile, by clients, workers and the leader's own loops, goes
//! into the next one together. Nothing waits while there is room. Refused: one at a time unless
//! full, as TCP treats small packets; it made fewer entries, and 64 clients waited longer.

use super::codec;
use super::node::Home;
use super::types::{Commands, Raft};
use crate::ports::{ProposeError, Proposed};
use crate::tasks;
use atelier_state::{LogIndex, Reply, limits};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;

/// Entries under way. Filled while the disk or a quorum is slow; at the bound proposals wait.
const ENTRIES_IN_FLIGHT_MAX: usize = 3;
/// Proposals that wait. Filled behind entries under way; at the bound whoever proposes waits.
const PROPOSALS_WAITING_MAX: usize = 1_024;

/// The way of proposals into entries. It ends with its last clone.
#[derive(Clone)]
pub(super) struct Confluence {
    proposals: mpsc::Sender<Proposal>,
}

struct Proposal {
    commands: Commands,
    answer: oneshot::Sender<Outcome>,
}

type Outcome = Result<Proposed, ProposeError>;

impl Confluence {
    /// Starts where Raft runs.
    pub(super) fn start(home: &Home, raft: Raft) -> Confluence {
        let (proposals, waiting) = mpsc::channel(PROPOSALS_WAITING_MAX);
        home.spawn(run(waiting, raft));
        Confluence { proposals }
    }

    /// Proposes commands that are within the bounds of an entry.
    ///
    /// # Cancel safety
    /// The commands may be applied after the future was dropped.
    pub(super) async fn propose(&self, commands: Commands) -> Outcome {
        let (answer, answered) = oneshot::channel();
        let sent = self.proposals.send(Proposal { commands, answer }).await;
        if sent.is_err() {
            return Err(stopped());
        }
        // Whoever holds the answer ends only with the runtime.
        answered.await.unwrap_or_else(|_| Err(stopped()))
    }
}

fn stopped() -> ProposeError {
    ProposeError::Stopped("this node has stopped".to_owned())
}

async fn run(mut waiting: mpsc::Receiver<Proposal>, raft: Raft) {
    let mut gathering = Gathering::default();
    let mut under_way = JoinSet::new();
    loop {
        if gathering.is_due(under_way.len()) {
            under_way.spawn(tasks::joined(write(raft.clone(), gathering.take())));
            continue;
        }
        tokio::select! {
            biased;
            Some(landed) = under_way.join_next() => {
                if let Err(error) = landed {
                    tracing::error!(%error, "an entry's proposal died");
                }
            }
            proposal = waiting.recv(), if gathering.next.is_none() => match proposal {
                Some(proposal) => {
                    gathering.push(proposal);
                    // Whatever has come at the same time goes along.
                    while gathering.next.is_none() && let Ok(proposal) = waiting.try_recv() {
                        gathering.push(proposal);
                    }
                }
                None => return,
            },
        }
    }
}

/// What goes into the next entry.
#[derive(Default)]
struct Gathering {
    together: Vec<Proposal>,
    commands: usize,
    bytes: usize,
    /// What did not fit, and begins the one after.
    next: Option<Proposal>,
}

impl Gathering {
    fn push(&mut self, proposal: Proposal) {
        let (commands, bytes) = (proposal.commands.len(), bytes_of(&proposal));
        let fits = self.commands + commands <= limits::ENTRY_COMMANDS_MAX
            && self.bytes + bytes <= limits::ENTRY_BYTES_MAX;
        if fits {
            self.commands += commands;
            self.bytes += bytes;
            self.together.push(proposal);
        } else {
            self.next = Some(proposal);
        }
    }

    fn is_due(&self, under_way: usize) -> bool {
        !self.together.is_empty() && under_way < ENTRIES_IN_FLIGHT_MAX
    }

    fn take(&mut self) -> Vec<Proposal> {
        let together = std::mem::take(&mut self.together);
        let next = self.next.take();
        *self = Gathering::default();
        next.into_iter().for_each(|next| self.push(next));
        together
    }
}

fn bytes_of(proposal: &Proposal) -> usize {
    proposal.commands.encoded(codec::encode_commands).len()
}

async fn write(raft: Raft, mut together: Vec<Proposal>) {
    // Whoever gave up needs no entry.
    together.retain(|proposal| !proposal.answer.is_closed());
    if together.is_empty() {
        return;
    }
    let commands = match &together[..] {
        [one] => one.commands.clone(),
        several => codec::join_commands(several.iter().map(|proposal| &proposal.commands)),
    };
    let written = tokio::select! {
        biased;
        written = raft.client_write(commands) => written,
        // Without a quorum an entry may stay under way for ever; nobody waits for this one any more.
        () = all_gone(&mut together) => return,
    };
    match written {
        Ok(written) => {
            let log_index = LogIndex(written.log_id.index());
            answer(together, log_index, written.data);
        }
        Err(error) => {
            let error = super::node::propose_error(error);
            together.into_iter().for_each(|proposal| {
                // Whoever proposed may have given up.
                let _ = proposal.answer.send(Err(error.clone()));
            });
        }
    }
}

async fn all_gone(together: &mut [Proposal]) {
    for proposal in together {
        proposal.answer.closed().await;
    }
}

/// Gives each proposal its replies.
fn answer(together: Vec<Proposal>, log_index: LogIndex, replies: Vec<Reply>) {
    let mut replies = replies.into_iter();
    for Proposal { commands, answer } in together {
        let replies: Vec<Reply> = replies.by_ref().take(commands.len()).collect();
        assert_eq!(replies.len(), commands.len(), "each command has a reply");
        // Whoever proposed may have given up.
        let _ = answer.send(Ok(Proposed { log_index, replies }));
    }
}
