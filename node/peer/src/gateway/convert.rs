//! Between what clients write and what the state knows: the only place of the gateway that does so.
//!
//! Owns the validation of everything a client may send, and the shapes of everything it gets. It
//! must not decide anything that needs a clock, a leader or a socket.

mod queue;
mod settings;

pub(super) use queue::{
    batch_accepted, batch_refused, check_batch, purge, queue_stats, retried, retry,
};
pub(super) use settings::{labels, setting_changes, settings, settings_history, trail};

use crate::parameters::{
    GUIDANCE_MAX, IMAGES_MAX, NEGATIVE_BYTES_MAX, PROMPT_BYTES_MAX, SIDE_MAX, SIDE_MIN,
    SIDE_MULTIPLE, STRENGTH_MIN, TextToImage,
};
use crate::ports::RaftStatus;
use atelier_proto::client::v1 as wire;
use atelier_state::limits::{NAME_BYTES_MAX, PRIORITY_MAX};
use atelier_state::{ArtifactRef, Attempt, Digest, Job, JobId, NodeId, Phase, State, Submit};
use std::collections::{BTreeMap, BTreeSet};
use tonic::metadata::MetadataMap;

/// Steps that a client may ask for. A front-door bound, below what an engine takes: the model needs
/// 8.
pub(crate) const STEPS_ASKED_MAX: u32 = 50;
/// The priority of a job that names none; as many are below it as above, and one more.
pub(crate) const PRIORITY_DEFAULT: u8 = 5;
/// The tenant of a job that names none.
pub(crate) const TENANT_DEFAULT: &str = "default";
/// Jobs that one `ListJobs` answers at most; a larger limit is refused.
pub(crate) const LIST_JOBS_MAX: usize = 1_000;
/// Jobs that `ListJobs` answers where no limit is named.
const LIST_JOBS_DEFAULT: usize = 100;

const _: () = assert!(STEPS_ASKED_MAX <= crate::parameters::STEPS_MAX);
const _: () = assert!(PRIORITY_DEFAULT <= PRIORITY_MAX);

/// A request that cannot be served as it is: every fault, each with expected, got and what to do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", .0.join("; "))]
pub(crate) struct Invalid(pub(crate) Vec<String>);

/// What a gateway adds to a submission.
pub(crate) struct Stamp {
    /// The id of a job whose client made none.
    pub(crate) job: JobId,
    /// Wall clock in milliseconds.
    pub(crate) now_ms: u64,
    /// From the settings.
    pub(crate) attempts_max: u32,
    /// The deadline of a job that names none, from now; 0: none.
    pub(crate) deadline_s: u64,
    /// The longest attempt of a job that names none; 0: no bound.
    pub(crate) max_runtime_s: u32,
    /// Jobs weigh what they draw; not so in a cluster that is of the first feature level.
    pub(crate) has_costs: bool,
}

/// Checks a submission and makes the command of it.
///
/// # Errors
/// [`Invalid`] with every fault.
pub(crate) fn submit(
    request: wire::SubmitRequest,
    metadata: &MetadataMap,
    stamp: Stamp,
) -> Result<Submit, Invalid> {
    let mut faults = Vec::new();
    let job = match request.job_id.as_str() {
        "" => stamp.job,
        text => job_id(text).unwrap_or_else(|invalid| {
            faults.extend(invalid.0);
            stamp.job
        }),
    };
    let key = or_metadata(request.idempotency_key, metadata, "idempotency-key");
    let traceparent = or_metadata(request.traceparent, metadata, "traceparent");
    check_name("tenant", &request.tenant, &mut faults);
    check_name("idempotency_key", &key, &mut faults);
    check_name("traceparent", &traceparent, &mut faults);
    let priority = match request.priority {
        0 => PRIORITY_DEFAULT,
        asked if asked <= u32::from(PRIORITY_MAX) + 1 => (asked - 1) as u8,
        asked => {
            let expected = "0 for the default, or 1 + the priority, so 1 to 10";
            faults.push(format!("priority {asked}: expected {expected}"));
            PRIORITY_DEFAULT
        }
    };
    let parameters = match request.parameters {
        Some(wire::submit_request::Parameters::TextToImage(asked)) => {
            let images = asked.images.max(1);
            TextToImage::from_wire(wire::TextToImage { images, ..asked }).unwrap_or_else(|error| {
                faults.push(error.to_string());
                TextToImage::default()
            })
        }
        None => {
            faults.push("parameters: expected text_to_image, got nothing; name a prompt".into());
            TextToImage::default()
        }
    };
    check_parameters(&parameters, &mut faults);
    if !faults.is_empty() {
        return Err(Invalid(faults));
    }
    let tenant = match request.tenant.as_str() {
        "" => TENANT_DEFAULT.to_owned(),
        _ => request.tenant,
    };
    let deadline_s = or_default(u64::from(request.deadline_s), stamp.deadline_s);
    let cost = parameters.images.max(1);
    Ok(Submit {
        job,
        tenant: tenant.into(),
        idempotency_key: (!key.is_empty()).then(|| key.into()),
        priority,
        kind: parameters.kind().into(),
        parameters: parameters.encode(),
        traceparent,
        submitted_ms: stamp.now_ms,
        attempts_max: stamp.attempts_max,
        deadline_ms: if deadline_s > 0 { stamp.now_ms + 1_000 * deadline_s } else { 0 },
        max_runtime_s: or_default(request.max_runtime_s, stamp.max_runtime_s),
        cost: if stamp.has_costs { cost } else { 1 },
        retry_of: None,
    })
}

