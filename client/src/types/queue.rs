//! What callers learn about the queue as a whole, and about jobs submitted together.

use super::{Accepted, JobId, NodeId};

/// Why an attempt at a job failed, where and when.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FailedAttempt {
    /// Who drew; `None` where the cluster no longer knows.
    pub node: Option<NodeId>,
    /// Fencing token of the attempt; 0 where the cluster no longer knows.
    pub token: u64,
    /// What went wrong.
    pub error: String,
    /// Wall clock of the leader, milliseconds since 1970; `None` where it is not known.
    pub failed_ms: Option<u64>,
}

/// What became of one job of a batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BatchOutcome {
    /// The cluster holds it.
    Accepted(Accepted),
    /// It was refused; the others of the batch are not touched by that.
    Refused(BatchRefusal),
}

/// Why one job of a batch was refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BatchRefusal {
    /// The job, as it was submitted.
    pub job: JobId,
    /// What may be done about it.
    pub kind: RefusalKind,
    /// What was expected, what came, what to do.
    pub message: String,
}

/// What may be done about a refusal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RefusalKind {
    /// Mend the request.
    Invalid,
    /// The same idempotency key came with another request; use another key.
    AlreadyExists,
    /// A bound is reached; come back later.
    Full,
    /// Nobody knows whether it was accepted; submit it again under the same id.
    Unknown,
    /// It was not accepted; submit it again.
    Unavailable,
    /// Something else; the message tells.
    Other,
}

impl RefusalKind {
    /// The lower-case word for it.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Invalid => "invalid",
            Self::AlreadyExists => "already exists",
            Self::Full => "full",
            Self::Unknown => "unknown",
            Self::Unavailable => "unavailable",
            Self::Other => "refused",
        }
    }
}

/// What came of a purge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Purged {
    /// How many jobs are forgotten now.
    pub purged: u32,
    /// How many of the asked phases are still there.
    pub left: u64,
}

/// How full the queue is, and who fills it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueueStats {
    /// Jobs that wait, those that wait for their back-off too.
    pub queued: u64,
    /// Of these, how many wait for their back-off.
    pub delayed: u64,
    /// Jobs that are being drawn.
    pub leased: u64,
    /// Jobs that succeeded and are remembered.
    pub succeeded: u64,
    /// The dead letters.
    pub failed: u64,
    /// Jobs that were cancelled and are remembered.
    pub cancelled: u64,
    /// Jobs that were forgotten, ever.
    pub forgotten: u64,
    /// Nothing is given out.
    pub paused: bool,
    /// One for each priority in which a job waits, highest first.
    pub priorities: Vec<PriorityStats>,
    /// Those with waiting or running jobs, most waiting first, at most 100.
    pub tenants: Vec<TenantStats>,
    /// How many jobs may wait.
    pub jobs_max: u64,
    /// How many jobs of one tenant may wait and run; `None` for no bound of its own.
    pub tenant_jobs_max: Option<u64>,
}

/// Jobs that wait in one priority.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PriorityStats {
    /// 0 to 9, higher goes first.
    pub priority: u32,
    /// How many wait.
    pub queued: u64,
    /// When the oldest was submitted, milliseconds since 1970; `None` when none waits.
    pub oldest_ms: Option<u64>,
}

/// Jobs of one tenant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TenantStats {
    /// Its name.
    pub tenant: String,
    /// How many wait.
    pub queued: u64,
    /// How many are being drawn.
    pub leased: u64,
    /// Its share, compared with the other tenants' weights.
    pub weight: u64,
}
