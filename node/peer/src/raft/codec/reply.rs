//! Replies, which travel when a peer forwards a proposal to the leader.

use super::DecodeError;
use super::command::{job, job_bytes};
use atelier_proto::peer::v1 as pb;
use atelier_proto::peer::v1::RefusalKind as Kind;
use atelier_proto::peer::v1::reply::Reply as Body;
use atelier_state::{FencingToken, JobId, LogIndex, NodeId, Refusal, Reply, limits};

/// Encodes a reply.
pub fn reply_to_proto(reply: &Reply) -> pb::Reply {
    let body = match reply {
        Reply::Submitted { job, duplicate, log_index } => Body::Submitted(pb::Submitted {
            job: job_bytes(*job),
            duplicate: *duplicate,
            log_index: log_index.0,
        }),
        Reply::Assigned { token } => Body::Assigned(pb::Assigned { token: token.0 }),
        Reply::NodeAllocated { node } => Body::NodeAllocated(pb::NodeAllocated { node: node.0 }),
        Reply::Done => Body::Done(pb::Done {}),
        Reply::Refused(refusal) => Body::Refused(refusal_to_proto(refusal)),
    };
    pb::Reply { reply: Some(body) }
}

/// Decodes a reply.
///
/// # Errors
/// When a field cannot be what it should be, or the reply is of a kind that this version does not know.
pub fn reply_from_proto(reply: pb::Reply) -> Result<Reply, DecodeError> {
    let body = reply.reply.ok_or_else(|| DecodeError::missing("reply"))?;
    Ok(match body {
        Body::Submitted(submitted) => Reply::Submitted {
            job: job("submitted.job", &submitted.job)?,
            duplicate: submitted.duplicate,
            log_index: LogIndex(submitted.log_index),
        },
        Body::Assigned(assigned) => Reply::Assigned { token: FencingToken(assigned.token) },
        Body::NodeAllocated(allocated) => Reply::NodeAllocated { node: NodeId(allocated.node) },
        Body::Done(pb::Done {}) => Reply::Done,
        Body::Refused(refused) => Reply::Refused(refusal_from_proto(refused)?),
    })
}

fn refusal_to_proto(refusal: &Refusal) -> pb::Refused {
    let plain = |kind: Kind| pb::Refused { kind: kind.into(), ..pb::Refused::default() };
    match refusal {
        Refusal::Invalid(detail) => pb::Refused { detail: detail.clone(), ..plain(Kind::Invalid) },
        Refusal::QueueFull(bound) => pb::Refused { number: *bound, ..plain(Kind::QueueFull) },
        Refusal::IdempotencyConflict(job) => {
            pb::Refused { detail: job.to_string(), ..plain(Kind::IdempotencyConflict) }
        }
        Refusal::UnknownJob => plain(Kind::UnknownJob),
        Refusal::StaleToken(token) => pb::Refused { number: token.0, ..plain(Kind::StaleToken) },
        Refusal::NotQueued => plain(Kind::NotQueued),
        Refusal::Terminal => plain(Kind::Terminal),
        Refusal::UnknownNode => plain(Kind::UnknownNode),
        Refusal::StaleIncarnation(number) => {
            pb::Refused { number: *number, ..plain(Kind::StaleIncarnation) }
        }
        Refusal::NoSlot => plain(Kind::NoSlot),
        Refusal::RosterFull => plain(Kind::RosterFull),
        Refusal::TenantFull(bound) => pb::Refused { number: *bound, ..plain(Kind::TenantFull) },
        Refusal::StaleVersion(version) => {
            pb::Refused { number: *version, ..plain(Kind::StaleVersion) }
        }
        Refusal::Paused => plain(Kind::Paused),
        Refusal::Draining => plain(Kind::Draining),
        Refusal::Unsupported(level) => {
            pb::Refused { number: u64::from(*level), ..plain(Kind::Unsupported) }
        }
    }
}

fn refusal_from_proto(refused: pb::Refused) -> Result<Refusal, DecodeError> {
    let number = refused.number;
    Ok(match Kind::try_from(refused.kind).unwrap_or_default() {
        Kind::Unspecified => {
            return Err(DecodeError::new(
                "refused.kind",
                format!("{} is not a kind", refused.kind),
            ));
        }
        Kind::Invalid => Refusal::Invalid(refused.detail),
        Kind::QueueFull if number == 0 => Refusal::QueueFull(limits::QUEUE_JOBS_MAX_FIRST as u64),
        Kind::QueueFull => Refusal::QueueFull(number),
        Kind::IdempotencyConflict => {
            let job: Result<JobId, _> = refused.detail.parse();
            let job = job.map_err(|e| DecodeError::new("refused.detail", e.to_string()))?;
            Refusal::IdempotencyConflict(job)
        }
        Kind::UnknownJob => Refusal::UnknownJob,
        Kind::StaleToken => Refusal::StaleToken(FencingToken(number)),
        Kind::NotQueued => Refusal::NotQueued,
        Kind::Terminal => Refusal::Terminal,
        Kind::UnknownNode => Refusal::UnknownNode,
        Kind::StaleIncarnation => Refusal::StaleIncarnation(number),
        Kind::NoSlot => Refusal::NoSlot,
        Kind::RosterFull => Refusal::RosterFull,
        Kind::TenantFull => Refusal::TenantFull(number),
        Kind::StaleVersion => Refusal::StaleVersion(number),
        Kind::Paused => Refusal::Paused,
        Kind::Draining => Refusal::Draining,
        Kind::Unsupported => {
            let level = u32::try_from(number);
            let level = level.map_err(|e| DecodeError::new("refused.number", e.to_string()))?;
            Refusal::Unsupported(level)
        }
    })
}
