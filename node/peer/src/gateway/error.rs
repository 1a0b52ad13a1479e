//! How refusals and failures are told: gRPC statuses whose code says what a client may do.
//!
//! The table stands at the head of `client.proto`. An unknown outcome is DEADLINE_EXCEEDED and
//! names
//! the job, so that the client can ask again under the same id.

use super::convert::Invalid;
use crate::ports::members::MembersError;
use crate::proposer::ProposeFailure;
use atelier_state::Refusal;
use tonic::metadata::{MetadataMap, MetadataValue};
use tonic::{Code, Status};

/// Metadata that names the leader's address.
pub(crate) const LEADER_KEY: &str = "atelier-leader";
/// Metadata that names the seconds to wait.
pub(crate) const RETRY_AFTER_KEY: &str = "retry-after";
/// Metadata that says whose bound is reached: `tenant` or `queue`.
pub(crate) const BOUND_KEY: &str = "atelier-bound";
/// Seconds to wait for a leader: the longest election fits in.
const RETRY_ELECTION_S: u64 = 1;
/// Seconds to wait for room in a queue: a few pictures are drawn in this time.
const RETRY_FULL_S: u64 = 5;

/// Makes a status with the leader and the seconds to wait, where they are known.
pub(crate) fn status(
    code: Code,
    text: impl Into<String>,
    leader: Option<&str>,
    retry_after_s: Option<u64>,
) -> Status {
    let mut metadata = MetadataMap::new();
    if let Some(Ok(leader)) = leader.map(MetadataValue::try_from) {
        metadata.insert(LEADER_KEY, leader);
    }
    if let Some(seconds) = retry_after_s {
        metadata.insert(RETRY_AFTER_KEY, MetadataValue::from(seconds));
    }
    Status::with_metadata(code, text, metadata)
}

/// No leader or no quorum: nothing was done, and the same call may be repeated.
pub(crate) fn unavailable(text: impl Into<String>, leader: Option<&str>) -> Status {
    status(Code::Unavailable, text, leader, Some(RETRY_ELECTION_S))
}

impl From<Invalid> for Status {
    fn from(invalid: Invalid) -> Self {
        status(Code::InvalidArgument, invalid.to_string(), None, None)
    }
}

/// What the state refused.
pub(crate) fn refused(refusal: &Refusal) -> Status {
    let (code, retry_after_s) = match refusal {
        Refusal::Invalid(_) => (Code::InvalidArgument, None),
        Refusal::QueueFull(_) | Refusal::TenantFull(_) => {
            (Code::ResourceExhausted, Some(RETRY_FULL_S))
        }
        Refusal::RosterFull => (Code::ResourceExhausted, None),
        Refusal::IdempotencyConflict(_) => (Code::AlreadyExists, None),
        Refusal::UnknownJob | Refusal::UnknownNode => (Code::NotFound, None),
        Refusal::StaleToken(_)
        | Refusal::NotQueued
        | Refusal::Terminal
        | Refusal::StaleIncarnation(_)
        | Refusal::NoSlot
        | Refusal::StaleVersion(_)
        | Refusal::Paused
        | Refusal::Draining
        | Refusal::Unsupported(_) => (Code::FailedPrecondition, None),
    };
    let mut status = status(code, refusal.to_string(), None, retry_after_s);
    let bound = match refusal {
        Refusal::QueueFull(_) => "queue",
        Refusal::TenantFull(_) => "tenant",
        _ => return status,
    };
    status.metadata_mut().insert(BOUND_KEY, MetadataValue::from_static(bound));
    status
}

/// The unfinished jobs take all the bytes that they may.
pub(crate) fn bytes_full(bytes: u64, bytes_max: u64) -> Status {
    let text = format!(
        "the unfinished jobs take {bytes} bytes, and the bound is {bytes_max}; try again later"
    );
    let mut status = status(Code::ResourceExhausted, text, None, Some(RETRY_FULL_S));
    status.metadata_mut().insert(BOUND_KEY, MetadataValue::from_static("queue"));
    status
}

/// Why a command did not get into the log, as far as is known. `what` names the thing to ask for
/// again where the outcome is unknown, for example `job 01ABC…`.
pub(crate) fn not_proposed(failure: &ProposeFailure, what: &str, leader: Option<&str>) -> Status {
    let text = failure.to_string();
    match failure {
        ProposeFailure::Unknown(_) => {
            status(Code::DeadlineExceeded, format!("{what}: {text}"), leader, None)
        }
        ProposeFailure::Refused(_) => status(Code::InvalidArgument, text, leader, None),
        ProposeFailure::Busy => status(Code::ResourceExhausted, text, leader, Some(RETRY_FULL_S)),
        ProposeFailure::Unavailable | ProposeFailure::Stopped(_) => unavailable(text, leader),
    }
}

/// Why the membership was not changed.
pub(crate) fn not_changed(error: &MembersError) -> Status {
    let text = error.to_string();
    match error {
        MembersError::NotLeader { leader } => {
            unavailable(text, leader.as_ref().map(|(_, address)| address.as_str()))
        }
        MembersError::Refused(_) => status(Code::FailedPrecondition, text, None, None),
        MembersError::Behind(_) => status(Code::OutOfRange, text, None, None),
        MembersError::Unknown(_) => status(Code::DeadlineExceeded, text, None, None),
    }
}

/// Peers tell a newcomer that is behind by a code of its own; to clients it is one more thing that
/// the state forbids.
pub(crate) fn behind_for_clients(refusal: Status) -> Status {
    if refusal.code() != Code::OutOfRange {
        return refusal;
    }
    status(Code::FailedPrecondition, refusal.message(), None, None)
}
