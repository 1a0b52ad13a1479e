//! What one command may have done, seen from before and after.
//!
//! Its cost grows with the number of changes: what two states share is passed over.

mod rest;

use super::{Invariant, Violation, ensure, violation};
use crate::command::{Command, Submit};
use crate::job::{Job, JobId, Phase};
use crate::lease::FencingToken;
use crate::limits;
use crate::reply::{LogIndex, Reply};
use crate::roster::{Node, NodeId};
use crate::state::State;
use imbl::ordmap::DiffItem;
use std::sync::Arc;

/// Checks that `command`, answered by `reply`, may turn `before` into `after`.
///
/// # Errors
/// The first violation that is found. There is a bug then.
pub fn check_step(
    before: &State,
    command: &Command,
    reply: &Reply,
    after: &State,
) -> Result<(), Violation> {
    let step = Step { before, command, reply, after };
    ensure(after.applied >= before.applied, Invariant::S7, || {
        format!("applied index {} after {}", after.applied.0, before.applied.0)
    })?;
    step.check_reply()?;
    step.check_refusal()?;
    let mut forgotten = 0;
    for item in before.jobs.diff(&after.jobs) {
        match item {
            DiffItem::Add(id, job) => step.check_accepted(*id, job)?,
            DiffItem::Update { old, new } => step.check_changed(old.1, new.1)?,
            DiffItem::Remove(_, job) => {
                step.check_forgotten(job)?;
                forgotten += 1;
            }
        }
    }
    ensure(after.forgotten == before.forgotten + forgotten, Invariant::S5, || {
        format!("{forgotten} jobs are gone, {} were counted", after.forgotten - before.forgotten)
    })?;
    step.check_nodes()?;
    step.check_order()?;
    step.check_keys()?;
    step.check_records()?;
    step.check_outcome()
}

pub(super) struct Step<'a> {
    before: &'a State,
    command: &'a Command,
    reply: &'a Reply,
    after: &'a State,
}

