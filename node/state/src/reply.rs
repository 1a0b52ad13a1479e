//! What the state answers.

use crate::job::JobId;
use crate::lease::FencingToken;
use crate::limits;
use crate::roster::NodeId;

/// The position of an entry in the replicated log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LogIndex(pub u64);

/// The answer to one command. A refusal was agreed upon as well; it is not an error.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// To `Submit`.
    Submitted {
        /// The job that holds; the first one where this was a repeat.
        job: JobId,
        /// It had been accepted before.
        duplicate: bool,
        /// Where it was accepted.
        log_index: LogIndex,
    },
    /// To `Assign`.
    Assigned {
        /// The log index of this very entry.
        token: FencingToken,
    },
    /// To `AllocateNode`.
    NodeAllocated {
        /// The log index of this very entry.
        node: NodeId,
    },
    /// To all others.
    Done,
    /// To any.
    Refused(Refusal),
}

/// Why a command changed nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The command is outside the limits; the text says what was expected and what came.
    #[error("{0}")]
    Invalid(String),
    /// The queue, the memory of jobs or the list of tenants is at this bound.
    #[error("the queue is full: its bound is {0}; try again later")]
    QueueFull(u64),
    /// The tenant used this idempotency key for another body.
    #[error(
        "this idempotency key or job id was used for another request, job {0}; repeat that one as it was, or use a new one"
    )]
    IdempotencyConflict(JobId),
    /// No such job; it may have been forgotten.
    #[error("no such job; it was never accepted, or it is past its retention")]
    UnknownJob,
    /// The lease of this token has ended.
    #[error("the lease has ended; the newest token of this job is {}", .0.0)]
    StaleToken(FencingToken),
    /// The job is not waiting.
    #[error("the job is not waiting in the queue")]
    NotQueued,
    /// The job has its final phase.
    #[error("the job has ended")]
    Terminal,
    /// No such node.
    #[error("no such node; register it first")]
    UnknownNode,
    /// The node's process is another one by now.
    #[error("the node has been restarted since; its incarnation is {0}")]
    StaleIncarnation(u64),
    /// Every slot of the node is taken.
    #[error("every slot of the node is taken")]
    NoSlot,
    /// The roster is at its bound.
    #[error("the roster holds {} nodes, its bound; remove one first", limits::NODES_MAX)]
    RosterFull,
    /// The tenant has as many jobs that wait or are worked on as this bound.
    #[error("the tenant has {0} unfinished jobs, its bound; try again later")]
    TenantFull(u64),
    /// The settings have this version by now.
    #[error("the settings have been changed since; their version is {0}: look again, then retry")]
    StaleVersion(u64),
    /// No job is given out for now.
    #[error("the queue is paused; resume it first")]
    Paused,
    /// The node gets no new jobs.
    #[error("the node is being drained; resume it first")]
    Draining,
    /// The cluster is at this feature level, and the command is of a later one.
    #[error("the cluster is at feature level {0}; upgrade every peer first")]
    Unsupported(u32),
}
