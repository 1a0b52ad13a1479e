//! Batches, purges and what is told about the queue.

use atelier_proto::client::v1 as wire;
use tonic::Code;

use super::{accepted, malformed, some};
use crate::error::Error;
use crate::types::{
    BatchOutcome, BatchRefusal, FailedAttempt, JobId, PriorityStats, Purged, QueueStats,
    RefusalKind, Submission, TenantStats,
};

pub(crate) fn failed_attempt(attempt: wire::FailedAttempt) -> FailedAttempt {
    let wire::FailedAttempt { node, token, error, failed_ms } = attempt;
    FailedAttempt { node: some(node), token, error, failed_ms: some(failed_ms) }
}

/// One outcome for each submission, in their order.
pub(crate) fn batch_outcomes(
    submissions: &[Submission],
    reply: wire::SubmitBatchReply,
) -> Result<Vec<BatchOutcome>, Error> {
    let (expected, got) = (submissions.len(), reply.outcomes.len());
    if expected != got {
        return Err(malformed(format!("expected {expected} outcomes, got {got}")));
    }
    let pairs = submissions.iter().zip(reply.outcomes);
    pairs.map(|(submission, outcome)| batch_outcome(submission.job, outcome)).collect()
}

fn batch_outcome(job: JobId, outcome: wire::BatchOutcome) -> Result<BatchOutcome, Error> {
    match outcome.outcome {
        Some(wire::batch_outcome::Outcome::Accepted(reply)) => {
            Ok(BatchOutcome::Accepted(accepted(&reply)?))
        }
        Some(wire::batch_outcome::Outcome::Refused(refusal)) => {
            let wire::BatchRefusal { code, message } = refusal;
            let kind = refusal_kind(Code::from(i32::try_from(code).unwrap_or(i32::MAX)));
            Ok(BatchOutcome::Refused(BatchRefusal { job, kind, message }))
        }
        None => Err(malformed(format!("expected an outcome of job {job}, got none"))),
    }
}

fn refusal_kind(code: Code) -> RefusalKind {
    match code {
        Code::InvalidArgument => RefusalKind::Invalid,
        Code::AlreadyExists => RefusalKind::AlreadyExists,
        Code::ResourceExhausted => RefusalKind::Full,
        Code::DeadlineExceeded => RefusalKind::Unknown,
        Code::Unavailable => RefusalKind::Unavailable,
        _ => RefusalKind::Other,
    }
}

pub(crate) fn purged(reply: wire::PurgeJobsReply) -> Purged {
    Purged { purged: reply.purged, left: reply.left }
}

pub(crate) fn queue_stats(reply: wire::QueueStatsReply) -> QueueStats {
    let mut priorities: Vec<_> = reply.priorities.into_iter().map(priority_stats).collect();
    priorities.sort_by_key(|stats| std::cmp::Reverse(stats.priority));
    QueueStats {
        queued: reply.queued,
        delayed: reply.delayed,
        leased: reply.leased,
        succeeded: reply.succeeded,
        failed: reply.failed,
        cancelled: reply.cancelled,
        forgotten: reply.forgotten,
        paused: reply.paused,
        priorities,
        tenants: reply.tenants.into_iter().map(tenant_stats).collect(),
        jobs_max: reply.jobs_max,
        tenant_jobs_max: some(reply.tenant_jobs_max),
    }
}

fn priority_stats(stats: wire::PriorityStats) -> PriorityStats {
    let wire::PriorityStats { priority, queued, oldest_ms } = stats;
    PriorityStats { priority, queued, oldest_ms: some(oldest_ms) }
}

fn tenant_stats(stats: wire::TenantStats) -> TenantStats {
    let wire::TenantStats { tenant, queued, leased, weight } = stats;
    TenantStats { tenant, queued, leased, weight }
}
