//! Batches, retries, purges and statistics between the wire and the state.

use super::{Invalid, Stamp, TENANT_DEFAULT, job_id};
use crate::proposer::COMMANDS_TOGETHER_MAX;
use atelier_proto::client::v1 as wire;
use atelier_state::{Job, JobId, LogIndex, PriorityStats, State, Submit, TenantStats};
use std::cmp::Reverse;
use std::collections::BTreeSet;
use std::fmt;
use tonic::Status;

/// Jobs of one batch; more are refused.
const BATCH_JOBS_MAX: usize = COMMANDS_TOGETHER_MAX;
/// Jobs that one purge forgets; more are refused, or left for the next call.
const PURGE_JOBS_MAX: usize = 1_000;
/// Tenants that the statistics name, those first that have most jobs waiting.
const TENANTS_TOLD_MAX: usize = 100;
/// Of a place in a list that is none, so many characters are told.
const AFTER_CHARS_TOLD: usize = 64;
/// What the idempotency key of a retry begins with; the id of the failed job follows.
const RETRY_KEY: &str = "retry:";

/// Checks the size of a batch; its jobs are checked one by one.
///
/// # Errors
/// [`Invalid`] when there are too many.
pub(crate) fn check_batch(request: &wire::SubmitBatchRequest) -> Result<(), Invalid> {
    let got = request.jobs.len();
    if got <= BATCH_JOBS_MAX {
        return Ok(());
    }
    Err(Invalid(vec![format!("{got} jobs, expected at most {BATCH_JOBS_MAX}; split the batch")]))
}

pub(crate) fn batch_accepted(reply: wire::SubmitReply) -> wire::BatchOutcome {
    wire::BatchOutcome { outcome: Some(wire::batch_outcome::Outcome::Accepted(reply)) }
}

pub(crate) fn batch_refused(status: &Status) -> wire::BatchOutcome {
    let code = u32::try_from(i32::from(status.code())).expect("codes are not negative");
    let refusal = wire::BatchRefusal { code, message: status.message().to_owned() };
    wire::BatchOutcome { outcome: Some(wire::batch_outcome::Outcome::Refused(refusal)) }
}

/// Makes the job that repeats a failed one. Its deadline is as far away as the first one's was.
pub(crate) fn retry(failed: &Job, stamp: Stamp) -> Submit {
    let first = &failed.submit;
    let within_ms = first.deadline_ms.saturating_sub(first.submitted_ms);
    let deadline_ms = if first.deadline_ms > 0 { stamp.now_ms + within_ms } else { 0 };
    Submit {
        job: stamp.job,
        idempotency_key: Some(format!("{RETRY_KEY}{}", failed.id()).into()),
        submitted_ms: stamp.now_ms,
        attempts_max: stamp.attempts_max,
        deadline_ms,
        retry_of: Some(failed.id()),
        ..first.clone()
    }
}

/// Finds the job that repeats a failed one already, and is remembered.
pub(crate) fn retried<'state>(state: &'state State, failed: &Job) -> Option<&'state Job> {
    let key = format!("{RETRY_KEY}{}", failed.id());
    state.job(state.key_owner(&failed.submit.tenant, &key)?)
}

/// What shall be forgotten.
#[derive(Debug)]
pub(crate) enum Purge {
    Jobs(Vec<JobId>),
    Phases(Vec<wire::Phase>, usize),
}

