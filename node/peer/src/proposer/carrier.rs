//! Carries one batch to the leader, wherever that is, until it has replies or nobody waits any
//! more.
//!
//! Owns the attempts. What one attempt tells: replies, *not taken* (nothing was applied), *unknown*
//! (it may have been), or that there is no point in going on. Only after *unknown* is a command
//! doubtful, and it stays so.

use super::{Ask, ProposeFailure, ProposerParts, ProposerSettings};
use crate::peer_service::LEADER_METADATA;
use crate::ports::{ProposeError, Proposed, Purpose, RaftStatus};
use crate::raft::codec::{command_to_proto, reply_from_proto};
use atelier_proto::peer::v1::{ProposeReply, ProposeRequest};
use atelier_state::command::Command;
use atelier_state::reply::LogIndex;
use atelier_state::roster::NodeId;
use std::error::Error;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tonic::{Code, Status};

/// Before the first repeat; doubles, up to the next.
const BACKOFF_FIRST: Duration = Duration::from_millis(10);
const BACKOFF_MAX: Duration = Duration::from_millis(500);
/// After leadership was lost, for replies that are on their way.
const LOST_LEADERSHIP_GRACE: Duration = Duration::from_millis(250);

#[derive(Clone)]
pub(super) struct Carrier {
    parts: ProposerParts,
    settings: ProposerSettings,
}

/// What one attempt told.
enum Outcome {
    Replies(Proposed),
    /// Nothing was applied; perhaps somebody else leads, at this address.
    NotTaken(Option<String>),
    Unknown(String),
    /// Nothing was applied, and a repeat is of no use.
    Hopeless(ProposeFailure),
}

/// Where to.
enum Way {
    Here,
    To(String),
    Nowhere,
}

impl Carrier {
    pub(super) fn new(parts: ProposerParts, settings: ProposerSettings) -> Carrier {
        Carrier { parts, settings }
    }

    pub(super) async fn carry(self: Arc<Self>, mut batch: Vec<Ask>) {
        let mut backoff = BACKOFF_FIRST;
        let mut hint = None;
        loop {
            // Those that gave up need no entry.
            batch.retain(|ask| !ask.answer.is_closed());
            if batch.is_empty() {
                return;
            }
            let before = leadership(&self.parts.log.status().borrow());
            match self.attempt(&batch, before, hint.take()).await {
                Outcome::Replies(proposed) => return answer(batch, proposed),
                Outcome::Hopeless(failure) => return fail(batch, &failure),
                Outcome::NotTaken(address) => hint = address,
                Outcome::Unknown(reason) => {
                    tracing::debug!(reason, commands = batch.len(), "outcome unknown, repeats");
                    batch = give_up_unrepeatable(batch, &reason);
                }
            }
            // A new leader may have been asked a moment too early; what its predecessor's silence
            // cost says nothing about it.
            let is_another = self.wait(before, backoff).await;
            backoff = if is_another { BACKOFF_FIRST } else { (backoff * 2).min(BACKOFF_MAX) };
        }
    }

    async fn attempt(&self, batch: &[Ask], before: Leadership, hint: Option<String>) -> Outcome {
        let way = match way(&self.parts.log.status().borrow(), hint) {
            Ok(way) => way,
            Err(failure) => return Outcome::Hopeless(failure),
        };
        if matches!(way, Way::Nowhere) {
            return Outcome::NotTaken(None);
        }
        let doubts: Vec<bool> =
            batch.iter().map(|ask| ask.doubtful.swap(true, Ordering::SeqCst)).collect();
        let commands = batch.iter().map(|ask| ask.command.clone()).collect();
        let now = self.parts.clock.now();
        let latest = batch.iter().map(|ask| ask.deadline).max().unwrap_or(now);
        let within = latest.saturating_sub(now);
        let outcome = match way {
            Way::Here => self.propose_here(commands, within).await,
            Way::To(address) => tokio::select! {
                biased;
                outcome = self.forward(&address, commands, within) => outcome,
                // One that is frozen would keep the call for all its time.
                () = self.another_leads(before) => {
                    Outcome::Unknown("the leader changed meanwhile".to_owned())
                }
            },
            Way::Nowhere => unreachable!("left above"),
        };
        if matches!(outcome, Outcome::NotTaken(_) | Outcome::Hopeless(_)) {
            for (ask, doubt) in batch.iter().zip(doubts) {
                ask.doubtful.store(doubt, Ordering::SeqCst);
            }
        }
        outcome
    }

    async fn propose_here(&self, commands: Vec<Command>, within: Duration) -> Outcome {
        let expected = commands.len();
        let mut status = self.parts.log.status();
        let lost = async {
            // An error means that the log is gone, which is a loss too.
            let _ = status.wait_for(|status| !status.is_leader).await;
            self.parts.clock.sleep(LOST_LEADERSHIP_GRACE).await;
        };
        let result = tokio::select! {
            biased;
            result = self.parts.log.propose(commands) => result,
            () = lost => return Outcome::Unknown("leadership was lost".to_owned()),
            () = self.parts.clock.sleep(within) => {
                return Outcome::Unknown("no quorum answered in time".to_owned());
            }
        };
        match result {
            Ok(proposed) if proposed.replies.len() == expected => Outcome::Replies(proposed),
            Ok(proposed) => {
                let got = proposed.replies.len();
                Outcome::Unknown(format!("{got} replies to {expected} commands"))
            }
            Err(ProposeError::NotLeader { leader }) => {
                Outcome::NotTaken(leader.map(|(_, address)| address))
            }
            Err(ProposeError::Refused(reason)) => {
                Outcome::Hopeless(ProposeFailure::Refused(reason))
            }
            Err(ProposeError::Unknown(reason)) => Outcome::Unknown(reason),
            // Its outcome is unknown, and the next attempt finds the reason in the status.
            Err(ProposeError::Stopped(reason)) => Outcome::Unknown(reason),
        }
    }

