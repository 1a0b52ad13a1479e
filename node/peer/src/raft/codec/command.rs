//! Commands.
//!
//! The format of a command is the feature level that it needs: what the version before understands
//! keeps its bytes and its format, so that both can run in one cluster.

use super::records::{author_from_proto, author_to_proto, change_from_proto, change_to_proto};
use super::{COMMAND_FORMAT, DecodeError, array, check_format};
use atelier_proto::peer::v1 as pb;
use atelier_proto::peer::v1::command::Command as Kind;
use atelier_state::{
    AllocateNode, ArtifactRef, Assign, Author, Cancel, Command, Complete, Digest, Expire, Fail,
    FencingToken, Forget, ForgetKeys, JobId, NodeId, NoteAct, RaiseFeatures, RegisterNode, Release,
    RemoveNode, Revoke, RevokeReason, SetNode, SetSettings, Submit, TenantKey, limits,
};
use bytes::Bytes;

/// Encodes a command.
pub fn command_to_proto(command: &Command) -> pb::Command {
    let kind = match command {
        Command::Submit(submit) => Kind::Submit(submit_to_proto(submit)),
        Command::Assign(assign) => Kind::Assign(pb::Assign {
            job: job_bytes(assign.job),
            node: assign.node.0,
            incarnation: assign.incarnation,
        }),
        Command::Complete(complete) => Kind::Complete(pb::Complete {
            job: job_bytes(complete.job),
            token: complete.token.0,
            artifacts: complete.artifacts.iter().map(artifact_to_proto).collect(),
            finished_ms: complete.finished_ms,
        }),
        Command::Fail(fail) => Kind::Fail(pb::Fail {
            job: job_bytes(fail.job),
            token: fail.token.0,
            error: fail.error.clone(),
            permanent: fail.permanent,
            finished_ms: fail.finished_ms,
        }),
        Command::Revoke(revoke) => Kind::Revoke(pb::Revoke {
            job: job_bytes(revoke.job),
            token: revoke.token.0,
            reason: reason_to_proto(revoke.reason).into(),
        }),
        Command::Cancel(cancel) => Kind::Cancel(pb::Cancel {
            job: job_bytes(cancel.job),
            reason: cancel.reason.clone(),
            finished_ms: cancel.finished_ms,
        }),
        Command::Forget(forget) => {
            Kind::Forget(pb::Forget { jobs: forget.jobs.iter().copied().map(job_bytes).collect() })
        }
        Command::AllocateNode(allocate) => {
            Kind::AllocateNode(pb::AllocateNode { address: allocate.address.clone() })
        }
        Command::RegisterNode(register) => Kind::RegisterNode(register_to_proto(register)),
        Command::RemoveNode(RemoveNode { node, author }) => {
            let author = (*author != Author::default()).then(|| author_to_proto(author));
            Kind::RemoveNode(pb::RemoveNode { node: node.0, author })
        }
        later => later_to_proto(later),
    };
    pb::Command { format: command.features(), command: Some(kind) }
}

/// Encodes what came with feature level 2 and later ones.
fn later_to_proto(command: &Command) -> Kind {
    match command {
        Command::Release(release) => Kind::Release(pb::Release {
            jobs: release.jobs.iter().copied().map(job_bytes).collect(),
        }),
        Command::Expire(expire) => {
            Kind::Expire(pb::Expire { job: job_bytes(expire.job), finished_ms: expire.finished_ms })
        }
        Command::ForgetKeys(forget) => Kind::ForgetKeys(pb::ForgetKeys {
            keys: forget.keys.iter().map(key_to_proto).collect(),
        }),
        Command::SetSettings(set) => Kind::SetSettings(pb::SetSettings {
            expected_version: set.expected_version,
            changes: set.changes.iter().map(change_to_proto).collect(),
            author: Some(author_to_proto(&set.author)),
        }),
        Command::SetNode(set) => Kind::SetNode(pb::SetNode {
            node: set.node.0,
            draining: set.draining,
            labels_set: set.labels_set.clone(),
            labels_removed: set.labels_removed.clone(),
            author: Some(author_to_proto(&set.author)),
        }),
        Command::RaiseFeatures(RaiseFeatures { level }) => {
            Kind::RaiseFeatures(pb::RaiseFeatures { level: *level })
        }
        Command::Mark => Kind::Mark(pb::Mark {}),
        Command::NoteAct(note) => Kind::NoteAct(pb::NoteAct {
            act: note.act.clone(),
            author: Some(author_to_proto(&note.author)),
        }),
        // Named, so that the compiler asks for one that is new.
        Command::Submit(_)
        | Command::Assign(_)
        | Command::Complete(_)
        | Command::Fail(_)
        | Command::Revoke(_)
        | Command::Cancel(_)
        | Command::Forget(_)
        | Command::AllocateNode(_)
        | Command::RegisterNode(_)
        | Command::RemoveNode(_) => unreachable!("a command of the first level"),
    }
}

