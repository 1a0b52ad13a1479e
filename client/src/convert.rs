//! Turns generated types into those of `types` and back. The only place that knows both.
//!
//! Checks what it reads: an answer that breaks the contract is [`Error::Malformed`], not a
//! default value.

pub(crate) mod operations;
mod queue;
mod settings;

use std::time::Duration;

use atelier_proto::client::v1 as wire;

use crate::error::Error;
use crate::types::{
    Accepted, Artifact, Event, Guidance, Job, JobId, JobPage, Member, Phase, Preview, Progress,
    Role, Source, Stage, Status, Submission, TextToImage,
};

pub(crate) use queue::{batch_outcomes, purged, queue_stats};
pub(crate) use settings::{author_to_wire, change_to_wire, history, settings, trail};

fn malformed(what: String) -> Error {
    Error::Malformed { what }
}

fn job_id(text: &str) -> Result<JobId, Error> {
    text.parse().map_err(|_| malformed(format!("expected a job id, got {text:?}")))
}

/// Zero stands for "none" on the wire.
fn some(value: u64) -> Option<u64> {
    (value != 0).then_some(value)
}

pub(crate) fn submit_request(submission: &Submission) -> wire::SubmitRequest {
    let text_to_image = text_to_image_to_wire(submission.parameters.clone());
    wire::SubmitRequest {
        job_id: submission.job.to_string(),
        tenant: submission.tenant.clone(),
        idempotency_key: submission.idempotency_key.clone(),
        priority: submission.priority.map_or(0, |priority| u32::from(priority) + 1),
        traceparent: submission.traceparent.clone(),
        deadline_s: submission.deadline_s.unwrap_or(0),
        max_runtime_s: submission.max_runtime_s.unwrap_or(0),
        parameters: Some(wire::submit_request::Parameters::TextToImage(text_to_image)),
    }
}

fn text_to_image_to_wire(parameters: TextToImage) -> wire::TextToImage {
    let TextToImage { prompt, width, height, steps, seed, images, guidance, source } = parameters;
    let guidance = guidance
        .map(|Guidance { scale, negative_prompt }| wire::Guidance { scale, negative_prompt });
    let source = source.map(|Source { image, strength, mask }| wire::Source {
        image,
        strength: strength.unwrap_or(0.0),
        mask: mask.unwrap_or_default(),
    });
    wire::TextToImage { prompt, width, height, steps, seed, images, guidance, source }
}

fn text_to_image(text: wire::TextToImage) -> TextToImage {
    let wire::TextToImage { prompt, width, height, steps, seed, images, guidance, source } = text;
    let guidance = guidance
        .map(|wire::Guidance { scale, negative_prompt }| Guidance { scale, negative_prompt });
    let source = source.map(|wire::Source { image, strength, mask }| Source {
        image,
        strength: (strength != 0.0).then_some(strength),
        mask: Some(mask).filter(|mask| !mask.is_empty()),
    });
    TextToImage { prompt, width, height, steps, seed, images, guidance, source }
}

/// The same wish as another job, as a client asks that makes an id for each attempt.
pub(crate) fn another(mut request: wire::SubmitRequest) -> wire::SubmitRequest {
    request.idempotency_key.push_str(" again");
    request.job_id.replace_range(16..17, "Z");
    request
}

pub(crate) fn accepted(reply: &wire::SubmitReply) -> Result<Accepted, Error> {
    let job = job_id(&reply.job_id)?;
    Ok(Accepted { job, duplicate: reply.duplicate, log_index: reply.log_index })
}

pub(crate) fn phase_to_wire(phase: Phase) -> wire::Phase {
    match phase {
        Phase::Queued => wire::Phase::Queued,
        Phase::Leased => wire::Phase::Leased,
        Phase::Succeeded => wire::Phase::Succeeded,
        Phase::Failed => wire::Phase::Failed,
        Phase::Cancelled => wire::Phase::Cancelled,
    }
}

fn phase(number: i32) -> Result<Phase, Error> {
    match wire::Phase::try_from(number) {
        Ok(wire::Phase::Queued) => Ok(Phase::Queued),
        Ok(wire::Phase::Leased) => Ok(Phase::Leased),
        Ok(wire::Phase::Succeeded) => Ok(Phase::Succeeded),
        Ok(wire::Phase::Failed) => Ok(Phase::Failed),
        Ok(wire::Phase::Cancelled) => Ok(Phase::Cancelled),
        Ok(wire::Phase::Unspecified) | Err(_) => {
            Err(malformed(format!("expected a phase of 1 to 5, got {number}")))
        }
    }
}

