//! What each job shows by itself, and whether every index finds it.

use super::{Invariant, Violation, ensure, within};
use crate::job::{Attempt, Job, Phase};
use crate::lease::{FencingToken, Lease};
use crate::limits;
use crate::queue::{Place, Waiting};
use crate::reply::LogIndex;
use crate::roster::NodeId;
use crate::state::State;

pub(super) fn check(state: &State, job: &Job) -> Result<(), Violation> {
    check_limits(job)?;
    check_level(state, job)?;
    check_life(state, job)?;
    check_phase(job)
}

fn check_limits(job: &Job) -> Result<(), Violation> {
    let submit = &job.submit;
    let key = submit.idempotency_key.as_deref();
    within(job, "tenant", submit.tenant.len(), limits::NAME_BYTES_MAX)?;
    within(job, "idempotency key", key.map_or(0, str::len), limits::NAME_BYTES_MAX)?;
    within(job, "priority", submit.priority.into(), limits::PRIORITY_MAX.into())?;
    within(job, "kind", submit.kind.len(), limits::NAME_BYTES_MAX)?;
    within(job, "parameters", submit.parameters.len(), limits::PARAMETERS_BYTES_MAX)?;
    within(job, "traceparent", submit.traceparent.len(), limits::NAME_BYTES_MAX)?;
    within(job, "attempts_max", submit.attempts_max as usize, limits::ATTEMPTS_MAX as usize)?;
    within(job, "failed attempts", job.attempts.len(), submit.attempts_max as usize)?;
    within(job, "cancel reason", job.cancel_reason.len(), limits::ERROR_BYTES_MAX)?;
    within(job, "cost", submit.cost as usize, limits::COST_MAX as usize)?;
    within(job, "artifacts", job.artifacts.len(), limits::ARTIFACTS_MAX)?;
    for attempt in &job.attempts {
        within(job, "error", attempt.error.len(), limits::ERROR_BYTES_MAX)?;
    }
    for artifact in &job.artifacts {
        within(job, "media type", artifact.media_type.len(), limits::NAME_BYTES_MAX)?;
        within(job, "holders", artifact.holders.len(), limits::HOLDERS_MAX)?;
        let is_held = artifact.holders.first().is_some_and(|holder| holder.0 > 0);
        ensure(is_held, Invariant::S6, || {
            format!("job {} has an artifact nobody holds", job.id())
        })?;
    }
    let is_named = job.id().0 > 0 && !submit.kind.is_empty() && key != Some("");
    let is_named = is_named && submit.cost > 0;
    ensure(is_named, Invariant::S6, || format!("job {} lacks its id, kind or key", job.id()))
}

/// Checks the numbers that a job collects over its life.
fn check_life(state: &State, job: &Job) -> Result<(), Violation> {
    let id = job.id();
    let token = job.last_token.unwrap_or(FencingToken(0));
    let is_leased_once = job.leases > 0;
    ensure(job.last_token.is_some() == is_leased_once, Invariant::S4, || {
        format!("job {id} was leased {} times and has token {token}", job.leases)
    })?;
    ensure(job.last_node.is_some() == is_leased_once, Invariant::S4, || {
        format!("job {id} was leased {} times and its node is {:?}", job.leases, job.last_node)
    })?;
    // The deadline may have ended it between two leases.
    let expired = usize::from(job.phase == Phase::Failed && job.submit.deadline_ms > 0);
    ensure(job.attempts.len() <= job.leases as usize + expired, Invariant::S4, || {
        format!("job {id} failed more often than it was leased")
    })?;
    ensure(job.stamp <= state.assigned, Invariant::S9, || {
        format!("job {id} came after {} leases, of {}", job.stamp, state.assigned)
    })?;
    let granted = job.accepted.0..=state.applied.0;
    ensure(!is_leased_once || (token.0 > 0 && granted.contains(&token.0)), Invariant::S4, || {
        format!("job {id} has token {token}, outside of {granted:?}")
    })?;
    ensure(job.accepted <= state.applied, Invariant::S5, || format!("job {id} is of the future"))?;
    match &job.phase {
        Phase::Leased(lease) => check_lease(state, job, lease),
        Phase::Queued => Ok(()),
        Phase::Succeeded | Phase::Failed | Phase::Cancelled => {
            let ended = job.accepted.0.max(token.0)..=state.applied.0;
            ensure(ended.contains(&job.finished.0), Invariant::S1, || {
                format!("job {id} ended at {}, outside of {ended:?}", job.finished.0)
            })
        }
    }
}