/// Reads a job id.
///
/// # Errors
/// [`Invalid`] unless it is a ULID other than zero.
pub(crate) fn job_id(text: &str) -> Result<JobId, Invalid> {
    let hint = "expected 26 characters of Crockford base32, or nothing for a new one";
    match text.parse::<JobId>() {
        Ok(JobId(0)) => Err(Invalid(vec![format!("job_id is zero, which is no job; {hint}")])),
        Ok(job) => Ok(job),
        Err(error) => Err(Invalid(vec![format!("{error}; {hint}")])),
    }
}

/// Reads the digest of an artifact.
///
/// # Errors
/// [`Invalid`] unless it is 64 hexadecimal digits.
pub(crate) fn digest(text: &str) -> Result<Digest, Invalid> {
    text.parse().map_err(|error| {
        Invalid(vec![format!("{error}; expected the digest of an artifact as its job names it")])
    })
}

/// Reads the address of a member.
///
/// # Errors
/// [`Invalid`] unless it is `http://host:port`.
pub(crate) fn address(text: &str) -> Result<String, Invalid> {
    let fault = || Invalid(vec![format!("address `{text}`: expected http://host:port")]);
    crate::config::address_of(text).ok_or_else(fault)
}

/// Reads the id of a member.
///
/// # Errors
/// [`Invalid`] for zero.
pub(crate) fn node(id: u64) -> Result<NodeId, Invalid> {
    let fault = || Invalid(vec!["node: expected the id of a member, got 0".to_owned()]);
    (id > 0).then_some(NodeId(id)).ok_or_else(fault)
}

/// What was asked for, or the default where that is 0.
fn or_default<T: Default + PartialEq>(asked: T, default: T) -> T {
    if asked == T::default() { default } else { asked }
}

fn check_name(name: &str, text: &str, faults: &mut Vec<String>) {
    if text.len() > NAME_BYTES_MAX {
        let bytes = text.len();
        faults.push(format!("{name} has {bytes} bytes, expected at most {NAME_BYTES_MAX}"));
    }
    if text.chars().any(char::is_control) {
        faults.push(format!("{name} holds a control character; expected plain text"));
    }
}

fn check_parameters(asked: &TextToImage, faults: &mut Vec<String>) {
    if asked.prompt.len() > PROMPT_BYTES_MAX {
        let bytes = asked.prompt.len();
        faults.push(format!(
            "prompt has {bytes} bytes, expected at most {PROMPT_BYTES_MAX}; shorten it, the model \
             reads 512 tokens"
        ));
    }
    check_side("width", asked.width, faults);
    check_side("height", asked.height, faults);
    if asked.steps > STEPS_ASKED_MAX {
        let steps = asked.steps;
        faults.push(format!(
            "steps {steps}: expected 1 to {STEPS_ASKED_MAX}, or 0 for the model's default"
        ));
    }
    if asked.images > IMAGES_MAX {
        let images = asked.images;
        faults.push(format!(
            "images {images}: expected 1 to {IMAGES_MAX}; submit several jobs for more"
        ));
    }
    if asked.seed.checked_add(u64::from(asked.images.max(1)) - 1).is_none() {
        let (seed, images) = (asked.seed, asked.images);
        faults.push(format!(
            "seed {seed} with {images} images goes beyond 64 bits; use a smaller seed"
        ));
    }
    if let Some(guidance) = &asked.guidance {
        let bytes = guidance.negative_prompt.len();
        if bytes > NEGATIVE_BYTES_MAX {
            faults.push(format!(
                "negative_prompt has {bytes} bytes, expected at most {NEGATIVE_BYTES_MAX}; shorten it"
            ));
        }
        let scale = guidance.scale;
        if !(scale > 0.0 && scale <= GUIDANCE_MAX) {
            faults.push(format!(
                "guidance {scale}: expected more than 0 and at most {GUIDANCE_MAX}; leave it out \
                 for none"
            ));
        }
    }
    let strength = asked.source.as_ref().map_or(0.0, |source| source.strength);
    if strength != 0.0 && !(STRENGTH_MIN..=1.0).contains(&strength) {
        faults.push(format!(
            "strength {strength}: expected {STRENGTH_MIN} to 1, or 0 for the default"
        ));
    }
}

