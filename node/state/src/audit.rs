//! Proves the invariants S1 to S8: `check` what a state shows by itself, `check_step` what one
//! command did.
//!
//! Tests and the simulation call both after every step, a snapshot is refused by the first. `apply`
//! calls neither. Nothing here shares code with `apply` or with the functions that keep the
//! indexes, so that one mistake cannot hide behind itself.

mod step;
#[cfg(test)]
mod tests;

pub use step::check_step;

use crate::job::{Job, Phase};
use crate::lease::{FencingToken, Lease};
use crate::limits;
use crate::queue::{Place, Waiting};
use crate::reply::LogIndex;
use crate::roster::Node;
use crate::state::State;
use imbl::OrdSet;
use std::collections::BTreeMap;

/// An invariant of the state machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Invariant {
    /// Every job is in exactly one phase; a terminal phase never changes.
    S1,
    /// One job id is submitted once; a repeat answers with the first job.
    S2,
    /// A job has a lease exactly when it is Leased; a node is given no more leases than slots.
    S3,
    /// Only the current token may complete, fail or revoke; tokens of one job strictly rise.
    S4,
    /// Every accepted job is waiting, leased or terminal: nothing is forgotten but by Forget.
    S5,
    /// Every collection is within its limits.
    S6,
    /// Same snapshot and same entries give the same digest: whatever is derived follows from the
    /// records.
    S7,
    /// Every command has a reply that fits it, and a refused one changes nothing.
    S8,
}

/// What is wrong.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{invariant:?}: {detail}")]
pub struct Violation {
    /// Which invariant is broken.
    pub invariant: Invariant,
    /// Where, expected and found.
    pub detail: String,
}

/// Checks what a state shows by itself. Its cost grows with the number of jobs.
///
/// # Errors
/// The first violation that is found. There is a bug then, or a snapshot that was not made by this
/// product.
pub fn check(state: &State) -> Result<(), Violation> {
    check_counts(state)?;
    for (id, job) in state.jobs.iter() {
        ensure(*id == job.submit.job, Invariant::S2, || format!("job {id} is kept as another"))?;
        check_limits(job)?;
        check_life(state, job)?;
        check_phase(job)?;
        check_indexed(state, job)?;
    }
    for (id, node) in state.nodes.iter() {
        check_node(node)
            .map_err(|detail| violation(Invariant::S6, format!("node {id}: {detail}")))?;
        let leases = state.leased_count_of(*id);
        ensure(leases <= limits::SLOTS_MAX as usize, Invariant::S3, || {
            format!("node {id} holds {leases} leases")
        })?;
    }
    check_sequences(state)?;
    check_index_sizes(state)
}

fn check_counts(state: &State) -> Result<(), Violation> {
    let (jobs, queued) = (state.jobs.len(), state.queue.len());
    let (leased, terminal) = (state.leases.len(), state.ended.len());
    ensure(queued + leased + terminal == jobs, Invariant::S1, || {
        format!("{queued} queued + {leased} leased + {terminal} terminal jobs, of {jobs}")
    })?;
    let accepted = state.forgotten.checked_add(u64::try_from(jobs).expect("a usize fits"));
    ensure(accepted == Some(state.submit_sequence), Invariant::S5, || {
        let State { submit_sequence, forgotten, .. } = state;
        format!("{jobs} jobs + {forgotten} forgotten, of {submit_sequence} accepted")
    })?;
    ensure(jobs <= limits::JOBS_MAX, Invariant::S6, || format!("{jobs} jobs"))?;
    // Leased jobs may come back to a full queue; then no others are accepted.
    ensure(queued + leased <= WAITING_MAX, Invariant::S6, || format!("{queued} jobs wait"))?;
    ensure(state.nodes.len() <= limits::NODES_MAX, Invariant::S6, || {
        format!("{} nodes", state.nodes.len())
    })
}

const WAITING_MAX: usize = limits::QUEUE_JOBS_MAX + limits::NODES_MAX * limits::SLOTS_MAX as usize;

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
    ensure(job.attempts.len() <= job.leases as usize, Invariant::S4, || {
        format!("job {id} failed more often than it was leased")
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

/// Checks that a job is in the indexes of its phase. That it is in no other follows from their
/// sizes.
fn check_indexed(state: &State, job: &Job) -> Result<(), Violation> {
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

fn check_node(node: &Node) -> Result<(), String> {
    let lengths = [node.address.len(), node.class.len(), node.model.len()];
    if lengths.iter().any(|bytes| *bytes > limits::TEXT_BYTES_MAX) || node.address.is_empty() {
        return Err(format!("texts of {lengths:?} bytes"));
    }
    if node.slots > limits::SLOTS_MAX {
        return Err(format!("{} slots", node.slots));
    }
    if node.incarnation == 0 && node.slots > 0 {
        return Err(format!("never registered, and has {} slots", node.slots));
    }
    Ok(())
}

/// Checks that sequences are given once, in the order of the log.
fn check_sequences(state: &State) -> Result<(), Violation> {
    let mut by_sequence = BTreeMap::new();
    for job in state.jobs.values() {
        let twin = by_sequence.insert(job.sequence, job.accepted);
        let is_given = twin.is_none() && (1..=state.submit_sequence).contains(&job.sequence);
        ensure(is_given, Invariant::S5, || {
            format!("job {} has sequence {}, given twice or never", job.id(), job.sequence)
        })?;
    }
    let is_in_order = by_sequence.values().is_sorted();
    ensure(is_in_order, Invariant::S5, || "sequences do not follow the log".to_owned())
}

/// Checks that no index names more than the jobs do.
fn check_index_sizes(state: &State) -> Result<(), Violation> {
    let queued = state.jobs.values().filter(|job| job.phase == Phase::Queued).count();
    ensure(state.queue.len() == queued, Invariant::S1, || {
        format!("the queue names {} jobs, {queued} are queued", state.queue.len())
    })?;
    ensure(state.queue.is_consistent(), Invariant::S7, || "the queue counts wrongly".to_owned())?;
    let leased = state.jobs.values().filter(|job| job.lease().is_some()).count();
    ensure(state.leases.len() == leased, Invariant::S3, || {
        format!("{} leases, {leased} leased jobs", state.leases.len())
    })?;
    let keys = state.jobs.values().filter(|job| job.submit.idempotency_key.is_some()).count();
    ensure(state.keys.owners.len() == keys, Invariant::S2, || {
        format!("{} idempotency keys, {keys} jobs have one", state.keys.owners.len())
    })?;
    let artifacts: OrdSet<_> = state
        .jobs
        .values()
        .flat_map(|job| job.artifacts.iter().map(|artifact| (artifact.digest, job.id())))
        .collect();
    ensure(state.artifacts == artifacts, Invariant::S7, || {
        format!("{} artifacts are indexed, {} exist", state.artifacts.len(), artifacts.len())
    })
}

fn within(job: &Job, what: &str, found: usize, most: usize) -> Result<(), Violation> {
    ensure(found <= most, Invariant::S6, || {
        format!("job {} has {what} {found}, at most {most}", job.id())
    })
}

fn ensure(
    holds: bool,
    invariant: Invariant,
    detail: impl FnOnce() -> String,
) -> Result<(), Violation> {
    if holds { Ok(()) } else { Err(violation(invariant, detail())) }
}

fn violation(invariant: Invariant, detail: String) -> Violation {
    Violation { invariant, detail }
}