/// Decodes a command. Whether it makes sense is for `State::apply` to say.
///
/// # Errors
/// When a field cannot be what it should be, or the command is of a kind or format that this version does not know.
pub fn command_from_proto(command: pb::Command) -> Result<Command, DecodeError> {
    check_format("command.format", command.format, COMMAND_FORMAT)?;
    let format = command.format;
    let kind = command.command.ok_or_else(|| DecodeError::missing("command"))?;
    let command = command_of(kind)?;
    if format < command.features() {
        let needed = command.features();
        let reason = format!("format {format} of a command that needs format {needed}");
        return Err(DecodeError::new("command.format", reason));
    }
    Ok(command)
}

fn command_of(kind: Kind) -> Result<Command, DecodeError> {
    Ok(match kind {
        Kind::Submit(submit) => Command::Submit(submit_from_proto(submit)?),
        Kind::Assign(assign) => Command::Assign(Assign {
            job: job("assign.job", &assign.job)?,
            node: NodeId(assign.node),
            incarnation: assign.incarnation,
        }),
        Kind::Complete(complete) => Command::Complete(Complete {
            job: job("complete.job", &complete.job)?,
            token: FencingToken(complete.token),
            artifacts: artifacts_from_proto("complete.artifacts", complete.artifacts)?,
            finished_ms: complete.finished_ms,
        }),
        Kind::Fail(fail) => Command::Fail(Fail {
            job: job("fail.job", &fail.job)?,
            token: FencingToken(fail.token),
            error: fail.error,
            permanent: fail.permanent,
            finished_ms: fail.finished_ms,
        }),
        Kind::Revoke(revoke) => Command::Revoke(Revoke {
            job: job("revoke.job", &revoke.job)?,
            token: FencingToken(revoke.token),
            reason: reason_from_proto(revoke.reason)?,
        }),
        Kind::Cancel(cancel) => Command::Cancel(Cancel {
            job: job("cancel.job", &cancel.job)?,
            reason: cancel.reason,
            finished_ms: cancel.finished_ms,
        }),
        Kind::Forget(forget) => {
            Command::Forget(Forget { jobs: jobs("forget.jobs", &forget.jobs)? })
        }
        Kind::AllocateNode(allocate) => {
            Command::AllocateNode(AllocateNode { address: allocate.address })
        }
        Kind::RegisterNode(register) => Command::RegisterNode(register_from_proto(register)),
        Kind::RemoveNode(remove) => Command::RemoveNode(RemoveNode {
            node: NodeId(remove.node),
            author: author_from_proto(remove.author),
        }),
        later => later_from_proto(later)?,
    })
}

/// Decodes what came with feature level 2 and later ones.
fn later_from_proto(kind: Kind) -> Result<Command, DecodeError> {
    Ok(match kind {
        Kind::Release(release) => {
            Command::Release(Release { jobs: jobs("release.jobs", &release.jobs)? })
        }
        Kind::Expire(expire) => Command::Expire(Expire {
            job: job("expire.job", &expire.job)?,
            finished_ms: expire.finished_ms,
        }),
        Kind::ForgetKeys(forget) => Command::ForgetKeys(ForgetKeys {
            keys: forget.keys.into_iter().map(key_from_proto).collect(),
        }),
        Kind::SetSettings(set) => Command::SetSettings(SetSettings {
            expected_version: set.expected_version,
            changes: set.changes.into_iter().map(change_from_proto).collect::<Result<_, _>>()?,
            author: author_from_proto(set.author),
        }),
        Kind::SetNode(set) => Command::SetNode(SetNode {
            node: NodeId(set.node),
            draining: set.draining,
            labels_set: set.labels_set,
            labels_removed: set.labels_removed,
            author: author_from_proto(set.author),
        }),
        Kind::RaiseFeatures(pb::RaiseFeatures { level }) if level > limits::FEATURES => {
            let latest = limits::FEATURES;
            let reason = format!("feature level {level} is not 1..={latest}; upgrade this node");
            return Err(DecodeError::new("raise_features.level", reason));
        }
        Kind::RaiseFeatures(pb::RaiseFeatures { level }) => {
            Command::RaiseFeatures(RaiseFeatures { level })
        }
        Kind::Mark(pb::Mark {}) => Command::Mark,
        Kind::NoteAct(note) => {
            Command::NoteAct(NoteAct { act: note.act, author: author_from_proto(note.author) })
        }
        _ => return Err(DecodeError::missing("command")),
    })
}

fn register_to_proto(register: &RegisterNode) -> pb::RegisterNode {
    pb::RegisterNode {
        node: register.node.0,
        address: register.address.clone(),
        incarnation: register.incarnation,
        slots: register.slots,
        class: register.class.clone(),
        model: register.model.clone(),
        witness: register.witness,
    }
}

fn register_from_proto(register: pb::RegisterNode) -> RegisterNode {
    RegisterNode {
        node: NodeId(register.node),
        address: register.address,
        incarnation: register.incarnation,
        slots: register.slots,
        class: register.class,
        model: register.model,
        witness: register.witness,
    }
}