/// Checks one side of a picture; a fault names the nearest sizes that fit.
fn check_side(name: &str, side: u32, faults: &mut Vec<String>) {
    if side == 0 {
        return;
    }
    if !(SIDE_MIN..=SIDE_MAX).contains(&side) {
        let nearest = side.clamp(SIDE_MIN, SIDE_MAX);
        faults.push(format!(
            "{name} {side}: expected a multiple of {SIDE_MULTIPLE} from {SIDE_MIN} to {SIDE_MAX}, \
             or 0 for the model's default; use {nearest}"
        ));
    } else if !side.is_multiple_of(SIDE_MULTIPLE) {
        let below = side / SIDE_MULTIPLE * SIDE_MULTIPLE;
        let above = below + SIDE_MULTIPLE;
        faults.push(format!(
            "{name} {side} is not a multiple of {SIDE_MULTIPLE}; use {below} or {above}"
        ));
    }
}

/// The field, or the metadata of a name where the field is empty; quotes of a structured string are
/// dropped.
fn or_metadata(field: String, metadata: &MetadataMap, name: &str) -> String {
    if !field.is_empty() {
        return field;
    }
    let value = metadata.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    value.trim_matches('"').to_owned()
}

/// A job's place in the queue: 1 for the next, 0 when it does not wait. The cost grows with the
/// place.
pub(crate) fn position(state: &State, job: JobId) -> u64 {
    state.position(job).map_or(0, |before| before as u64 + 1)
}

/// A job as clients see it.
pub(crate) fn job(job: &Job, position: u64) -> wire::Job {
    let error = match job.phase {
        Phase::Cancelled => job.cancel_reason.clone(),
        _ => job.last_error().unwrap_or_default().to_owned(),
    };
    let made = || job.attempts.iter().filter(|attempt| attempt.was_made());
    wire::Job {
        job_id: job.id().to_string(),
        phase: phase(&job.phase).into(),
        tenant: job.submit.tenant.to_string(),
        priority: u32::from(job.submit.priority),
        submitted_ms: job.submit.submitted_ms,
        finished_ms: job.finished_ms,
        log_index: job.accepted.0,
        attempts: made().count() as u32,
        leases: job.leases,
        node: job.last_node.map_or(0, |node| node.0),
        token: job.last_token.map_or(0, |token| token.0),
        position,
        error,
        artifacts: job.artifacts.iter().map(artifact).collect(),
        failed_attempts: made().map(failed_attempt).collect(),
        retry_at_ms: job.retry_at_ms,
        deadline_ms: job.submit.deadline_ms,
        max_runtime_s: job.submit.max_runtime_s,
        retry_of: job.submit.retry_of.map_or_else(String::new, |job| job.to_string()),
        parameters: parameters(job).map(wire::job::Parameters::TextToImage),
    }
}

fn failed_attempt(attempt: &Attempt) -> wire::FailedAttempt {
    wire::FailedAttempt {
        node: attempt.node.0,
        token: attempt.token.0,
        error: attempt.error.clone(),
        failed_ms: attempt.failed_ms,
    }
}

/// None for a kind that this version does not know.
fn parameters(job: &Job) -> Option<wire::TextToImage> {
    let asked = TextToImage::decode(&job.submit.kind, &job.submit.parameters).ok()?;
    Some(asked.to_wire())
}

fn artifact(artifact: &ArtifactRef) -> wire::Artifact {
    wire::Artifact {
        digest: artifact.digest.to_string(),
        bytes: artifact.bytes,
        media_type: artifact.media_type.clone(),
    }
}

fn phase(phase: &Phase) -> wire::Phase {
    match phase {
        Phase::Queued => wire::Phase::Queued,
        Phase::Leased(_) => wire::Phase::Leased,
        Phase::Succeeded => wire::Phase::Succeeded,
        Phase::Failed => wire::Phase::Failed,
        Phase::Cancelled => wire::Phase::Cancelled,
    }
}

