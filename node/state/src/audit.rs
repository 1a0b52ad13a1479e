//! Proves the invariants S1 to S9: `check` what a state shows by itself, `check_step` what one
//! command did.
//!
//! Tests and the simulation call both after every step, a snapshot is refused by the first. `apply`
//! calls neither. Nothing here shares code with `apply` or with the functions that keep the
//! indexes, so that one mistake cannot hide behind itself.

mod jobs;
mod records;
mod step;
#[cfg(test)]
mod tests;

pub use step::check_step;

use crate::job::{Job, Phase};
use crate::limits;
use crate::state::{JobBytes, State};

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
    /// A job's place in the order follows from what was accepted before it and never changes; only
    /// a lease moves the virtual time and makes others older.
    S9,
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
    check_records(state)?;
    state.jobs.values().try_for_each(|job| jobs::check_indexed(state, job))
}

/// Checks the records, and by their sizes the indexes. That is enough for indexes that were just
/// made from the records: one that names too little or too much has another size.
pub(crate) fn check_records(state: &State) -> Result<(), Violation> {
    check_counts(state)?;
    let mut bytes = JobBytes::default();
    for (id, job) in state.jobs.iter() {
        ensure(*id == job.submit.job, Invariant::S2, || format!("job {id} is kept as another"))?;
        jobs::check(state, job)?;
        *bytes.of(&job.phase) += job.bytes();
    }
    ensure(bytes == state.bytes, Invariant::S6, || {
        format!("the jobs take {bytes:?}, and {:?} were counted", state.bytes)
    })?;
    for (id, node) in state.nodes.iter() {
        records::check_node(node, state.features.0)
            .map_err(|detail| violation(Invariant::S6, format!("node {id}: {detail}")))?;
        let leases = state.leased_count_of(*id);
        ensure(leases <= limits::SLOTS_MAX as usize, Invariant::S3, || {
            format!("node {id} holds {leases} leases")
        })?;
    }
    records::check(state)?;
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
    let (jobs_max, queue_max) = match state.features.0 {
        limits::FEATURES_FIRST => (limits::JOBS_MAX_FIRST, limits::QUEUE_JOBS_MAX_FIRST),
        _ => (limits::JOBS_MAX, limits::QUEUE_JOBS_MAX),
    };
    ensure(jobs <= jobs_max, Invariant::S6, || format!("{jobs} jobs"))?;
    // Leased jobs may come back to a full queue; then no others are accepted.
    ensure(queued + leased <= queue_max + LEASES_MAX, Invariant::S6, || {
        format!("{queued} jobs wait")
    })?;
    ensure(state.nodes.len() <= limits::NODES_MAX, Invariant::S6, || {
        format!("{} nodes", state.nodes.len())
    })
}

const LEASES_MAX: usize = limits::NODES_MAX * limits::SLOTS_MAX as usize;

/// Checks that sequences are given once, in the order of the log.
fn check_sequences(state: &State) -> Result<(), Violation> {
    let places = state.jobs.values().map(|job| (job.sequence, job.accepted));
    let mut places: Vec<_> = places.collect();
    places.sort_unstable();
    let twin = places.windows(2).find(|pair| pair[0].0 == pair[1].0).map(|pair| pair[0].0);
    let given = 1..=state.submit_sequence;
    let wrong = twin.or_else(|| places.iter().map(|it| it.0).find(|it| !given.contains(it)));
    ensure(wrong.is_none(), Invariant::S5, || {
        format!("sequence {wrong:?} was given twice or never")
    })?;
    let is_in_order = places.iter().map(|(_, accepted)| accepted).is_sorted();
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
    let mut artifacts = Vec::new();
    for (id, job) in state.jobs.iter() {
        artifacts.extend(job.artifacts.iter().map(|artifact| (artifact.digest, *id)));
    }
    artifacts.sort_unstable();
    artifacts.dedup();
    ensure(state.artifacts.iter().eq(&artifacts), Invariant::S7, || {
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
