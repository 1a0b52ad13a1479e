//! A job as one copy of it would be: accepted, leased and taken back any number of times, ended once.
//!
//! Two sights of it. Where the history has everything that changes a job, each operation has one
//! effect. Where it has what clients do and no more, workers and the leader move the job unseen:
//! whoever sees it may see any state that such moves lead to, and it goes on from there.

use super::Sight;
use super::wgl;
use crate::operations::{Answer, Call, Key, Operation, Outcome, Phase, Seen};

/// The model.
#[derive(Clone, Copy, Debug)]
pub struct Model {
    /// What the history tells of a job's life.
    pub sight: Sight,
}

/// How a job is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Job {
    /// It was never accepted.
    Absent,
    /// It was accepted, ended and dropped. Its idempotency key may outlive it.
    Forgotten,
    /// It is there.
    There(Life),
}

/// How a job is that is there.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Life {
    /// As whoever looks sees it. Where `is_vague`, at least so far on its way.
    pub seen: Seen,
    /// Failed attempts after which it is failed; 0 where nobody said.
    pub attempts_max: u32,
    /// It has ended, unseen.
    pub is_vague: bool,
    /// How a vague one has ended, where that is known.
    pub ended: Option<Phase>,
}

impl wgl::Model for Model {
    type State = Job;

    fn initial(&self) -> Job {
        Job::Absent
    }

    fn step(&self, state: &Job, operation: &Operation) -> Option<Job> {
        match self.sight {
            Sight::Whole => whole(state, operation),
            Sight::Clients => clients(state, operation),
        }
    }

    fn is_from_the_past(&self, operation: &Operation) -> bool {
        is_from_the_past(self.sight, operation)
    }
}

/// Says whether an answer may be older than its question.
pub fn is_from_the_past(sight: Sight, operation: &Operation) -> bool {
    let is_look = matches!(operation.call, Call::Read | Call::Watch);
    // The views of the core rig's workers are late in this, too; a peer asks its leader.
    is_look && (sight == Sight::Whole || operation.answer() != Some(&Answer::NoJob))
}

/// Makes a job that was just accepted.
pub fn accepted(attempts_max: u32) -> Job {
    let (phase, result) = (Phase::Queued, Vec::new());
    let seen = Seen { phase, token: 0, leases: 0, attempts: 0, result };
    Job::There(Life { seen, attempts_max, is_vague: false, ended: None })
}

/// One step where everything that changes a job is told.
pub fn whole(state: &Job, operation: &Operation) -> Option<Job> {
    let answer = match &operation.outcome {
        Outcome::Ok { answer, .. } => answer,
        Outcome::Refused(why) => return refused(state, operation, why).then(|| state.clone()),
        // What took effect is told by the log.
        Outcome::Unknown(_) => return None,
    };
    match (&operation.call, answer) {
        (Call::Submit { .. }, Answer::Submitted { duplicate: false, .. })
            if names_other(operation) =>
        {
            None
        }
        (Call::Submit { key, attempts_max }, Answer::Submitted { duplicate, .. }) => {
            submitted(state, (key.is_some(), *attempts_max), *duplicate)
        }
        (Call::Read, Answer::NoJob) => life(state).is_none().then(|| state.clone()),
        (Call::Read, Answer::Job(seen)) => {
            life(state).filter(|life| life.seen == *seen).map(|_| state.clone())
        }
        (Call::Forget, Answer::Done) => {
            let is_over = life(state)?.seen.phase.is_terminal();
            is_over.then_some(Job::Forgotten)
        }
        (call, answer) => change(life(state)?, call, answer).map(Job::There),
    }
}

/// Says whether a submission was answered with another job, which had its idempotency key before.
pub fn names_other(operation: &Operation) -> bool {
    match operation.answer() {
        Some(Answer::Submitted { job, .. }) => operation.key != Key::Job(*job),
        _ => false,
    }
}