fn check_lease(state: &State, job: &Job, lease: &Lease) -> Result<(), Violation> {
    let id = job.id();
    ensure(job.last_token == Some(lease.token), Invariant::S4, || {
        format!("job {id} is leased under {}, its newest token {:?}", lease.token, job.last_token)
    })?;
    ensure(job.last_node == Some(lease.node), Invariant::S3, || {
        format!("job {id} is leased to {}, its newest node {:?}", lease.node, job.last_node)
    })?;
    let incarnation = state.nodes.get(&lease.node).map(|node| node.incarnation);
    let is_current = lease.incarnation > 0 && incarnation == Some(lease.incarnation);
    ensure(is_current, Invariant::S3, || {
        format!("job {id} is leased to {lease:?}, the node is at {incarnation:?}")
    })
}

/// Checks that a job has what its phase has, and nothing that another phase has.
fn check_phase(job: &Job) -> Result<(), Violation> {
    let (succeeded, cancelled) = (job.phase == Phase::Succeeded, job.phase == Phase::Cancelled);
    let attempts_left = job.attempts.len() < job.submit.attempts_max as usize;
    let fits = match job.phase {
        Phase::Queued | Phase::Leased(_) => attempts_left && job.finished == LogIndex(0),
        Phase::Succeeded => attempts_left && job.leases > 0,
        Phase::Failed => !job.attempts.is_empty(),
        Phase::Cancelled => attempts_left,
    };
    ensure(fits, Invariant::S1, || format!("job {} is not {}", job.id(), job.phase.name()))?;
    let waits = job.phase == Phase::Queued && !job.attempts.is_empty();
    ensure(!job.is_delayed() || waits, Invariant::S1, || {
        format!("job {} is {} and in back-off", job.id(), job.phase.name())
    })?;
    let is_stamped = job.finished_ms != 0;
    ensure(!is_stamped || job.phase.is_terminal(), Invariant::S1, || {
        format!("job {} is {} and has a time of its end", job.id(), job.phase.name())
    })?;
    ensure(job.artifacts.is_empty() != succeeded, Invariant::S1, || {
        let count = job.artifacts.len();
        format!("job {} is {} and has {count} artifacts", job.id(), job.phase.name())
    })?;
    ensure(job.cancel_reason.is_empty() || cancelled, Invariant::S1, || {
        format!("job {} is {} and has a reason to be cancelled", job.id(), job.phase.name())
    })
}

/// Checks that at feature level 1 a job has nothing of a later one.
fn check_level(state: &State, job: &Job) -> Result<(), Violation> {
    let submit = &job.submit;
    let is_plain = job.tag == 0
        && job.stamp == 0
        && job.retry_at_ms == 0
        && submit.deadline_ms == 0
        && submit.max_runtime_s == 0
        && submit.cost == 1
        && submit.retry_of.is_none();
    let is_bare = |attempt: &Attempt| {
        (attempt.token, attempt.node, attempt.failed_ms) == (FencingToken(0), NodeId(0), 0)
    };
    let fits = state.features.0 >= 2 || (is_plain && job.attempts.iter().all(is_bare));
    ensure(fits, Invariant::S7, || {
        format!("job {} has marks of feature level 2 at level 1", job.id())
    })
}

/// Checks that a job is in the indexes of its phase. That it is in no other follows from their
/// sizes.
pub(super) fn check_indexed(state: &State, job: &Job) -> Result<(), Violation> {
    let id = job.id();
    let is_indexed = match &job.phase {
        Phase::Queued if job.is_delayed() => state.queue.is_delayed(job),
        Phase::Queued => {
            let waiting = Waiting { job: id, stamp: job.stamp };
            state.queue.at(Place::of(job)) == Some(waiting)
        }
        Phase::Leased(lease) => state.leases.contains(&(lease.node, id)),
        Phase::Succeeded | Phase::Failed | Phase::Cancelled => {
            state.ended.of(&job.phase).is_some_and(|set| set.contains(&(job.finished, id)))
        }
    };
    ensure(is_indexed, Invariant::S3, || {
        format!("job {id} is {} and not in that index", job.phase.name())
    })?;
    for artifact in &job.artifacts {
        let digest = artifact.digest;
        ensure(state.artifacts.contains(&(digest, id)), Invariant::S7, || {
            format!("job {id} is not found by its artifact {digest}")
        })?;
    }
    let Some(key) = &job.submit.idempotency_key else { return Ok(()) };
    let owner = state.key_owner(&job.submit.tenant, key);
    ensure(owner == Some(id), Invariant::S2, || {
        format!("the idempotency key of job {id} leads to {owner:?}")
    })
}