pub(crate) fn artifact(artifact: wire::Artifact) -> Result<Artifact, Error> {
    let wire::Artifact { digest, bytes, media_type } = artifact;
    let hexadecimal = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    if digest.len() != 64 || !digest.bytes().all(hexadecimal) {
        let what = format!("expected a digest of 64 hexadecimal digits, got {digest:?}");
        return Err(malformed(what));
    }
    Ok(Artifact { digest, bytes, media_type })
}

pub(crate) fn job(job: wire::Job) -> Result<Job, Error> {
    let parameters =
        job.parameters.map(|wire::job::Parameters::TextToImage(text)| text_to_image(text));
    let retry_of = Some(job.retry_of).filter(|text| !text.is_empty());
    Ok(Job {
        job: job_id(&job.job_id)?,
        phase: phase(job.phase)?,
        tenant: job.tenant,
        priority: job.priority,
        submitted_ms: job.submitted_ms,
        finished_ms: some(job.finished_ms),
        log_index: job.log_index,
        attempts: job.attempts,
        leases: job.leases,
        node: some(job.node),
        token: job.token,
        position: some(job.position),
        error: job.error,
        artifacts: job.artifacts.into_iter().map(artifact).collect::<Result<_, _>>()?,
        failed_attempts: job.failed_attempts.into_iter().map(queue::failed_attempt).collect(),
        retry_at_ms: some(job.retry_at_ms),
        deadline_ms: some(job.deadline_ms),
        max_runtime_s: (job.max_runtime_s > 0).then_some(job.max_runtime_s),
        retry_of: retry_of.map(|text| job_id(&text)).transpose()?,
        parameters,
    })
}

pub(crate) fn job_page(reply: wire::ListJobsReply) -> Result<JobPage, Error> {
    let jobs = reply.jobs.into_iter().map(job).collect::<Result<_, _>>()?;
    let next = Some(reply.next).filter(|next| !next.is_empty());
    Ok(JobPage { jobs, total: reply.total, next })
}

pub(crate) fn event(event: wire::JobEvent) -> Result<Event, Error> {
    let told = event.job.ok_or_else(|| malformed("expected a job in an event, got none".into()))?;
    let progress = event.progress.map(progress);
    let preview = Some(event.preview).filter(|png| !png.is_empty());
    let preview = preview.map(|png| Preview { png: png.into() });
    Ok(Event { job: job(told)?, log_index: event.log_index, progress, preview })
}

fn progress(progress: wire::Progress) -> Progress {
    let wire::Progress { node, token, stage, step, steps, image, .. } = progress;
    let [encode, denoise, decode] =
        [progress.encode_us, progress.denoise_us, progress.decode_us].map(Duration::from_micros);
    let stage = match stage.as_str() {
        "encode" => Stage::Encode,
        "denoise" => Stage::Denoise,
        "decode" => Stage::Decode,
        _ => Stage::Other(stage),
    };
    Progress { node, token, stage, step, steps, image, encode, denoise, decode }
}

pub(crate) fn status(reply: wire::StatusReply) -> Result<Status, Error> {
    Ok(Status {
        node: reply.node,
        leader: some(reply.leader),
        term: reply.term,
        last_log_index: reply.last_log_index,
        commit_index: reply.commit_index,
        applied_index: reply.applied_index,
        queued: reply.queued,
        leased: reply.leased,
        terminal: reply.terminal,
        version: reply.version,
        state_digest: reply.state_digest,
        members: members(reply.members)?,
        features: reply.features,
        paused: reply.paused,
        cluster: reply.cluster,
    })
}

pub(crate) fn members(members: Vec<wire::Member>) -> Result<Vec<Member>, Error> {
    members.into_iter().map(member).collect()
}

pub(crate) fn member(member: wire::Member) -> Result<Member, Error> {
    let role = match wire::MemberRole::try_from(member.role) {
        Ok(wire::MemberRole::Voter) => Role::Voter,
        Ok(wire::MemberRole::Learner) => Role::Learner,
        Ok(wire::MemberRole::Unspecified) | Err(_) => {
            let what = format!("expected a role of 1 to 2, got {}", member.role);
            return Err(malformed(what));
        }
    };
    Ok(Member {
        node: member.node,
        address: member.address,
        role,
        leader: member.leader,
        alive: member.alive,
        slots: member.slots,
        leases: member.leases,
        engine: member.engine,
        model: member.model,
        matched_index: some(member.matched_index),
        witness: member.witness,
        draining: member.draining,
        labels: member.labels.into_iter().collect(),
        features: member.features,
    })
}
