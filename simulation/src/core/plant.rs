//! Bugs to be planted, to see that the rig finds them. Nothing here is ever part of a product run.

use atelier_state::limits::SLOTS_MAX;
use atelier_state::{
    Assign, Cancel, Command, Complete, Forget, Job, LogIndex, Phase, Refusal, RegisterNode, Reply,
    Revoke, RevokeReason, Snapshot, State,
};
use std::sync::Arc;

/// A bug that a product could have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Plant {
    /// A late Complete is accepted under the newest token.
    AcceptStaleToken,
    /// A leased job can be leased again.
    AssignTwice,
    /// A revoked job is dropped.
    LoseRevoked,
    /// Idempotency keys are not looked at.
    IgnoreKeys,
    /// A Complete of a cancelled job is told to be done.
    CompleteCancelled,
    /// A submit is acknowledged on arrival, before it is committed.
    AcknowledgeEarly,
    /// A worker forgets an attempt when it is answered, and sees its lease in an older view again.
    BeginAgain,
    /// A second attempt draws other bytes than the first would have.
    ForgetfulEngine,
    /// A worker proposes its result once, and never again when there is no answer.
    NeverRetry,
    /// A repeat of a submit, when the job has ended, makes it anew.
    SubmitAgain,
    /// A node is given more leases than it has slots.
    IgnoreSlots,
    /// A Cancel that comes too late is told to be done.
    CancelEnded,
    /// A leader that is not the first hears no signs of life.
    DeafLeader,
    /// A snapshot makes every waiting job as young as the newest.
    ForgetAge,
    /// A snapshot drops the keys of forgotten jobs.
    ForgetKeys,
    /// A snapshot lacks the field that tells of a job's back-off.
    ForgetBackoff,
    /// The leader ends no back-off.
    NeverRelease,
}

impl Plant {
    /// All of them.
    pub const ALL: [Plant; 17] = [
        Plant::AcceptStaleToken,
        Plant::AssignTwice,
        Plant::LoseRevoked,
        Plant::IgnoreKeys,
        Plant::CompleteCancelled,
        Plant::AcknowledgeEarly,
        Plant::BeginAgain,
        Plant::ForgetfulEngine,
        Plant::NeverRetry,
        Plant::SubmitAgain,
        Plant::IgnoreSlots,
        Plant::CancelEnded,
        Plant::DeafLeader,
        Plant::ForgetAge,
        Plant::ForgetKeys,
        Plant::ForgetBackoff,
        Plant::NeverRelease,
    ];
}

/// Spoils a snapshot as a product with the bug would.
pub(crate) fn spoil(snapshot: &mut Snapshot, plant: Option<Plant>) {
    let assigned = snapshot.assigned;
    let waiting = snapshot.jobs.iter_mut().filter(|job| job.phase == Phase::Queued);
    match plant {
        Some(Plant::ForgetAge) => waiting.for_each(|job| Arc::make_mut(job).stamp = assigned),
        Some(Plant::ForgetBackoff) => waiting.for_each(|job| Arc::make_mut(job).retry_at_ms = 0),
        Some(Plant::ForgetKeys) => snapshot.keys.clear(),
        _ => {}
    }
}

/// Applies a command as a state with the bug would.
pub(crate) fn apply(
    state: &mut State,
    index: LogIndex,
    command: &Command,
    plant: Option<Plant>,
) -> Reply {
    match (plant, command) {
        (Some(Plant::AcceptStaleToken), Command::Complete(it)) => complete_late(state, index, it),
        (Some(Plant::AssignTwice), Command::Assign(it)) => assign_again(state, index, it),
        (Some(Plant::LoseRevoked), Command::Revoke(it)) => revoke_and_drop(state, index, it),
        (Some(Plant::IgnoreKeys), Command::Submit(it)) => {
            let mut submit = it.clone();
            submit.idempotency_key = None;
            state.apply(index, &Command::Submit(submit))
        }
        (Some(Plant::CompleteCancelled), Command::Complete(it)) => {
            let is_cancelled = state.job(it.job).is_some_and(|job| job.phase == Phase::Cancelled);
            let reply = state.apply(index, command);
            if is_cancelled { Reply::Done } else { reply }
        }
        (Some(Plant::SubmitAgain), Command::Submit(it)) => {
            // Forget leaves alone what has not ended.
            state.apply(index, &Command::Forget(Forget { jobs: vec![it.job] }));
            state.apply(index, command)
        }
        (Some(Plant::IgnoreSlots), Command::Assign(it)) => assign_anyway(state, index, it),
        (Some(Plant::CancelEnded), Command::Cancel(_)) => match state.apply(index, command) {
            Reply::Refused(Refusal::Terminal) => Reply::Done,
            reply => reply,
        },
        _ => state.apply(index, command),
    }
}

fn assign_anyway(state: &mut State, index: LogIndex, assign: &Assign) -> Reply {
    let command = Command::Assign(assign.clone());
    let reply = state.apply(index, &command);
    let node = state.node(assign.node).cloned();
    let (Reply::Refused(Refusal::NoSlot), Some(node)) = (&reply, node) else { return reply };
    let registered = |slots| {
        Command::RegisterNode(RegisterNode {
            node: assign.node,
            address: node.address.clone(),
            incarnation: node.incarnation,
            slots,
            class: node.class.clone(),
            model: node.model.clone(),
            witness: false,
        })
    };
    state.apply(index, &registered(SLOTS_MAX));
    let reply = state.apply(index, &command);
    state.apply(index, &registered(node.slots));
    reply
}

fn complete_late(state: &mut State, index: LogIndex, complete: &Complete) -> Reply {
    let reply = state.apply(index, &Command::Complete(complete.clone()));
    let lease = state.job(complete.job).and_then(Job::lease).copied();
    match (&reply, lease) {
        (Reply::Refused(Refusal::StaleToken(_)), Some(lease)) => {
            let complete = Complete { token: lease.token, ..complete.clone() };
            state.apply(index, &Command::Complete(complete))
        }
        _ => reply,
    }
}

fn assign_again(state: &mut State, index: LogIndex, assign: &Assign) -> Reply {
    if let Some(lease) = state.job(assign.job).and_then(Job::lease).copied() {
        let (token, reason) = (lease.token, RevokeReason::Silent);
        state.apply(index, &Command::Revoke(Revoke { job: assign.job, token, reason }));
    }
    state.apply(index, &Command::Assign(assign.clone()))
}

fn revoke_and_drop(state: &mut State, index: LogIndex, revoke: &Revoke) -> Reply {
    let reply = state.apply(index, &Command::Revoke(revoke.clone()));
    if reply == Reply::Done {
        let (reason, finished_ms) = (String::new(), 1);
        state.apply(index, &Command::Cancel(Cancel { job: revoke.job, reason, finished_ms }));
        state.apply(index, &Command::Forget(Forget { jobs: vec![revoke.job] }));
    }
    reply
}