fn submitted(state: &Job, (has_key, attempts_max): (bool, u32), duplicate: bool) -> Option<Job> {
    match state {
        Job::There(_) => duplicate.then(|| state.clone()),
        Job::Forgotten if duplicate => has_key.then(|| state.clone()),
        Job::Absent | Job::Forgotten => (!duplicate).then(|| accepted(attempts_max)),
    }
}

/// A refusal changes nothing, and its reason must be true.
fn refused(state: &Job, operation: &Operation, why: &str) -> bool {
    let held = match operation.call {
        Call::Complete { token, .. } | Call::Fail { token, .. } | Call::Revoke { token } => token,
        _ => 0,
    };
    match (why, life(state)) {
        ("UnknownJob", life) => life.is_none(),
        ("Terminal" | "NotQueued" | "StaleToken", None) => false,
        ("Terminal", Some(life)) => life.seen.phase.is_terminal(),
        // A job in its back-off is queued and not given out.
        ("NotQueued", Some(life)) => !life.seen.phase.is_terminal(),
        ("StaleToken", Some(life)) => life.seen.phase != Phase::Leased || life.seen.token != held,
        _ => true,
    }
}

fn change(life: &Life, call: &Call, answer: &Answer) -> Option<Life> {
    let is_leased = |token: u64| life.seen.phase == Phase::Leased && life.seen.token == token;
    let is_queued = life.seen.phase == Phase::Queued;
    let mut next = life.clone();
    match (call, answer) {
        (Call::Lease { .. }, Answer::Leased { token }) => {
            if !is_queued || *token <= life.seen.token {
                return None;
            }
            next.seen.phase = Phase::Leased;
            next.seen.token = *token;
            next.seen.leases += 1;
        }
        (Call::Complete { token, result }, Answer::Done) if is_leased(*token) => {
            next.seen.phase = Phase::Succeeded;
            next.seen.result.clone_from(result);
        }
        (Call::Fail { token, permanent }, Answer::Done) if is_leased(*token) => {
            next.seen.attempts += 1;
            let is_last = *permanent || next.seen.attempts == life.attempts_max;
            next.seen.phase = if is_last { Phase::Failed } else { Phase::Queued };
        }
        (Call::Revoke { token } | Call::Lose { token }, Answer::Done) if is_leased(*token) => {
            next.seen.phase = Phase::Queued;
        }
        (Call::Cancel, Answer::Done) if !life.seen.phase.is_terminal() => {
            next.seen.phase = Phase::Cancelled;
        }
        // Repeats are answered as the first.
        (Call::Complete { token, result }, Answer::Done) => {
            let is_repeat = life.seen.phase == Phase::Succeeded && life.seen.result == *result;
            return (is_repeat && life.seen.token == *token).then_some(next);
        }
        (Call::Fail { token, .. }, Answer::Done) => {
            let is_repeat = is_queued || life.seen.phase == Phase::Failed;
            return (is_repeat && life.seen.token == *token).then_some(next);
        }
        (Call::Revoke { token }, Answer::Done) => {
            return (is_queued && life.seen.token == *token).then_some(next);
        }
        _ => return None,
    }
    Some(next)
}

