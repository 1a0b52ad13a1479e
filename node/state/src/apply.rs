//! The only writer of the state: every command, and what it does.
//!
//! Each function below judges first and writes last, so a refusal changes nothing. The audit proves
//! that (`audit::check_step`).
//!
//! Who speaks with a token is answered by one ladder, whatever the command:
//!
//! | the job | the token | answer |
//! |---|---|---|
//! | unknown | any | `UnknownJob` |
//! | any phase | not the newest | `StaleToken` with the newest, 0 where there was never a lease |
//! | leased | the newest | it is done |
//! | ended or queued again by this very command | the newest | `Done`, a repeat |
//! | terminal by anything else | the newest | `Terminal` |
//! | queued again by anything else | the newest | `StaleToken` |
//!
//! The state does not keep how a lease ended. So a repeat of `Fail` is told by its error: one that
//! arrives after a revocation, with the very error of the attempt before, is answered `Done` and
//! not counted. That is harmless: its lease is over either way.

use crate::command::{
    AllocateNode, Assign, Cancel, Command, Complete, Fail, Forget, RegisterNode, RemoveNode,
    Revoke, Submit,
};
use crate::job::{Job, JobId, Phase};
use crate::lease::{FencingToken, Lease};
use crate::limits;
use crate::reply::{LogIndex, Refusal, Reply};
use crate::roster::{Node, NodeId};
use crate::state::{State, TenantKey};
use crate::validate;

impl State {
    /// Applies one command of the entry at `index` and answers it.
    ///
    /// Total: every command has a reply, and a refused one changes nothing but the applied index.
    /// Several commands of one entry come one by one, in order, with the same index.
    ///
    /// # Panics
    /// When the index goes down: the log was replayed, which the caller must not do.
    pub fn apply(&mut self, index: LogIndex, command: &Command) -> Reply {
        self.mark_applied(index);
        let outcome = validate::check(command).and_then(|()| match command {
            Command::Submit(submit) => self.submit(index, submit),
            Command::Assign(assign) => self.assign(index, assign),
            Command::Complete(complete) => self.complete(index, complete),
            Command::Fail(fail) => self.fail(index, fail),
            Command::Revoke(revoke) => self.revoke(revoke),
            Command::Cancel(cancel) => self.cancel(index, cancel),
            Command::Forget(forget) => Ok(self.forget(forget)),
            Command::AllocateNode(allocate) => self.allocate_node(index, allocate),
            Command::RegisterNode(register) => self.register_node(register),
            Command::RemoveNode(remove) => self.remove_node(remove),
        });
        outcome.unwrap_or_else(Reply::Refused)
    }

    fn submit(&mut self, index: LogIndex, submit: &Submit) -> Result<Reply, Refusal> {
        if let Some(first) = self.job(submit.job) {
            return repeated(first, is_same_submit(&first.submit, submit));
        }
        if let Some(first) = self.job_of_key(submit) {
            return repeated(first, is_same_request(&first.submit, submit));
        }
        let queue_is_full = self.queued_count() >= limits::QUEUE_JOBS_MAX;
        let memory_is_full = self.jobs_count() >= limits::JOBS_MAX;
        if queue_is_full || memory_is_full {
            return Err(Refusal::QueueFull);
        }
        self.submit_sequence += 1;
        self.insert(Job::accept(submit.clone(), index, self.submit_sequence));
        assert!(self.queued_count() <= limits::QUEUE_JOBS_MAX);
        assert!(self.jobs_count() <= limits::JOBS_MAX);
        Ok(Reply::Submitted { job: submit.job, duplicate: false, log_index: index })
    }

    fn assign(&mut self, index: LogIndex, assign: &Assign) -> Result<Reply, Refusal> {
        let job = self.job(assign.job).ok_or(Refusal::UnknownJob)?;
        match job.phase {
            Phase::Queued => {}
            Phase::Leased(_) => return Err(Refusal::NotQueued),
            Phase::Succeeded | Phase::Failed | Phase::Cancelled => return Err(Refusal::Terminal),
        }
        let token = FencingToken::of(index);
        let last = job.last_token.unwrap_or(FencingToken(0));
        if token <= last {
            return Err(Refusal::Invalid(format!(
                "index: expected one above the last token {last}, got {token}; \
                 lease a job once an entry"
            )));
        }
        self.check_slot(assign)?;
        let (node, incarnation) = (assign.node, assign.incarnation);
        self.change(assign.job, |job| {
            job.phase = Phase::Leased(Lease { token, node, incarnation });
            job.last_token = Some(token);
            job.last_node = Some(node);
            job.leases = job.leases.saturating_add(1);
        });
        Ok(Reply::Assigned { token })
    }

