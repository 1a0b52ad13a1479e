//! The history of operations of this rig: clients', workers' and the leader's.
//!
//! A proposal that had no answer is sent again, so one may be applied several times; each
//! application is an operation. That whose answer was heard lasts from the question to the answer.
//! All others are told by the log at the moment at which they took effect, so nothing that happened
//! is unknown.

use super::names::{Names, digests};
use crate::operations::{Answer, Call, Key, Operation, Outcome, Phase, Recorder, Seen, Ticket};
use atelier_state::{Command, Job, Reply};
use std::collections::BTreeMap;

/// The session of whatever the log tells.
const LOG: u64 = 0;
/// The session of the leader.
pub(crate) const LEADER: u64 = 1;
/// Sessions of clients follow their number from here on.
pub(crate) const CLIENTS: u64 = 100;
/// The same for workers.
pub(crate) const WORKERS: u64 = 200;

/// Writes operations down.
#[derive(Default)]
pub(crate) struct Diary {
    recorder: Recorder,
    // By proposal: what each of its commands asks, none for those that are about no object.
    asked: BTreeMap<u64, Vec<Option<Ticket>>>,
    // Nobody has heard their answers so far.
    unheard: BTreeMap<(u64, u64), Vec<Vec<Applied>>>,
}

/// What the log did, as an operation of its own.
struct Applied {
    operation: Option<Operation>,
    outcome: Outcome,
}

impl Diary {
    /// Notes that commands are proposed.
    pub(crate) fn propose(
        &mut self,
        at_ms: u64,
        session: u64,
        names: &Names,
        (id, commands): (u64, &[Command]),
    ) {
        let mut call = |command| {
            let (key, call) = call_of(names, command)?;
            Some(self.recorder.call(at_ms * 1_000, session, key, call))
        };
        let tickets = commands.iter().map(&mut call).collect();
        self.asked.insert(id, tickets);
    }

    /// Notes that a proposal was applied.
    pub(crate) fn apply(
        &mut self,
        at_ms: u64,
        names: &Names,
        (id, index): (u64, u64),
        applied: &[(&Command, &Reply)],
    ) {
        let told = applied.iter().map(|(command, reply)| {
            let outcome = outcome_of(names, index, reply);
            let asked = call_of(names, command);
            let operation = asked.map(|(key, call)| {
                self.recorder.beside(at_ms * 1_000, (key, call), outcome.clone())
            });
            Applied { operation, outcome }
        });
        let told = told.collect();
        self.unheard.entry((id, index)).or_default().push(told);
    }

    /// Notes that whoever proposed got its answer.
    pub(crate) fn hear(
        &mut self,
        at_ms: u64,
        names: &Names,
        (id, index): (u64, u64),
        replies: &[Reply],
    ) {
        let Some(tickets) = self.asked.remove(&id) else { return };
        let outcomes: Vec<_> =
            replies.iter().map(|reply| outcome_of(names, index, reply)).collect();
        if let Some(all) = self.unheard.get_mut(&(id, index)) {
            let is_it =
                |applied: &Vec<Applied>| applied.iter().map(|it| &it.outcome).eq(outcomes.iter());
            all.iter().position(is_it).map(|at| all.remove(at));
        }
        for (ticket, outcome) in tickets.into_iter().zip(outcomes) {
            if let Some(ticket) = ticket {
                self.recorder.returns(at_ms * 1_000, ticket, outcome);
            }
        }
    }

    /// Notes what the log does by itself.
    pub(crate) fn tell(&mut self, at_ms: u64, index: u64, (job, call): (u32, Call)) {
        let asked = (Key::Job(job.into()), call);
        self.recorder.at_once(at_ms * 1_000, LOG, asked, Answer::Done, Some(index));
    }

    /// Notes how a client saw a job.
    pub(crate) fn read(&mut self, at_ms: u64, client: u32, job: u32, seen: Option<&Job>) {
        let answer = seen.map_or(Answer::NoJob, |job| Answer::Job(seen_of(job)));
        let asked = (Key::Job(job.into()), Call::Read);
        self.recorder.at_once(at_ms * 1_000, CLIENTS + u64::from(client), asked, answer, None);
    }

    /// Hands the history over: with what was applied and never answered.
    pub(crate) fn close(self) -> Vec<Operation> {
        let unheard = self.unheard.into_values().flatten().flatten();
        let unheard = unheard.filter_map(|applied| applied.operation).collect();
        self.recorder.close(LOG, unheard)
    }
}

fn call_of(names: &Names, command: &Command) -> Option<(Key, Call)> {
    let (job, call) = match command {
        Command::Submit(it) => {
            let key = it.idempotency_key.as_deref().map(str::to_owned);
            (it.job, Call::Submit { key, attempts_max: it.attempts_max })
        }
        Command::Assign(it) => (it.job, Call::Lease { node: it.node.0 }),
        Command::Complete(it) => {
            (it.job, Call::Complete { token: it.token.0, result: digests(&it.artifacts) })
        }
        Command::Fail(it) => (it.job, Call::Fail { token: it.token.0, permanent: it.permanent }),
        Command::Revoke(it) => (it.job, Call::Revoke { token: it.token.0 }),
        Command::Cancel(it) => (it.job, Call::Cancel),
        _ => return None,
    };
    Some((Key::Job(names.number(job).into()), call))
}

fn outcome_of(names: &Names, index: u64, reply: &Reply) -> Outcome {
    let answer = match reply {
        Reply::Submitted { job, duplicate, .. } => {
            Answer::Submitted { job: names.number(*job).into(), duplicate: *duplicate }
        }
        Reply::Assigned { token } => Answer::Leased { token: token.0 },
        Reply::Done | Reply::NodeAllocated { .. } => Answer::Done,
        Reply::Refused(refusal) => return Outcome::Refused(super::names::word(refusal)),
    };
    Outcome::Ok { answer, index: Some(index) }
}

fn seen_of(job: &Job) -> Seen {
    let phase = Phase::of(job.phase.name()).expect("state and history have the same phases");
    Seen {
        phase,
        token: job.last_token.map_or(0, |token| token.0),
        leases: job.leases,
        attempts: u32::try_from(job.attempts.len()).expect("attempts are bounded"),
        result: digests(&job.artifacts),
    }
}
