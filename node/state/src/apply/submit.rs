//! Accepting jobs: repeats first, then bounds, then the place in the order.

use crate::command::{Submit, TenantKey};
use crate::job::{Job, JobId};
use crate::keys::request_digest;
use crate::limits;
use crate::reply::{LogIndex, Refusal, Reply};
use crate::state::State;

impl State {
    pub(super) fn submit(&mut self, index: LogIndex, submit: &Submit) -> Result<Reply, Refusal> {
        if let Some(first) = self.job(submit.job) {
            let is_same = is_same_submit(&first.submit, submit);
            return repeated(first.id(), first.accepted, is_same);
        }
        if let Some(key) = TenantKey::of(submit) {
            if let Some(first) = self.keys.owner(&key) {
                let first = self.job(first).expect("a key leads to a job that exists");
                assert_eq!(first.submit.idempotency_key, submit.idempotency_key);
                let is_same = is_same_request(&first.submit, submit);
                return repeated(first.id(), first.accepted, is_same);
            }
            if let Some(first) = self.keys.forgotten(&key) {
                // Where it was accepted is forgotten; whoever waits for this entry sees no less.
                return repeated(first.job, index, first.request == request_digest(submit));
            }
        }
        self.check_room(submit)?;
        self.submit_sequence += 1;
        let mut job = Job::accept(submit.clone(), index, self.submit_sequence);
        if self.has_level_2() {
            let weight = self.settings.queue_weight(&submit.tenant);
            let (tenant, priority) = (&submit.tenant, submit.priority);
            job.tag = self.fair.accept(tenant, priority, submit.cost, weight);
            job.stamp = self.assigned;
        }
        self.insert(job);
        assert!(self.queued_count() <= limits::QUEUE_JOBS_MAX);
        assert!(self.jobs_count() <= limits::JOBS_MAX);
        Ok(Reply::Submitted { job: submit.job, duplicate: false, log_index: index })
    }

    fn check_room(&self, submit: &Submit) -> Result<(), Refusal> {
        let (queue_max, memory_max) = if self.has_level_2() {
            (self.settings.queue_jobs_max(), limits::JOBS_MAX)
        } else {
            (limits::QUEUE_JOBS_MAX_FIRST, limits::JOBS_MAX_FIRST)
        };
        if self.queued_count() >= queue_max {
            return Err(Refusal::QueueFull(number(queue_max)));
        }
        if self.jobs_count() >= memory_max {
            return Err(Refusal::QueueFull(number(memory_max)));
        }
        if !self.has_level_2() {
            return Ok(());
        }
        let tenant_max = self.settings.queue_tenant_jobs_max();
        if tenant_max > 0 && self.tenant_jobs_count(&submit.tenant) >= tenant_max {
            return Err(Refusal::TenantFull(number(tenant_max)));
        }
        if !self.fair.has_room(&submit.tenant) {
            return Err(Refusal::QueueFull(number(limits::TENANTS_MAX)));
        }
        Ok(())
    }
}

fn number(count: usize) -> u64 {
    u64::try_from(count).expect("a usize fits")
}

fn repeated(first: JobId, accepted: LogIndex, is_same: bool) -> Result<Reply, Refusal> {
    if is_same {
        Ok(Reply::Submitted { job: first, duplicate: true, log_index: accepted })
    } else {
        Err(Refusal::IdempotencyConflict(first))
    }
}

/// Says whether a submit repeats the one of the same job. What the accepting peer adds by itself
/// (trace, clock, attempts, deadline, cost) differs when the client asks another peer, and does not
/// count.
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