/// One step where clients alone are seen.
fn clients(state: &Job, operation: &Operation) -> Option<Job> {
    let answer = match &operation.outcome {
        Outcome::Ok { answer, .. } => answer,
        // A peer repeats a cancel whose answer it has lost, and then tells that the job has ended:
        // it may be this cancel that has ended it.
        Outcome::Refused(why) if operation.call == Call::Cancel && why == "Terminal" => {
            return over(life(state)?, None).map(Job::There);
        }
        Outcome::Refused(_) => return Some(state.clone()),
        Outcome::Unknown(_) => return unknown(state, operation),
    };
    match (&operation.call, answer) {
        (Call::Submit { .. }, Answer::Submitted { duplicate, .. }) => match state {
            Job::There(_) => duplicate.then(|| state.clone()),
            // The library repeats itself: the first of its attempts may be the one that counted. One
            // that was answered with another job, whose key it has, did not make that job.
            _ => (!names_other(operation)).then(|| accepted(0)),
        },
        (Call::Cancel, Answer::Done) => over(life(state)?, Some(Phase::Cancelled)).map(Job::There),
        (Call::Cancel, Answer::Job(seen)) => {
            let life = life(state)?;
            if seen.phase != Phase::Cancelled {
                return None;
            }
            let ended = over(life, Some(Phase::Cancelled))?;
            reached(&ended, seen).map(Job::There)
        }
        (Call::Read | Call::Watch, Answer::Job(seen)) => {
            reached(life(state)?, seen).map(Job::There)
        }
        (Call::Read | Call::Cancel, Answer::NoJob) => life(state).is_none().then(|| state.clone()),
        _ => None,
    }
}

fn unknown(state: &Job, operation: &Operation) -> Option<Job> {
    match (&operation.call, state) {
        (Call::Submit { .. }, Job::There(_)) => Some(state.clone()),
        (Call::Submit { .. }, _) => Some(accepted(0)),
        (Call::Cancel, Job::There(life)) => over(life, Some(Phase::Cancelled)).map(Job::There),
        _ => None,
    }
}

/// Ends a job, in a way that may be known; one that has ended stays as it is, if that fits.
fn over(life: &Life, ended: Option<Phase>) -> Option<Life> {
    if !life.is_vague && !life.seen.phase.is_terminal() {
        return Some(Life { is_vague: true, ended, ..life.clone() });
    }
    let known = if life.is_vague { life.ended } else { Some(life.seen.phase) };
    match (known, ended) {
        (_, None) => Some(life.clone()),
        (None, Some(_)) => Some(Life { ended, ..life.clone() }),
        (Some(known), Some(ended)) => (known == ended).then(|| life.clone()),
    }
}

/// Moves a job unseen until it is as somebody saw it.
fn reached(life: &Life, seen: &Seen) -> Option<Life> {
    let is_reached = if life.is_vague {
        let has_ended = life.ended.map_or(seen.phase.is_terminal(), |phase| seen.phase == phase);
        has_ended && is_further(&life.seen, seen)
    } else {
        follows(&life.seen, seen)
    };
    is_reached.then(|| Life { seen: seen.clone(), is_vague: false, ended: None, ..life.clone() })
}

/// Says whether a job that was seen one way can be seen another way later, by what workers and the
/// leader do. They call nothing off.
pub fn follows(before: &Seen, after: &Seen) -> bool {
    if before == after {
        return true;
    }
    let is_over = before.phase.is_terminal();
    !is_over && after.phase != Phase::Cancelled && is_further(before, after)
}

/// Says whether a live job's leases and attempts can become those of another sight of it.
pub fn is_further(before: &Seen, after: &Seen) -> bool {
    let has_result = after.phase == Phase::Succeeded;
    let was_leased = before.phase == Phase::Leased;
    if has_result == after.result.is_empty() || after.attempts < before.attempts {
        return false;
    }
    if after.leases == before.leases {
        let is_same = after.token == before.token;
        let failed = after.attempts - before.attempts;
        // A lease ends by a result, a failure, a revocation or a cancel; nothing else moves.
        let moves =
            was_leased || (failed == 0 && matches!(after.phase, Phase::Queued | Phase::Cancelled));
        return is_same && moves && failed <= u32::from(was_leased);
    }
    let failed_max = after.leases.saturating_sub(before.leases) + u32::from(was_leased);
    let is_failed_in_time = after.attempts - before.attempts <= failed_max;
    after.leases > before.leases && after.token > before.token && is_failed_in_time
}

fn life(state: &Job) -> Option<&Life> {
    match state {
        Job::There(life) => Some(life),
        Job::Absent | Job::Forgotten => None,
    }
}