    async fn forward(&self, address: &str, commands: Vec<Command>, within: Duration) -> Outcome {
        let expected = commands.len();
        let within = within.min(self.settings.forward);
        let mut peer = match self.parts.lines.peer(address, Purpose::Control) {
            Ok(peer) => peer,
            Err(error) => {
                tracing::warn!(%error, "the leader cannot be called");
                return Outcome::NotTaken(None);
            }
        };
        let commands = commands.iter().map(command_to_proto).collect();
        let cluster = self.settings.cluster.clone();
        let mut request = tonic::Request::new(ProposeRequest { cluster, commands });
        request.set_timeout(within);
        tokio::select! {
            biased;
            result = peer.propose(request) => match result {
                Ok(reply) => replies(reply.into_inner(), expected),
                Err(status) => refusal(&status),
            },
            () = self.parts.clock.sleep(within) => {
                Outcome::Unknown("the leader did not answer in time".to_owned())
            }
        }
    }

    /// Returns when this node has another leader than before.
    async fn another_leads(&self, before: Leadership) {
        let mut status = self.parts.log.status();
        let changed = |status: &RaftStatus| status.leader.is_some() && leadership(status) != before;
        if status.wait_for(changed).await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// Waits for another leader, but no longer than the back-off with its jitter; says whether one
    /// came.
    async fn wait(&self, before: Leadership, backoff: Duration) -> bool {
        let mut random = [0; 1];
        self.parts.entropy.fill(&mut random);
        let wait = backoff / 2 + backoff * u32::from(random[0]) / 512;
        let mut status = self.parts.log.status();
        tokio::select! {
            biased;
            Ok(_) = status.wait_for(|status| leadership(status) != before) => true,
            () = self.parts.clock.sleep(wait) => false,
        }
    }
}

/// Who leads, and whether this node may propose.
type Leadership = (Option<NodeId>, bool);

fn leadership(status: &RaftStatus) -> Leadership {
    (status.leader, status.is_leader)
}

fn way(status: &RaftStatus, hint: Option<String>) -> Result<Way, ProposeFailure> {
    if let Some(reason) = &status.stopped {
        return Err(ProposeFailure::Stopped(reason.clone()));
    }
    if status.is_leader {
        return Ok(Way::Here);
    }
    let other = status.leader.filter(|leader| *leader != status.node);
    let address = other.and_then(|leader| status.addresses.get(&leader).cloned());
    // A hint is newer than what this node has heard; it never leads back here.
    let own = status.addresses.get(&status.node);
    let hint = hint.filter(|hint| Some(hint) != own);
    Ok(hint.or(address).map_or(Way::Nowhere, Way::To))
}

fn replies(reply: ProposeReply, expected: usize) -> Outcome {
    let got = reply.replies.len();
    let read: Result<Vec<_>, _> = reply.replies.into_iter().map(reply_from_proto).collect();
    match read {
        Ok(replies) if got == expected => {
            Outcome::Replies(Proposed { log_index: LogIndex(reply.log_index), replies })
        }
        Ok(_) => Outcome::Unknown(format!("{got} replies to {expected} commands")),
        Err(error) => Outcome::Unknown(format!("the leader's reply cannot be read: {error}")),
    }
}

/// Reads a status. Whatever does not say for certain that nothing was applied is unknown.
fn refusal(status: &Status) -> Outcome {
    match status.code() {
        Code::FailedPrecondition => {
            let leader = status.metadata().get(LEADER_METADATA);
            Outcome::NotTaken(leader.and_then(|text| text.to_str().ok()).map(str::to_owned))
        }
        Code::ResourceExhausted => Outcome::NotTaken(None),
        Code::InvalidArgument | Code::PermissionDenied => {
            Outcome::Hopeless(ProposeFailure::Refused(status.message().to_owned()))
        }
        _ if never_connected(status) => Outcome::NotTaken(None),
        code => Outcome::Unknown(format!("the leader answered {code:?}: {}", status.message())),
    }
}

fn never_connected(status: &Status) -> bool {
    let mut cause = status.source();
    while let Some(error) = cause {
        if error.is::<tonic::ConnectError>() {
            return true;
        }
        cause = error.source();
    }
    false
}

/// Answers those which must not be repeated: each AllocateNode that is applied reserves another id.
fn give_up_unrepeatable(batch: Vec<Ask>, reason: &str) -> Vec<Ask> {
    let (unrepeatable, rest) =
        batch.into_iter().partition(|ask| matches!(ask.command, Command::AllocateNode(_)));
    fail(unrepeatable, &ProposeFailure::Unknown(reason.to_owned()));
    rest
}

fn answer(batch: Vec<Ask>, proposed: Proposed) {
    assert_eq!(batch.len(), proposed.replies.len());
    for (ask, reply) in batch.into_iter().zip(proposed.replies) {
        // The caller may have given up meanwhile.
        let _ = ask.answer.send(Ok((proposed.log_index, reply)));
    }
}

fn fail(batch: Vec<Ask>, failure: &ProposeFailure) {
    for ask in batch {
        let failure = match failure {
            // What an earlier attempt may have done is not undone by the last one.
            failure if ask.doubtful.load(Ordering::SeqCst) => {
                ProposeFailure::Unknown(failure.to_string())
            }
            failure => failure.clone(),
        };
        let _ = ask.answer.send(Err(failure));
    }
}