/// Lists jobs, newest first. Of terminal phases alone those come first that ended last, and nothing
/// else is walked.
///
/// # Errors
/// [`Invalid`] for a limit or a phase that does not exist, and for a place that no reply named.
pub(crate) fn list_jobs(
    state: &State,
    request: &wire::ListJobsRequest,
) -> Result<wire::ListJobsReply, Invalid> {
    let mut faults = Vec::new();
    let limit = match request.limit as usize {
        0 => LIST_JOBS_DEFAULT,
        limit if limit <= LIST_JOBS_MAX => limit,
        limit => {
            faults.push(format!("limit {limit}: expected 1 to {LIST_JOBS_MAX}, or 0 for 100"));
            0
        }
    };
    let mut asked = BTreeSet::new();
    for number in &request.phases {
        match wire::Phase::try_from(*number) {
            Ok(wire::Phase::Unspecified) | Err(_) => {
                faults.push(format!(
                    "phase {number}: expected queued, leased, succeeded, failed or \
                                     cancelled (1 to 5)"
                ));
            }
            Ok(phase) => {
                asked.insert(phase as i32);
            }
        }
    }
    let after = queue::After::parse(&request.after, &asked).unwrap_or_else(|fault| {
        faults.push(fault);
        None
    });
    if !faults.is_empty() {
        return Err(Invalid(faults));
    }
    Ok(match queue::ended_alone(&asked) {
        true => queue::list_ended(state, &asked, limit, after),
        false => list_arrived(state, &asked, limit, after),
    })
}

/// Lists jobs of any phases, newest first, from behind a place on.
fn list_arrived(
    state: &State,
    asked: &BTreeSet<i32>,
    limit: usize,
    after: Option<queue::After>,
) -> wire::ListJobsReply {
    let before = match after {
        Some(queue::After::Sequence(sequence)) => sequence,
        Some(queue::After::Ended(_)) | None => u64::MAX,
    };
    let matches = |job: &Job| asked.is_empty() || asked.contains(&i32::from(phase(&job.phase)));
    // Only the newest `limit` are kept while walking, so that the answer's cost has a bound.
    let mut newest = BTreeMap::new();
    let (mut total, mut more) = (0, false);
    for (_, found) in state.jobs().filter(|(_, job)| matches(job)) {
        total += 1;
        if found.sequence >= before {
            continue;
        }
        newest.insert(found.sequence, found);
        if newest.len() > limit {
            newest.pop_first();
            more = true;
        }
    }
    let last = newest.keys().next().filter(|_| more).copied();
    let next = last.map_or_else(String::new, |last| queue::After::Sequence(last).to_string());
    let place = |found: &Job| position(state, found.id());
    let jobs = newest.values().rev().map(|found| job(found, place(found))).collect();
    wire::ListJobsReply { jobs, total, next }
}

/// What the leader knows of one member beside the roster.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Opinion {
    /// Heard from within the lease time.
    pub(crate) alive: bool,
    /// On its disk; 0: not known.
    pub(crate) matched: u64,
    /// The highest feature level that its process understands; 0: not known.
    pub(crate) features: u32,
}

/// Every member of the Raft cluster, in order of their ids.
pub(crate) fn members(
    status: &RaftStatus,
    state: &State,
    opinions: &BTreeMap<NodeId, Opinion>,
) -> Vec<wire::Member> {
    let all = status.voters.union(&status.learners);
    all.map(|node| member(*node, status, state, opinions)).collect()
}

/// One member, whether or not the roster knows it yet.
pub(crate) fn member(
    node: NodeId,
    status: &RaftStatus,
    state: &State,
    opinions: &BTreeMap<NodeId, Opinion>,
) -> wire::Member {
    let role = match (status.voters.contains(&node), status.learners.contains(&node)) {
        (true, _) => wire::MemberRole::Voter,
        (false, true) => wire::MemberRole::Learner,
        (false, false) => wire::MemberRole::Unspecified,
    };
    let known = state.node(node);
    let address = status.addresses.get(&node).cloned();
    let opinion = opinions.get(&node).copied().unwrap_or_default();
    wire::Member {
        node: node.0,
        address: address.or_else(|| known.map(|n| n.address.clone())).unwrap_or_default(),
        role: role.into(),
        leader: status.leader == Some(node),
        alive: opinion.alive,
        slots: known.map_or(0, |n| n.slots),
        leases: state.leases_of(node).count() as u32,
        engine: known.map_or_else(String::new, |n| n.class.clone()),
        model: known.map_or_else(String::new, |n| n.model.clone()),
        matched_index: opinion.matched,
        witness: known.is_some_and(|n| n.witness),
        draining: known.is_some_and(|n| n.draining),
        labels: known.map(|n| n.labels.clone()).unwrap_or_default(),
        features: opinion.features,
    }
}

#[cfg(test)]
mod tests;