fn key_to_proto(key: &TenantKey) -> pb::TenantKey {
    pb::TenantKey { tenant: key.tenant.to_string(), key: key.key.to_string() }
}

fn key_from_proto(key: pb::TenantKey) -> TenantKey {
    TenantKey { tenant: key.tenant.into(), key: key.key.into() }
}

pub(super) fn submit_to_proto(submit: &Submit) -> pb::Submit {
    pb::Submit {
        job: job_bytes(submit.job),
        tenant: submit.tenant.to_string(),
        idempotency_key: submit.idempotency_key.as_deref().map(str::to_owned),
        priority: submit.priority.into(),
        kind: submit.kind.to_string(),
        parameters: submit.parameters.clone(),
        traceparent: submit.traceparent.clone(),
        submitted_ms: submit.submitted_ms,
        attempts_max: submit.attempts_max,
        deadline_ms: submit.deadline_ms,
        max_runtime_s: submit.max_runtime_s,
        // Format 1 has no cost, and 0 is read as 1.
        cost: if submit.cost == 1 { 0 } else { submit.cost },
        retry_of: submit.retry_of.map(job_bytes),
    }
}

pub(super) fn submit_from_proto(submit: pb::Submit) -> Result<Submit, DecodeError> {
    let priority = u8::try_from(submit.priority).map_err(|_| {
        DecodeError::new("submit.priority", format!("{} is above {}", submit.priority, u8::MAX))
    })?;
    Ok(Submit {
        job: job("submit.job", &submit.job)?,
        tenant: submit.tenant.into(),
        idempotency_key: submit.idempotency_key.map(Into::into),
        priority,
        kind: submit.kind.into(),
        // A copy: they are kept as long as the job, and would keep all that came with them.
        parameters: Bytes::copy_from_slice(&submit.parameters),
        traceparent: submit.traceparent,
        submitted_ms: submit.submitted_ms,
        attempts_max: submit.attempts_max,
        deadline_ms: submit.deadline_ms,
        max_runtime_s: submit.max_runtime_s,
        cost: submit.cost.max(1),
        retry_of: submit.retry_of.map(|id| job("submit.retry_of", &id)).transpose()?,
    })
}

pub(super) fn artifact_to_proto(artifact: &ArtifactRef) -> pb::ArtifactRef {
    pb::ArtifactRef {
        digest: Bytes::copy_from_slice(&artifact.digest.0),
        bytes: artifact.bytes,
        media_type: artifact.media_type.clone(),
        holders: artifact.holders.iter().map(|node| node.0).collect(),
    }
}

pub(super) fn artifacts_from_proto(
    what: &'static str,
    artifacts: Vec<pb::ArtifactRef>,
) -> Result<Vec<ArtifactRef>, DecodeError> {
    let decode = |artifact: pb::ArtifactRef| {
        Ok(ArtifactRef {
            digest: Digest(array(what, &artifact.digest)?),
            bytes: artifact.bytes,
            media_type: artifact.media_type,
            holders: kept(artifact.holders.into_iter().map(NodeId).collect()),
        })
    };
    artifacts.into_iter().map(decode).collect::<Result<_, _>>().map(kept)
}

/// Gives a vector the size of what it holds. A decoded one has room for four at least, and collected in place it keeps
/// that: some 300 bytes in each of a million jobs.
pub(super) fn kept<T>(mut decoded: Vec<T>) -> Vec<T> {
    decoded.shrink_to_fit();
    decoded
}

pub(super) fn job_bytes(job: JobId) -> Bytes {
    Bytes::copy_from_slice(&job.to_bytes())
}

pub(super) fn job(what: &'static str, bytes: &[u8]) -> Result<JobId, DecodeError> {
    Ok(JobId::from_bytes(array(what, bytes)?))
}

fn jobs(what: &'static str, ids: &[Bytes]) -> Result<Vec<JobId>, DecodeError> {
    ids.iter().map(|bytes| job(what, bytes)).collect()
}

fn reason_to_proto(reason: RevokeReason) -> pb::RevokeReason {
    match reason {
        RevokeReason::Silent => pb::RevokeReason::Silent,
        RevokeReason::Drained => pb::RevokeReason::Drained,
        RevokeReason::Restarted => pb::RevokeReason::Restarted,
    }
}

fn reason_from_proto(number: i32) -> Result<RevokeReason, DecodeError> {
    let reason = pb::RevokeReason::try_from(number).unwrap_or_default();
    match reason {
        pb::RevokeReason::Silent => Ok(RevokeReason::Silent),
        pb::RevokeReason::Drained => Ok(RevokeReason::Drained),
        pb::RevokeReason::Restarted => Ok(RevokeReason::Restarted),
        pb::RevokeReason::Unspecified => {
            Err(DecodeError::new("revoke.reason", format!("{number} is not a reason")))
        }
    }
}