    fn check_slot(&self, assign: &Assign) -> Result<(), Refusal> {
        let node = self.node(assign.node).filter(|node| node.is_registered());
        let node = node.ok_or(Refusal::UnknownNode)?;
        if node.incarnation != assign.incarnation {
            return Err(Refusal::StaleIncarnation(node.incarnation));
        }
        assert!(node.slots <= limits::SLOTS_MAX);
        let taken = self.leased_count_of(assign.node);
        if taken >= node.slots as usize { Err(Refusal::NoSlot) } else { Ok(()) }
    }

    fn complete(&mut self, index: LogIndex, complete: &Complete) -> Result<Reply, Refusal> {
        let job = self.job_of_token(complete.job, complete.token)?;
        if job.lease().is_none() {
            let is_repeat = job.phase == Phase::Succeeded && job.artifacts == complete.artifacts;
            return repeat_or_over(job, is_repeat);
        }
        self.change(complete.job, |job| {
            job.artifacts = complete.artifacts.clone();
            job.finish(Phase::Succeeded, index, complete.finished_ms);
        });
        Ok(Reply::Done)
    }

    fn fail(&mut self, index: LogIndex, fail: &Fail) -> Result<Reply, Refusal> {
        let job = self.job_of_token(fail.job, fail.token)?;
        let error = cut(&fail.error);
        if job.lease().is_none() {
            // A lease that ended without this error was revoked, or its job was called off.
            let was_failed = matches!(job.phase, Phase::Queued | Phase::Failed);
            let is_repeat = was_failed && job.errors.last().is_some_and(|last| last == error);
            return repeat_or_over(job, is_repeat);
        }
        self.change(fail.job, |job| {
            job.errors.push(error.to_owned());
            let attempts = u32::try_from(job.errors.len()).expect("attempts are bounded");
            assert!(attempts <= job.submit.attempts_max);
            if fail.permanent || attempts == job.submit.attempts_max {
                job.finish(Phase::Failed, index, fail.finished_ms);
            } else {
                job.phase = Phase::Queued;
            }
        });
        Ok(Reply::Done)
    }

    fn revoke(&mut self, revoke: &Revoke) -> Result<Reply, Refusal> {
        let job = self.job_of_token(revoke.job, revoke.token)?;
        if job.lease().is_none() {
            // Whoever queued the job again, the lease is gone, as was asked.
            return repeat_or_over(job, job.phase == Phase::Queued);
        }
        self.change(revoke.job, |job| job.phase = Phase::Queued);
        Ok(Reply::Done)
    }

    fn cancel(&mut self, index: LogIndex, cancel: &Cancel) -> Result<Reply, Refusal> {
        let job = self.job(cancel.job).ok_or(Refusal::UnknownJob)?;
        if job.phase.is_terminal() {
            return Err(Refusal::Terminal);
        }
        self.change(cancel.job, |job| {
            job.cancel_reason = cut(&cancel.reason).to_owned();
            job.finish(Phase::Cancelled, index, cancel.finished_ms);
        });
        Ok(Reply::Done)
    }

    fn forget(&mut self, forget: &Forget) -> Reply {
        assert!(forget.jobs.len() <= limits::FORGET_JOBS_MAX);
        for job in &forget.jobs {
            if self.job(*job).is_some_and(|job| job.phase.is_terminal()) {
                self.remove(*job);
                self.forgotten += 1;
            }
        }
        Reply::Done
    }

