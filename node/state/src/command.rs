//! What may be asked of the state: the closed list of commands.

use crate::job::{ArtifactRef, JobId};
use crate::lease::{FencingToken, RevokeReason};
use crate::roster::NodeId;
use bytes::Bytes;

/// One command of a log entry. `State::apply` answers each with a `Reply`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// Accepts a job.
    Submit(Submit),
    /// Leases a queued job to a node; the log index becomes the fencing token.
    Assign(Assign),
    /// Names the result of a leased job.
    Complete(Complete),
    /// Records a failed attempt; the job is queued again or, after `attempts_max`, failed.
    Fail(Fail),
    /// Takes a lease back without counting an attempt.
    Revoke(Revoke),
    /// Cancels a job that is not terminal.
    Cancel(Cancel),
    /// Drops terminal jobs.
    Forget(Forget),
    /// Reserves a node id, the log index, for a node that will listen at an address.
    AllocateNode(AllocateNode),
    /// Announces a node's process. A new incarnation revokes the leases of the one before.
    RegisterNode(RegisterNode),
    /// Drops a node from the roster and revokes its leases.
    RemoveNode(RemoveNode),
}

/// Accepts a job.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Submit {
    /// Made by the client, so that a repeat is recognised.
    pub job: JobId,
    /// Whose job it is.
    pub tenant: String,
    /// Scoped to the tenant.
    pub idempotency_key: Option<String>,
    /// 0..=9, 9 is served first.
    pub priority: u8,
    /// For example `text_to_image/v1`; says who understands the parameters.
    pub kind: String,
    /// Understood by gateway and engine alone.
    pub parameters: Bytes,
    /// W3C trace context, empty when there is none.
    pub traceparent: String,
    /// Wall clock of the accepting peer in milliseconds, for display only.
    pub submitted_ms: u64,
    /// Failed attempts after which the job is failed.
    pub attempts_max: u32,
}

/// Leases a queued job to a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Assign {
    /// The queued job.
    pub job: JobId,
    /// The worker.
    pub node: NodeId,
    /// The worker's process as the scheduler knew it.
    pub incarnation: u64,
}

/// Names the result of a leased job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Complete {
    /// The leased job.
    pub job: JobId,
    /// The lease's token.
    pub token: FencingToken,
    /// The pictures, in order of image index.
    pub artifacts: Vec<ArtifactRef>,
    /// Wall clock in milliseconds, for display only.
    pub finished_ms: u64,
}

/// Records a failed attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fail {
    /// The leased job.
    pub job: JobId,
    /// The lease's token.
    pub token: FencingToken,
    /// What went wrong; cut to `ERROR_BYTES_MAX`.
    pub error: String,
    /// Another attempt would fail in the same way.
    pub permanent: bool,
    /// Wall clock in milliseconds, for display only.
    pub finished_ms: u64,
}

/// Takes a lease back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Revoke {
    /// The leased job.
    pub job: JobId,
    /// The lease's token.
    pub token: FencingToken,
    /// Why.
    pub reason: RevokeReason,
}

/// Cancels a job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cancel {
    /// The job.
    pub job: JobId,
    /// For whoever asks later; cut to `ERROR_BYTES_MAX`.
    pub reason: String,
    /// Wall clock in milliseconds, for display only.
    pub finished_ms: u64,
}

/// Drops terminal jobs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Forget {
    /// At most `FORGET_JOBS_MAX`; those that are not terminal are left alone.
    pub jobs: Vec<JobId>,
}

/// Reserves a node id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AllocateNode {
    /// Where its gRPC will listen, `http://host:port`.
    pub address: String,
}

/// Announces a node's process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RegisterNode {
    /// The node.
    pub node: NodeId,
    /// Where its gRPC listens, `http://host:port`.
    pub address: String,
    /// Rises with each start of the process.
    pub incarnation: u64,
    /// Jobs it may draw at a time; 0 while no engine is ready.
    pub slots: u32,
    /// Determinism class of its engine.
    pub class: String,
    /// Name and digest of its model.
    pub model: String,
}

/// Drops a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RemoveNode {
    /// The node.
    pub node: NodeId,
}