impl Step<'_> {
    fn check_reply(&self) -> Result<(), Violation> {
        let fits = match (self.command, self.reply) {
            (_, Reply::Refused(_)) => true,
            (Command::Submit(_), reply) => matches!(reply, Reply::Submitted { .. }),
            (Command::Assign(_), reply) => matches!(reply, Reply::Assigned { .. }),
            (Command::AllocateNode(_), reply) => matches!(reply, Reply::NodeAllocated { .. }),
            (_, reply) => *reply == Reply::Done,
        };
        ensure(fits, Invariant::S8, || format!("{:?} answers {:?}", self.reply, self.command))
    }

    fn check_refusal(&self) -> Result<(), Violation> {
        let changes_nothing =
            matches!(self.reply, Reply::Refused(_) | Reply::Submitted { duplicate: true, .. });
        let (before, after) = (self.before, self.after);
        let same_records = || {
            before.jobs.diff(&after.jobs).next().is_none()
                && before.nodes.diff(&after.nodes).next().is_none()
                && before.submit_sequence == after.submit_sequence
                && before.forgotten == after.forgotten
                && rest::is_same(before, after)
        };
        ensure(!changes_nothing || same_records(), Invariant::S8, || {
            format!("{:?} came with a change", self.reply)
        })
    }

    fn check_accepted(&self, id: JobId, job: &Job) -> Result<(), Violation> {
        let Command::Submit(submit) = self.command else {
            return Err(violation(Invariant::S5, format!("job {id} appeared without Submit")));
        };
        let sequence = self.before.submit_sequence + 1;
        let is_new = id == submit.job
            && job.submit == *submit
            && job.accepted == self.after.applied
            && job.phase == Phase::Queued
            && job.leases == 0;
        ensure(is_new, Invariant::S2, || format!("job {id} is not as submitted: {job:?}"))?;
        let is_newest = job.sequence == sequence && self.after.submit_sequence == sequence;
        ensure(is_newest, Invariant::S5, || {
            format!("job {id} has sequence {}, expected {sequence}", job.sequence)
        })?;
        ensure(self.had_room(submit), Invariant::S6, || {
            format!("job {id} was accepted beyond the bound")
        })?;
        let reply = Reply::Submitted { job: id, duplicate: false, log_index: self.after.applied };
        ensure(*self.reply == reply, Invariant::S2, || {
            format!("job {id} was accepted with {:?}", self.reply)
        })
    }

    fn had_room(&self, submit: &Submit) -> bool {
        let before = self.before;
        if before.features.0 < 2 {
            return before.queue.len() < limits::QUEUE_JOBS_MAX_FIRST
                && before.jobs.len() < limits::JOBS_MAX_FIRST;
        }
        let unfinished =
            |job: &&Arc<Job>| !job.phase.is_terminal() && job.submit.tenant == submit.tenant;
        let most = before.settings.queue_tenant_jobs_max();
        before.queue.len() < before.settings.queue_jobs_max()
            && before.jobs.len() < limits::JOBS_MAX
            && (most == 0 || before.jobs.values().filter(unfinished).count() < most)
    }

    fn check_forgotten(&self, job: &Job) -> Result<(), Violation> {
        let id = job.id();
        let is_named = match self.command {
            Command::Forget(forget) => forget.jobs.contains(&id),
            _ => false,
        };
        ensure(is_named, Invariant::S5, || format!("job {id} is gone without Forget"))?;
        ensure(job.phase.is_terminal(), Invariant::S5, || {
            format!("job {id} was forgotten while {}", job.phase.name())
        })
    }

    fn check_changed(&self, old: &Job, new: &Job) -> Result<(), Violation> {
        let id = old.id();
        ensure(!old.phase.is_terminal(), Invariant::S1, || {
            format!("job {id} changed after it was {}", old.phase.name())
        })?;
        let same_origin = old.submit == new.submit
            && old.accepted == new.accepted
            && old.sequence == new.sequence
            && old.tag == new.tag
            && old.stamp == new.stamp;
        ensure(same_origin, Invariant::S2, || format!("job {id} is another than submitted"))?;
        self.check_transition(old, new)?;
        self.check_token(old, new)?;
        let failed = usize::from(matches!(self.command, Command::Fail(_) | Command::Expire(_)));
        let same_errors = new.attempts.starts_with(&old.attempts);
        ensure(
            same_errors && new.attempts.len() == old.attempts.len() + failed,
            Invariant::S1,
            || format!("job {id} had {} errors and has {}", old.attempts.len(), new.attempts.len()),
        )?;
        self.check_backoff(old, new)
    }

    /// Checks who moved the job, and that it was allowed to.
    fn check_transition(&self, old: &Job, new: &Job) -> Result<(), Violation> {
        let id = old.id();
        let holds = |job: JobId, token: FencingToken| {
            job == id && old.lease().is_some_and(|lease| lease.token == token)
        };
        let on_node = |node: NodeId| old.lease().is_some_and(|lease| lease.node == node);
        let was_queued = old.phase == Phase::Queued;
        let is_allowed = match (self.command, &new.phase) {
            (Command::Assign(assign), Phase::Leased(_)) => {
                assign.job == id && was_queued && !old.is_delayed()
            }
            (Command::Complete(it), Phase::Succeeded) => holds(it.job, it.token),
            (Command::Fail(it), Phase::Queued) => holds(it.job, it.token) && !it.permanent,
            (Command::Fail(it), Phase::Failed) => {
                let attempts_left = new.attempts.len() < new.submit.attempts_max as usize;
                holds(it.job, it.token) && (it.permanent || !attempts_left)
            }
            (Command::Revoke(it), Phase::Queued) => holds(it.job, it.token),
            (Command::Release(it), Phase::Queued) => old.is_delayed() && it.jobs.contains(&id),
            (Command::Expire(it), Phase::Failed) => {
                let deadline_ms = old.submit.deadline_ms;
                it.job == id && deadline_ms > 0 && it.finished_ms >= deadline_ms
            }
            (Command::Cancel(cancel), Phase::Cancelled) => cancel.job == id,
            (Command::RegisterNode(register), Phase::Queued) => on_node(register.node),
            (Command::RemoveNode(remove), Phase::Queued) => on_node(remove.node),
            _ => false,
        };
        ensure(is_allowed, Invariant::S4, || {
            let (old, new) = (&old.phase, &new.phase);
            format!("job {id} went from {old:?} to {new:?} by {:?}", self.command)
        })?;
        let ended = new.phase.is_terminal();
        ensure(!ended || new.finished == self.after.applied, Invariant::S1, || {
            format!("job {id} ended at {}, not now", new.finished.0)
        })
    }

    fn check_token(&self, old: &Job, new: &Job) -> Result<(), Violation> {
        let id = old.id();
        if !matches!(self.command, Command::Assign(_)) {
            let same = old.last_token == new.last_token
                && old.last_node == new.last_node
                && old.leases == new.leases;
            return ensure(same, Invariant::S4, || {
                format!("job {id} has another token without Assign")
            });
        }
        ensure(new.last_token > old.last_token, Invariant::S4, || {
            format!("job {id} has token {:?} after {:?}", new.last_token, old.last_token)
        })?;
        ensure(
            new.last_token.is_some_and(|it| it.0 == self.after.applied.0),
            Invariant::S4,
            || format!("job {id} has token {:?}, not the index of its Assign", new.last_token),
        )?;
        ensure(new.leases == old.leases.saturating_add(1), Invariant::S4, || {
            format!("job {id} was leased {} times, then {}", old.leases, new.leases)
        })
    }

    fn check_nodes(&self) -> Result<(), Violation> {
        for item in self.before.nodes.diff(&self.after.nodes) {
            let (id, is_allowed) = match (item, self.command) {
                (DiffItem::Add(id, node), Command::AllocateNode(_)) => {
                    (id, id.0 == self.after.applied.0 && node.incarnation == 0)
                }
                (DiffItem::Add(id, _), Command::RegisterNode(register)) => {
                    (id, register.node == *id)
                }
                (DiffItem::Update { old, new }, Command::RegisterNode(register)) => {
                    let is_newer = new.1.incarnation >= old.1.incarnation;
                    let is_kept = new.1.draining == old.1.draining && new.1.labels == old.1.labels;
                    (new.0, register.node == *new.0 && is_newer && is_kept)
                }
                (DiffItem::Update { old, new }, Command::SetNode(set)) => {
                    let (draining, labels) = (new.1.draining, new.1.labels.clone());
                    let same = Node { draining, labels, ..old.1.clone() } == *new.1;
                    (new.0, set.node == *new.0 && same)
                }
                (DiffItem::Remove(id, _), Command::RemoveNode(remove)) => (id, remove.node == *id),
                (DiffItem::Add(id, _) | DiffItem::Remove(id, _), _) => (id, false),
                (DiffItem::Update { new, .. }, _) => (new.0, false),
            };
            ensure(is_allowed, Invariant::S3, || {
                format!("node {id} changed by {:?}", self.command)
            })?;
        }
        Ok(())
    }

    /// Checks that what the reply says has come about.
    fn check_outcome(&self) -> Result<(), Violation> {
        let after = self.after;
        let came_about = match (self.command, self.reply) {
            (_, Reply::Refused(_)) => true,
            (Command::Submit(submit), Reply::Submitted { job, log_index, .. }) => {
                return self.check_answering_job(submit, *job, *log_index);
            }
            (Command::Assign(assign), Reply::Assigned { token }) => {
                let lease = after.job(assign.job).and_then(Job::lease);
                lease.is_some_and(|lease| lease.token == *token && lease.node == assign.node)
                    && self.had_slot(assign.node, assign.incarnation)
            }
            (Command::Complete(complete), _) => after.job(complete.job).is_some_and(|job| {
                job.phase == Phase::Succeeded && job.artifacts == complete.artifacts
            }),
            (Command::Fail(fail), _) => self.is_over(fail.job, fail.token),
            (Command::Revoke(revoke), _) => self.is_over(revoke.job, revoke.token),
            (Command::Cancel(cancel), _) => {
                after.job(cancel.job).is_some_and(|job| job.phase == Phase::Cancelled)
            }
            (Command::Forget(forget), _) => forget
                .jobs
                .iter()
                .all(|job| after.job(*job).is_none_or(|job| !job.phase.is_terminal())),
            (Command::AllocateNode(_), Reply::NodeAllocated { node }) => {
                after.node(*node).is_some() && self.before.node(*node).is_none()
            }
            (Command::RegisterNode(register), _) => after
                .node(register.node)
                .is_some_and(|node| node.incarnation == register.incarnation),
            (Command::RemoveNode(remove), _) => after.node(remove.node).is_none(),
            _ => self.came_about_rest(),
        };
        ensure(came_about, Invariant::S3, || {
            format!("{:?} answers {:?}, and it did not come about", self.reply, self.command)
        })
    }

    /// Checks that the job that answers a submit, new or the first of a repeat, is what was asked.
    fn check_answering_job(
        &self,
        submit: &Submit,
        id: JobId,
        log_index: LogIndex,
    ) -> Result<(), Violation> {
        let is_same = self.is_forgotten_answer(submit, id)
            || self.after.job(id).is_some_and(|job| {
                let first = &job.submit;
                let same_name = first.job == submit.job
                    || (submit.idempotency_key.is_some()
                        && first.idempotency_key == submit.idempotency_key);
                let same_body = first.tenant == submit.tenant
                    && first.kind == submit.kind
                    && first.parameters == submit.parameters;
                same_name && same_body && job.accepted == log_index
            });
        ensure(is_same, Invariant::S2, || format!("job {id} at {log_index:?} answers {submit:?}"))
    }

    fn had_slot(&self, node: NodeId, incarnation: u64) -> bool {
        self.after.node(node).is_some_and(|it| {
            let leases = self.after.leased_count_of(node);
            let is_open = !it.draining && !it.witness && !self.after.settings.queue_paused();
            it.incarnation == incarnation && leases <= it.slots as usize && is_open
        })
    }

    fn is_over(&self, job: JobId, token: FencingToken) -> bool {
        self.after.job(job).is_some_and(|job| {
            job.last_token == Some(token) && matches!(job.phase, Phase::Queued | Phase::Failed)
        })
    }
}