    fn allocate_node(
        &mut self,
        index: LogIndex,
        allocate: &AllocateNode,
    ) -> Result<Reply, Refusal> {
        let node = NodeId(index.0);
        if node.0 == 0 || self.node(node).is_some() {
            return Err(Refusal::Invalid(format!(
                "node: expected an id that is free, got {node}, the index of this entry; try again"
            )));
        }
        self.check_roster_room()?;
        let address = allocate.address.clone();
        let (class, model) = (String::new(), String::new());
        self.nodes.insert(node, Node { address, incarnation: 0, slots: 0, class, model });
        assert!(self.nodes.len() <= limits::NODES_MAX);
        Ok(Reply::NodeAllocated { node })
    }

    fn register_node(&mut self, register: &RegisterNode) -> Result<Reply, Refusal> {
        match self.node(register.node) {
            None => self.check_roster_room()?,
            Some(known) if register.incarnation < known.incarnation => {
                return Err(Refusal::StaleIncarnation(known.incarnation));
            }
            Some(known) if register.incarnation > known.incarnation => {
                self.revoke_leases_of(register.node);
            }
            Some(_) => {}
        }
        let node = Node {
            address: register.address.clone(),
            incarnation: register.incarnation,
            slots: register.slots,
            class: register.class.clone(),
            model: register.model.clone(),
        };
        assert!(node.is_registered());
        self.nodes.insert(register.node, node);
        assert!(self.nodes.len() <= limits::NODES_MAX);
        Ok(Reply::Done)
    }

    fn remove_node(&mut self, remove: &RemoveNode) -> Result<Reply, Refusal> {
        if self.node(remove.node).is_none() {
            return Err(Refusal::UnknownNode);
        }
        self.revoke_leases_of(remove.node);
        self.nodes.remove(&remove.node);
        Ok(Reply::Done)
    }

    fn revoke_leases_of(&mut self, node: NodeId) {
        let jobs: Vec<JobId> = self.leases_of(node).map(|(job, _)| job).collect();
        assert!(jobs.len() <= limits::SLOTS_MAX as usize);
        for job in jobs {
            self.change(job, |job| job.phase = Phase::Queued);
        }
        assert_eq!(self.leased_count_of(node), 0);
    }

    fn check_roster_room(&self) -> Result<(), Refusal> {
        if self.nodes.len() >= limits::NODES_MAX { Err(Refusal::RosterFull) } else { Ok(()) }
    }

    fn job_of_key(&self, submit: &Submit) -> Option<&Job> {
        let first = self.keys.get(&TenantKey::of(submit)?)?;
        let first = self.job(*first).expect("a key leads to a job that exists");
        assert_eq!(first.submit.idempotency_key, submit.idempotency_key);
        Some(first)
    }

    fn job_of_token(&self, job: JobId, token: FencingToken) -> Result<&Job, Refusal> {
        let job = self.job(job).ok_or(Refusal::UnknownJob)?;
        if job.last_token == Some(token) {
            return Ok(job);
        }
        Err(Refusal::StaleToken(job.last_token.unwrap_or(FencingToken(0))))
    }
}

fn repeated(first: &Job, is_same: bool) -> Result<Reply, Refusal> {
    if is_same {
        Ok(Reply::Submitted { job: first.id(), duplicate: true, log_index: first.accepted })
    } else {
        Err(Refusal::IdempotencyConflict(first.id()))
    }
}

/// Says whether a submit repeats the one of the same job. What the accepting peer adds by itself
/// (trace, clock, attempts) differs when the client asks another peer, and does not count.
fn is_same_submit(first: &Submit, second: &Submit) -> bool {
    assert_eq!(first.job, second.job);
    first.tenant == second.tenant
        && first.idempotency_key == second.idempotency_key
        && first.priority == second.priority
        && is_same_request(first, second)
}

fn is_same_request(first: &Submit, second: &Submit) -> bool {
    first.kind == second.kind && first.parameters == second.parameters
}

/// Answers the newest token of a job that is leased no more.
fn repeat_or_over(job: &Job, is_repeat: bool) -> Result<Reply, Refusal> {
    assert!(job.lease().is_none());
    if is_repeat {
        Ok(Reply::Done)
    } else if job.phase.is_terminal() {
        Err(Refusal::Terminal)
    } else {
        Err(Refusal::StaleToken(job.last_token.expect("the newest token was shown")))
    }
}

fn cut(text: &str) -> &str {
    &text[..text.floor_char_boundary(limits::ERROR_BYTES_MAX)]
}