/// Reads a purge.
///
/// # Errors
/// [`Invalid`] with every fault.
pub(crate) fn purge(request: &wire::PurgeJobsRequest) -> Result<Purge, Invalid> {
    let mut faults = Vec::new();
    if request.job_ids.len() > PURGE_JOBS_MAX {
        let got = request.job_ids.len();
        faults.push(format!("{got} job_ids, expected at most {PURGE_JOBS_MAX}; split the call"));
    }
    if request.job_ids.is_empty() == request.phases.is_empty() {
        faults.push("expected either job_ids or phases, to say what shall be forgotten".to_owned());
    }
    let limit = match request.limit as usize {
        0 => PURGE_JOBS_MAX,
        limit if limit <= PURGE_JOBS_MAX => limit,
        limit => {
            faults.push(format!("limit {limit}: expected 1 to {PURGE_JOBS_MAX}, or 0 for 1000"));
            0
        }
    };
    let mut jobs = Vec::new();
    for text in request.job_ids.iter().take(PURGE_JOBS_MAX) {
        match job_id(text) {
            Ok(job) => jobs.push(job),
            Err(invalid) => faults.extend(invalid.0),
        }
    }
    let mut phases = Vec::new();
    for number in &request.phases {
        use wire::Phase::{Cancelled, Failed, Succeeded};
        match wire::Phase::try_from(*number) {
            Ok(phase @ (Succeeded | Failed | Cancelled)) => phases.push(phase),
            _ => faults.push(format!(
                "phase {number}: expected one of jobs that have ended: succeeded, failed or \
                 cancelled (3 to 5)"
            )),
        }
    }
    phases.sort_unstable();
    phases.dedup();
    if !faults.is_empty() {
        return Err(Invalid(faults));
    }
    Ok(if phases.is_empty() { Purge::Jobs(jobs) } else { Purge::Phases(phases, limit) })
}

impl Purge {
    /// The jobs that are to be forgotten, as the state is; of phases those first that ended first.
    pub(crate) fn jobs(&self, state: &State) -> Vec<JobId> {
        match self {
            Purge::Jobs(jobs) => jobs.clone(),
            Purge::Phases(phases, limit) => {
                let mut ended: Vec<(LogIndex, JobId)> = Vec::new();
                for phase in phases {
                    let of = ended_in(state, *phase).take(*limit);
                    ended.extend(of.map(|(id, job)| (job.finished, *id)));
                }
                ended.sort_unstable();
                ended.into_iter().take(*limit).map(|(_, job)| job).collect()
            }
        }
    }

    /// How many of the asked phases are remembered; of jobs, how many of them.
    pub(crate) fn left(&self, state: &State) -> u64 {
        let count = match self {
            Purge::Jobs(jobs) => jobs.iter().filter(|job| state.job(**job).is_some()).count(),
            Purge::Phases(phases, _) => phases.iter().map(|p| ended_count(state, *p)).sum(),
        };
        count as u64
    }
}

/// Where a list goes on: behind the last job that was told. Each order has places of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum After {
    /// Of jobs in the order in which they came.
    Sequence(u64),
    /// Of jobs in the order in which they ended.
    Ended((LogIndex, JobId)),
}

impl After {
    /// Reads a place in the list of these phases; none is named by an empty text.
    ///
    /// # Errors
    /// What was expected, for what no reply to the same phases has named.
    pub(super) fn parse(text: &str, asked: &BTreeSet<i32>) -> Result<Option<Self>, String> {
        let number = |text: &str| {
            let is_plain = text.bytes().all(|byte| byte.is_ascii_digit());
            is_plain.then(|| text.parse::<u64>().ok()).flatten()
        };
        let place = match text.split_once('-') {
            _ if text.is_empty() => return Ok(None),
            Some((finished, job)) if ended_alone(asked) => {
                let place = number(finished).map(LogIndex).zip(job_id(job).ok());
                place.map(Self::Ended)
            }
            None if !ended_alone(asked) => number(text).map(Self::Sequence),
            _ => None,
        };
        let shown: String = text.chars().take(AFTER_CHARS_TOLD).collect();
        let expected = "expected `next` of a reply to the same phases, or nothing for the newest";
        place.map(Some).ok_or_else(|| format!("after {shown:?}: {expected}"))
    }
}

impl fmt::Display for After {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sequence(sequence) => write!(out, "{sequence}"),
            Self::Ended((finished, job)) => write!(out, "{}-{job}", finished.0),
        }
    }
}

/// Whether only terminal phases are asked for: their jobs are listed by when they ended.
pub(super) fn ended_alone(asked: &BTreeSet<i32>) -> bool {
    use wire::Phase::{Cancelled, Failed, Succeeded};
    let ended = [Succeeded, Failed, Cancelled].map(i32::from);
    !asked.is_empty() && asked.iter().all(|phase| ended.contains(phase))
}

