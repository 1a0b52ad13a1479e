//! A job, the cluster, the queue and the settings as `/api/v1` shows them.

use crate::parameters::STRENGTH_DEFAULT;
use atelier_proto::client::v1 as wire;
use serde_json::{Value, json};

/// The word for a phase.
pub(super) fn phase_name(phase: wire::Phase) -> &'static str {
    match phase {
        wire::Phase::Unspecified => "unknown",
        wire::Phase::Queued => "queued",
        wire::Phase::Leased => "running",
        wire::Phase::Succeeded => "succeeded",
        wire::Phase::Failed => "failed",
        wire::Phase::Cancelled => "cancelled",
    }
}

/// The phase of a word.
pub(super) fn phase_of(name: &str) -> Option<wire::Phase> {
    use wire::Phase::{Cancelled, Failed, Leased, Queued, Succeeded};
    [Queued, Leased, Succeeded, Failed, Cancelled].into_iter().find(|p| phase_name(*p) == name)
}

pub(super) fn is_terminal(phase: wire::Phase) -> bool {
    matches!(phase, wire::Phase::Succeeded | wire::Phase::Failed | wire::Phase::Cancelled)
}

pub(super) fn picture_of(job: &wire::Job) -> wire::TextToImage {
    match &job.parameters {
        Some(wire::job::Parameters::TextToImage(asked)) => asked.clone(),
        None => wire::TextToImage::default(),
    }
}

pub(super) fn job(job: &wire::Job) -> Value {
    let asked = picture_of(job);
    let image = |(at, artifact): (usize, &wire::Artifact)| {
        json!({
            "digest": artifact.digest,
            "bytes": artifact.bytes,
            "media_type": artifact.media_type,
            "seed": asked.seed.saturating_add(at as u64),
            "url": format!("/api/v1/jobs/{}/images/{at}", job.job_id),
            "artifact_url": format!("/api/v1/artifacts/{}", artifact.digest),
        })
    };
    let failed = |attempt: &wire::FailedAttempt| {
        json!({
            "node": attempt.node,
            "token": attempt.token,
            "error": attempt.error,
            "failed_ms": attempt.failed_ms,
        })
    };
    let mut told = json!({
        "id": job.job_id,
        "phase": phase_name(job.phase()),
        "prompt": asked.prompt,
        "width": asked.width,
        "height": asked.height,
        "steps": asked.steps,
        "seed": asked.seed,
        "count": asked.images.max(1),
        "tenant": job.tenant,
        "priority": job.priority,
        "position": job.position,
        "attempt": job.leases,
        "node": job.node,
        "token": job.token,
        "log_index": job.log_index,
        "submitted_ms": job.submitted_ms,
        "finished_ms": job.finished_ms,
        "retry_at_ms": job.retry_at_ms,
        "deadline_ms": job.deadline_ms,
        "max_runtime_s": job.max_runtime_s,
        "retry_of": job.retry_of,
        "error": job.error,
        "images": job.artifacts.iter().enumerate().map(image).collect::<Vec<_>>(),
        "failed_attempts": job.failed_attempts.iter().map(failed).collect::<Vec<_>>(),
    });
    if let Some(guidance) = &asked.guidance {
        told["guidance"] = json!(guidance.scale);
        told["negative_prompt"] = json!(guidance.negative_prompt);
    }
    if let Some(source) = &asked.source {
        told["image"] = json!(source.image);
        told["strength"] = json!(strength_of(source));
        told["mask"] = json!(Some(&source.mask).filter(|mask| !mask.is_empty()));
    }
    told
}

/// How much of a picture is drawn anew.
pub(super) fn strength_of(source: &wire::Source) -> f64 {
    if source.strength == 0.0 { STRENGTH_DEFAULT } else { source.strength }
}

pub(super) fn progress(progress: &wire::Progress) -> Value {
    json!({
        "node": progress.node,
        "token": progress.token,
        "stage": progress.stage,
        "image": progress.image,
        "step": progress.step,
        "steps": progress.steps,
    })
}

pub(super) fn cluster(status: &wire::StatusReply) -> Value {
    json!({
        "cluster": status.cluster,
        "node": status.node,
        "leader": status.leader,
        "term": status.term,
        "last_log_index": status.last_log_index,
        "commit_index": status.commit_index,
        "applied_index": status.applied_index,
        "state_digest": status.state_digest,
        "version": status.version,
        "features": status.features,
        "settings_version": status.settings_version,
        "paused": status.paused,
        "queued": status.queued,
        "running": status.leased,
        "ended": status.terminal,
        "members": status.members.iter().map(member).collect::<Vec<_>>(),
    })
}

pub(super) fn member(member: &wire::Member) -> Value {
    let role = match member.role() {
        wire::MemberRole::Voter => "voter",
        wire::MemberRole::Learner => "learner",
        wire::MemberRole::Unspecified => "unknown",
    };
    json!({
        "node": member.node,
        "address": member.address,
        "role": role,
        "leader": member.leader,
        "alive": member.alive,
        "witness": member.witness,
        "draining": member.draining,
        "slots": member.slots,
        "leases": member.leases,
        "engine": member.engine,
        "model": member.model,
        "labels": member.labels,
        "matched_index": member.matched_index,
        "features": member.features,
    })
}

pub(super) fn queue(stats: &wire::QueueStatsReply) -> Value {
    let priority = |p: &wire::PriorityStats| {
        json!({
            "priority": p.priority,
            "queued": p.queued,
            "oldest_ms": p.oldest_ms,
        })
    };
    let tenant = |t: &wire::TenantStats| {
        json!({
            "tenant": t.tenant,
            "queued": t.queued,
            "running": t.leased,
            "weight": t.weight,
        })
    };
    json!({
        "queued": stats.queued,
        "delayed": stats.delayed,
        "running": stats.leased,
        "succeeded": stats.succeeded,
        "failed": stats.failed,
        "cancelled": stats.cancelled,
        "forgotten": stats.forgotten,
        "paused": stats.paused,
        "jobs_max": stats.jobs_max,
        "tenant_jobs_max": stats.tenant_jobs_max,
        "priorities": stats.priorities.iter().map(priority).collect::<Vec<_>>(),
        "tenants": stats.tenants.iter().map(tenant).collect::<Vec<_>>(),
    })
}

/// The value of a setting; null where it has the default.
pub(super) fn value(value: Option<wire::SettingValue>) -> Value {
    match value.and_then(|value| value.value) {
        Some(wire::setting_value::Value::Number(number)) => json!(number),
        Some(wire::setting_value::Value::Flag(flag)) => json!(flag),
        None => Value::Null,
    }
}

pub(super) fn config(settings: &wire::SettingsReply) -> Value {
    let setting = |one: &wire::Setting| {
        json!({
            "key": one.key,
            "value": value(one.value),
            "default": value(one.default),
            "least": one.least,
            "most": one.most,
            "unit": one.unit,
            "about": one.about,
            "version": one.version,
        })
    };
    let settings_of = settings.settings.iter().map(setting).collect::<Vec<_>>();
    json!({ "version": settings.version, "settings": settings_of })
}