/// Lists jobs of terminal phases, those first that ended last, from behind a place on.
pub(super) fn list_ended(
    state: &State,
    asked: &BTreeSet<i32>,
    limit: usize,
    after: Option<After>,
) -> wire::ListJobsReply {
    assert!(ended_alone(asked));
    let phases = || asked.iter().filter_map(|phase| wire::Phase::try_from(*phase).ok());
    // As the state orders them, so that what one phase leaves out comes behind what it tells.
    let place = |ended: &Job| (ended.finished, ended.id());
    let is_behind = |ended: &Job| match after {
        Some(After::Ended(after)) => place(ended) < after,
        Some(After::Sequence(_)) | None => true,
    };
    let newest = phases().flat_map(|phase| {
        let behind = ended_in(state, phase).rev().skip_while(|(_, ended)| !is_behind(ended));
        // One more than is told says whether there are more.
        behind.take(limit + 1).map(|(_, ended)| ended)
    });
    let mut newest: Vec<&Job> = newest.collect();
    newest.sort_by_key(|ended| Reverse(place(ended)));
    let more = newest.len() > limit;
    newest.truncate(limit);
    let last = newest.last().filter(|_| more);
    let next = last.map_or_else(String::new, |last| After::Ended(place(last)).to_string());
    let total = phases().map(|phase| ended_count(state, phase) as u64).sum();
    let jobs = newest.into_iter().map(|ended| super::job(ended, 0)).collect();
    wire::ListJobsReply { jobs, total, next }
}

/// Walks the jobs of a terminal phase, those first that ended first; none of any other phase.
pub(super) fn ended_in(
    state: &State,
    phase: wire::Phase,
) -> Box<dyn DoubleEndedIterator<Item = (&JobId, &Job)> + '_> {
    match phase {
        wire::Phase::Succeeded => Box::new(state.succeeded()),
        wire::Phase::Failed => Box::new(state.failed()),
        wire::Phase::Cancelled => Box::new(state.cancelled()),
        _ => Box::new(std::iter::empty()),
    }
}

pub(super) fn ended_count(state: &State, phase: wire::Phase) -> usize {
    match phase {
        wire::Phase::Succeeded => state.succeeded_count(),
        wire::Phase::Failed => state.failed_count(),
        wire::Phase::Cancelled => state.cancelled_count(),
        _ => 0,
    }
}

/// How full the queue is, and who fills it.
pub(crate) fn queue_stats(state: &State) -> wire::QueueStatsReply {
    let mut tenants: Vec<_> = state.tenants().map(tenant_stats).collect();
    // A stable order among equals: the state walks them by name.
    tenants.sort_by_key(|tenant| Reverse(tenant.queued));
    tenants.truncate(TENANTS_TOLD_MAX);
    let waiting = state.priorities().filter(|priority| priority.queued > 0);
    wire::QueueStatsReply {
        queued: state.queued_count() as u64,
        delayed: state.delayed_count() as u64,
        leased: state.leased_count() as u64,
        succeeded: state.succeeded_count() as u64,
        failed: state.failed_count() as u64,
        cancelled: state.cancelled_count() as u64,
        forgotten: state.forgotten_count(),
        paused: state.paused(),
        priorities: waiting.map(priority_stats).collect(),
        tenants,
        jobs_max: state.settings().queue_jobs_max() as u64,
        tenant_jobs_max: state.settings().queue_tenant_jobs_max() as u64,
    }
}

fn priority_stats(stats: PriorityStats) -> wire::PriorityStats {
    let PriorityStats { priority, queued, oldest_ms } = stats;
    wire::PriorityStats { priority: u32::from(priority), queued: queued as u64, oldest_ms }
}

fn tenant_stats(stats: TenantStats<'_>) -> wire::TenantStats {
    let TenantStats { tenant, queued, leased, weight } = stats;
    let tenant = if tenant.is_empty() { TENANT_DEFAULT } else { tenant };
    let (queued, leased) = (queued as u64, leased as u64);
    wire::TenantStats { tenant: tenant.to_owned(), queued, leased, weight }
}
